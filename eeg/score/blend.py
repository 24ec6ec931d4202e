"""How much of the network's and of the ridge's answer counts, and what the two score together.

Few subjects cannot choose two weights, so they start from weights that are trusted without looking
and move as far as the validation subjects insist. Two seconds of EEG say little about a subject's
factor, and networks are too sure about new subjects: without a ridge, challenge 2 draws answers
towards the training mean, as far as is best on the validation windows. What scores a subject was
chosen on others: a score with weights fitted on the same windows would flatter the model.
"""

from collections.abc import Callable

import numpy as np

from eeg import UserError
from eeg.data.split import subject_folds

# By challenge: the weights of network and ridge to start from, and how many subjects it takes to
# move each halfway. In challenge 1 networks find what the ridge finds, and are a little too sure.
TRUSTED = {1: (0.8, 0.0), 2: (0.5, 0.8)}
CAUTION = {1: (2.0, 30.0), 2: (100.0, 10.0)}
MOST = 1.5  # of either


def trusted(parts, challenge: int) -> np.ndarray:
    """(2,) the weights to start from.

    In challenge 2 a network that has seen few subjects knows them by heart, each of whom has one
    label. The ridge only answers what it could answer for unknown subjects, so the network's
    answers are cut to the size of the ridge's.
    """
    weights = np.array(TRUSTED[challenge])
    if challenge == 2:
        network, ridge = np.sqrt(np.square(parts).mean(0))
        weights[0] *= min(1.0, ridge / (network + 1e-12))
    return weights


def weigh(parts, y, subjects, challenge: int) -> np.ndarray:
    """(2,) weights, each from 0 to MOST, with the least squared error on these windows.

    parts (N, 2), y (N,): how far the answers of network and ridge, and the labels, lie from the
    training mean.
    """
    seen = len(set(subjects)) / len(y)  # windows of a subject are one piece of evidence
    size = np.array(CAUTION[challenge]) * np.square(parts).mean(0) + 1e-12
    left = seen * parts.T @ parts + np.diag(size)
    right = seen * parts.T @ y + size * trusted(parts, challenge)
    found = np.linalg.solve(left, right)
    if found.min() < 0:  # the other alone
        kept = int(found.argmax())
        if challenge == 2 and kept == 0:  # it was trusted because the ridge was
            right = seen * parts.T @ y
        found = np.zeros(2)
        found[kept] = right[kept] / left[kept, kept]
    return found.clip(0, MOST)


def cross_fitted(parts, y, subjects, challenge: int) -> np.ndarray:
    """(N,) each window's blended answer, from the training mean, with the weights that fit the
    other half of the subjects; the trusted ones where there is no other."""
    if len(set(subjects)) < 2:
        return parts @ trusted(parts, challenge)

    def weighed_by_others(known, scored):
        return parts[scored] @ weigh(parts[known], y[known], subjects[known], challenge)

    return by_halves(subjects, weighed_by_others)


def shrinkage(p, y, center: float) -> float:
    """The strength, 0 to 1, with which `shrunk` has the least squared error. p, y (N,)."""
    p, y = p - center, y - center
    return float(np.clip((p @ y) / max(p @ p, 1e-12), 0, 1))


def shrunk(p, strength: float, center: float) -> np.ndarray:
    return center + strength * (p - center)


def cross_shrunk(p, y, subjects, center: float) -> np.ndarray:
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
