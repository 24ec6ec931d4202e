"""The numbers behind a report's figures: a run's answers, its errors, what it looks at.

Intervals are 95 %, by subject, and NaN where there are fewer than FEW subjects.

What matters is found by occlusion: an electrode, or a stretch of time, is replaced by its mean over
the window, and the rise of the NRMSE is what the model gained from it. Neighbouring electrodes
often carry the same signal: a small rise does not mean that there is nothing to see.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.stats
import torch

from eeg import UserError
from eeg.data.release import find_release
from eeg.score.metrics import FEW, interval_difference, nrmse, student
from eeg.score.predict import all_answers, answers, predict
from eeg.score.sides import (
    TEST,
    cached_tests,
    check_side,
    flattered,
    releases_of,
    scored_side,
    side,
)

STEP = 10  # samples of a stretch of time that is occluded: 100 ms
LEAST, MOST, BLOCK = 64, 500, 16  # windows that are occluded: at least, at most, at a time
PATIENCE_S = 20  # how long occlusion may take, judging by the first block
FLAT = 1e-3  # answers that vary less than this share of the labels' deviation are called a constant
TOP = 10  # electrodes that are named
LEVELS = np.arange(0.1, 1.0, 0.1)


@dataclass
class Windows:
    """What a run answers to windows it was not trained on.

    where: which windows these are, in words. y, p (N,): labels and answers. chances (N, S): the
    time head's chance of each moment, None without one. ages (N,): years, NaN where unknown; None
    where no file has them. factors (N, 4): the answers of a run that learned all four factors.
    """

    cache: object
    rows: np.ndarray
    where: str
    y: np.ndarray
    p: np.ndarray
    chances: np.ndarray | None
    ages: np.ndarray | None
    mean_of_training: float
    factors: np.ndarray | None = None

    @property
    def subjects(self) -> np.ndarray:
        return self.cache.metadata["subject"][self.rows]

    @property
    def constant(self) -> bool:
        """Whether every window gets the same answer."""
        return self.p.std() < FLAT * self.y.std()


def look_at(
    run, model, caches: Path, data: Path, releases=None, mini: bool = False, progress=None
) -> Windows:
    """The run's answers to the test releases where they are cached, else to its validation side."""
    if releases or cached_tests(caches, run.challenge, mini):
        cache, rows = scored_side(caches, run.challenge, releases, mini)
        where = " + ".join(dict.fromkeys(cache.release)) + " mini" * mini
    else:
        cache, rows = side(caches, [run], "valid")
        where = f"validation subjects of {' + '.join(releases_of(cache, rows))}"
        where += f", because {' and '.join(TEST)} are not cached"
    check_side(run, cache, rows)
    if note := flattered([run], cache, rows):
        where = f"{where}; {note}"
    timed = model.head == "time"
    found = predict(model, cache, rows, with_chances if timed else all_answers, progress=progress)
    return Windows(
        cache,
        rows,
        where,
        y=cache.y[rows],
        p=found[:, 0],
        chances=found[:, 1:] if timed else None,
        ages=ages_of(cache, rows, data),
        mean_of_training=float(model.center[0]),
        factors=found if run.config["target"] == "factors" else None,
    )


def with_chances(model, x, features) -> torch.Tensor:
    """(B, 1 + S): the answer, and the chance of each moment."""
    raw = model.raw(x, features)
    return torch.cat([model.answer(raw)[:, :1], raw.softmax(1)], 1)


def ages_of(cache, rows, data: Path) -> np.ndarray | None:
    """(N,) years, from challenge 2's caches or, for challenge 1, the releases' participants.tsv."""
    if cache.challenge == 2:
        return cache.metadata["age"][rows]
    ages, subjects = np.full(len(rows), np.nan), cache.metadata["subject"][rows]
    for release, mini in {str(a["release"]): bool(a["mini"]) for a in cache.attributes}.items():
        try:
            people = find_release(release, data, mini).participants()
        except UserError:  # the cache is here, the release is not: it is not needed
            continue
        inside = cache.release[rows] == release
        for name in np.unique(subjects[inside]):
            age = people.get(name.decode(), {}).get("age", np.nan)
            ages[inside & (subjects == name)] = age
    return ages if np.isfinite(ages).any() else None


# ------------------------------------------------------------------------------------ the error


def bins_of(x, count: int) -> np.ndarray:
    """(N,) the bin, from 0, of each x: as many in each as possible.

    Equal x are in one bin, which may leave fewer bins.
    """
    which = np.ceil(scipy.stats.rankdata(x) / len(x) * count).astype(int)
    return np.unique(which, return_inverse=True)[1]


def bin_means(which, values, subjects) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, low, high) of the values in each bin, with the interval by subject."""
    names, who = np.unique(subjects, return_inverse=True)
    cells = (which.max() + 1, len(names))
    sums, counts = np.zeros(cells), np.zeros(cells)
    np.add.at(sums, (which, who), values)
    np.add.at(counts, (which, who), 1)
    mean = sums.sum(1) / counts.sum(1)
    intervals = np.full((len(mean), 2), np.nan)
    for i in np.flatnonzero((counts > 0).sum(1) >= FEW):
        inside = counts[i] > 0
        without = (sums[i].sum() - sums[i, inside]) / (counts[i].sum() - counts[i, inside])
        intervals[i] = student(mean[i], without)
    return mean, *intervals.T


def subject_means(subjects, *values) -> tuple:
    """(names, counts, then the mean of each of the values over each subject's windows)."""
    names, who, counts = np.unique(subjects, return_inverse=True, return_counts=True)
    return names, counts, *(np.bincount(who, each) / counts for each in values)


def coverage(chances, moments, y, levels=LEVELS) -> np.ndarray:
    """(levels,) the share of labels in the central interval that should contain each level.

    A label outside the window lies in no interval.
    """
    step = moments[1] - moments[0]
    edges = np.append(moments, moments[-1] + step) - step / 2
    below_edge = np.concatenate([np.zeros((len(chances), 1)), chances.cumsum(1)], 1)
    place = np.array([np.interp(label, edges, below) for label, below in zip(y, below_edge)])
    return np.array([(np.abs(place - 0.5) <= level / 2).mean() for level in levels])


# ------------------------------------------------------------------------------------ occlusion


@dataclass
class Importance:
    """The rise of the NRMSE without each electrode (C,) and each stretch of time.

    top: electrodes, highest rise first, with their intervals; times have intervals, too.
    """

    windows: int
    channels: np.ndarray
    times: np.ndarray
    top: np.ndarray
    top_low: np.ndarray
    top_high: np.ndarray
    times_low: np.ndarray
    times_high: np.ndarray


def occluded(model, x, features, step: int = STEP) -> torch.Tensor:
    """(B, 1 + C + T / step): the answer to the windows, then with each part occluded.

    Parts are each electrode, then each stretch of `step` samples.
    """
    mean = x.mean(2, keepdim=True)
    everything = slice(None)
    parts = [(everything, channel) for channel in range(x.shape[1])]
    parts += [(everything, everything, slice(t, t + step)) for t in range(0, x.shape[2], step)]
    columns = [answers(model, x, features)]
    for part in parts:
        kept = x[part].clone()
        x[part] = mean.expand_as(x)[part]
        columns.append(answers(model, x, features))
        x[part] = kept
    return torch.cat(columns, 1)


def importance(
    model,
    cache,
    rows,
    patience_s: float = PATIENCE_S,
    top: int = TOP,
    progress: Callable | None = None,
) -> Importance:
    """Occludes LEAST to MOST of the windows `rows`, drawn at random.

    It takes as many as can be done in about `patience_s`.
    """
    chosen, found = _occluded_windows(model, cache, rows, patience_s, progress)
    y, subjects, whole = cache.y[chosen], cache.metadata["subject"][chosen], found[:, 0]
    rise = np.array([nrmse(y, column) for column in found[:, 1:].T]) - nrmse(y, whole)

    def around(part):
        try:
            return interval_difference(y, found[:, 1 + part], whole, subjects)
        except UserError:  # too few subjects
            return np.nan, np.nan

    n = len(cache.channels)
    best = np.argsort(-rise[:n])[:top]
    low, high = np.array([around(channel) for channel in best]).T
    times_low, times_high = np.array([around(part) for part in range(n, len(rise))]).T
    return Importance(len(chosen), rise[:n], rise[n:], best, low, high, times_low, times_high)


def _occluded_windows(model, cache, rows, patience_s, progress):
    """(the windows that were occluded (n,), what `occluded` says about them)."""
    chosen = np.random.default_rng(0).permutation(rows)[:MOST]
    start, found, done = time.perf_counter(), [], 0
    while done < len(chosen):
        found.append(predict(model, cache, chosen[done : done + BLOCK], occluded))
        if done == 0:
            blocks = int(patience_s / max(time.perf_counter() - start, 1e-9))
            chosen = chosen[: max(LEAST, BLOCK * blocks)]
        done += len(found[-1])
        if progress:
            progress(done, len(chosen))
    return chosen, np.concatenate(found)
