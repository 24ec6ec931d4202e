"""Whether one set of predictions is better than another, in a sentence."""

import numpy as np

from eeg import UserError
from eeg.score.metrics import TooFew, interval_difference, nrmse


def verdict(first, p, second, q, y, subjects):
    """-> (whether p (N,) is better than q (N,), the sentence that says so). first, second: what they are called.

    Better means that the 95 % interval by subject of the gain in NRMSE lies above 0. With few subjects nothing is better or worse.
    """
    if np.array_equal(p, q):
        return False, f"not distinguishable: {first} and {second} predict the same"
    gain = nrmse(y, q) - nrmse(y, p)
    try:
        low, high = interval_difference(y, q, p, subjects)
    except TooFew as e:
        where = "below" if gain > 0 else "above"
        return False, f"{e}: {first} scores {abs(gain):.5f} NRMSE {where} {second}"
    except UserError as e:
        return False, f"not distinguishable: {first} and {second}, {gain:+.5f} NRMSE, {e}"
    if low > 0:
        return (
            True,
            f"better: {first} than {second}, by {gain:.5f} NRMSE, 95 % interval {low:.5f} .. {high:.5f}",
        )
    if high < 0:
        return (
            False,
            f"worse: {first} than {second}, by {-gain:.5f} NRMSE, 95 % interval {-high:.5f} .. {-low:.5f}",
        )
    return (
        False,
        f"not distinguishable: {first} and {second}, {gain:+.5f} NRMSE, and the 95 % interval {low:+.5f} .. {high:+.5f} holds 0",
    )
