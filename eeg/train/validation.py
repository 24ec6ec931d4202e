"""What an epoch is worth: answers to the validation windows, and their score."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eeg import UserError
from eeg.data.split import Split
from eeg.score.metrics import auroc, describe
from eeg.score.predict import predict
from eeg.score.shrinkage import cross_fitted, shrinkage
from eeg.train.damaged import Damaged
from eeg.train.stepper import Stepper
from eeg.train.targets import Targets

BATCH, SMALL_BATCH = 128, 16  # windows; the second where memory runs out


@dataclass
class Score:
    value: float  # what training minimises: the NRMSE, or 1 - AUROC
    figures: dict  # as history.json has them
    shrink: float  # how far inference lets answers go from the training mean, 1 all the way


class Validation:
    """Scores the validation side of a split, which loses its damaged windows as they are met."""

    def __init__(self, split: Split, targets: Targets, damaged: Damaged):
        self.split, self.targets, self.damaged = split, targets, damaged
        self.mean_predictor = targets.mean_predictor(split.valid)

    def score(self, stepper: Stepper, progress: Callable) -> Score:
        """progress(done, total) is called as windows are answered, and may raise."""
        p = self._without_damaged(self._answers(stepper, progress))
        y = self.targets.answers(self.split.valid)
        p, strength = self._shrink(p, y)
        if self.targets.is_class:
            figures = {"auroc": auroc(y, p)}
            return Score(1 - figures["auroc"], figures, strength)
        figures = describe(y, p) | {"mean_predictor": self.mean_predictor}
        return Score(figures["nrmse"], figures, strength)

    def _answers(self, stepper, progress):
        """(n,) answers of all processes, NaN where a window is damaged."""
        ranks, cache = stepper.ranks, self.split.cache
        rows = self.split.valid[ranks.rank :: ranks.world]

        def answer(size):
            how = {"batch": size, "device": stepper.guard.device, "progress": progress}
            return predict(stepper.validated, cache, rows, leave_out=True, **how)[:, 0]

        small = lambda: answer(SMALL_BATCH)
        mine = stepper.guard.read("validation", lambda: answer(BATCH), small)
        p = np.empty(len(self.split.valid))
        for rank, part in enumerate(ranks.gather(mine)):
            p[rank :: ranks.world] = part
        return p

    def _without_damaged(self, p):
        """The answers to undamaged windows. The others are taken out of the split."""
        silent = np.flatnonzero(np.isnan(p))
        rows = self.split.valid[silent]
        bad = np.array([not self.split.cache.is_finite(row) for row in rows], bool)
        if bad.any():
            self.damaged.add(rows[bad], "validation")
            self.leave_out_damaged()
        return np.delete(p, silent[bad])

    def leave_out_damaged(self) -> None:
        """Validate on the other windows alone."""
        kept = ~np.isin(self.split.valid, list(self.damaged.rows))
        if not kept.any():
            what = f"all {len(kept)} validation windows hold NaN or infinity"
            raise UserError(f"{what}: {self.damaged.files()}")
        self.split.valid = self.split.valid[kept]
        self.mean_predictor = self.targets.mean_predictor(self.split.valid)

    def _shrink(self, p, y):
        """-> (answers as they are scored, the strength that inference shrinks them by)

        In challenge 2 each half of the validation subjects is scored with the strength fitted on
        the other half.
        """
        if self.split.cache.challenge == 1:
            return p, 1.0
        subjects = self.split.cache.metadata["subject"][self.split.valid]
        center = self.targets.center
        return cross_fitted(p, y, subjects, center), shrinkage(p, y, center)
