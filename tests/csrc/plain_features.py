"""Simulated signals, and the features of windows by SciPy and NumPy, one channel at a time."""

import numpy as np
import scipy.signal
import scipy.stats

from eeg.models.features import FEATURES
from eeg.models.montage import BANDS

KERNEL = [name for name in FEATURES if not name.startswith("lag")]
# a small net; channels may be in two groups
LAYOUT = dict(parietal=[0, 1, 2], motor_left=[3, 4], motor_right=[5, 6])
LAYOUT |= dict(frontal=[7, 2], occipital=[8, 9, 0])


def signals(n, c, t, seed=0, rhythm=(5, 20)):
    """Something like EEG: a wandering baseline, a 10 Hz rhythm, noise and an offset."""
    rng = np.random.default_rng(seed)
    phase, size = rng.random((n, c, 1)), rng.uniform(*rhythm, (n, c, 1))
    x = rng.normal(0, 3, (n, c, t)).cumsum(2)
    x += size * np.sin(2 * np.pi * (10 * np.arange(t) / 100 + phase))
    return (x + rng.normal(0, 2, (n, c, t)) + rng.normal(0, 30, (n, c, 1))).astype(np.float32)


def band(f, p, low, high):
    inside = (f >= low - 1e-9) & (f <= high + 1e-9)
    return p[..., inside].sum(-1) if inside.any() else np.full(p.shape[:-1], np.nan)


def channel_reference(x):
    """The 10 features of one channel (T,)."""
    x = x.astype(float)
    if len(x) < 2 or not np.isfinite(x).all() or (x == x[0]).all():
        return np.full(10, np.nan)
    f, p = scipy.signal.periodogram(x, 100, "boxcar", detrend="constant", scaling="spectrum")

    def mobility(v):  # mne_features.univariate.compute_hjorth_mobility 0.3.2
        v = np.insert(v, 0, 0)
        return np.std(np.diff(v), ddof=1) / np.std(v, ddof=1)

    own = [band(f, p, *limits) for limits in BANDS.values()]
    own += [x.var(), mobility(x), mobility(np.diff(np.insert(x, 0, 0))) / mobility(x)]
    return np.array([*own, np.abs(np.diff(x)).mean(), scipy.stats.kurtosis(x, fisher=False)])


def hann(x):
    return scipy.signal.periodogram(x, 100, "hann", detrend="constant")


def amplitude(x, hertz):
    w = scipy.signal.get_window("hann", len(x))
    wave = np.exp(-2j * np.pi * hertz * np.arange(len(x)) / 100)
    return 2 * abs(np.sum(w * (x - x.mean()) * wave)) / w.sum()


def aperiodic(f, p):
    keep = ((f >= 2) & (f <= 6) | (f >= 14) & (f <= 38)) & (abs(f - 20) > 1) & (abs(f - 25) > 1)
    return np.polyfit(np.log10(f[keep]), np.log10(p[keep]), 1)


def slope(y):
    return np.polyfit(np.arange(len(y)) / 100, y, 1)[0]


def smooth(x):
    return np.convolve(x, np.full(10, 0.1), "valid")


def window_reference(x, layout=LAYOUT):
    """All features but the lagged ones of one good window (C, T), T at least 100. -> dict"""
    x = x.astype(float)
    d = x - x.mean(1, keepdims=True)
    wave = {g: d[c].mean(0) for g, c in layout.items()}
    quarter, half = d.shape[1] // 4, d.shape[1] // 2
    quarters = lambda v: [v[..., q * quarter : (q + 1) * quarter] for q in range(4)]
    out = {}
    cpp = smooth(wave["parietal"])
    peak = int(cpp.argmax())
    out |= {"p300_amplitude": cpp[peak], "p300_latency": (peak + 4.5) / 100}
    out["n200_amplitude"] = cpp[: peak + 1].min()
    rise = cpp[max(peak - 49, 0) : peak + 1]
    out["cpp_slope"] = slope(rise) if len(rise) >= 10 else np.nan
    out |= {f"cpp_{q}": v.mean() for q, v in enumerate(quarters(wave["parietal"]), 1)}
    both = (wave["motor_left"] + wave["motor_right"]) / 2
    out |= {"motor_slope": slope(both), "motor_amplitude": smooth(both).min()}
    lrp = smooth(wave["motor_left"] - wave["motor_right"])
    peak = int(abs(lrp).argmax())
    side, size = np.sign(lrp[peak]), abs(lrp[peak])
    low = np.flatnonzero(side * lrp[:peak] <= size / 2)
    onset = (low[-1] + 1 + 4.5) / 100 if len(low) else np.nan
    out |= {"lrp_amplitude": size, "lrp_onset": onset, "lrp_side": side}
    motor = layout["motor_left"] + layout["motor_right"]
    for name, limits in (("mu", (8, 13)), ("beta", (13, 30))):
        course = np.array([sum(band(*hann(v[c]), *limits) for c in motor) for v in quarters(d)])
        out |= {f"{name}_{q}": v for q, v in enumerate(np.log10(course / course.mean()), 1)}
    alpha = lambda part: sum(band(*hann(part[c]), 8, 13) for c in layout["occipital"])
    first, second = alpha(d[:, :half]), alpha(d[:, half : 2 * half])
    out["alpha_suppression"] = np.log10(second / first)
    channels = np.array([channel_reference(row) for row in x])
    front = channels[layout["frontal"]].mean(0)
    out["theta_beta_ratio"] = np.log10(front[1] / front[3])
    out |= {f"ssvep{f}": amplitude(wave["occipital"], f) for f in (20, 25)}
    for q, v in enumerate(quarters(wave["occipital"]), 1):
        out[f"ssvep_difference_{q}"] = amplitude(v, 20) - amplitude(v, 25)
    f, p = hann(d[layout["occipital"]])
    p = p.mean(0)
    line = aperiodic(f, p)
    inside = [k for k in range(2, len(f) - 1) if 6 <= f[k] <= 14]
    peaks = [k for k in inside if p[k] > p[k - 1] and p[k] >= p[k + 1]]
    k = max(peaks, key=lambda k: p[k]) if peaks else 0
    height = np.log10(p[k]) - np.polyval(line, np.log10(f[k])) if k else -1
    out |= {"alpha_peak_frequency": np.nan, "alpha_peak_height": np.nan}
    if height > np.log10(2):
        a, b, c = np.log10(p[k - 1 : k + 2])
        out["alpha_peak_frequency"] = f[k] + 0.5 * (a - c) / (a - 2 * b + c) * f[1]
        out["alpha_peak_height"] = height
    f, p = hann(d[sorted(set(sum(layout.values(), [])))])
    out["aperiodic_slope"], out["aperiodic_offset"] = aperiodic(f, p.mean(0))
    for group, members in layout.items():
        mean = channels[members].mean(0)
        names = (*BANDS, "log_power", "mobility", "complexity", "line_length", "kurtosis")
        out |= {f"{group}_{b}": v for b, v in zip(names, [*np.log10(mean[:6]), *mean[6:]])}
    return out


def lagged_reference(x, lag):
    """(C, T) -> the four summaries, from np.corrcoef."""
    x = x.astype(float)
    early, late = x[:, : max(x.shape[1] - lag, 0)], x[:, lag:]
    if early.shape[1] < 3:
        return np.full(4, np.nan)
    moves = lambda part: (part != part[:, :1]).any(1)
    good = np.isfinite(x).all(1) & moves(early) & moves(late)
    n = good.sum()
    if n < 2:
        return np.full(4, np.nan)
    r = np.corrcoef(early[good], late[good])[:n, n:]
    share = r**2 / (r**2).sum()
    entropy = -(share * np.log(share)).sum() / np.log(n * n)
    off = r[~np.eye(n, dtype=bool)]
    return np.array([abs(r).mean(), r.diagonal().mean(), off.mean(), entropy])
