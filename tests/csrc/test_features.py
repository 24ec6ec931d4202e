"""The feature kernels against SciPy and NumPy."""

import numpy as np
import pytest

from eeg import _native
from eeg.models.montage import GROUPS, LAGS
from tests.csrc.plain_features import (
    KERNEL,
    LAYOUT,
    channel_reference,
    lagged_reference,
    signals,
    window_reference,
)


def run_windows(X, layout=LAYOUT, first=0, T=None, threads=1):
    chosen = np.unique(sum(layout.values(), [])).astype(np.int32)
    members = np.searchsorted(chosen, sum(layout.values(), [])).astype(np.int32)
    sizes = np.array([len(g) for g in layout.values()], np.int32)
    out = np.empty((len(X), len(KERNEL)), np.float32)
    T = T or X.shape[2] - first
    _native.window_features(X, first, T, chosen, members, sizes, out, threads)
    return out


def run_channels(X, threads=1):
    out = np.empty((*X.shape[:2], 10), np.float32)
    _native.channel_features(X, 0, X.shape[2], out, threads)
    return out


def run_lagged(X, lags=LAGS, threads=1):
    out = np.empty((len(X), len(lags), 4), np.float32)
    _native.lagged_correlations(X, 0, X.shape[2], np.array(lags, np.int32), out, threads)
    return out


@pytest.mark.parametrize("T", [199, 200, 203, 250, 400])
def test_window_features_equal_references(T):
    X = np.concatenate([signals(8, 10, T, T), signals(16, 10, T, T + 1, rhythm=(0, 0))])
    got = run_windows(X)
    peaks = np.isfinite(got[:, KERNEL.index("alpha_peak_frequency")])
    # without a rhythm there is not always a peak
    assert peaks[:8].all() and 0 < peaks[8:].sum() < 16
    for window, row in zip(X, got):
        want = window_reference(window)
        assert list(want) == KERNEL
        np.testing.assert_allclose(row, list(want.values()), 1e-5, 1e-5, err_msg=f"T={T}")


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
    without = {g: [c - (c > 3) for c in m if c != 3] for g, m in LAYOUT.items()}
    for window in (0, 1, 2):
        want = window_reference(np.delete(X[window], 3, 0), without)
        values = list(got[window].values())
        np.testing.assert_allclose(values, list(want.values()), 1e-5, 1e-5)
    missing = {name for name, value in got[3].items() if np.isnan(value)}
    # mu and beta are left with the right side; the lateralised potential is not
    from_left = ("motor_left", "motor_slope", "motor_amplitude", "lrp")
    assert {name for name in KERNEL if name.startswith(from_left)} == missing
    assert np.isnan(list(got[4].values())).all() and not np.isnan(list(got[5].values())).any()
    unknown = np.isnan(run_channels(X))
    assert (unknown.all(-1) == unknown.any(-1)).all() and unknown[3, 3].all()
    want = [[lagged_reference(w, lag) for lag in LAGS] for w in X]
    np.testing.assert_allclose(run_lagged(X), want, 1e-5, 2e-6)


def test_known_signals():
    """What was put in comes out."""
    t = np.arange(200) / 100
    X = np.random.default_rng(0).normal(0, 0.5, (1, 10, 200))
    for hertz, size in ((20, 6), (25, 2), (9.3, 8)):
        X[0, [8, 9, 0]] += size * np.sin(2 * np.pi * hertz * t)
    X[0, [1, 2]] += 12 * np.exp(-(((t - 1.2) / 0.15) ** 2))
    X[0, [5, 6]] -= 9 * ((t > 0.9) & (t < 1.4))
    X[0, [3, 4, 5, 6]] += np.where(t < 1, 5, 1) * np.sin(2 * np.pi * 10 * t)
    got = dict(zip(KERNEL, run_windows(X.astype(np.float32))[0]))
    assert abs(got["ssvep20"] - 6) < 0.1 and abs(got["ssvep25"] - 2) < 0.1
    assert abs(got["alpha_peak_frequency"] - 9.3) < 0.1 and got["alpha_peak_height"] > 1
    assert abs(got["p300_latency"] - 1.2) < 0.1 and abs(got["lrp_onset"] - 0.9) < 0.06
    assert got["lrp_side"] == 1
    assert got["mu_1"] > 0.2 and got["mu_4"] < -0.8
    assert got["p300_amplitude"] > 4 and got["cpp_slope"] > 5


def test_float16_equals_its_float32():
    X = signals(5, 33, 200).astype(np.float16)
    layout = {g: [3 * c for c in m] for g, m in LAYOUT.items()}
    for run in (lambda x: run_windows(x, layout), run_channels, run_lagged):
        np.testing.assert_array_equal(run(X.view(np.uint16)), run(X.astype(np.float32)))


def test_a_margin_is_cut_off():
    X = signals(4, 10, 240)
    inner = np.ascontiguousarray(X[:, :, 20:220])
    np.testing.assert_array_equal(run_windows(X, first=20, T=200), run_windows(inner))


def test_the_number_of_threads_changes_nothing():
    X = signals(37, 33, 200)
    for run in (run_windows, run_channels, run_lagged):
        one = run(X, threads=1)
        for threads in (2, 4, 7):
            assert one.tobytes() == run(X, threads=threads).tobytes()


def test_no_windows():
    assert run_windows(signals(0, 10, 200)).shape == (0, len(KERNEL))
    assert run_channels(signals(0, 3, 200)).shape == (0, 3, 10)
    assert run_lagged(signals(0, 3, 200)).shape == (0, 5, 4)


def test_wrong_arguments_are_refused():
    X = signals(2, 10, 200)
    with pytest.raises(TypeError, match="float32, or uint16"):
        run_windows(X.astype(float))
    with pytest.raises(ValueError, match="C-contiguous"):
        run_windows(X[:, :, ::2])
    with pytest.raises(ValueError, match="must lie in windows of 200 samples"):
        run_windows(X, first=10, T=200)
    with pytest.raises(ValueError, match=r"\(windows, channels, samples\), got shape \(10, 200\)"):
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
    from_mirror = lambda name, other: np.linalg.norm(place[other] - place[name] * [-1, 1, 1])
    mirrored = lambda name: min(place, key=lambda other: from_mirror(name, other))
    for group, members in GROUPS.items():
        assert len(set(members)) == len(members) and "Cz" not in members
        for name in members:
            distances = [np.linalg.norm(place[name] - place[near]) for near in site[group]]
            assert min(distances) < 0.04, name
        other = {"motor_left": "motor_right", "motor_right": "motor_left"}.get(group, group)
        assert {mirrored(name) for name in members} == set(GROUPS[other])
