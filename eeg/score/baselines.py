"""What labels alone predict, without EEG: a model that scores no better learned nothing from it.

Baselines take the metadata and labels of training windows and the metadata of the windows to
predict (and their labels where they use earlier trials), and return predictions (N,).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar

from eeg import UserError
from eeg.data.split import labels
from eeg.score.sides import side

TRAINING_MEAN = "the mean of the training labels"
# Added to the correlations of the standardised columns; the strongest of equals wins
STRENGTHS = np.logspace(3, -4, 15)
FOLDS = 5


def label_only(folder: Path, runs, target: str, metadata, y) -> dict:
    """{name: predictions (N,)} for windows with this metadata and labels y, from the runs' labels.

    Empty, with a printed note, where the runs' training windows are not cached in `folder`.
    """
    try:
        train = side(folder, runs, "train")
    except UserError as e:  # a run may be scored where its training windows are not
        print(f"  label-only baselines unavailable: {e}")
        return {}
    y_train = labels(train.cache, target)[train.rows, 0]
    known = np.isfinite(y_train)
    return baselines(runs[0].challenge, train.metadata[known], y_train[known], metadata, y)


def baselines(challenge: int, train, y_train, test, y_test) -> dict:
    """{name: predictions (N,)} of those that the challenge's metadata allows."""
    mean = {TRAINING_MEAN: np.full(len(test), y_train.mean())}
    if challenge == 2:
        return mean | {"label-only: age and sex": age_and_sex(train, y_train, test)}
    return mean | {
        "label-only: the fast time line alone": fast_flag(train, y_train, test),
        "label-only: the subject's earlier trials": earlier_trials(train, y_train, test, y_test),
    }


def fast_flag(train, y_train, test) -> np.ndarray:
    """The mean of the training labels on the same time line."""
    p = np.full(len(test), y_train.mean())
    for fast in (False, True):
        if (known := train["fast"] == fast).any():
            p[test["fast"] == fast] = y_train[known].mean()
    return p


def earlier_trials(train, y_train, test, y_test) -> np.ndarray:
    """The mean of the subject's earlier trials, drawn towards the training mean.

    The training mean counts as `weight` more trials; weight is fitted on training subjects.
    """
    level = y_train.mean()
    n, total = _earlier(train, y_train - level)
    loss = lambda log: ((y_train - level - total / (n + np.exp(log))) ** 2).sum()
    weight = np.exp(minimize_scalar(loss, bounds=(np.log(0.01), np.log(1000)), method="bounded").x)
    n, total = _earlier(test, y_test - level)
    return level + total / (n + weight)


def _earlier(metadata, y):
    """(N,) how many earlier windows its subject has, by run and start; (N,) the sum of their y."""
    order = np.lexsort((metadata["start"], metadata["run"], metadata["subject"]))
    subject = metadata["subject"][order]
    first = np.flatnonzero(np.append(True, subject[1:] != subject[:-1]))
    begin = np.repeat(first, np.diff(np.append(first, len(subject))))
    before = np.append(0, np.cumsum(y[order]))
    n, total = np.empty(len(y)), np.empty(len(y))
    n[order], total[order] = np.arange(len(y)) - begin, before[:-1] - before[begin]
    return n, total


def age_and_sex(train, y_train, test) -> np.ndarray:
    """Ridge regression on age and sex."""

    def columns(rows):
        male, female = rows["sex"] == b"M", rows["sex"] == b"F"
        return np.stack([rows["age"], np.select([male, female], [1.0, 0.0], np.nan)], 1)

    return fit_ridge(columns(train), y_train, train["subject"])(columns(test))


def fit_ridge(x, y, subjects) -> Callable:
    """Ridge regression: a function (M, K) -> (M,), its strength chosen by folds of subjects.

    x (N, K), NaN where unknown (the column's mean stands in), y (N,), subjects (N,).
    """
    unknown = np.isnan(x).all(0)  # a column that says nothing
    mean, spread = np.nanmean(np.where(unknown, 0, x), 0), np.nanstd(np.where(unknown, 0, x), 0)
    spread = np.where(spread > 0, spread, 1)
    standard = lambda x: np.nan_to_num((x - mean) / spread)
    z, level = standard(x), y.mean()

    names, which = np.unique(subjects, return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(names))[which] % min(FOLDS, len(names))
    squares = np.zeros(len(STRENGTHS))
    for i in range(fold.max() + 1):
        if (fold != i).any():
            squares += _fold_squares(z, y, fold == i)
    weights = _weights(z, y)[squares.argmin()]
    return lambda x: level + (standard(x) - z.mean(0)) @ weights


def _fold_squares(z, y, out):
    """(strengths,) the sums of squared errors on the windows `out` (N,) of fits on the others."""
    mean_z, mean_y = z[~out].mean(0), y[~out].mean()
    errors = (y[out] - mean_y)[:, None] - (z[out] - mean_z) @ _weights(z[~out], y[~out]).T
    return (errors**2).sum(0)


def _weights(z, y):
    """(strengths, K)"""
    z = z - z.mean(0)
    correlations = z.T @ z / len(z) + STRENGTHS[:, None, None] * np.eye(z.shape[1])
    return np.linalg.solve(correlations, (z.T @ (y - y.mean()) / len(z))[:, None])[:, :, 0]
