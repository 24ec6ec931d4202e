"""Several models' predictions as one. What is fitted, is fitted on validation subjects that no member was trained on.

Predictions are a list, one member each, of (N, K): the answer first, then, for the stack, the statistics of the member's time head.
"""

import numpy as np
from scipy.optimize import nnls

from eeg import cli
from eeg.score.finished import predict_run
from eeg.score.predict import all_answers, answers_and_times
from eeg.score.ridge import fit_ridge
from eeg.score.sides import side


def wanted(way):
    """What `predict` is to say of each window for this way of combining, see `predict(of=)`."""
    return answers_and_times if way == "stack" else all_answers


def combine_runs(way, runs, test, folder, **how):
    """`combine` of what the runs say of the windows to predict, `test`; the caches in `folder` give the validation windows, predicted with the same `how`."""
    if way == "average":
        return combine(way, test)
    cache, rows = side(folder, runs, "valid")
    return combine(
        way,
        test,
        [predict_run(run, cache, rows, **how) for run in runs],
        cache.y[rows],
        cache.metadata["subject"][rows],
    )


def combine(way, test, valid=None, y=None, subjects=None):
    """-> (predictions (N,) for `test`, what was done in a few words). valid, y, subjects: the validation windows that weights and stack are fitted on."""
    answer = np.stack([p[:, 0] for p in test], 1)
    if way == "average":
        return answer.mean(1), f"average of {len(test)}"
    if way == "weights":
        known = np.stack([p[:, 0] for p in valid], 1)
        weights, _ = nnls(known - known.mean(0), y - y.mean())
        return y.mean() + (answer - known.mean(0)) @ weights, "weights " + " ".join(
            f"{w:.2f}" for w in weights
        )
    return fit_ridge(np.hstack(valid), y, subjects)(
        np.hstack(test)
    ), f"ridge on {cli.counted(sum(p.shape[1] for p in test), 'number')}"


def subject_mean(p, subjects):
    """(N,): the mean prediction of each window's subject. It uses all of the subject's windows for each of them, which the competition's server does not offer a model."""
    _, which = np.unique(subjects, return_inverse=True)
    return (np.bincount(which, p) / np.bincount(which))[which]
