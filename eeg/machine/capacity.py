"""How many windows of a batch the CPU's memory holds at once.

On a card an error says that memory is short; Linux kills the process instead.

So it is reckoned beforehand: what a forward pass keeps for the backward pass is counted on a few
windows, and with it what else a step takes. Counted, not measured: the same model and the same room
always give the same parts, on which results depend.
"""

import copy

import torch
from torch.autograd.graph import saved_tensors_hooks

from eeg import UserError, cli

# times what is kept that a step takes at most, with what passes and what malloc leaves unused: 1.4
# to 1.9 in this project's models
PEAK = 2.0
COPIES = 10  # of the weights: gradient, two moments, average, SAM's, and those of the recovery
VALIDATED = 128  # windows that are validated at once
INFERENCE = 0.25  # of what a window takes in training, at most
FEW = 8  # windows; computing fewer at once leaves batch norm nothing to average over


def largest_part(model, batch_size, held, room):
    """How many windows of a batch to compute at once: all of them, or as many as fit into `room`
    bytes. -> (windows, bytes that a step on the whole batch takes)

    held: bytes that a window takes while its batch waits or is computed. Raises UserError, with the
    batch size that would fit, where not even a few do, or validation does not.
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
    help = (
        f"use --batch-size {size}"
        if size >= few and validating <= room
        else "free some, raise --max-memory, or train a smaller model"
    )
    what = f"training on batches of {cli.counted(batch_size, 'window')}"
    raise UserError(
        f"{what} takes at least {least / 1e6:,.0f} MB of memory, "
        f"{max(0, room) / 1e6:,.0f} MB are free to take; {help}"
    )


def kept_bytes(model):
    """What a forward pass of a Model, on the CPU, keeps for its backward pass in float32: (bytes
    whatever the batch, bytes a window).
    """
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
    own = {
        tensor.untyped_storage().data_ptr() for tensor in (*ghost.parameters(), *ghost.buffers(), x)
    }
    del raw
    return sum(size for place, size in sizes.items() if place not in own)
