"""How far from the training mean answers go, and what a model scores with that.

A subject's factor is mostly not in two seconds of EEG, and a network is too sure of what it says of new subjects. Challenge 2
therefore draws its answers towards the training mean, as far as is best on the validation windows. Their NRMSE with a strength
fitted on the same windows would flatter the model: it is reported with the strength fitted on other subjects.
"""

import numpy as np

from eeg import UserError
from eeg.data.split import subject_folds


def shrinkage(p, y, center):
    """The strength, 0 to 1, with which center + strength * (p - center) has the least squared error. p, y (N,)."""
    p, y = p - center, y - center
    return float(np.clip((p @ y) / max(p @ p, 1e-12), 0, 1))


def shrunk(p, strength, center):
    return center + strength * (p - center)


def cross_fitted(p, y, subjects, center):
    """(N,): each window's answer, shrunk as fits the half of the subjects that it is not of. Halves have about as many windows.

    Raises UserError where there is one subject alone.
    """
    if len(set(subjects)) < 2:
        raise UserError(
            "the shrinkage of challenge 2's answers is fitted on one half of the validation subjects "
            "and scored on the other, which needs 2 of them; there is 1, name more releases with --valid"
        )
    half, found = subject_folds(subjects, 2), np.empty(len(p))
    for scored in (half == 0, half == 1):
        found[scored] = shrunk(p[scored], shrinkage(p[~scored], y[~scored], center), center)
    return found
