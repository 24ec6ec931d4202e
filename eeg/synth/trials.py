"""What trials add to the EEG: hidden moments and amplitudes, and the courses made from them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eeg.models.montage import SFREQ
from eeg.synth.background import burst
from eeg.synth.events import OTHER, Scene
from eeg.synth.table import NUMBER
from eeg.synth.worlds import CARRIERS, Carrier, World


@dataclass
class Hidden:
    """What a reader would have to find: for each carrier, one number a trial."""

    moment_s: dict[str, np.ndarray]  # from the recording's start
    amplitude: dict[str, np.ndarray]  # 1 on average, without the world's strength


def draw_hidden(
    rng: np.random.Generator, traits: Mapping[str, float], world: World, scene: Scene
) -> Hidden:
    """The same random numbers are drawn whatever the world and the responses."""
    count = len(scene.trials)
    stimulus = np.array([trial.stimulus_s for trial in scene.trials])
    response = np.array([trial.response_s for trial in scene.trials])
    answered = np.isfinite(response)
    unrelated = stimulus + np.clip(1.6 + 0.4 * rng.standard_normal(count), 0.3, 2.4)
    jitter, lapse = rng.standard_normal(count), rng.random(count)
    related = answered & (lapse >= world.lapses)
    decision = np.where(related, response + world.jitter_s * jitter, unrelated)
    hidden = Hidden({}, {})
    for name, carrier in CARRIERS.items():
        own, log_amplitude = rng.standard_normal((2, count))
        locked = name in world.carriers
        after = (decision if locked else unrelated) - stimulus
        after = carrier.fraction * after + carrier.delay_s + carrier.jitter_s * own
        if carrier.kind == "potential":
            after = after + NUMBER["erp_latency_sd_s"] * traits["erp_latency"]
        hidden.moment_s[name] = stimulus + np.maximum(after, 0.12)
        amplitude = np.exp(NUMBER["trial_amplitude_sd"] * log_amplitude - 0.1)
        hidden.amplitude[name] = amplitude * np.where(locked & ~answered, 0.6, 1)
    return hidden


class Courses:
    """What trials do over time: of sites in uV, of rhythms in log amplitude, of coupling."""

    def __init__(self, samples: int):
        self.time_s = np.arange(samples) / SFREQ
        self.sites: dict[str, np.ndarray] = {}
        self.rhythms: dict[str, np.ndarray] = {}
        self.coupling = np.zeros(samples, np.float32)

    def of(self, kind: str, target: str) -> np.ndarray:
        if kind == "coupling":
            return self.coupling
        courses = self.rhythms if kind == "rhythm" else self.sites
        return courses.setdefault(target, np.zeros(len(self.time_s), np.float32))

    def add(self, target: str, carrier: Carrier, gain: float, start_s: float, moment_s: float):
        """One carrier in one trial, which began with its stimulus at start_s."""
        course = self.of(carrier.kind, target)
        if carrier.kind == "burst":
            wave, first = burst(20.0), round(moment_s * SFREQ) - 30
            inside = slice(max(0, -first), max(0, len(course) - first))
            part = wave[inside]
            course[max(0, first) : max(0, first) + len(part)] += np.float32(gain) * part
            return
        stretch = moment_s - start_s if carrier.from_stimulus else 1.0
        times = [moment_s + (at * stretch if at < 0 else at) for at, _ in carrier.shape]
        first, last = (min(max(int(at * SFREQ), 0), len(course)) for at in (times[0], times[-1]))
        values = [gain * value for _, value in carrier.shape]
        course[first:last] += np.interp(self.time_s[first:last], times, values)


def draw_courses(
    hidden: Hidden, world: World, scene: Scene, snr: float, potentials: float
) -> Courses:
    """potentials: the subject's own factor on the size of potentials."""
    courses = Courses(round(scene.seconds * SFREQ))
    strengths = {**world.others, **{name: snr * to for name, to in world.carriers.items()}}
    for name, strength in strengths.items():
        carrier = CARRIERS[name]
        gain = strength * carrier.size * (potentials if carrier.kind == "potential" else 1)
        for k, trial in enumerate(scene.trials):
            each = gain * hidden.amplitude[name][k]
            moment = hidden.moment_s[name][k]
            if carrier.target != "motor":
                courses.add(carrier.target, carrier, each, trial.stimulus_s, moment)
                continue
            for hand, share in ((trial.hand, 1.0), (OTHER[trial.hand], carrier.ipsilateral)):
                over = f"motor_{OTHER[hand]}"
                courses.add(over, carrier, share * each, trial.stimulus_s, moment)
    return courses


def contrasts(scene: Scene, depth: float) -> dict[str, np.ndarray]:
    """Of the left and right patterns: 0.5, parting by up to `depth` after each stimulus."""
    time_s = np.arange(round(scene.seconds * SFREQ)) / SFREQ
    found = {side: np.full(len(time_s), 0.5, np.float32) for side in OTHER}
    for trial in scene.trials:
        times = trial.stimulus_s + scene.pace * np.array([0, 1.6, 2.4])
        near = slice(int(times[0] * SFREQ), int(times[-1] * SFREQ) + 1)
        change = np.interp(time_s[near], times, [0, 0.5 * depth, 0])
        found[trial.side][near] += change
        found[OTHER[trial.side]][near] -= change
    return found
