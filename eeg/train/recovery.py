"""One step of training, whatever the device does: memory that runs out, a driver that fails, a card
that is gone.

    out of memory                    the same batch in 2, 4, 8 ... parts, their gradients summed
    another error of the device      this piece of work on the CPU, then back to the device
    three in a row, or no answer     the model and all that lies beside it on the CPU for good

A card that has crashed cannot be read any more. So after each piece of work all that it changed is
copied to the host (some MB), and a piece that fails starts again from that copy: nothing is lost,
wherever the device fails. Whatever touches the device goes through `gradients`, `update` or `read`.
A device that hangs inside a call hangs the process: nothing here ends it.
"""

import gc
import queue
import threading
from collections import Counter, namedtuple

import torch

from eeg.machine.amp import unscale
from eeg.machine.device import synchronize
from eeg.machine.faults import is_device_error, is_out_of_memory

ERRORS_IN_A_ROW = 3  # of one piece of work, after which the device is given up
CALM = 100  # batches without a shortage of memory, after which larger parts are tried again

Fault = namedtuple("Fault", "memory text")  # memory: it ran out; text: the first line of the error


class Recovery:
    """Trains a model on a device that may fail.

        guard = Recovery(model, device, on_event, step, beside, moments)
        loss, outputs = guard.gradients(batch)
        guard.update("the optimiser's step", optimizer.step)
        weights = guard.read("a copy of the weights", lambda: copied(model))

    The model is given on the CPU; it is moved to the device here, with all that lies beside it.

    step(model, batch, weight) -> (loss, outputs): forward, and backward of `weight * loss`, added
    to .grad, on whatever device the model lies on; loss a float, outputs on the CPU, the batch in
    their first dimension. The loss is the mean over the windows given: parts of a batch weigh by
    their number of windows. A loss that is no mean, as the root of one, is then a mean over the
    parts, which is not quite the same; batch norm sees a part at a time and updates its statistics
    with each.
    on_event(kind, text): "out of memory", "device error", "moved to cpu".
    beside(): further tensors that live where the model does and change as it learns, the same ones
    at each call. The very tensors, not what .detach() or state_dict() make of them: they,
    parameters and buffers are moved in place.
    moments(): what an optimiser keeps. It may appear as the optimiser first steps, and starts from
    zero.
    alive(device): whether it still answers.

    largest: windows that the CPU's memory holds at once, None for all. Beyond it no error would
    come, but the system's killer.

    `home` is the device, `device` where the model is now; `away`: on the CPU in the device's stead;
    `moved`: for good.
    """

    def __init__(
        self, model, device, on_event, step, beside=tuple, moments=tuple, alive=None, largest=None
    ):
        self.model, self.on_event, self.step = model, on_event, step
        self.beside, self.moments = beside, moments
        self.alive, self.largest = alive or answers, largest
        self.home, self.device = torch.device(device), torch.device("cpu")
        self.away, self.moved = True, False
        self.parts, self.parts_at_home, self.calm = 1, 1, 0
        self.errors = Counter()  # piece of work: errors in a row
        self.remember()
        self._return()

    # the three ways to the device

    def gradients(self, batch, scale=1.0):
        """The gradient of one batch (a dict of CPU tensors, windows first) in .grad. -> (loss,
        outputs)

        scale: of float16 training: the loss is multiplied by it, the gradients are divided again.
        The CPU needs none.
        """
        n = len(next(iter(batch.values())))
        if self.parts > 1 and self.calm >= CALM:
            self.parts, self.calm = self.parts // 2, 0
        self.kept_gradients = [None] * len(self.kept_gradients)  # those of the batch before
        self.generators = torch.get_rng_state(), device_generator(self.device)
        answer = self._insist(
            "this batch", lambda again: self._compute(batch, scale, again), self._halvings(n)
        )
        self.calm += 1
        return answer

    def update(self, what, work):
        """work(), which changes tensors and nothing else: where the device fails, it starts again
        from the same tensors. -> its result

        It finds the gradients that `gradients` left, and draws no random numbers. what: its name in
        events.
        """
        once_more = iter([f"{what} is tried once more"])
        return self._insist(what, lambda again: self._apply(work, again), once_more)

    def read(self, what, *works):
        """work(), which changes nothing. -> its result. works: the same in less and less memory."""
        works, current = list(works[1:]), [works[0]]

        def lighter():
            for work in works:
                current[0] = work
                yield f"{what} is tried with less memory"

        return self._insist(what, lambda again: current[0](), lighter())

    def restore(self, kept):
        """Work for `update`: the tensors as they were when self.kept was `kept`."""
        for tensor, host in kept.values():
            tensor.data.copy_(host)

    def remember(self):
        """Copy all that training changes to the host. To be called where other hands than `update`
        have changed it."""
        self.kept = self._copied(self._held())

    # how

    def _insist(self, what, work, lighter):
        """work(again), until it is done. lighter: an iterator that makes it need less memory, and
        says how."""
        again = False
        while True:
            answer, fault = outcome(work, again)
            if not fault:
                break
            again = True
            way = next(lighter, None) if fault.memory else None
            if way:
                self.on_event("out of memory", f"{self.device}: {fault.text}: {way}")
            else:
                self._leave(what, fault)
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
        """To the CPU with everything: for this piece of work where the device still answers, else
        for good."""
        if self.moved:
            raise RuntimeError(f"on the CPU, too: {fault.text}")
        if self.away:
            return self._give_up(f"it is not the device alone: {fault.text}")
        self.errors[what] += 1
        if self.errors[what] >= ERRORS_IN_A_ROW:
            return self._give_up(f"{self.errors[what]} errors in a row: {fault.text}")
        if not self.alive(self.device):
            return self._give_up(f"it does not answer any more: {fault.text}")
        self.on_event(
            "out of memory" if fault.memory else "device error",
            f"{fault.text}: {what} is computed on the CPU",
        )
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
        """Everything to the CPU, in place, as the host knows it. Nothing is read from the
        device."""
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
        """Copies of these tensors on the host, as `kept` holds them. Those of the gradients go to
        `kept_gradients`."""
        copies = {id(tensor): (tensor, copied(tensor)) for tensor in tensors}
        gradients = [None if p.grad is None else copied(p.grad) for p in self.model.parameters()]
        synchronize(self.device)
        self.kept_gradients = gradients
        return copies

    @torch.no_grad()
    def _rewind(self):
        """What the host knows, to where the model is now: work that was cut short has changed some
        of it."""
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
        raise KeyError(
            f"unknown tensor {tuple(tensor.shape)} on {tensor.device}: it is missing in `beside`"
        )


@torch.no_grad()
def copied(tensor):
    """A copy on the CPU, complete once its device is synchronised."""
    pinned = tensor.device.type == "cuda"
    return torch.empty_like(tensor, device="cpu", pin_memory=pinned).copy_(
        tensor, non_blocking=pinned
    )


def on_host(value):
    """A copy, on the CPU, of a tensor or of the dicts and lists that hold tensors."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: on_host(each) for key, each in value.items()}
    return type(value)(map(on_host, value)) if isinstance(value, (list, tuple)) else value


def outcome(work, *arguments):
    """work(*arguments) -> (its result, None), or (None, Fault) where the device failed; other
    exceptions pass through.

    The exception itself is dropped here: its traceback would keep the tensors of the failed pass in
    the device's memory.
    """
    try:
        return work(*arguments), None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) and not is_device_error(error):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return None, Fault(is_out_of_memory(error), lines[0][:300])


def answers(device, limit=20):
    """Whether a device still adds two numbers within `limit` seconds. After most errors of a card
    nothing in the process can use it again."""
    answer = queue.SimpleQueue()

    def ask():
        try:
            x = torch.ones(8, device=device).add_(1)
            synchronize(device)
            answer.put(x.sum().item() == 16)
        except RuntimeError:  # whatever the driver says: it did not answer
            answer.put(False)

    threading.Thread(target=ask, name="device probe", daemon=True).start()
    try:
        return answer.get(timeout=limit)
    except queue.Empty:
        return False


def free(device):
    """Give the memory of what is no longer used back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def device_generator(device):
    """The state of a card's random numbers; None on the CPU, whose own is kept anyway."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else None


def set_device_generator(device, state):
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state)
