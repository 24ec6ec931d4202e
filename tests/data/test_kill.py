"""A cache whose building is killed at every single call that changes the disk, those of HDF5
included."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from eeg.data.build import Settings, build
from eeg.data.cache import cache_path
from eeg.data.release import find_release
from tests.conftest import trial_events, write_participants, write_recording

ROOT = Path(__file__).resolve().parents[2]

# Forks, and kills each child at one more call than the last; waits until the test has looked at
# what is left
BUILDER = """
    import ctypes, os, sys
    from pathlib import Path
    from eeg.data import build as module
    from eeg.data.build import Settings, build
    from eeg.data.release import find_release
    data, folder, jobs, fails = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    stop = ctypes.CDLL(os.environ["LD_PRELOAD"])
    opened = module.open_signal
    class Spoilt:  # it can be opened, and not read
        n_times, warning = 4000, ""
        def read(self, starts, out):
            raise module.BadRecording("3 of its samples are not finite")
    if fails:
        module.open_signal = lambda r, *more: Spoilt() if fails in r.subject else opened(r)
    for k in range(1000):
        child = os.fork()
        if child == 0:
            stop.stop_at(str(folder).encode(), k)
            build(find_release("R1", data), Settings(), folder, jobs, force=True)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(code, flush=True)
        sys.stdin.readline()
        if code == 0:
            break
"""


@pytest.fixture(scope="module")
def stop_at(tmp_path_factory):
    """The library that kills a process at its n-th call that changes a folder."""
    library = tmp_path_factory.mktemp("stop") / "stop_at.so"
    source = Path(__file__).with_name("stop_at.cpp")
    command = [
        os.environ.get("CXX", "g++"),
        "-std=c++17",
        "-shared",
        "-fPIC",
        source,
        "-o",
        library,
        "-ldl",
    ]
    subprocess.run(command, check=True)
    return library


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data" / "R1_L100_bdf"
    names = [f"NDARAA00{i}AAA" for i in range(4)]
    write_participants(folder, names)
    for i, name in enumerate(names):
        write_recording(folder, name, trial_events(), seed=i)
    return tmp_path / "data"


def contents(folder):
    """{name: (bytes, digest)} of the files in a folder."""
    read = lambda path: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    return {path.name: read(path) for path in folder.iterdir()} if folder.exists() else {}


# what lies there before, threads, and a recording that fails while it is read: the others move to a
# second file
CASES = {"first": (False, 1, ""), "again": (True, 2, ""), "a recording fails": (False, 1, "AA001")}


@pytest.mark.parametrize("case", CASES)
def test_killed_at_every_change_of_the_disk(data, tmp_path, stop_at, case):
    again, jobs, fails = CASES[case]
    release, folder = find_release("R1", data), tmp_path / "cache"
    path = cache_path(folder, 1, "R1")
    build(release, Settings(), tmp_path / "undisturbed")
    undisturbed = contents(tmp_path / "undisturbed")
    if again:
        build(release, Settings(margin_s=0.1), tmp_path / "before")
        shutil.copytree(tmp_path / "before", folder)
    before = contents(folder)
    command = [sys.executable, "-c", textwrap.dedent(BUILDER), data, folder, str(jobs), fails]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "LD_PRELOAD": str(stop_at),
        "OMP_NUM_THREADS": "1",
    }
    builder = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    codes, published, half_written = [], [], []
    for line in builder.stdout:
        codes.append(int(line))
        left = contents(folder)
        if left.get(path.name) != before.get(path.name):
            published.append(left.get(path.name))
        half_written += [content for name, content in left.items() if name != path.name]
        assert codes[-1] != 0 or set(left) == {path.name}
        # whatever is left: the next build makes the undisturbed cache, and leaves nothing else
        assert build(release, Settings(), folder, force=True).built
        assert contents(folder) == undisturbed, f"killed at change {len(codes)}"
        shutil.rmtree(folder)
        if again:
            shutil.copytree(tmp_path / "before", folder)
        print(file=builder.stdin, flush=True)
    assert builder.wait() == 0
    assert set(codes[:-1]) == {-signal.SIGKILL} and codes[-1] == 0
    # what is published is whole, from its first moment on; a recording that failed is not in it
    assert published and len(set(published)) == 1
    assert fails or published[0] == undisturbed[path.name]
    # kills landed inside: among the file's parts, and among the samples, when the file has its size
    full = {content for content in half_written if content[0] == published[0][0]}
    assert len(set(half_written)) > 15 and len(full) > 4
