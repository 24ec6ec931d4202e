"""The weights of network and ridge, against SciPy and cases worked by hand; shrinkage against a
search, and its score against subjects that it was not fitted on.
"""

import numpy as np
import pytest
from scipy.optimize import nnls

from eeg import UserError
from eeg.score import blend
from eeg.score.blend import cross_shrunk, shrinkage, shrunk
from eeg.score.metrics import nrmse


def windows(subjects=40, each=25, seed=0):
    """parts (N, 2), y (N,), subjects (N,): two readers of the same label, each with its noise."""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal(subjects * each)
    parts = np.stack([y + rng.standard_normal(len(y)), 0.5 * y + rng.standard_normal(len(y))], 1)
    return parts, y, np.repeat([f"S{i}" for i in range(subjects)], each)


@pytest.mark.parametrize("challenge", [1, 2])
def test_many_subjects_choose_the_weights_of_least_squares(challenge):
    parts, y, subjects = windows(4000, 5)
    found = blend.weigh(parts, y, subjects, challenge)
    assert np.allclose(found, nnls(parts, y)[0], atol=0.01)


@pytest.mark.parametrize("challenge", [1, 2])
def test_the_error_and_the_distance_from_trust_are_least_together(challenge):
    parts, y, subjects = windows(3, 7)
    trusted = blend.trusted(parts, challenge)
    caution = np.array(blend.CAUTION[challenge]) * np.square(parts).mean(0)
    rows = np.vstack([parts * np.sqrt(3 / len(y)), np.diag(np.sqrt(caution))])
    wanted = nnls(rows, np.concatenate([y * np.sqrt(3 / len(y)), np.sqrt(caution) * trusted]))[0]
    assert np.allclose(blend.weigh(parts, y, subjects, challenge), wanted, atol=1e-8)


def test_one_subject_of_challenge_2_hardly_moves_the_weights():
    parts, y, subjects = windows(1, 500)
    begun = blend.trusted(parts, 2)
    assert np.abs(blend.weigh(parts, y, subjects, 2) - begun).max() < 0.2


def test_in_challenge_2_the_network_says_no_more_than_the_ridge():
    parts = np.array([[3.0, 0.6], [-3.0, -0.6], [3.0, -0.6]])
    assert blend.trusted(parts, 2) == pytest.approx([0.5 * 0.2, 0.8])
    assert blend.trusted(parts[:, ::-1], 2) == pytest.approx([0.5, 0.8])
    parts[:, 1] = 0  # the ridge found nothing
    assert blend.trusted(parts, 2) @ parts.T == pytest.approx(np.zeros(3))


def test_in_challenge_2_a_network_falls_with_its_ridge():
    """The ridge says the opposite of six subjects, and the network nothing: it was only trusted
    because of the ridge."""
    parts, y, subjects = windows(6, 50)
    parts = np.stack([np.roll(y, 7), -0.2 * y], 1)
    assert blend.trusted(parts, 2)[0] > 0.09
    network, ridge = blend.weigh(parts, y, subjects, 2)
    assert ridge == 0 and network < 0.02


def test_a_part_that_says_the_opposite_has_no_weight():
    parts, y, subjects = windows(500, 4)
    parts[:, 1] = -y
    network, ridge = blend.weigh(parts, y, subjects, 1)
    assert ridge == 0
    assert network == pytest.approx((parts[:, 0] @ y) / (parts[:, 0] @ parts[:, 0]), rel=0.01)


def test_parts_that_say_nothing_are_answered_by_the_mean():
    rng = np.random.default_rng(1)
    _, y, subjects = windows(2000, 5)
    noise = rng.standard_normal((len(y), 2))
    assert blend.weigh(noise, y, subjects, 1).max() < 0.03
    assert np.abs(blend.weigh(np.zeros((len(y), 2)), y, subjects, 1) @ [0, 0]) == 0


def test_a_subject_is_scored_with_weights_that_others_chose():
    parts, y, subjects = windows(8, 20)
    before = blend.cross_fitted(parts, y, subjects, 1)
    own = subjects == subjects[0]
    changed = y.copy()
    changed[own] = 50 * parts[own, 1]
    after = blend.cross_fitted(parts, changed, subjects, 1)
    assert np.array_equal(before[own], after[own]) and not np.array_equal(before, after)


def test_a_single_subject_is_scored_with_the_trusted_weights():
    parts, y, subjects = windows(1, 30)
    assert np.allclose(blend.cross_fitted(parts, y, subjects, 1), parts @ blend.TRUSTED[1])


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
        cross.append(nrmse(y, cross_shrunk(p, y, who, 0)) - mean)
    # never worse than the mean, by construction
    assert max(same) <= 1e-12
    assert np.mean(same) < -0.01
    assert np.mean(cross) > 0


def test_no_subject_is_shrunk_by_a_strength_fitted_on_it():
    rng = np.random.default_rng(1)
    who = np.repeat(list("abcdefg"), [40, 3, 17, 17, 5, 9, 30])
    y, p = rng.normal(size=(2, len(who)))
    found = cross_shrunk(p, y, who, 0.1)
    for name in set(who):
        other = np.where(who == name, y + 7, y)
        np.testing.assert_array_equal(
            cross_shrunk(p, other, who, 0.1)[who == name], found[who == name]
        )
    np.testing.assert_array_equal(found, cross_shrunk(p, y, who, 0.1))


def test_one_subject_cannot_be_cross_shrunk():
    with pytest.raises(UserError, match="there is 1, name more releases with --valid"):
        cross_shrunk(np.arange(3.0), np.arange(3.0), ["a"] * 3, 0.0)
