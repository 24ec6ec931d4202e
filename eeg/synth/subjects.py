"""Who was "recorded": age, sex, factors, the traits that make a fingerprint; and the random numbers
that all of it is drawn from."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eeg.synth import table
from eeg.synth.table import NUMBER
from eeg.synth.worlds import World

ODDITIES = (  # which irregularity of real releases a subject shows
    "copied block",
    "fast time line",
    "no factors",
    "past the end",
    "no valid trial",
    "missing file",
)
# What differs between brains and recordings, as standard normal variables. Dict order is drawing
# order: new ones go to the end.
TRAITS = (
    "power",
    "exponent",
    "alpha_peak",
    "alpha_power",
    "theta_power",
    "beta_power",
    "flicker",
    "flicker_variability",
    "coupling",
    "erp",
    "erp_latency",
    "lambda",
    "lambda_latency",
    "burst_rate",
    "region_power",
)
HABITS = ("blinks", "muscle", "line", "movements", "saccades")
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
    "amplifier",
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


@dataclass(frozen=True)
class Subject:
    name: str
    sex: str
    age: float
    factors: tuple[float, ...]  # p_factor, attention, internalizing, externalizing
    oddity: str
    pace_s: float  # its usual response time

    @property
    def young(self) -> float:
        """1 at 5 years, 0 when grown up."""
        return float(np.exp(-(self.age - 5) / NUMBER["growth_years"]))

    @property
    def externalizing(self) -> float:
        """In standard deviations from the mean of real participants."""
        return (self.factors[3] - table.EXTERNALIZING_MEAN) / table.EXTERNALIZING_STD


def draw_subject(release: str, index: int, seed: int) -> Subject:
    """Who subject `index` is, in every world. The first six show one oddity each, a fifth of the
    others one by chance.
    """
    rng = stream(seed, release, index, "person")
    age = 5 + rng.gamma(NUMBER["age_shape"], NUMBER["age_scale"])
    age = round(float(np.clip(age, 5, 21.9)), 4)
    male = rng.random() < NUMBER["male"]
    if index < len(ODDITIES):
        oddity = ODDITIES[index]
    else:
        oddity = str(rng.choice(ODDITIES)) if rng.random() < 0.2 else ""
    pace_s = NUMBER["pace_s"] + NUMBER["pace_per_year_s"] * (10 - age)
    pace_s += NUMBER["pace_sd_s"] * rng.standard_normal()
    factors = _draw_factors(rng, age, male)
    name = _draw_name(rng, int(release[1:]) * 5000 + index)
    return Subject(name, "M" if male else "F", age, factors, oddity, float(pace_s))


def _draw_factors(rng, age, male):
    means = np.array([1, age, male]) @ np.array(table.FACTOR_MEANS)
    mixing = np.linalg.cholesky(np.array(table.FACTOR_CORRELATIONS))
    values = means + np.array(table.FACTOR_STDS) * (mixing @ rng.standard_normal(4))
    floor = rng.random() < NUMBER["floor_vector"]
    return table.FLOOR_VECTOR if floor else tuple(float(value) for value in values.round(3))


def _draw_name(rng, number):
    """A name as real ones are; `number` is in it, so that no two subjects share one."""
    letters, digits = "ABCDEFGHJKLMNPRTUVWXYZ", "0123456789"
    pick = lambda pool, count: "".join(rng.choice(list(pool), count))
    first, *ending = (letters[number // 22 ** (3 - k) % 22] for k in range(4))
    return f"NDAR{pick(letters, 1)}{first}{pick(digits, 3)}{''.join(ending)}"


def draw_traits(
    subject: Subject, place: tuple[int, str, int], world: World, snr: float
) -> Mapping[str, float]:
    """Standardised traits of a subject, the same in all its recordings.

    place: (seed, release, index). A trait's spread is the same in every world: what is linked to
    externalizing is only how much of it externalizing explains.
    """
    seed, release, _ = place
    snr = snr if world.signal else 0.0
    values = dict(zip(TRAITS, stream(*place, "traits").standard_normal(len(TRAITS))))
    values |= zip(HABITS, stream(*place, "habits").standard_normal(len(HABITS)))
    for trait, strength in _links(world, seed, release).items():
        gain = snr * strength / np.sqrt(1 - strength**2)
        values[trait] = (values[trait] + gain * subject.externalizing) / np.sqrt(1 + gain**2)
    return {name: float(value) for name, value in values.items()}


def _links(world, seed, release):
    """The world's links, and those of artefacts, whose sign is the release's own."""
    if not world.artefacts_follow:
        return world.links
    signs = stream(seed, release, 0, "sign").choice([-1, 1], 3)
    follow = 1 - np.exp(-world.artefacts_follow * 1.5)
    return {**world.links, **dict(zip(HABITS, follow * signs))}
