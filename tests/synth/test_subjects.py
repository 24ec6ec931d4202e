"""Random streams: no two are the same numbers, and none begins as another ends its entropy."""

import itertools

import numpy as np
import pytest

from eeg.synth.subjects import PURPOSES, stream


def words(*place):
    """The entropy that a stream is made from."""
    return list(stream(*place).bit_generator.seed_seq.entropy)


def test_numpy_pads_short_entropy_with_zeros():
    """Why streams have a fixed length: these are one stream."""
    first, second = (np.random.default_rng(seed).random(4) for seed in ([7, 1, 3], [7, 1, 3, 0]))
    assert (first == second).all()


def test_no_stream_equals_or_begins_another():
    places = itertools.product(
        (0, 1, 2**32, 2**32 + 1), ("R1", "R2"), (0, 1, 2), PURPOSES, (0, 1, 16)
    )
    found = [tuple(words(*place)) for place in places]
    assert len(set(found)) == len(found)
    # All of one length, the last word never 0: padding with zeros makes none the beginning of one.
    assert {len(entropy) for entropy in found} == {6}
    assert all(entropy[-1] > 0 for entropy in found)
    drawn = {tuple(np.random.default_rng(list(e)).integers(0, 2**63, 2)) for e in found}
    assert len(drawn) == len(found)


def test_a_word_that_does_not_fit_is_refused():
    for place in ((-1, "R1", 0), (2**64, "R1", 0), (0, "R1", 2**32), (0, "R1", -1)):
        with pytest.raises(ValueError, match="bits"):
            stream(*place, "events")
