"""A release on disk: its folder, recordings and participants, the recordings that a user leaves
out, and the releases used by default.

Imports nothing heavy: a command knows its releases before torch, h5py or numpy are loaded.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from eeg import UserError, hints

_NUMBERS = (5505, 5506, 5507, 5508, 5509, 5510, 5511, 5512, 5514, 5515, 5516)
DATASETS = {f"R{i}": f"ds{number:06d}" for i, number in enumerate(_NUMBERS, 1)}
_TASKS = (
    "RestingState DespicableMe DiaryOfAWimpyKid FunwithFractals ThePresent contrastChangeDetection "
    "seqLearning6target seqLearning8target surroundSupp symbolSearch"
)
TASKS = tuple(_TASKS.split())
TRAIN, VALID = ("R1", "R2", "R3", "R4", "R8", "R9", "R10", "R11"), "R5"  # by default
CONTRAST = "contrastChangeDetection"  # the task that the competition scores
FACTORS = ("p_factor", "attention", "internalizing", "externalizing")

_SIGNAL = re.compile(
    r"(sub-([A-Za-z0-9]+)_task-([A-Za-z0-9]+)(?:_run-([0-9]+))?_eeg)\.(bdf|set|edf|vhdr)"
)
_FORMATS = ("bdf", "set", "edf", "vhdr")  # where one recording lies in several, the first


class BadRecording(ValueError):
    """One recording cannot be used; the message is the reason. The release goes on without it."""


@dataclass(frozen=True)
class Recording:
    """One recording of one subject in one task. `run` is 0 where the task has no runs."""

    subject: str
    task: str
    run: int
    signal: Path  # ..._eeg.bdf, .set, .edf or .vhdr

    @property
    def events(self) -> Path:
        return self._beside("_events.tsv")

    @property
    def channels(self) -> Path:
        return self._beside("_channels.tsv")

    def _beside(self, ending):
        return self.signal.with_name(self.signal.stem.removesuffix("_eeg") + ending)

    def __str__(self):
        return f"sub-{self.subject} {self.task}" + (f" run {self.run}" if self.run else "")


@dataclass(frozen=True)
class Release:
    name: str  # R1
    mini: bool
    folder: Path

    @property
    def root(self) -> Path:
        """The data root that the release lies in."""
        return self.folder.parent

    @property
    def streamed(self) -> str:
        """The words of run/cache.py by which it comes from a bucket, "" where it lies on disk."""
        return ""

    @property
    def readers(self) -> int | None:
        """How many recordings are best read at a time, None where that is up to the processor."""
        return None

    @property
    def label(self) -> str:
        return f"{self.name} mini" if self.mini else self.name

    @property
    def simulated(self) -> bool:
        """Whether its dataset_description.json says that it is simulated."""
        return "simulated" in self._description().lower()

    def oracle(self, challenge: int) -> float | None:
        """The NRMSE that the hidden sources of a simulated release allow, as its
        dataset_description.json says; None for any other."""
        try:
            made_by = json.loads(self._description())["GeneratedBy"]
            found = [
                each["oracle"][f"challenge{challenge}"] for each in made_by if "oracle" in each
            ]
            return float(found[0]) if found else None
        except (ValueError, LookupError, TypeError):  # it is somebody else's
            return None

    def _description(self):
        try:
            return (self.folder / "dataset_description.json").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return ""

    def recordings(self, tasks: Iterable[str]) -> list[Recording]:
        """The recordings of these tasks for which there is a signal, sorted by file name."""
        found = []
        for folder in sorted(self.folder.glob("sub-*/eeg")):
            names = sorted(os.listdir(folder)) if folder.is_dir() else []
            for match in filter(None, map(_SIGNAL.fullmatch, names)):
                stem, subject, task, run, format = match.groups()
                better = _FORMATS[: _FORMATS.index(format)]
                if task in tasks and not any(f"{stem}.{each}" in names for each in better):
                    signal = folder / match[0]
                    found.append(Recording(subject, task, int(run or 0), signal))
        return found

    def provide(self, recording: Recording, starts: Sequence[int], samples: int) -> None:
        """Make the samples of these windows readable. On disk they are; see eeg/bucket/stream.py.

        Called once for a recording, from any thread, before its windows are read.
        """

    def participants(self) -> dict[str, dict]:
        """subject -> {"age", "sex": "M" or "F", and the four factors}; {} without the file.

        NaN and "" stand for n/a. Raises UserError if the file cannot be read.
        """
        path = self.folder / "participants.tsv"
        if not path.exists():
            return {}
        try:
            table = read_tsv(path)
        except BadRecording as e:
            raise UserError(f"the participants of {self.folder} are unknown: {e}") from None
        if "participant_id" not in table:
            columns = ", ".join(table)
            raise UserError(f"{path} has no column participant_id (its columns: {columns})")
        unknown = [""] * len(table["participant_id"])
        found = {}
        for i, name in enumerate(table["participant_id"]):
            row = {key: as_number(table.get(key, unknown)[i]) for key in ("age", *FACTORS)}
            sex = table.get("sex", unknown)[i]
            found[name.removeprefix("sub-")] = row | {"sex": sex if sex in ("M", "F") else ""}
        return found


def folder_names(name: str, mini: bool) -> list[str]:
    """The folders a release may lie in, in the order they are looked for."""
    number, dataset = name[1:], DATASETS.get(name)
    if mini:
        ours, theirs = f"{name}_mini_L100_bdf", dataset and f"{dataset}-bdf-mini"
        names = [ours, theirs, f"EEG2025r{number}mini"]
    else:
        names = [f"{name}_L100_bdf", dataset and f"{dataset}-bdf", f"EEG2025r{number}"]
        names += [f"{name}_L100", dataset, f"cmi_bids_{name}"]
    return [each for each in names if each]


def find_release(
    name: str, data: Path, mini: bool = False, other: str | None = None, raw: bool = False
) -> Release:
    """The release in the data root. Raises UserError with the commands that would make it.

    other: a folder that is looked for after those of `folder_names`. raw: not one in BDF.
    """
    if not re.fullmatch(r"R[1-9][0-9]?", name):
        raise UserError(f"'{name}' is not a release; releases are called R1, R2, ... R12")
    names = folder_names(name, mini) + [other] * bool(other)
    if raw:
        names = names[names.index(f"{name}_L100") :]
    for folder in names:
        if (data / folder).is_dir():
            return Release(name, mini, data / folder)
    words = ["--release", name, *["--mini"] * mini]
    more = {"download": ["--source", "fcp-indi"], "synth": ["--raw500"]} if raw else {}
    ways = [("get it with", "download")] * (name in DATASETS) + [("simulate one with", "synth")]
    offers = [
        f"{what}: {hints.command(how, *words, *more.get(how, []), data=data)}" for what, how in ways
    ]
    raise UserError(
        f"no release {name}{' mini' if mini else ''} under {data}/ (looked for "
        f"{', '.join(names)}); name another folder with --data DIR, or {', or '.join(offers)}"
    )


def read_tsv(path: Path) -> dict[str, list[str]]:
    """A tab-separated table by column. Raises BadRecording if it is none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise BadRecording(f"there is no {path.name}") from None
    except UnicodeDecodeError:
        raise BadRecording(f"{path.name} is not text") from None
    rows = [line.split("\t") for line in lines if line.strip()]
    if not rows:
        raise BadRecording(f"{path.name} is empty")
    names = [name.strip() for name in rows[0]]
    for i, row in enumerate(rows):
        if len(row) < len(names):
            raise BadRecording(
                f"{path.name} has {len(row)} columns in row {i} and {len(names)} in its first"
            )
    columns = list(zip(*rows[1:])) or [()] * len(names)
    return {name: list(map(str.strip, column)) for name, column in zip(names, columns)}


def as_number(text: str) -> float:
    """NaN for n/a, and for anything else that is no number."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def cache_path(folder: Path, challenge: int, release: str, mini: bool = False) -> Path:
    """Where the windows of a release are kept."""
    return folder / f"challenge{challenge}_{release}{'_mini' if mini else ''}_windows.h5"


def choose_releases(
    folder: Path,
    challenge: int,
    train: tuple[str, ...] | None,
    valid: tuple[str, ...] | None,
    mini: bool,
    cv: int | None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(train, valid): names of cached releases; None stands for the default ones.

    valid is empty where subjects of the training releases validate. Only file names are looked at.
    """
    cached = lambda name: cache_path(folder, challenge, name, mini).exists()
    if cv and valid:
        raise UserError(
            "--cv validates on subjects of the training releases, --valid on other releases: "
            "use one of them"
        )
    if not train:
        train = tuple(name for name in TRAIN if cached(name) and name not in (valid or ()))
    if not train:
        from eeg.data.cache import build_command, neighbour

        command = build_command(folder, neighbour(folder, challenge, mini) | {"release": "R1"})
        looked = ", ".join(cache_path(folder, challenge, name, mini).name for name in TRAIN[:2])
        raise UserError(
            f"there is no cache of a training release for challenge {challenge} in {folder}/ "
            f"(looked for {looked}, ...); build one with: {command}"
        )
    if valid is None:
        valid = (VALID,) if not cv and cached(VALID) and VALID not in train else ()
    train, valid = tuple(dict.fromkeys(train)), tuple(dict.fromkeys(valid))
    if not all(map(cached, (*train, *valid))):
        from eeg.data.cache import find_caches

        find_caches(folder, challenge, [*train, *valid], mini)  # raises: names what is missing
    return train, valid


# ------------------------------------------------------------------- what a user leaves out

# The list of --exclude is text: on each line a recording or a subject, then the reason.
#
#     # seen in the overview of R1
#     sub-NDARAB123CDE_task-contrastChangeDetection_run-2    30 electrodes are flat
#     NDARAB123CDE/3                                         run 3 of contrast change: moved a lot
#     sub-NDARXY456ZAB                                       every recording: the net was too small
_LISTED = re.compile(
    r"(?:sub-)?([A-Za-z0-9]+)"
    r"(?:/([0-9]+)|_task-([A-Za-z0-9]+)(?:_run-([0-9]+))?(?:_eeg(?:\.[a-z]+)?)?)?"
)
_EXAMPLE = "sub-NDARAB123CDE_task-contrastChangeDetection_run-2    30 electrodes are flat"
_HEADERS = ("recording", "subject", "participant_id")


class Entry(NamedTuple):
    """One line of the list. task and run are None where it is about all of them."""

    name: str  # as it is written there
    subject: str
    task: str | None
    run: int | None
    reason: str

    def is_about(self, recording: Recording) -> bool:
        named = (self.subject, self.task or recording.task)
        if named != (recording.subject, recording.task):
            return False
        return self.run is None or self.run == recording.run


@dataclass(frozen=True)
class Exclusions:
    """A list of recordings to leave out; without a path, there is none."""

    path: Path | None = None
    entries: tuple[Entry, ...] = ()

    def reason(self, recording: Recording) -> str | None:
        """Why this recording is left out; None if it is used."""
        return next((each.reason for each in self.entries if each.is_about(recording)), None)

    def excluded(self, recordings: Iterable[Recording]) -> list[tuple[Recording, str]]:
        """Those of these recordings that are left out, with the reasons."""
        found = [(recording, self.reason(recording)) for recording in recordings]
        return [(recording, reason) for recording, reason in found if reason is not None]

    def unmatched(self, recordings: list[Recording]) -> list[str]:
        """The names on the list that none of these recordings has."""
        about = lambda entry: any(map(entry.is_about, recordings))
        return [entry.name for entry in self.entries if not about(entry)]


def read_exclusions(path: Path) -> Exclusions:
    """The list in a file. Raises UserError, with the line, if it cannot be understood."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as e:
        raise UserError(
            f"{path} cannot be read: {e.strerror}; name a list with --exclude"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8; expected lines like: {_EXAMPLE}") from None
    entries: list[Entry] = []
    for number, line in enumerate(lines, 1):
        words = line.split(None, 1)
        header = not entries and bool(words) and words[0].lower() in _HEADERS
        if not words or words[0].startswith("#") or header:
            continue
        name = re.sub(r"^(R[0-9]+/|.*/(?=sub-))", "", words[0])  # run/audit.py's, or a path
        match = _LISTED.fullmatch(name)
        if not match:
            trouble = f"'{words[0]}' is neither a recording nor a subject"
        elif len(words) < 2:
            trouble = f"'{words[0]}' has no reason behind it"
        else:
            subject, run, task, task_run = match.groups()
            run = run or task_run
            task = CONTRAST if run and not task else task
            run = int(run) if run else None
            entries.append(Entry(words[0], subject, task, run, " ".join(words[1].split())))
            continue
        raise UserError(f"{path}, line {number}: {trouble}; expected a line like: {_EXAMPLE}")
    return Exclusions(path, tuple(entries))
