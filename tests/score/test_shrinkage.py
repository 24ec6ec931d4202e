"""Shrinkage against a search, and its score against subjects that it was not fitted on."""

import numpy as np
import pytest

from eeg import UserError
from eeg.score.metrics import nrmse
from eeg.score.shrinkage import cross_fitted, shrinkage, shrunk


@pytest.mark.parametrize("slope, strength", [(0.3, 0.3), (2.0, 1.0), (-1.0, 0.0)])
def test_the_strength_is_the_best_between_0_and_1(slope, strength):
    rng = np.random.default_rng(0)
    p = 0.2 + rng.normal(size=5000)
    y = 0.2 + slope * (p - 0.2) + 0.01 * rng.normal(size=5000)
    assert shrinkage(p, y, 0.2) == pytest.approx(strength, abs=0.01)
    assert shrinkage(np.full(9, 0.2), np.arange(9.0), 0.2) == 0


def test_a_model_that_knows_nothing_does_not_beat_the_mean():
    """The strength fitted on the same subjects makes random answers look better than the mean."""
    same, cross = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        who = np.repeat(np.arange(12), 20)
        y, p = rng.normal(size=12)[who], rng.normal(size=12)[who] + 0.3 * rng.normal(size=240)
        mean = nrmse(y, np.zeros(240))
        same.append(nrmse(y, shrunk(p, shrinkage(p, y, 0), 0)) - mean)
        cross.append(nrmse(y, cross_fitted(p, y, who, 0)) - mean)
    # never worse than the mean, by construction
    assert max(same) <= 1e-12
    assert np.mean(same) < -0.01
    assert np.mean(cross) > 0


def test_no_subject_is_shrunk_by_a_strength_fitted_on_it():
    rng = np.random.default_rng(1)
    who = np.repeat(list("abcdefg"), [40, 3, 17, 17, 5, 9, 30])
    y, p = rng.normal(size=(2, len(who)))
    found = cross_fitted(p, y, who, 0.1)
    for name in set(who):
        other = np.where(who == name, y + 7, y)
        np.testing.assert_array_equal(
            cross_fitted(p, other, who, 0.1)[who == name], found[who == name]
        )
    np.testing.assert_array_equal(found, cross_fitted(p, y, who, 0.1))


def test_one_subject_cannot_be_cross_fitted():
    with pytest.raises(UserError, match="there is 1, name more releases with --valid"):
        cross_fitted(np.arange(3.0), np.arange(3.0), ["a"] * 3, 0.0)
