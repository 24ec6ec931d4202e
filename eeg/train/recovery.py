"""The gradient of one batch, whatever the device does: memory that runs out, a driver that fails, a card that is gone.

    out of memory                        the same batch in 2, 4, 8 ... parts, their gradients added up
    another error of the device          this batch on a CPU copy of the model, then back to the device
    three in a row, or no answer at all  model and all that lies beside it on the CPU for good

A card that has crashed cannot be read any more. So before each batch the model and what the optimizer keeps are copied to the
host (some MB), and what follows starts from that copy. A device that hangs inside a call hangs the process: nothing here ends it.
"""

import copy
import gc
import queue
import threading
from collections import namedtuple

import torch
from torch import nn

from eeg.train.device import synchronize

ERRORS_IN_A_ROW = 3  # then the device is given up
CALM = 100  # batches without a shortage of memory, after which larger parts are tried again

Fault = namedtuple("Fault", "memory text")  # memory: it ran out; text: the first line of the error


class Recovery:
    """Computes gradients of a model on a device that may fail.

        guard = Recovery(model, device, on_event, step, beside)
        loss, outputs = guard.gradients(batch)

    step(model, batch, weight) -> (loss, outputs): forward, and backward of `weight * loss`, added to .grad, on whatever device the
    model given lies on (not always this one); loss a float, outputs on the CPU, the batch in their first dimension. The loss is the mean over
    the windows given: parts of a batch weigh by their number of windows. A loss that is no mean, as the root of one, is then a
    mean over the parts, which is not quite the same; batch norm sees a part at a time and updates its running statistics with each.
    on_event(kind, text): "out of memory", "device error", "moved to cpu".
    beside(): further tensors that live on the device and change as it learns: the optimizer's, averaged weights. The very
    tensors, not what .detach() or state_dict() make of them: on "moved to cpu" they, parameters and buffers are moved in place.
    `device` is where the model is now; `moved`: for good.
    alive(device): whether it still answers.
    """

    def __init__(self, model, device, on_event, step, beside=tuple, alive=None):
        self.model, self.device, self.on_event, self.step, self.beside = model, torch.device(device), on_event, step, beside
        self.alive = alive or answers
        self.parts, self.calm, self.errors, self.moved = 1, 0, 0, False
        self._remember()

    def gradients(self, batch, scale=1.0):
        """The gradient of one batch (a dict of CPU tensors, windows first) in .grad, times `scale`. -> (loss, outputs), neither scaled.

        scale: of float16 training. Once moved to the CPU it is not used, from that very call on.
        """
        n = len(next(iter(batch.values())))
        if self.parts > 1 and self.calm >= CALM:
            self.parts, self.calm = self.parts // 2, 0
        rewind, stale = False, ""
        _, fault = outcome(self._remember)
        if fault:
            stale = ", from the state before the last update"  # which the device has lost
        while not fault:
            answer, fault = outcome(self._compute, self.model, batch, self.parts, scale, rewind)
            if not fault:
                self.calm, self.errors = self.calm + 1, 0
                return answer
            if fault.memory and self.parts < n:
                self.parts, self.calm, rewind = min(2 * self.parts, n), 0, True
                self.on_event("out of memory", f"{n} windows on {self.device}, again in {self.parts} parts: {fault.text}")
                fault = None
        if self.moved:
            raise RuntimeError(f"on the CPU, too: {fault.text}")
        self.errors += 1
        if self.errors < ERRORS_IN_A_ROW and self.alive(self.device):
            self.on_event("device error", f"{fault.text}: this batch was computed on the CPU{stale}")
            answer, fault = outcome(self._detour, batch, scale)
            if not fault:
                return answer
        why = f"{self.errors} errors in a row" if self.errors >= ERRORS_IN_A_ROW else "it does not answer any more"
        self.give_up(f"{why}{stale}: {fault.text}")
        return self._compute(self.model, batch, 1, 1.0)

    def _held(self):
        return [*self.model.parameters(), *self.model.buffers(), *self.beside()]

    def _remember(self):
        """Copy all that changes to the host. The copy before is kept until this one is complete."""
        held, pinned = self._held(), self.device.type == "cuda"
        with torch.no_grad():
            copies = [torch.empty_like(tensor, device="cpu", pin_memory=pinned).copy_(tensor, non_blocking=pinned) for tensor in held]
        synchronize(self.device)
        self.kept = {id(tensor): (tensor, host) for tensor, host in zip(held, copies)}
        self.generator, self.device_generator = torch.get_rng_state(), device_generator(self.device)

    def rewind(self):
        """The state from before the batch, on the device: a pass cut short has updated running statistics and drawn random numbers."""
        self.model.zero_grad(set_to_none=True)
        free(self.device)
        with torch.no_grad():
            for tensor, host in self.kept.values():
                tensor.copy_(host)
        torch.set_rng_state(self.generator)
        set_device_generator(self.device, self.device_generator)

    def _compute(self, model, batch, parts, scale, rewind=False):
        if rewind:
            self.rewind()
        if self.moved:
            scale = 1.0
        model.zero_grad(set_to_none=True)
        n = len(next(iter(batch.values())))
        loss, outputs = 0.0, []
        for values in zip(*(value.tensor_split(min(parts, n)) for value in batch.values())):
            share = len(values[0]) / n
            part_loss, part_outputs = self.step(model, dict(zip(batch, values)), share * scale)
            loss += share * part_loss
            outputs.append(part_outputs)
        synchronize(next(model.parameters()).device)  # so that a late error is this batch's
        return loss, torch.cat(outputs)

    def _detour(self, batch, scale):
        """The batch on a CPU copy of the model, then state and gradient back to the device."""
        torch.set_rng_state(self.generator)
        hosts = {key: host.clone() for key, (_, host) in self.kept.items()}
        for p in self.model.parameters():
            hosts[id(p)] = nn.Parameter(hosts[id(p)], p.requires_grad)
        twin = copy.deepcopy(self.model, hosts)  # takes these for its tensors, so that nothing is read from the device
        answer = self._compute(twin, batch, 1, scale)
        drawn = torch.get_rng_state()
        self.rewind()
        torch.set_rng_state(drawn)
        with torch.no_grad():
            for there, here in zip(self.model.buffers(), twin.buffers()):
                there.copy_(here)
            for there, here in zip(self.model.parameters(), twin.parameters()):
                there.grad = None if here.grad is None else here.grad.to(there.device)
        synchronize(self.device)
        return answer

    def give_up(self, why):
        """Everything to the CPU, in place, as it was before the last batch: the optimizer goes on with the same parameters."""
        self.on_event("moved to cpu", f"{self.device} is given up, {why}")
        self.model.zero_grad(set_to_none=True)
        for tensor in self._held():
            _, host = self.kept.get(id(tensor), (tensor, torch.zeros(tensor.shape, dtype=tensor.dtype)))  # an optimizer's state begins with zeros
            tensor.data = host.clone()
        torch.set_rng_state(self.generator)
        self.device, self.moved = torch.device("cpu"), True
        self._remember()


def outcome(work, *arguments):
    """work(*arguments) -> (its result, None), or (None, Fault) where the device failed; other exceptions pass through.

    The exception itself is dropped here: its traceback would keep the tensors of the failed pass in the device's memory.
    """
    try:
        return work(*arguments), None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) and not is_device_error(error):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return None, Fault(is_out_of_memory(error), lines[0][:300])


MEMORY_WORDS = ("out of memory", "outofmemory", "can't allocate memory", "not enough memory", "status_alloc_failed")
DEVICE_WORDS = (
    *("cuda error", "cudnn error", "cudnn_status", "cublas", "cusolver", "device-side assert", "accelerator error", "driver shutting down"),
    *("hip error", "miopen", "hipblas", "rocblas", "rocsolver", "hsa_status", "mps backend", "metal"),
)


def is_out_of_memory(error):
    """Whether an exception says that memory ran out, on a card or on the machine."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in MEMORY_WORDS)


def is_device_error(error):
    """Whether an exception comes from a card or its driver (out of memory aside), not from the program."""
    if is_out_of_memory(error) or not isinstance(error, RuntimeError):
        return False
    kind = getattr(torch, "AcceleratorError", None)  # torch 2.8
    return (kind is not None and isinstance(error, kind)) or any(words in str(error).lower() for words in DEVICE_WORDS)


def answers(device, limit=20):
    """Whether a device still adds two numbers within `limit` seconds. After most errors of a card nothing in the process can use it again."""
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
