"""Layers that the networks share."""

import math

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

try:
    from eeg import _native  # type: ignore[attr-defined]
except ImportError:  # not built, or a submission: torch does it, more slowly
    _native = None
_compiling = getattr(torch.compiler, "is_compiling", lambda: False)  # from torch 2.3 on


def _array(tensor):
    return None if tensor is None else tensor.detach().numpy()


class _Depthwise(torch.autograd.Function):
    """x (B, T, C), weight (C, K), bias (C) or None

    -> (B, T, C): csrc/depthwise.hpp under autograd. float32 on the CPU, contiguous.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, dilation):
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        y = torch.empty(x.shape)
        _native.depthwise_forward(
            _array(x), _array(weight), _array(bias), dilation, _array(y), torch.get_num_threads()
        )
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gy):
        x, weight = ctx.saved_tensors
        shapes = x.shape, weight.shape, weight.shape[:1]
        gx, gw, gb = (
            torch.empty(shape) if needed else None
            for shape, needed in zip(shapes, ctx.needs_input_grad)
        )
        _native.depthwise_backward(
            _array(x),
            _array(weight),
            _array(gy.contiguous()),
            ctx.dilation,
            _array(gx),
            _array(gw),
            _array(gb),
            torch.get_num_threads(),
        )
        return gx, gw, gb, None


class DepthwiseConv1d(nn.Conv1d):
    """A temporal filter of odd length for each channel, zero-padded: (windows, samples, channels)

    -> the same shape.

    Channels come last: the convolution is fastest so, and a pointwise layer beside it is a plain
    matrix product. Parameters and their names are those of torch's Conv1d(groups=channels). The
    native kernel takes float32 on the CPU, and what autocast halved there; everything else goes to
    torch.
    """

    def __init__(self, channels, kernel_size, dilation=1, bias=True):
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size must be odd, so that the length is kept, got {kernel_size}"
            )
        reach = kernel_size // 2 * dilation  # samples, to either side
        super().__init__(
            channels,
            channels,
            kernel_size,
            padding=reach,
            dilation=dilation,
            groups=channels,
            bias=bias,
        )
        self.reach = reach

    def forward(self, x):
        if x.dim() != 3 or x.shape[1] == 0 or x.shape[2] != self.in_channels:
            raise ValueError(
                f"x must be (windows, samples, {self.in_channels} channels), "
                f"got shape {list(x.shape)}"
            )
        if not torch.jit.is_scripting():
            if self._native_takes(x):
                y = _Depthwise.apply(
                    x.float().contiguous(), self.weight.squeeze(1), self.bias, self.dilation[0]
                )
                return y.to(x.dtype)
        return F.conv1d(
            x.transpose(1, 2),
            self.weight,
            self.bias,
            padding=self.reach,
            dilation=self.dilation,
            groups=self.groups,
        ).transpose(1, 2)

    @torch.jit.unused
    def _native_takes(self, x):
        if (
            _native is None or torch.jit.is_tracing() or _compiling()
        ):  # a trace does not see into the kernel
            return False
        return (
            x.device.type == "cpu"
            and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
            and self.weight.dtype == torch.float32
        )


class Normalize(nn.Module):
    """Takes the unit out of windows (B, C, T): each channel less its mean, and then, float32,

    "channel": in units of the channel's standard deviation; "window": of the typical channel's, so
    that channels keep their relative size, up to 30; "robust": less the median, in units of the
    median absolute deviation x 1.4826, up to 30; "none": as it is. A channel that is constant but
    for rounding becomes 0.
    """

    kinds = ("channel", "window", "robust", "none")

    def __init__(self, kind="channel"):
        super().__init__()
        if kind not in self.kinds:
            raise ValueError(f"normalize='{kind}': it is one of {', '.join(self.kinds)}")
        self.kind = kind

    def extra_repr(self):
        return self.kind

    @torch.no_grad()
    def forward(self, x):
        if self.kind == "none":
            return x
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            mean = x.mean(2, keepdim=True)
            x = x - mean
            spread = torch.linalg.vector_norm(x, dim=2, keepdim=True) / math.sqrt(x.shape[2])
            alive = (
                spread > 1e-6 * mean.abs()
            )  # no epsilon in any unit: volts are 1e-5 and microvolts 10
            if self.kind == "channel":
                return x * torch.where(alive, 1 / spread, 0)
            if self.kind == "window":
                spread = torch.nanmedian(
                    torch.where(alive, spread, torch.nan), 1, keepdim=True
                ).values
            else:
                x = x - x.median(2, keepdim=True).values
                mad = x.abs().median(2, keepdim=True).values * 1.4826
                spread = torch.where(mad > 0, mad, spread)
            return torch.where(alive, x / spread, 0).clamp(-30, 30)


def product(x, weight, bias=None):
    """x (B, T, in) times weight (out, in), plus bias.

    As the convolution of one-pixel images, channels last: on a CPU twice as fast as a linear layer,
    or more.
    """
    if x.device.type != "cpu" or torch.jit.is_scripting():
        return F.linear(x, weight, bias)
    return (
        F.conv2d(x.transpose(1, 2).unsqueeze(2), weight[:, :, None, None], bias)
        .squeeze(2)
        .transpose(1, 2)
    )


class Linear(nn.Linear):
    """nn.Linear for (B, T, in), as `product`."""

    def forward(self, x):
        return product(x, self.weight, self.bias)


class Pointwise(nn.Module):
    """A product over channels, then batch norm: (B, T, in) -> (B, T, out)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        x = product(x, self.weight)
        return self.norm(x.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)

    @torch.no_grad()
    def folded(self):
        """The same, but for rounding, in eval mode: the norm went into weight and bias."""
        scale = self.norm.weight * torch.rsqrt(self.norm.running_var + self.norm.eps)
        linear = Linear(*reversed(self.weight.shape)).to(self.weight)
        linear.weight.copy_(self.weight * scale[:, None])
        linear.bias.copy_(self.norm.bias - self.norm.running_mean * scale)
        return linear.eval().requires_grad_(False)


class Dropout(nn.Dropout):
    """nn.Dropout; on a CPU with 16 random bits for each element, p rounded to them: ten times as
    fast as torch's Bernoulli.
    """

    def forward(self, x):
        n = round(self.p * 65536)
        if not self.training or not x.is_cpu or n in (0, 65536):
            return super().forward(x)
        bits = (
            torch.empty(-(-x.numel() // 4), dtype=torch.int64)
            .random_(-(2**63), None)
            .view(torch.int16)
        )
        return x * (bits[: x.numel()].view(x.shape) >= n - 32768).to(x.dtype).mul_(
            65536 / (65536 - n)
        )


class Stem(nn.Module):
    """Windows (B, C, T)

    -> (B, T, W): a temporal filter for each electrode, then W mixtures of electrodes.
    """

    def __init__(self, n_chans, width, kernel=15):
        super().__init__()
        self.filter, self.mix = (
            DepthwiseConv1d(n_chans, kernel, bias=False),
            Pointwise(n_chans, width),
        )

    def forward(self, x):
        return F.relu(self.mix(self.filter(x.transpose(1, 2))))


class Block(nn.Module):
    """Depthwise-separable convolution beside a short cut: (B, T, W) -> (B, T, W)."""

    def __init__(self, width, kernel=15, dilation=1, dropout=0.0):
        super().__init__()
        self.depthwise = DepthwiseConv1d(width, kernel, dilation, bias=False)
        self.pointwise = Pointwise(width, width)
        self.dropout = dropout

    def forward(self, x):
        change = F.relu(self.pointwise(self.depthwise(x)))
        if self.training and self.dropout:  # whole channels of a window
            change = change * F.dropout(change.new_ones(len(x), 1, x.shape[2]), self.dropout)
        return x + change


class Head(nn.Module):
    """Squeeze-and-excitation, then the answer: (B, T, W)

    -> (B, T) scores of moments, or (B, n_outputs) numbers of the mean over time.

    The gates multiply channels, and so do the weights behind them: gates go into the weights, and x
    is read once.
    """

    def __init__(self, kind, width, n_outputs):
        super().__init__()
        self.kind = kind
        self.squeeze, self.excite = (
            nn.Linear(width, max(8, width // 8)),
            nn.Linear(max(8, width // 8), width),
        )
        self.last = nn.Linear(width, n_outputs)

    def forward(self, x):
        mean = x.mean(1)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(mean))))
        if self.kind == "time":
            return (
                torch.bmm(x, (gate * self.last.weight).unsqueeze(2).to(x.dtype)).squeeze(2)
                + self.last.bias
            )
        return self.last(mean * gate)


def halved(x):
    """Means of neighbouring samples: (B, T, W)

    -> (B, T / 2 rounded up, W); an odd last sample stays.
    """
    if x.shape[1] % 2:
        x = torch.cat([x, x[:, -1:]], 1)
    return x.unflatten(1, (-1, 2)).mean(2)
