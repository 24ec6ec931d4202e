"""Recordings that a user leaves out of a cache, each with a reason.

The list is text: on each line a recording or a subject, then the reason.

    # seen in the overview of R1
    sub-NDARAB123CDE_task-contrastChangeDetection_run-2    30 electrodes are flat
    NDARAB123CDE/3                                         run 3 of contrast change: moved a lot
    sub-NDARXY456ZAB                                       every recording: the net was too small
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from eeg import UserError
from eeg.data.release import CONTRAST, Recording

_NAME = re.compile(
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
        match = _NAME.fullmatch(name)
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
