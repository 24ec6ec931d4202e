"""Smaller numbers: what they change is what is said, and too much is refused."""

import math

import numpy as np
import pytest
import torch

from eeg.machine.precision import LIMITS, at_precision, change, passes, size
from eeg.models import CLOSED_FORM, MODELS, build, fold
from eeg.models.montage import CHANNELS


def model_and_windows(name="tcn", n=40, **settings):
    torch.manual_seed(0)
    known = {"channels": CHANNELS[:20]} if name == "luna" else {}
    model = build(name, n_chans=20, n_times=100, **settings | known)
    x = torch.randn(n, 20, 100) * 20
    with torch.no_grad():
        # for the statistics of batch norms
        model(x) if model.features == "none" else model(x, torch.randn(n, 103))
    return model.eval(), x, 1 + torch.rand(n, 1)


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("name", [name for name in MODELS if name not in CLOSED_FORM])
def test_every_model_at_every_precision(name, precision):
    model, x, _ = model_and_windows(name, 5)
    inputs = (x,) if model.features == "none" else (x, torch.randn(5, 103))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    other = at_precision(model, precision)
    a, b = model(*inputs), other(*inputs)
    assert b.dtype == torch.float32 and b.shape == a.shape
    tolerance = 1e-5 if precision == "fp32" else 0.05
    torch.testing.assert_close(b, a, rtol=tolerance, atol=tolerance)
    # eegnex has no linear layer but the answer's
    if precision != "fp32" and (name, precision) != ("eegnex", "int8"):
        assert not torch.equal(a, b) and size(other) < size(fold(model))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_what_is_fitted_in_closed_form_stays_float32():
    model = build("ridge", n_chans=20, n_times=100, on="covariance").eval()
    x = torch.randn(3, 20, 100) * 20
    assert torch.equal(at_precision(model, "fp32")(x), model(x))
    with pytest.raises(ValueError, match="ridge is computed in float32 alone, not in bf16"):
        at_precision(model, "bf16")


def test_int8_is_near_what_rounding_allows():
    """One linear layer by hand: weights in 255 steps a row, activations in 256 a batch."""
    model, x, _ = model_and_windows("transformer")
    layer, other = model.network.project, at_precision(model, "int8").network.project
    tokens = torch.randn(1, 30, layer.in_features)
    step = float(tokens.max() - tokens.min()) / 255
    w = layer.weight.detach()
    scale = w.abs().amax(1, keepdim=True) / 127
    rounding = (w - (w / scale).round() * scale) @ tokens[0].T
    # activations are off by one step at most
    bound = rounding.T.abs() + step * w.abs().sum(1) + 1e-3
    assert ((other(tokens) - layer(tokens)).abs() <= bound).all()
    assert other.weight().dtype == torch.qint8


def test_change_is_the_change_of_the_metric():
    """Against NumPy, with answers that are moved by hand, over more windows than one batch."""
    model, x, y = model_and_windows(n=300)
    other = fold(model)
    other.center.fill_(1.5), other.shrink.fill_(0.5)
    figures = change(model, other, x, y)
    with torch.no_grad():
        a, b, t = (v.double().numpy()[:, 0] for v in (model(x), other(x), y))
    score = lambda p: math.sqrt(np.mean((p - t) ** 2)) / np.std(t)
    assert figures["before"] == pytest.approx(score(a), rel=1e-6)
    assert figures["nrmse"] == pytest.approx(score(b) - score(a), abs=1e-6)
    assert figures["answer"] == pytest.approx(np.abs(a - b).max() / np.std(t), rel=1e-5)
    assert change(model, other, x, y[:, 0]) == figures


def test_the_output_that_changes_most_counts():
    model, x, _ = model_and_windows("transformer", n_outputs=4)
    y = torch.randn(40, 4)
    other = fold(model)
    other.center[2] += 1
    figures = change(model, other, x, y)
    alone = change(model, other, x, y + torch.tensor([0, 0, 0, 1.0]))
    assert abs(figures["nrmse"]) > 0.1 and figures["nrmse"] == pytest.approx(alone["nrmse"])


def test_what_harms_is_refused(monkeypatch):
    model, x, y = model_and_windows()
    figures = change(model, at_precision(model, "bf16"), x, y)
    assert passes("bf16", figures) and figures["nrmse"] != 0
    monkeypatch.setitem(LIMITS, "bf16", 1e-9)
    assert not passes("bf16", figures)
    changes = (math.nan, -0.001, -0.0009)
    assert [passes("fp32", {"nrmse": change}) for change in changes] == [False, False, True]


def test_answers_that_are_not_numbers_are_refused():
    """float16 ends at 65504: weights that reach past it make infinities."""
    model, x, y = model_and_windows("cnn")
    with torch.no_grad():
        model.network.joined.weight *= 1e8
        model.network.last.weight *= 1e-8
    assert not passes("fp16", change(model, at_precision(model, "fp16"), x, y))
    with pytest.raises(ValueError, match="no precision 'fp8'; there are fp32, bf16, fp16, int8"):
        at_precision(model, "fp8")
