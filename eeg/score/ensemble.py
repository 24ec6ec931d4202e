"""Several models' predictions as one. Fitting uses validation subjects no member was trained on.

Predictions are a list, one member each, of (N, K): the answer first, then, for the stack, the
statistics of the member's time head.
"""

from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from eeg import cli
from eeg.score.baselines import fit_ridge
from eeg.score.predict import Question, all_answers, answers_and_times, predict_run
from eeg.score.sides import side


def asked(way: str | None, shift_s: float = 0.0, mirror: bool = False) -> Question:
    """The question whose answers this way of combining needs."""
    return Question(answers_and_times if way == "stack" else all_answers, shift_s, mirror)


def combine_runs(
    way: str, runs, test: list, folder: Path, question: Question
) -> tuple[np.ndarray, str]:
    """`combine` of the runs' predictions `test`, which answer this question.

    The caches in `folder` give the validation windows.
    """
    if way == "average":
        return combine(way, test)
    known = side(folder, runs, "valid")
    valid = [predict_run(run, known, question) for run in runs]
    return combine(way, test, valid, known.y, known.subjects)


def combine(way: str, test: list, valid=None, y=None, subjects=None) -> tuple[np.ndarray, str]:
    """(predictions (N,) for `test`, what was done in a few words).

    valid, y, subjects: the validation windows that weights and stack are fitted on.
    """
    answer = np.stack([p[:, 0] for p in test], 1)
    if way == "average":
        return answer.mean(1), f"average of {len(test)}"
    if way == "weights":
        known = np.stack([p[:, 0] for p in valid], 1)
        weights, _ = nnls(known - known.mean(0), y - y.mean())
        words = "weights " + " ".join(f"{weight:.2f}" for weight in weights)
        return y.mean() + (answer - known.mean(0)) @ weights, words
    columns = np.hstack(test)
    words = f"ridge on {cli.counted(columns.shape[1], 'number')}"
    return fit_ridge(np.hstack(valid), y, subjects)(columns), words


def subject_mean(p, subjects) -> np.ndarray:
    """(N,) the mean prediction over all windows of each window's subject."""
    _, which = np.unique(subjects, return_inverse=True)
    return (np.bincount(which, p) / np.bincount(which))[which]
