"""One step of training: gradients, SAM, AdamW, the averaged weights, on a device that may fail."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from eeg.machine import amp
from eeg.machine.recovery import Recovery, on_host
from eeg.models.model import Model
from eeg.train import losses, optim
from eeg.train.options import Options
from eeg.train.parallel import Ranks
from eeg.train.targets import Targets


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
        self.model = model.train()
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = optim.adamw(model, options.lr, options.weight_decay)
        self.sam = optim.SAM(model, options.rho) if options.optimizer == "sam" else None
        self.average = optim.Average(model, options.ema) if options.ema else None
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
        return on_host(self.validated.state_dict())

    def take(self, batch: dict, rate: float, asked: Callable) -> Taken:
        """Take one step at this learning rate. asked(): whether this process was asked to stop."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
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
            with optim.frozen_statistics(self.model):
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
            self.parameters, self._gradients_on_host(), len(batch["y"]), asked(), bad
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
        with amp.autocast(device, self.precision if device == self.home else "fp32"):
            raw = model.raw(batch["x"], batch.get("features"))
        average = (lambda square: self._agree(square, len(raw))) if self.ranks.world > 1 else None
        kind, positive = self.targets.loss, self.targets.positive
        members = len(raw) // len(batch["y"])  # each answers every window
        y, mix, other = (_repeated(batch.get(name), members) for name in ("y", "mix", "other"))
        value = losses.loss(kind, model, raw, y, mix, other, positive, average)
        (weight * value).backward()
        answers = model.answer(raw.detach()).unflatten(0, (members, -1)).mean(0)
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
            optim.add_l1(self.model, self.options.l1)
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


def _repeated(values, times):
    return None if values is None else values.repeat(times, *[1] * (values.dim() - 1))
