"""Ways to interrupt a run, for tests of run/train.py."""

import os

import torch

from eeg.train.optim import Stepper
from eeg.train.trainer import Trainer

OOM = torch.cuda.OutOfMemoryError("HIP out of memory. Tried to allocate 2.00 GiB")
CRASH = RuntimeError("HIP error: an illegal memory access was encountered")


class Killed(BaseException):
    """What no code catches."""


def sends(number, method, call, monkeypatch):
    """Send this process a signal as Trainer.<method> is called for the call-th time. -> [calls]"""
    work, count = getattr(Trainer, method), [0]

    def wrapped(*arguments):
        count[0] += 1
        if count[0] == call:
            os.kill(os.getpid(), number)
        return work(*arguments)

    monkeypatch.setattr(Trainer, method, wrapped)
    return count


def faulty(plan, owner=Stepper, name="_forward_backward"):
    """owner.<name> that raises plan[call]."""
    work, calls = getattr(owner, name), [0]

    def step(*arguments, **settings):
        calls[0] += 1
        if calls[0] in plan:
            raise plan[calls[0]]
        return work(*arguments, **settings)

    return step
