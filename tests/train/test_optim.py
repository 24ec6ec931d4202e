"""Steps against what they are by definition."""

import copy
import math

import pytest
import torch
from torch import nn

from eeg.models import build
from eeg.train.optim import SAM, Average, Schedule, adamw, add_l1, frozen_statistics


def test_decay_spares_biases_and_normalisations():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    before = copy.deepcopy(model.state_dict())
    optimizer = adamw(model, lr=0.1, weight_decay=0.5)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, value in model.state_dict().items():
        factor = 1 - 0.1 * 0.5 if name in ("0.weight", "2.weight") else 1
        factor = factor if value.is_floating_point() else 1
        torch.testing.assert_close(value, before[name] * factor)


def test_l1_is_the_gradient_of_the_sum_of_magnitudes():
    model = nn.Linear(3, 2)
    model(torch.randn(4, 3)).sum().backward()
    grad, bias = model.weight.grad.clone(), model.bias.grad.clone()
    add_l1(model, 0.1)
    weight = model.weight.detach().clone().requires_grad_()
    (0.1 * weight.abs().sum()).backward()
    torch.testing.assert_close(model.weight.grad, grad + weight.grad)
    torch.testing.assert_close(model.bias.grad, bias)


def test_sam_takes_the_gradient_uphill_and_steps_from_where_it_was():
    w = nn.Parameter(torch.tensor([1.0, -2.0]))
    holder = nn.ParameterList([w])
    f = lambda w: w[0] ** 4 + 3 * w[1] ** 2
    sam = SAM(holder, rho=0.3)
    f(w).backward()
    gradient = w.grad.clone()
    sam.ascend(gradient.norm().item())
    start = torch.tensor([1.0, -2.0])
    up = (start + 0.3 * gradient / gradient.norm()).requires_grad_()
    torch.testing.assert_close(w.detach(), up.detach())
    w.grad = None
    f(w).backward()
    sam.descend()
    torch.testing.assert_close(w.detach(), start)
    f(up).backward()
    torch.testing.assert_close(w.grad, up.grad)


@pytest.mark.parametrize("name", ["tcn", "eegnex", "unet", "cnn"])
def test_statistics_stand_still_within_frozen(name):
    model = build(name).train()
    x = torch.randn(8, 129, 200)
    model.raw(x)
    before = {key: value.clone() for key, value in model.state_dict().items() if "running" in key}
    assert before
    with frozen_statistics(model):
        model.raw(3 + 2 * x)
    for key, value in model.state_dict().items():
        if key in before:
            torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    model.raw(3 + 2 * x.flip(1))
    assert any(not torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_schedules():
    cosine = Schedule("cosine", 100, 10)
    assert [cosine.factor(i) for i in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert cosine.factor(55) == pytest.approx(0.5)
    assert cosine.factor(100) == pytest.approx(0, abs=1e-9)
    assert all(cosine.factor(i) >= cosine.factor(i + 1) for i in range(9, 99))
    one = Schedule("onecycle", 100, 0)
    assert one.factor(0) == pytest.approx(0.04)
    assert one.factor(30) == pytest.approx(1.0)
    assert one.factor(100) == pytest.approx(1e-4)
    constant = Schedule("constant", 100, 2)
    assert [constant.factor(i) for i in (0, 1, 50, 99)] == [0.5, 1, 1, 1]
    plateau = Schedule("plateau", 100, 0)
    for value in [1.0, 0.9] + [0.95] * 5:
        plateau.epoch_ended(value)
    assert plateau.factor(50) == 1
    plateau.epoch_ended(0.95)
    assert plateau.factor(50) == 0.5
    plateau.epoch_ended(0.5)
    assert plateau.factor(50) == 0.5 and plateau.state["best"] == 0.5
    assert Schedule("cosine", 1, 3).factor(0) == pytest.approx(1.0)  # a run of one step


def test_average_is_what_its_decay_says():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = Average(model, 0.9)
    by_hand = model[0].weight.detach().clone()
    for n in range(1, 12):
        with torch.no_grad():
            model[0].weight.add_(torch.randn(2, 2))
        model(torch.randn(5, 2))
        decay = min(0.9, (1 + n) / (10 + n))
        by_hand = decay * by_hand + (1 - decay) * model[0].weight.detach()
        average.update(model)
        average.steps += 1
    torch.testing.assert_close(average.model[0].weight, by_hand)
    assert average.model[1].num_batches_tracked == 11
    assert not average.model.training
    assert math.isfinite(average.model[1].running_mean.sum())
