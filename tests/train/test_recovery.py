"""Gradients on a device that fails: a stand-in, which is the CPU with errors thrown in at chosen calls."""

import copy

import pytest
import torch
from torch import nn

from eeg.train.recovery import Recovery, is_device_error, is_out_of_memory

OOM = torch.cuda.OutOfMemoryError("HIP out of memory. Tried to allocate 2.00 GiB")
CRASH = RuntimeError("HIP error: an illegal memory access was encountered\nHIP kernel errors might be asynchronously reported")


class Network(nn.Module):
    """Small, with or without batch norm and dropout. `far` stands for: lies on the stand-in card."""

    def __init__(self, norm=False, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.GELU(), nn.Dropout(dropout), nn.Linear(8, 1))

    def forward(self, x):
        return self.layers(x)


class Card:
    """A step whose calls on the model that lies on the card fail as `plan` says: {call number from 0: exception or function of the batch}."""

    def __init__(self, plan, model):
        self.plan, self.model, self.calls, self.sizes, self.scales = plan, model, 0, [], []

    def __call__(self, model, batch, weight):
        output = model(batch["x"])
        loss = nn.functional.mse_loss(output, batch["y"])
        if model is self.model:
            call, self.calls = self.calls, self.calls + 1
            error = self.plan(call, len(output)) if callable(self.plan) else self.plan.get(call)
            if error is not None:
                (0.5 * loss).backward()  # a pass cut short leaves gradients behind
                with torch.no_grad():
                    torch.rand(3)  # and has drawn random numbers
                raise error
        self.sizes.append(len(output))
        (weight * loss).backward()
        return loss.item(), output.detach()


def batch(n=11, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(n, 6, generator=generator), "y": torch.randn(n, 1, generator=generator)}


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def undisturbed(model, values):
    """Loss, outputs, gradient and buffers by plain torch, on a copy."""
    model = copy.deepcopy(model)
    model.zero_grad()
    output = model(values["x"])
    loss = nn.functional.mse_loss(output, values["y"])
    loss.backward()
    return loss.item(), output.detach(), gradients(model), [b.clone() for b in model.buffers()]


def guarded(model, plan, **settings):
    events, card = [], Card(plan, model)
    return Recovery(model, "cpu", lambda kind, text: events.append((kind, text)), card, **settings), card, events


@pytest.mark.parametrize(
    "plan, kinds",
    [
        ({}, []),
        ({0: OOM}, ["out of memory"]),
        ({0: OOM, 1: OOM}, ["out of memory"] * 2),
        ({0: OOM, 2: OOM}, ["out of memory"] * 2),  # in the second half
        (lambda call, n: OOM if n > 2 else None, ["out of memory"] * 3),
        (lambda call, n: OOM, ["out of memory"] * 4 + ["device error"]),  # a single window, too
        ({0: CRASH}, ["device error"]),
        ({0: OOM, 1: CRASH}, ["out of memory", "device error"]),
    ],
)
def test_the_gradient_is_that_of_an_undisturbed_pass(plan, kinds):
    model, values = Network(), batch()
    loss, output, wanted, _ = undisturbed(model, values)
    guard, _, events = guarded(model, plan)
    model.layers[0].weight.grad = torch.ones(8, 6)  # the batch before left it
    got_loss, got_output = guard.gradients(values)
    assert [kind for kind, _ in events] == kinds
    assert got_loss == pytest.approx(loss, abs=1e-6)
    torch.testing.assert_close(got_output, output, atol=1e-6, rtol=0)
    torch.testing.assert_close(gradients(model), wanted, atol=1e-6, rtol=0)
