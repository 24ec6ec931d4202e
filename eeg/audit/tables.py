"""The tables of a release: which recordings have which, and what one recording's tables say.

No signal is opened, and none has to exist: a folder with events.tsv files is enough.
"""

import json
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eeg.data.release import CONTRAST, BadRecording, read_tsv
from eeg.data.trials import build_trials, events_of
from eeg.models.montage import CHANNELS, START_S

RESTING = "RestingState"
LONG_S = 20  # a trial that lasts longer is an interruption
BLOCK_TRIALS = 24  # in a whole block
SHORT_S = 4  # a window of challenge 2
MISSING = ("n/a", "na", "nan", "")

TARGETS = ("left_target", "right_target")
PRESSES = ("left_buttonPress", "right_buttonPress")
START, END = "contrastTrial_start", "9999"
_MARKER = re.compile(r"contrastChangeB([0-9]+)_start")
_FILE = re.compile(
    r"(sub-([A-Za-z0-9]+)_task-([A-Za-z0-9]+)(?:_run-([0-9]+))?)"
    r"_(events\.tsv|channels\.tsv|eeg\.(?:json|bdf|set|edf|vhdr))"
)


@dataclass(frozen=True)
class Recorded:
    """One recording, by the files that there are of it. `run` is 0 where the task has no runs."""

    subject: str
    task: str
    run: int
    stem: Path  # .../sub-X/eeg/sub-X_task-T_run-1
    files: frozenset[str]  # "events.tsv", "eeg.json", ...

    def __str__(self):
        return self.subject + (f"/{self.run}" if self.run else f" {self.task}")

    def path(self, file: str) -> Path:
        return self.stem.with_name(f"{self.stem.name}_{file}")

    @property
    def has_signal(self) -> bool:
        return any(file.startswith("eeg.") and file != "eeg.json" for file in self.files)


@dataclass
class Facts:
    """What the tables of one recording say."""

    recorded: Recorded
    trials: np.ndarray | None = None  # TRIAL, of a contrast-change recording with usable events
    counts: Counter = field(default_factory=Counter)  # key of counts.LABELS -> how many
    words: Counter = field(default_factory=Counter)  # events that are no part of a trial
    last_onset_s: float = float("nan")
    duration_s: float = float("nan")  # as eeg.json says
    channels: int | None = None  # as channels.tsv says, or eeg.json
    bad_files: list = field(default_factory=list)  # (file name, reason)

    @property
    def has_trials(self) -> bool:
        return self.trials is not None


def list_recordings(folder: Path) -> list[Recorded]:
    """The recordings of a release of which there is any file, by file name."""
    found = []
    for eeg in sorted(folder.glob("sub-*/eeg")):
        files: dict[str, set[str]] = {}
        for match in map(_FILE.fullmatch, os.listdir(eeg) if eeg.is_dir() else []):
            if match:
                files.setdefault(match[1], set()).add(match[5])
        for stem, kinds in sorted(files.items()):
            _, subject, task, run, _ = _FILE.fullmatch(f"{stem}_events.tsv").groups()
            found.append(Recorded(subject, task, int(run or 0), eeg / stem, frozenset(kinds)))
    return found


def read_table(path: Path) -> dict[str, list[str]]:
    """A table by column. Raises BadRecording if it cannot be read."""
    try:
        return read_tsv(path)
    except OSError as e:
        raise BadRecording(f"{path.name} cannot be read: {e.strerror}") from None


def read_facts(recorded: Recorded) -> Facts:
    """What one recording's tables say. What cannot be read is named in `bad_files`."""
    facts = Facts(recorded)
    readers = {"eeg.json": _read_json, "channels.tsv": _read_channels}
    if recorded.task == CONTRAST:
        readers["events.tsv"] = _read_contrast
    elif recorded.task == RESTING:
        readers["events.tsv"] = _read_resting
    for file, read in readers.items():
        try:
            if file in recorded.files:
                read(facts, recorded.path(file))
            elif file == "events.tsv":
                raise BadRecording(f"there is no {recorded.path(file).name}")
        except BadRecording as e:
            facts.bad_files.append((recorded.path(file).name, str(e)))
            facts.counts[f"bad {file}"] += 1
    short = recorded.task == RESTING and facts.duration_s < SHORT_S
    facts.counts["short resting"] += short
    return facts


def _read_json(facts, path):
    """The length of the recording and the number of channels."""
    try:
        about = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as e:  # not UTF-8, or no JSON
        raise BadRecording(f"{path.name} is no JSON: {e}") from None
    if not isinstance(about, dict):
        raise BadRecording(f"{path.name} holds no JSON object")
    facts.duration_s = _positive(about.get("RecordingDuration"))
    resting = " (resting)" * (facts.recorded.task == RESTING)
    facts.counts["no length" + resting] += np.isnan(facts.duration_s)
    count = _positive(about.get("EEGChannelCount"))
    facts.counts["no channel count" + resting] += np.isnan(count)
    if not np.isnan(count):
        facts.channels = int(count)


def _positive(value):
    """A number above 0 and finite, else NaN."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return float("nan")
    return number if 0 < number < np.inf else float("nan")


def _read_channels(facts, path):
    """How many channels there are, and whether their types and units are known."""
    table = read_table(path)
    if "name" not in table:
        raise BadRecording(f"{path.name} has no column 'name' (its columns: {', '.join(table)})")
    facts.channels = len(table["name"])
    resting = " (resting)" * (facts.recorded.task == RESTING)
    facts.counts["other channels" + resting] += facts.channels != len(CHANNELS)
    known = set(table.get("type", ())) | set(table.get("units", ()))
    facts.counts["channels n/a" + resting] += {text.lower() for text in known} <= set(MISSING)


def _read_resting(facts, path):
    values = read_table(path).get("value", [])
    facts.counts["two resting starts"] += values.count("resting_start") >= 2


def _read_contrast(facts, path):
    """Trials, and what is odd among the events."""
    table = read_table(path)
    onsets, values, feedback = events_of(table, path.name)
    counts, timed = facts.counts, np.isfinite(onsets)
    counts["untimed events"] += int((~timed).sum())
    counts["durations"] += sum(text.lower() not in MISSING for text in table.get("duration", ()))
    counts["fractional samples"] += sum(map(_is_fraction, table.get("sample", ())))
    counts["no feedback column"] += "feedback" not in table
    onsets, values, feedback = onsets[timed], values[timed], feedback[timed]
    facts.last_onset_s = max(onsets, default=float("nan"))
    facts.trials = build_trials(onsets, values, feedback)
    _count_events(facts, onsets, values)
    _count_trials(facts, onsets, values, feedback)


def _is_fraction(text):
    return "." in text and text.lower() not in MISSING and bool(text.split(".")[1].strip("0"))


def _count_events(facts, onsets, values):
    """Markers, strays, and words that are no part of a trial."""
    counts = facts.counts
    facts.words = Counter(
        value
        for value in values
        if value not in (*TARGETS, *PRESSES, START) and not _MARKER.fullmatch(value)
    )
    markers = Counter(match[1] for match in map(_MARKER.fullmatch, values) if match)
    run = facts.recorded.run
    counts["marker of another run"] += bool(run) and any(int(n) != run for n in markers)
    counts["block started twice"] += max(markers.values(), default=0) >= 2
    starts = values == START
    counts["few trial starts"] += int(starts.sum()) < BLOCK_TRIALS
    counts["no 9999"] += END not in facts.words
    counts["stray target"] += bool((np.isin(values, TARGETS) & (onsets == 0)).any())
    counts["stray start"] += bool((starts & (onsets == 0)).any())
    counts["equal onsets"] += int((np.diff(onsets) == 0).sum())
    counts["with equal onsets"] += counts["equal onsets"] > 0
    counts["negative onsets"] += int((onsets < 0).sum())
    own = np.round(onsets[values != "boundary"] * 1e6)  # whole microseconds
    counts["off the 2 ms grid"] += bool((own % 2000 != 0).any())
    counts["250 Hz"] += len(own) >= BLOCK_TRIALS and bool((own % 4000 == 0).all())


def _count_trials(facts, onsets, values, feedback):
    """Trials by kind. What is said of responses is said of valid trials."""
    trials, counts = facts.trials, facts.counts
    valid = np.isfinite(trials["rt_from_stimulus"])
    no_stimulus = np.isnan(trials["stimulus"])
    counts["trials"] += len(trials)
    counts["valid"] += int(valid.sum())
    counts["no stimulus"] += int(no_stimulus.sum())
    counts["no response"] += int((~no_stimulus & ~valid).sum())
    counts["no valid trial"] += not valid.any()
    counts["fast"] += bool(len(trials)) and bool(trials["fast"][0])
    counts["RT 0"] += int((trials["rt_from_stimulus"] == 0).sum())
    counts["RT before the window"] += int((trials["rt_from_stimulus"] < START_S).sum())
    long = trials["stop"] - trials["start"] > LONG_S
    counts["long"] += int(long.sum())
    counts["long and valid"] += int((long & valid).sum())

    left, right = (onsets[values == press] for press in PRESSES)
    after = [_between(presses, trials["stimulus"], trials["stop"]) for presses in (left, right)]
    several = valid & (after[0] + after[1] >= 2)
    counts["several presses"] += int(several.sum())
    counts["both buttons"] += int((several & (after[0] > 0) & (after[1] > 0)).sum())
    early = sum(_between(presses, trials["start"], trials["stimulus"]) for presses in (left, right))
    counts["early press"] += int((early > 0).sum())
    counts["early press and valid"] += int((valid & (early > 0)).sum())
    pressed = np.isin(values, PRESSES)
    first = np.searchsorted(onsets[pressed], trials["response"][valid])
    counts["non_target"] += int((feedback[pressed][first] == "non_target").sum())


def _between(times, lower, upper):
    """(n) how many of the sorted times lie in each lower <= time < upper; 0 where one is NaN."""
    known = np.isfinite(lower) & np.isfinite(upper)
    many = np.searchsorted(times, upper) - np.searchsorted(times, lower)
    return np.where(known, many, 0)
