"""The feature kernels against SciPy and NumPy, written plainly, one channel at a time."""

import numpy as np
import pytest
import scipy.signal
import scipy.stats

from eeg import _native
from eeg.models.features import FEATURES
from eeg.models.montage import BANDS, GROUPS, LAGS

KERNEL = [name for name in FEATURES if not name.startswith("lag")]
LAYOUT = {
    "parietal": [0, 1, 2],
    "motor_left": [3, 4],
    "motor_right": [5, 6],
    "frontal": [7, 2],
    "occipital": [8, 9, 0],
}  # a small net; channels may be in two groups


def signals(n, c, t, seed=0, rhythm=(5, 20)):
    """Something like EEG: a wandering baseline, a 10 Hz rhythm of some amplitude, noise, an offset."""
    rng = np.random.default_rng(seed)
    rhythm = np.sin(2 * np.pi * (10 * np.arange(t) / 100 + rng.random((n, c, 1)))) * rng.uniform(
        *rhythm, (n, c, 1)
    )
    return (
        rng.normal(0, 3, (n, c, t)).cumsum(2)
        + rhythm
        + rng.normal(0, 2, (n, c, t))
        + rng.normal(0, 30, (n, c, 1))
    ).astype(np.float32)


def run_windows(X, layout=LAYOUT, first=0, T=None, threads=1):
    chosen = np.unique(sum(layout.values(), [])).astype(np.int32)
    members = np.searchsorted(chosen, sum(layout.values(), [])).astype(np.int32)
    out = np.empty((len(X), len(KERNEL)), np.float32)
    _native.window_features(
        X,
        first,
        T or X.shape[2] - first,
        chosen,
        members,
        np.array([len(g) for g in layout.values()], np.int32),
        out,
        threads,
    )
    return out


def run_channels(X, threads=1):
    out = np.empty((*X.shape[:2], 10), np.float32)
    _native.channel_features(X, 0, X.shape[2], out, threads)
    return out


def run_lagged(X, lags=LAGS, threads=1):
    out = np.empty((len(X), len(lags), 4), np.float32)
    _native.lagged_correlations(X, 0, X.shape[2], np.array(lags, np.int32), out, threads)
    return out


# --------------------------------------------------------------------------- references


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
    return np.array(
        [
            *own,
            x.var(),
            mobility(x),
            mobility(np.diff(np.insert(x, 0, 0))) / mobility(x),
            np.abs(np.diff(x)).mean(),
            scipy.stats.kurtosis(x, fisher=False),
        ]
    )


def hann(x):
    return scipy.signal.periodogram(x, 100, "hann", detrend="constant")


def amplitude(x, hertz):
    w = scipy.signal.get_window("hann", len(x))
    return (
        2
        * abs(np.sum(w * (x - x.mean()) * np.exp(-2j * np.pi * hertz * np.arange(len(x)) / 100)))
        / w.sum()
    )


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
    out |= {
        "p300_amplitude": cpp[peak],
        "p300_latency": (peak + 4.5) / 100,
        "n200_amplitude": cpp[: peak + 1].min(),
    }
    rise = cpp[max(peak - 49, 0) : peak + 1]
    out["cpp_slope"] = slope(rise) if len(rise) >= 10 else np.nan
    out |= {f"cpp_{q}": v.mean() for q, v in enumerate(quarters(wave["parietal"]), 1)}
    both = (wave["motor_left"] + wave["motor_right"]) / 2
    out |= {"motor_slope": slope(both), "motor_amplitude": smooth(both).min()}
    lrp = smooth(wave["motor_left"] - wave["motor_right"])
    peak = int(abs(lrp).argmax())
    side, size = np.sign(lrp[peak]), abs(lrp[peak])
    low = np.flatnonzero(side * lrp[:peak] <= size / 2)
    out |= {
        "lrp_amplitude": size,
        "lrp_onset": (low[-1] + 1 + 4.5) / 100 if len(low) else np.nan,
        "lrp_side": side,
    }
    motor = layout["motor_left"] + layout["motor_right"]
    for name, limits in (("mu", (8, 13)), ("beta", (13, 30))):
        course = np.array([sum(band(*hann(v[c]), *limits) for c in motor) for v in quarters(d)])
        out |= {f"{name}_{q}": v for q, v in enumerate(np.log10(course / course.mean()), 1)}
    first, second = (
        sum(band(*hann(d[c, h * half : (h + 1) * half]), 8, 13) for c in layout["occipital"])
        for h in (0, 1)
    )
    out["alpha_suppression"] = np.log10(second / first)
    channels = np.array([channel_reference(row) for row in x])
    front = channels[layout["frontal"]].mean(0)
    out["theta_beta_ratio"] = np.log10(front[1] / front[3])
    out |= {f"ssvep{f}": amplitude(wave["occipital"], f) for f in (20, 25)}
    out |= {
        f"ssvep_difference_{q}": amplitude(v, 20) - amplitude(v, 25)
        for q, v in enumerate(quarters(wave["occipital"]), 1)
    }
    f, p = hann(d[layout["occipital"]])
    p = p.mean(0)
    line = aperiodic(f, p)
    peaks = [
        k for k in range(2, len(f) - 1) if 6 <= f[k] <= 14 and p[k] > p[k - 1] and p[k] >= p[k + 1]
    ]
    k = max(peaks, key=lambda k: p[k]) if peaks else 0
    height = np.log10(p[k]) - np.polyval(line, np.log10(f[k])) if k else -1
    out |= {"alpha_peak_frequency": np.nan, "alpha_peak_height": np.nan}
    if height > np.log10(2):
        a, b, c = np.log10(p[k - 1 : k + 2])
        out |= {
            "alpha_peak_frequency": f[k] + 0.5 * (a - c) / (a - 2 * b + c) * f[1],
            "alpha_peak_height": height,
        }
    f, p = hann(d[sorted(set(sum(layout.values(), [])))])
    out["aperiodic_slope"], out["aperiodic_offset"] = aperiodic(f, p.mean(0))
    for group, members in layout.items():
        mean = channels[members].mean(0)
        out |= {f"{group}_{b}": v for b, v in zip(BANDS, np.log10(mean[:5]))}
        out |= {
            f"{group}_{b}": v
            for b, v in zip(
                ("log_power", "mobility", "complexity", "line_length", "kurtosis"),
                [np.log10(mean[5]), *mean[6:]],
            )
        }
    return out


def lagged_reference(x, lag):
    """(C, T) -> the four summaries, from np.corrcoef."""
    early, late = x[:, : max(x.shape[1] - lag, 0)].astype(float), x[:, lag:].astype(float)
    good = (
        [
            np.isfinite(row).all() and (a != a[0]).any() and (b != b[0]).any()
            for row, a, b in zip(x, early, late)
        ]
        if early.shape[1] > 2
        else [False]
    )
    if sum(good) < 2:
        return np.full(4, np.nan)
    n = sum(good)
    r = np.corrcoef(early[good], late[good])[:n, n:]
    share = r**2 / (r**2).sum()
    return np.array(
        [
            abs(r).mean(),
            r.diagonal().mean(),
            r[~np.eye(n, dtype=bool)].mean(),
            -(share * np.log(share)).sum() / np.log(n * n),
        ]
    )


# --------------------------------------------------------------------------- tests


@pytest.mark.parametrize("T", [199, 200, 203, 250, 400])
def test_window_features_equal_references(T):
    X = np.concatenate([signals(8, 10, T, T), signals(16, 10, T, T + 1, rhythm=(0, 0))])
    got = run_windows(X)
    peaks = np.isfinite(got[:, KERNEL.index("alpha_peak_frequency")])
    assert (
        peaks[:8].all() and 0 < peaks[8:].sum() < 16
    )  # without a rhythm there is not always a peak
    for window, row in zip(X, got):
        want = window_reference(window)
        assert list(want) == KERNEL
        np.testing.assert_allclose(
            row, [want[name] for name in KERNEL], 1e-5, 1e-5, err_msg=f"T={T}"
        )


@pytest.mark.parametrize("C", [1, 3, 31, 32, 33, 128, 129])
@pytest.mark.parametrize("T", [1, 2, 7, 199, 200, 250])
def test_channel_features_equal_references(C, T):
    X = signals(2, C, T, C + T)
    want = np.array([[channel_reference(row) for row in window] for window in X])
    np.testing.assert_allclose(run_channels(X), want, 1e-5, 1e-30)


@pytest.mark.parametrize("C", [1, 3, 33, 128, 129])
@pytest.mark.parametrize("T", [1, 7, 27, 199, 200, 250])
def test_lagged_correlations_equal_corrcoef(C, T):
    X = signals(2, C, T, C + T)
    want = np.array([[lagged_reference(window, lag) for lag in (0, *LAGS)] for window in X])
    np.testing.assert_allclose(run_lagged(X, (0, *LAGS)), want, 1e-5, 2e-6)


def test_short_windows_say_what_they_can():
    """Where there are no samples for a feature it is NaN; what there are samples for is still
    right."""
    for T in (1, 2, 3, 7, 9, 10, 12, 40):
        got = dict(zip(KERNEL, run_windows(signals(1, 10, T))[0]))
        assert np.isnan(got["p300_amplitude"]) == (T < 10), T
        assert np.isnan(got["frontal_line_length"]) == (T < 2), T
        assert np.isnan(got["parietal_delta"]) == (T < 25), T  # 4 Hz is the first bin of 25 samples
        assert not np.isinf(list(got.values())).any()


def test_what_cannot_be_used_is_left_out_and_never_zero():
    X = signals(6, 10, 200)
    X[0, 3] = 7  # motor_left goes on without it
    X[1, 3, 50] = np.nan
    X[2, 3, 199] = np.inf
    X[3, [3, 4]] = 0  # nothing is left of motor_left
    X[4] = 0
    X[5, 3, :100] = 0  # flat in its first half: usable, but not against itself 100 samples later
    got = [dict(zip(KERNEL, row)) for row in run_windows(X)]
    for window in (0, 1, 2):
        want = window_reference(
            np.delete(X[window], 3, 0),
            {g: [c - (c > 3) for c in m if c != 3] for g, m in LAYOUT.items()},
        )
        np.testing.assert_allclose(
            list(got[window].values()), [want[name] for name in KERNEL], 1e-5, 1e-5
        )
    missing = {name for name, value in got[3].items() if np.isnan(value)}
    # mu and beta are left with the right side; the lateralised potential is not
    assert {
        name
        for name in KERNEL
        if name.startswith(("motor_left", "motor_slope", "motor_amplitude", "lrp"))
    } == missing
    assert np.isnan(list(got[4].values())).all() and not np.isnan(list(got[5].values())).any()
    assert (
        np.isnan(run_channels(X)).all(-1) == np.isnan(run_channels(X)).any(-1)
    ).all() and np.isnan(run_channels(X)[3, 3]).all()
    np.testing.assert_allclose(
        run_lagged(X), [[lagged_reference(w, lag) for lag in LAGS] for w in X], 1e-5, 2e-6
    )


def test_known_signals():
    """What was put in comes out."""
    t = np.arange(200) / 100
    X = np.random.default_rng(0).normal(0, 0.5, (1, 10, 200))
    X[0, [8, 9, 0]] += (
        6 * np.sin(2 * np.pi * 20 * t)
        + 2 * np.sin(2 * np.pi * 25 * t)
        + 8 * np.sin(2 * np.pi * 9.3 * t)
    )
    X[0, [1, 2]] += 12 * np.exp(-(((t - 1.2) / 0.15) ** 2))
    X[0, [5, 6]] -= 9 * ((t > 0.9) & (t < 1.4))
    X[0, [3, 4, 5, 6]] += np.where(t < 1, 5, 1) * np.sin(2 * np.pi * 10 * t)
    got = dict(zip(KERNEL, run_windows(X.astype(np.float32))[0]))
    assert abs(got["ssvep20"] - 6) < 0.1 and abs(got["ssvep25"] - 2) < 0.1
    assert abs(got["alpha_peak_frequency"] - 9.3) < 0.1 and got["alpha_peak_height"] > 1
    assert (
        abs(got["p300_latency"] - 1.2) < 0.1
        and got["lrp_side"] == 1
        and abs(got["lrp_onset"] - 0.9) < 0.06
    )
    assert got["mu_1"] > 0.2 and got["mu_4"] < -0.8
    assert got["p300_amplitude"] > 4 and got["cpp_slope"] > 5


def test_float16_equals_its_float32():
    X = signals(5, 33, 200).astype(np.float16)
    layout = {g: [3 * c for c in m] for g, m in LAYOUT.items()}
    for run in (lambda x: run_windows(x, layout), run_channels, run_lagged):
        np.testing.assert_array_equal(run(X.view(np.uint16)), run(X.astype(np.float32)))


def test_a_margin_is_cut_off():
    X = signals(4, 10, 240)
    np.testing.assert_array_equal(
        run_windows(X, first=20, T=200), run_windows(np.ascontiguousarray(X[:, :, 20:220]))
    )


def test_the_number_of_threads_changes_nothing():
    X = signals(37, 33, 200)
    for run in (
        lambda n: run_windows(X, threads=n),
        lambda n: run_channels(X, n),
        lambda n: run_lagged(X, threads=n),
    ):
        one = run(1)
        for threads in (2, 4, 7):
            assert one.tobytes() == run(threads).tobytes()


def test_no_windows():
    assert run_windows(signals(0, 10, 200)).shape == (0, len(KERNEL)) and run_channels(
        signals(0, 3, 200)
    ).shape == (0, 3, 10)
    assert run_lagged(signals(0, 3, 200)).shape == (0, 5, 4)


def test_wrong_arguments_are_refused():
    X = signals(2, 10, 200)
    with pytest.raises(TypeError, match="float32, or uint16"):
        run_windows(X.astype(float))
    with pytest.raises(ValueError, match="C-contiguous"):
        run_windows(X[:, :, ::2])
    with pytest.raises(ValueError, match="must lie in windows of 200 samples"):
        run_windows(X, first=10, T=200)
    with pytest.raises(
        ValueError, match=r"C-contiguous \(windows, channels, samples\), got shape \(10, 200\)"
    ):
        _native.channel_features(X[0], 0, 200, np.empty((2, 10, 10), np.float32), 1)
    with pytest.raises(IndexError, match="channel 10 of 10"):
        run_windows(X, LAYOUT | {"frontal": [10]})
    with pytest.raises(ValueError, match="group 3 has 0 channels"):
        run_windows(X, LAYOUT | {"frontal": []})
    with pytest.raises(ValueError, match="threads"):
        run_windows(X, threads=-1)
    with pytest.raises(ValueError, match="lag"):
        run_lagged(X, (-1,))
    chosen = members = np.arange(5, dtype=np.int32)
    ones = np.ones(5, np.int32)
    out = np.empty((2, len(KERNEL)), np.float32)
    _native.window_features(X, 0, 200, chosen, members, ones, out, 1)
    with pytest.raises(ValueError, match="out must be"):
        _native.window_features(X, 0, 200, chosen, members, ones, out[:, 1:].copy(), 1)
    with pytest.raises(TypeError):
        _native.window_features(X, 0, 200, chosen.astype(np.int64), members, ones, out, 1)
    with pytest.raises(IndexError, match="member 5"):
        _native.window_features(X, 0, 200, chosen, members + 1, ones, out, 1)
    with pytest.raises(ValueError, match="out must be"):
        _native.channel_features(X, 0, 200, np.empty((2, 10, 9), np.float32), 1)


def test_groups_are_where_they_are_said_to_be():
    """Against MNE's montage: every member near a 10-20 site of its group, left and right mirror
    images, Cz in none."""
    import mne

    place = mne.channels.make_standard_montage("GSN-HydroCel-129").get_positions()["ch_pos"]
    site = {
        "parietal": ("E62", "E55"),
        "motor_left": ("E36",),
        "motor_right": ("E104",),
        "frontal": ("E11", "E24", "E124"),
        "occipital": ("E75", "E70", "E83"),
    }
    mirrored = lambda name: min(
        place, key=lambda other: np.linalg.norm(place[other] - place[name] * [-1, 1, 1])
    )
    for group, members in GROUPS.items():
        assert len(set(members)) == len(members) and "Cz" not in members
        for name in members:
            assert min(np.linalg.norm(place[name] - place[near]) for near in site[group]) < 0.04, (
                name
            )
        other = {"motor_left": "motor_right", "motor_right": "motor_left"}.get(group, group)
        assert {mirrored(name) for name in members} == set(GROUPS[other])
