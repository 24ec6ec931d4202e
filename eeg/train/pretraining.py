"""Pretraining without labels: the trainer, for which the signal itself is the target, or when
windows were recorded.

B windows, N tokens of the encoder, P pairs of windows.
"""

import math
from dataclasses import fields, replace

import numpy as np
import torch
from torch.nn import functional as F

from eeg import UserError
from eeg.data.cache import Cache
from eeg.data.split import Damaged, Split
from eeg.machine.recovery import on_host
from eeg.models.transformer import Masked, Positioning
from eeg.score.predict import Question
from eeg.train.options import Options
from eeg.train.progress import figure
from eeg.train.trainer import Trainer
from eeg.train.validation import Score, Validation
from eeg.transfer.options import SIGNAL

PATTERNS = 61  # of hiding, which validation windows take in turn


def make_model(options: Options) -> Masked | Positioning:
    """The encoder that the options ask for, untrained, and what it is trained with."""
    if options.task == "positioning":
        return Positioning(options.model, options.normalize, **options.set)
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

    def shown(self, valid: dict) -> str:
        return figure(valid["nrmse"])

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

        found = self._answers(stepper, progress, Question(of=errors))
        found = self._without_damaged(found)[:, 0]
        nrmse = float(np.sqrt(found.mean()))
        figures = {"nrmse": nrmse, "mean_predictor": 1.0}
        return Score(nrmse, figures, 1.0, 0.0, [])


def _in_turn(part, count):
    return part.repeat(-(-count // len(part)), 1)[:count]


class Restorer(Trainer):
    """The Trainer, for which the signal itself is the target."""

    def _choose_targets(self, options: Options, split: Split, model: Masked):
        return Signal(model)

    def _make_validation(self, split: Split, damaged: Damaged):
        return SignalValidation(split, self.targets, damaged)

    def _weights_to_keep(self, score: Score):
        return self.stepper.weights()


# ---------------------------------------------------------------------------- relative positioning


class Pairs:
    """Windows of one recording, two by two. They are near where they begin at most near_s apart,
    far where they begin at least far_s apart. Two that share a sample are neither: they would be
    told by it. rows: the windows of the cache to take them from. Raises UserError where there are
    no pairs of both kinds."""

    def __init__(self, cache: Cache, rows: np.ndarray, near_s: float, far_s: float):
        start = cache.metadata["start"].astype(np.int64)
        keys = np.stack([cache.part_of(rows), cache.metadata["recording"][rows]])
        _, recording = np.unique(keys, axis=1, return_inverse=True)
        order = np.lexsort((start[rows], recording.ravel()))
        self.start, self.rows = start, rows[order]
        length, self.near = cache[0].shape[1], round(near_s * cache.sfreq)  # samples
        far = round(far_s * cache.sfreq)
        # recordings one after the other, so far apart that no window of another is ever near
        apart = int(start.max()) + far + self.near + 1
        first = recording.ravel()[order] * apart
        place = first + start[self.rows]
        ranges = {  # of places, before and after each window
            True: ((place - self.near, place - length), (place + length, place + self.near)),
            False: ((first, place - far), (place + far, first + apart - 1)),
        }
        self.found = {kind: _inside(place, *both) for kind, both in ranges.items()}
        many = [before[1] + after[1] > 0 for before, after in self.found.values()]
        self.anchors = np.flatnonzero(np.all(many, 0))
        if len(self.anchors) == 0:
            words = f"{length / cache.sfreq:g} s to {near_s:g} s from another and {far_s:g} s"
            raise UserError(
                f"no window of {len(rows):,} begins {words} or more from a third of its recording: "
                "choose other --near and --far, in seconds"
            )

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """(2 P,) the windows of pairs, one pair after the other, as many as there are windows; half
        of the pairs are near."""
        count = max(1, len(self.rows) // 2)
        anchors = np.resize(rng.permutation(self.anchors), count)
        near = rng.permutation(np.arange(count) % 2 == 0)
        chance, others = rng.random(count), np.empty(count, np.int64)
        for kind, ((first, n), (second, m)) in self.found.items():
            which = (chance * (n + m)[anchors]).astype(np.int64)
            after = which >= n[anchors]
            found = np.where(after, second[anchors] + which - n[anchors], first[anchors] + which)
            others = np.where(near == kind, found, others)
        return np.stack([self.rows[anchors], self.rows[others]], 1).ravel()

    def are_near(self, rows: np.ndarray) -> np.ndarray:
        """(P,) of the windows of pairs (2 P,)"""
        return np.abs(np.diff(self.start[rows].reshape(-1, 2))[:, 0]) <= self.near


def _inside(place, *ranges):
    """[(the first of the sorted places in each range, how many there are)], both ends included."""
    found = []
    for low, high in ranges:
        first = np.searchsorted(place, low, "left")
        found.append((first, np.maximum(np.searchsorted(place, high, "right") - first, 0)))
    return found


class Position:
    """What relative positioning learns: as Targets, for pairs of windows."""

    name, loss, is_class, features, center = SIGNAL, "near or far", True, None, 0.0

    def __init__(self, options: Options, split: Split):
        self.limits_s = options.near, options.far
        self.pairs = Pairs(split.cache, split.train, *self.limits_s)

    def mean_predictor(self, rows):
        return None

    def tensors(self, batch, mixed: bool) -> dict[str, torch.Tensor]:
        """x (P, 2, C, T), y (P,): 1 where they are near"""
        y = self.pairs.are_near(batch.rows).astype(np.float32)
        return {"x": torch.from_numpy(batch.x).unflatten(0, (-1, 2)), "y": torch.from_numpy(y)}

    def raw(self, model, batch):
        embedded = model.embedded(batch["x"].flatten(0, 1)).unflatten(0, (-1, 2))
        return model.compared(embedded[:, 0], embedded[:, 1])

    def judge(self, model, raw, batch, average=None):
        """-> (loss, (P, 1) the log-odds of near)"""
        loss = F.binary_cross_entropy_with_logits(raw.float(), batch["y"])
        return loss, raw.detach()[:, None]

    def sums(self, batch, loss, answers):
        n = 2 * len(answers)  # windows
        return {"n": n, "loss": loss * n}

    def shown(self, valid: dict) -> str:
        accuracy = f"balanced accuracy {figure(valid['balanced_accuracy'])} (by chance 0.5)"
        return f"log-loss {figure(valid['log_loss'])} (by chance 0.693), {accuracy}"

    def result(self, value: float, shrink: float) -> str:
        return f"log-loss {value:.4f} of near or far, by chance 0.6931"


class PositionValidation(Validation):
    """Scores how well pairs of validation windows are told. They are the same in each epoch."""

    def score(self, stepper, progress):
        embedded = lambda model, x, features: model.embedded(x)
        found = self._without_damaged(self._answers(stepper, progress, Question(of=embedded)))
        state = lambda: on_host(stepper.validated.compare.state_dict())
        layer = {
            name: x.double().numpy() for name, x in stepper.guard.read("weights", state).items()
        }
        rows, cache = self.split.valid, self.split.cache
        pairs = Pairs(cache, rows, *self.targets.limits_s)
        drawn = pairs.draw(np.random.default_rng(0))
        near, order = pairs.are_near(drawn), np.argsort(rows)
        one, other = (
            found[order[np.searchsorted(rows, drawn, sorter=order)]]
            .reshape(-1, 2, found.shape[1])
            .swapaxes(0, 1)
        )
        said = np.abs(one - other) @ layer["weight"][0] + layer["bias"][0]
        losses = np.logaddexp(0, np.where(near, -said, said))
        right = (said > 0) == near
        accuracy = np.mean([right[near == kind].mean() for kind in (True, False)])
        figures = {"log_loss": float(losses.mean()), "balanced_accuracy": float(accuracy)}
        figures["mean_predictor"] = math.log(2)
        return Score(figures["log_loss"], figures, 1.0, 0.0, [])


class Positioner(Restorer):
    """The Trainer, for which the target is whether windows are near in time."""

    def _choose_targets(self, options, split, model):
        return Position(options, split)

    def _make_validation(self, split, damaged):
        return PositionValidation(split, self.targets, damaged)

    def _order(self):
        return replace(super()._order(), pairs=self.targets.pairs.draw)

    def _size_batches(self, model, place):
        """A pair is computed at once: batches are even, and parts are of so many pairs."""
        doubled = place._replace(part=place.part and 2 * place.part)
        size, part = super()._size_batches(model, doubled)
        return max(2, size - size % 2), part and max(1, part // 2)

    def _tensors(self, batch):
        """Without pairs of which a window is damaged."""
        if not batch.finite.all():
            self.damaged.add(batch.rows[~batch.finite], "training")
            whole = batch.finite.reshape(-1, 2).all(1)
            kept = np.repeat(whole if whole.any() else ~whole, 2)
            batch = replace(batch, **{f.name: getattr(batch, f.name)[kept] for f in fields(batch)})
        return self.targets.tensors(batch, False)


TRAINERS = {"masked": Restorer, "positioning": Positioner}
