"""A release in a bucket as if it lay on disk: tables at once, samples when they are read.

Its recordings are files of the right size in a folder beside the cache, in which only what was
fetched takes room: tables whole, of each recording the beginning and the records that windows need.
What has come is noted in that folder, and the folder stays until the cache is complete: a build
that is interrupted continues.
"""

import json
import os
import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eeg import UserError, files, hints
from eeg.bucket.choice import Choice
from eeg.bucket.fetch import fetch, has_content, own_buffer
from eeg.bucket.listing import Object
from eeg.bucket.patience import Transient
from eeg.bucket.server import Changed, Server
from eeg.data.release import Recording, Release
from eeg.data.sources import HEAD_BYTES
from eeg.data.windows import SFREQ

NEAR_BYTES = 1 << 16  # two ranges with less between them are fetched as one
NOTES = "fetched.jsonl"  # a line for each range that has come

NO_SIGNALS = (b"BDF Annotations", b"EDF Annotations", b"Status")

Range = tuple[int, int]  # bytes from, to (exclusive)


@dataclass(frozen=True)
class StreamedRelease(Release):
    stream: "Stream"
    data: Path  # the data root that it would lie in
    connections: int
    words: tuple[str, ...]  # of run/cache.py, beside --stream

    @property
    def streamed(self) -> str:
        return shlex.join(("--stream", *self.words))

    @property
    def root(self) -> Path:
        return self.data

    @property
    def readers(self) -> int | None:
        return self.connections

    def provide(self, recording: Recording, starts: Sequence[int], samples: int) -> None:
        self.stream.provide(recording, starts, samples)


class Stream:
    """What has been fetched of the files of a release, and what fetches more.

    work: the folder beside the cache; name: that of the release's folder.
    """

    def __init__(self, server: Server, choice: Choice, work: Path, name: str):
        self.server, self.work, self.folder = server, work, work / name
        used = [one for one in choice.objects if not one.path.endswith("_eeg.json")]
        self.objects = {one.path: one for one in used}
        self._lock = threading.Lock()
        # path -> the ETag of the object that the file is of, and the ranges that have come
        self._noted: dict[str, tuple[str, list[Range]]] = {}
        self._read_notes()

    @property
    def whole_bytes(self) -> int:
        """Of files that are fetched whole: only a BDF can be read in parts."""
        return sum(one.size for one in self.objects.values() if not one.path.endswith(".bdf"))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from the folder."""
        with files.writing(self.folder, "--cache DIR"):
            self.folder.mkdir(parents=True, exist_ok=True)
        with files.locked_folder(self.work) as held:
            if not held:
                raise UserError(f"another process fills {self.work}; wait for it, or stop it")
            yield

    def prepare(self, connections: int) -> None:
        """Fetch tables, the beginnings of recordings, and those that cannot be read in parts."""
        whole = [one for one in self.objects.values() if not one.path.endswith(".bdf")]
        there = (self.folder / one.path for one in whole)
        come = sum(path.stat().st_size for path in there if path.exists())
        files.check_room(self.work, "--cache DIR", self.whole_bytes - come)
        with ThreadPoolExecutor(connections) as pool:
            futures = [pool.submit(self._prepare, one) for one in self.objects.values()]
            try:
                for future in as_completed(futures):
                    future.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _prepare(self, one):
        path = self.folder / one.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".bdf":
            if not (path.exists() and has_content(path, one)):
                fetch(self.server, one, path, lambda size: None)
            return
        noted, _ = self._noted.get(one.path, (None, None))
        if noted != one.etag or not path.exists() or path.stat().st_size != one.size:
            self._note(one, None)
            with open(path, "wb") as file:
                file.truncate(one.size)  # takes no room until something is written
        self._fetch(one, [(0, min(HEAD_BYTES, one.size))])
        with open(path, "rb") as file:
            head = file.read(256)
        header_bytes = 256 * (_number(head[252:256]) + 1)
        if HEAD_BYTES < header_bytes <= one.size:
            self._fetch(one, [(0, int(header_bytes))])
        layout = bdf_layout(path)
        # what will be filtered is needed whole, and so are the times of discontinuous records
        if layout and (layout.sfreq != SFREQ or head[192:197] == b"BDF+D"):
            self._fetch(one, [(0, one.size)])
        os.utime(path, (one.modified, one.modified))

    def provide(self, recording: Recording, starts: Sequence[int], samples: int) -> None:
        """Fetch the records that hold these windows."""
        if recording.signal.suffix != ".bdf":
            return
        one = self.objects[recording.signal.relative_to(self.folder).as_posix()]
        layout = bdf_layout(recording.signal)
        whole = [(0, one.size)]
        self._fetch(one, record_ranges(layout, starts, samples) if layout else whole)

    def _fetch(self, one, needed):
        """Fetch what is missing of these ranges of an object, and note that it is there."""
        missing = without(merged(needed, NEAR_BYTES), self._noted[one.path][1])
        if missing:
            with files.writing(self.work, "--cache DIR"):
                self._fetch_ranges(one, missing)
                self._note(one, missing)

    def _fetch_ranges(self, one, ranges):
        with open(self.folder / one.path, "r+b", buffering=0) as file:
            for first, last in ranges:
                piece = _Piece(self.server, one, file, first, last)
                try:
                    self.server.patience.attempt(piece.attempt, one.path)
                except Changed:
                    again = hints.this("cache")
                    raise UserError(
                        f"{one.path} has changed in the bucket while the cache was built; start "
                        f"again with: {again}"
                    ) from None
            os.fdatasync(file.fileno())  # before it is noted, should the power fail

    def _note(self, one, ranges):
        """Note that ranges of an object have come; None: that its file is begun."""
        line = json.dumps({"path": one.path, "etag": one.etag, "ranges": ranges})
        with self._lock:
            self._take_note(one.path, one.etag, ranges)
            with open(self.work / NOTES, "a", encoding="utf-8") as file:
                file.write(f"\n{line}\n")  # whatever the line before it was killed in

    def _take_note(self, path, etag, ranges):
        noted, there = self._noted.get(path, (None, []))
        if ranges is None or noted != etag:
            there = []
        self._noted[path] = etag, merged([*there, *(ranges or [])])

    def _read_notes(self):
        if not (self.work / NOTES).exists():
            return
        for line in (self.work / NOTES).read_text(encoding="utf-8").splitlines():
            try:
                note = json.loads(line)
                path, etag, ranges = note["path"], note["etag"], note["ranges"]
            except (ValueError, KeyError, TypeError):  # the line that it was killed in
                continue
            pairs = None if ranges is None else [(first, last) for first, last in ranges]
            self._take_note(path, etag, pairs)

    def remove(self) -> None:
        files.remove(self.work)


@contextmanager
def interruptible(server: Server) -> Iterator[None]:
    """Have signals that end the process end its requests too: threads that wait for an answer."""

    def end(number, frame):
        server.patience.stop()
        server.close()
        before[number](number, frame)

    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: usual for number, usual in before.items() if callable(usual)}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)


class _Piece:
    """The attempts at one range of an object: what one has brought, the next need not."""

    def __init__(self, server: Server, one: Object, file, first: int, last: int):
        self.server, self.one, self.file, self.at, self.last = server, one, file, first, last

    def attempt(self):
        begin = self.at
        headers = {"Range": f"bytes={begin}-{self.last - 1}"}
        if self.one.etag:
            headers["If-Match"] = f'"{self.one.etag}"'
        answer = self.server.ask(self.one.key, headers=headers)
        try:
            self._check(answer, begin)
            self._receive(answer)
        except Transient as e:
            e.progress = self.at > begin
            raise
        finally:
            answer.close()

    def _check(self, answer, begin):
        """Raise where the answer is not of the range asked for."""
        found = (answer.headers["ETag"] or "").strip('"')
        if found and self.one.etag and found != self.one.etag:
            raise Changed
        if answer.status == 200 and (begin, self.last) != (0, self.one.size):
            raise UserError(f"{self.server.address} sends files only whole: leave out --stream")
        expected = f"bytes {begin}-{self.last - 1}/{self.one.size}"
        said = answer.headers["Content-Range"]
        if answer.status == 206 and said != expected:
            if str(said).rpartition("/")[2] != str(self.one.size):
                raise Changed
            raise Transient(f"the server sends {ascii(said)}, asked for {expected}")

    def _receive(self, answer):
        buffer = own_buffer()
        while self.at < self.last:
            got = answer.read_into(buffer[: self.last - self.at])
            if not got:
                raise Transient(f"it breaks off {self.last - self.at:,} bytes before its end")
            self.server.patience.check()
            files.write_at(self.file.fileno(), buffer[:got], self.at)
            self.at += got


# where samples lie


@dataclass(frozen=True)
class BdfLayout:
    """How long the parts of a BDF file are. Of a header that makes sense: others are refused."""

    header_bytes: int
    record_bytes: int
    record_samples: int  # of each channel
    sfreq: float
    n_times: int


def bdf_layout(path: Path) -> BdfLayout | None:
    """The layout of a BDF file, None where its header says nothing sensible."""
    with open(path, "rb") as file:
        head = file.read(256)
        count = int(_number(head[252:256]))
        if not 1 <= count <= 4096:
            return None
        fields = file.read(256 * count)
    at = 216 * count
    samples = [_number(fields[at + 8 * i : at + 8 * i + 8]) for i in range(count)]
    labels = [fields[16 * i : 16 * i + 16].strip(b" \0") for i in range(count)]
    signals = [n for n, label in zip(samples, labels) if label not in NO_SIGNALS]
    seconds, header_bytes = _number(head[244:252]), 256 * (count + 1)
    if not signals or min(samples) < 1 or not seconds > 0:
        return None
    record_bytes = int(3 * sum(samples))
    records = (path.stat().st_size - header_bytes) // record_bytes
    of_record = int(signals[0])
    return BdfLayout(
        header_bytes, record_bytes, of_record, of_record / seconds, records * of_record
    )


def record_ranges(layout: BdfLayout, starts: Sequence[int], samples: int) -> list[Range]:
    """The bytes of the records that hold these windows, as csrc/bdf.hpp reads them.

    Windows may reach over both ends of the recording.
    """
    found = []
    for start in starts:
        ends = (max(0, min(int(at), layout.n_times - 1)) for at in (start, start + samples - 1))
        first, last = (at // layout.record_samples for at in ends)
        begin, end = first * layout.record_bytes, (last + 1) * layout.record_bytes
        found.append((layout.header_bytes + begin, layout.header_bytes + end))
    return found


def _number(field: bytes) -> float:
    """A number of a header; -1 where there is none."""
    try:
        return float(field)
    except ValueError:
        return -1


def merged(ranges: Sequence[Range], near: int = 0) -> list[Range]:
    """The ranges in order, those joined that have at most `near` bytes between them."""
    joined: list[Range] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + near:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return joined


def without(ranges: Sequence[Range], there: Sequence[Range]) -> list[Range]:
    """What these ranges hold that others (in order) do not."""
    left = []
    for first, last in ranges:
        for begin, end in there:
            if begin < last and first < end:
                left.append((first, begin))
                first = end
        left.append((first, last))
    return [(first, last) for first, last in left if first < last]
