"""What is in recordings that nobody has cleaned: eyes, muscle, movement, electrodes, the mains."""

from collections.abc import Mapping

import numpy as np
import scipy.signal

from eeg.models.montage import SFREQ
from eeg.synth.background import coloured, envelope, impulses
from eeg.synth.events import Scene
from eeg.synth.head import Head, unit
from eeg.synth.head import electrodes as places
from eeg.synth.table import NUMBER

ABOVE, BELOW = (("E25",), ("E8",)), (("E127",), ("E126",))
TEMPLES = (("E45", "E49"), ("E108", "E113"), ("E56", "E63"), ("E107", "E99"))
SIDES = ("E128", "E125")  # beside the left and the right eye
Parts = list[tuple[np.ndarray, np.ndarray]]  # (map (129,), course (samples,))


def habit(traits: Mapping[str, float], name: str) -> float:
    """How much more of an artefact this subject has than others."""
    return float(np.exp(NUMBER["habit_sd"] * traits[name]))


def follow(scene: Scene, strength: float, part: int) -> np.ndarray:
    """(samples,): log amplitude of artefacts that follow the response times by `strength` a std.

    part 0, 1, 2: muscle, blinks and the mains do so in turn over the trial's window.
    """
    course = np.zeros(round(scene.seconds * SFREQ), np.float32)
    for trial in scene.trials if strength else ():
        if np.isfinite(trial.response_s):
            late = (trial.response_s - trial.stimulus_s - 1.6) / 0.4
            first = int((trial.stimulus_s + 0.4) * SFREQ)
            course[first : first + 2 * SFREQ + 20] = strength * (-1) ** part * late
    return course


def eyes(
    rng: np.random.Generator, head: Head, traits: Mapping[str, float], following: np.ndarray
) -> tuple[Parts, np.ndarray]:
    """Blinks and saccades. -> (parts, where saccades are: (samples,))."""
    samples = len(following)
    per_s = NUMBER["blinks_per_min"] / 60 * habit(traits, "blinks")
    # More blinks than are kept, so that the rate can follow something.
    drawn = impulses(rng, samples, 4 * per_s, lambda count: rng.lognormal(0, 0.3, count))
    kept = rng.random(samples) < 0.25 * np.exp(following)
    lids = scipy.signal.fftconvolve(drawn * kept, np.hanning(32), "same") * NUMBER["blink_uv"]
    above = sum(head.over(names, 0.3) for names in ABOVE)
    below = sum(head.over(names, 0.25) for names in BELOW)
    up = above / above.max() + NUMBER["below_eye"] * below / below.max()

    per_s = NUMBER["saccades_per_s"] * habit(traits, "saccades") ** 0.5
    jumps = impulses(rng, samples, per_s, lambda count: rng.standard_normal(count))
    # A 0.5 Hz high-pass turns each step of the eye into a decay.
    decay = [1, -np.exp(-1 / (0.32 * SFREQ))]
    beside = head.over(SIDES[1:], 0.3) - head.over(SIDES[:1], 0.3)
    sideways = NUMBER["saccade_uv"] * scipy.signal.lfilter([1], decay, jumps)
    upward = impulses(rng, samples, 0.3 * per_s, lambda count: rng.standard_normal(count))
    raised = NUMBER["saccade_uv"] * scipy.signal.lfilter([1], decay, upward)
    parts = [(up - up[128], lids + raised), (beside - beside[128], sideways)]
    return parts, (jumps != 0).astype(np.float32)


def muscle(
    rng: np.random.Generator, head: Head, traits: Mapping[str, float], following: np.ndarray
) -> Parts:
    """Tonic muscle over temples and neck, and bursts of it."""
    samples, parts = len(following), []
    level = habit(traits, "muscle") * np.exp(following) * envelope(rng, samples, 0.4)
    noise = coloured(rng, len(TEMPLES), samples, lambda hertz: 1 / (1 + np.exp((18 - hertz) / 4)))
    per_s = NUMBER["muscle_bursts_per_min"] / 60 * habit(traits, "movements")
    for names, row in zip(TEMPLES, noise):
        begun = impulses(rng, samples, per_s / 2, lambda count: rng.lognormal(1.8, 0.5, count))
        tense = scipy.signal.fftconvolve(begun, np.hanning(120), "full")[:samples]
        parts.append((head.over(names, 0.3), NUMBER["muscle_uv"] * row * (level + tense)))
    return parts


def movements(
    rng: np.random.Generator, head: Head, young: float, traits: Mapping[str, float], samples: int
) -> Parts:
    """Slow excursions over half the head."""
    per_s = NUMBER["movements_per_min"] / 60 * (0.5 + 1.5 * young) * habit(traits, "movements")
    parts = []
    for _ in range(2):
        moved = impulses(rng, samples, per_s / 2, lambda count: rng.normal(0, 1, count))
        course = scipy.signal.fftconvolve(moved, np.hanning(110), "full")[:samples]
        place = unit(rng.standard_normal(3))
        topography = head.bump(place, 0.8)
        parts.append((topography - topography[128], NUMBER["movement_uv"] * course))
    return parts


def mains(
    rng: np.random.Generator, head: Head, traits: Mapping[str, float], following: np.ndarray
) -> Parts:
    """What is left of 60 Hz, folded to 40 Hz."""
    wave = np.sin(2 * np.pi * 0.4 * np.arange(len(following)) + rng.uniform(0, 2 * np.pi))
    topography = head.bump(unit(rng.standard_normal(3)), 1.2)
    level = NUMBER["line_uv"] * 2**0.5 * habit(traits, "line")
    return [(topography - topography[128], level * np.exp(following) * wave)]


def electrodes(rng: np.random.Generator, x: np.ndarray, rate: float) -> None:
    """Noisy, popping, bridged and flat electrodes, in place. x: (129, samples), microvolts."""
    samples = x.shape[1]
    if rng.random() < rate * NUMBER["noisy_electrode"]:
        for channel in rng.choice(128, rng.integers(1, 4), replace=False):
            noise = coloured(rng, 1, samples, lambda hertz: hertz**-0.5)[0]
            x[channel] += np.float32(rng.uniform(30, 150)) * noise
    pops = rng.poisson(rate * NUMBER["pops_per_min"] * samples / SFREQ / 60)
    for first in rng.integers(0, samples, pops):
        rest = np.arange(samples - first, dtype=np.float32)
        pop = rng.choice([-1, 1]) * rng.uniform(100, 500) * np.exp(-rest[:150] / 30)
        x[rng.integers(128), first : first + 150] += pop.astype(np.float32)
    if rng.random() < rate * NUMBER["bridged_electrodes"]:
        first = rng.integers(128)
        second = np.argsort(-closeness(first))[1]
        x[second] = x[first]
    if rng.random() < rate * NUMBER["flat_electrode"]:
        x[rng.integers(128)] = 0


def closeness(channel: int) -> np.ndarray:
    """(128,): cosine of the angle to each electrode."""
    return places()[:128] @ places()[channel]
