"""The features of the group `transition` against their published definition, window by window in
NumPy and SciPy."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

from eeg.data.features import compute
from eeg.models import build, fold
from eeg.models.features import FEATURE_GROUPS, TRANSITION, feature_groups
from eeg.models.neuro import NeuroFeatures
from tests.csrc.plain_features import signals

GROUPS = ("transition",)


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors gain nothing from more, and lose a lot on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def literal(x, lag):
    """{the last part of a feature's name: value} of channels (U, T) that all move."""
    z = scipy.stats.zscore(x.astype(float), axis=1)
    past, future = z[:, :-lag], z[:, lag:]
    U, samples = past.shape
    R = np.array([[scipy.stats.pearsonr(a, b)[0] for b in future] for a in past])
    covariance = past @ past.T / samples
    sphere = 0.01 * np.trace(covariance) / U * np.eye(U)
    A = scipy.linalg.solve(covariance + sphere, past @ future.T / samples).T
    off = ~np.eye(U, dtype=bool)
    return {
        "corr_mean_abs": abs(R).mean(),
        "corr_diag_mean": np.diag(R).mean(),
        "corr_off_mean": R[off].mean(),
        "corr_entropy": scipy.stats.entropy(abs(R).ravel()),
        "A_mean_abs": abs(A).mean(),
        "A_diag_mean": np.diag(A).mean(),
        "A_off_mean": A[off].mean(),
        "A_fro": np.linalg.norm(A),
        "A_asym_mean_abs": abs(A - A.T).mean(),
        "A_sparsity": (abs(A) < 0.05).mean(),
    }


def expected(x):
    """(23,) of the channels of a window that move; NaN where it is too short."""
    found = {}
    for lag in (5, 10, 25, 50, 100):
        if x.shape[1] >= lag + 3:
            found |= {f"lag{lag}_{name}": value for name, value in literal(x, lag).items()}
    return np.array([found.get(name, np.nan) for name in TRANSITION])


def awkward(T):
    """Windows with a flat reference, a flat, a NaN and an infinite electrode."""
    X = signals(3, 129, T, T, rhythm=(0, 8))
    X[:, 30:128] *= 0  # 30 channels move: SciPy goes through all pairs of them
    X[:, 128] = 0
    X[1, 3] = 4
    X[2, 3, -1] = np.nan
    X[2, 7] = np.inf
    return X


@pytest.mark.parametrize("T", [60, 200, 301])
def test_equal_to_the_published_definition(T):
    X = awkward(T)
    got = NeuroFeatures(groups=GROUPS)(torch.from_numpy(X)).numpy()
    for window, values in zip(X, got):
        moves = np.isfinite(window).all(1) & (window != window[:, :1]).any(1)
        np.testing.assert_allclose(values, expected(window[moves]), 1e-4, 1e-6)
    assert np.isnan(got).any() == (T < 103)


def test_there_are_23_and_no_name_twice():
    assert len(TRANSITION) == 23 and not set(TRANSITION) & set(FEATURE_GROUPS["neuroscience"])
    assert all(len(name) <= 32 for name in TRANSITION)


def test_a_channel_that_moves_in_one_end_alone_counts_in_neither():
    X = signals(2, 129, 200)
    X[1, :40, :150] = 1  # flat in what is 50 samples earlier
    X[1, :40, 150:160] = 5
    got = NeuroFeatures(groups=GROUPS)(torch.from_numpy(X)).numpy()
    column = list(TRANSITION).index("lag50_A_mean_abs")
    without = literal(X[1, 40:], 50)["A_mean_abs"]
    np.testing.assert_allclose(got[1, column], without, 1e-4)


def test_the_cache_and_the_layer_agree_in_any_unit_and_batch():
    X = signals(20, 129, 240, 5)
    X[7] = 0
    X[8, 1:] = 0  # one channel is no pair
    both = compute(X, 20, 200, groups=("neuroscience", "transition"))
    assert both.shape == (20, 126)
    np.testing.assert_array_equal(both[:, :103], compute(X, 20, 200))
    cut = torch.from_numpy(X[:, :, 20:220])
    layer = NeuroFeatures(groups=GROUPS)
    for other in (cut, 1e-6 * cut, cut.flip(0)):
        got = layer(other).numpy()
        got = got[::-1] if other is not cut and torch.equal(other, cut.flip(0)) else got
        np.testing.assert_allclose(got, both[:, 103:], 1e-4, 1e-5)
    assert (
        np.isnan(both[7:9, 103:]).all() and np.isfinite(np.delete(both, (7, 8), 0)[:, 103:]).all()
    )
    half = compute(X.astype(np.float16), 20, 200, groups=GROUPS)
    np.testing.assert_allclose(half, both[:, 103:], 2e-2, 2e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(layer(cut), layer(cut), rtol=0, atol=0, equal_nan=True)
    assert layer(cut[:0]).shape == (0, 23) and layer(cut[:, :, :1]).isnan().all()


@pytest.mark.parametrize("groups, size", [("transition", 23), ("neuroscience+transition", 126)])
def test_the_hybrid_takes_them(groups, size):
    model = build("hybrid", features="layer", groups=groups, width=32).eval()
    assert len(model.median) == size and model.neuro.groups == feature_groups(groups)
    x = torch.from_numpy(signals(4, 129, 200))
    again = build(**model.settings)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(fold(again)(x), model(x), rtol=1e-4, atol=1e-4)
    of_file = build(**model.settings | {"features": "file"})
    of_file.load_state_dict(model.state_dict())
    features = torch.from_numpy(compute(x.numpy(), groups=model.neuro.groups))
    torch.testing.assert_close(of_file.eval()(x, features), model(x), rtol=1e-4, atol=1e-4)
    assert "groups" not in build("hybrid").settings


def test_groups_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match="hybrid takes some of neuroscience, transition, joined"):
        build("hybrid", groups="transitions")
    with pytest.raises(ValueError, match="no feature group 'lagged'; there are neuroscience, tr"):
        feature_groups("neuroscience+lagged")
    assert feature_groups("transition+neuroscience") == ("neuroscience", "transition")
