"""One object to one file: resumed, verified, and under its name only when both are done.

What has come of an object lies beside its place, in NAME.ETAG.part: another object under the same
key has another ETag, and begins anew.
"""

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path

from eeg import UserError
from eeg.bucket.digest import CHUNK_BYTES, SentChecksums, digests, file_matches
from eeg.bucket.listing import Object
from eeg.bucket.patience import Transient
from eeg.bucket.server import Changed, Server

MOST_CHANGES = 3  # times an object may change while it is fetched
MOST_MISMATCHES = 3  # times it may come with other content than its checksum says


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
    for _ in range(MOST_CHANGES):
        part = part_of(target, wanted.etag)
        for other in target.parent.glob(f"{_escaped(target.name)}.*.part"):
            if other != part:
                other.unlink()  # of an object that is no longer there
        one = _Fetch(server, wanted, part, count)
        try:
            server.patience.attempt(one.attempt, wanted.path)
        except Changed:
            one.start_over()
            part.unlink(missing_ok=True)
            wanted = _renewed(server, wanted)
            continue
        except BaseException:
            if part.exists() and not part.stat().st_size:
                part.unlink()
            raise
        os.utime(part, (wanted.modified, wanted.modified))
        os.replace(part, target)
        return wanted
    raise UserError(f"{wanted.path} changes in the bucket while it is fetched; try again later")


def _escaped(name):
    return re.sub(r"([*?[])", r"[\1]", name)


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
    """Whether a file is what the bucket has, by size and checksum. False where there is none."""
    if path.stat().st_size != wanted.size:
        return False
    return file_matches(path, wanted.etag, digests(wanted.etag, wanted.size))


class _Fetch:
    """The attempts at one object: what one has brought, the next need not."""

    def __init__(self, server, wanted, part, count):
        self.server, self.wanted, self.part, self.count = server, wanted, part, count
        self.have = 0  # bytes in the file that are counted, and seen by the digest
        self.furthest, self.mismatches = 0, 0
        self.digest, self.sent = None, None
        self.start_over()

    def start_over(self):
        self.count(-self.have)
        self.have, self.sent = 0, None
        first = digests(self.wanted.etag, self.wanted.size)[:1]
        self.digest = first[0] if first else None

    def attempt(self):
        """Fetch what is missing and verify. Raises Transient, Changed, UserError, Stopped."""
        buffer = memoryview(bytearray(max(1, min(CHUNK_BYTES, self.wanted.size))))
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(self.part, flags, 0o666), "r+b", buffering=0) as file:
            if not self.have:
                self._take_up(file, buffer)
            try:
                if self.have < self.wanted.size:
                    self._receive(file, buffer)
            except Transient as e:
                e.progress = self.have > self.furthest
                self.furthest = max(self.furthest, self.have)
                raise
        if not self._is_right():
            self.part.unlink()
            self.start_over()
            self.mismatches += 1
            if self.mismatches >= MOST_MISMATCHES:
                raise UserError(
                    f"{self.wanted.path} came {self.mismatches} times with content that does not "
                    f"fit its checksum ({self.wanted.etag}); it is not kept"
                )
            raise Transient("its content does not fit its checksum", progress=True)

    def _take_up(self, file, buffer):
        """Count and digest what an earlier call has left."""
        if os.fstat(file.fileno()).st_size > self.wanted.size:
            file.truncate(0)
        while got := file.readinto(buffer):
            self._seen(buffer[:got])
        self.furthest = max(self.furthest, self.have)

    def _seen(self, data):
        if self.digest:
            self.digest.update(data)
        if self.sent:
            self.sent.update(data)
        self.have += len(data)
        self.count(len(data))

    def _receive(self, file, buffer):
        """Append the rest of the object. Raises Transient where it does not come whole."""
        etag = self.wanted.etag
        headers = {"If-Match": f'"{etag}"'} if etag else {}
        if self.have:
            headers["Range"] = f"bytes={self.have}-"
        answer = self.server.ask(self.wanted.key, headers=headers)
        try:
            self._check(answer)
            if answer.status == 200 and self.have:  # a server without ranges
                self.start_over()
            if not self.have:
                self.sent = SentChecksums(answer.headers)
            file.seek(self.have)
            file.truncate()
            while got := answer.read_into(buffer):
                self.server.patience.check()
                if self.have + got > self.wanted.size:
                    raise Changed
                file.write(buffer[:got])
                self._seen(buffer[:got])
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

    def _is_right(self):
        """Whether the file is the object, as far as its ETag and the server's checksums say."""
        if self.sent and self.sent.wrong():
            return False
        etag, size = self.wanted.etag, self.wanted.size
        if not self.digest or self.digest.etag() == etag:
            return True
        if file_matches(self.part, etag, digests(etag, size)[1:]):
            return True
        part = self._part_size() if "-" in etag else None
        return bool(part) and file_matches(self.part, etag, digests(etag, size, part))

    def _part_size(self):
        """The size of the parts that the object was uploaded in, None if the server won't tell."""
        try:
            answer = self.server.ask(self.wanted.key, {"partNumber": "1"}, method="HEAD")
        except (UserError, Transient):
            return None
        answer.close()
        told = answer.headers["x-amz-mp-parts-count"] and answer.headers["Content-Length"]
        return int(told) if told and told.isdigit() and int(told) else None
