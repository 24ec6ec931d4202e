"""Whether bytes are those of an object: what its ETag and the server's checksums say.

The ETag of an object that was uploaded whole is its MD5. One uploaded in N parts has "x-N", x the
MD5 of the parts' MD5s; the size of a part is not told, but few fit.
"""

import base64
import hashlib
import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from eeg.native import _native

MIB = 1 << 20
USUAL_MIB = (8, 5, 16, 15, 10, 32, 25, 50, 64, 100, 128, 256, 512)  # what programs upload with
_ETAG = re.compile(r"([0-9a-f]{32})(?:-([1-9][0-9]{0,4}))?")


def is_checksum(etag: str) -> bool:
    return bool(_ETAG.fullmatch(etag))


@lru_cache(1000)  # it is asked several times of each file
def part_sizes(etag: str, size: int) -> tuple[int | None, ...]:
    """The sizes of the parts (bytes) that an object may have been uploaded in, usual ones first.

    None stands for an object that was uploaded whole. () where the ETag is no checksum.
    """
    match = _ETAG.fullmatch(etag)
    if not match:
        return ()
    if not match[2]:
        return (None,)
    parts = int(match[2])
    least = max(1, -(-size // (parts * MIB)))
    most = min(size // max(1, (parts - 1) * MIB) + 1, least + 64)
    sizes = [mib * MIB for mib in (*USUAL_MIB, *range(least, most + 1))]
    sizes += [max(size, 1)] * (parts == 1)
    return tuple(part for part in dict.fromkeys(sizes) if -(-size // part) == parts)


def pieces(size: int, part: int | None) -> int:
    """How many MD5s an ETag is made of."""
    return -(-size // part) if part else 1


def etags(files: Sequence[tuple[Path, int, int | None]]) -> list[str]:
    """The ETags of files (path, size, part), in one pass: many MD5s at a time are quicker.

    Raises OSError where a file cannot be read or is smaller.
    """
    which, offset, size = [], [], []
    for number, (_, bytes_, part) in enumerate(files):
        starts = range(0, max(bytes_, 1), part or max(bytes_, 1))
        which += [number] * len(starts)
        offset += list(starts)
        size += [min(part or bytes_, bytes_ - start) for start in starts]
    paths = [os.fspath(path) for path, _, _ in files]
    made = _md5(paths, np.array(which, np.int32), np.array(offset, np.int64), np.array(size, int))
    found, first = [], 0
    for _, bytes_, part in files:
        own = made[first : first + pieces(bytes_, part)]
        first += len(own)
        of_all = hashlib.md5(own.tobytes(), usedforsecurity=False).hexdigest()
        found.append(f"{of_all}-{len(own)}" if part else own.tobytes().hex())
    return found


def _md5(paths, which, offset, size):
    """(N, 16) bytes: the MD5s of parts of files. The longest begin first: all end together."""
    order = np.argsort(-size, kind="stable")
    made = np.empty((len(size), 16), np.uint8)
    _native.md5(paths, which[order], offset[order], size[order], made)
    found = np.empty_like(made)
    found[order] = made
    return found


def file_matches(path: Path, etag: str, size: int, parts: Sequence[int | None]) -> bool:
    """Whether a file has this ETag with parts of one of these sizes."""
    return any(etags([(path, size, part)]) == [etag] for part in parts)


class _Crc32:
    def __init__(self):
        self._value = 0

    def update(self, data):
        self._value = zlib.crc32(data, self._value)

    def digest(self):
        return self._value.to_bytes(4, "big")


_SENT: dict[str, Callable] = {
    "x-amz-checksum-sha256": hashlib.sha256,
    "x-amz-checksum-sha1": hashlib.sha1,
    "x-amz-checksum-crc32": _Crc32,
    "content-md5": hashlib.md5,
}


class SentChecksums:
    """The checksums that came with a whole object, in the headers of its answer."""

    def __init__(self, headers: Mapping[str, str]):
        # "x-N" is one of parts, as in an ETag
        there = {name: headers[name] for name in _SENT if headers.get(name)}
        self._expected = {name: text for name, text in there.items() if "-" not in text}
        self._made = {name: _SENT[name]() for name in self._expected}

    def update(self, data: memoryview) -> None:
        for made in self._made.values():
            made.update(data)

    def wrong(self) -> str | None:
        """The name of the first that does not fit, None where all do."""
        for name, made in self._made.items():
            if base64.b64encode(made.digest()).decode() != self._expected[name]:
                return name
        return None
