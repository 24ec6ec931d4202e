"""Whether one set of predictions is better than another, in a sentence."""

import numpy as np

from eeg import UserError
from eeg.score.metrics import bootstrap_difference, nrmse


def verdict(first, p, second, q, y, subjects):
    """-> (whether p (N,) is better than q (N,), the sentence that says so). first, second: what they are called.

    Better means that the 95 % interval of the difference in NRMSE, by a bootstrap of subjects drawn for both alike, lies below 0.
    """
    if np.array_equal(p, q):
        return False, f"not distinguishable: {first} and {second} predict the same"
    difference = nrmse(y, p) - nrmse(y, q)
    try:
        low, high = bootstrap_difference(y, p, q, subjects)
    except UserError as e:
        return False, f"not distinguishable: {e}"
    interval = f"{difference:+.5f} NRMSE, 95 % interval {low:+.5f} .. {high:+.5f}"
    if high < 0:
        return True, f"better: {first} than {second}, {interval}"
    if low > 0:
        return False, f"worse: {first} than {second}, {interval}"
    return False, f"not distinguishable: {first} and {second}, {interval} holds 0"
