"""Finds and reads the runs on disk, experiments/<name>/<YYYYmmdd_HHMMSS>/. Imports nothing heavy.

A run writes its status into state.json every few seconds. A killed process cannot: its process
number or its silence gives it away.
"""

import math
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from eeg import UserError, hints
from eeg.runs import schema

STAMP = "[!.]*"  # of run folders; one that begins with a dot is still being made
SILENCE_S = 600  # without an update after which a run on another machine has died
NOT_AGAIN = ("data", "cache", "out", "resume", "tmux")  # options about a run's place and time


@dataclass(frozen=True)
class Run:
    """One run folder. Each file is read once, when it is asked for."""

    folder: Path

    @cached_property
    def config(self) -> dict:
        return schema.read(self.folder / "config.json")

    @cached_property
    def history(self) -> dict:
        """{"epochs": [...], "events": [...]}, both empty before the first epoch ends."""
        return schema.read(self.folder / "history.json", {"epochs": [], "events": []})

    @cached_property
    def timing(self) -> dict:
        """What differs each time: seconds, rates and memory by epoch; events with their moment."""
        return schema.read(self.folder / "timing.json", {"epochs": [], "events": []})

    @cached_property
    def state(self) -> dict:
        """The run's last update, {} before its first."""
        return schema.read(self.folder / "state.json", {})

    @property
    def name(self) -> str:
        """name/stamp, as it lies under --out."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def challenge(self) -> int:
        return self.config["challenge"]

    @property
    def scored(self) -> bool:
        """Whether its first answer is what the competition scores."""
        from eeg.data.windows import TARGETS  # loads numpy

        # "factors" are challenge 2's four, externalizing first
        return self.config["target"] in (TARGETS[self.challenge], "factors")

    @property
    def align(self) -> str:
        """How it aligns the windows of a subject, for which it takes all of them."""
        return self.config.get("train", {}).get("align", "none")

    @property
    def updated(self) -> float:
        """Unix time of its last update."""
        return float(self.state.get("updated") or (self.folder / "config.json").stat().st_mtime)

    @cached_property
    def status(self) -> str:
        """running, waiting (for its turn), finished, stopped (it can be resumed), failed or died
        (its state says running, and its process is gone)."""
        said = self.state.get("status", "running")
        if said not in ("running", "waiting"):
            return said
        here = self.state.get("host") == socket.gethostname()
        # after a long silence the process's number may belong to another
        spoken = said == "waiting" or time.time() - self.updated < SILENCE_S
        if spoken and (not here or _alive(self.state.get("pid"))):
            return said
        return "died" if said == "running" else "stopped"

    @property
    def metric(self) -> str:
        """What epochs are judged by: the auroc (higher is better) of a class, the log_loss of
        relative positioning, else the nrmse."""
        if self.config.get("train", {}).get("task") == "positioning":
            return "log_loss"
        return "auroc" if self.config["target"] == "correct" else "nrmse"

    @property
    def curve(self) -> list[tuple[int, float]]:
        """(epoch, metric on the validation windows), without epochs in which it is no number."""
        epochs = self.history["epochs"]
        found = [(epoch["epoch"], epoch.get("valid", {}).get(self.metric)) for epoch in epochs]
        return [point for point in found if point[1] is not None and math.isfinite(point[1])]

    @property
    def best(self) -> tuple[int, float]:
        """(epoch, metric on the validation windows) of the epoch whose weights are kept; at first
        (0, nan)."""
        kept = {entry["epoch"] for entry in self.history["epochs"] if entry.get("best")}
        if kept:
            return max((point for point in self.curve if point[0] in kept), default=(0, math.nan))
        sign = -1 if self.metric == "auroc" else 1
        return min(self.curve, key=lambda point: sign * point[1], default=(0, math.nan))

    @property
    def mean_predictor(self) -> float:
        """The NRMSE of the mean training label on the validation windows; at least 1."""
        figures = [entry.get("valid", {}).get("mean_predictor") for entry in self.history["epochs"]]
        return next((value for value in figures if value is not None), 1.0)

    @property
    def recoveries(self) -> Counter:
        """What it got over, by kind: errors of device and memory, failed saves, resumptions."""
        events = self.history["events"] + self.timing["events"]
        return Counter(event["kind"] for event in events if event["kind"] != "stopped")

    @property
    def resume(self) -> str:
        """The command that resumes it."""
        kept, said = self.config.get("train", {}).get("cache"), hints.given.get("cache")
        # a resumed run looks where it looked before, without --cache
        known = kept and said and os.path.abspath(kept) == os.path.abspath(said)
        cache = hints.default("cache") if known else None
        words = ("--resume", self.folder)
        return hints.command(self._script, *words, cache=cache, out=hints.default("out"))

    @property
    def watch(self) -> str:
        """The command that shows it as it trains."""
        return hints.command("monitor", "--follow", out=self.folder.parents[1])

    def again(self, **changed) -> str:
        """The command that trains another run like it. changed: options, None for their default."""
        given = dict(split_options(self.config.get("command", [])[1:]))
        options = {"challenge": [self.challenge]} | given
        if "command" not in self.config and "model" in self.config:
            options["model"] = [self.config["model"]["name"]]
        train = self.config.get("train", {})
        if "seed" in train and not train.get("fold"):
            options["seed"] = [train["seed"]]  # of several, this run's own
        for name, value in changed.items():
            options[name] = value if isinstance(value, list) else [value]
        words = []
        for name, values in options.items():
            if name not in NOT_AGAIN and values != [None]:
                words += [f"--{name}", *values]
        return hints.command(self._script, *words, out=self.folder.parents[1])

    @property
    def _script(self):
        return "pretrain" if self.pretrained else "train"

    @property
    def finished(self) -> bool:
        return self.status == "finished" and self.weights_path.exists()

    @property
    def pretrained(self) -> bool:
        """Whether it is a run of run/pretrain.py, which answers nothing."""
        return self.config["target"] == "signal"

    @property
    def weights_path(self) -> Path:
        return self.folder / weights_name(self.challenge, self.pretrained)

    @property
    def weights(self) -> Path:
        """The file of its best epoch's weights. Raises UserError unless training has finished."""
        if self.finished:
            return self.weights_path
        if self.status == "running":
            at = f"epoch {self.state.get('epoch', 0)} of {self.state.get('epochs', '?')}"
            raise UserError(f"{self.folder} is still running ({at}); see: {self.watch}")
        words = {"waiting": "waits for its turn", "stopped": "was stopped"}
        words["finished"] = "lost its weights file"
        what = words.get(self.status, self.status)
        raise UserError(f"{self.folder} has not finished (it {what}); resume with: {self.resume}")


def weights_name(challenge: int, pretrained: bool = False) -> str:
    """The file of a finished run's weights."""
    return f"weights_{'encoder' if pretrained else f'challenge_{challenge}'}.pt"


def split_options(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """["--lr", "0.1", "--set=width=96"] -> [("lr", ["0.1"]), ("set", ["width=96"])]"""
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found.append((name, [value] if equals else []))
        elif found:
            found[-1][1].append(word)
    return found


def readable(runs: Iterable[Run]) -> list[Run]:
    """The runs whose files can be read; says once what is wrong with the others."""
    kept = []
    for run in runs:
        try:
            run.config, run.state, run.history, run.timing
        except UserError as e:
            _say_once(f"left out: {e}")
        else:
            kept.append(run)
    return kept


@cache
def _say_once(line):
    print(line, file=sys.stderr, flush=True)


def find_runs(out: Path) -> list[Run]:
    """Every run under out that can be read, oldest first."""
    return readable(all_runs(out))


def all_runs(out: Path) -> list[Run]:
    """Every run under out, oldest first, whether it can be read or not."""
    paths = Path(out).glob(f"*/{STAMP}/config.json")
    return [Run(path.parent) for path in sorted(paths, key=lambda path: (path.parent.name, path))]


def _alive(pid):
    if not Path("/proc/self").exists():  # macOS
        try:
            os.kill(pid, 0)
        except OSError as e:
            return isinstance(e, PermissionError)
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in b"ZX"  # a killed process whose parent has not waited for it yet
