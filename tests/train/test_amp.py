"""Mixed precision: the loss scale by its rules, and what a measurement chooses."""

import json

import pytest
import torch
from torch import nn

from eeg.train.amp import WORTH, LossScale, fastest, remembered, unscale


def test_the_loss_scale_halves_and_doubles():
    scale = LossScale("fp16")
    start = scale.scale
    scale.update(False)
    assert scale.scale == start / 2
    for _ in range(1999):
        scale.update(True)
    assert scale.scale == start / 2
    scale.update(True)
    assert scale.scale == start
    for _ in range(100):
        scale.update(False)
    assert scale.scale == 1


def test_unscaled_gradients_are_those_of_the_loss():
    layer, x = nn.Linear(3, 1), torch.randn(4, 3)
    layer(x).sum().backward()
    plain = layer.weight.grad.clone()
    layer.zero_grad()
    scale = LossScale("fp16")
    (scale.scale * layer(x).sum()).backward()
    unscale(layer.parameters(), scale.scale)
    torch.testing.assert_close(layer.weight.grad, plain)
    for precision in ("fp32", "bf16"):
        other = LossScale(precision)
        other.update(False)
        assert other.scale == 1


@pytest.mark.parametrize("gain, chosen", [(2 * WORTH, "bf16"), (0.9 * WORTH, "fp32"), (0.5, "fp32")])
def test_a_precision_must_be_worth_it(monkeypatch, gain, chosen):
    clock = [0.0]
    monkeypatch.setattr("eeg.train.amp.time.perf_counter", lambda: clock[0])

    def step(model, precision):
        torch.rand(1)
        clock[0] += 1.0 if precision == "fp32" else 1.0 / gain

    model = nn.Linear(2, 2)
    state = torch.get_rng_state()
    assert fastest(model, "cpu", ("fp32", "bf16"), step)[0] == chosen
    assert torch.equal(torch.get_rng_state(), state)


def test_a_measurement_is_made_once(tmp_path):
    path, calls = tmp_path / "precision.json", []
    measure = lambda: calls.append(1) or "bf16"
    assert [remembered(path, key, measure) for key in ("a", "a", "b")] == ["bf16"] * 3 and len(calls) == 2
    assert json.loads(path.read_text()) == {"a": "bf16", "b": "bf16"}
    path.write_text("torn")
    assert remembered(path, "a", measure) == "bf16" and len(calls) == 3
