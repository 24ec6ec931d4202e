"""Pretraining without labels: the trainer, for which the signal itself is the target.

B windows, N tokens of the encoder.
"""

import numpy as np
import torch

from eeg.data.split import Damaged, Split
from eeg.models.transformer import Masked
from eeg.score.predict import Question
from eeg.train.options import Options
from eeg.train.trainer import Trainer
from eeg.train.validation import Score, Validation
from eeg.transfer.options import SIGNAL

PATTERNS = 61  # of hiding, which validation windows take in turn


def make_masked(options: Options) -> Masked:
    """The encoder and decoder that the options ask for, untrained."""
    hiding = {"share": options.mask, "span": options.span, "regions": options.mask_regions}
    return Masked(options.model, options.normalize, **hiding, **options.set)


class Signal:
    """What pretraining learns: as Targets, for the signal itself."""

    name, loss, is_class, features, center = SIGNAL, "restore", False, None, 0.0

    def __init__(self, model: Masked):
        self.hiding, self.tokens = model.hiding, model.network.n_tokens

    def answers(self, rows):
        return np.zeros(len(rows))

    def mean_predictor(self, rows):
        return 1.0

    def tensors(self, batch, mixed: bool) -> dict[str, torch.Tensor]:
        """What a step needs of a batch, on the CPU, windows first: what is hidden is drawn from
        torch's generator, which a checkpoint holds."""
        x = torch.from_numpy(batch.x)
        return {"x": x, **self.hiding.draw(len(x), self.tokens)}

    def raw(self, model, batch):
        """(B,) the error of each window."""
        return model.errors(*(batch.get(name) for name in ("x", "seen", "covered")))

    def judge(self, model, raw, batch, average=None):
        """-> (loss, (B, 1) the error of each window)"""
        return raw.mean(), raw.detach()[:, None]

    def sums(self, batch, loss, answers):
        """As those of a label of mean 0 and deviation 1, whose NRMSE is the root of the loss."""
        n = len(answers)
        return {"n": n, "loss": loss * n, "square": float(answers.double().sum()), "y": 0, "yy": n}

    def result(self, value: float, shrink: float) -> str:
        return f"NRMSE {value:.4f} of the hidden signal, whose mean scores 1"


class SignalValidation(Validation):
    """Scores how well the hidden signal of the validation windows is restored. What is hidden is
    the same in each epoch."""

    def score(self, stepper, progress):
        fixed = torch.Generator().manual_seed(0)
        patterns = self.targets.hiding.draw(PATTERNS, self.targets.tokens, fixed)

        def errors(model, x, features):
            own = {name: _in_turn(part, len(x)).to(x.device) for name, part in patterns.items()}
            return model.errors(x, **own)[:, None]

        found = self._without_damaged(self._answers(stepper, progress, Question(of=errors)))
        _, which = np.unique(
            self.split.cache.metadata["subject"][self.split.valid], return_inverse=True
        )
        by_subject = np.bincount(which, found).tolist()
        nrmse = float(np.sqrt(found.mean()))
        figures = {"nrmse": nrmse, "mean_predictor": 1.0}
        return Score(nrmse, figures, 1.0, 0.0, by_subject)


def _in_turn(part, count):
    return part.repeat(-(-count // len(part)), 1)[:count]


class Pretrainer(Trainer):
    """The Trainer, for which the signal itself is the target."""

    def _choose_targets(self, options: Options, split: Split, model: Masked):
        return Signal(model)

    def _make_validation(self, split: Split, damaged: Damaged):
        return SignalValidation(split, self.targets, damaged)

    def _weights_to_keep(self, score: Score):
        return self.stepper.weights()
