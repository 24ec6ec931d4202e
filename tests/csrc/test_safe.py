"""Callers that pass what nobody should: each once crashed, hung or answered wrongly."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from eeg import _native

ROOT = Path(__file__).resolve().parents[2]


def batch(seed=0, windows=6, channels=5, samples=40, size=9):
    """Arguments of gather but out, shift and mix, and these: three dictionaries."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((windows, channels, samples)).astype(np.float32)
    given = {
        "parts": [X],
        "part": np.zeros(size, np.int32),
        "row": rng.integers(0, windows, size),
        "offset": np.full(size, 3, np.int32),
        "window": np.arange(size),
        "mirror": np.arange(channels, dtype=np.int32),
    }
    written = {
        "out": np.zeros((size, channels, samples - 6), np.float32),
        "shift": np.zeros(size, np.int32),
        "mix": np.zeros(size, np.float32),
    }
    return given, written


def gathered(threads=1, augment=None, **changes):
    given, written = batch()
    arguments = given | written | changes
    _native.gather(**arguments, zscore=False, augment=augment or _native.Augment(), threads=threads)
    return arguments["out"]


def test_the_lists_of_a_batch_may_also_be_its_outputs():
    shifted = _native.Augment(shift=3.0, seed=1)
    wanted = gathered(augment=shifted)
    both = np.zeros(9, np.int32)
    assert np.array_equal(gathered(augment=shifted, part=both, shift=both), wanted)
    assert both.any()


def test_a_batch_over_its_own_cache():
    X = batch()[0]["parts"][0]
    room = np.resize(X, 9 * 5 * 34 + 8)
    cache, out = room[: X.size].reshape(X.shape), room[8:].reshape(9, 5, 34)
    with pytest.raises(ValueError, match="out must not share its memory with a cache part"):
        gathered(parts=[cache], out=out)


@pytest.mark.parametrize("threads", [100_000, 2**31 - 1])
def test_more_threads_than_there_can_be(threads):
    assert np.array_equal(gathered(threads), gathered())


def test_strengths_that_would_draw_for_ever_are_refused():
    for mix in (1e-13, 9e-4, float("nan"), -1.0):
        with pytest.raises(ValueError, match="mix must be 0 or lie from 0.001 to 1"):
            _native.Augment(mix=mix)
    _native.Augment(mix=0.0)
    mixed = np.zeros(9, np.float32)
    gathered(augment=_native.Augment(mix=0.001), mix=mixed)
    assert (mixed >= 0.5).all() and (mixed <= 1).all()


def test_strengths_that_are_no_numbers():
    for mix in (None, "x", []):
        with pytest.raises(TypeError, match="mix must be a number, got"):
            _native.Augment(mix=mix)


def misaligned(like):
    """A copy that begins at an odd address."""
    room = np.zeros(like.nbytes + 1, np.uint8)
    view = room[1:].view(like.dtype).reshape(like.shape)
    view[...] = like
    return view


@pytest.mark.parametrize("name", ["part", "row", "offset", "window", "mirror", "out", "mix"])
def test_arrays_that_are_not_aligned(name):
    given, written = batch()
    with pytest.raises(ValueError, match=f"{name} must be aligned"):
        gathered(**{name: misaligned((given | written)[name])})
    with pytest.raises(ValueError, match="a cache part must be aligned"):
        gathered(parts=[misaligned(given["parts"][0])])


def test_windows_whose_tables_memory_cannot_hold():
    X, out = np.zeros((1, 1, 9000), np.float32), np.zeros((1, 1, 10), np.float32)
    with pytest.raises(ValueError, match="be 1 to 8192"):
        _native.channel_features(X, 0, 8193, out)
    with pytest.raises(ValueError, match="must lie in windows of 9000 samples"):
        _native.channel_features(X, 2**63 - 1, 200, out)


def bdf_header(count, size):
    """The first bytes of a BDF file of `size` bytes whose header says `count` signals."""
    fields = [(b"", 176), (b"1024256", 8), (b"24BIT", 44), (b"1", 8), (b"1", 8), (count, 4)]
    head = b"\xffBIOSEMI" + b"".join(text.ljust(width) for text, width in fields)
    assert len(head) == 256
    return head.ljust(size)


@pytest.mark.parametrize("count", [b"4e3", b"4000", b"0x9", b"1e0", b"+1", b"4."])
def test_a_bdf_whose_counts_are_no_digits(tmp_path, count):
    path = tmp_path / "x.bdf"
    path.write_bytes(bdf_header(count, 1_024_256 if count != b"4000" else 1280))
    wanted = "ends inside its header" if count == b"4000" else "not a whole number"
    with pytest.raises(ValueError, match=wanted):
        _native.Bdf(os.fsencode(path))


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "x").write_bytes(b"")
    for path in (tmp_path / "pipe", tmp_path, str(tmp_path / "x") + "\0more"):
        with pytest.raises(OSError):
            _native.Bdf(os.fsencode(path))


FORKED = """
import os, signal, sys
import numpy as np
from eeg import _native
X, out = np.random.rand(64, 8, 200).astype(np.float32), np.zeros((64, 8, 10), np.float32)
_native.channel_features(X, 0, 200, out, 2)
child = os.fork()
if child == 0:
    signal.alarm(20)
    again = np.zeros_like(out)
    _native.channel_features(X, 0, 200, again, 2)
    os._exit(0 if np.array_equal(out, again) else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_of_fork_computes_on():
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60, env=environment)


@pytest.mark.skipif(not hasattr(_native, "DirectFiles"), reason="Linux alone reads directly")
@pytest.mark.parametrize("most", [0, -1, 65537, 2**62])
def test_direct_reading_of_more_pieces_than_there_can_be(most):
    with pytest.raises(ValueError, match="most must be 1 to 65536 pieces"):
        _native.DirectFiles([], most)


@pytest.mark.skipif(not hasattr(_native, "DirectFiles"), reason="Linux alone reads directly")
def test_threads_that_read_directly_wait_for_each_other(tmp_path):
    path, blocks = tmp_path / "x", np.arange(64, dtype=np.uint8)
    path.write_bytes(np.repeat(blocks, 4096).tobytes())
    try:
        files = _native.DirectFiles([os.fsencode(path)], 8)
    except OSError as e:
        pytest.skip(f"this file system does not read directly: {e}")
    wrong = []

    def read(seed):
        rng = np.random.default_rng(seed)
        room = np.zeros((9, 4096), np.uint8)
        skip = -room.ctypes.data % 4096
        out = room.reshape(-1)[skip : skip + 8 * 4096].reshape(8, 4096)
        got, which = np.zeros(8, np.int64), np.zeros(8, np.int32)
        for _ in range(200):
            at = rng.integers(0, 64, 8)
            files.read(which, at * 4096, np.full(8, 4096), out, got)
            wrong.append((got != 4096).any() or (out != at[:, None]).any())

    threads = [threading.Thread(target=read, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 400 and not any(wrong)
