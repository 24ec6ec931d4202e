"""How far answers may go from the training mean, and what a model scores with that.

Two seconds of EEG say little about a subject's factor, and networks are too sure about new
subjects. So challenge 2 draws answers towards the training mean, as far as is best on the
validation windows. The strength that scores a subject is fitted on others: fitted on the same
windows it would flatter the model.
"""

from collections.abc import Callable

import numpy as np

from eeg import UserError
from eeg.data.split import subject_folds


def shrinkage(p, y, center: float) -> float:
    """The strength, 0 to 1, with which `shrunk` has the least squared error. p, y (N,)."""
    p, y = p - center, y - center
    return float(np.clip((p @ y) / max(p @ p, 1e-12), 0, 1))


def shrunk(p, strength: float, center: float) -> np.ndarray:
    return center + strength * (p - center)


def cross_fitted(p, y, subjects, center: float) -> np.ndarray:
    """(N,) each window's answer, shrunk with the strength that fits the other half of the subjects.

    Both halves have about as many windows. Raises UserError where there is only one subject.
    """
    if len(set(subjects)) < 2:
        why = "shrinkage is fitted on half of the validation subjects and scored on the others"
        raise UserError(f"{why}, which needs 2; there is 1, name more releases with --valid")

    def shrunk_by_others(known, scored):
        return shrunk(p[scored], shrinkage(p[known], y[known], center), center)

    return by_halves(subjects, shrunk_by_others)


def by_halves(subjects, answers: Callable) -> np.ndarray:
    """(N,) answers(known, scored) to each half of the subjects' windows, where the other is known;
    both are masks (N,)."""
    half, found = subject_folds(subjects, 2), np.empty(len(subjects))
    for scored in (half == 0, half == 1):
        found[scored] = answers(~scored, scored)
    return found
