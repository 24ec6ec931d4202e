"""Steps: AdamW and SAM over it, the learning rate's course, a running average of the weights."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def adamw(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that does not decay biases and normalisations, whose best values are not near zero."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    weights = {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay}
    others = {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0}
    return torch.optim.AdamW([weights, others], lr=lr)


def add_l1(model: nn.Module, strength: float) -> None:
    """Add the gradient of strength * sum |w| over the weights that decay."""
    for p in model.parameters():
        if p.dim() > 1 and p.grad is not None:
            p.grad.add_(p.detach().sign(), alpha=strength)


class SAM:
    """Sharpness-aware minimisation: takes the gradient where the loss within `rho` is highest.

    gradients; sam.ascend(their norm)                    to that place
    gradients there, statistics frozen; sam.descend()    back; then the optimiser's step
    """

    def __init__(self, model: nn.Module, rho: float):
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.before = [p.detach().clone() for p in self.parameters]  # `descend` returns to them
        self.rho = rho

    @torch.no_grad()
    def ascend(self, norm: float) -> None:
        """norm: that of all gradients together."""
        for p, before in zip(self.parameters, self.before):
            before.copy_(p)
            if p.grad is not None:
                p.add_(p.grad, alpha=self.rho / (norm + 1e-12))

    @torch.no_grad()
    def descend(self) -> None:
        for p, before in zip(self.parameters, self.before):
            p.copy_(before)


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Within, batch norms normalise by their batch and remember nothing of it."""
    knows = lambda layer: hasattr(layer, "running_mean") and hasattr(layer, "momentum")
    layers = [layer for layer in model.modules() if knows(layer)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum


class Schedule:
    """The learning rate at each step, as a share of --lr. state: what `plateau` remembers.

    steps: of the whole run; warmup: those in which the rate rises from 0.
    """

    def __init__(self, kind: str, steps: int, warmup: int):
        self.kind, self.steps, self.warmup = kind, max(1, steps), max(0, min(warmup, steps - 1))
        self.state = {"factor": 1.0, "best": math.inf, "waited": 0}

    def factor(self, step: int) -> float:
        """step: from 0."""
        if self.kind == "onecycle":  # up for three tenths, down to a ten-thousandth
            top = 0.3 * self.steps
            if step < top:
                return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * step / top))
            down = math.cos(math.pi * (step - top) / max(1, self.steps - top))
            return 1e-4 + (1 - 1e-4) * 0.5 * (1 + down)
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.kind == "cosine":
            share = (step - self.warmup) / max(1, self.steps - self.warmup)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        return self.state["factor"]  # plateau; constant, where it stays 1

    def epoch_ended(self, value: float) -> None:
        """value: the validation metric, lower is better. After more than 5 epochs without a better
        one, `plateau` halves the rate."""
        if self.kind != "plateau":
            return
        if value < self.state["best"]:
            self.state |= {"best": value, "waited": 0}
        else:
            self.state["waited"] += 1
            if self.state["waited"] > 5:
                self.state |= {"factor": self.state["factor"] / 2, "waited": 0}


class Average:
    """An exponential moving average of weights and batch statistics: it is validated and kept.

    Its memory is short at first, to forget untrained weights: decay is at most (1 + n) / (10 + n)
    in step n. The caller counts `steps` once an update is done, because it may be repeated.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        n = self.steps + 1
        decay = min(self.decay, (1 + n) / (10 + n))
        for own, new in zip(self.model.state_dict().values(), model.state_dict().values()):
            new = new.detach().to(own.device)
            if own.is_floating_point():
                own.lerp_(new, 1 - decay)
            else:
                own.copy_(new)
