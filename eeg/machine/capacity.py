"""How many windows of a batch the CPU's memory holds at once.

A card raises an error where memory is short, but Linux kills the process. So the need is estimated
beforehand from what a forward pass on a few windows keeps for the backward pass. It is counted, not
measured: the same model and room always give the same parts, on which results depend.
"""

import copy

import torch
from torch.autograd.graph import saved_tensors_hooks

from eeg import UserError, cli
from eeg.models.model import Model

# A step takes at most so many times what is kept; 1.4 to 1.9 times in this project's models, with
# temporaries and what malloc leaves unused.
PEAK = 2.0
COPIES = 10  # of the weights: gradient, two moments, average, SAM's, and those of the recovery
VALIDATED = 128  # windows that are validated at once
INFERENCE = 0.25  # of what a window takes in training, at most
FEW = 8  # windows; computing fewer at once leaves batch norm nothing to average over


def largest_part(model: Model, batch_size: int, held: int, room: float) -> tuple[int, float]:
    """How many windows of a batch to compute at once: all, or as many as fit into `room` bytes.
    -> (windows, bytes that a step on the whole batch takes)

    held: bytes that a window takes while its batch waits or is computed. Raises UserError, with the
    batch size that would fit, where not even FEW windows fit, or validation does not.
    """
    fixed, kept = kept_bytes(model)
    fixed, each = PEAK * fixed + COPIES * sum(p.nbytes for p in model.parameters()), PEAK * kept
    validating = fixed + VALIDATED * (held + INFERENCE * each)
    whole = fixed + batch_size * (held + each)
    if max(whole, validating) <= room:
        return batch_size, whole
    few = min(FEW, batch_size)
    part = int((room - fixed - batch_size * held) / each)
    if part >= few and validating <= room:
        return part, whole
    least = max(validating, fixed + batch_size * held + few * each)
    size = int((room - fixed - few * each) / held)
    help = "free some, raise --max-memory, or train a smaller model"
    if size >= few and validating <= room:
        help = f"use --batch-size {size}"
    what = f"training on batches of {cli.counted(batch_size, 'window')}"
    need = f"at least {least / 1e6:,.0f} MB of memory"
    free = f"{max(0, room) / 1e6:,.0f} MB are free to take"
    raise UserError(f"{what} takes {need}, {free}; {help}")


def kept_bytes(model: Model) -> tuple[float, float]:
    """What a forward pass keeps for the backward pass, on the CPU in float32: (bytes whatever the
    batch, bytes a window)."""
    few, more = (_kept(model, n) for n in (2, 6))
    each = (more - few) / 4
    return max(0.0, few - 2 * each), each


def _kept(model, n):
    sizes, ghost = {}, copy.deepcopy(model).train()

    def keep(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    features = torch.zeros(n, len(model.median)) if model.features == "file" else None
    with torch.random.fork_rng(devices=[]):
        x = torch.randn(n, model.settings["n_chans"], model.settings["n_times"])
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            raw = ghost.raw(x, features)  # alive while it is counted, and with it what it keeps
    del raw
    tensors = *ghost.parameters(), *ghost.buffers(), x
    own = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    return sum(size for place, size in sizes.items() if place not in own)
