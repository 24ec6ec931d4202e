"""Better, worse, or not distinguishable: against other intervals, and under mere noise."""

import re

import numpy as np
import pytest

from eeg.score.metrics import nrmse
from eeg.score.scores import verdict


def simulated(seed, subjects=40, windows=15, p_noise=0.3, q_noise=0.3):
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(subjects), windows)
    y = 1.6 + 0.3 * rng.normal(size=subjects)[who] + 0.3 * rng.normal(size=len(who))
    return y, y + p_noise * rng.normal(size=len(who)), y + q_noise * rng.normal(size=len(who)), who


def test_identical_is_not_distinguishable():
    y, p, _, who = simulated(0)
    assert verdict("a", p, "b", p.copy(), y, who) == (
        False,
        "not distinguishable: a and b predict the same",
    )


def test_better_and_worse_with_an_interval_like_that_of_drawn_subjects():
    y, p, q, who = simulated(1, q_noise=0.4)
    better, sentence = verdict("a", p, "b", q, y, who)
    worse = verdict("b", q, "a", p, y, who)
    drawn = np.random.default_rng(7).integers(40, size=(4000, 40))
    rows = np.arange(600).reshape(40, 15)
    gains = [nrmse(y[r], q[r]) - nrmse(y[r], p[r]) for r in (rows[d].ravel() for d in drawn)]
    numbers = [float(n) for n in re.findall(r"0\.\d+", sentence)]
    np.testing.assert_allclose(
        numbers, [nrmse(y, q) - nrmse(y, p), *np.percentile(gains, (2.5, 97.5))], atol=0.025
    )
    assert better and sentence.startswith("better: a than b, by 0.")
    assert worse == (False, sentence.replace("better: a than b", "worse: b than a"))


def test_an_average_of_five_beats_its_best_member():
    """Errors half of which members share: what an ensemble of seeds is."""
    rng = np.random.default_rng(2)
    y, shared, _, who = simulated(2, p_noise=0.2)
    members = [shared + rng.normal(0, 0.2, len(y)) for _ in range(5)]
    best = min(members, key=lambda p: nrmse(y, p))
    assert verdict("ensemble", np.mean(members, 0), "best", best, y, who)[0]


def test_equally_good_is_seldom_called_better():
    """Of 200 equally good pairs about 5 on each side come out as different.

    With 10 subjects a percentile bootstrap calls 17 so.
    """
    pairs = (simulated(seed, subjects=10) for seed in range(200))
    said = [verdict("a", p, "b", q, y, who)[1].split(":")[0] for y, p, q, who in pairs]
    assert said.count("better") + said.count("worse") <= 12
    assert said.count("not distinguishable") >= 188


@pytest.mark.parametrize("subjects", [1, 4, 9])
def test_few_subjects_say_nothing(subjects):
    y, p, q, who = simulated(3, subjects=subjects, q_noise=3.0)
    gain = nrmse(y, q) - nrmse(y, p)
    assert gain > 1
    assert verdict("a", p, "b", q, y, who) == (
        False,
        f"too few subjects to say ({subjects}): a scores {gain:.5f} NRMSE below b",
    )
    assert verdict("b", q, "a", p, y, who) == (
        False,
        f"too few subjects to say ({subjects}): b scores {gain:.5f} NRMSE above a",
    )


def test_an_interval_that_holds_0():
    y, p, q, who = simulated(4, subjects=10, windows=4)
    better, sentence = verdict("a", p, "b", q, y, who)
    low, high = re.search(r"interval (\S+) \.\. (\S+) contains 0", sentence).groups()
    assert not better and float(low) <= 0 <= float(high) and low[0] == "-" and high[0] == "+"
    assert float(re.search(r"b, (\S+) NRMSE", sentence)[1]) == pytest.approx(
        nrmse(y, q) - nrmse(y, p), abs=1e-5
    )
