"""A block's batch norm, ReLU, mask and residual: the native path equals torch's in training."""

import copy

import pytest
import torch

from eeg.models import layers
from eeg.models.layers import Block, Pointwise, Stem, activated


@pytest.fixture
def torch_only(monkeypatch):
    """A function that calls another without the native kernels."""

    def call(work):
        with monkeypatch.context() as without:
            without.setattr(layers, "_native", None)
            return work()

    return call


def results(module, x, seed=0):
    """Output, gradients and running statistics of a training step."""
    module, x = copy.deepcopy(module), x.clone().requires_grad_()
    torch.manual_seed(seed)
    y = module(x)
    y.float().square().sum().backward()
    named = {name: p.grad for name, p in module.named_parameters()}
    return {"y": y.detach(), "x": x.grad} | named | dict(module.named_buffers())


def assert_close(a, b, tolerance):
    assert a.keys() == b.keys()
    for name in a:
        atol = tolerance * float(b[name].abs().max())
        torch.testing.assert_close(a[name], b[name], rtol=tolerance, atol=atol, msg=name)


def used(monkeypatch):
    """A list that grows with each call of the kernel."""
    calls, apply = [], layers.NormReLU.apply
    monkeypatch.setattr(layers.NormReLU, "apply", lambda *a: (calls.append(1), apply(*a))[1])
    return calls


@pytest.mark.parametrize("module", [Block(20, 5, 2, dropout=0.3), Block(17, 3), Stem(9, 20, 5)])
def test_training_equals_torch(module, torch_only, monkeypatch):
    calls = used(monkeypatch)
    torch.manual_seed(0)
    x = (
        torch.randn(6, 9, 40)
        if isinstance(module, Stem)
        else torch.randn(6, 40, module_width(module))
    )
    ours = results(module, x)
    assert calls
    assert_close(ours, torch_only(lambda: results(module, x)), 2e-5)


def module_width(block):
    return block.depthwise.in_channels


def test_autocast_is_as_close_to_float32_as_torch_s(torch_only, monkeypatch):
    torch.manual_seed(0)
    calls, x = used(monkeypatch), torch.randn(6, 40, 32).to(torch.bfloat16)
    module = Block(32, 5, dropout=0.2)

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            return results(module, x)

    ours = step()
    assert calls and ours["y"].dtype == torch.bfloat16
    theirs, wanted = torch_only(step), results(module, x.float())
    for name in ours:
        error, usual = ((a[name].float() - wanted[name]).norm() for a in (ours, theirs))
        assert error <= 1.2 * usual + 1e-5 * wanted[name].float().norm(), name


@pytest.mark.parametrize("momentum, track", [(0.1, True), (None, True), (0.1, False)])
def test_running_statistics(momentum, track, torch_only):
    layer = Pointwise(6, 8)
    layer.norm = torch.nn.BatchNorm2d(8, momentum=momentum, track_running_stats=track)
    x = torch.randn(4, 30, 6)

    def statistics():
        own = copy.deepcopy(layer)
        for scale in (1, 2, 3):
            activated(own, x * scale)
        return dict(own.named_buffers())

    assert_close(statistics(), torch_only(statistics), 1e-5)


def test_evaluation_does_not_train(monkeypatch):
    calls, block = used(monkeypatch), Block(6, 3, dropout=0.5).eval()
    x = torch.randn(2, 10, 6)
    before = copy.deepcopy(block.state_dict())
    assert torch.equal(block(x), block(x)) and not calls
    assert all(torch.equal(a, before[name]) for name, a in block.state_dict().items())


def test_functional_transforms_and_frozen_parameters():
    block, x = Block(6, 3), torch.randn(3, 10, 6)
    wanted = x.clone().requires_grad_()
    block(wanted).square().sum().backward()
    block.pointwise.norm.track_running_stats = False  # torch.func forbids changes in place
    gradient = torch.func.grad(lambda part: block(part).square().sum())(x)
    torch.testing.assert_close(gradient, wanted.grad, rtol=1e-4, atol=1e-4)
    block.requires_grad_(False)
    frozen = x.clone().requires_grad_()
    block(frozen).square().sum().backward()
    torch.testing.assert_close(frozen.grad, wanted.grad, rtol=1e-5, atol=1e-5)
