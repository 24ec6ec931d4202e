"""What training minimises. B windows, K outputs, S moments.

A loss takes a `Batch` and returns one number, the mean over its windows. One in LOSSES is known
to --loss, its help and the trainer. torch is imported late: run/train.py shows the list without it.
"""

from collections.abc import Callable
from dataclasses import dataclass

SMOOTH_S = 0.15  # spread of the Gaussian that stands for a response's moment
ENTROPY = 0.3  # weight of the cross-entropy beside the RMSE, in s
AUX = 0.3  # weight of what is learned beside the answer
FOCUS = 1.0  # focal: exponent of the weight by size
TOO_LOW = 0.6  # focal: share of the weight for answers below the label


@dataclass
class Batch:
    """What a loss may use.

    y, other (B, K + aux): labels in their units, then those of `aux`, standardised, NaN where
    unknown. With mixup a window is `mix` (B,) of itself, the rest a partner with the label `other`.
    """

    model: object  # a Model
    raw: object  # (B, S) or (B, K + aux): the network's numbers
    y: object
    mix: object = None
    other: object = None
    positive: float = 1.0  # cross-entropy's weight of label 1; that of 0 is 1
    average: Callable | None = None  # a mean over this process's windows -> one over all processes'

    @property
    def mixed(self):
        """(B, K + aux): the labels of what the model sees."""
        return self.mixture(self.y, self.other)

    def mixture(self, own, partner):
        if self.mix is None:
            return own
        weight = self.mix[:, None]
        return weight * own + (1 - weight) * partner


def huber(error):
    from torch.nn import functional as F

    return F.smooth_l1_loss(error, error.new_zeros(()).expand_as(error), reduction="none")


def focal(error):
    size = 1 - (-error.detach().abs()).exp()
    low = (error.detach() < 0).to(error.dtype)
    side = 2 * (low * TOO_LOW + (1 - low) * (1 - TOO_LOW))
    return size**FOCUS * side * error.square()


def of_errors(pointwise: Callable) -> Callable:
    """The mean of pointwise(answer minus label), in standard deviations of the labels."""

    def loss_of(batch):
        model, mixed, k = batch.model, batch.mixed, batch.model.n_outputs
        total = pointwise((model.answer(batch.raw) - mixed[:, :k]) / model.scale).mean()
        if model.aux:
            known = ~mixed[:, k:].isnan()
            error = (batch.raw[:, k:] - mixed[:, k:]).where(known, 0.0)
            total = total + AUX * error.square().sum() / known.sum().clamp_min(1)
        return total

    return loss_of


def smoothed(moments, y):
    """(B, S): the distribution over moments that the time scores should give for each label.

    A label far outside the window falls on its nearest edge.
    """
    distance = (moments - y) / SMOOTH_S
    return (-0.5 * distance.square()).softmax(1)


def time(batch):
    model, raw, mixed = batch.model, batch.raw, batch.mixed
    expected = model.answer(raw)
    target = smoothed(model.moments, batch.y[:, :1])
    if batch.mix is not None:
        target = batch.mixture(target, smoothed(model.moments, batch.other[:, :1]))
    entropy = -(target * raw.log_softmax(1)).sum(1).mean()
    square = (expected - mixed).square().mean()
    mean = batch.average(square.detach()) if batch.average else square.detach()
    rms = mean.sqrt().clamp_min(1e-6)
    # the value and the gradient of sqrt(square), whoever holds the other windows
    return ENTROPY * entropy + square / (2 * rms) + rms / 2


def cross_entropy(batch):
    from torch.nn import functional as F

    k, weight = batch.model.n_outputs, batch.raw.new_tensor(batch.positive)
    raw, mixed = batch.raw[:, :k], batch.mixed[:, :k]
    return F.binary_cross_entropy_with_logits(raw, mixed, pos_weight=weight)


@dataclass(frozen=True)
class Loss:
    words: str
    of: Callable  # Batch -> a number
    offered: bool = True  # by --loss; else it belongs to a target


LOSSES = {
    "mse": Loss("squared error", of_errors(lambda error: error.square())),
    "huber": Loss(
        "squared error up to one deviation of the labels, then absolute", of_errors(huber)
    ),
    "mae": Loss("absolute error", of_errors(lambda error: error.abs())),
    "focal": Loss("squared error that weighs large errors and low answers more", of_errors(focal)),
    "time": Loss("cross-entropy of the time scores and RMSE of the expected time", time),
    "cross-entropy": Loss("hit or error, both classes weigh the same", cross_entropy, False),
}


def loss(kind: str, *parts, **more):
    """-> scalar. More arguments: those of Batch. Raises ValueError for an unknown loss."""
    if kind not in LOSSES:
        raise ValueError(f"there is no loss '{kind}'; there are {', '.join(LOSSES)}")
    return LOSSES[kind].of(Batch(*parts, **more))
