"""What training minimises. B windows, K outputs, S moments.

A loss is told the model, its raw numbers, the labels y (B, K) in their own units and each window's share of its label: with
mixup a window is `mix` of itself and the rest of a partner, whose label is `other`. It returns one number, the mean over windows.
"""

import torch
from torch.nn import functional as F

LOSSES = {
    "mse": "squared error",
    "huber": "squared error up to one standard deviation of the labels, absolute error beyond",
    "mae": "absolute error",
    "focal": "squared error, weighed up where it is large and where the answer is too low",
    "time": "cross-entropy of the time scores with the label smoothed by 0.15 s, and RMSE of the expected time (models with a time head)",
    "cross-entropy": "of hit against error, both classes with the same weight (--target correct)",
}

SMOOTH = 0.15  # s: spread of the Gaussian that stands for a response's moment
ENTROPY = 0.3  # weight of the cross-entropy beside the RMSE, in s
AUX = 0.3  # weight of what is learned beside the answer
FOCUS, TOO_LOW = (
    1.0,
    0.6,
)  # focal: exponent of the weight by size, share of the weight that answers below the label get


def pointwise(kind, error):
    """Loss of each error, in standard deviations of the labels (answer minus label). Same shape."""
    if kind == "mse":
        return error.square()
    if kind == "huber":
        return F.smooth_l1_loss(error, torch.zeros_like(error), reduction="none")
    if kind == "mae":
        return error.abs()
    if kind == "focal":
        size = 1 - torch.exp(-error.detach().abs())
        low = (error.detach() < 0).to(error.dtype)
        side = 2 * (low * TOO_LOW + (1 - low) * (1 - TOO_LOW))
        return size**FOCUS * side * error.square()
    raise ValueError(f"there is no loss '{kind}'; there are {', '.join(LOSSES)}")


def smoothed(moments, y):
    """(B, S): for each label the distribution over moments that the time scores should give, its sum 1."""
    distance = (moments - y) / SMOOTH
    return torch.softmax(
        -0.5 * distance.square(), 1
    )  # a label far outside the window then falls on its nearest edge, and not on nothing


def loss(kind, model, raw, y, mix=None, other=None, positive=1.0, average=None):
    """-> scalar. y, other (B, K + aux): labels, then those of `aux`, standardised, NaN where unknown. mix (B,): share of y, the rest is of `other`.

    positive: cross-entropy's weight of label 1 (that of 0 is 1). average: makes a mean over this process's windows one over all processes'.
    """
    if mix is not None:
        weight = mix[:, None]
        mixed = weight * y + (1 - weight) * other
    else:
        mixed = y
    k = model.n_outputs
    if kind == "time":
        expected = model.answer(raw)
        target = smoothed(model.moments, y[:, :1])
        if mix is not None:
            target = weight * target + (1 - weight) * smoothed(model.moments, other[:, :1])
        entropy = -(target * raw.log_softmax(1)).sum(1).mean()
        square = (expected - mixed).square().mean()
        rms = (average(square.detach()) if average else square.detach()).sqrt().clamp_min(1e-6)
        return (
            ENTROPY * entropy + square / (2 * rms) + rms / 2
        )  # the value and gradient of sqrt(square), whoever holds the other windows
    if kind == "cross-entropy":
        return F.binary_cross_entropy_with_logits(
            raw[:, :k], mixed[:, :k], pos_weight=raw.new_tensor(positive)
        )
    total = pointwise(kind, (model.answer(raw) - mixed[:, :k]) / model.scale).mean()
    if model.aux:
        known = ~mixed[:, k:].isnan()
        error = torch.where(known, raw[:, k:] - mixed[:, k:], 0.0)
        total = total + AUX * error.square().sum() / known.sum().clamp_min(1)
    return total
