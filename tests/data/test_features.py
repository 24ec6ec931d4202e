"""Features in a cache: what is written, and that nothing that can happen while it is written harms
the cache."""

import errno
import fcntl
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import h5py
import numpy as np
import pytest

from eeg import UserError
from eeg.data import features
from eeg.data.cache import Cache
from eeg.data.features import add, compute
from eeg.models.features import FEATURES, TRANSITION, definitions
from tests.data.helpers import ROOT, command, files_left, made


@pytest.fixture
def path(release_folder):
    return made(release_folder, margin_s=0.1)[0].path


def contents(path):
    """Digest of all that a cache holds but its features. Reading every byte is the point."""
    with h5py.File(path, "r", locking=False) as f:
        known = [(k, v.tobytes() if hasattr(v, "tobytes") else v) for k, v in f.attrs.items()]
        digest = hashlib.sha256(repr(sorted(known)).encode())
        for name in sorted(set(f) - {"neuro_features"}):
            digest.update(name.encode() + f[name][()].tobytes())
        return digest.hexdigest()


def stored(path):
    """(features, names) as h5py alone reads them, or None."""
    with h5py.File(path, "r", locking=False) as f:
        there = f.get("neuro_features")
        return (
            None if there is None else (there[()], [name.decode() for name in there.attrs["names"]])
        )


def python(code, *arguments, **settings):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        **settings,
    )


# --------------------------------------------------------------------------- what is written


@pytest.mark.parametrize(
    "settings", [{}, {"margin_s": 0.25}, {"dtype": "float16"}, {"challenge": 2}]
)
def test_a_cache_gets_the_features_of_its_windows(release_folder, settings):
    report, cache = made(release_folder, **settings)
    before = contents(report.path)
    result = add(report.path, chunk=5)
    values, names = stored(report.path)
    assert result.computed and result.windows == len(cache)
    assert names == list(FEATURES) and values.dtype == np.float32
    inside = slice(cache.margin_samples, cache.margin_samples + cache.window_samples)
    X = np.stack([cache[i][:, inside] for i in range(len(cache))])
    np.testing.assert_array_equal(values, compute(X))
    np.testing.assert_array_equal(Cache(report.path).features, values)
    assert result.missing == {name: n for name, n in zip(names, np.isnan(values).sum(0)) if n}
    assert contents(report.path) == before and files_left(release_folder) == [report.path.name]


def test_up_to_date_features_are_kept(path, monkeypatch):
    assert add(path).computed and not add(path).computed
    size, before, inode = path.stat().st_size, contents(path), path.stat().st_ino
    for _ in range(3):  # each replaces the one before it
        assert add(path, force=True).computed
    assert contents(path) == before and path.stat().st_size < size + 3 * 60_000
    assert path.stat().st_ino == inode  # in place: no copy of X was made
    monkeypatch.setattr(features, "VERSION", features.VERSION + 1)
    assert add(path).computed and not add(path).computed


def test_a_group_joins_those_that_are_there(path):
    add(path)
    plain, cache = stored(path)[0], Cache(path)
    with pytest.raises(UserError, match="features transition of each.*run/features.py .*--groups"):
        cache.needed_features(("transition",))
    assert add(path, groups=("transition",), chunk=5).computed
    values, names = stored(path)
    assert names == [*FEATURES, *TRANSITION] and values.shape[1] == 126
    np.testing.assert_array_equal(values[:, :103], plain)
    inside = slice(cache.margin_samples, cache.margin_samples + cache.window_samples)
    X = np.stack([cache[i][:, inside] for i in range(len(cache))])
    np.testing.assert_array_equal(values[:, 103:], compute(X, groups=("transition",)))
    for groups in (("neuroscience",), ("transition",), ("neuroscience", "transition")):
        assert not add(path, groups=groups).computed
        of_groups = Cache(path).needed_features(groups)
        np.testing.assert_array_equal(
            of_groups, values[:, [n in definitions(groups) for n in names]]
        )
    np.testing.assert_array_equal(Cache(path).features, plain)
    assert add(path, force=True).computed and stored(path)[1] == names  # the others stay


def test_a_group_alone(path):
    assert add(path, groups=("transition",)).computed
    assert stored(path)[1] == list(TRANSITION) and Cache(path).features is None
    assert add(path).computed and stored(path)[1] == [*FEATURES, *TRANSITION]


def test_definitions_have_a_name_and_a_unit():
    assert len(FEATURES) == len(set(FEATURES)) == 103 and all(len(name) < 32 for name in FEATURES)
    classical = "p300_amplitude p300_latency motor_slope motor_amplitude n200_amplitude"
    assert {*classical.split(), "alpha_suppression"} <= set(FEATURES)
    units = ("uV", "s from", "log10", "Hz,", "1,", "1 where", "0-1,", "nats,")
    every = FEATURES | TRANSITION
    assert [name for name, text in every.items() if not text.startswith(units)] == []


def test_lagged_columns_are_in_order():
    X = np.random.default_rng(0).normal(0, 10, (2, 129, 200)).cumsum(2).astype(np.float32)
    got = dict(zip(FEATURES, compute(X)[0]))
    for lag in (5, 100):
        r = np.corrcoef(X[0, :, :-lag], X[0, :, lag:])[:129, 129:]
        found = [got[f"lag{lag}_absolute"], got[f"lag{lag}_diagonal"]]
        np.testing.assert_allclose(found, [abs(r).mean(), r.diagonal().mean()], 1e-4)


def test_compute_takes_what_it_says():
    X = np.random.default_rng(0).normal(0, 10, (3, 129, 250)).astype(np.float32)
    # a slice is not contiguous
    np.testing.assert_array_equal(compute(X[:, :, 25:225]), compute(X, 25, 200))
    assert compute(X[:0]).shape == (0, 103)
    with pytest.raises(TypeError, match="float32 or float16, got float64"):
        compute(X.astype(float))
    with pytest.raises(ValueError, match="129 channels"):
        compute(X[:, :5])


# --------------------------------------------------------------------------- what can happen

STOP_AT_EACH_CALL = """
    import os, sys
    from pathlib import Path
    import numpy as np
    from eeg.data import features
    path, good = Path(sys.argv[1]), sys.argv[2] == "again"
    # no threads: this process forks
    features.compute = lambda X, *a, **k: np.full((len(X), len(features.FEATURES)), 7, np.float32)
    names = ("pwrite", "fsync", "ftruncate", "posix_fallocate", "replace")
    calls = {name: getattr(os, name) for name in names}
    for k in range(1000):
        child = os.fork()
        if child == 0:
            done = 0
            def dying(name):
                def call(*a):
                    global done
                    done += 1
                    if done > k:
                        if name == "pwrite" and a[2] > 0:
                            calls[name](a[0], bytes(a[1])[: len(a[1]) // 2], a[2])  # half of it
                        os._exit(9)
                    return calls[name](*a)
                return call
            for name in calls:
                setattr(os, name, dying(name))
            features.add(path, force=True, threads=1)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(k, code, flush=True)
        sys.stdin.readline()  # until the test has looked at the file
        if code == 0:
            break
"""


@pytest.mark.parametrize("before", ["first", "again"])
def test_a_stop_between_any_two_writes_leaves_the_old_file(path, before):
    """Stops at every single system call that changes the file, each write half done."""
    if before == "again":
        add(path)
    whole, old = contents(path), stored(path)
    child = python(STOP_AT_EACH_CALL, path, before, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    stops = 0
    for line in child.stdout:
        number, code = map(int, line.split())
        now = stored(path)
        assert contents(path) == whole
        is_new = now is not None and (now[0] == 7).all()
        if code == 9 and not is_new:  # after the last write it may be the new one
            assert (now is None) == (old is None)
            assert old is None or np.array_equal(now[0], old[0], equal_nan=True)
            stops += 1
        print(file=child.stdin, flush=True)
    assert child.wait() == 0 and code == 0 and stops >= 5 and (stored(path)[0] == 7).all()


def test_kill_9_at_any_moment(path):
    whole = contents(path)
    loop = (
        "import sys\n"
        "from pathlib import Path\n"
        "from eeg.data.features import add\n"
        "print('ready', flush=True)\n"
        "while True: add(Path(sys.argv[1]), force=True, threads=1)"
    )
    rng = np.random.default_rng(0)
    for _ in range(6):
        child = python(loop, path, stdout=subprocess.PIPE)
        try:
            assert child.stdout.readline() == "ready\n"
            for _ in range(5):  # meanwhile others read
                time.sleep(rng.uniform(0.005, 0.03))
                now = stored(path)
                assert now is None or len(now[0]) == 12
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        assert contents(path) == whole
        assert stored(path) is None or stored(path)[0].shape == (12, 103)
    assert add(path, force=True).computed and contents(path) == whole


def test_a_layout_that_needs_other_changes_is_copied(path, monkeypatch, release_folder):
    monkeypatch.setattr(features, "_PAGE", 40)
    whole, inode = contents(path), path.stat().st_ino
    add(path)
    assert path.stat().st_ino != inode and contents(path) == whole
    assert stored(path)[0].shape == (12, 103)
    assert files_left(release_folder) == [path.name]


def test_the_file_of_another_writer(path):
    """A cache in HDF5's oldest layout, as h5py writes by default: nothing is known about where its
    parts lie."""
    old = path.with_name("old.h5")
    with h5py.File(path) as a, h5py.File(old, "w") as b:
        b.attrs.update(a.attrs)
        for name in a:
            a.copy(name, b)
    whole = contents(old)
    add(old), add(old, force=True)
    assert contents(old) == whole and stored(old)[0].shape == (12, 103)


def test_two_at_once(path):
    with open(str(path) + ".features.partial", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is building"):
            add(path)
    assert add(path).computed


def test_a_cache_rebuilt_meanwhile_is_not_touched(path):
    def rebuilt(*_):
        shutil.copy(path, str(path) + ".copy")
        os.replace(str(path) + ".copy", path)

    with pytest.raises(UserError, match="was rebuilt while"):
        add(path, progress=rebuilt)
    assert stored(path) is None


def test_a_full_disk(path):
    whole, size = contents(path), path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot be written: File too large"):
            add(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(path) == whole and path.stat().st_size == size


def test_files_that_will_not_do(path, monkeypatch, tmp_path):
    real = open

    def refuse(name, *more, **settings):
        if name == path and "r+b" in more:
            raise OSError(errno.EROFS, "Read-only file system", str(name))
        return real(name, *more, **settings)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UserError, match="cannot be written .Read-only file system."):
        add(path)
    monkeypatch.undo()
    with h5py.File(path, "r+") as f:
        f.attrs["channels"] = np.array([f"A{i}" for i in range(129)], "S4")
    with pytest.raises(
        UserError, match="129 channels .A0, A1, A2 .... at 100 Hz; features need E1"
    ):
        add(path)


def test_the_command(release_folder):
    listed = command(release_folder, "--list", script="features")
    names = [*FEATURES, *TRANSITION]
    assert listed.returncode == 0 and all(f"\n{name} " in "\n" + listed.stdout for name in names)
    missing = command(release_folder, "--release", "R1", script="features")
    assert missing.returncode == 1 and "Traceback" not in missing.stderr
    assert "build it with: python run/cache.py --release R1" in missing.stderr
    assert command(release_folder, script="features").returncode == 2
    made(release_folder)
    picture = release_folder / "f.png"
    done = command(release_folder, "--release", "R1", "--plot", picture, script="features")
    assert done.returncode == 0, done.stderr
    assert "103 of 12 windows" in done.stdout and "peak memory" in done.stdout
    assert picture.stat().st_size > 20_000
    again = command(release_folder, "--release", "R1", "--jobs", "1", script="features")
    assert "up-to-date features of 12 windows" in again.stdout
    more = command(release_folder, "--release", "R1", "--groups", "transition", script="features")
    assert "23 of 12 windows" in more.stdout, more.stderr
    words = "--release", "R1", "--groups", "transition", "--plot", picture
    refused = command(release_folder, *words, script="features")
    assert refused.returncode == 2 and "--plot draws the group neuroscience" in refused.stderr
