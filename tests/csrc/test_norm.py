"""Batch norm, ReLU, mask and residual in one kernel against torch's operations in float64, across
sizes that leave remainders and across thread counts."""

import numpy as np
import pytest
import torch
from eeg._native import norm_backward, norm_forward
from torch.nn import functional as F

SIZES = [(3, 50, 160), (2, 7, 129), (5, 1, 3), (1, 6, 1), (4, 33, 17)]  # B, T, C
EPS = 1e-5


def problem(B, T, C, dtype, mean=0.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(shape, generator=g)
    z, x, gy = (normal(B, T, C).to(dtype) for _ in range(3))
    z = (z.float() * torch.linspace(0.1, 10, C) + mean).to(dtype)
    mask = (torch.rand((B, C), generator=g) > 0.3).float() / 0.7
    return z, x, mask, normal(C), normal(C), gy


def bits(tensor):
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def ours(z, x, mask, gain, bias, gy, threads=1):
    y, gz = torch.full_like(z, 7), torch.full_like(z, 7)
    mean, variance, ggain, gbias = (np.full(z.shape[2], 7, np.float32) for _ in range(4))
    x, mask = (None if x is None else bits(x)), (None if mask is None else mask.numpy())
    norm_forward(
        bits(z), x, mask, gain.numpy(), bias.numpy(), EPS, bits(y), mean, variance, threads
    )
    given = bits(z), mask, gain.numpy(), bias.numpy(), EPS, mean, variance, bits(gy)
    norm_backward(*given, bits(gz), ggain, gbias, threads)
    return [y, *map(torch.from_numpy, (mean, variance)), gz, *map(torch.from_numpy, (ggain, gbias))]


def theirs(z, x, mask, gain, bias, gy):
    z, gain, bias = (a.double().requires_grad_() for a in (z, gain, bias))
    normed = F.batch_norm(z.flatten(0, 1), None, None, gain, bias, True, 0, EPS).view_as(z)
    y = F.relu(normed)
    y = y if mask is None else y * mask.double()[:, None]
    y = y if x is None else y + x.double()
    y.backward(gy.double())
    flat = z.detach().flatten(0, 1)
    moments = flat.mean(0), flat.var(0, unbiased=False)
    return [y.detach(), *moments, z.grad, gain.grad, bias.grad]


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-5), (torch.bfloat16, 8e-3)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("without", [(), ("x",), ("mask",), ("x", "mask")])
def test_equals_torch(size, dtype, tolerance, without):
    z, x, mask, gain, bias, gy = problem(*size, dtype)
    inputs = z, None if "x" in without else x, None if "mask" in without else mask, gain, bias, gy
    names = "y", "mean", "variance", "gz", "ggain", "gbias"
    for name, a, b in zip(names, ours(*inputs), theirs(*inputs)):
        atol = tolerance * float(b.abs().max())
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=atol, msg=name)


def test_an_offset_does_not_cancel():
    inputs = problem(8, 200, 5, torch.float32, mean=1e3)
    for a, b in zip(ours(*inputs)[1:3], theirs(*inputs)[1:3]):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_of_threads_changes_no_bit(dtype):
    inputs = problem(7, 40, 129, dtype)
    one = ours(*inputs)
    for threads in (0, 2, 5):
        assert all(torch.equal(a, b) for a, b in zip(one, ours(*inputs, threads=threads)))


def test_nan_reaches_its_channel_and_nothing_else():
    z, *rest = problem(3, 20, 9, torch.float32)
    z[1, 3, 4] = torch.nan
    y, mean, variance, gz, ggain, gbias = ours(z, *rest)
    reached = torch.arange(9) == 4
    for a in (y, mean[None], variance[None], gz, ggain[None]):
        assert torch.equal(a.isnan().flatten(0, -2).any(0), reached)


def test_bfloat16_is_rounded_as_torch_rounds_it():
    """Without a norm's doing: gain 1, variance 1, mean 0, through the residual alone."""
    x = torch.randn(2, 3000, 5, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    z = torch.randn(2, 3000, 5, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16)
    gain, bias, mask = torch.zeros(5), torch.full((5,), 1.001), torch.ones(2, 5)
    y = ours(z, x, mask, gain, bias, x)[0]
    assert torch.equal(y, (x.float() + 1.001).to(torch.bfloat16))
    x[0, 0] = torch.inf
    x[0, 1] = torch.nan
    wanted = (x.float() + 1.001).to(torch.bfloat16)
    y = ours(z, x, mask, gain, bias, z)[0]
    torch.testing.assert_close(y, wanted, rtol=0, atol=0, equal_nan=True)


def test_wrong_arguments_are_refused():
    z, x, mask, gain, bias, _ = (bits(a) for a in problem(2, 30, 9, torch.float32))
    good = dict(z=z, residual=x, mask=mask, gain=gain, bias=bias, eps=EPS, y=np.empty_like(z))
    good |= dict(mean=np.empty(9, np.float32), variance=np.empty(9, np.float32))
    norm_forward(**good)
    locked = np.empty_like(z)
    locked.flags.writeable = False
    for error, match, bad in [
        (TypeError, "float32, or int16", dict(z=z.astype(np.float64))),
        (TypeError, "same type as the others", dict(residual=x.astype(np.int16))),
        (
            TypeError,
            "same type as the others",
            dict(y=np.empty((2, 9, 30), np.float32).transpose(0, 2, 1)),
        ),
        (ValueError, "must be of shape", dict(y=np.empty((2, 30, 8), np.float32))),
        (ValueError, "writeable", dict(y=locked)),
        (ValueError, "mask must be", dict(mask=mask[:1])),
        (ValueError, "gain must be", dict(gain=gain[:8])),
        (ValueError, "eps must be", dict(eps=-1.0)),
        (ValueError, "none of them 0", dict(z=z[:0])),
        (ValueError, "threads", dict(threads=-1)),
    ]:
        with pytest.raises(error, match=match):
            norm_forward(**good | bad)
