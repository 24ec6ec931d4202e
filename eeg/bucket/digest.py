"""Whether bytes are those of an object: what its ETag and the server's checksums say.

The ETag of an object that was uploaded whole is its MD5. One uploaded in N parts has "x-N", x the
MD5 of the parts' MD5s; the size of a part is not told, but few fit.
"""

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

MIB = 1 << 20
CHUNK_BYTES = 1 << 20
USUAL_MIB = (8, 5, 16, 15, 10, 32, 25, 50, 64, 100, 128, 256, 512)  # what programs upload with
_ETAG = re.compile(r"([0-9a-f]{32})(?:-([1-9][0-9]{0,4}))?")


def part_sizes(size: int, parts: int) -> list[int]:
    """The part sizes (bytes) that cut `size` bytes into so many parts, the usual ones first."""
    fits = lambda part: -(-size // part) == parts
    least, most = -(-size // (parts * MIB)), size // max(1, (parts - 1) * MIB) + 1
    some = [mib * MIB for mib in (*USUAL_MIB, *range(max(1, least), min(most, least + 64) + 1))]
    if parts == 1:
        some.append(max(size, 1))
    return [part for part in dict.fromkeys(some) if fits(part)]


def is_checksum(etag: str) -> bool:
    return bool(_ETAG.fullmatch(etag))


class EtagDigest:
    """Computes an ETag while the bytes come. part: bytes of a part, None for an MD5 of all."""

    def __init__(self, part: int | None):
        self._part = part
        self._done: list[bytes] = []  # MD5s of the parts that are complete
        self._left = part or 0  # bytes of the part that has begun
        self._md5 = hashlib.md5(usedforsecurity=False)

    def update(self, data: memoryview) -> None:
        while self._part and len(data) >= self._left:
            self._md5.update(data[: self._left])
            self._done.append(self._md5.digest())
            data, self._left = data[self._left :], self._part
            self._md5 = hashlib.md5(usedforsecurity=False)
        self._md5.update(data)
        if self._part:
            self._left -= len(data)

    def etag(self) -> str:
        if not self._part:
            return self._md5.hexdigest()
        parts = self._done + [self._md5.digest()] * (self._left < self._part)
        return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"


def digests(etag: str, size: int, part: int | None = None) -> list[EtagDigest]:
    """One for each way in which the object may have been uploaded; [] where none is known.

    part: the size of its parts, where the server has told it.
    """
    match = _ETAG.fullmatch(etag)
    if not match:
        return []
    if not match[2]:
        return [EtagDigest(None)]
    return [EtagDigest(each) for each in ([part] if part else part_sizes(size, int(match[2])))]


def file_matches(path: Path, etag: str, digests: list[EtagDigest]) -> bool:
    """Whether a file has this ETag by one of these digests, read once for each until one fits."""
    buffer = memoryview(bytearray(CHUNK_BYTES))
    for digest in digests:
        with open(path, "rb", buffering=0) as file:
            while got := file.readinto(buffer):
                digest.update(buffer[:got])
        if digest.etag() == etag:
            return True
    return False


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
