"""Which windows are trained on and which validate: by release and by subject, no subject ever on
both sides.
"""

from dataclasses import dataclass

import numpy as np

from eeg import UserError, cli
from eeg.data.cache import Cache, find_caches, rebuild
from eeg.data.release import FACTORS

SHARE = 0.2  # of the subjects, where no release validates

# recordings of these are known to be unusable
BAD = frozenset(
    (
        "NDARWV769JM7 NDARME789TD2 NDARUA442ZVF NDARJP304NK1 NDARTY128YLU NDARDW550GU6 "
        "NDARLD243KRE NDARUJ292JXV NDARBA381JGH"
    ).split()
)

EXTERNALIZING_FIRST = ("externalizing", *(name for name in FACTORS if name != "externalizing"))
TARGETS = {
    1: ("rt_from_stimulus", "rt_from_trialstart", "correct"),
    2: ("externalizing", "factors"),
}  # the competition's first


@dataclass
class Split:
    cache: Cache
    train: np.ndarray  # (n,) int64: rows of the cache
    valid: np.ndarray  # (m,) int64
    dropped: dict  # reason -> windows

    def describe(self, side):
        """-> {"releases", "windows", "subjects": sorted names}, as config.json keeps it."""
        rows = getattr(self, side)
        return {
            "releases": list(dict.fromkeys(self.cache.release[rows].tolist())),
            "windows": len(rows),
            "subjects": sorted(names(self.cache, rows)),
        }


def names(cache, rows):
    """The names of the subjects of some windows, a set."""
    return {name.decode() for name in np.unique(cache.metadata["subject"][rows])}


def split(
    folder,
    challenge,
    train,
    valid,
    mini=False,
    fold=None,
    keep_copies=False,
    keep_bad=False,
    max_recordings=None,
    max_subjects=None,
):
    """-> Split. train, valid: releases, see eeg.data.release; fold: (number, of) of a
    cross-validation by subject; max_recordings, max_subjects: of each release, the first ones.
    Raises UserError where a side is empty."""
    if both := sorted(set(train) & set(valid)):
        raise UserError(
            f"{', '.join(both)} is named for training and for validation; a subject may be on one "
            "side only"
        )
    cache = find_caches(folder, challenge, [*train, *valid], mini)
    if cache.challenge != challenge:
        raise UserError(
            f"{cache.paths[0]} holds windows of challenge {cache.challenge}, expected {challenge}; "
            f"rebuild it with: {rebuild(cache, challenge=challenge)}"
        )
    metadata = cache.metadata
    keep, dropped = np.ones(len(cache), bool), {}
    for reason, out, kept in (
        ("copies", metadata["copy"], keep_copies),
        ("bad subjects", np.isin(metadata["subject"], [name.encode() for name in BAD]), keep_bad),
    ):
        if not kept and (n := int((keep & out).sum())):
            dropped[reason] = n
            keep &= ~out
    if max_recordings:
        for name in (*train, *valid):
            inside = cache.release == name
            first = np.unique(metadata["recording"][inside])[:max_recordings]
            keep &= ~inside | np.isin(metadata["recording"], first)
    if max_subjects:
        for name in (*train, *valid):
            inside = cache.release == name
            first = np.unique(metadata["subject"][inside & keep])[:max_subjects]
            keep &= ~inside | np.isin(metadata["subject"], first)
    rows = np.flatnonzero(keep)
    if valid:
        on_valid = np.isin(cache.release[rows], valid)
    else:
        folds = subject_folds(
            metadata["subject"][rows],
            fold[1] if fold else min(round(1 / SHARE), len(names(cache, rows))),
        )
        on_valid = folds == (fold[0] - 1 if fold else 0)
    found = Split(cache, rows[~on_valid], rows[on_valid], dropped)
    for side in ("train", "valid"):
        if not len(getattr(found, side)):
            where = ", ".join(train if side == "train" or not valid else valid)
            many = len(names(cache, rows)) if len(rows) else 0
            raise UserError(
                f"no subject is left for the {'training' if side == 'train' else 'validation'} "
                f"side ({where}: {cli.counted(many, 'subject')} in all after "
                f"{dropped or 'nothing'} was left out); name more releases with --train and --valid"
            )
    shared = names(cache, found.train) & names(cache, found.valid)
    assert not shared, f"subjects on both sides of the split: {sorted(shared)}"
    return found


def subject_folds(subjects, count):
    """(N,) the fold, from 0, of each window's subject: subjects with most windows first, each to
    the fold with fewest windows so far.
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


def labels(cache, target):
    """(N, K) float64: what is learned, NaN where a window does not say it. K is 4 for "factors"
    (externalizing first), else 1. "correct" is 1 or 0.
    """
    if target == "factors":
        return np.stack([cache.metadata[name] for name in EXTERNALIZING_FIRST], 1)
    if target == "rt_from_trialstart":
        return cache.metadata[target][:, None]
    if target == "correct":
        found = cache.metadata["correct"].astype(float)
        return np.where(found < 0, np.nan, found)[:, None]  # -1: the response's feedback is neither
    return cache.y[:, None]


def further(cache, aux):
    """(N, len(aux)) float64: age in years, sex 1 for M and 0 for F; NaN where it is not known."""
    known = {
        "age": lambda: cache.metadata["age"],
        "sex": lambda: np.select(
            [cache.metadata["sex"] == b"M", cache.metadata["sex"] == b"F"], [1.0, 0.0], np.nan
        ),
    }
    if not aux:
        return np.empty((len(cache), 0))
    return np.stack([known[name]() for name in aux], 1)
