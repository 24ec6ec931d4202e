"""What a run learns: labels and how they are standardised, features beside a window, the loss."""

from dataclasses import dataclass

import numpy as np
import torch

import eeg.models
from eeg import UserError, hints
from eeg.data.cache import rebuild_known
from eeg.data.split import Split, further, labels, names
from eeg.data.windows import INPUT
from eeg.models import CLOSED_FORM, SETTINGS
from eeg.models.model import Model
from eeg.score.metrics import nrmse
from eeg.train import losses
from eeg.train.losses import LOSSES
from eeg.train.options import Options
from eeg.train.progress import figure

CLASSES = ("correct",)  # targets that are hit or error; the others are numbers
MAY_BE_UNKNOWN = ("correct", "factors")
MOVING = ("rt_from_stimulus", "rt_from_trialstart")  # a window opened later has them earlier
SAMPLED = 1000  # windows from which the features of a layer are standardised


def make_model(options: Options) -> Model:
    """The model that the options ask for, untrained. Raises UserError for an unknown setting."""
    settings, outputs = dict(options.set), 4 if options.target == "factors" else 1
    usual = {"n_outputs": outputs, "normalize": options.normalize, "aux": tuple(options.aux)}
    try:
        if "head" in SETTINGS.get(options.model, {}):
            # the moments that a time head scores are those of the window
            head = "time" if options.target == "rt_from_stimulus" else "number"
            settings.setdefault("head", head)
        # in challenge 2 windows begin at any moment of a trial: there are no potentials of one
        on = "all" if options.challenge == 1 else "features+covariance"
        if options.model in CLOSED_FORM:
            settings.setdefault("on", on)
        else:
            usual["members"] = options.members
            if options.blend == "ridge" and options.target not in CLASSES:
                usual["blend"] = on
        if options.features:
            settings["features"] = options.features
        return eeg.models.build(options.model, n_times=INPUT, **usual, **settings)
    except (ValueError, TypeError) as e:
        raise UserError(f"{e}; see: {hints.command('train', '--list-models')}") from None


def choose_loss(options: Options, model: Model) -> str:
    """--loss, or the one that suits the target and the model's head."""
    usual = "time" if model.head == "time" else "mse"
    loss = options.loss or ("cross-entropy" if options.target in CLASSES else usual)
    if loss not in LOSSES:
        raise UserError(f"there is no loss '{loss}'; there are {', '.join(LOSSES)}")
    if loss == "time" and model.head != "time":
        see = hints.command("train", "--list-models")
        raise UserError(
            f"--loss time scores moments, but this {options.model} answers with a number; choose a "
            f"model with a time head: --set head=time, see: {see}"
        )
    return loss


@dataclass
class Targets:
    """The labels of all windows of a cache, N of them, and what belongs to them."""

    name: str
    loss: str
    y: np.ndarray  # (N, K + aux) float32: labels in their units, then those of aux, standardised
    center: float  # mean of the first label over the training windows
    positive: float  # weight of label 1 in a cross-entropy; that of 0 is 1
    features: np.ndarray | None  # (N, F), where the cache gives them
    sfreq: float

    @property
    def is_class(self) -> bool:
        return self.name in CLASSES

    def answers(self, rows: np.ndarray) -> np.ndarray:
        """(n,) float64: the correct answers to these windows."""
        return self.y[rows, 0].astype(float)

    def mean_predictor(self, rows: np.ndarray) -> float | None:
        """The NRMSE of the mean of the training labels on these windows; None for classes."""
        if self.is_class:
            return None
        return nrmse(self.answers(rows), np.full(len(rows), self.center))

    def tensors(self, batch, mixed: bool) -> dict[str, torch.Tensor]:
        """What a step needs of a batch, on the CPU, windows first."""
        y = torch.from_numpy(self.y[batch.rows])
        if self.name in MOVING:
            y[:, 0] -= torch.from_numpy(batch.shift_samples) / self.sfreq
        found = {"x": torch.from_numpy(batch.x), "y": y}
        if self.features is not None:
            found["features"] = torch.from_numpy(self.features[batch.rows])
        return _mixed(found, torch.from_numpy(batch.mix)) if mixed else found

    def raw(self, model: Model, batch: dict) -> torch.Tensor:
        """What the loss sees."""
        return model.raw(batch["x"], batch.get("features"))

    def judge(self, model: Model, raw, batch: dict, average=None) -> tuple:
        """-> (the loss, the answers (B, K), the mean over the members). average: see Batch."""
        members = len(raw) // len(batch["x"])  # each answers every window
        y, mix, other = (_repeated(batch.get(name), members) for name in ("y", "mix", "other"))
        value = losses.loss(self.loss, model, raw, y, mix, other, self.positive, average)
        return value, model.answer(raw.detach()).unflatten(0, (members, -1)).mean(0)

    def sums(self, batch: dict, loss: float, answers) -> dict[str, float]:
        """What an epoch's loss and NRMSE are made of: sums over the windows of a batch."""
        y = batch["y"][:, 0]
        if "mix" in batch:
            y = batch["other"][:, 0].lerp(y, batch["mix"])
        y, error = y.double(), answers[:, 0].double() - y.double()
        return {
            "n": len(y),
            "loss": loss * len(y),
            "square": error.square().sum().item(),
            "y": y.sum().item(),
            "yy": y.square().sum().item(),
        }

    def shown(self, valid: dict) -> str:
        """What the line of an epoch says of its validation. valid: as history.json has it."""
        return f"AUROC {figure(valid['auroc'])}" if self.is_class else figure(valid["nrmse"])

    def result(self, value: float, shrink: float) -> str:
        """What a validation came to, in words. value: 1 - AUROC of a class, else the NRMSE."""
        if self.is_class:
            return f"AUROC {1 - value:.3f}"
        what = f"NRMSE {value:.4f}"
        if self.name in ("externalizing", "factors"):
            what += f", answers shrunk to {shrink:.2f} of their distance from the training mean"
        return what


def _repeated(values, times):
    return None if values is None else values.repeat(times, *[1] * (values.dim() - 1))


def _mixed(found, mix):
    """Mix each window and its features with the one before it. A loss mixes the labels itself."""
    found |= {"mix": mix, "other": found["y"].roll(1, 0)}
    for name in ("x", "features"):
        if name in found:
            share = mix.view(-1, *[1] * (found[name].dim() - 1))
            found[name] = torch.lerp(found[name].roll(1, 0), found[name], share)
    return found


def choose_targets(options: Options, split: Split, model: Model) -> Targets:
    """Check the labels, and tell the model how to standardise labels and features.

    Takes windows of unknown label out of the split. Raises UserError if nothing can be learnt.
    """
    loss = choose_loss(options, model)
    y, also = labels(split.cache, options.target), further(split.cache, model.aux)
    if options.target in MAY_BE_UNKNOWN:
        _drop_unknown(options.target, split, y)
    _check_labels(options.target, split, y)
    known = y[split.train]
    center, spread, positive = known.mean(0), known.std(0), 1.0
    if options.target in CLASSES:
        center, spread = np.zeros(1), np.ones(1)
        positive = float((known == 0).sum() / max(1, (known == 1).sum()))
    model.center.copy_(torch.from_numpy(center))
    model.scale.copy_(torch.from_numpy(spread))
    if model.aux:
        with np.errstate(invalid="ignore"):
            mean, deviation = np.nanmean(also[split.train], 0), np.nanstd(also[split.train], 0)
            also = (also - mean) / np.maximum(deviation, 1e-6)
    y = np.hstack([y, also]).astype(np.float32)
    features = _fit_features(split, model)
    return Targets(options.target, loss, y, float(center[0]), positive, features, split.cache.sfreq)


def _drop_unknown(target, split, y):
    reason = f"{target} unknown"
    for side in ("train", "valid"):
        rows = getattr(split, side)
        known = ~np.isnan(y[rows]).any(1)
        if not known.all():
            split.dropped[reason] = split.dropped.get(reason, 0) + int((~known).sum())
            setattr(split, side, rows[known])


def _check_labels(target, split, y):
    used = np.concatenate([split.train, split.valid])
    bad = used[~np.isfinite(y[used]).all(1)]
    if len(bad):
        part = split.cache.part_of(bad[0])
        path = split.cache.paths[part]
        what = f"{len(bad)} of {len(used)} labels are NaN or infinite, the first in {path}"
        command = rebuild_known(path, split.cache.attributes[part])
        raise UserError(f"{what}; rebuild it with: {command}")
    if split.cache.challenge == 2 and len(names(split.cache, split.valid)) == 1:
        raise UserError(
            "the validation side has 1 subject, all of whose windows have the same label; "
            "challenge 2 needs at least 2: name more releases with --valid"
        )
    if any((np.ptp(y[rows], 0) == 0).any() for rows in (split.train, split.valid)):
        raise UserError(
            f"all labels of a side are the same ({target}): there is nothing to learn, or nothing "
            "to validate with; name more releases with --train and --valid"
        )


def _fit_features(split, model):
    """Tell the model how to standardise its features. -> (N, F) those of the cache, or None"""
    if model.features == "none":
        return None
    groups = model.neuro.groups
    stored = split.cache.needed_features(groups) if model.features == "file" else None
    known = stored[split.train] if stored is not None else _computed_features(split, groups)
    with np.errstate(invalid="ignore"):
        median = np.nan_to_num(np.nanmedian(known, 0))
        mad = 1.4826 * np.nanmedian(np.abs(known - median), 0)
    model.median.copy_(torch.from_numpy(median))
    model.mad.copy_(torch.from_numpy(np.where(mad > 0, mad, 1)))
    return stored


def _computed_features(split, groups):
    """The features of some training windows, cut from their middle."""
    from eeg.data.features import compute

    some = split.train[:: max(1, len(split.train) // SAMPLED)]
    start = (split.cache[0].shape[1] - INPUT) // 2
    windows = [split.cache[row][:, start : start + INPUT] for row in some]
    return compute(np.stack(windows).astype(np.float32), groups=groups)
