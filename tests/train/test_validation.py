"""Which epoch is kept, against SciPy and cases worked by hand."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from eeg.train.validation import CHANCE, Score, worse


def score(value, errors=()):
    return Score(value, {}, 1.0, 0.0, list(errors))


def test_a_lower_or_equal_value_is_not_worse():
    assert not worse(score(0.9, [1, 2]), score(0.91, [1, 2]))
    assert not worse(score(0.9, [1, 2]), score(0.9, [1, 2]))
    assert not worse(score(0.9), score(math.inf))


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_paired_t_test_over_subjects(seed):
    rng = np.random.default_rng(seed)
    subjects = 4 + seed
    before = rng.exponential(1, subjects)
    after = before + rng.normal(0.3, 0.5, subjects)
    p = ttest_rel(after, before, alternative="greater").pvalue
    assert worse(score(1.1, after), score(1.0, before)) == (p < CHANCE)


def test_what_one_subject_alone_says_is_no_chance_to_tell():
    """All of the difference is in one of six subjects: the later epoch may be as good."""
    before, after = [1.0] * 6, [1.0] * 5 + [1.5]
    assert not worse(score(1.04, after), score(1.0, before))
    assert worse(score(1.1, [1.1] * 5 + [1.2]), score(1.0, before))


def test_where_each_window_has_its_own_label_a_hundredth_is_as_good():
    assert not worse(score(0.8417), score(0.834))
    assert worse(score(0.8427), score(0.834))
    assert worse(score(0.91), score(0.834))


def test_without_the_same_subjects_the_value_decides():
    assert worse(score(1.001, [5.0]), score(1.0, [4.0]))
    assert worse(score(1.001, [5.0, 1.0]), score(1.0, [4.0, 1.0, 1.0]))  # other windows are damaged


def test_no_number_is_worse():
    assert worse(score(math.nan, [math.nan, 1.0]), score(1.0, [1.0, 1.0]))
    assert worse(score(math.nan), score(1.0))
