"""One step of training, whatever the device does: memory runs out, a driver fails, a card is lost.

    out of memory                    the same batch in 2, 4, 8 ... parts, their gradients summed
    another error of the device      this piece of work on the CPU, then back to the device
    three in a row, or no answer     the model and all that lies beside it on the CPU for good

A card that has crashed cannot be read any more. So after each piece of work all that it changed is
copied to the host (some MB), and a piece that fails starts again from that copy: nothing is lost,
wherever the device fails. Whatever touches the device goes through `gradients`, `update` or `read`.
A device that hangs inside a call hangs the process: nothing here ends it.
"""

import gc
import threading
from collections import Counter, namedtuple
from collections.abc import Callable
from typing import Any

import torch

from eeg.machine.amp import unscale
from eeg.machine.device import synchronize
from eeg.machine.faults import is_device_error, is_out_of_memory

ERRORS_IN_A_ROW = 3  # of one piece of work, after which the device is given up
CALM = 100  # batches without a shortage of memory, after which larger parts are tried again

Fault = namedtuple("Fault", "memory text")  # memory: it ran out; text: the error's first line


class Recovery:
    """Trains a model on a device that may fail.

        guard = Recovery(model, device, step, on_event, beside, moments)
        loss, outputs = guard.gradients(batch)
        guard.update("the optimiser's step", optimizer.step)
        weights = guard.read("a copy of the weights", lambda: copied(model))

    The model comes on the CPU and is moved to the device here, with all that lies beside it.
    step(model, batch, weight) -> (loss, outputs): forward, and backward of `weight * loss`, added
    to .grad, on the model's device; loss a float, outputs on the CPU, windows first. The loss is
    the mean over the windows given: parts of a batch weigh by their number of windows. A loss that
    is no mean, such as a root, becomes a mean over the parts, which is not quite the same; batch
    norm sees a part at a time.
    on_event(kind, text): "out of memory", "device error", "moved to cpu".
    beside(): further tensors that live where the model does and change as it learns, the same ones
    at each call (not copies by .detach() or state_dict()): they are moved in place.
    moments(): the optimiser's state. It may appear at the first step, and starts from zero.
    largest: windows that the CPU's memory holds at once, beyond which the system would kill the
    process; None for all.
    `home` is the device, `device` where the model is now; `away`: on the CPU instead of the device;
    `moved`: for good.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        device: str | torch.device,
        step: Callable,
        on_event: Callable,
        beside: Callable = tuple,
        moments: Callable = tuple,
        largest: int | None = None,
    ):
        self.model, self.step, self.on_event = model, step, on_event
        self.beside, self.moments, self.largest = beside, moments, largest
        self.alive = answers
        self.home, self.device = torch.device(device), torch.device("cpu")
        self.away, self.moved = True, False
        self.parts, self.parts_at_home, self.calm = 1, 1, 0
        self.errors: Counter = Counter()  # piece of work: errors in a row
        self.kept_gradients: list = []
        self.remember()
        self._return()

    # the three ways to the device

    def gradients(self, batch: dict, scale: float = 1.0) -> tuple[float, torch.Tensor]:
        """Put the gradient of a batch (CPU tensors, windows first) in .grad. -> (loss, outputs)

        scale: multiplies the loss and divides the gradients, for float16; unused on the CPU.
        """
        n = len(next(iter(batch.values())))
        if self.parts > 1 and self.calm >= CALM:
            self.parts, self.calm = self.parts // 2, 0
        self.kept_gradients = [None] * len(self.kept_gradients)  # those of the batch before
        self.generators = torch.get_rng_state(), device_generator(self.device)
        compute = lambda again: self._compute(batch, scale, again)
        answer = self._insist("this batch", compute, self._halvings(n))
        self.calm += 1
        return answer

    def update(self, what: str, work: Callable) -> Any:
        """Return work(), which changes tensors and nothing else, and draws no random numbers.

        Where the device fails, it starts again from the same tensors and gradients.
        """
        once_more = iter([f"{what} is tried once more"])
        return self._insist(what, lambda again: self._apply(work, again), once_more)

    def read(self, what: str, *works: Callable) -> Any:
        """Return works[0](), which changes nothing. The others do the same in less memory."""
        first, *others = works
        current = [first]

        def lighter():
            for work in others:
                current[0] = work
                yield f"{what} is tried with less memory"

        return self._insist(what, lambda again: current[0](), lighter())

    def restore(self, kept: dict) -> None:
        """Work for `update`: reset the tensors to what they were when self.kept was `kept`."""
        for tensor, host in kept.values():
            tensor.data.copy_(host)

    def remember(self) -> None:
        """Copy all that training changes to the host. Call it after changes outside `update`."""
        self.kept = self._copied(self._held())

    # how

    def _insist(self, what, work, lighter):
        """Call work(again) until it is done. lighter: ways to need less memory, in words."""
        answer, fault = outcome(work, False)
        while fault:
            way = next(lighter, None) if fault.memory else None
            if way:
                self.on_event("out of memory", f"{self.device}: {fault.text}: {way}")
            else:
                self._leave(what, fault)
            answer, fault = outcome(work, True)
        if not self.away:
            self.errors[what] = 0
        elif not self.moved:
            self._return()
        return answer

    def _halvings(self, n):
        while self.parts < n:
            self.parts, self.calm = min(2 * self.parts, n), 0
            yield f"{n} windows again, in {self.parts} parts"

    def _compute(self, batch, scale, again):
        if again:
            self._rewind()
            torch.set_rng_state(self.generators[0])
            if not self.away:
                set_device_generator(self.device, self.generators[1])
        scale = 1.0 if self.away else scale
        self.model.zero_grad(set_to_none=True)
        n = len(next(iter(batch.values())))
        parts = self.parts
        if self.largest and self.device.type == "cpu":
            parts = max(parts, -(-n // self.largest))
        loss, outputs = 0.0, []
        for values in zip(*(value.tensor_split(min(parts, n)) for value in batch.values())):
            share = len(values[0]) / n
            part_loss, part_outputs = self.step(self.model, dict(zip(batch, values)), share * scale)
            loss += share * part_loss
            outputs.append(part_outputs)
        unscale(self.model.parameters(), scale)
        # A late error of the device shows here.
        self.kept = self.kept | self._copied([*self.model.buffers()])
        return loss, torch.cat(outputs)

    def _apply(self, work, again):
        if again:
            self._rewind()
        answer = work()
        self.remember()
        return answer

    # where

    def _leave(self, what, fault):
        """Move to the CPU: for this piece of work if the device still answers, else for good."""
        if self.moved:
            raise RuntimeError(f"on the CPU, too: {fault.text}")
        if self.away:
            return self._give_up(f"it is not the device alone: {fault.text}")
        self.errors[what] += 1
        if self.errors[what] >= ERRORS_IN_A_ROW:
            return self._give_up(f"{self.errors[what]} errors in a row: {fault.text}")
        if not self.alive(self.device):
            return self._give_up(f"it does not answer any more: {fault.text}")
        kind = "out of memory" if fault.memory else "device error"
        self.on_event(kind, f"{fault.text}: {what} is computed on the CPU")
        self._to_host()

    def _give_up(self, why):
        self.on_event("moved to cpu", f"{self.home} is given up, {why}")
        self._to_host()
        self.moved = True

    def _return(self):
        _, fault = outcome(self._to_home)
        if fault:
            self._give_up(fault.text)
        else:
            self.device, self.away, self.parts = self.home, False, self.parts_at_home

    def _to_host(self):
        """Move everything to the CPU, in place, from the host's copy. The device is not read."""
        known = [(tensor, self._known(tensor).clone()) for tensor in self._held()]
        self.model.zero_grad(set_to_none=True)
        for tensor, host in known:
            tensor.data = host
        self._put_gradients()
        if not self.away:
            self.parts_at_home = self.parts
        self.device, self.away, self.parts = torch.device("cpu"), True, 1

    def _to_home(self):
        self.model.zero_grad(set_to_none=True)
        for tensor in self._held():
            if tensor.dim() or not self._is_moment(tensor):  # AdamW counts its steps on the CPU
                tensor.data = tensor.detach().to(self.home)
        self._put_gradients()
        synchronize(self.home)

    # what the host knows

    def _held(self):
        return [*self.model.parameters(), *self.model.buffers(), *self.beside(), *self.moments()]

    def _is_moment(self, tensor):
        return any(tensor is moment for moment in self.moments())

    def _copied(self, tensors):
        """Copy tensors to the host, as `kept` holds them, and gradients to `kept_gradients`."""
        copies = {id(tensor): (tensor, copied(tensor)) for tensor in tensors}
        gradients = [None if p.grad is None else copied(p.grad) for p in self.model.parameters()]
        synchronize(self.device)
        self.kept_gradients = gradients
        return copies

    @torch.no_grad()
    def _rewind(self):
        """Undo what work that was cut short has changed, from the host's copy."""
        self.model.zero_grad(set_to_none=True)
        free(self.device)
        for tensor in self._held():
            tensor.copy_(self._known(tensor))
        self._put_gradients()

    def _put_gradients(self):
        for p, gradient in zip(self.model.parameters(), self.kept_gradients):
            p.grad = None if gradient is None else gradient.to(p.device, copy=True)

    def _known(self, tensor):
        if id(tensor) in self.kept:
            return self.kept[id(tensor)][1]
        if self._is_moment(tensor):  # made by a step that failed
            return torch.zeros(tensor.shape, dtype=tensor.dtype)
        shape = tuple(tensor.shape)
        raise KeyError(f"unknown tensor {shape} on {tensor.device}: it is missing in `beside`")


@torch.no_grad()
def copied(tensor: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU, complete once its device is synchronised."""
    pinned = tensor.device.type == "cuda"
    host = torch.empty_like(tensor, device="cpu", pin_memory=pinned)
    return host.copy_(tensor, non_blocking=pinned)


def on_host(value: Any) -> Any:
    """A copy, on the CPU, of a tensor or of the dicts and lists that hold tensors."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: on_host(each) for key, each in value.items()}
    return type(value)(map(on_host, value)) if isinstance(value, (list, tuple)) else value


def outcome(work: Callable, *arguments) -> tuple[Any, Fault | None]:
    """Call work(*arguments). -> (its result, None), or (None, Fault) where the device failed.

    Other exceptions pass through. The device's is dropped: its traceback would hold tensors.
    """
    try:
        return work(*arguments), None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) and not is_device_error(error):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return None, Fault(is_out_of_memory(error), lines[0][:300])


def answers(device: torch.device, limit_s: float = 20) -> bool:
    """Whether a device still adds two numbers in time. After most errors a card does not."""
    found = []

    def ask():
        try:
            x = torch.ones(8, device=device).add_(1)
            synchronize(device)
            found.append(x.sum().item() == 16)
        except RuntimeError:  # whatever the driver says: it did not answer
            found.append(False)

    probe = threading.Thread(target=ask, name="device probe", daemon=True)
    probe.start()
    probe.join(limit_s)
    return found == [True]


def free(device: torch.device) -> None:
    """Give the memory of what is no longer used back to the device."""
    gc.collect()
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).empty_cache()


def device_generator(device: torch.device) -> torch.Tensor | None:
    """The state of a card's random numbers; None on the CPU, whose own is kept anyway."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else None


def set_device_generator(device: torch.device, state: torch.Tensor | None) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state)
