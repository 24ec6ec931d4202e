"""Losses against formulas written out in NumPy, their gradients against finite differences."""

import numpy as np
import pytest
import torch

from eeg.models import build
from eeg.train.losses import loss


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class Said:
    """As much of a model as a loss asks for."""

    def __init__(self, head="number", aux=(), outputs=1, scale=0.4, center=1.6):
        self.head, self.aux, self.n_outputs = head, aux, outputs
        self.center = torch.full((outputs,), center, dtype=torch.float64)
        self.scale = torch.full((outputs,), scale, dtype=torch.float64)
        self.moments = 0.5 + torch.arange(200, dtype=torch.float64) / 100

    def answer(self, raw):
        if self.head == "time":
            return (raw.softmax(1) @ self.moments)[:, None]
        return self.center + self.scale * raw[:, : self.n_outputs]


def tensor(x):
    return torch.from_numpy(np.asarray(x, float))


@pytest.mark.parametrize("kind", ["mse", "huber", "mae", "focal"])
def test_of_errors(kind, rng):
    raw, y = rng.normal(size=(33, 1)) * 2, 1.6 + 0.4 * rng.normal(size=(33, 1))
    e = raw - (y - 1.6) / 0.4
    by_hand = {
        "mse": e**2,
        "huber": np.where(np.abs(e) < 1, e**2 / 2, np.abs(e) - 0.5),
        "mae": np.abs(e),
        "focal": (1 - np.exp(-np.abs(e))) * np.where(e < 0, 1.2, 0.8) * e**2,
    }[kind]
    value = loss(kind, Said(), tensor(raw), tensor(y)).item()
    assert value == pytest.approx(by_hand.mean(), rel=1e-9)


def test_focal_minds_large_errors_and_answers_that_are_too_low():
    plain = Said(center=0.0, scale=1.0)
    value = lambda e: loss("focal", plain, tensor([[e]]), tensor([[0.0]])).item()
    assert value(-1) > value(1) and value(2) / value(0.2) > 100


def test_time(rng):
    raw = rng.normal(size=(9, 200)) * 3
    y = np.array([1.5, 0.5, 2.49, 0.1, 3.0, 1.0, 1.0, 2.0, 1.7])[:, None]
    moments = 0.5 + np.arange(200) / 100
    target = np.exp(-0.5 * ((moments - y) / 0.15) ** 2)
    target /= target.sum(1, keepdims=True)
    p = np.exp(raw) / np.exp(raw).sum(1, keepdims=True)
    error = p @ moments - y[:, 0]
    by_hand = 0.3 * -(target * np.log(p)).sum(1).mean() + np.sqrt((error**2).mean())
    value = loss("time", Said("time"), tensor(raw), tensor(y)).item()
    assert value == pytest.approx(by_hand, rel=1e-9)
    given = tensor(raw).requires_grad_()
    share = lambda raw: 0.3 * loss("time", Said("time"), raw, tensor(y))
    assert torch.autograd.gradcheck(share, given, atol=1e-6, fast_mode=True)


def test_time_of_a_share_of_the_batch_is_weighed_by_the_error_of_all(rng):
    raw, y = tensor(rng.normal(size=(8, 200))), tensor(rng.uniform(0.6, 2.4, (8, 1)))
    whole = raw.clone().requires_grad_()
    loss("time", Said("time"), whole, y).backward()
    mean = ((Said("time").answer(raw) - y) ** 2).mean()
    shares = raw.clone().requires_grad_()
    halves = [slice(0, 4), slice(4, 8)]
    of = lambda i: loss("time", Said("time"), shares[i], y[i], average=lambda _: mean)
    (sum(map(of, halves)) / 2).backward()
    torch.testing.assert_close(shares.grad, whole.grad)


def test_cross_entropy_gives_both_classes_the_same_weight():
    y = torch.tensor([[1.0]] * 30 + [[0.0]] * 10).double()
    raw = torch.zeros(40, 1, dtype=torch.float64, requires_grad=True)
    loss("cross-entropy", Said(), raw, y, positive=10 / 30).backward()
    assert raw.grad[:30].sum() == pytest.approx(-raw.grad[30:].sum())


def test_unknown_numbers_beside_the_answer_teach_nothing(rng):
    raw = tensor(rng.normal(size=(5, 3))).requires_grad_()
    y = tensor(rng.normal(size=(5, 3)))
    y[1, 1], y[2:, 2] = torch.nan, torch.nan
    model = Said(aux=("age", "sex"), center=0.0, scale=1.0)
    loss("mse", model, raw, y).backward()
    assert raw.grad[1, 1] == 0
    assert (raw.grad[2:, 2] == 0).all()
    assert (raw.grad[:2, 2] != 0).all()
    assert raw.grad.isfinite().all()
    e = (raw - y).detach().numpy()
    by_hand = (e[:, 0] ** 2).mean() + 0.3 * np.nansum(e[:, 1:] ** 2) / 6
    assert loss("mse", model, raw, y).item() == pytest.approx(by_hand, rel=1e-9)


def test_mixup_mixes_labels(rng):
    raw, y = tensor(rng.normal(size=(6, 1))), tensor(rng.normal(size=(6, 1)))
    mix = tensor(rng.uniform(size=6))
    mixed = mix[:, None] * y + (1 - mix[:, None]) * y.roll(1, 0)
    assert loss("mse", Said(), raw, y, mix, y.roll(1, 0)) == loss("mse", Said(), raw, mixed)
    scores = tensor(rng.normal(size=(6, 200)))
    one = torch.ones(6).double()
    alone = loss("time", Said("time"), scores, y).item()
    mixed = loss("time", Said("time"), scores, y, one, y.roll(1, 0)).item()
    assert mixed == pytest.approx(alone)


def test_with_a_real_model():
    model = build("tcn", width=8, depth=1)
    raw = model.raw(torch.randn(4, 129, 200))
    assert loss("time", model, raw, torch.full((4, 1), 1.5)).isfinite()
    with pytest.raises(ValueError, match="no loss 'nonsense'"):
        loss("nonsense", model, raw, torch.full((4, 1), 1.5))
