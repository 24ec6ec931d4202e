"""Layers that the networks share."""

import math

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

try:
    from eeg import _native
except ImportError:  # not built, or a submission: torch does it, more slowly
    _native = None
_compiling = getattr(torch.compiler, "is_compiling", lambda: False)  # from torch 2.3 on


def _array(tensor):
    return None if tensor is None else tensor.detach().numpy()


class _Depthwise(torch.autograd.Function):
    """x (B, T, C), weight (C, K), bias (C) or None -> (B, T, C): csrc/depthwise.hpp under autograd. float32 on the CPU, contiguous."""

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
    """A temporal filter of odd length for each channel, zero-padded: (windows, samples, channels) -> the same shape.

    Channels come last: the convolution is fastest so, and a pointwise layer beside it is a plain matrix product.
    Parameters and their names are those of torch's Conv1d(groups=channels). The native kernel takes float32 on the CPU, and what
    autocast halved there; everything else goes to torch.
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
                f"x must be (windows, samples, {self.in_channels} channels), got shape {list(x.shape)}"
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

    "channel": in units of the channel's standard deviation; "window": of the typical channel's, so that channels keep their
    relative size, up to 30; "robust": less the median, in units of the median absolute deviation x 1.4826, up to 30;
    "none": as it is. A channel that is constant but for rounding becomes 0.
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
    """x (B, T, in) times weight (out, in), plus bias. As the convolution of one-pixel images, channels last: on a CPU twice as fast as a linear layer, or more."""
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
    """nn.Dropout; on a CPU with 16 random bits for each element, p rounded to them: ten times as fast as torch's Bernoulli."""

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
    """Windows (B, C, T) -> (B, T, W): a temporal filter for each electrode, then W mixtures of electrodes."""

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
    """Squeeze-and-excitation, then the answer: (B, T, W) -> (B, T) scores of moments, or (B, n_outputs) numbers of the mean over time.

    The gates multiply channels, and so do the weights behind them: gates go into the weights, and x is read once.
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
    """Means of neighbouring samples: (B, T, W) -> (B, T / 2 rounded up, W); an odd last sample stays."""
    if x.shape[1] % 2:
        x = torch.cat([x, x[:, -1:]], 1)
    return x.unflatten(1, (-1, 2)).mean(2)


class NeuroFeatures(nn.Module):
    """The features of eeg/data/features.py, for a model that computes them itself: (N, C, T) -> (N, F), no extension needed.

    x must be in microvolts (multiply volts by 1e6), at 100 Hz; channels: its channel names. The columns, listed in `names`,
    are those of the cache, equal to 1e-4 of their spread; what cannot be computed is NaN. With median and mad (F), of the
    training subjects, the output is (features - median) / mad within +-10 and 0 for NaN, fit for a network.
    float32 inside, autocast or not. No gradient flows: peaks and onsets have none.
    """

    bands = {
        "delta": (0.5, 4),
        "theta": (4, 8),
        "alpha": (8, 13),
        "beta": (13, 30),
        "gamma": (30, 45),
    }  # Hz
    lags = (5, 10, 25, 50, 100)  # samples
    groups = {
        "parietal": ("E62", "E54", "E79", "E55", "E61", "E78", "E67", "E77", "E72"),
        "motor_left": ("E36", "E35", "E30", "E29", "E41", "E42", "E37"),
        "motor_right": ("E104", "E110", "E105", "E111", "E103", "E93", "E87"),
        "frontal": ("E11", "E16", "E10", "E18", "E19", "E4", "E12", "E5", "E24", "E124"),
        "occipital": ("E75", "E70", "E83", "E71", "E76", "E74", "E82", "E65", "E90"),
    }

    def __init__(
        self, channels=tuple(f"E{i}" for i in range(1, 129)) + ("Cz",), median=None, mad=None
    ):
        super().__init__()
        channels = list(channels)
        for group, members in self.groups.items():
            self.register_buffer(
                f"_{group}",
                torch.tensor([channels.index(name) for name in members]),
                persistent=False,
            )
        self.register_buffer(
            "median", None if median is None else torch.as_tensor(median, dtype=torch.float32)
        )
        self.register_buffer(
            "mad", None if mad is None else torch.as_tensor(mad, dtype=torch.float32)
        )
        quarters = lambda name: [f"{name}_{q}" for q in range(1, 5)]
        own = [*self.bands, "log_power", "mobility", "complexity", "line_length", "kurtosis"]
        self.names = (
            [
                "p300_amplitude",
                "p300_latency",
                "n200_amplitude",
                "cpp_slope",
                *quarters("cpp"),
                "motor_slope",
                "motor_amplitude",
                "lrp_amplitude",
                "lrp_onset",
                "lrp_side",
            ]
            + [
                *quarters("mu"),
                *quarters("beta"),
                "alpha_suppression",
                "theta_beta_ratio",
                "ssvep20",
                "ssvep25",
                *quarters("ssvep_difference"),
            ]
            + ["alpha_peak_frequency", "alpha_peak_height", "aperiodic_slope", "aperiodic_offset"]
            + [f"{group}_{name}" for group in self.groups for name in own]
            + [
                f"lag{lag}_{name}"
                for lag in self.lags
                for name in ("absolute", "diagonal", "off_diagonal", "entropy")
            ]
        )

    @torch.no_grad()
    def forward(self, x):
        if x.shape[0] == 0 or x.shape[-1] < 2:  # a single sample is as flat as can be
            return x.new_full(
                (len(x), len(self.names)),
                torch.nan if self.median is None else 0,
                dtype=torch.float32,
            )
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            usable = torch.isfinite(x).all(-1) & (x != x[..., :1]).any(-1)  # (N, C)
            x = torch.where(usable[..., None], x, 0)
            columns = self._group_features(x, usable) + self._lagged(x)
            out = torch.stack(columns, 1)
            out = torch.where(torch.isfinite(out), out, torch.nan)
        if self.median is None:
            return out
        return torch.nan_to_num(((out - self.median) / self.mad).clamp(-10, 10))

    def _group_features(self, x, usable):
        n = x.shape[-1]
        d = x - x.mean(-1, keepdim=True)
        mean, wave, hann = {}, {}, {}  # by group: (N, 10) of channel means, (N, T), (N, K)
        everyone = torch.unique(torch.cat([getattr(self, f"_{group}") for group in self.groups]))
        average = lambda values, index: (
            torch.where(usable[:, index, None], values, 0).sum(1) / usable[:, index].sum(1)[:, None]
        )
        for group in self.groups:
            index = getattr(self, f"_{group}")
            mean[group] = average(self._channel_features(x[:, index], d[:, index]), index)
            wave[group] = average(d[:, index], index)
            hann[group] = average(_spectrum(d[:, index]), index)
        cpp, left, right = wave["parietal"], wave["motor_left"], wave["motor_right"]
        columns = _positivity(cpp) + list(_quarters(cpp).mean(-1).T)
        both = (left + right) / 2
        smooth = _smoothed(both)
        columns += [
            _slope(both),
            smooth.amin(-1) if smooth.shape[-1] else both.new_full((len(x),), torch.nan),
        ]
        columns += _lateralised(left - right)

        motor = torch.cat([self._motor_left, self._motor_right])
        power, hertz = _hann_power(_quarters(d[:, motor])), _bins(n // 4, x)  # (N, channels, 4, K)
        for low, high in ((8, 13), (13, 30)):
            course = (power[..., _between(hertz, low, high)].sum(-1) * usable[:, motor, None]).sum(
                1
            )
            columns += list(torch.log10(4 * course / course.sum(-1, keepdim=True)).T)
        halves = (
            d[:, self._occipital][..., : n // 2 * 2].unflatten(-1, (2, n // 2))
            if n > 1
            else d[:, self._occipital, None, :0].expand(-1, -1, 2, -1)
        )
        alpha = (
            _hann_power(halves)[..., _between(_bins(n // 2, x), 8, 13)].sum(-1)
            * usable[:, self._occipital, None]
        ).sum(1)
        columns += [
            torch.log10(alpha[:, 1] / alpha[:, 0]),
            torch.log10(mean["frontal"][:, 1] / mean["frontal"][:, 3]),
        ]
        seen = wave["occipital"]
        columns += [_amplitude(seen, 20), _amplitude(seen, 25)]
        columns += list((_amplitude(_quarters(seen), 20) - _amplitude(_quarters(seen), 25)).T)
        columns += _alpha_peak(hann["occipital"], n) + list(
            _aperiodic(average(_spectrum(d[:, everyone]), everyone), n)
        )
        for group in self.groups:
            columns += [*torch.log10(mean[group][:, :6]).T, *mean[group][:, 6:].T]
        return columns

    def _channel_features(self, x, d):
        """(N, C, T), the same less its mean -> (N, C, 10): band powers, power, mobility, complexity, line length, kurtosis."""
        n = x.shape[-1]
        power, hertz = torch.fft.rfft(d).abs().square() * (2 / n**2), _bins(n, x)
        columns = []
        for low, high in self.bands.values():
            inside = _between(hertz, low, high)
            columns.append(
                power[..., inside].sum(-1)
                if inside.any()
                else torch.full_like(power[..., 0], torch.nan)
            )
        step = torch.diff(x, prepend=torch.zeros_like(x[..., :1]))
        bend = torch.diff(step, prepend=torch.zeros_like(x[..., :1]))
        longer = lambda a: F.pad(a, (1, 0))
        square = d.square().mean(-1)
        mobility = step.std(-1) / longer(x).std(-1)
        complexity = bend.std(-1) / longer(step).std(-1) / mobility
        line = torch.diff(x).abs().mean(-1)
        return torch.stack(
            [*columns, square, mobility, complexity, line, d.pow(4).mean(-1) / square.square()], -1
        )

    def _lagged(self, x):
        columns = []
        for lag in self.lags:
            if x.shape[-1] < lag + 3:
                columns += [x.new_full((len(x),), torch.nan)] * 4
                continue
            ends = [x[..., :-lag], x[..., lag:]]
            used = (ends[0] != ends[0][..., :1]).any(-1) & (ends[1] != ends[1][..., :1]).any(-1)
            ends = [part - part.mean(-1, keepdim=True) for part in ends]
            early, late = (
                torch.where(used[..., None], part / part.norm(dim=-1, keepdim=True), 0)
                for part in ends
            )
            r, n = early @ late.mT, used.sum(-1)
            diagonal, square = r.diagonal(dim1=1, dim2=2).sum(-1), r.square()
            total = square.sum((1, 2))
            entropy = total.log() - torch.xlogy(square, square).sum((1, 2)) / total
            columns += [
                r.abs().sum((1, 2)) / n**2,
                diagonal / n,
                (r.sum((1, 2)) - diagonal) / (n * (n - 1)),
                entropy / (2 * n.log()),
            ]
        return columns


def _bins(n, like):
    """Frequencies of an n-sample DFT at 100 Hz."""
    return torch.arange(n // 2 + 1, device=like.device, dtype=torch.float64) * (100 / max(n, 1))


def _between(hertz, low, high):
    return (hertz > low - 1e-6) & (hertz < high + 1e-6)


def _hann(n, like):
    return torch.hann_window(n, device=like.device, dtype=like.dtype)


def _hann_power(x):
    """|DFT|^2 under a Hann window along the last axis, less its mean."""
    n = x.shape[-1]
    if n == 0:
        return x.new_zeros((*x.shape[:-1], 1))
    return torch.fft.rfft((x - x.mean(-1, keepdim=True)) * _hann(n, x)).abs().square()


def _spectrum(x):
    """Hann periodogram, uV^2/Hz."""
    return _hann_power(x) * (2 / (100 * 0.375 * x.shape[-1]))


def _amplitude(x, hertz):
    """Amplitude at one frequency under a Hann window along the last axis."""
    n = x.shape[-1]
    if n < 2:
        return x.new_full(x.shape[:-1], torch.nan)
    angle = 2 * math.pi * hertz / 100 * torch.arange(n, device=x.device, dtype=torch.float64)
    window = _hann(n, x)
    basis = torch.stack([angle.cos(), angle.sin()], 1).to(x.dtype) * window[:, None]
    return 2 * ((x - x.mean(-1, keepdim=True)) @ basis).norm(dim=-1) / window.sum()


def _quarters(x):
    n = x.shape[-1] // 4
    return (
        x[..., : 4 * n].unflatten(-1, (4, n)) if n else x[..., None, :0].expand(*x.shape[:-1], 4, 0)
    )


def _smoothed(x):
    """Means over 10 samples, 100 ms. (N, T) -> (N, T - 9), none for shorter windows."""
    return x.unfold(-1, 10, 1).mean(-1) if x.shape[-1] >= 10 else x[:, :0]


def _slope(y):
    t = torch.arange(y.shape[-1], device=y.device, dtype=y.dtype) / 100
    t = t - t.mean()
    return (y - y.mean(-1, keepdim=True)) @ t / t.square().sum()


def _positivity(wave):
    smooth = _smoothed(wave)
    if not smooth.shape[-1]:
        return [wave.new_full((len(wave),), torch.nan)] * 4
    known = ~torch.isnan(wave[:, 0])
    j = torch.arange(smooth.shape[-1], device=wave.device)
    amplitude, peak = torch.nan_to_num(smooth).max(-1)
    low = torch.where(j <= peak[:, None], smooth, torch.inf).amin(-1)
    rise = ((j <= peak[:, None]) & (j >= peak[:, None] - 49)).to(
        wave.dtype
    )  # the 0.5 s before the peak
    count = rise.sum(-1)
    t = j / 100 - ((rise * j).sum(-1) / count / 100)[:, None]
    y = smooth - ((rise * smooth).sum(-1) / count)[:, None]
    slope = (rise * t * y).sum(-1) / (rise * t.square()).sum(-1)
    columns = [amplitude, (peak + 4.5) / 100, low, torch.where(count >= 10, slope, torch.nan)]
    return [torch.where(known, column, torch.nan) for column in columns]


def _lateralised(wave):
    smooth = _smoothed(wave)
    if not smooth.shape[-1]:
        return [wave.new_full((len(wave),), torch.nan)] * 3
    known = ~torch.isnan(wave[:, 0])
    smooth = torch.nan_to_num(smooth)
    amplitude, peak = smooth.abs().max(-1)
    at_peak = smooth.gather(1, peak[:, None])
    side = torch.where(at_peak > 0, 1.0, -1.0)
    j = torch.arange(smooth.shape[-1], device=wave.device)
    below = (side * smooth <= amplitude[:, None] / 2) & (j < peak[:, None])
    onset = torch.where(below, j + 1, 0).amax(
        -1
    )  # after the last sample that is not yet half of it
    columns = [amplitude, torch.where(onset > 0, (onset + 4.5) / 100, torch.nan), side[:, 0]]
    return [torch.where(known, column, torch.nan) for column in columns]


def _aperiodic(spectrum, n):
    """Slope and offset of log10 power over log10 frequency. (N, K) -> two (N,)"""
    hertz = _bins(n, spectrum)
    inside = (
        (_between(hertz, 2, 6) | _between(hertz, 14, 38))
        & ~_between(hertz, 19, 21)
        & ~_between(hertz, 24, 26)
    )
    if inside.sum() < 3:
        return [spectrum.new_full((len(spectrum),), torch.nan)] * 2
    x, y = hertz[inside].log10().to(spectrum.dtype), spectrum[:, inside].log10()
    slope = (y - y.mean(-1, keepdim=True)) @ (x - x.mean()) / (x - x.mean()).square().sum()
    return slope, y.mean(-1) - slope * x.mean()


def _alpha_peak(spectrum, n):
    hertz = _bins(n, spectrum)
    absent = [spectrum.new_full((len(spectrum),), torch.nan)] * 2
    if len(hertz) < 4:
        return absent
    slope, offset = _aperiodic(spectrum, n)
    inner = spectrum[:, 1:-1]
    candidate = (
        (inner > spectrum[:, :-2]) & (inner >= spectrum[:, 2:]) & _between(hertz, 6, 14)[1:-1]
    )
    candidate[:, 0] = False  # the bin beside 0 Hz
    height, k = torch.where(candidate, inner, -1.0).max(-1)
    k = k + 1
    low, here, high = (spectrum.gather(1, (k + step)[:, None])[:, 0].log10() for step in (-1, 0, 1))
    above = here - (offset + slope * hertz[k].log10().to(spectrum.dtype))
    there = (height > 0) & (above > math.log10(2))
    frequency = (k + 0.5 * (low - high) / (low - 2 * here + high)) * (100 / n)
    return [torch.where(there, frequency, torch.nan), torch.where(there, above, torch.nan)]
