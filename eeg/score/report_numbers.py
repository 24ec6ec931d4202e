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
from eeg.data.windows import INPUT
from eeg.models.transformer import Masked
from eeg.score.metrics import FEW, interval_difference, nrmse, student
from eeg.score.predict import Question, all_answers, answers, load_model, predict
from eeg.score.sides import TEST, Side, cached_tests, check_side, flattered, scored_side, side

STEP = 10  # samples of a stretch of time that is occluded: 100 ms
LEAST, MOST, BLOCK = 64, 500, 16  # windows that are occluded: at least, at most, at a time
PATIENCE_S = 20  # how long occlusion may take, judging by the first block
FLAT = 1e-3  # answers that vary less than this share of the labels' deviation are called a constant
RESTORED = 3  # validation windows of which a pretrained encoder restores hidden parts
TOP = 10  # electrodes that are named
LEVELS = np.arange(0.1, 1.0, 0.1)


@dataclass
class Answered:
    """What a run answers to windows it was not trained on."""

    side: Side
    where: str  # which windows these are, in words
    p: np.ndarray  # (N,) answers
    chances: np.ndarray | None  # (N, S) the time head's chance of each moment, None without one
    factors: np.ndarray | None  # (N, 4) answers of a run that learned all four factors
    ages: np.ndarray | None  # (N,) years, NaN where unknown; None where no file has them
    mean_of_training: float

    @property
    def y(self) -> np.ndarray:
        return self.side.y

    @property
    def constant(self) -> bool:
        """Whether every window gets the same answer."""
        return self.p.std() < FLAT * self.y.std()


def look_at(
    run, model, caches: Path, data: Path, releases=None, mini: bool = False, progress=None
) -> Answered:
    """The run's answers to the test releases where they are cached, else to its validation side."""
    if releases or cached_tests(caches, run.challenge, mini):
        seen = scored_side(caches, run.challenge, releases, mini)
        where = " + ".join(dict.fromkeys(seen.cache.release)) + " mini" * mini
    else:
        seen = side(caches, [run], "valid")
        where = f"validation subjects of {' + '.join(seen.releases)}"
        where += f", because {' and '.join(TEST)} are not cached"
    check_side(run, seen)
    if note := flattered([run], seen):
        where = f"{where}; {note}"
    timed, seen = model.head == "time", seen.seen_by(run)
    question = Question(with_chances if timed else all_answers)
    found = predict(model, *seen, question, progress=progress)
    chances = found[:, 1:] if timed else None
    factors = found if run.config["target"] == "factors" else None
    ages, mean = ages_of(seen, data), float(model.center[0])
    return Answered(seen, where, found[:, 0], chances, factors, ages, mean)


def with_chances(model, x, features) -> torch.Tensor:
    """(B, 1 + S): the answer, and the chance of each moment."""
    raw = model.raw(x, features)
    return torch.cat([model.answer(raw)[:, :1], raw.softmax(1)], 1)


def ages_of(side: Side, data: Path) -> np.ndarray | None:
    """(N,) years, from challenge 2's caches or, for challenge 1, the releases' participants.tsv."""
    cache, rows = side
    if cache.challenge == 2:
        return side.metadata["age"]
    ages = np.full(len(rows), np.nan)
    for release, mini in {str(a["release"]): bool(a["mini"]) for a in cache.attributes}.items():
        try:
            people = find_release(release, data, mini).participants()
        except UserError:  # the cache is here, the release is not: it is not needed
            continue
        inside = cache.release[rows] == release
        for name in np.unique(side.subjects[inside]):
            age = people.get(name.decode(), {}).get("age", np.nan)
            ages[inside & (side.subjects == name)] = age
    return ages if np.isfinite(ages).any() else None


def bins_of(x, count: int) -> np.ndarray:
    """(N,) the bin, from 0, of each x: as many in each as possible, equal x in the same one."""
    which = np.ceil(scipy.stats.rankdata(x) / len(x) * count).astype(int)
    return np.unique(which, return_inverse=True)[1]


def bin_means(which, values, subjects) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, low, high) of the values in each bin, with the interval by subject."""
    names, who = np.unique(subjects, return_inverse=True)
    sums, counts = np.zeros((2, which.max() + 1, len(names)))
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


def coverage(chances, moments, y) -> np.ndarray:
    """(LEVELS,) the share of labels in the central interval that should contain each level.

    A label outside the window lies in no interval.
    """
    step = moments[1] - moments[0]
    edges = np.append(moments, moments[-1] + step) - step / 2
    below_edge = np.concatenate([np.zeros((len(chances), 1)), chances.cumsum(1)], 1)
    place = np.array([np.interp(label, edges, below) for label, below in zip(y, below_edge)])
    return np.array([(np.abs(place - 0.5) <= level / 2).mean() for level in LEVELS])


@dataclass
class Importance:
    """The rise of the NRMSE without each electrode (C,) and each stretch of time (S,)."""

    windows: int
    channels: np.ndarray
    times: np.ndarray
    top: np.ndarray  # electrodes, highest rise first
    top_ends: np.ndarray  # (low, high) of theirs
    times_ends: np.ndarray  # (low, high) of all times


def occluded(model, x, features) -> torch.Tensor:
    """(B, 1 + C + S): the answer to the windows, then without each electrode, each STEP samples."""
    mean = x.mean(2, keepdim=True).expand_as(x)
    parts = [np.s_[:, channel] for channel in range(x.shape[1])]
    parts += [np.s_[:, :, t : t + STEP] for t in range(0, x.shape[2], STEP)]
    columns = [answers(model, x, features)]
    for part in parts:
        kept = x[part].clone()
        x[part] = mean[part]
        columns.append(answers(model, x, features))
        x[part] = kept
    return torch.cat(columns, 1)


def importance(model, side: Side, progress: Callable | None = None) -> Importance:
    """Occludes LEAST to MOST windows, drawn at random: as many as PATIENCE_S allows."""
    rows, parts, done = np.random.default_rng(0).permutation(side.rows)[:MOST], [], 0
    start = time.perf_counter()
    while done < len(rows):
        block = rows[done : done + BLOCK]
        parts.append(predict(model, side.cache, block, Question(occluded)))
        if done == 0:
            blocks = int(PATIENCE_S / max(time.perf_counter() - start, 1e-9))
            rows = rows[: max(LEAST, BLOCK * blocks)]
        done += len(block)
        if progress:
            progress(done, len(rows))
    chosen, found = Side(side.cache, rows), np.concatenate(parts)
    y, subjects, whole = chosen.y, chosen.subjects, found[:, 0]
    rise = np.array([nrmse(y, column) for column in found[:, 1:].T]) - nrmse(y, whole)

    def ends(parts):
        try:
            each = [interval_difference(y, found[:, 1 + i], whole, subjects) for i in parts]
        except UserError:  # too few subjects
            return np.full((2, len(parts)), np.nan)
        return np.array(each).T

    n = len(side.cache.channels)
    top, times = np.argsort(-rise[:n])[:TOP], np.arange(n, len(rise))
    return Importance(len(y), rise[:n], rise[n:], top, ends(top), ends(times))


def restored(run, caches: Path) -> tuple[np.ndarray, ...]:
    """Of some validation windows of a finished run: the signal and the guess at what was hidden of
    it, NaN elsewhere, each (RESTORED, N, P, C), in standard deviations of each patch."""
    model = load_model(run.weights, Masked)
    seen = side(caches, [run], "valid")
    rows = seen.rows[np.linspace(0, len(seen.rows) - 1, RESTORED).astype(int)]
    start = (seen.cache[0].shape[1] - INPUT) // 2
    x = np.stack([seen.cache[row][:, start : start + INPUT] for row in rows]).astype(np.float32)
    tokens = model.network.n_tokens
    drawn = model.hiding.draw(len(x), tokens, torch.Generator().manual_seed(0))
    with torch.no_grad():
        patches, guess, hidden = model.restored(torch.from_numpy(x), **drawn)
    guess = torch.where(hidden[:, :, None], guess, torch.nan)
    return patches.numpy(), guess.numpy()
