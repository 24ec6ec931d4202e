"""Whether one set of predictions is better than another, in a sentence."""

import numpy as np

from eeg import UserError
from eeg.score.metrics import bootstrap_difference, nrmse


def verdict(first, p, second, q, y, subjects):
    """-> (whether p (N,) is better than q (N,), the sentence that says so). first, second: what they are called.

    Better means that the 95 % interval of the gain in NRMSE, by a bootstrap of subjects drawn for both alike, lies above 0.
    """
    if np.array_equal(p, q):
        return False, f"not distinguishable: {first} and {second} predict the same"
    gain = nrmse(y, q) - nrmse(y, p)
    try:
        low, high = bootstrap_difference(y, q, p, subjects)
    except UserError as e:
        return False, f"not distinguishable: {first} and {second}, {e}"
    if low > 0:
        return True, f"better: {first} than {second}, by {gain:.5f} NRMSE, 95 % interval {low:.5f} .. {high:.5f}"
    if high < 0:
        return False, f"worse: {first} than {second}, by {-gain:.5f} NRMSE, 95 % interval {-high:.5f} .. {-low:.5f}"
    return False, f"not distinguishable: {first} and {second}, {gain:+.5f} NRMSE, and the 95 % interval {low:+.5f} .. {high:+.5f} holds 0"
