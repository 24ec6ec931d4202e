"""Mixed precision: the loss scale by its rules, and what a measurement chooses."""

import pytest
import torch
from torch import nn

import eeg.models
from eeg.machine import amp
from eeg.machine.amp import WORTH, LossScale, fastest, unscale


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


@pytest.mark.parametrize(
    "gain, chosen", [(2 * WORTH, "bf16"), (0.9 * WORTH, "fp32"), (0.5, "fp32")]
)
def test_a_precision_must_be_worth_it(monkeypatch, gain, chosen):
    clock = [0.0]
    monkeypatch.setattr("eeg.machine.amp.time.perf_counter", lambda: clock[0])

    def step(model, precision):
        torch.rand(1)
        clock[0] += 1.0 if precision == "fp32" else 1.0 / gain

    model = nn.Linear(2, 2)
    state = torch.get_rng_state()
    assert fastest(model, "cpu", ("fp32", "bf16"), step) == chosen
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture
def choose(monkeypatch, tmp_path):
    """choose(windows, busy, device) -> what amp.choose says; choose.during: cores that others take
    while it measures; choose.measured: on how many windows it did."""
    monkeypatch.setattr(
        amp,
        "measured",
        lambda model, device, precisions, windows: call.measured.append(windows) or "bf16",
    )
    monkeypatch.setattr(amp.Load, "cores", lambda self: call.during)
    model = eeg.models.build("tcn", width=8, depth=1)

    def call(windows=16, busy=0.0, device="cpu"):
        return amp.choose(
            model, device, ("fp32", "bf16"), windows, call.path, str(windows), busy, 2
        )

    call.path, call.during, call.measured = tmp_path / "precision.json", 0.0, []
    return call


def test_a_measurement_is_made_once(choose):
    assert [choose(windows) for windows in (16, 16, 32)] == [
        ("bf16", "")
    ] * 3 and choose.measured == [16, 32]
    choose.path.write_text("torn")
    assert choose() == ("bf16", "") and choose.measured == [16, 32, 16]


def test_nothing_is_measured_on_a_busy_machine(choose):
    """It would come out differently each time. What was measured before holds, and what was not is
    not remembered as if it had been."""
    assert choose(busy=1.2) == (
        "fp32",
        "; bf16 not measured while other programs keep 1.2 of 2 cores busy: --amp bf16 takes it",
    )
    assert choose.measured == [] and not choose.path.exists()
    choose.during = 0.8  # another program begins while it is measured
    assert (
        choose()[0] == "fp32"
        and "keep 0.8 of 2 cores busy" in choose()[1]
        and not choose.path.exists()
    )
    choose.during = 0.0
    assert choose() == ("bf16", "") == choose(busy=1.2)


def test_a_card_does_not_mind_a_busy_processor(choose):
    choose.during = 2.0
    assert choose(busy=2.0, device="cuda:0") == ("bf16", "") and choose.measured == [16]
