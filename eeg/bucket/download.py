"""A release from its bucket to a folder: what is there already stays, the rest is fetched.

`.download.json` in the folder says which object each file is, so that the next call need not read
the files to know. A file that it does not name is compared with its checksum.
"""

import json
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from eeg import UserError, files
from eeg.bucket.digest import etags, is_checksum
from eeg.bucket.fetch import Fetch, has_content, part_of
from eeg.bucket.listing import Object
from eeg.bucket.patience import TimeIsUp
from eeg.bucket.server import Server

RECORD = ".download.json"
HASHES = 16  # MD5s that are worth a pass: 8 at a time, of files of unequal length
SHORT_BYTES = 1 << 18  # files up to here add little to a pass
VERIFY_S = 1.0  # the longest that a file waits for others, to be verified with them
SAVE_S = 5.0  # between two writes of the record
MOST_FAILURES = 10  # files in a row: then the server is at fault


@dataclass
class Report:
    """What a download did, for its closing lines. Counts are of files."""

    there: int = 0  # right already
    fetched: int = 0
    received: int = 0  # bytes that came
    replaced: list[str] = field(default_factory=list)  # were there with other content
    by_size: int = 0  # verified by size alone: their ETag is no checksum
    failed: list[str] = field(default_factory=list)  # with the reason
    missing: int = 0  # not tried, for the time was up


class Record:
    """Which object each file of a folder is: path -> [size, ETag, mtime in ns]."""

    def __init__(self, folder: Path):
        self._path, self._saved = folder / RECORD, time.monotonic()
        self._lock = threading.Lock()
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            self._files = {str(path): list(entry) for path, entry in found["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._files = {}  # without it, files are compared with their checksums

    def knows(self, path: Path, one: Object) -> bool:
        """Whether a file is this object, and has not been written since."""
        state = path.stat()
        expected = [one.size, one.etag, state.st_mtime_ns]
        return state.st_size == one.size and self._files.get(one.path) == expected

    def add(self, path: Path, one: Object) -> None:
        entry = [one.size, one.etag, path.stat().st_mtime_ns]
        with self._lock:
            self._files[one.path] = entry

    def save(self, now: bool = True) -> None:
        if now or time.monotonic() - self._saved > SAVE_S:
            about = "which object of the bucket each file is; remove it to have all verified again"
            with self._lock:
                known = dict(self._files)
            files.write_json(self._path, {"about": about, "files": known})
            self._saved = time.monotonic()


class Download:
    """The files of a release that are asked for, and what is to be done for each."""

    def __init__(self, server: Server, objects: list[Object], folder: Path, verify: bool = False):
        self.server, self.folder = server, folder
        self.record = Record(folder)
        self.report = Report()
        self.todo: list[Object] = []
        for one in objects:
            target = folder / one.path
            _refuse_links(folder, target)
            if not verify and target.is_file() and self.record.knows(target, one):
                self.report.there += 1
            else:
                self.todo.append(one)
        self.todo_bytes = sum(one.size for one in self.todo)
        self.done_bytes, self._in_row = 0, 0
        self._lock = threading.Lock()
        self._done: queue.SimpleQueue[Fetch | BaseException | None] = queue.SimpleQueue()

    def sizes_fit(self) -> list[Object]:
        """Of the files to be done, those that are there with the right size: to be verified."""
        there = [(one, self.folder / one.path) for one in self.todo]
        return [one for one, path in there if path.is_file() and path.stat().st_size == one.size]

    def check_room(self) -> None:
        """Raise UserError where the disk has no room for what is to come."""
        fits = {one.path for one in self.sizes_fit()}
        needed = 0
        for one in self.todo:
            part = part_of(self.folder / one.path, one.etag)
            come = part.stat().st_size if part.exists() else 0
            needed += 0 if one.path in fits else max(0, one.size - come)
        files.check_room(self.folder, "--data DIR", needed)

    def run(self, connections: int, progress: Callable | None = None) -> Report:
        """Fetch and verify. progress(done, total) is called with bytes.

        Raises UserError or OSError where no file can be fetched any more; what was fetched stays.
        """
        before = self.server.received
        with files.writing(self.folder, "--data DIR"):
            self.folder.mkdir(parents=True, exist_ok=True)
            with files.locked_folder(self.folder) as held:
                if not held:
                    other = "another process is downloading to"
                    raise UserError(f"{other} {self.folder}; wait for it, or stop it")
                self._fetch_all(connections, progress)
        self.report.received = self.server.received - before
        return self.report

    def _fetch_all(self, connections, progress):
        self.report.missing = len(self.todo)
        with ThreadPoolExecutor(connections) as pool:
            for one in self.todo:
                pool.submit(self._work, self._begin, one)
            try:
                self._loop(pool, progress)
            except TimeIsUp:  # the report says how many files are missing
                self.server.close()
            except BaseException:
                self.server.patience.stop()
                self.server.close()
                raise
            finally:
                pool.shutdown(cancel_futures=True)
                self.record.save()

    def _loop(self, pool, progress):
        """Verify what has come, several files at a time, until nothing is running."""
        running, come = len(self.todo), []
        since = time.monotonic()
        while running or come:
            try:
                done = self._done.get(timeout=0.1) if running else None
                running -= bool(running)
                if isinstance(done, BaseException):
                    raise done
                come += [done] if done else []
            except queue.Empty:
                self.server.patience.check()
            long_ones = sum(one.hashes for one in come if one.wanted.size > SHORT_BYTES)
            if long_ones >= HASHES or not running or time.monotonic() - since > VERIFY_S:
                for one in self._verify(come):
                    pool.submit(self._work, self._receive, one)
                    running += 1
                come, since = [], time.monotonic()
            if progress:
                progress(self.done_bytes, self.todo_bytes)
            self.record.save(now=False)

    def _work(self, what, one):
        try:
            self._done.put(what(one))
        except BaseException as e:  # it is raised in _loop
            self._done.put(e)

    def _begin(self, one):
        """-> the Fetch of a file that has come, None where there is nothing to be verified."""
        target = self.folder / one.path
        self.server.patience.check()
        if target.is_file():
            if has_content(target, one):
                self._count(one.size)
                self._finished(one, fetched=False)
                return None
            self.report.replaced.append(one.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        return self._receive(Fetch(self.server, one, target, self._count))

    def _receive(self, one):
        try:
            one.receive()
        except TimeIsUp:
            raise
        except UserError as e:
            self._fail(e)
            return None
        return one

    def _verify(self, come):
        """Give files that are right their names. -> those that must come again."""
        known = [one for one in come if one.to_hash()]
        found = dict(zip(map(id, known), etags([one.to_hash() for one in known])))
        again = []
        for one in come:
            try:
                if one.finish(found.get(id(one))):
                    self._finished(one.wanted, fetched=True)
                else:
                    again.append(one)
            except UserError as e:
                self._fail(e)
        return again

    def _finished(self, one, fetched):
        with self._lock:
            self._in_row = 0
            self.record.add(self.folder / one.path, one)
            self.report.missing -= 1
            self.report.there += not fetched
            self.report.fetched += fetched
            self.report.by_size += not is_checksum(one.etag)

    def _fail(self, error):
        with self._lock:
            self._in_row += 1
            self.report.missing -= 1
            self.report.failed.append(str(error))
            if self._in_row >= MOST_FAILURES:
                raise UserError(
                    f"{self._in_row} files in a row could not be fetched; the last: {error}"
                )

    def _count(self, size):
        with self._lock:
            self.done_bytes += size


def _refuse_links(folder, target):
    """Raise UserError where a file of the folder, or a folder in it, is a link to elsewhere."""
    for path in (target, *target.parents):
        if path == folder:
            return
        if path.is_symlink():
            raise UserError(f"{path} is a link; remove it: nothing is written through links")
