"""Mixed precision: chooses one by measuring the model itself, and scales the loss for float16."""

import copy
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn

from eeg.files import write_json
from eeg.machine.device import synchronize
from eeg.machine.load import Load, is_busy
from eeg.models.model import Model

Device: TypeAlias = torch.device | str
TYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
WORTH = 1.1  # times faster than float32 that a precision must be to be chosen
STEPS = 6  # of each precision; the first does not count


def autocast(device: Device, precision: str) -> AbstractContextManager:
    """A context in which the operators that may run in this precision do."""
    dtype = TYPES[precision]
    # older torch has no autocast for Metal, not even a disabled one
    return torch.autocast(torch.device(device).type, dtype) if dtype else nullcontext()


def fastest(model: nn.Module, device: Device, precisions: Sequence[str], step: Callable) -> str:
    """The precision whose training step is fastest: fp32 unless another is faster by WORTH.

    step(model, precision) does one forward and backward pass on a copy of the model.
    """
    ghost = copy.deepcopy(model).to(device)
    seconds: dict[str, list[float]] = {name: [] for name in precisions}
    state = torch.get_rng_state()
    for i in range(STEPS):
        for name in precisions:  # in turn, so that a slow moment of the machine is everyone's
            begin = time.perf_counter()
            step(ghost, name)
            if i > 0:
                seconds[name].append(time.perf_counter() - begin)
    torch.set_rng_state(state)
    quickest = min(precisions, key=lambda name: min(seconds[name]))
    gain = min(seconds["fp32"]) / min(seconds[quickest])
    return quickest if gain >= WORTH else "fp32"


def choose(
    model: Model,
    device: Device,
    precisions: Sequence[str],
    windows: int,
    path: Path,
    key: str,
    busy: float = 0.0,
    cores: int = 1,
) -> tuple[str, str]:
    """The precision to train in, measured on a batch of `windows`, or remembered in `path` under
    `key`. -> (its name, why in words, or "")

    busy: of the CPU's `cores`, those that other programs keep at work. If they would disturb the
    measurement, the choice is fp32 and is not remembered.
    """
    cpu = torch.device(device).type == "cpu"
    key = json.dumps([key, torch.__version__, model.settings])
    known = read(path)
    if known.get(key) in precisions:
        return known[key], ""
    if not (cpu and is_busy(busy, cores)):
        what = f"measuring {' and '.join(precisions)} on this model, once"
        print(what, file=sys.stderr, flush=True)
        load = Load()
        found = measured(model, device, precisions, windows)
        busy = load.cores()
        if not (cpu and is_busy(busy, cores)):
            remember(path, key, found)
            return found, ""
    others = " and ".join(name for name in precisions if name != "fp32")
    why = f"not measured while other programs keep {busy:.1f} of {cores} cores busy"
    return "fp32", f"; {others} {why}: --amp {precisions[-1]} takes it"


def measured(model: Model, device: Device, precisions: Sequence[str], windows: int) -> str:
    """The precision whose training step is fastest on random windows."""
    shape = windows, model.settings["n_chans"], model.settings["n_times"]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    features = None
    if model.features == "file":
        features = torch.zeros(windows, len(model.median), device=device)

    def step(model, precision):
        with autocast(device, precision):
            raw = model.raw(x, features)
        raw.square().mean().backward()
        synchronize(device)

    return fastest(model, device, precisions, step)


def read(path: Path) -> dict:
    """What was remembered; {} where there is no such file: the next run measures again."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def remember(path: Path, key: str, found: str) -> None:
    """Keep a measurement, which takes a second, for the next run."""
    with suppress(OSError):  # a read-only cache: the next run measures again
        write_json(path, read(path) | {key: found})


def unscale(parameters: Iterable[nn.Parameter], scale: float) -> None:
    """Divide the gradients of a loss that was multiplied by `scale`."""
    for p in parameters:
        if scale != 1 and p.grad is not None:
            p.grad.div_(scale)


class LossScale:
    """float16 gradients vanish below 6e-8, so loss is multiplied by `scale`, gradients divided.

    It doubles after 2,000 good steps and halves after an overflow. Other precisions keep 1.
    """

    def __init__(self, precision: str):
        self.moves = precision == "fp16"
        self.scale, self.good = (2.0**14 if self.moves else 1.0), 0

    def update(self, finite: bool) -> None:
        if not self.moves:
            return
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.scale = max(1.0, self.scale / 2)
        elif self.good == 2000:
            self.scale, self.good = min(2.0**24, self.scale * 2), 0
