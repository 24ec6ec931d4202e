"""Mixed precision: which, measured on the model itself, and the loss scale that float16 needs."""

import copy
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch

from eeg.files import write_json
from eeg.machine.device import synchronize
from eeg.machine.load import Load, is_busy

TYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
WORTH = 1.1  # times faster than float32 that a precision must be to be chosen


def autocast(device, precision):
    """Operators that may run in this precision do, within."""
    dtype = TYPES[precision]
    # older torch knows no autocast of Metal, not even a disabled one
    return torch.autocast(torch.device(device).type, dtype) if dtype else nullcontext()


def fastest(model, device, precisions, step, steps=6):
    """Of the precisions, fp32 first, the one whose training step is faster by WORTH, and all times:
    (name, {name: s a step}).

    step(model, precision) does one forward and backward; it is given a copy, so that nothing of the
    model changes.
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


def choose(model, device, precisions, windows, path, key, busy=0.0, cores=1):
    """The precision to train a Model in, measured on a batch of `windows`, or remembered in `path`
    under `key`. -> (its name, why in words, or "")

    busy: of the CPU's `cores`, those that other programs keep at work. Where they would show in the
    measurement it is fp32, and nothing is remembered.
    """
    cpu = torch.device(device).type == "cpu"
    others = " and ".join(name for name in precisions if name != "fp32")
    key = json.dumps([key, torch.__version__, model.settings])
    known = read(path)
    if known.get(key) in precisions:
        return known[key], ""
    if not (cpu and is_busy(busy, cores)):
        print(
            f"measuring {' and '.join(precisions)} on this model, once", file=sys.stderr, flush=True
        )
        load = Load()
        found = measured(model, device, precisions, windows)
        busy = load.cores()
        if not (cpu and is_busy(busy, cores)):
            remember(path, key, found)
            return found, ""
    return (
        "fp32",
        f"; {others} not measured while other programs keep {busy:.1f} of {cores} cores busy: "
        f"--amp {precisions[-1]} takes it",
    )


def measured(model, device, precisions, windows):
    """The precision whose training step is fastest on random windows."""
    shape = windows, model.settings["n_chans"], model.settings["n_times"]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    features = (
        torch.zeros(windows, len(model.median), device=device) if model.features == "file" else None
    )

    def step(model, precision):
        with autocast(device, precision):
            raw = model.raw(x, features)
        raw.square().mean().backward()
        synchronize(device)

    return fastest(model, device, precisions, step)[0]


def read(path):
    """What was remembered, {} where there is no file or what is there is not ours: then it is
    measured again.
    """
    try:
        known = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def remember(path, key, found):
    """A measurement takes a second, and starting should take none."""
    try:
        write_json(path, read(path) | {key: found})
    except OSError:
        pass  # a cache that may only be read: the next run measures again


def unscale(parameters, scale):
    """Divide the gradients of a loss that was multiplied by `scale`."""
    for p in parameters if scale != 1 else ():
        if p.grad is not None:
            p.grad.div_(scale)


class LossScale:
    """float16 gradients vanish below 6e-8: the loss is multiplied by `scale`, the gradients divided
    by it. It doubles after 2,000 good steps and halves after one whose gradients overflowed. 1 and
    fixed for the other precisions. Its state is two numbers.
    """

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
