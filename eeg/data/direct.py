"""Windows read from the disk past the system's cache of files: for a cache that memory cannot hold.

There a page is pushed out before it is wanted again, and making room for the next costs more than
reading it does.
"""

import errno
import mmap
import os

import numpy as np

from eeg import UserError, _native
from eeg.data.cache import rebuild

BLOCK = 4096  # bytes: every disk takes places, lengths and addresses that are multiples of it
REFUSED = (
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EPERM,
    errno.EAGAIN,
)  # by the file system; by the system, or what it allows a container or all processes together


def opened(cache, most):
    """A Direct, or None where the system or the file system of a cache does not read in such a way,
    or not now.
    """
    if not hasattr(_native, "DirectFiles"):
        return None
    try:
        direct = Direct(cache, most)
        direct.windows(np.zeros(1, np.int32), np.zeros(1, np.int64))  # some refuse it only here
    except OSError as e:
        if e.errno not in REFUSED:
            raise
        return None
    return direct


class Direct:
    """Reads up to `most` windows of a Cache at a time, all asked for at once."""

    def __init__(self, cache, most):
        self._paths, self._cache, self._shape, self._dtype = (
            cache.paths,
            cache,
            (1, *cache.parts[0].shape[1:]),
            cache.parts[0].dtype,
        )
        self._begin, self._size = (
            np.array([X.offset for X in cache.parts]),
            cache.parts[0][0].nbytes,
        )
        blocks = self._size // BLOCK + 2  # a window begins and ends within a block
        self._room = np.frombuffer(mmap.mmap(-1, most * blocks * BLOCK), np.uint8).reshape(
            most, -1
        )  # begins on a page
        self._files = _native.DirectFiles([os.fsencode(path) for path in cache.paths], most)

    def windows(self, part, row):
        """Window row[i] of file part[i], for each i: list of (1, C, S) arrays as stored, good until
        the next call.
        """
        begin = self._begin[part] + row * self._size
        skip = begin % BLOCK
        wanted, got = skip + self._size, np.empty(len(row), np.int64)
        self._files.read(
            part, begin - skip, -(-wanted // BLOCK) * BLOCK, self._room[: len(row)], got
        )
        for i in np.flatnonzero(got < wanted):
            if got[i] < 0:
                raise OSError(-got[i], os.strerror(-got[i]), str(self._paths[part[i]]))
            raise UserError(
                f"{self._paths[part[i]]} ends within its window {row[i]}: it was cut off while it "
                f"was read; rebuild it with: {rebuild(self._cache)}"
            )
        return [
            room[first:last].view(self._dtype).reshape(self._shape)
            for room, first, last in zip(self._room, skip, wanted)
        ]
