"""What a run writes about itself into its folder <out>/<name>/<YYYYmmdd_HHMMSS>/.

Imports nothing heavy: a run has its folder at once.

config.json    every setting; written when the folder is made, completed when the data is known
history.json   epochs and events: the same however often the run was interrupted
timing.json    seconds, rates, memory, resumptions: what differs from one time to another
state.json     where it is now, every few seconds
log.txt        what it printed
"""

import os
import shutil
import socket
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TextIO

from eeg import UserError, cli
from eeg.files import lock, trouble, write_json, writing
from eeg.runs import schema
from eeg.runs.run import Run

EVERY = 2.0  # s between two words about where it is


def claim(out: Path, name: str, config: dict) -> Path:
    """Make the folder of a new run, with config.json in it from its first moment. -> its path"""
    parent = Path(out) / name
    nursery = parent / f".{os.getpid()}.partial"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        nursery.mkdir(exist_ok=True)
        write_json(nursery / "config.json", config)
        write_json(nursery / "state.json", {"status": "waiting"} | who())
        stamp = datetime.now()
        while True:
            folder = parent / stamp.strftime("%Y%m%d_%H%M%S")
            try:
                os.rename(nursery, folder)  # fails where a run is: it has files in it
                return folder
            except OSError:
                if not folder.exists():
                    raise
                stamp += timedelta(seconds=1)
    except OSError as e:
        shutil.rmtree(nursery, ignore_errors=True)
        raise UserError(trouble(e, f"{parent}/", "--out DIR")) from None


def who() -> dict:
    """The process that updates state.json, and when."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "updated": time.time()}


class Journal:
    """Writes a run's files. quiet: this process writes nothing (torchrun's others)."""

    def __init__(self, folder: Path, quiet: bool = False):
        self.folder, self.quiet, self.full = Path(folder), quiet, False
        self.history: dict[str, list] = {"epochs": [], "events": []}
        self.log: TextIO | None = None
        if not quiet:
            with writing(self.folder, "--out DIR"):
                path = self.folder / "log.txt"
                self.log = open(path, "a", 1, encoding="utf-8", errors="surrogateescape")
        if self.log and not lock(self.log):
            busy = f"another process is training {folder} at this moment"
            raise UserError(f"{busy}; watch it with: {Run(self.folder).watch}")
        run = Run(self.folder)
        # `before`: as an earlier process left it, still "running" if that one was killed
        self.before, self.timing = run.state, run.timing
        self.now: dict = {}
        self.said = 0.0

    def say(self, line: str = "") -> None:
        """Print a line, and keep it in the log."""
        if not self.log:
            return
        clear_bar = "\r\033[K" if sys.stderr.isatty() else ""
        self._print(f"{clear_bar}{line}", sys.stdout)
        write, text = self.log.write, f"{cli.moment()}  {line}\n"
        self._write(lambda: write(text))

    def state(self, status: str = "running", force: bool = False, **facts) -> None:
        """Rewrite state.json with what is new, at most every EVERY seconds unless it must."""
        self.now |= facts | {"status": status}
        due = force or status != "running" or time.monotonic() - self.said > EVERY
        if due and not self.quiet:
            self.said = time.monotonic()
            written = who() | {"reason": ""} | self.now
            self._write(lambda: write_json(self.folder / "state.json", written))

    def event(self, epoch: int, batch: int, kind: str, text: str) -> None:
        """Record what changed the results: it belongs to the history."""
        self.history["events"].append({"epoch": epoch, "batch": batch, "kind": kind, "text": text})
        self.say(f"{kind}: {text}")
        self.publish()

    def note(self, epoch: int, batch: int, kind: str, text: str) -> None:
        """Record what changed no result: an interruption, a full disk."""
        event = {"when": time.time(), "epoch": epoch, "batch": batch, "kind": kind, "text": text}
        self.timing["events"].append(event)
        self.publish()

    def publish(self) -> None:
        if not self.quiet:
            self._write(lambda: write_json(self.folder / "history.json", self.history))
            self._write(lambda: write_json(self.folder / "timing.json", self.timing))

    def config(self, **facts) -> None:
        """Add to config.json."""
        if not self.quiet:
            path = self.folder / "config.json"
            write_json(path, schema.read(path) | facts)

    def close(self) -> None:
        if self.log:
            self._write(self.log.close)

    def _write(self, write):
        """A full disk does not end the run: it is reported once on the screen."""
        try:
            write()
        except OSError as e:
            if not self.full:
                lost = "the run continues, what it writes about itself is not kept"
                self._print(f"warning: {self.folder}: {e.strerror}; {lost}", sys.stderr)
            self.full = True
        else:
            self.full = False

    def _print(self, line, stream):
        try:
            print(line, file=stream, flush=True)
        except OSError:
            cli.mute(stream)
