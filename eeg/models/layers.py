"""Layers that the networks share."""

import math
from pathlib import Path

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

try:
    from eeg import _native  # type: ignore[attr-defined]

    elsewhere = Path(_native.__file__).parent != Path(__file__).parents[1]  # another checkout's
    if elsewhere or not hasattr(_native, "norm_forward"):  # or built before this file was changed
        _native = None
except ImportError:  # not built, or a submission: torch does it, more slowly
    _native = None
_transformed = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)
_compiling = getattr(torch.compiler, "is_compiling", lambda: False)  # from torch 2.3 on


def _array(tensor):
    """As the native side takes it: bfloat16 by its bits, which NumPy lacks."""
    if tensor is None:
        return None
    tensor = tensor.detach()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


class _Depthwise(torch.autograd.Function):
    """x (B, T, C), weight (C, K), bias (C) or None -> (B, T, C): csrc/depthwise.hpp under
    autograd. On the CPU, contiguous; x float32 or bfloat16, the others float32.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, dilation):
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        y = torch.empty(x.shape, dtype=x.dtype, device="cpu")
        inputs, threads = map(_array, (x, weight, bias)), torch.get_num_threads()
        _native.depthwise_forward(*inputs, dilation, _array(y), threads)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gy):
        x, weight = ctx.saved_tensors
        shapes = x.shape, weight.shape, weight.shape[:1]
        types = x.dtype, torch.float32, torch.float32  # whatever torch's defaults are
        gradients = [
            torch.empty(shape, dtype=dtype, device="cpu") if wanted else None
            for shape, dtype, wanted in zip(shapes, types, ctx.needs_input_grad)
        ]
        inputs, threads = map(_array, (x, weight, gy.contiguous())), torch.get_num_threads()
        _native.depthwise_backward(*inputs, ctx.dilation, *map(_array, gradients), threads)
        return *gradients, None


class DepthwiseConv1d(nn.Conv1d):
    """A zero-padded temporal filter of odd length for each channel: (windows, samples, channels),
    the same shape out.

    With channels last the convolution is fastest, and a pointwise layer beside it is a plain matrix
    product. Parameters and their names are those of torch's Conv1d(groups=channels). The native
    kernel takes float32 on the CPU, and what autocast halved there; torch does everything else.
    """

    def __init__(self, channels, kernel_size, dilation=1, bias=True):
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, to keep the length, got {kernel_size}")
        reach = kernel_size // 2 * dilation  # samples, to either side
        settings = dict(padding=reach, dilation=dilation, groups=channels, bias=bias)
        super().__init__(channels, channels, kernel_size, **settings)
        self.reach = reach

    def forward(self, x):
        if x.dim() != 3 or x.shape[1] == 0 or x.shape[2] != self.in_channels:
            expected = f"(windows, samples, {self.in_channels} channels)"
            raise ValueError(f"x must be {expected}, got shape {list(x.shape)}")
        if not torch.jit.is_scripting():
            if self._native_takes(x):
                seen, weight = x.contiguous(), self.weight.squeeze(1).contiguous()
                if x.dtype == torch.float16:
                    seen = seen.float()
                return _Depthwise.apply(seen, weight, self.bias, self.dilation[0]).to(x.dtype)
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
        if _native is None or torch.jit.is_tracing() or _compiling() or _transformed():
            return False  # a trace or torch.func does not see into the kernel
        return (
            x.device.type == "cpu"
            and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
            and self.weight.dtype == torch.float32
        )


def microvolts(x):
    """Windows (B, C, T) in volts or microvolts -> the same in microvolts. The typical electrode of
    a window spreads by more than 10 nV and less than 10 mV.
    """
    x = x.float()
    spread = x.std(2)
    typical = torch.nanmedian(torch.where(spread > 0, spread, torch.nan), 1).values
    return x * torch.where(typical < 1e-2, 1e6, 1.0)[:, None, None]


UNIT = 30.0  # microvolts; the background of a child's EEG spreads by 10 to 25


class Normalize(nn.Module):
    """Takes the unit out of windows (B, C, T), in float32: subtracts each channel's mean and then

    "channel": divides by the channel's standard deviation; "window": by that of the typical
    channel, so that channels keep their relative size; "robust": subtracts the median and divides
    by 1.4826 times the median absolute deviation. "amplitude" keeps all sizes: it takes microvolts,
    and compresses what is larger than UNIT. "spread" and "level" are "channel" and "amplitude"
    without subtracting the mean: of recordings without slow drifts it tells where in a slow wave
    the window lies. "hundreds" are hundreds of microvolts, as some published encoders take them.
    "none" changes nothing. A channel that is constant but for rounding becomes 0, but with "level".
    "window", "robust" and "spread" stop at +-30, "hundreds" at +-10.
    """

    def __init__(self, kind="channel"):
        super().__init__()
        self.kind = kind

    def extra_repr(self):
        return self.kind

    @torch.no_grad()
    def forward(self, x):
        if self.kind == "none":
            return x
        with torch.autocast(x.device.type, enabled=False):
            whole = x.to(torch.promote_types(x.dtype, torch.float32))
            if self.kind == "level":
                return torch.asinh(microvolts(whole) / UNIT)
            mean = whole.mean(2, keepdim=True)
            x = whole - mean
            if self.kind == "amplitude":
                return torch.asinh(microvolts(x) / UNIT)
            if self.kind == "hundreds":
                return (microvolts(x) / 100).clamp(-10, 10)
            spread = torch.linalg.vector_norm(x, dim=2, keepdim=True) / math.sqrt(x.shape[2])
            alive = spread > 1e-6 * mean.abs()  # relative: volts are 1e-5 and microvolts 10
            if self.kind == "channel":
                return x * torch.where(alive, 1 / spread, 0)
            if self.kind == "spread":
                return (whole * torch.where(alive, 1 / spread, 0)).clamp(-30, 30)
            if self.kind == "window":
                known = torch.where(alive, spread, torch.nan)
                spread = torch.nanmedian(known, 1, keepdim=True).values
            elif self.kind != "robust":
                raise ValueError(f"normalize='{self.kind}' is not a single kind of normalisation")
            else:
                x = x - x.median(2, keepdim=True).values
                mad = x.abs().median(2, keepdim=True).values * 1.4826
                spread = torch.where(mad > 0, mad, spread)
            return torch.where(alive, x / spread, 0).clamp(-30, 30)


class Normals(nn.Module):
    """Windows (B, C, T) -> (kinds, B, C, T), normalised in several ways."""

    def __init__(self, kinds):
        super().__init__()
        self.each = nn.ModuleList(Normalize(kind) for kind in kinds)

    def forward(self, x):
        return torch.stack([one(x).float() for one in self.each])


def product(x, weight, bias=None):
    """x (B, T, in) times weight (out, in), plus bias. On a CPU it is computed as a convolution of
    one-pixel images, channels last, which is at least twice as fast as a linear layer.
    """
    if x.device.type != "cpu" or torch.jit.is_scripting():
        return F.linear(x, weight, bias)
    image = x.transpose(1, 2).unsqueeze(2)
    return F.conv2d(image, weight[:, :, None, None], bias).squeeze(2).transpose(1, 2)


class Linear(nn.Linear):
    """nn.Linear for (B, T, in), computed by `product`."""

    def forward(self, x):
        return product(x, self.weight, self.bias)


class NormReLU(torch.autograd.Function):
    """z (B, T, C), residual (B, T, C) or None, mask (B, C) or None, a batch norm's gain, bias and
    eps -> residual + mask * relu(norm(z)), mean (C), biased variance (C): csrc/norm.hpp under
    autograd. z and residual are float32 or bfloat16 on the CPU, contiguous; the others float32.
    """

    @staticmethod
    def forward(ctx, z, residual, mask, gain, bias, eps):
        y = torch.empty(z.shape, dtype=z.dtype, device="cpu")
        like = {"dtype": torch.float32, "device": "cpu"}  # whatever torch's defaults are
        mean, variance = torch.empty(gain.shape, **like), torch.empty(gain.shape, **like)
        given = _array(z), _array(residual), _array(mask), _array(gain), _array(bias), eps
        outputs = _array(y), _array(mean), _array(variance)
        _native.norm_forward(*given, *outputs, torch.get_num_threads())
        ctx.save_for_backward(z, mask, gain, bias, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, gy, *_):
        z, mask, gain, bias, mean, variance = ctx.saved_tensors
        gy = gy.contiguous()
        gz = torch.empty(z.shape, dtype=z.dtype, device="cpu")
        like = {"dtype": torch.float32, "device": "cpu"}
        sums = torch.empty(gain.shape, **like), torch.empty(gain.shape, **like)
        given = _array(z), *map(_array, (mask, gain, bias)), ctx.eps, _array(mean), _array(variance)
        outputs = _array(gy), _array(gz), *map(_array, sums)
        _native.norm_backward(*given, *outputs, torch.get_num_threads())
        return gz, gy if ctx.needs_input_grad[1] else None, None, *sums, None


@torch.jit.unused
def _norm_takes(norm, z, residual):
    """Whether NormReLU can do it: batch norm as it is trained, on the CPU."""
    if _native is None or torch.jit.is_tracing() or _compiling() or _transformed():
        return False
    if not norm.training or norm.weight is None or norm.weight.dtype != torch.float32:
        return False
    return (
        z.device.type == "cpu"
        and z.dtype in (torch.float32, torch.bfloat16)
        and z.numel() > 0
        and z.shape[0] * z.shape[1] > 1
        and z.is_contiguous()
        and (residual is None or (residual.dtype == z.dtype and residual.is_contiguous()))
    )


@torch.no_grad()
def _track(norm, mean, variance, n):
    """Updates the running statistics as nn.BatchNorm2d.forward does, from moments of n values."""
    if not norm.track_running_stats:
        return
    norm.num_batches_tracked += 1
    rate = 1 / norm.num_batches_tracked.item() if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, rate)
    norm.running_var.lerp_(variance * (n / (n - 1)), rate)


def activated(layer, x, mask=None, residual=None):
    """residual + mask * relu(layer(x)), for a Pointwise or what folding made of it. x, residual
    (B, T, C), mask (B, C) or None.

    In training on the CPU, all that follows the product goes through memory once each way.
    """
    if isinstance(layer, Pointwise):
        z, norm = product(x, layer.weight), layer.norm
        if _norm_takes(norm, z, residual):
            given = z, residual, mask, norm.weight, norm.bias, norm.eps
            y, mean, variance = NormReLU.apply(*given)
            _track(norm, mean, variance, z.shape[0] * z.shape[1])
            return y
        change = F.relu(layer.normed(z))
    else:
        change = F.relu(layer(x))
    if mask is not None:
        change = change * mask[:, None].to(change.dtype)
    return change if residual is None else residual + change


class Pointwise(nn.Module):
    """A product over channels, then batch norm: (B, T, in) -> (B, T, out)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.normed(product(x, self.weight))

    def normed(self, x):
        return self.norm(x.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)

    @torch.no_grad()
    def folded(self):
        """A layer equal to this one in eval mode, up to rounding: weight and bias hold the norm."""
        scale = self.norm.weight * torch.rsqrt(self.norm.running_var + self.norm.eps)
        linear = Linear(*reversed(self.weight.shape)).to(self.weight)
        linear.weight.copy_(self.weight * scale[:, None])
        linear.bias.copy_(self.norm.bias - self.norm.running_mean * scale)
        return linear.eval().requires_grad_(False)


class Dropout(nn.Dropout):
    """nn.Dropout. On a CPU it draws 16 random bits an element, and rounds p to them: ten times as
    fast as torch's Bernoulli.
    """

    def forward(self, x):
        n = round(self.p * 65536)
        if not self.training or not x.is_cpu or n in (0, 65536):
            return super().forward(x)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        return x * (bits >= n - 32768).to(x.dtype).mul_(65536 / (65536 - n))


class Stem(nn.Module):
    """(B, C, T) -> (B, T, W): a temporal filter for each electrode, then W mixtures of these."""

    def __init__(self, n_chans, width, kernel=15):
        super().__init__()
        self.filter = DepthwiseConv1d(n_chans, kernel, bias=False)
        self.mix = Pointwise(n_chans, width)

    def forward(self, x):
        return activated(self.mix, self.filter(x.transpose(1, 2)))


class Block(nn.Module):
    """A residual depthwise-separable convolution: (B, T, W) -> (B, T, W)."""

    def __init__(self, width, kernel=15, dilation=1, dropout=0.0):
        super().__init__()
        self.depthwise = DepthwiseConv1d(width, kernel, dilation, bias=False)
        self.pointwise = Pointwise(width, width)
        self.dropout = dropout

    def forward(self, x):
        mask = None
        if self.training and self.dropout:  # whole channels of a window
            mask = F.dropout(x.new_ones(len(x), x.shape[2], dtype=torch.float32), self.dropout)
        return activated(self.pointwise, self.depthwise(x), mask, x)


class Head(nn.Module):
    """(B, T, W) -> (B, T) scores of moments, or (B, n_outputs) numbers from the mean over time.

    Squeeze-and-excitation, then the answer. Both gates and weights multiply channels, so the gates
    go into the weights, and x is read once.
    """

    def __init__(self, kind, width, n_outputs):
        super().__init__()
        self.kind = kind
        squeezed = max(8, width // 8)
        self.squeeze, self.excite = nn.Linear(width, squeezed), nn.Linear(squeezed, width)
        self.last = nn.Linear(width, n_outputs)

    def forward(self, x):
        mean = x.mean(1)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(mean))))
        if self.kind == "time":
            weight = (gate * self.last.weight).unsqueeze(2).to(x.dtype)
            return torch.bmm(x, weight).squeeze(2) + self.last.bias
        return self.last(mean * gate)


def halved(x):
    """(B, T, W) -> (B, T / 2 rounded up, W): means of two samples; an odd last one stays."""
    if x.shape[1] % 2:
        x = torch.cat([x, x[:, -1:]], 1)
    return x.unflatten(1, (-1, 2)).mean(2)
