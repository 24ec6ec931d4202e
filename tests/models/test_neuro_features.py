"""The torch layer against the kernels: two implementations that share no line."""

import numpy as np
import pytest
import torch

from eeg.data.features import FEATURES, compute
from eeg.models.neuro import NeuroFeatures
from tests.csrc.plain_features import signals


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors gain nothing from more, and lose a lot on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("T", [1, 7, 30, 199, 200, 250, 400])
def test_equal_to_the_kernels(T):
    X = signals(12, 129, T, T, rhythm=(0, 8))
    X[:, 128] = 0
    X[1, 61] = 4
    X[2, 35, -1] = np.nan
    X[3, 35] = np.inf
    X[4, [35, 34, 29, 28, 40, 41, 36]] = 0
    X[5] = 0
    X[6, 10, : T // 2] = 0
    want, got = compute(X), NeuroFeatures()(torch.from_numpy(X)).numpy()
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    known = ~np.isnan(want).all(0)
    spread = np.nanstd(want[:, known], 0)
    bad = np.abs(got[:, known] - want[:, known]) > 1e-4 * (np.abs(want[:, known]) + spread) + 1e-7
    assert not bad.any(), np.array(list(FEATURES))[known][bad.any(0)]


def test_autocast_changes_nothing():
    X = torch.from_numpy(signals(40, 129, 200))
    layer = NeuroFeatures()
    out = layer(X)
    assert torch.isfinite(out).any() and not out.requires_grad and not layer.state_dict()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(layer(X), out, rtol=0, atol=0, equal_nan=True)
    assert layer(X[:0]).shape == (0, 103)


def test_channels_in_another_order():
    names = [f"E{i}" for i in range(1, 129)] + ["Cz"]
    order = np.random.default_rng(0).permutation(129)
    X = torch.from_numpy(signals(4, 129, 200))
    other = NeuroFeatures([names[i] for i in order])(X[:, order])
    torch.testing.assert_close(other, NeuroFeatures()(X), rtol=1e-4, atol=1e-4, equal_nan=True)
