"""One object to one file: resumed, verified, and under its name only when both are done.

What has come of an object lies beside its place, in NAME.ETAG.part: another object under the same
key has another ETag, and begins anew.
"""

import hashlib
import os
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path

from eeg import UserError, files
from eeg.bucket.digest import SentChecksums, file_matches, is_checksum, part_sizes, pieces
from eeg.bucket.listing import Object
from eeg.bucket.patience import Transient
from eeg.bucket.server import Changed, Server

CHUNK_BYTES = 1 << 20  # that are received at a time
MOST_CHANGES = 3  # times an object may change while it is fetched
MOST_MISMATCHES = 3  # times it may come with other content than its checksum says


_own = threading.local()


def own_buffer() -> memoryview:
    """CHUNK_BYTES that only this thread receives in. To make one for each file takes longer."""
    if not hasattr(_own, "buffer"):
        _own.buffer = memoryview(bytearray(CHUNK_BYTES))
    return _own.buffer


def part_of(target: Path, etag: str) -> Path:
    """Where an object is collected before it is renamed to `target`."""
    short = etag if re.fullmatch(r"[0-9A-Za-z-]{1,48}", etag) else _hash(etag)
    return target.with_name(f"{target.name}.{short}.part")


def _hash(text):
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def fetch(server: Server, wanted: Object, target: Path, count: Callable[[int], None]) -> Object:
    """Make `target` from an object of the bucket. -> the Object, which may have changed meanwhile.

    count(bytes) is called as bytes come, and with fewer than 0 where they are dropped again. Raises
    UserError, or Stopped; what has come is kept and used by the next call.
    """
    one = Fetch(server, wanted, target, count)
    one.receive()
    while not one.finish():
        one.receive()
    return one.wanted


def _parts(target):
    """The .part files of all objects that were to become this file."""
    begin = f"{target.name}."
    names = [name for name in os.listdir(target.parent) if name.startswith(begin)]
    return [target.with_name(name) for name in names if name.endswith(".part")]


def _renewed(server, old):
    """The Object under the same key as it is now."""
    answer = server.patience.attempt(lambda: server.ask(old.key, method="HEAD"), old.path)
    answer.close()
    headers = answer.headers
    try:
        modified = parsedate_to_datetime(headers["Last-Modified"]).timestamp()
        size = int(headers["Content-Length"])
    except (TypeError, ValueError):
        raise UserError(f"{old.path} has changed; the server does not say its size") from None
    return replace(old, size=size, etag=(headers["ETag"] or "").strip('"'), modified=modified)


def has_content(path: Path, wanted: Object) -> bool:
    """Whether a file is what the bucket has, by size and checksum."""
    if path.stat().st_size != wanted.size:
        return False
    parts = part_sizes(wanted.etag, wanted.size)
    return file_matches(path, wanted.etag, wanted.size, parts)


class Fetch:
    """One object on its way: receive() collects it, finish() verifies it and gives it its name."""

    def __init__(self, server: Server, wanted: Object, target: Path, count: Callable[[int], None]):
        self.server, self.wanted, self.target, self.count = server, wanted, target, count
        self.have = 0  # bytes in the .part that are counted
        self.furthest, self.mismatches = 0, 0
        self.sent: SentChecksums | None = None

    @property
    def part(self) -> Path:
        return part_of(self.target, self.wanted.etag)

    def receive(self) -> None:
        """Collect the object in its .part. Raises UserError or Stopped, and keeps what has come."""
        for _ in range(MOST_CHANGES):
            for other in _parts(self.target):
                if other != self.part:
                    other.unlink()  # of an object that is no longer there
            try:
                self.server.patience.attempt(self._attempt, self.wanted.path)
                return
            except Changed:
                self._start_over()
                self.part.unlink(missing_ok=True)
                self.wanted = _renewed(self.server, self.wanted)
            except BaseException:
                if self.part.exists() and not self.part.stat().st_size:
                    self.part.unlink()
                raise
        raise UserError(f"{self.wanted.path} changes while it is fetched; try again later")

    def to_hash(self) -> tuple[Path, int, int | None] | None:
        """The file, its size and that of the parts it was probably uploaded in, for etags().

        None where the ETag is no checksum.
        """
        parts = part_sizes(self.wanted.etag, self.wanted.size)
        return (self.part, self.wanted.size, parts[0]) if parts else None

    @property
    def hashes(self) -> int:
        """How many MD5s its ETag is made of."""
        parts = part_sizes(self.wanted.etag, self.wanted.size)
        return pieces(self.wanted.size, parts[0]) if parts else 0

    def finish(self, etag: str | None = None) -> bool:
        """Give the file its name if it is the object. -> whether it is; else it is begun anew.

        etag: that of the file, where it has been computed by to_hash(). Raises UserError where too
        many attempts have brought other content.
        """
        if self._is_right(etag):
            os.utime(self.part, (self.wanted.modified, self.wanted.modified))
            os.replace(self.part, self.target)
            return True
        self.part.unlink()
        self._start_over()
        self.mismatches += 1
        if self.mismatches >= MOST_MISMATCHES:
            raise UserError(
                f"{self.wanted.path} came {self.mismatches} times with content that does not fit "
                f"its checksum ({self.wanted.etag}); it is not kept"
            )
        return False

    def _start_over(self):
        self.count(-self.have)
        self.have, self.furthest, self.sent = 0, 0, None

    def _attempt(self):
        """Receive what is missing. Raises Transient, Changed, UserError, Stopped."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(self.part, flags, 0o666), "r+b", buffering=0) as file:
            if not self.have:  # what an earlier call has left
                left = os.fstat(file.fileno()).st_size
                self.have = left if left <= self.wanted.size else 0
                self.furthest = self.have
                self.count(self.have)
            try:
                if self.have < self.wanted.size:
                    self._receive(file)
            except Transient as e:
                e.progress = self.have > self.furthest
                self.furthest = max(self.furthest, self.have)
                raise

    def _receive(self, file):
        """Append the rest of the object. Raises Transient where it does not come whole."""
        etag = self.wanted.etag
        headers = {"If-Match": f'"{etag}"'} if etag else {}
        if self.have:
            headers["Range"] = f"bytes={self.have}-"
        answer = self.server.ask(self.wanted.key, headers=headers)
        try:
            self._check(answer)
            if answer.status == 200 and self.have:  # a server without ranges
                self.count(-self.have)
                self.have = 0
            if not self.have:
                self.sent = SentChecksums(answer.headers)
            file.truncate(self.have)
            buffer = own_buffer()
            while got := answer.read_into(buffer):
                self.server.patience.check()
                if self.have + got > self.wanted.size:
                    raise Changed
                files.write_at(file.fileno(), buffer[:got], self.have)
                if self.sent:
                    self.sent.update(buffer[:got])
                self.have += got
                self.count(got)
        finally:
            answer.close()
        if self.have < self.wanted.size:
            raise Transient(f"it breaks off after {self.have:,} of {self.wanted.size:,} bytes")

    def _check(self, answer):
        """Raise Changed where the answer is of another object, Transient where of other bytes."""
        found = (answer.headers["ETag"] or "").strip('"')
        if found and self.wanted.etag and found != self.wanted.etag:
            raise Changed
        if answer.status == 200:
            if answer.length not in (None, self.wanted.size):
                raise Changed
            return
        expected = f"bytes {self.have}-{self.wanted.size - 1}/{self.wanted.size}"
        if (said := answer.headers["Content-Range"]) != expected:
            if str(said).rpartition("/")[2] != str(self.wanted.size):
                raise Changed
            raise Transient(f"the server sends {ascii(said)}, asked for {expected}")

    def _is_right(self, etag):
        """Whether the .part is the object, as far as its ETag and the server's checksums say."""
        wanted, size = self.wanted.etag, self.wanted.size
        if self.sent and self.sent.wrong():
            return False
        likely = part_sizes(wanted, size)
        if etag == wanted or not is_checksum(wanted):
            return True
        if file_matches(self.part, wanted, size, likely[1:] if etag else likely):
            return True
        told = self._part_size() if "-" in wanted else None
        return bool(told) and file_matches(self.part, wanted, size, [told])

    def _part_size(self):
        """The size of the parts that the object was uploaded in, None if the server won't tell."""
        try:
            answer = self.server.ask(self.wanted.key, {"partNumber": "1"}, method="HEAD")
        except (UserError, Transient):
            return None
        answer.close()
        told = answer.headers["x-amz-mp-parts-count"] and answer.headers["Content-Length"]
        return int(told) if told and told.isdigit() and int(told) else None
