"""Steps: gradients, AdamW and SAM over it, on a device that may fail; the learning rate's course, a
running average of the weights.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from eeg.machine import amp
from eeg.machine.recovery import Recovery, on_host
from eeg.models.model import Model
from eeg.runs.parallel import Ranks
from eeg.train.options import Options
from eeg.train.targets import Targets
from eeg.transfer import begin as transfer
from eeg.transfer import coral


class Place(NamedTuple):
    """Where and how a run computes."""

    device: str = "cpu"  # or "cuda:0"
    precision: str = "fp32"  # one of eeg.machine.amp
    part: int | None = None  # windows that the CPU's memory holds at once, None for all


class Taken(NamedTuple):
    """What became of a batch."""

    done: bool  # False where a gradient is not finite: then nothing has changed
    loss: float
    answers: torch.Tensor  # (B, K), on the CPU
    stopping: bool  # whether any process was asked to stop


class Stepper:
    """A model, and all that changes as it learns. What touches the device goes through `guard`."""

    def __init__(
        self,
        options: Options,
        model: Model,
        targets: Targets,
        place: Place,
        ranks: Ranks,
        on_event: Callable,
    ):
        self.options, self.targets, self.ranks = options, targets, ranks
        self.precision, self.home = place.precision, torch.device(place.device)
        self.model = model
        transfer.train_mode(model)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        factors = transfer.decays(model, options.layer_decay) if options.init else None
        self.optimizer = adamw(model, options.lr, options.weight_decay, factors)
        self.sam = SAM(model, options.rho) if options.optimizer == "sam" else None
        self.average = Average(model, options.ema) if options.ema else None
        self.scale = amp.LossScale(place.precision)
        self.square = None  # what the time loss of this batch is divided by, once it is known
        step, beside, moments = self._forward_backward, self._beside, self._moments
        self.guard = Recovery(model, self.home, step, on_event, beside, moments, place.part)

    @property
    def validated(self) -> Model:
        """The averaged weights where there are any."""
        return self.average.model if self.average else self.model

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy, on the CPU, of what is validated."""
        return self.guard.read("the weights", self._weights)

    def _weights(self):
        return on_host(transfer.plain_state(self.validated))

    def take(self, batch: dict, rate: float, asked: Callable) -> Taken:
        """Take one step at this learning rate. asked(): whether this process was asked to stop."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        taken = self._take(batch, asked)
        if taken.done and self.average:
            self.average.steps += 1
        self.scale.update(taken.done)
        return taken

    def _take(self, batch, asked):
        before = self.guard.kept
        loss, answers, mean, good, stopping = self._gradients(batch, asked)
        last = loss
        if good and self.sam:
            good = self.guard.update("SAM's ascent", lambda: self._climb(mean))
        if good and self.sam:
            with frozen_statistics(self.model):
                last, _, mean, good, stopping = self._gradients(batch, asked)
        good = good and self.guard.update("the optimiser's step", lambda: self._move(mean))
        if not good:  # a window that overflows is also in the batch norms' statistics
            self.guard.update("the way back", lambda: self.guard.restore(before))
        return Taken(good, loss if good else last, answers, stopping)

    def _gradients(self, batch, asked):
        """Put the gradient of this process's windows in .grad.

        -> (loss, answers, the mean gradient of all processes or None if there is one process,
        whether all losses are finite, whether any process was asked to stop)
        """
        self.square = None
        loss, answers = self.guard.gradients(batch, self.scale.scale)
        bad = not math.isfinite(loss)
        mean, (stopping, bad) = self.ranks.sum_gradients(
            self.parameters, self._gradients_on_host(), len(batch["x"]), asked(), bad
        )
        return loss, answers, mean, not bad, stopping

    def _gradients_on_host(self):
        """Copies of the gradients, in the order of self.parameters."""
        known = dict(zip(map(id, self.model.parameters()), self.guard.kept_gradients))
        return [known[id(p)] for p in self.parameters]

    # work for the guard: it may be done twice

    def _forward_backward(self, model, batch, weight):
        """Forward, and backward of weight * loss into .grad. -> (loss, answers)"""
        device = next(model.parameters()).device
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        watched, precision = coral.watched(model, "domain" in batch), self.precision
        with watched as hidden, amp.autocast(device, precision if device == self.home else "fp32"):
            raw = self.targets.raw(model, batch)
        average = (lambda square: self._agree(square, len(raw))) if self.ranks.world > 1 else None
        value, answers = self.targets.judge(model, raw, batch, average)
        if hidden:
            value = value + self.options.coral * coral.penalty(hidden, batch["domain"])
        (weight * value).backward()
        return value.item(), answers.cpu()

    def _agree(self, square, windows):
        """The mean square over all processes, exchanged once a batch: a process that computes a
        batch twice must not ask the others twice."""
        if self.square is None:
            self.square = self.ranks.average(square, windows)
        return self.square.to(square.device)

    def _norm(self, mean, clip):
        """Cut the gradient to the norm `clip`. -> its norm before. mean: the gradient of all
        processes, None where .grad is that."""
        for p, gradient in zip(self.parameters, mean or ()):
            p.grad = gradient.to(p.device, copy=True)
        if self.options.l1:
            add_l1(self.model, self.options.l1)
        return torch.nn.utils.clip_grad_norm_(self.parameters, clip).item()

    def _climb(self, mean):
        """Take SAM's ascent, unless the gradient's norm is not finite. -> whether it is"""
        norm = self._norm(mean, math.inf)
        if good := math.isfinite(norm):
            self.sam.ascend(norm)
        return good

    def _move(self, mean):
        """Step down the gradient, from where SAM began, unless its norm is not finite. -> whether
        it is"""
        norm = self._norm(mean, self.options.clip or math.inf)
        if not math.isfinite(norm):
            return False
        if self.sam:
            self.sam.descend()
        self.optimizer.step()
        if self.average:
            self.average.update(self.model)
        return True

    def _beside(self):
        """What else changes on the device: the weights before SAM's ascent, the averaged ones."""
        held = [*self.sam.before] if self.sam else []
        if self.average:
            held += [*self.average.model.parameters(), *self.average.model.buffers()]
        return held

    def _moments(self):
        slots = (value for state in self.optimizer.state.values() for value in state.values())
        return [value for value in slots if isinstance(value, torch.Tensor)]

    def share_buffers(self) -> None:
        """Give every process the main one's buffers (the statistics of batch norms)."""
        if self.ranks.world == 1:
            return
        buffers = [*self.model.buffers(), *(self.average.model.buffers() if self.average else ())]
        shared = self.ranks.broadcast(self.guard.read("the statistics", lambda: on_host(buffers)))

        def put():
            for buffer, value in zip(buffers, shared):
                buffer.copy_(value)

        self.guard.update("the statistics", put)

    # what a checkpoint holds

    def state(self) -> dict:
        """The very tensors: `on_host` copies them."""
        own, steps = self.average, self.average and self.average.steps
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": own and {"steps": steps, "model": own.model.state_dict()},
            "scale": [self.scale.scale, self.scale.good] if self.scale.moves else None,
        }

    def restore(self, state: dict) -> None:
        self.guard.update("the checkpoint", lambda: self._load(state))
        if self.average:
            self.average.steps = state["average"]["steps"]
        if self.scale.moves and state["scale"]:  # it may resume in another precision
            self.scale.scale, self.scale.good = state["scale"]

    def _load(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.model.load_state_dict(state["average"]["model"])


# --------------------------------------------------------------------- what a step is made of


def adamw(
    model: nn.Module, lr: float, weight_decay: float, factors: dict[str, float] | None = None
) -> torch.optim.AdamW:
    """AdamW that does not decay biases and normalisations, whose best values are not near zero.

    factors: {name of a parameter: what its learning rate is multiplied by}, as each group keeps it.
    """
    groups: dict[float, list[dict]] = {}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        factor = factors[name] if factors else 1.0
        if factor not in groups:
            weights = {"params": [], "weight_decay": weight_decay, "factor": factor}
            groups[factor] = [weights, {"params": [], "weight_decay": 0.0, "factor": factor}]
        groups[factor][p.dim() <= 1]["params"].append(p)
    found = [group for factor in sorted(groups, reverse=True) for group in groups[factor]]
    return torch.optim.AdamW(found, lr=lr)


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
