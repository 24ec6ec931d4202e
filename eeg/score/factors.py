"""The four factors of `--target factors`, each scored by itself."""

import numpy as np

from eeg import UserError
from eeg.data.split import EXTERNALIZING_FIRST, labels
from eeg.score.metrics import interval, nrmse, pearson


def factor_scores(cache, rows, p):
    """p (N, 4): what a model answers for windows `rows`, externalizing first. -> ({factor: scores}, the mean correlation).

    Scores are {"windows", "nrmse", "nrmse_interval", "pearson", "pearson_interval"}. What is not defined is missing, and
    "reason" says why; the mean correlation is None where no factor has one. Windows without a factor do not count for it.
    """
    y, subjects = labels(cache, "factors")[rows], cache.metadata["subject"][rows]
    found = {}
    for k, name in enumerate(EXTERNALIZING_FIRST):
        known = np.isfinite(y[:, k])
        found[name] = _scores(y[known, k], p[known, k], subjects[known])
    correlations = [scores["pearson"] for scores in found.values() if "pearson" in scores]
    return found, float(np.mean(correlations)) if correlations else None


def _scores(y, p, subjects):
    found = {"windows": len(y)}
    for metric in (nrmse, pearson):
        name = metric.__name__
        try:
            found[name] = metric(y, p)
            found[f"{name}_interval"] = list(interval(y, p, subjects, metric))
        except UserError as e:
            found.setdefault("reason", str(e))
    return found


def factor_rows(found, mean):
    """The same as rows of text: factor, NRMSE, its interval, correlation, its interval or the reason why it has none."""
    rows = [["factor", "NRMSE", "95 % interval", "r", "95 % interval"]]
    for name, scores in found.items():
        cells = [name]
        for metric in ("nrmse", "pearson"):
            ends = scores.get(f"{metric}_interval")
            cells.append(f"{scores[metric]:.5f}" if metric in scores else "-")
            cells.append(f"{ends[0]:.3f} .. {ends[1]:.3f}" if ends else "")
        rows.append([*cells[:-1], cells[-1] or scores.get("reason", "")])
    return [*rows, ["mean", "", "", "-" if mean is None else f"{mean:.5f}", ""]]
