"""Windows read from the disk past the system's cache of files: for a cache that memory cannot hold.

There a page is pushed out before it is wanted again, and making room for the next costs more than
reading it does.
"""

import errno
import mmap
import os

import numpy as np

from eeg import UserError
from eeg.data.cache import Cache, rebuild
from eeg.native import _native

BLOCK = 4096  # bytes: every disk takes places, lengths and addresses that are multiples of it
# Errors of a file system that does not read in such a way, or of a system that does not allow it,
# to a container or to all processes together.
REFUSED = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EAGAIN)


def opened(cache: Cache, most: int) -> "Direct | None":
    """A Direct, or None where the system or a file system refuses to read in such a way."""
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

    def __init__(self, cache: Cache, most: int):
        window = cache.parts[0][0]
        self._cache, self._shape, self._dtype = cache, (1, *window.shape), window.dtype
        self._begin = np.array([X.offset for X in cache.parts])
        self._size = window.nbytes
        blocks = self._size // BLOCK + 2  # a window begins and ends within a block
        pages = mmap.mmap(-1, most * blocks * BLOCK)
        self._room = np.frombuffer(pages, np.uint8).reshape(most, -1)
        self._files = _native.DirectFiles([os.fsencode(path) for path in cache.paths], most)
        for path, one, found in zip(cache.paths, cache.attributes, self._files.identities):
            if one["identity"] != found:
                raise UserError(
                    f"{path} was replaced since it was opened: what was begun with the old one "
                    "cannot continue; start again"
                )

    def windows(self, part: np.ndarray, row: np.ndarray) -> list[np.ndarray]:
        """Window row[i] of file part[i], for each i: (1, C, S) arrays, good until the next call."""
        begin = self._begin[part] + row * self._size
        skip = begin % BLOCK
        wanted, got = skip + self._size, np.empty(len(row), np.int64)
        blocks = -(-wanted // BLOCK) * BLOCK
        self._files.read(part, begin - skip, blocks, self._room[: len(row)], got)
        for i in np.flatnonzero(got < wanted):
            path = self._cache.paths[part[i]]
            if got[i] < 0:
                raise OSError(-got[i], os.strerror(-got[i]), str(path))
            raise UserError(
                f"{path} ends within its window {row[i]}: it was cut off while it was read; "
                f"rebuild it with: {rebuild(self._cache)}"
            )
        places = zip(self._room, skip, wanted)
        return [room[a:b].view(self._dtype).reshape(self._shape) for room, a, b in places]
