"""Which windows train and which validate: by release and by subject, no subject on both sides."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from eeg import UserError, cli
from eeg.data.cache import Cache, find_caches, rebuild_known
from eeg.data.release import FACTORS

SHARE = 0.2  # of the subjects, where no release validates
NAMED = 3  # windows with NaN or infinity that are named; further ones are counted

# subjects whose recordings are known to be unusable
BAD = frozenset(
    "NDARWV769JM7 NDARME789TD2 NDARUA442ZVF NDARJP304NK1 NDARTY128YLU NDARDW550GU6 NDARLD243KRE "
    "NDARUJ292JXV NDARBA381JGH".split()
)

EXTERNALIZING_FIRST = ("externalizing", *(name for name in FACTORS if name != "externalizing"))


@dataclass
class Split:
    cache: Cache
    train: np.ndarray  # (n,) int64: rows of the cache
    valid: np.ndarray  # (m,) int64
    dropped: dict[str, int]  # reason -> windows

    def describe(self, side: str) -> dict:
        """{"releases", "windows", "subjects": sorted names}, as config.json keeps it."""
        rows = getattr(self, side)
        return {
            "releases": list(dict.fromkeys(self.cache.release[rows].tolist())),
            "windows": len(rows),
            "subjects": sorted(names(self.cache, rows)),
        }


@dataclass(frozen=True)
class Keep:
    """Which windows of each release are used."""

    copies: bool = False  # those of blocks that were recorded twice
    bad: bool = False  # those of BAD subjects
    recordings: int | None = None  # those of the first recordings
    subjects: int | None = None  # those of the first subjects that have windows left


def names(cache: Cache, rows) -> set[str]:
    """The names of the subjects of some windows."""
    return {name.decode() for name in np.unique(cache.metadata["subject"][rows])}


def split(
    folder: Path,
    challenge: int,
    train: Sequence[str],
    valid: Sequence[str],
    mini: bool = False,
    fold: tuple[int, int] | None = None,
    keep: Keep = Keep(),
) -> Split:
    """Split the windows of releases. valid is empty where subjects of the others validate.

    fold: (number, of) of a cross-validation by subject. Raises UserError if a side is empty.
    """
    if both := sorted(set(train) & set(valid)):
        raise UserError(
            f"{', '.join(both)} is named for training and for validation; a subject may be on one "
            "side only"
        )
    cache = find_caches(folder, challenge, [*train, *valid], mini)
    rows, dropped = _kept(cache, keep)
    if valid:
        on_valid = np.isin(cache.release[rows], valid)
    else:
        number, count = fold or (1, min(round(1 / SHARE), len(names(cache, rows))))
        on_valid = subject_folds(cache.metadata["subject"][rows], count) == number - 1
    found = Split(cache, rows[~on_valid], rows[on_valid], dropped)
    if not (len(found.train) and len(found.valid)):
        what, releases = ("validation", valid or train) if len(found.train) else ("training", train)
        many = cli.counted(len(names(cache, rows)), "subject")
        left_out = [f"{cli.counted(n, 'window')} of {why}" for why, n in dropped.items()]
        raise UserError(
            f"no subject is left for the {what} side ({', '.join(releases)}: {many} in all after "
            f"{', '.join(left_out) or 'nothing'} was left out); name more releases with --train "
            "and --valid"
        )
    shared = names(cache, found.train) & names(cache, found.valid)
    assert not shared, f"subjects on both sides of the split: {sorted(shared)}"
    return found


def _kept(cache, keep):
    """(rows that are used, {reason: windows left out})."""
    metadata, used, dropped = cache.metadata, np.ones(len(cache), bool), {}

    def drop(reason, out):
        if n := int((used & out).sum()):
            dropped[reason] = n
            used[out] = False

    if not keep.copies:
        drop("copies", metadata["copy"])
    if not keep.bad:
        drop("bad subjects", np.isin(metadata["subject"], [name.encode() for name in BAD]))
    for name in np.unique(cache.release):
        inside = cache.release == name
        if keep.recordings:
            first = np.unique(metadata["recording"][inside])[: keep.recordings]
            used &= ~inside | np.isin(metadata["recording"], first)
        if keep.subjects:
            first = np.unique(metadata["subject"][inside & used])[: keep.subjects]
            used &= ~inside | np.isin(metadata["subject"], first)
    return np.flatnonzero(used), dropped


def subject_folds(subjects: np.ndarray, count: int) -> np.ndarray:
    """(N,) the fold, from 0, of each window's subject.

    Subjects with most windows come first, each to the fold with fewest windows so far.
    """
    found, which, windows = np.unique(subjects, return_inverse=True, return_counts=True)
    if len(found) < count:
        raise UserError(
            f"{count} folds by subject need as many subjects, these windows have {len(found)}; ask "
            "for fewer with --cv N, or name more releases with --train"
        )
    load, fold = np.zeros(count, np.int64), np.empty(len(found), np.int64)
    for subject in np.argsort(-windows, kind="stable"):
        fold[subject] = load.argmin()
        load[fold[subject]] += windows[subject]
    return fold[which]


class Damaged:
    """Windows with NaN or infinity, which are left out of both sides as they are met.

    rows: those met so far. on_event(kind, text) is told of the first ones.
    """

    def __init__(self, cache: Cache, on_event: Callable):
        self.cache, self.on_event, self.rows = cache, on_event, set()

    def add(self, rows: np.ndarray, side: str) -> None:
        """side: what they are left out of, training or validation."""
        for row in rows.tolist():
            if row not in self.rows and len(self.rows) < NAMED:
                more = "; what follows is counted only" if len(self.rows) == NAMED - 1 else ""
                self.on_event("left out", f"{self.cache.damage(row)}, left out of {side}{more}")
            self.rows.add(row)

    def without(self, batch):
        """The batch without its damaged windows. If it has no others, it is left as it is."""
        if batch.finite.all():
            return batch
        self.add(batch.rows[~batch.finite], "training")
        if not batch.finite.any():
            return batch
        kept = {f.name: getattr(batch, f.name)[batch.finite] for f in fields(batch)}
        return replace(batch, **kept)

    def files(self) -> str:
        """How many windows each file lost, and the command that rebuilds it."""
        parts = Counter(int(self.cache.part_of(row)) for row in self.rows)
        found = []
        for part, count in sorted(parts.items()):
            path = self.cache.paths[part]
            command = rebuild_known(path, self.cache.attributes[part])
            found.append(f"{count:,} of {path}, rebuild it with: {command}")
        return "; ".join(found)


def labels(cache: Cache, target: str) -> np.ndarray:
    """(N, K) float64: what is learned, NaN where it is unknown.

    K is 4 for "factors" (externalizing first), else 1. "correct" is 1 or 0.
    """
    if target == "factors":
        return np.stack([cache.metadata[name] for name in EXTERNALIZING_FIRST], 1)
    if target == "rt_from_trialstart":
        return cache.metadata[target][:, None]
    if target == "correct":
        found = cache.metadata["correct"].astype(float)
        return np.where(found < 0, np.nan, found)[:, None]  # -1: unknown
    return cache.y[:, None]


def further(cache: Cache, aux: Sequence[str]) -> np.ndarray:
    """(N, len(aux)) float64: age in years, sex 1 for M and 0 for F; NaN where it is unknown."""
    found = np.full((len(cache), len(aux)), np.nan)
    for column, name in zip(found.T, aux):
        if name == "age":
            column[:] = cache.metadata["age"]
        else:
            column[cache.metadata["sex"] == b"M"] = 1
            column[cache.metadata["sex"] == b"F"] = 0
    return found
