"""The native depthwise convolution against torch in float64, across sizes that leave remainders and
across thread counts."""

import numpy as np
import pytest
import torch
from eeg._native import depthwise_backward, depthwise_forward
from torch.nn import functional as F

SIZES = [  # B, T, C, K, dilation
    (2, 200, 129, 15, 1),
    (3, 199, 128, 15, 2),
    (2, 250, 3, 7, 4),
    (5, 200, 1, 15, 8),
    (1, 7, 17, 3, 1),
    (2, 1, 129, 1, 1),
    (2, 1, 5, 15, 1),  # only the middle tap meets the signal
    (1, 7, 3, 15, 1),  # the outermost taps meet one sample
    (2, 7, 16, 33, 1),  # longer than the signal on both sides
    (3, 7, 33, 9, 3),
    (2, 10, 4, 5, 10**15),
    (0, 200, 129, 15, 1),
]


def problem(B, T, C, K, seed=0):
    g = np.random.default_rng(seed)
    return [g.standard_normal(s).astype(np.float32) for s in ((B, T, C), (C, K), (C,), (B, T, C))]


def ours(x, w, bias, gy, dilation, threads=0):
    y, gx, gw, gb = (np.full_like(a, 7) for a in (x, x, w, w[:, 0]))
    depthwise_forward(x, w, bias, dilation, y, threads)
    depthwise_backward(x, w, gy, dilation, gx, gw, gb, threads)
    return y, gx, gw, gb


def theirs(x, w, bias, gy, dilation):
    x, w, bias = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, w, bias))
    # torch would allocate the padding
    kept = [k for k in range(w.shape[1]) if abs(k - w.shape[1] // 2) * dilation < x.shape[1]]
    dilation = dilation if len(kept) > 1 else 1
    settings = dict(padding=len(kept) // 2 * dilation, dilation=dilation, groups=x.shape[2])
    y = F.conv1d(x.transpose(1, 2), w[:, None, kept], bias, **settings).transpose(1, 2)
    y.backward(torch.tensor(gy, dtype=torch.float64))
    return [a.detach().numpy() for a in (y, x.grad, w.grad, bias.grad)]


@pytest.mark.parametrize("B, T, C, K, dilation", SIZES)
def test_equals_torch(B, T, C, K, dilation):
    x, w, bias, gy = problem(B, T, C, K)
    results = ours(x, w, bias, gy, dilation), theirs(x, w, bias, gy, dilation)
    for name, a, b in zip(("y", "gx", "gw", "gb"), *results):
        atol = 1e-5 * np.abs(b).max(initial=0)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol, err_msg=name)


@pytest.mark.parametrize("B, T, C, K, dilation", SIZES)
def test_the_number_of_threads_changes_no_bit(B, T, C, K, dilation):
    inputs = problem(B, T, C, K)
    one = ours(*inputs, dilation, threads=1)
    for threads in (0, 2, 4, 7):
        for a, b in zip(one, ours(*inputs, dilation, threads=threads)):
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("C", [1, 16, 17, 18, 129])
def test_bfloat16_is_computed_in_float32(C):
    rounded = lambda a: torch.from_numpy(a).to(torch.bfloat16)
    bits = lambda a: rounded(a).view(torch.int16).numpy()
    single = lambda a: rounded(a).float().numpy()
    x, w, bias, gy = problem(3, 37, C, 7)
    wanted = ours(single(x), w, bias, single(gy), 2)
    y, gx = np.zeros(x.shape, np.int16), np.zeros(x.shape, np.int16)
    gw, gb = np.zeros_like(w), np.zeros_like(bias)
    depthwise_forward(bits(x), w, bias, 2, y)
    depthwise_backward(bits(x), w, bits(gy), 2, gx, gw, gb)
    for a, b in zip((y, gx, gw, gb), (bits(wanted[0]), bits(wanted[1]), *wanted[2:])):
        np.testing.assert_array_equal(a, b)


def test_each_gradient_alone_is_the_same():
    x, w, bias, gy = problem(3, 50, 19, 5)
    _, gx, gw, gb = ours(x, w, bias, gy, 2)
    for i, wanted in enumerate((gx, gw, gb)):
        outs = [None, None, None]
        outs[i] = np.full_like(wanted, 7)
        depthwise_backward(x, w, gy, 2, *outs)
        assert outs[i].tobytes() == wanted.tobytes()
    depthwise_backward(x, w, gy, 2, None, None, None)


def test_without_a_bias():
    x, w, bias, gy = problem(2, 30, 9, 3)
    y = np.empty_like(x)
    depthwise_forward(x, w, None, 1, y)
    np.testing.assert_array_equal(y, ours(x, w, 0 * bias, gy, 1)[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_reaches_what_the_filter_reaches_and_nothing_else(bad):
    x, w, bias, gy = problem(2, 60, 20, 5)
    x[1, 31, 17] = gy[0, 3, 18] = bad
    y, gx, gw, gb = ours(x, w, bias, gy, 3)
    reach = 3 * (np.arange(5) - 2)
    for a, b, t, c in ((y, 1, 31, 17), (gx, 0, 3, 18)):
        hit = np.zeros(a.shape, bool)
        hit[b, (t + reach)[t + reach >= 0], c] = True
        np.testing.assert_array_equal(~np.isfinite(a), hit)
    np.testing.assert_array_equal(np.isfinite(gw).all(1), ~np.isin(np.arange(20), (17, 18)))
    np.testing.assert_array_equal(np.isfinite(gb), np.arange(20) != 18)


def test_wrong_arguments_say_what_would_do():
    x, w, bias, gy = problem(2, 30, 9, 3)
    out = np.zeros_like(x)

    def refused(error, match, x=x, w=w, bias=bias, dilation=1, y=out, threads=0):
        with pytest.raises(error, match=match):
            depthwise_forward(x, w, bias, dilation, y, threads)

    refused(TypeError, "float32", x=x.astype(np.float64))
    refused(TypeError, "float32", w=w.astype(np.float16))
    refused(TypeError, "y must be .* of the same type", y=out.astype(np.float64))
    refused(TypeError, "x must be C-contiguous", x=x[:, ::2])
    refused(TypeError, "C-contiguous", y=np.empty((2, 9, 30), np.float32).transpose(0, 2, 1))
    shape = r"x must be \(windows, samples, channels\).*got shape \(2, 30\)"
    refused(ValueError, shape, x=x[..., 0].copy())
    refused(ValueError, "at least one sample", x=x[:, :0].copy())
    refused(ValueError, "at least one sample and one channel", x=np.empty((2, 30, 0), np.float32))
    shape = r"weight must be \(9 channels, an odd number of taps\), got shape \(8, 3\)"
    refused(ValueError, shape, w=w[:8])
    refused(ValueError, r"odd number of taps.*\(9, 2\)", w=w[:, :2].copy())
    refused(ValueError, r"odd number of taps.*\(9, 0\)", w=w[:, :0].copy())
    refused(ValueError, r"bias must be of shape \(9,\)", bias=bias[:8])
    refused(ValueError, "dilation must be at least 1 sample, got 0", dilation=0)
    refused(ValueError, "threads must be 0 .* got -1", threads=-1)
    refused(ValueError, r"y must be of shape \(2, 30, 9\)", y=np.empty((2, 30, 8), np.float32))
    locked = out.copy()
    locked.flags.writeable = False
    refused(ValueError, "writeable", y=locked)
    for i, name in enumerate(("gx", "gw", "gb")):
        outs = [None, None, None]
        outs[i] = np.empty((3,) * (3 - i), np.float32)
        with pytest.raises(ValueError, match=f"{name} must be"):
            depthwise_backward(x, w, gy, 1, *outs)
    with pytest.raises(ValueError, match="gy must be"):
        depthwise_backward(x, w, gy[:1], 1, None, None, None)
