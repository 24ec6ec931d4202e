"""How often the intervals of metrics.py hold the truth, on simulated subjects.

Challenge 1: response times of 1.6 s +- 0.41 s; always answering a subject's own mean scores 0.88;
one subject in 16 has the fast time line; 24 to 100 windows a subject, 3 to 24 for one in seven.
Challenge 2: one label a subject. "skewed" has means or labels with a long tail, windows with
outliers, and models that err more for some subjects. Predictions are labels with noise of the
subject and of the window, shrunk as a fitted model's are.
"""

from dataclasses import dataclass

import numpy as np

from eeg.score.metrics import interval, interval_difference, nrmse

SUBJECTS = (5, 8, 10, 15, 20, 50, 100, 200)
REPETITIONS = 2000
WINDOWS = 100  # of a subject, at most
LARGE = 100_000  # subjects, whose score is the truth
SHARED = 0.8  # correlation of two models' noise
BLOCK = 4000  # subjects simulated at a time


@dataclass(frozen=True)
class Population:
    challenge: int
    score: float  # NRMSE of the model, before outliers
    worse: float  # how much larger the other model's noise is
    skewed: bool = False


POPULATIONS = {
    "challenge 1": Population(1, 0.90, 1.3),
    "challenge 1, near the mean's score": Population(1, 0.99, 1.0),
    "challenge 1, skewed": Population(1, 0.92, 1.2, skewed=True),
    "challenge 2": Population(2, 0.95, 1.4),
    "challenge 2, near the mean's score": Population(2, 0.98, 1.0),
    "challenge 2, skewed": Population(2, 0.90, 1.4, skewed=True),
}


def simulate(population, subjects, rng):
    """-> labels, two models' predictions, the number of the subject, each (N,)."""
    few, many = rng.integers(3, 25, subjects), rng.integers(24, WINDOWS + 1, subjects)
    whose = np.repeat(np.arange(subjects), np.where(rng.random(subjects) < 0.15, few, many))
    n, skewed = len(whose), population.skewed
    if population.challenge == 1:
        if skewed:
            mean = 1.62 - 0.19 * _long_tailed(rng, subjects, 0.5)
        else:
            mean = rng.normal(1.62, 0.17, subjects)
        mean -= 0.35 * (rng.random(subjects) < 0.06)
        spread = 0.34 * np.exp(0.25 * rng.normal(size=subjects))
        trial = rng.standard_t(4, n) / np.sqrt(2) if skewed else rng.normal(size=n)
        y = np.clip(mean[whose] + spread[whose] * trial, 0, 2.5)
        center, variance, own = 1.6, 0.16, 0.5
    else:
        labels = 0.72 * (_long_tailed(rng, subjects, 0.7) if skewed else rng.normal(size=subjects))
        y, center, variance, own = labels[whose], 0.0, 0.52, 0.6
    # with this noise the shrunk model has the population's score
    noise = variance * population.score**2 / (1 - population.score**2)
    size = np.exp(0.4 * rng.normal(size=subjects))[whose] if skewed else 1.0

    def errors():
        subject = np.sqrt(own * noise) * rng.normal(size=subjects)[whose]
        return size * (subject + np.sqrt((1 - own) * noise) * rng.normal(size=n))

    first, apart = errors(), errors()
    second = population.worse * (SHARED * first + np.sqrt(1 - SHARED**2) * apart)
    shrunk = lambda error, noise: center + variance / (variance + noise) * (y + error - center)
    return y, shrunk(first, noise), shrunk(second, noise * population.worse**2), whose


def _long_tailed(rng, size, sigma):
    """Log-normal, with mean 0 and standard deviation 1."""
    x = np.exp(sigma * rng.normal(size=size))
    mean, variance = np.exp(sigma**2 / 2), np.expm1(sigma**2) * np.exp(sigma**2)
    return (x - mean) / np.sqrt(variance)


def truth(population, subjects=LARGE):
    """-> (NRMSE of the model, of the other) in a large population."""
    rng, parts = np.random.default_rng(0), []
    for _ in range(-(-subjects // BLOCK)):
        y, p, q, _ = simulate(population, BLOCK, rng)
        parts.append([(p - y) @ (p - y), (q - y) @ (q - y), y.sum(), y @ y, len(y)])
    first, second, total, squares, n = np.sum(parts, 0)
    variance = squares / n - (total / n) ** 2
    return np.sqrt(first / n / variance), np.sqrt(second / n / variance)


def coverage(population, subjects, repetitions=REPETITIONS, true=None):
    """-> the share of intervals that hold the truth: of the NRMSE, of the difference of two."""
    one, other = true or truth(population)
    rng, held = np.random.default_rng(subjects), np.zeros(2)
    for _ in range(repetitions):
        y, p, q, whose = simulate(population, subjects, rng)
        low, high = interval(y, p, whose, nrmse, least=2)
        held[0] += low <= one <= high
        low, high = interval_difference(y, p, q, whose, nrmse, least=2)
        held[1] += low <= one - other <= high
    return held / repetitions
