"""The metrics, written here and nowhere else, and how sure they are: intervals from a bootstrap by subject.

y (N,) labels, p (N,) predictions, subjects (N,) anything that names whose window it is. Windows of one subject resemble each
other, so what is drawn anew is subjects, not windows. All metrics but the AUROC follow from a few sums over windows; a draw
only weighs the sums of each subject, so that a thousand draws are one matrix product.
"""

import functools

import numpy as np

from eeg import UserError

LEADERBOARD = {1: 0.88668, 2: 0.97843, "overall": 0.96381}  # the best of the competition's final leaderboard, on its hidden release


def _checked(y, p):
    y, p = np.asarray(y, float), np.asarray(p, float)
    if y.ndim != 1 or y.shape != p.shape:
        raise UserError(f"labels of shape {y.shape} and predictions of shape {p.shape} do not belong together; expected one number a window in both")
    if len(y) == 0:
        raise UserError("there is no window to score")
    for what, values in (("labels", y), ("predictions", p)):
        if bad := int((~np.isfinite(values)).sum()):
            raise UserError(f"{bad} of {len(values)} {what} are NaN or infinite; nothing can be scored with them")
    return y, p


class _Sums:
    """What the metrics are made of: sums over windows, each a number or an array (draws,). y and p are centred first, which keeps the digits of their variances."""

    def __init__(self, table):  # (..., 8)
        self.n, y, p, yy, pp, yp, self.squares, self.absolute = np.moveaxis(table, -1, 0)
        self.var_y, self.var_p, self.cov = yy / self.n - (y / self.n) ** 2, pp / self.n - (p / self.n) ** 2, yp / self.n - y * p / self.n**2


def _table(y, p):
    """(N, 8): the terms of the sums, one row a window."""
    error, y, p = p - y, y - y.mean(), p - p.mean()
    return np.stack([np.ones(len(y)), y, p, y * y, p * p, y * p, error * error, np.abs(error)], 1)


def _metric(varied=""):
    """Turns a formula on _Sums into a metric of (y, p). varied: y or p, or both, must not be constant."""

    def decorate(formula):
        @functools.wraps(formula)
        def metric(y, p):
            y, p = _checked(y, p)
            for name, what, values in (("y", "labels", y), ("p", "predictions", p)):
                if name in varied and np.ptp(values) == 0:
                    raise UserError(f"all {len(y)} {what} are {values[0]:g}: {formula.__name__} is not defined where they do not vary")
            return float(formula(_Sums(_table(y, p).sum(0))))

        metric.formula, metric.varied = formula, varied
        return metric

    return decorate


@_metric()
def rmse(s):
    """rmse(y, p): root of the mean squared error."""
    return np.sqrt(s.squares / s.n)


@_metric("y")
def nrmse(s):
    """nrmse(y, p): the competition's metric, RMSE over the population standard deviation of the labels."""
    return np.sqrt(s.squares / s.n / s.var_y)


@_metric()
def mae(s):
    """mae(y, p): mean absolute error."""
    return s.absolute / s.n


@_metric("yp")
def pearson(s):
    """pearson(y, p): correlation."""
    return s.cov / np.sqrt(s.var_y * s.var_p)


@_metric("y")
def r2(s):
    """r2(y, p): share of the labels' variance that is explained; 1 - nrmse^2."""
    return 1 - s.squares / s.n / s.var_y


def auroc(y, p):
    """How often of two windows, one with a label above the median and one not, the first has the higher prediction (a tie counts half).

    Labels 0 and 1 are split between 0 and 1, wherever their median is.
    """
    y, p = _checked(y, p)
    median = np.median(y)
    above = y > median if (y > median).any() else y >= median
    if above.all():
        raise UserError(f"all {len(y)} labels are {y[0]:g}: auroc is not defined where they do not vary")
    _, which, counts = np.unique(p, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[which]  # from 1; ties share their mean
    n = above.sum()
    return float((rank[above].sum() - n * (n + 1) / 2) / (n * (len(y) - n)))


def overall(challenge1, challenge2):
    """The competition's final score of two NRMSE."""
    return 0.3 * challenge1 + 0.7 * challenge2


def describe(y, p):
    """{name: value} of all metrics. Correlation is NaN where all predictions are the same, which a model that has learned nothing may give."""
    found = {metric.__name__: metric(y, p) for metric in (nrmse, rmse, mae, r2, auroc)}
    return found | {"pearson": pearson(y, p) if np.ptp(np.asarray(p, float)) > 0 else float("nan")}


def bootstrap(y, p, subjects, metric=nrmse, draws=1000, seed=0):
    """-> (low, high): the 95 % interval of a metric over draws of as many subjects, with replacement."""
    return _interval(_drawn([(y, p)], subjects, metric, draws, seed)[0])


def bootstrap_difference(y, p, q, subjects, metric=nrmse, draws=1000, seed=0):
    """-> (low, high): the 95 % interval of metric(y, p) - metric(y, q), both on the same subjects in each draw."""
    with_p, with_q = _drawn([(y, p), (y, q)], subjects, metric, draws, seed)
    return _interval(with_p - with_q)


def _drawn(pairs, subjects, metric, draws, seed):
    """For each (y, p) the metric (draws,) in the same draws; NaN in a draw where it is not defined."""
    if not hasattr(metric, "formula"):
        raise UserError(f"there is no interval for {metric.__name__}: it is no function of sums over windows")
    names, which = np.unique(np.asarray(subjects), return_inverse=True)
    if len(names) < 2:
        raise UserError(f"an interval by subject needs at least 2 subjects, got {len(names)}")
    drawn = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
    weights = np.bincount((drawn + len(names) * np.arange(draws)[:, None]).ravel(), minlength=draws * len(names)).reshape(draws, len(names)).astype(float)
    results = []
    for y, p in pairs:
        metric(y, p)  # raises where the whole cannot be scored
        table = _table(*_checked(y, p))
        if len(which) != len(table):
            raise UserError(f"{len(which)} names of subjects and {len(table)} windows do not belong together")
        sums = _Sums(weights @ np.stack([np.bincount(which, column, len(names)) for column in table.T], 1))
        constant = np.zeros(draws, bool)  # draws of one subject alone, or of several with the same label
        for name, variance, all_windows in (("y", sums.var_y, table[:, 3]), ("p", sums.var_p, table[:, 4])):
            if name in metric.varied:
                constant |= variance < 1e-12 * all_windows.mean()
        with np.errstate(divide="ignore", invalid="ignore"):
            results.append(np.where(constant, np.nan, metric.formula(sums)))
    return results


def _interval(values):
    """Draws in which the metric is not defined (few subjects, all with one label) are left out."""
    low, high = np.percentile(values[~np.isnan(values)], (2.5, 97.5))
    return float(low), float(high)
