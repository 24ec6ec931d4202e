"""Ridge from sums of products, against least squares on explicit matrices."""

import math

import numpy as np
import pytest
import torch

from eeg.ridge.gram import STRENGTHS, Correlations, Fold, Sums, choose, penalties

SIZES = {"one": 5, "two": 3}


def data(n=60, seed=0):
    """Correlated numbers with means, of which one never varies; two labels; weights."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, 8)) @ rng.standard_normal((8, 8)) + 3 * rng.standard_normal(8)
    z[:, 6] = 1.5
    y = 0.5 * z[:, :2] + rng.standard_normal((n, 2)) + 2
    return z, y, rng.uniform(0.2, 3, n)


def summed(z, y, weight, batch=7, subjects=None):
    sums = Sums(z.shape[1], y.shape[1])
    subjects = np.zeros(len(z), int) if subjects is None else subjects
    for at in range(0, len(z), batch):
        parts = (part[at : at + batch] for part in (z, y, weight))
        sums.add(*(torch.from_numpy(part) for part in parts), subjects[at : at + batch])
    return sums


def by_least_squares(z, y, weight, penalty):
    """-> answers(z): the same ridge as rows of an explicit problem."""
    share = weight / weight.sum()
    mean, center = share @ z, share @ y
    spread = np.sqrt(share @ np.square(z - mean))
    used = (spread > 1e-6) & np.isfinite(penalty)
    standard = (z - mean)[:, used] / spread[used]
    rows = np.vstack([np.sqrt(share)[:, None] * standard, np.diag(np.sqrt(penalty[used]))])
    right = np.vstack([np.sqrt(share)[:, None] * (y - center), np.zeros((used.sum(), 2))])
    slope = np.linalg.lstsq(rows, right, rcond=None)[0]
    return lambda new: center + ((new - mean)[:, used] / spread[used]) @ slope


@pytest.mark.parametrize("strengths", [(0.1, 3.0), (1e-4, math.inf), (math.inf, math.inf)])
def test_weights_are_those_of_least_squares(strengths):
    z, y, weight = data()
    penalty = penalties(SIZES, dict(zip(SIZES, strengths)))
    assert penalty.tolist() == [5 * strengths[0]] * 5 + [3 * strengths[1]] * 3
    sums = summed(z, y, weight)
    slope, bias = Correlations(sums).solve(penalty)
    answers = z @ slope.numpy().T + bias.numpy()
    wanted = by_least_squares(z, y, weight, penalty.numpy())(z)
    np.testing.assert_allclose(answers, wanted, rtol=1e-9, atol=1e-9)
    error = (weight @ np.square(wanted - y)).mean() / weight.sum()
    assert sums.error(slope, bias) == pytest.approx(error, rel=1e-9)


def test_generalised_sums_are_those_of_whitened_windows():
    """Labels of a subject correlate by 0.3: windows times the inverse root of that covariance."""
    z, y, _ = data(31)
    subjects = np.random.default_rng(2).integers(0, 5, 31)
    alike = 0.7 * np.eye(31) + 0.3 * (subjects[:, None] == subjects)
    rows = np.hstack([np.ones((31, 1)), z, y])
    wanted = rows.T @ np.linalg.solve(alike / 0.7, rows)
    known, others = (summed(z[part], y[part], np.ones(part.sum()), 4, subjects[part])
                     for part in (subjects < 2, subjects >= 2))  # fmt: skip
    known.join(others)
    np.testing.assert_allclose(known.generalised(0.3).total.numpy(), wanted, rtol=1e-9, atol=1e-9)


def brute_force(parts, strengths):
    """The weighted mean squared error on each part of the fit to the others."""
    penalty = penalties(SIZES, strengths).numpy()
    total = 0.0
    for held, part in enumerate(parts):
        known = [np.concatenate(each) for each in zip(*(parts[:held] + parts[held + 1 :]))]
        z, y, weight = part
        total += weight @ np.square(by_least_squares(*known, penalty)(z) - y).mean(1)
    return total


def folds_of(parts):
    known = [
        [np.concatenate(each) for each in zip(*(parts[:held] + parts[held + 1 :]))]
        for held in range(len(parts))
    ]
    return [Fold(Correlations(summed(*k)), summed(*p)) for k, p in zip(known, parts)]


def test_one_kind_has_the_strength_of_the_least_error_left_out(monkeypatch):
    z, y, weight = data(40)
    z, y = z[:, :5], y + 2 * np.random.default_rng(3).standard_normal(y.shape)
    monkeypatch.setitem(SIZES, "two", 0)
    bounds = (slice(0, 9), slice(9, 25), slice(25, 40))
    parts = [(z[part], y[part], weight[part]) for part in bounds]
    found = choose(folds_of(parts), {"one": 5})
    errors = [brute_force(parts, {"one": strength, "two": 1.0}) for strength in STRENGTHS]
    assert found == {"one": STRENGTHS[int(np.argmin(errors))]}
    assert 0 < STRENGTHS.index(found["one"]) < len(STRENGTHS) - 1


def test_no_neighbouring_strength_of_any_kind_is_better():
    z, y, weight = data(80, seed=5)
    y = y + 3 * np.random.default_rng(1).standard_normal(y.shape)
    parts = [(z[i::4], y[i::4], weight[i::4]) for i in range(4)]
    found = choose(folds_of(parts), SIZES)
    best = brute_force(parts, found)
    assert best < brute_force(parts, dict.fromkeys(SIZES, math.inf))
    for kind in SIZES:
        at = STRENGTHS.index(found[kind])
        for other in STRENGTHS[max(0, at - 1) : at + 2]:
            assert best <= brute_force(parts, found | {kind: other}) * (1 + 1e-12)


def test_numbers_that_say_nothing_are_hardly_used():
    rng = np.random.default_rng(2)
    z, y, weight = rng.standard_normal((30, 5)), rng.standard_normal((30, 2)), np.ones(30)
    parts = [(z[i::5], y[i::5], weight[i::5]) for i in range(5)]
    found = choose(folds_of(parts), {"one": 5})
    assert found["one"] >= 1


def test_infinite_strength_answers_the_mean():
    z, y, weight = data()
    nothing = penalties(SIZES, dict.fromkeys(SIZES, math.inf))
    slope, bias = Correlations(summed(z, y, weight)).solve(nothing)
    assert not slope.any()
    np.testing.assert_allclose(bias, weight @ y / weight.sum(), rtol=1e-12)
