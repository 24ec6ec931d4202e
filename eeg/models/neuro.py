"""The features as a layer, for a network that computes them from its own input."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .features import NEUROSCIENCE, TRANSITION, definitions
from .montage import BANDS, CHANNELS, GROUPS, LAGS, SFREQ

PEAK_SAMPLES = 10  # over which a wave is averaged before its peak is sought
RISE_SAMPLES = 50  # before a peak, over which the slope towards it is measured
RIDGE = 0.01  # of a transition matrix, in units of the mean diagonal of P P' / S
SPARSE = 0.05  # elements of a transition matrix that are smaller count as absent
AT_ONCE = 16  # windows whose transition matrices are computed together: 8 MB each way


class NeuroFeatures(nn.Module):
    """The features of features.py: (N, C, T) in microvolts, at 100 Hz -> (N, F), float32.

    channels: the names of the C channels. groups: of FEATURE_GROUPS. The columns, listed in
    `names`, are those of the cache and equal to them within 1e-4 of their spread; what cannot be
    computed is NaN. It needs no extension. No gradient flows: peaks and onsets have none.
    """

    def __init__(
        self, channels: tuple[str, ...] = CHANNELS, groups: tuple[str, ...] = (NEUROSCIENCE,)
    ):
        super().__init__()
        self.groups = groups
        for group, members in GROUPS.items():
            index = torch.tensor([channels.index(name) for name in members])
            self.register_buffer(f"_{group}", index, persistent=False)
        self.names = list(definitions(groups))

    def _of(self, group: str) -> torch.Tensor:
        """The channel numbers of a group."""
        return getattr(self, f"_{group}")

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] == 0 or x.shape[-1] < 2:  # a single sample has neither power nor slope
            return x.new_full((len(x), len(self.names)), torch.nan, dtype=torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            usable = torch.isfinite(x).all(-1) & (x != x[..., :1]).any(-1)  # (N, C)
            x = torch.where(usable[..., None], x, 0)
            parts = []
            if NEUROSCIENCE in self.groups:
                parts.append(torch.stack(self._group_features(x, usable) + self._lagged(x), 1))
            if "transition" in self.groups:
                parts.append(torch.cat([transition(part) for part in x.split(AT_ONCE)]))
            out = torch.cat(parts, 1)
            return torch.where(torch.isfinite(out), out, torch.nan)

    def _group_features(self, x, usable):
        """(N, C, T), which channels are usable

        -> columns (N,): all features but the lagged ones.
        """
        n = x.shape[-1]
        d = x - x.mean(-1, keepdim=True)

        def average(values, index):
            """Mean over the usable channels of `index`, of values (N, len(index), ...)."""
            total = torch.where(usable[:, index, None], values, 0).sum(1)
            return total / usable[:, index].sum(1)[:, None]

        mean, wave = {}, {}  # by group: (N, 10) of channel features, (N, T)
        for group in GROUPS:
            index = self._of(group)
            mean[group] = average(_channel_features(x[:, index], d[:, index]), index)
            wave[group] = average(d[:, index], index)
        everyone = torch.unique(torch.cat([self._of(group) for group in GROUPS]))
        seen = wave["occipital"]
        occipital_spectrum = average(_spectrum(d[:, self._occipital]), self._occipital)
        whole_spectrum = average(_spectrum(d[:, everyone]), everyone)

        columns = _positivity(wave["parietal"]) + list(_quarters(wave["parietal"]).mean(-1).T)
        columns += _motor_wave((wave["motor_left"] + wave["motor_right"]) / 2)
        columns += _lateralised(wave["motor_left"] - wave["motor_right"])
        columns += self._motor_rhythms(d, usable)
        columns.append(self._alpha_suppression(d, usable))
        columns.append(torch.log10(mean["frontal"][:, 1] / mean["frontal"][:, 3]))
        columns += [_amplitude(seen, 20), _amplitude(seen, 25)]
        columns += list((_amplitude(_quarters(seen), 20) - _amplitude(_quarters(seen), 25)).T)
        columns += _alpha_peak(occipital_spectrum, n) + list(_aperiodic(whole_spectrum, n))
        for group in GROUPS:
            columns += [*torch.log10(mean[group][:, :6]).T, *mean[group][:, 6:].T]
        return columns

    def _motor_rhythms(self, d, usable):
        """log10 power of mu and of beta in each quarter, relative to the mean of the quarters."""
        motor = torch.cat([self._motor_left, self._motor_right])
        power, hertz = _hann_power(_quarters(d[:, motor])), _bins(d.shape[-1] // 4, d)
        columns = []
        for low, high in (BANDS["alpha"], BANDS["beta"]):
            inside = power[..., _between(hertz, low, high)].sum(-1)  # (N, channels, 4)
            course = (inside * usable[:, motor, None]).sum(1)
            columns += list(torch.log10(4 * course / course.sum(-1, keepdim=True)).T)
        return columns

    def _alpha_suppression(self, d, usable):
        """log10 of occipital alpha power in the second half over the first."""
        half = d.shape[-1] // 2
        halves = d[:, self._occipital][..., : 2 * half].unflatten(-1, (2, half))
        inside = _between(_bins(half, d), *BANDS["alpha"])
        power = _hann_power(halves)[..., inside].sum(-1) * usable[:, self._occipital, None]
        alpha = power.sum(1)
        return torch.log10(alpha[:, 1] / alpha[:, 0])

    def _lagged(self, x):
        """Correlations between all channels, one of them LAGS samples later."""
        columns = []
        for lag in LAGS:
            if x.shape[-1] < lag + 3:
                columns += [x.new_full((len(x),), torch.nan)] * 4
                continue
            r, used = _lagged_correlations(x, lag)
            n = used.sum(-1)
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


def _lagged_correlations(x, lag):
    """(N, C, T) -> r (N, C, C) of each channel with each `lag` samples later, zero where one of the
    two does not move, and which channels do (N, C)"""
    ends = [x[..., :-lag], x[..., lag:]]
    used = (ends[0] != ends[0][..., :1]).any(-1) & (ends[1] != ends[1][..., :1]).any(-1)
    ends = [part - part.mean(-1, keepdim=True) for part in ends]
    early, late = (
        torch.where(used[..., None], part / part.norm(dim=-1, keepdim=True), 0) for part in ends
    )
    return early @ late.mT, used


def transition(x: torch.Tensor) -> torch.Tensor:
    """The features TRANSITION: (N, C, T), unusable channels zero -> (N, 23) float32."""
    z = x.double() - x.double().mean(-1, keepdim=True)
    z = z / z.std(-1, unbiased=False, keepdim=True).clamp_min(1e-30)
    found, product, end = {}, 0.0, 0
    for lag in reversed([lag for lag in LAGS if x.shape[-1] >= lag + 3]):
        # P P' of a shorter lag is that of a longer one, and some samples more
        more, end = z[..., end : x.shape[-1] - lag], x.shape[-1] - lag
        product = product + more @ more.mT
        r, used = _lagged_correlations(x, lag)
        own = _about_correlations(r, used)
        own |= _about_transition(_transition_matrix(z, product, used, lag), used)
        known = used.sum(-1) > 1
        for name, value in own.items():
            found[f"lag{lag}_{name}"] = torch.where(known, value, torch.nan).float()
    unknown = x.new_full((len(x),), torch.nan)
    return torch.stack([found.get(name, unknown) for name in TRANSITION], 1)


def _transition_matrix(z, product, used, lag):
    """A (N, C, C), zero where a channel is not used. product: P P'.

    In float64: the inverse of a covariance of 129 channels loses four digits.
    """
    past, samples, n = z[..., :-lag], z.shape[-1] - lag, used.sum(-1)
    pairs = used[:, :, None] & used[:, None]
    covariance = torch.where(pairs, product / samples, 0)
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    # where no channel is used there is no mean, and none is asked for
    mean = torch.where(n > 0, diagonal.sum(-1) / n, 1)
    diagonal += RIDGE * mean[:, None]
    across = torch.where(pairs, past @ z[..., lag:].mT / samples, 0)
    return torch.cholesky_solve(across, torch.linalg.cholesky(covariance)).mT


def _about_correlations(r, used):
    """{the last part of a feature's name: (N,)}"""
    n, size = used.sum(-1), r.abs()
    total = size.sum((1, 2))
    return {
        "corr_mean_abs": total / n**2,
        **_diagonal_and_off(r, n, "corr"),
        "corr_entropy": total.log() - torch.xlogy(size, size).sum((1, 2)) / total,
    }


def _about_transition(a, used):
    """{the last part of a feature's name: (N,)}"""
    n, pairs = used.sum(-1), used[:, :, None] & used[:, None]
    return {
        "A_mean_abs": a.abs().sum((1, 2)) / n**2,
        **_diagonal_and_off(a, n, "A"),
        "A_fro": a.square().sum((1, 2)).sqrt(),
        "A_asym_mean_abs": (a - a.mT).abs().sum((1, 2)) / n**2,
        "A_sparsity": ((a.abs() < SPARSE) & pairs).sum((1, 2)) / n**2,
    }


def _diagonal_and_off(matrix, n, name):
    """The mean of the diagonal, and of what is beside it, over n usable channels."""
    diagonal = matrix.diagonal(dim1=1, dim2=2).sum(-1)
    off = (matrix.sum((1, 2)) - diagonal) / (n * (n - 1))
    return {f"{name}_diag_mean": diagonal / n, f"{name}_off_mean": off}


def _channel_features(x, d):
    """(N, C, T), the same less its mean -> (N, C, 10).

    Band powers, power, mobility, complexity, line length, kurtosis.
    """
    n = x.shape[-1]
    power, hertz = torch.fft.rfft(d).abs().square() * (2 / n**2), _bins(n, x)
    columns = []
    for low, high in BANDS.values():
        inside = _between(hertz, low, high)
        empty = torch.full_like(power[..., 0], torch.nan)
        columns.append(power[..., inside].sum(-1) if inside.any() else empty)
    step = torch.diff(x, prepend=torch.zeros_like(x[..., :1]))
    bend = torch.diff(step, prepend=torch.zeros_like(x[..., :1]))
    longer = lambda a: F.pad(a, (1, 0))
    square = d.square().mean(-1)
    mobility = step.std(-1) / longer(x).std(-1)
    complexity = bend.std(-1) / longer(step).std(-1) / mobility
    line = torch.diff(x).abs().mean(-1)
    kurtosis = d.pow(4).mean(-1) / square.square()
    return torch.stack([*columns, square, mobility, complexity, line, kurtosis], -1)


def _motor_wave(both):
    """Slope and lowest point of the motor potential, the mean of both sides."""
    smooth = _smoothed(both)
    unknown = both.new_full((len(both),), torch.nan)
    return [_slope(both), smooth.amin(-1) if smooth.shape[-1] else unknown]


def _bins(n, like):
    """Frequencies of the DFT of n samples, Hz."""
    return torch.arange(n // 2 + 1, device=like.device, dtype=torch.float64) * (SFREQ / max(n, 1))


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
    return _hann_power(x) * (2 / (SFREQ * 0.375 * x.shape[-1]))


def _amplitude(x, hertz):
    """Amplitude at one frequency under a Hann window along the last axis."""
    n = x.shape[-1]
    if n < 2:
        return x.new_full(x.shape[:-1], torch.nan)
    angle = 2 * math.pi * hertz / SFREQ * torch.arange(n, device=x.device, dtype=torch.float64)
    window = _hann(n, x)
    basis = torch.stack([angle.cos(), angle.sin()], 1).to(x.dtype) * window[:, None]
    return 2 * ((x - x.mean(-1, keepdim=True)) @ basis).norm(dim=-1) / window.sum()


def _quarters(x):
    """(..., T) -> (..., 4, T // 4)"""
    n = x.shape[-1] // 4
    return (
        x[..., : 4 * n].unflatten(-1, (4, n)) if n else x[..., None, :0].expand(*x.shape[:-1], 4, 0)
    )


def _smoothed(x):
    """Means over 100 ms: (N, T) -> (N, T - 9), none for shorter windows."""
    return x.unfold(-1, PEAK_SAMPLES, 1).mean(-1) if x.shape[-1] >= PEAK_SAMPLES else x[:, :0]


def _middle_s(index):
    """Time of the middle of a smoothed sample, s from the start of the window."""
    return (index + (PEAK_SAMPLES - 1) / 2) / SFREQ


def _slope(y):
    """Of a straight line through (N, T), per second."""
    t = torch.arange(y.shape[-1], device=y.device, dtype=y.dtype) / SFREQ
    t = t - t.mean()
    return (y - y.mean(-1, keepdim=True)) @ t / t.square().sum()


def _positivity(wave):
    """Peak amplitude, its latency, the lowest point before it, and the slope towards it."""
    smooth = _smoothed(wave)
    if not smooth.shape[-1]:
        return [wave.new_full((len(wave),), torch.nan)] * 4
    known = ~torch.isnan(wave[:, 0])
    j = torch.arange(smooth.shape[-1], device=wave.device)
    amplitude, peak = torch.nan_to_num(smooth).max(-1)
    low = torch.where(j <= peak[:, None], smooth, torch.inf).amin(-1)
    rise = ((j <= peak[:, None]) & (j > peak[:, None] - RISE_SAMPLES)).to(wave.dtype)
    count = rise.sum(-1)
    t = j / SFREQ - ((rise * j).sum(-1) / count / SFREQ)[:, None]
    y = smooth - ((rise * smooth).sum(-1) / count)[:, None]
    slope = (rise * t * y).sum(-1) / (rise * t.square()).sum(-1)
    columns = [amplitude, _middle_s(peak), low, torch.where(count >= 10, slope, torch.nan)]
    return [torch.where(known, column, torch.nan) for column in columns]


def _lateralised(wave):
    """Largest amplitude of the difference of the sides, its onset, and its sign."""
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
    # after the last sample that is not yet half of it
    onset = torch.where(below, j + 1, 0).amax(-1)
    columns = [amplitude, torch.where(onset > 0, _middle_s(onset), torch.nan), side[:, 0]]
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
    """Frequency of the highest peak of 6 to 14 Hz, and its log10 height over the aperiodic part."""
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
    frequency = (k + 0.5 * (low - high) / (low - 2 * here + high)) * (SFREQ / n)
    return [torch.where(there, frequency, torch.nan), torch.where(there, above, torch.nan)]
