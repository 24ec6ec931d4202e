"""Ways to interrupt a run, for tests of run/train.py."""

import os

import torch

from eeg.train import trainer as module

OOM = torch.cuda.OutOfMemoryError("HIP out of memory. Tried to allocate 2.00 GiB")


CRASH = RuntimeError("HIP error: an illegal memory access was encountered")


class Killed(BaseException):
    """What no code catches."""


def sends(number, method, call, monkeypatch):
    """This process is sent a signal as Trainer.<method> is called for the call-th time."""
    work, count = getattr(module.Trainer, method), [0]

    def wrapped(*arguments):
        count[0] += 1
        if count[0] == call:
            os.kill(os.getpid(), number)
        return work(*arguments)

    monkeypatch.setattr(module.Trainer, method, wrapped)


def faulty(plan, name="_step"):
    """Trainer.<name> that raises plan[call]."""
    work, calls = getattr(module.Trainer, name), [0]

    def step(*arguments):
        calls[0] += 1
        if calls[0] in plan:
            raise plan[calls[0]]
        return work(*arguments)

    return step
