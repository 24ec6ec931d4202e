"""Reading past the system's cache of files: the same windows, none of the file left in memory, and
what happens where it cannot be done."""

import ctypes
import errno
import itertools
import mmap
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from eeg import UserError, _native
from eeg.data.augment import Augment
from eeg.data.batches import REFUSED, Batches, Order, Reading
from eeg.data.build import Settings, build
from eeg.data.cache import Cache
from eeg.data.release import find_release
from tests.conftest import trial_events, write_recording


@pytest.fixture(scope="module", params=[("float32", 0.25), ("float16", 0.0)])
def cache(tmp_path_factory, request):
    """Two files; a window of neither size, 129,000 and 51,600 bytes, begins where a block does."""
    root, (dtype, margin_s) = tmp_path_factory.mktemp("direct"), request.param
    paths = []
    for i, (release, n) in enumerate((("R1", 7), ("R2", 12))):
        write_recording(
            root / "data" / f"{release}_L100_bdf",
            f"NDARA{release}00{i}A",
            trial_events(n),
            seconds=6 * n,
            seed=i,
        )
        paths.append(
            build(
                find_release(release, root / "data"), Settings(dtype=dtype, margin_s=margin_s), root
            ).path
        )
    cache = Cache(paths)
    if not Batches(cache, reading=Reading(direct=True)).direct:
        pytest.skip(f"files in {root} cannot be read past the system's cache")
    return cache


def epoch(batches, number=0):
    return [(b.rows.copy(), b.x.copy(), b.shift_samples.copy()) for b in batches.epoch(number)]


def equal(one, other):
    assert len(one) == len(other) > 0
    for a, b in zip(one, other):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    "settings",
    [
        dict(order=Order(shuffle=False), batch_size=4),
        dict(batch_size=5, seed=3, augment=Augment(noise=0.1, scale=0.2, dropout=0.1)),
        dict(order=Order(shuffle=False, rank=1, world=2), batch_size=9),
        dict(batch_size=64),
    ],
)
def test_the_same_batches(cache, settings):
    equal(
        epoch(Batches(cache, reading=Reading(direct=True), **settings)),
        epoch(Batches(cache, **settings)),
    )


def test_two_at_once_do_not_disturb_each_other(cache):
    batches = Batches(cache, batch_size=2, reading=Reading(direct=True))
    pairs = [
        (a.x.copy(), b.x.copy()) for a, b in zip(batches.epoch(0), batches.epoch(1), strict=True)
    ]
    for which in (0, 1):
        for pair, (_, x, *_) in zip(pairs, epoch(Batches(cache, batch_size=2), which), strict=True):
            np.testing.assert_array_equal(pair[which], x)


def copied(cache, folder):
    """A file of the cache that no other test has open."""
    path = folder / "copy_windows.h5"
    path.write_bytes(cache.paths[1].read_bytes())
    return path


def resident(path):
    """How many pages of a file the system holds in memory."""
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), 0) as mapped:
        flags = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(mapped)
        try:
            assert (
                ctypes.CDLL(None, use_errno=True).mincore(
                    ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(mapped)), flags
                )
                == 0
            )
        finally:
            del start
    return sum(flag & 1 for flag in flags)


@pytest.mark.parametrize("past", [True, False])
def test_nothing_of_the_windows_stays_in_memory(cache, tmp_path, past):
    copy = copied(cache, tmp_path)
    batches = Batches(Cache(copy), reading=Reading(direct=past))
    with open(copy, "rb") as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = resident(copy)
    epoch(batches)
    assert (resident(copy) - before > 100) is not past


def test_files_are_closed(cache, tmp_path):
    batches = Batches(Cache(copied(cache, tmp_path)), batch_size=2, reading=Reading(direct=True))
    opened = lambda: [
        link
        for link in map(os.path.realpath, Path("/proc/self/fd").iterdir())
        if link == os.path.realpath(batches.cache.paths[0])
    ]
    before = len(opened())
    for _ in batches.epoch(0):
        assert len(opened()) == before + 1
        break
    epoch(batches)
    assert len(opened()) == before


def test_a_cache_that_was_replaced_is_not_read_for_the_old_one(cache, tmp_path):
    paths = copied(cache, tmp_path)
    mapped = Cache(paths)
    batches = Batches(mapped, batch_size=2, reading=Reading(direct=True))
    epoch(batches)
    again = tmp_path / "again.h5"
    again.write_bytes(paths.read_bytes())
    os.replace(again, paths)
    with pytest.raises(UserError, match="was replaced since it was opened"):
        epoch(batches, 1)


def native(monkeypatch, **own):
    """Have this alone of the native side, besides the gather."""
    functions = SimpleNamespace(gather=_native.gather, **own)
    monkeypatch.setattr("eeg.data.batches._native", functions)


def reads(monkeypatch, error, from_call=0):
    """Have the system say `error` of the last window of each batch, from a call on."""
    calls = itertools.count()

    class Files:
        def __init__(self, paths, most):
            self.files = _native.DirectFiles(paths, most)
            self.identities = self.files.identities

        def read(self, which, offset, bytes, out, got):
            self.files.read(which, offset, bytes, out, got)
            if next(calls) >= from_call:
                got[-1] = -error

    native(monkeypatch, DirectFiles=Files)


def refuses(error):
    raise OSError(error, os.strerror(error))


@pytest.mark.parametrize("error", REFUSED)
@pytest.mark.parametrize("when", ["opened", "read"])
def test_a_file_system_that_refuses_is_read_as_always(cache, monkeypatch, when, error):
    if when == "opened":
        native(monkeypatch, DirectFiles=lambda *_: refuses(error))
    else:
        reads(monkeypatch, error)
    batches = Batches(cache, batch_size=3, reading=Reading(direct=True))
    assert not batches.direct
    equal(epoch(batches), epoch(Batches(cache, batch_size=3)))


@pytest.mark.parametrize("error", REFUSED)
def test_refused_later_it_is_read_as_always(cache, monkeypatch, error):
    batches = Batches(cache, batch_size=3, reading=Reading(direct=True))
    assert batches.direct
    native(monkeypatch, DirectFiles=lambda *_: refuses(error))
    equal(epoch(batches), epoch(Batches(cache, batch_size=3)))


def test_a_system_without_it(cache, monkeypatch):
    native(monkeypatch)
    assert not Batches(cache, reading=Reading(direct=True)).direct


def test_a_disk_that_fails(cache, monkeypatch):
    with monkeypatch.context() as patch:
        reads(patch, errno.EIO)
        with pytest.raises(OSError, match="Input/output error"):
            Batches(cache, reading=Reading(direct=True))
    reads(monkeypatch, errno.EIO, from_call=4)  # the first is a try
    with pytest.raises(OSError, match="Input/output error.*R[12]_windows.h5"):
        epoch(Batches(cache, batch_size=3, reading=Reading(direct=True)))
    assert len(next(Batches(cache, batch_size=3).epoch(0)).x) == 3  # which needs no such reading


def test_a_file_that_is_cut_off(cache, tmp_path):
    short = copied(cache, tmp_path)
    one = Cache(short)
    assert len(one) == 12
    batches = Batches(one, batch_size=12, reading=Reading(direct=True))
    with open(short, "r+b") as f:
        f.truncate(one.parts[0].offset + 12 * one.parts[0][0].nbytes - 100)
    with pytest.raises(
        UserError, match=r"copy_windows.h5 ends within its window 11:.*run/cache.py --release R"
    ):
        epoch(batches)
