"""Metrics against cases worked by hand and definitions; intervals against a jackknife."""

import numpy as np
import pytest
from scipy import stats

from eeg import UserError
from eeg.bench.scoring import POPULATIONS, share_held
from eeg.score import metrics
from eeg.score.metrics import (
    auroc,
    describe,
    interval,
    interval_difference,
    mae,
    nrmse,
    overall,
    pearson,
    r2,
    rmse,
    student,
)


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
    # most are 1: the median is 1
    assert auroc([0, 1, 1, 1], [0.1, 0.9, 0.8, 0.1]) == pytest.approx(2.5 / 3)
    assert auroc([0, 0, 0, 1], [1, 2, 3, 0]) == 0
    assert auroc([0, 1], [5, 5]) == 0.5


def left_out(y, p, subjects, metric):
    """The metric without each subject, put together window by window."""
    return np.array(
        [metric(y[subjects != name], p[subjects != name]) for name in np.unique(subjects)]
    )


def some_predictions():
    rng = np.random.default_rng(1)
    subjects = rng.choice([name.encode() for name in "abcdefghijklm"], 183)
    y = rng.normal(1.6, 0.4, 183)
    return y, y + rng.normal(0.1, 0.3, 183), y + rng.normal(0, 0.5, 183), subjects


@pytest.mark.parametrize("metric", [rmse, nrmse, mae, pearson, r2, auroc])
def test_each_subject_is_left_out(metric):
    y, p, q, subjects = some_predictions()
    with_p, with_q = (left_out(y, each, subjects, metric) for each in (p, q))
    surplus = 0.0
    if metric is nrmse:  # the labels' own mean, whose variance is that of subjects' totals
        totals = [(y - y.mean())[subjects == name].sum() for name in np.unique(subjects)]
        of_mean = 13 / 12 * np.sum(np.square(totals)) / 183**2
        surplus = (nrmse(y, p) - rmse(y, p) / np.sqrt(y.var() + of_mean)) ** 2
    expected = student(metric(y, p), with_p, surplus)
    np.testing.assert_allclose(interval(y, p, subjects, metric), expected, atol=1e-12)
    expected = student(metric(y, p) - metric(y, q), with_p - with_q)
    np.testing.assert_allclose(interval_difference(y, p, q, subjects, metric), expected, atol=1e-12)


def test_any_function_of_labels_and_predictions_has_an_interval():
    y, p, q, subjects = some_predictions()
    both = np.stack([y, y[::-1]], 1), np.stack([p, q], 1)
    mean_r = lambda y, p: np.mean([pearson(y[:, k], p[:, k]) for k in range(2)])
    expected = student(mean_r(*both), left_out(*both, subjects, mean_r))
    np.testing.assert_allclose(interval(*both, subjects, mean_r), expected)


def test_of_a_mean_it_is_students_own():
    """A mean of one number a subject, not heavy-tailed: the interval that every textbook has."""
    x = np.random.default_rng(2).uniform(size=12)
    found = interval(np.zeros(12), x, np.arange(12), lambda y, p: p.mean())
    np.testing.assert_allclose(found, stats.t.interval(0.95, 11, x.mean(), stats.sem(x)))


def test_a_subject_that_decides_everything_widens_it():
    x = np.append(np.random.default_rng(3).uniform(size=29), 30.0)
    without = (x.sum() - x) / 29
    low, high = student(x.mean(), without)
    assert (high - low) / 2 / stats.sem(x) == pytest.approx(stats.t.ppf(0.975, 3), rel=0.05)


def test_the_interval_is_of_subjects_and_not_of_windows():
    """20 subjects whose error is their own: 50 windows of each say no more than one."""
    rng = np.random.default_rng(2)
    error, y = rng.normal(size=20), rng.normal(size=(20, 50))
    one = interval(y[:, 0], y[:, 0] + error, np.arange(20), rmse)
    many = interval(y.ravel(), (y + error[:, None]).ravel(), np.repeat(np.arange(20), 50), rmse)
    np.testing.assert_allclose(one, many, rtol=1e-6)


@pytest.mark.parametrize(
    "name, subjects",
    [
        ("challenge 1", 10),
        ("challenge 2", 10),
        ("challenge 2, near the mean's score", 20),
        ("challenge 2, skewed", 20),
    ],
)
def test_the_intervals_cover(name, subjects):
    """About 95 % of the intervals contain the truth; of a percentile bootstrap's 74 to 90 %."""
    one, difference = share_held(POPULATIONS[name], subjects, 300)
    assert 0.92 <= one <= 0.985 and 0.92 <= difference <= 0.985


def test_identical_predictions_do_not_differ():
    y, p, subjects = *np.random.default_rng(4).normal(size=(2, 60)), np.arange(60) // 5
    assert interval_difference(y, p, p, subjects) == (0, 0)


def test_an_interval_stays_where_the_metric_can_be():
    y = np.random.default_rng(5).normal(size=100)
    p, subjects = y + 0.2 * np.random.default_rng(6).normal(size=100), np.arange(100) // 10
    p[:10] *= -1  # one subject decides
    assert interval(y, p, subjects)[0] >= 0 and interval(y, p, subjects, pearson)[1] <= 1
    assert interval(y, p, subjects, r2)[1] <= 1 and interval(y, p, subjects, auroc)[1] <= 1


def test_describe_has_all_of_them():
    y, p = np.random.default_rng(5).normal(size=(2, 30))
    assert describe(y, p) == {
        name: getattr(metrics, name)(y, p)
        for name in ("nrmse", "rmse", "mae", "pearson", "r2", "auroc")
    }
    assert np.isnan(describe(y, np.ones(30))["pearson"])
    assert describe(y, np.ones(30))["auroc"] == 0.5


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
        (lambda: interval([1, 2], [1, 3], ["a", "a"]), r"too few subjects to say \(1\)"),
        (lambda: interval(range(9), range(9), range(9), mae), r"too few subjects to say \(9\)"),
        (
            lambda: interval_difference([1, 2], [1, 3], [1, 3], ["a", "b"]),
            r"too few subjects to say \(2\)",
        ),
        (lambda: interval([1, 2], [1, 3], ["a", "b", "c"]), "3 subject names and 2 windows"),
        (lambda: interval([2, 2], [1, 3], ["a", "b"]), "all 2 labels"),
        (
            lambda: interval([2] * 9 + [3], range(10), list("abcdefghij")),
            "without j nothing varies, and nrmse is not defined",
        ),
        (
            lambda: interval([2] * 9 + [3], range(10), list("abcdefghij"), auroc),
            "without j nothing varies, and auroc is not defined",
        ),
        (
            lambda: interval(range(10), [2] * 9 + [3], list("abcdefghij"), pearson),
            "without j nothing varies, and pearson is not defined",
        ),
    ],
)
def test_mistakes(call, reason):
    with pytest.raises(UserError, match=reason):
        call()
