"""What an epoch is worth: answers to the validation windows, and their score."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from eeg import UserError
from eeg.data.split import Damaged, Split
from eeg.score import blend
from eeg.score.metrics import auroc, describe
from eeg.score.predict import Question, predict
from eeg.train.optim import Stepper
from eeg.train.targets import Targets

BATCH, SMALL_BATCH = 128, 16  # windows; the second where memory runs out
ALIKE = 0.01  # of the value: epochs that differ by less are as good
CHANCE = 0.05 / 10  # share of equal epochs that seem worse: one of some ten shall not in a run


def network_answers(model, x, features):
    """(B, n_outputs), without the ridge."""
    return model.answer(model.raw(x, features))


def ridge_answers(model, x, features):
    """(B, n_outputs), from the training mean."""
    return model.beside(x)


@dataclass
class Score:
    value: float  # what training minimises: the NRMSE, or 1 - AUROC
    figures: dict  # as history.json has them
    shrink: float  # how far inference lets answers go from the training mean, 1 all the way
    share: float  # what the ridge's answer counts beside them
    errors: list  # by subject, the sum of squared errors, where its windows share a label


def worse(score: Score, lowest: Score) -> bool:
    """Whether an epoch is worse than the one with the lowest value; of two that are as good, the
    later one has learned more.

    Where all windows of a subject share a label, a few subjects cannot choose an epoch: it is worse
    beyond chance by Student's t over subjects. Elsewhere by more than ALIKE.
    """
    if score.value <= lowest.value:
        return False
    if math.isnan(score.value) or not score.errors:
        return not score.value <= lowest.value * (1 + ALIKE)
    if not len(score.errors) == len(lowest.errors) >= 2:
        return True
    more = np.subtract(score.errors, lowest.errors)
    standard_errors = stdtrit(len(more) - 1, 1 - CHANCE)
    return bool(more.sum() > standard_errors * np.sqrt(len(more)) * more.std(ddof=1))


class Validation:
    """Scores the validation side of a split, which loses its damaged windows as they are met."""

    def __init__(self, split: Split, targets: Targets, damaged: Damaged):
        self.split, self.targets, self.damaged = split, targets, damaged
        self.mean_predictor = targets.mean_predictor(split.valid)
        self.ridge = None  # answers, once they are known

    def score(self, stepper: Stepper, progress: Callable) -> Score:
        """progress(done, total) is called as windows are answered, and may raise."""
        p = self._without_damaged(self._answers(stepper, progress))[:, 0]
        y = self.targets.answers(self.split.valid)
        p, shrink, share = self._weigh(p, y, stepper)
        if self.targets.is_class:
            figures = {"auroc": auroc(y, p)}
            return Score(1 - figures["auroc"], figures, shrink, share, [])
        figures = describe(y, p) | {"mean_predictor": self.mean_predictor}
        return Score(figures["nrmse"], figures, shrink, share, self._errors(p, y))

    def _answers(self, stepper, progress, question=Question(of=network_answers)):
        """(n, K) answers of all processes, NaN where a window is damaged."""
        ranks, cache = stepper.ranks, self.split.cache
        rows = self.split.valid[ranks.rank :: ranks.world]

        def answer(size):
            how = {"batch": size, "device": stepper.guard.device, "progress": progress}
            return predict(stepper.validated, cache, rows, question, leave_out=True, **how)

        small = lambda: answer(SMALL_BATCH)
        mine = stepper.guard.read("validation", lambda: answer(BATCH), small)
        parts = ranks.gather(mine)
        p = np.empty((len(self.split.valid), max(part.shape[1] for part in parts)))
        for rank, part in enumerate(parts):
            p[rank :: ranks.world] = part
        return p

    def _without_damaged(self, p):
        """The answers to undamaged windows. The others are taken out of the split."""
        silent = np.flatnonzero(np.isnan(p).any(1))
        rows = self.split.valid[silent]
        bad = np.array([not self.split.cache.is_finite(row) for row in rows], bool)
        if bad.any():
            self.damaged.add(rows[bad], "validation")
            self.leave_out_damaged()
        return np.delete(p, silent[bad], 0)

    def leave_out_damaged(self) -> None:
        """Validate on the other windows alone."""
        kept = ~np.isin(self.split.valid, list(self.damaged.rows))
        if not kept.any():
            what = f"all {len(kept)} validation windows hold NaN or infinity"
            raise UserError(f"{what}: {self.damaged.files()}")
        self.split.valid = self.split.valid[kept]
        self.mean_predictor = self.targets.mean_predictor(self.split.valid)

    def _weigh(self, p, y, stepper):
        """-> (answers as they are scored, the strength that inference shrinks the network's by, the
        share of the ridge's)

        In challenge 2, and in a blend, each half of the validation subjects is scored with what was
        fitted on the other half.
        """
        challenge, center = self.split.cache.challenge, self.targets.center
        subjects = self.split.cache.metadata["subject"][self.split.valid]
        if stepper.model.ridge is not None:
            parts = np.stack([p - center, self._ridge_answers(stepper)], 1)
            shrink, share = blend.weigh(parts, y - center, subjects, challenge)
            p = center + blend.cross_fitted(parts, y - center, subjects, challenge)
            return p, float(shrink), float(share)
        if challenge == 1:
            return p, 1.0, 0.0
        return blend.cross_shrunk(p, y, subjects, center), blend.shrinkage(p, y, center), 0.0

    def _errors(self, p, y):
        if self.split.cache.challenge == 1:
            return []
        subjects = self.split.cache.metadata["subject"][self.split.valid]
        _, which = np.unique(subjects, return_inverse=True)
        return np.bincount(which, np.square(p - y)).tolist()

    def _ridge_answers(self, stepper):
        """(n,) how far from the training mean the ridge answers, which no epoch changes."""
        if self.ridge is None:
            self.ridge = np.full(len(self.split.cache), np.nan)
            found = self._answers(stepper, lambda done, total: None, Question(of=ridge_answers))
            self.ridge[self.split.valid] = found[:, 0]
        return self.ridge[self.split.valid]
