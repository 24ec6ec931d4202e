"""Windows read from the disk past the system's cache of files: for a cache that memory cannot hold.

There a page is pushed out before it is wanted again, and making room for the next costs more than reading it does.
"""

import errno
import mmap
import os

import numpy as np

from eeg import UserError

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
    """Reads up to `most` windows of a Cache at a time."""

    def __init__(self, cache, most):
        self._parts, self._paths = cache.parts, cache.paths
        self._shape, self._dtype = (1, *cache.parts[0].shape[1:]), cache.parts[0].dtype
        self._size = cache.parts[0][0].nbytes
        blocks = self._size // BLOCK + 2  # a window begins and ends within a block
        self._room = np.frombuffer(mmap.mmap(-1, most * blocks * BLOCK), np.uint8).reshape(most, -1)  # begins on a page
        if not hasattr(os, "O_DIRECT"):
            raise OSError(errno.EOPNOTSUPP, "this system reads files through its cache only")
        self._files = [open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_DIRECT)) for path in cache.paths]
        for file in self._files:
            os.preadv(file.fileno(), [self._room[0, :BLOCK]], 0)  # some file systems refuse it only here

    def windows(self, part, row):
        """Window row[i] of file part[i], for each i: list of (1, C, S) arrays as stored, good until the next call."""
        return [self._read(room, p, int(r)) for room, p, r in zip(self._room, part, row)]

    def _read(self, room, part, row):
        begin = self._parts[part].offset + row * self._size
        skip = begin % BLOCK
        wanted = skip + self._size
        if os.preadv(self._files[part].fileno(), [room[: -(-wanted // BLOCK) * BLOCK]], begin - skip) < wanted:
            raise UserError(f"{self._paths[part]} ends within its window {row}: it was cut off while it was read; build it anew with: python run/cache.py --force")
        return room[skip:wanted].view(self._dtype).reshape(self._shape)
