"""Scores in words: a metric with its interval, tables, the four factors, which of two is better."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eeg import UserError
from eeg.data.split import EXTERNALIZING_FIRST, labels
from eeg.score.metrics import TooFew, interval, interval_difference, nrmse, pearson
from eeg.score.sides import Side


@dataclass
class Score:
    """A metric and its 95 % interval by subject. What is not defined is None; reason says why."""

    value: float | None = None
    interval: tuple[float, float] | None = None
    reason: str = ""

    def __str__(self):
        value = "" if self.value is None else f"{self.value:.5f}  "
        return value + (_ends(self.interval) if self.interval else self.reason)


def score(y, p, subjects, metric: Callable = nrmse) -> Score:
    """The Score of predictions p (N,) for labels y (N,)."""
    try:
        value = metric(y, p)
    except UserError as e:
        return Score(reason=str(e))
    try:
        return Score(value, interval(y, p, subjects, metric))
    except UserError as e:
        return Score(value, reason=str(e))


def _ends(interval):
    return f"{interval[0]:.3f} .. {interval[1]:.3f}"


def aligned(rows: list[list[str]], indent: str = "  ") -> str:
    """Rows of text as lines with aligned columns. A row may be shorter than the first."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows)
    return "\n".join((indent + line).rstrip() for line in lines)


def factor_scores(side: Side, p) -> tuple[dict, float | None]:
    """({factor: scores}, the mean correlation or None) of a run of `--target factors`.

    p (N, 4): its answers, externalizing first. Each factor is scored on the windows where it is
    known: {"windows", "nrmse", "nrmse_interval", "pearson", "pearson_interval"}, and "by_subject",
    the same with the mean answer to each subject's windows. What is not defined is missing, and
    "reason" says why.
    """
    y = labels(side.cache, "factors")[side.rows]
    found = {}
    for k, name in enumerate(EXTERNALIZING_FIRST):
        known = np.isfinite(y[:, k])
        of_windows = y[known, k], p[known, k], side.subjects[known]
        subjects, which = np.unique(of_windows[2], return_inverse=True)
        mean = lambda values: np.bincount(which, values) / np.bincount(which)
        own = {"subjects": len(subjects)} | _factor(*map(mean, of_windows[:2]), subjects)
        found[name] = {"windows": int(known.sum())} | _factor(*of_windows) | {"by_subject": own}
    return found, _mean_correlation(found.values())


def _mean_correlation(found):
    correlations = [scores["pearson"] for scores in found if "pearson" in scores]
    return float(np.mean(correlations)) if correlations else None


def _factor(y, p, subjects):
    found = {}
    for metric in (nrmse, pearson):
        name, own = metric.__name__, score(y, p, subjects, metric)
        if own.value is not None:
            found[name] = own.value
        if own.interval:
            found[f"{name}_interval"] = list(own.interval)
        if own.reason:
            found.setdefault("reason", own.reason)
    return found


def factor_rows(found: dict, mean: float | None) -> list[list[str]]:
    """What `factor_scores` returns as rows of text: of windows, then of the subjects' means."""
    by_subject = {name: scores["by_subject"] for name, scores in found.items()}
    titles = ["factor", "NRMSE", "95 % interval", "r", "95 % interval"]
    rows = [titles, *_rows(found, mean, "")]
    return rows + _rows(by_subject, _mean_correlation(by_subject.values()), ", by subject")


def _rows(found, mean, ending):
    rows = []
    for name, scores in found.items():
        cells = [name + ending]
        for metric in ("nrmse", "pearson"):
            ends = scores.get(f"{metric}_interval")
            cells.append(f"{scores[metric]:.5f}" if metric in scores else "-")
            cells.append(_ends(ends) if ends else "")
        cells[-1] = cells[-1] or scores.get("reason", "")
        rows.append(cells)
    return [*rows, [f"mean{ending}", "", "", "-" if mean is None else f"{mean:.5f}", ""]]


def verdict(first: str, p, second: str, q, y, subjects) -> tuple[bool, str]:
    """(whether p (N,) is better than q (N,), a sentence that says so). first, second: their names.

    Better means that the 95 % interval by subject of the gain in NRMSE lies above 0.
    """
    alike = f"not distinguishable: {first} and {second}"
    if np.array_equal(p, q):
        return False, f"{alike} predict the same"
    gain = nrmse(y, q) - nrmse(y, p)
    try:
        low, high = interval_difference(y, q, p, subjects)
    except TooFew as e:
        where = "below" if gain > 0 else "above"
        return False, f"{e}: {first} scores {abs(gain):.5f} NRMSE {where} {second}"
    except UserError as e:
        return False, f"{alike}, {gain:+.5f} NRMSE, {e}"
    if low <= 0 <= high:
        ends = f"the 95 % interval {low:+.5f} .. {high:+.5f} contains 0"
        return False, f"{alike}, {gain:+.5f} NRMSE, and {ends}"
    better, (least, most) = low > 0, sorted((abs(low), abs(high)))
    by = f"by {abs(gain):.5f} NRMSE, 95 % interval {least:.5f} .. {most:.5f}"
    return better, f"{'better' if better else 'worse'}: {first} than {second}, {by}"
