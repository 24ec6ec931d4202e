"""Windows read from the disk past the system's cache of files: for a cache that memory cannot hold.

There a page is pushed out before it is wanted again, and making room for the next costs more than reading it does.
"""

import errno
import mmap
import os

import numpy as np

from eeg import UserError, _native

BLOCK = 4096  # bytes: every disk takes places, lengths and addresses that are multiples of it


def possible(cache):
    """Whether the system and the file systems of these files know such a way of reading."""
    try:
        Direct(cache, 1)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return False
    return True


class Direct:
    """Reads up to `most` windows of a Cache at a time. All of a batch in one call: this thread would have to wait for Python after each."""

    def __init__(self, cache, most):
        if not hasattr(os, "O_DIRECT"):
            raise OSError(errno.EOPNOTSUPP, "this system reads files through its cache only")
        self._paths, self._shape, self._dtype = cache.paths, (1, *cache.parts[0].shape[1:]), cache.parts[0].dtype
        self._begin, self._size = np.array([X.offset for X in cache.parts]), cache.parts[0][0].nbytes
        blocks = self._size // BLOCK + 2  # a window begins and ends within a block
        self._room = np.frombuffer(mmap.mmap(-1, most * blocks * BLOCK), np.uint8).reshape(most, -1)  # begins on a page
        self._files = [open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_DIRECT)) for path in cache.paths]
        self._numbers = np.array([file.fileno() for file in self._files], np.int32)
        self.windows(np.zeros(1, np.int32), np.zeros(1, np.int64))  # some file systems refuse it only here

    def windows(self, part, row):
        """Window row[i] of file part[i], for each i: list of (1, C, S) arrays as stored, good until the next call."""
        begin = self._begin[part] + row * self._size
        skip = begin % BLOCK
        wanted, got = skip + self._size, np.empty(len(row), np.int64)
        _native.read_rows(self._numbers[part], begin - skip, -(-wanted // BLOCK) * BLOCK, self._room[: len(row)], got)
        for i in np.flatnonzero(got < wanted):
            if got[i] < 0:
                raise OSError(-got[i], os.strerror(-got[i]), str(self._paths[part[i]]))
            raise UserError(f"{self._paths[part[i]]} ends within its window {row[i]}: it was cut off while it was read; build it anew with: python run/cache.py --force")
        return [room[first:last].view(self._dtype).reshape(self._shape) for room, first, last in zip(self._room, skip, wanted)]
