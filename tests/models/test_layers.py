"""DepthwiseConv1d equals torch's Conv1d(groups=channels), channels last, on both of its paths."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from eeg.models import layers
from eeg.models.layers import DepthwiseConv1d, Normalize


@pytest.fixture(params=["native", "torch"])
def path(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(layers, "_native", None)
    else:
        assert layers._native is not None, "build the extension first: make build"
    return request.param


def reference(layer, dtype=torch.float64):
    """torch's own layer with the same parameters: their names are the same, too."""
    C, bias = layer.in_channels, layer.bias is not None
    settings = dict(padding=layer.padding, dilation=layer.dilation, groups=C, bias=bias)
    conv = nn.Conv1d(C, C, layer.kernel_size, **settings)
    conv.load_state_dict(layer.state_dict())
    return conv.to(dtype)


def close(a, b, tolerance=1e-5):
    atol = tolerance * float(b.detach().abs().max())
    torch.testing.assert_close(a.to(b.dtype), b, rtol=tolerance, atol=atol)


@pytest.mark.parametrize(
    "C, T, K, dilation, bias",
    [(129, 200, 15, 1, False), (16, 50, 7, 8, True), (3, 7, 15, 1, True), (1, 1, 1, 1, False)],
)
def test_output_and_every_gradient_equal_float64(path, C, T, K, dilation, bias):
    torch.manual_seed(0)
    layer = DepthwiseConv1d(C, K, dilation, bias=bias)
    wanted = reference(layer)
    x = torch.randn(2, T, C, requires_grad=True)
    x64 = x.detach().double().requires_grad_()
    up = torch.randn(2, T, C)
    y, y64 = layer(x), wanted(x64.transpose(1, 2)).transpose(1, 2)
    assert y.shape == x.shape and y.dtype == torch.float32
    close(y, y64)
    y.backward(up)
    y64.backward(up.double())
    close(x.grad, x64.grad)
    for (name, p), q in zip(layer.named_parameters(), wanted.parameters()):
        assert p.grad.shape == p.shape, name
        close(p.grad, q.grad)


def test_torch_s_defaults_change_nothing(path):
    layer, x = DepthwiseConv1d(5, 3), torch.randn(2, 20, 5)
    wanted = layer(x)
    torch.set_default_dtype(torch.float64)
    try:
        x.requires_grad_()
        y = layer(x)
        y.sum().backward()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(y, wanted) and x.grad.dtype == torch.float32
    with torch.device("meta"):
        assert torch.equal(layer(x), wanted)


def test_a_weight_that_is_not_contiguous(path):
    layer, x = DepthwiseConv1d(6, 5), torch.randn(2, 20, 6)
    wanted = layer(x)
    layer.weight = nn.Parameter(layer.weight.detach().mT.contiguous().mT.expand(6, 1, 5))
    layer.weight.data = layer.weight.data.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert not layer.weight.is_contiguous()
    close(layer(x), wanted)


def test_functional_transforms(path):
    layer, x = DepthwiseConv1d(5, 3), torch.randn(4, 2, 20, 5)
    each = torch.stack([layer(part) for part in x])
    close(torch.func.vmap(layer)(x), each)
    one = x[0].clone().requires_grad_()
    layer(one).square().sum().backward()
    gradient = torch.func.grad(lambda part: layer(part).square().sum())(x[0])
    close(gradient, one.grad)


def test_gradients_flow_only_where_they_are_wanted(path):
    layer = DepthwiseConv1d(5, 3)
    x = torch.randn(2, 20, 5)
    layer(x).sum().backward()
    assert layer.weight.grad is not None and x.grad is None
    frozen = DepthwiseConv1d(5, 3).requires_grad_(False)
    x.requires_grad_()
    frozen(x).sum().backward()  # the gradient of a sum is expanded from one number: not contiguous
    close(x.grad, frozen.weight.squeeze().sum(1) * torch.ones(2, 20, 5) - edges(frozen))
    with torch.no_grad():
        assert not layer(x).requires_grad
    with torch.inference_mode():
        assert torch.equal(layer(x), layer(x))


def edges(layer):
    """What three taps lose at the first and the last sample."""
    lost = torch.zeros(2, 20, 5)
    lost[:, 0], lost[:, -1] = layer.weight[:, 0, 2], layer.weight[:, 0, 0]
    return lost


def test_any_memory_layout(path):
    layer = DepthwiseConv1d(6, 5, dilation=2)
    x = torch.randn(4, 6, 30)
    close(layer(x.transpose(1, 2)), reference(layer, torch.float32)(x).transpose(1, 2))
    close(layer(x.transpose(1, 2)[::2]), layer(x.transpose(1, 2))[::2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_go_to_torch(dtype, monkeypatch):
    monkeypatch.setattr(layers._Depthwise, "apply", None)  # calling it would be an error
    layer = DepthwiseConv1d(6, 5).to(dtype)
    x = torch.randn(2, 30, 6).to(dtype).requires_grad_()
    y = layer(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == layer.weight.grad.dtype == dtype
    close(y.double(), reference(layer)(x.double().transpose(1, 2)).transpose(1, 2), 2e-2)


def test_autocast_keeps_the_type_of_its_input(path):
    layer = DepthwiseConv1d(6, 5)
    x = torch.randn(2, 30, 6, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        half = layer(torch.randn(2, 30, 6))
    assert y.dtype == torch.bfloat16 and half.dtype in (torch.bfloat16, torch.float32)
    close(y.double(), reference(layer)(x.double().transpose(1, 2)).transpose(1, 2), 2e-2)
    y.float().sum().backward()
    assert x.grad.dtype == torch.bfloat16 and layer.weight.grad.dtype == torch.float32


@pytest.mark.filterwarnings(
    "ignore:.*deprecated:DeprecationWarning", "ignore::torch.jit.TracerWarning"
)
def test_a_trace_does_not_freeze_the_answer(path):
    layer = DepthwiseConv1d(6, 5)
    x, other = torch.randn(2, 30, 6), torch.randn(2, 30, 6)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    for traced in (torch.jit.trace(layer, x), torch.jit.script(layer), compiled):
        close(traced(other), layer(other))


ALONE = """
import importlib.util, sys
sys.modules["eeg"] = None
spec = importlib.util.spec_from_file_location("layers", sys.argv[1])
layers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(layers)
import torch
print(layers._native, tuple(layers.DepthwiseConv1d(6, 5)(torch.zeros(2, 30, 6)).shape))
"""


def test_the_file_alone_is_enough():
    """As in a submission: no package, no extension."""
    command = [sys.executable, "-c", ALONE, layers.__file__]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split(maxsplit=1) == ["None", "(2, 30, 6)\n"], done.stderr


def test_a_copy_and_a_state_dict_hold_the_same_layer(path):
    layer = DepthwiseConv1d(6, 5, dilation=3)
    x = torch.randn(2, 30, 6)
    other = DepthwiseConv1d(6, 5, dilation=3)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(copy.deepcopy(layer)(x), layer(x)) and torch.equal(other(x), layer(x))
    shapes = {key: tuple(value.shape) for key, value in layer.state_dict().items()}
    assert shapes == {"weight": (6, 1, 5), "bias": (6,)}


def test_an_empty_batch_and_wrong_input(path):
    layer = DepthwiseConv1d(6, 5)
    y = layer(torch.empty(0, 30, 6, requires_grad=True))
    assert y.shape == (0, 30, 6)
    y.sum().backward()
    assert not layer.weight.grad.any()
    for bad in (torch.empty(2, 30, 5), torch.empty(30, 6), torch.empty(2, 0, 6)):
        with pytest.raises(ValueError, match=r"6 channels\), got shape"):
            layer(bad)
    for size in (4, 0, -1):
        with pytest.raises(ValueError, match="odd"):
            DepthwiseConv1d(6, size)


def test_spread_and_level_keep_each_electrode_s_mean():
    """Against NumPy, in microvolts and in volts; a flat electrode is 0 with "spread"."""
    rng = np.random.default_rng(3)
    x = rng.normal(rng.normal(0, 20, (2, 5, 1)), 15, (2, 5, 50))
    x[:, 2] = 7.0
    spread = x / np.where(np.arange(5) == 2, np.inf, x.std(2))[..., None]
    for unit in (1.0, 1e-6):
        window = torch.tensor(x * unit, dtype=torch.float32)
        assert np.allclose(Normalize("spread")(window), spread, atol=1e-4)
        assert np.allclose(Normalize("level")(window), np.arcsinh(x / 30), atol=1e-4)


def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="normalize='level[+]spread' is not a single kind"):
        Normalize("level+spread")(torch.ones(1, 2, 3))
