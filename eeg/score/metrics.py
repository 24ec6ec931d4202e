"""The metrics, written here and nowhere else, and their 95 % intervals by subject.

y (N,) labels, p (N,) predictions, subjects (N,) whose window each is. Windows of one subject
resemble each other, so an interval comes from leaving out one subject at a time (a jackknife), with
Student's t. `python run/bench.py coverage` shows how often such an interval contains the truth. All
metrics but the AUROC follow from a few sums over windows: a subject is left out by subtraction.
"""

from collections.abc import Callable

import numpy as np
import scipy.stats

from eeg import UserError

# The best of the competition's final leaderboard, on its hidden release
LEADERBOARD = {1: 0.88668, 2: 0.97843, "overall": 0.96381}
# With fewer subjects an interval contains the truth less often than it promises
FEW = 10
# Degrees of freedom of Student's t where a few subjects decide everything
LEAST_FREEDOM = 3


class TooFew(UserError):
    """There are fewer than FEW subjects."""


def _checked(y, p):
    y, p = np.asarray(y, float), np.asarray(p, float)
    if y.ndim != 1 or y.shape != p.shape:
        shapes = f"labels of shape {y.shape} and predictions of shape {p.shape}"
        raise UserError(f"{shapes} do not belong together; expected one number a window in both")
    if len(y) == 0:
        raise UserError("there is no window to score")
    for what, values in (("labels", y), ("predictions", p)):
        if bad := int((~np.isfinite(values)).sum()):
            which = f"{bad} of {len(values)} {what}"
            raise UserError(f"{which} are NaN or infinite, which cannot be scored")
    return y, p


def _constant(what, values, name):
    """The UserError for a metric that needs values that vary."""
    same = f"all {len(values)} {what} are {values[0]:g}"
    return UserError(f"{same}: {name} is not defined where they do not vary")


class _Sums:
    """What the metrics are made of. table (..., 8): the sums over windows of `_table`."""

    def __init__(self, table):
        self.n, y, p, yy, pp, yp, self.squares, self.absolute = np.moveaxis(table, -1, 0)
        self.var_y = yy / self.n - (y / self.n) ** 2
        self.var_p = pp / self.n - (p / self.n) ** 2
        self.cov = yp / self.n - y * p / self.n**2


def _table(y, p):
    """(N, 8): the terms of the sums. y and p are centred, which keeps the digits of variances."""
    error, y, p = p - y, y - y.mean(), p - p.mean()
    return np.stack([np.ones(len(y)), y, p, y * y, p * p, y * p, error * error, np.abs(error)], 1)


class Metric:
    """A metric of (y, p), by a formula on _Sums, with bounds. Those in `varied` must vary."""

    def __init__(self, name, formula, varied="", bounds=(0, np.inf)):
        self.__name__, self.formula, self.varied, self.bounds = name, formula, varied, bounds

    def __call__(self, y, p) -> float:
        y, p = _checked(y, p)
        for name, what, values in (("y", "labels", y), ("p", "predictions", p)):
            if name in self.varied and np.ptp(values) == 0:
                raise _constant(what, values, self.__name__)
        return float(self.formula(_Sums(_table(y, p).sum(0))))


# The competition's metric: RMSE / population standard deviation of the labels
nrmse = Metric("nrmse", lambda s: np.sqrt(s.squares / s.n / s.var_y), "y")
rmse = Metric("rmse", lambda s: np.sqrt(s.squares / s.n))  # root of the mean squared error
mae = Metric("mae", lambda s: s.absolute / s.n)  # mean absolute error
pearson = Metric("pearson", lambda s: s.cov / np.sqrt(s.var_y * s.var_p), "yp", (-1, 1))
# The share of the labels' variance that is explained; 1 - nrmse^2
r2 = Metric("r2", lambda s: 1 - s.squares / s.n / s.var_y, "y", (-np.inf, 1))


def auroc(y, p) -> float:
    """How often a window with a label above the median has a higher prediction than one without.

    A tie counts half. Labels 0 and 1 are split between 0 and 1, wherever their median is.
    """
    y, p = _checked(y, p)
    median = np.median(y)
    above = y > median if (y > median).any() else y >= median
    if above.all():
        raise _constant("labels", y, "auroc")
    _, which, counts = np.unique(p, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[which]  # from 1; ties share their mean
    n = above.sum()
    return float((rank[above].sum() - n * (n + 1) / 2) / (n * (len(y) - n)))


auroc.bounds = (0, 1)


def overall(challenge1: float, challenge2: float) -> float:
    """The competition's final score from the NRMSE of both challenges."""
    return 0.3 * challenge1 + 0.7 * challenge2


def describe(y, p) -> dict[str, float]:
    """{name: value} of all metrics. The correlation is NaN where all predictions are the same."""
    found = {metric.__name__: metric(y, p) for metric in (nrmse, rmse, mae, r2, auroc)}
    return found | {"pearson": pearson(y, p) if np.ptp(np.asarray(p, float)) > 0 else float("nan")}


def interval(y, p, subjects, metric: Callable = nrmse, least: int = FEW) -> tuple[float, float]:
    """(low, high): the 95 % interval of a metric in a large population of such subjects.

    metric: any function of (y, p). Raises TooFew where there are fewer than `least` subjects, and
    UserError where the metric is not defined without one of them.
    """
    whole, without = _left_out(y, p, subjects, metric, least)
    own_mean = whole * _own_mean(np.asarray(y, float), subjects) if metric is nrmse else 0.0
    low, high = student(whole, without, own_mean**2)
    smallest, largest = getattr(metric, "bounds", (-np.inf, np.inf))
    return max(low, smallest), min(high, largest)


def interval_difference(
    y, p, q, subjects, metric: Callable = nrmse, least=FEW
) -> tuple[float, float]:
    """(low, high): the 95 % interval of metric(y, p) - metric(y, q), on the same subjects."""
    with_p, with_q = (_left_out(y, each, subjects, metric, least) for each in (p, q))
    return student(with_p[0] - with_q[0], with_p[1] - with_q[1])


def student(whole: float, without: np.ndarray, surplus: float = 0.0) -> tuple[float, float]:
    """(low, high): the 95 % interval of an estimate, from its values (G,) without each subject.

    Half the width is Student's t times the jackknife's standard error. Where a few subjects make up
    most of that error, it is itself uncertain: the degrees of freedom follow from the kurtosis of
    the values (Satterthwaite). surplus: variance that the jackknife is known to add.
    """
    subjects, from_mean = len(without), without - without.mean()
    most = np.abs(from_mean).max()
    if most == 0:  # whoever is left out, it is the same
        return float(whole), float(whole)
    square = ((from_mean / most) ** 2).mean()
    kurtosis = ((from_mean / most) ** 4).mean() / square**2
    spread = max(kurtosis - (subjects - 3) / (subjects - 1), 1e-9)
    freedom = np.clip(2 * subjects / spread, LEAST_FREEDOM, subjects - 1)
    variance = (subjects - 1) * square * most**2
    error = np.sqrt(max(variance - surplus, variance / 3))
    half = scipy.stats.t.ppf(0.975, freedom) * error
    return float(whole - half), float(whole + half)


def _own_mean(y, subjects):
    """By what share a sample's NRMSE exceeds its population's.

    Labels vary less around the sample's own mean. The excess is a square, whose variance the
    jackknife overestimates. Where the NRMSE is near 1 and subjects are few, its intervals alone
    would contain the truth in 99 % of cases instead of 95.
    """
    names, which = np.unique(np.asarray(subjects), return_inverse=True)
    by_subject = np.bincount(which, y - y.mean(), len(names))
    of_mean = len(names) / (len(names) - 1) * (by_subject**2).sum() / len(y) ** 2
    return 1 - np.sqrt(y.var() / (y.var() + of_mean))


def _left_out(y, p, subjects, metric, least):
    """(the metric, its values (G,) without each of the G subjects)."""
    y, p = np.asarray(y), np.asarray(p)
    whole = metric(y, p)  # raises where the whole cannot be scored
    names, which = np.unique(np.asarray(subjects), return_inverse=True)
    if len(which) != len(y):
        raise UserError(f"{len(which)} subject names and {len(y)} windows do not belong together")
    if len(names) < least:
        raise TooFew(f"too few subjects to say ({len(names)})")
    if isinstance(metric, Metric):
        found = _without_each(metric, *_checked(y, p), which, len(names))
    else:
        found = np.array([_value(metric, y[which != i], p[which != i]) for i in range(len(names))])
    if np.isnan(found).any():
        name = names[np.isnan(found).argmax()]
        who = name.decode() if isinstance(name, bytes) else name
        why = f"without {who} nothing varies, and {metric.__name__} is not defined"
        raise UserError(f"no interval: {why}")
    return whole, found


def _without_each(metric, y, p, which, count):
    """(G,) a metric without each subject, by its formula; NaN where what has to vary does not."""
    table = _table(y, p)
    by_subject = np.stack([np.bincount(which, column, count) for column in table.T], 1)
    total = by_subject.sum(0)
    sums = _Sums(total - by_subject)
    constant = np.zeros(count, bool)
    for name, variance, square in (("y", sums.var_y, total[3]), ("p", sums.var_p, total[4])):
        if name in metric.varied:
            constant |= variance < 1e-12 * square / len(y)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(constant, np.nan, metric.formula(sums))


def _value(metric, y, p):
    try:
        return metric(y, p)
    except UserError:  # labels of one kind are left
        return np.nan
