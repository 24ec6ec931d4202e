"""Metrics against cases worked by hand and definitions written out; the bootstrap against drawing windows one subject at a time."""

import numpy as np
import pytest

from eeg import UserError
from eeg.score import metrics
from eeg.score.metrics import auroc, bootstrap, bootstrap_difference, describe, mae, nrmse, overall, pearson, r2, rmse


def test_by_hand():
    y, p = [1, 2, 3, 6], [1, 3, 3, 4]  # errors 0 1 0 -2; mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5
    assert rmse(y, p) == pytest.approx(np.sqrt(5 / 4))
    assert nrmse(y, p) == pytest.approx(np.sqrt(5 / 4 / 3.5))
    assert mae(y, p) == pytest.approx(3 / 4)
    assert r2(y, p) == pytest.approx(1 - 5 / 14)
    assert overall(0.88668, 0.99687) == pytest.approx(0.963813, abs=1e-6)


def test_the_mean_scores_1_whatever_the_unit():
    y = np.random.default_rng(0).normal(1.6, 0.4, 999)
    assert nrmse(y, np.full(999, y.mean())) == pytest.approx(1)
    assert nrmse(1e-6 * y + 1e3, 1e-6 * y[::-1] + 1e3) == pytest.approx(nrmse(y, y[::-1]), rel=1e-6)
    assert r2(y, np.full(999, y.mean())) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n", [2, 3, 101])
def test_pearson_is_numpys(n):
    y, p = np.random.default_rng(n).normal(5, 1, (2, n))
    assert pearson(y, p) == pytest.approx(np.corrcoef(y, p)[0, 1])


@pytest.mark.parametrize("n, levels", [(4, 2), (7, 3), (50, 5), (51, 1000)])
def test_auroc_counts_pairs(n, levels):
    rng = np.random.default_rng(n)
    y, p = rng.permutation(n).astype(float), rng.integers(levels, size=n)  # with many ties
    high, low = p[y > np.median(y)], p[y <= np.median(y)]
    wins = (high[:, None] > low).sum() + (high[:, None] == low).sum() / 2
    assert auroc(y, p) == pytest.approx(wins / len(high) / len(low))


def test_auroc_of_two_classes():
    assert auroc([0, 1, 1, 1], [0.1, 0.9, 0.8, 0.1]) == pytest.approx(2.5 / 3)  # most are 1: the median is 1
    assert auroc([0, 0, 0, 1], [1, 2, 3, 0]) == 0
    assert auroc([0, 1], [5, 5]) == 0.5


def slowly(y, p, subjects, metric, draws, seed):
    """The same draws, each put together window by window."""
    names = np.unique(subjects)
    rows = [np.flatnonzero(subjects == name) for name in names]
    for drawn in np.random.default_rng(seed).integers(len(names), size=(draws, len(names))):
        chosen = np.concatenate([rows[i] for i in drawn])
        yield metric(y[chosen], p[chosen])


@pytest.mark.parametrize("metric", [rmse, nrmse, mae, pearson, r2])
def test_bootstrap_draws_subjects(metric):
    rng = np.random.default_rng(1)
    subjects = rng.choice([b"a", b"bb", b"c", b"d", b"e", b"f", b"g"], 83)
    y = rng.normal(1.6, 0.4, 83)
    p, q = y + rng.normal(0.1, 0.3, 83), y + rng.normal(0, 0.5, 83)
    with_p, with_q = (np.array(list(slowly(y, each, subjects, metric, 200, 3))) for each in (p, q))
    np.testing.assert_allclose(bootstrap(y, p, subjects, metric, 200, 3), np.percentile(with_p, (2.5, 97.5)))
    np.testing.assert_allclose(bootstrap_difference(y, p, q, subjects, metric, 200, 3), np.percentile(with_p - with_q, (2.5, 97.5)), atol=1e-12)


def test_the_interval_is_of_subjects_and_not_of_windows():
    """20 subjects whose error is their own: 50 windows of each say no more than one."""
    rng = np.random.default_rng(2)
    error, y = rng.normal(size=20), rng.normal(size=(20, 50))
    one = bootstrap(y[:, 0], y[:, 0] + error, np.arange(20), rmse)
    many = bootstrap(y.ravel(), (y + error[:, None]).ravel(), np.repeat(np.arange(20), 50), rmse)
    np.testing.assert_allclose(one, many, rtol=1e-6)


def test_the_interval_covers():
    """Of 200 samples from a population with a known RMSE, about 95 % of intervals hold it (less, with 25 subjects: percentile intervals are a little narrow)."""
    rng, held = np.random.default_rng(3), 0
    for i in range(200):
        error = rng.normal(size=25)[:, None] + rng.normal(size=(25, 8))  # E error^2 = 2
        low, high = bootstrap(np.zeros(200), error.ravel(), np.repeat(np.arange(25), 8), rmse, 200, i)
        held += low < np.sqrt(2) < high
    assert 0.85 < held / 200 < 0.99


def test_identical_predictions_do_not_differ():
    y, p, subjects = *np.random.default_rng(4).normal(size=(2, 60)), np.arange(60) // 5
    assert bootstrap_difference(y, p, p, subjects) == (0, 0)


def test_draws_of_one_label_are_left_out():
    """Challenge 2: a subject has one label. With 3 subjects one draw in 9 is of one of them alone."""
    y = np.repeat([0.0, 1.0, 0.3], 5)
    low, high = bootstrap(y, np.full(15, 0.4), np.repeat([1, 2, 3], 5))
    assert 0 < low < high < 20


def test_describe_has_all_of_them():
    y, p = np.random.default_rng(5).normal(size=(2, 30))
    assert describe(y, p) == {name: getattr(metrics, name)(y, p) for name in ("nrmse", "rmse", "mae", "pearson", "r2", "auroc")}
    assert np.isnan(describe(y, np.ones(30))["pearson"]) and describe(y, np.ones(30))["auroc"] == 0.5


@pytest.mark.parametrize(
    "call, reason",
    [
        (lambda: nrmse([1, 2], [1, np.nan]), "1 of 2 predictions are NaN"),
        (lambda: mae([1, np.inf], [1, 2]), "1 of 2 labels are NaN or infinite"),
        (lambda: rmse([], []), "no window"),
        (lambda: nrmse([2, 2, 2], [1, 2, 3]), "all 3 labels are 2: nrmse is not defined"),
        (lambda: nrmse([2], [1]), "all 1 labels are 2"),
        (lambda: r2([2, 2], [1, 3]), "r2 is not defined"),
        (lambda: auroc([2, 2], [1, 3]), "auroc is not defined"),
        (lambda: pearson([1, 2], [3, 3]), "all 2 predictions are 3: pearson"),
        (lambda: rmse([1, 2], [[1], [2]]), r"shape \(2,\) and predictions of shape \(2, 1\)"),
        (lambda: describe([1, 2], [1, np.nan]), "NaN"),
        (lambda: bootstrap([1, 2], [1, 3], ["a", "a"]), "at least 2 subjects, got 1"),
        (lambda: bootstrap([1, 2], [1, 3], ["a", "b", "c"]), "3 names of subjects and 2 windows"),
        (lambda: bootstrap([1, 2], [1, 3], ["a", "b"], auroc), "no interval for auroc"),
        (lambda: bootstrap([2, 2], [1, 3], ["a", "b"]), "all 2 labels"),
    ],
)
def test_mistakes(call, reason):
    with pytest.raises(UserError, match=reason):
        call()
