"""Mixed precision: which, measured on the model itself, and the loss scale that float16 needs."""

import copy
import json
import time
from contextlib import nullcontext
from pathlib import Path

import torch

from eeg.train.journal import write_json

TYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
WORTH = 1.1  # times faster than float32 that a precision must be to be chosen


def autocast(device, precision):
    """Operators that may run in this precision do, within."""
    dtype = TYPES[precision]
    return torch.autocast(torch.device(device).type, dtype) if dtype else nullcontext()  # older torch knows no autocast of Metal, not even a disabled one


def fastest(model, device, precisions, step, steps=6):
    """Of the precisions, fp32 first, the one whose training step is faster by WORTH, and all times: (name, {name: s a step}).

    step(model, precision) does one forward and backward; it is given a copy, so that nothing of the model changes.
    """
    ghost, seconds = copy.deepcopy(model).to(device), {name: [] for name in precisions}
    state = torch.get_rng_state()
    for i in range(steps):
        for name in precisions:  # in turn, so that a slow moment of the machine is everyone's
            begin = time.perf_counter()
            step(ghost, name)
            if i > 0:
                seconds[name].append(time.perf_counter() - begin)
    torch.set_rng_state(state)
    best = {name: min(times) for name, times in seconds.items()}
    quickest = min(best, key=best.get)
    return (quickest if best["fp32"] / best[quickest] >= WORTH else "fp32"), best


def remembered(path, key, measure):
    """measure(), or what it said the last time with this key: a measurement takes a second, and starting should take none."""
    try:
        known = json.loads(Path(path).read_text(encoding="utf-8"))
        if key in known:
            return known[key]
    except (OSError, ValueError, TypeError):  # no file, or not ours: it is written anew
        known = {}
    known = {**(known if isinstance(known, dict) else {}), key: measure()}
    try:
        write_json(path, known)
    except OSError:
        pass  # a cache that may only be read: the next run measures again
    return known[key]


def unscale(parameters, scale):
    """Divide the gradients of a loss that was multiplied by `scale`."""
    for p in parameters if scale != 1 else ():
        if p.grad is not None:
            p.grad.div_(scale)


class LossScale:
    """float16 gradients vanish below 6e-8: the loss is multiplied by `scale`, the gradients divided by it. It doubles after
    2,000 good steps and halves after one whose gradients overflowed. 1 and fixed for the other precisions. Its state is two numbers."""

    def __init__(self, precision):
        self.moves = precision == "fp16"
        self.scale, self.good = (2.0**14 if self.moves else 1.0), 0

    def update(self, finite):
        if not self.moves:
            return
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.scale = max(1.0, self.scale / 2)
        elif self.good == 2000:
            self.scale, self.good = min(2.0**24, self.scale * 2), 0
