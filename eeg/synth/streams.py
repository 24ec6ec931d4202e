"""One random generator for each purpose, so that nothing is drawn twice from the same numbers."""

import numpy as np

# What a stream is for; its tag is its last word of entropy. New purposes go to the end.
PURPOSES = (
    "person",
    "traits",
    "events",
    "head",
    "source",
    "background",
    "trials",
    "artefacts",
    "habits",
    "sign",
    "row",
    "electrodes",
)


def stream(seed: int, release: str, index: int, purpose: str, part: int = 0) -> np.random.Generator:
    """The generator of subject `index` of a release for one purpose and one part of it.

    NumPy pads short entropy with zeros, so that [1, 2] and [1, 2, 0] are the same stream. Here the
    entropy always has six words of 32 bits and ends in the purpose's tag, which is never 0.
    """
    words = (seed & 0xFFFFFFFF, seed >> 32, int(release[1:]), index, part)
    if not all(0 <= word < 2**32 for word in words):
        raise ValueError(f"seed {seed}, index {index}, part {part}: expected 64, 32 and 32 bits")
    return np.random.default_rng([*words, 1 + PURPOSES.index(purpose)])
