"""What can be predicted from labels alone, without EEG: a model that scores no better has learned nothing from the signal.

Each takes the metadata and labels of training windows and the metadata (and, where it uses earlier trials, labels) of the
windows to predict, as a cache has them, and gives predictions (N,).
"""

import numpy as np
from scipy.optimize import minimize_scalar

from eeg.score.ridge import fit_ridge


def baselines(challenge, train, y_train, test, y_test):
    """{name: predictions (N,)} of those that the challenge's metadata allows."""
    found = {"the mean of the training labels": train_mean(y_train, test)}
    if challenge == 1:
        found["label-only: the fast time line alone"] = fast_flag(train, y_train, test)
        found["label-only: the subject's earlier trials"] = earlier_trials(
            train, y_train, test, y_test
        )
    else:
        found["label-only: age and sex"] = age_and_sex(train, y_train, test)
    return found


def train_mean(y_train, test):
    return np.full(len(test), y_train.mean())


def fast_flag(train, y_train, test):
    """The mean of the training labels on the same time line."""
    level = [
        y_train[train["fast"] == fast].mean() if (train["fast"] == fast).any() else y_train.mean()
        for fast in (False, True)
    ]
    return np.where(test["fast"], level[1], level[0])


def earlier_trials(train, y_train, test, y_test):
    """The mean of the subject's n earlier trials, drawn towards the training mean as if that were `weight` more trials; weight is fitted on training subjects."""
    level = y_train.mean()
    n, total = _earlier(train, y_train - level)
    loss = lambda log: ((y_train - level - total / (n + np.exp(log))) ** 2).sum()
    weight = np.exp(minimize_scalar(loss, bounds=(np.log(0.01), np.log(1000)), method="bounded").x)
    n, total = _earlier(test, y_test - level)
    return level + total / (n + weight)


def _earlier(metadata, y):
    """For each window the number (N,) of earlier windows of its subject, by run and start, and the sum (N,) of their labels."""
    order = np.lexsort((metadata["start"], metadata["run"], metadata["subject"]))
    subject = metadata["subject"][order]
    first = np.flatnonzero(np.append(True, subject[1:] != subject[:-1]))
    begin = np.repeat(first, np.diff(np.append(first, len(subject))))
    before = np.append(0, np.cumsum(y[order]))
    n, total = np.empty(len(y)), np.empty(len(y))
    n[order], total[order] = np.arange(len(y)) - begin, before[:-1] - before[begin]
    return n, total


def age_and_sex(train, y_train, test):
    """Ridge regression on age and sex."""
    columns = lambda rows: np.stack(
        [rows["age"], np.select([rows["sex"] == b"M", rows["sex"] == b"F"], [1.0, 0.0], np.nan)], 1
    )
    return fit_ridge(columns(train), y_train, train["subject"])(columns(test))
