"""Reading past the system's cache of files: the same windows, none of the file left in memory, and what happens where it cannot be done."""

import ctypes
import errno
import mmap
import os

import numpy as np
import pytest

from eeg import UserError
from eeg.data.augment import Augment
from eeg.data.batches import Batches
from eeg.data.cache import Cache, Settings, build
from eeg.data.direct import possible
from eeg.data.release import find_release
from tests.conftest import trial_events, write_recording

REFUSALS = [errno.EINVAL, errno.EOPNOTSUPP]


@pytest.fixture(scope="module", params=[("float32", 0.25), ("float16", 0.0)])
def cache(tmp_path_factory, request):
    """Two files; a window of neither size, 129,000 and 51,600 bytes, begins where a block does."""
    root, (dtype, margin) = tmp_path_factory.mktemp("direct"), request.param
    paths = []
    for i, (release, n) in enumerate((("R1", 7), ("R2", 12))):
        write_recording(root / "data" / f"{release}_L100_bdf", f"NDARA{release}00{i}A", trial_events(n), seconds=6 * n, seed=i)
        paths.append(build(find_release(release, root / "data"), Settings(dtype=dtype, margin=margin), root).path)
    cache = Cache(paths)
    if not possible(cache):
        pytest.skip(f"files in {root} cannot be read past the system's cache")
    return cache


def epoch(batches, number=0):
    return [(b.rows.copy(), b.x.copy(), b.y.copy(), b.shift.copy()) for b in batches.epoch(number)]


def equal(one, other):
    assert len(one) == len(other) > 0
    for a, b in zip(one, other):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("settings", [dict(shuffle=False, batch_size=4), dict(batch_size=5, seed=3, augment=Augment(noise=0.1, scale=0.2, dropout=0.1)), dict(shuffle=False, batch_size=18, rank=1, world=2), dict(batch_size=64)])
def test_the_same_batches(cache, settings):
    equal(epoch(Batches(cache, direct=True, **settings)), epoch(Batches(cache, **settings)))


def test_two_at_once_do_not_disturb_each_other(cache):
    batches = Batches(cache, batch_size=2, direct=True)
    pairs = [(a.x.copy(), b.x.copy()) for a, b in zip(batches.epoch(0), batches.epoch(1), strict=True)]
    for which in (0, 1):
        for pair, (_, x, *_) in zip(pairs, epoch(Batches(cache, batch_size=2), which), strict=True):
            np.testing.assert_array_equal(pair[which], x)


def resident(path):
    """How many pages of a file the system holds in memory."""
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), 0) as mapped:
        flags = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(mapped)
        try:
            assert ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(mapped)), flags) == 0
        finally:
            del start
    return sum(flag & 1 for flag in flags)


@pytest.mark.parametrize("direct", [True, False])
def test_nothing_of_the_windows_stays_in_memory(cache, tmp_path, direct):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(cache.paths[1].read_bytes())
    batches = Batches(Cache(copy), direct=direct)
    with open(copy, "rb") as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = resident(copy)
    epoch(batches)
    assert (resident(copy) - before > 100) is not direct


def test_files_are_closed(cache):
    batches = Batches(cache, batch_size=2, direct=True)
    before = len(os.listdir("/proc/self/fd"))
    for _ in batches.epoch(0):
        break
    epoch(batches)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("where", ["open", "preadv"])
def test_a_file_system_that_refuses_is_read_as_always(cache, monkeypatch, where, refusal):
    work = getattr(os, where)

    def refuses(first, second, *rest):
        if where == "preadv" or second & os.O_DIRECT:
            raise OSError(refusal, os.strerror(refusal))
        return work(first, second, *rest)

    monkeypatch.setattr(os, where, refuses)
    batches = Batches(cache, batch_size=3, direct=True)
    assert not batches.direct
    equal(epoch(batches), epoch(Batches(cache, batch_size=3)))


def test_a_system_without_it(cache, monkeypatch):
    monkeypatch.delattr(os, "O_DIRECT")
    assert not Batches(cache, direct=True).direct


def test_a_disk_that_fails_and_a_file_that_is_cut_off(cache, monkeypatch, tmp_path):
    batches, work = Batches(cache, batch_size=3, direct=True), os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, room, at: work(file, room, at) if at == 0 else (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"):
        epoch(batches)
    monkeypatch.undo()
    short = tmp_path / "short.h5"
    short.write_bytes(cache.paths[1].read_bytes())
    one = Cache(short)
    assert len(one) == 12
    batches = Batches(one, batch_size=12, direct=True)
    with open(short, "r+b") as f:
        f.truncate(one.parts[0].offset + 12 * one.parts[0][0].nbytes - 100)
    with pytest.raises(UserError, match=r"short.h5 ends within its window 11:.*run/cache.py --force"):
        epoch(batches)
