"""What participants.tsv says, and where it disagrees with the files."""

import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from eeg import UserError
from eeg.audit.tables import RESTING, Recorded, read_table
from eeg.data.release import CONTRAST, FACTORS, TASKS, BadRecording, Release, as_number

_COLUMN = re.compile(r"([A-Za-z0-9]+?)(?:_([0-9]+))?")  # of one task, or of one of its runs
NUMBERS = ("age", "sex", "ehq_total", *FACTORS)  # sex: 1 for M, 0 for F


@dataclass
class People:
    """The participants of a release."""

    names: list[str] = field(default_factory=list)
    numbers: np.ndarray = field(default_factory=lambda: np.empty((0, len(NUMBERS))))  # NaN for n/a
    said: dict = field(default_factory=dict)  # (subject, task, run) -> available, caution, ...
    repeated: list[str] = field(default_factory=list)  # named in several rows
    bad_files: list = field(default_factory=list)  # (file name, reason)

    def column(self, name: str) -> np.ndarray:
        """(n,) one of NUMBERS."""
        return self.numbers[:, NUMBERS.index(name)]

    @property
    def factors(self) -> np.ndarray:
        """(n, 4) in the order of FACTORS."""
        return self.numbers[:, -len(FACTORS) :]


def read_people(release: Release) -> People:
    """The participants of a release; none, with the reason, where the table cannot be read."""
    path = release.folder / "participants.tsv"
    try:
        table, known = read_table(path), release.participants()
    except (BadRecording, UserError) as e:
        return People(bad_files=[(path.name, str(e))])
    ids = [name.removeprefix("sub-") for name in table["participant_id"]]
    rows = Counter(ids)
    people = People(list(known), repeated=[name for name, n in rows.items() if n > 1])
    hand = dict(zip(ids, map(as_number, table.get("ehq_total", ["n/a"] * len(ids)))))
    sex = {"M": 1.0, "F": 0.0}
    people.numbers = np.array(
        [
            [row["age"], sex.get(row["sex"], np.nan), hand[name], *(row[each] for each in FACTORS)]
            for name, row in known.items()
        ],
        float,
    ).reshape(-1, len(NUMBERS))
    people.numbers[~np.isfinite(people.numbers)] = np.nan
    for column, cells in table.items():
        match = _COLUMN.fullmatch(column)
        if match and match[1] in TASKS:
            key = match[1], int(match[2] or 0)
            people.said |= {(name, *key): cell.lower() for name, cell in zip(ids, cells)}
    return people


def compare(people: People, recordings: list[Recorded]) -> dict[str, list[str]]:
    """{key of counts.LABELS: the participants, or their runs, that it is true of}."""
    there = {(each.subject, each.task, each.run) for each in recordings}
    tasks = {each.task for each in recordings}
    contrast = {each.subject for each in recordings if each.task == CONTRAST}
    found: dict[str, list[str]] = {}
    for key, word in people.said.items():
        subject, task, run = key
        if task != CONTRAST and task not in tasks - {RESTING}:
            continue  # where there is no file of a task at all, it was not asked for
        where = f"{subject}/{run}" if task == CONTRAST else f"{subject} {task} {run or ''}".rstrip()
        kinds = _disagreements(word, key in there)
        if task != CONTRAST:
            kinds = tuple(f"{kind} (other tasks)" for kind in kinds[:1])
        for kind in kinds:
            found.setdefault(kind, []).append(where)
    unknown = np.isnan(people.factors).any(1)
    named = lambda rows: [people.names[i] for i in np.flatnonzero(rows)]
    found["no recording"] = [name for name in people.names if name not in contrast]
    found["no factors"] = named(unknown)
    found["no factors, recorded"] = [name for name in named(unknown) if name in contrast]
    for key, column in (("no age", "age"), ("no sex", "sex"), ("no ehq", "ehq_total")):
        found[key] = named(np.isnan(people.column(column)))
    found["unknown subjects"] = sorted({each.subject for each in recordings} - set(people.names))
    found["repeated"] = people.repeated
    return found


def _disagreements(word, is_there):
    """Under which keys of counts.LABELS a run is counted. word: what participants.tsv says."""
    if word in ("available", "caution") and not is_there:
        return "said, no file", f"{word}, no file"
    return ("unavailable, a file",) if word == "unavailable" and is_there else ()
