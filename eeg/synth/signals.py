"""One recording in microvolts: the background, what the task adds, and artefacts; and what an
amplifier at 500 Hz records of it, before anybody filters it.
"""

from dataclasses import dataclass

import numpy as np
import scipy.signal

from eeg.models.montage import SFREQ
from eeg.synth import artefacts
from eeg.synth.background import (
    alpha_hz,
    aperiodic,
    band,
    bursts,
    coloured,
    envelope,
    exponent,
    size,
)
from eeg.synth.events import Scene
from eeg.synth.head import BACKGROUND_SOURCES, Head
from eeg.synth.subjects import Subject, draw_traits, stream
from eeg.synth.table import NUMBER, RHYTHMS
from eeg.synth.trials import Courses, contrasts, draw_courses, draw_hidden
from eeg.synth.worlds import World

RAW_SFREQ = 500  # Hz, that of the HBN originals
MAINS_HZ = 60
# Not physiology, but the size of what a high-impedance net picks up, in microvolts
MAINS_UV, OFFSET_UV, DRIFT_UV = 15.0, 3000.0, 60.0
FLICKER_HZ = (("left", 20), ("right", 25))
ADULT_10 = 1 + NUMBER["child_gain"] * np.exp(-5 / NUMBER["growth_years"])  # table's age, 10 years


@dataclass
class Brain:
    """A subject in a world: everything its recordings have in common."""

    place: tuple[int, str, int]  # seed, release, index
    subject: Subject
    world: World
    snr: float

    def __post_init__(self):
        self.snr = self.snr if self.world.signal else 0.0
        self.head = Head(*self.place)
        self.traits = draw_traits(self.subject, self.place, self.world, self.snr)
        self.size = size(self.traits, self.subject.young)
        self.maps = self.head.background()
        sign = stream(*self.place, "sign", 1).choice([-1, 1])
        self.artefacts_follow = self.snr * self.world.artefacts_follow * sign

    def signals(self, scene: Scene, part: int) -> np.ndarray:
        """(129, samples) float32 microvolts against Cz. part: a number for each recording."""
        samples = round(scene.seconds * SFREQ)
        courses = self._courses(scene, part)
        eyes, saccades, others = self._artefacts(scene, part)
        rng = stream(*self.place, "background", part)
        parts = [*self._rhythms(rng, scene, courses), *self._pair(rng, courses)]
        parts += self._bursts(rng, samples)
        parts += self._potentials(courses, saccades)
        if scene.trials:
            parts += self._flicker(rng, scene)
        parts += [(topography, rate * course) for rate, topography, course in eyes + others]
        x = self._background(rng, samples, parts)
        rng = stream(*self.place, "electrodes", part)
        artefacts.electrodes(rng, x, self.world.artefacts)
        return x

    def _courses(self, scene: Scene, part: int) -> Courses:
        rng = stream(*self.place, "trials", part)
        hidden = draw_hidden(rng, self.traits, self.world, scene)
        own = np.exp(NUMBER["erp_sd"] * self.traits["erp"])
        grown = (1 + NUMBER["erp_child"] * self.subject.young) / 1.17  # 1 at 10 years
        return draw_courses(hidden, self.world, scene, self.snr, own * grown)

    def _background(self, rng, samples, parts):
        """1/f noise of many sources, all other parts, and each electrode's own noise, in place."""
        power = exponent(self.traits, self.subject.young)
        noise = coloured(rng, BACKGROUND_SOURCES, samples, aperiodic(power))
        level = self.world.background * NUMBER["background_uv"] * self.size
        noise *= np.float32(level) * envelope(rng, samples, NUMBER["drift_sd"] / 2)
        maps = np.concatenate([self.maps, np.array([part[0] for part in parts], np.float32)])
        x = maps.T @ np.concatenate([noise, np.array([part[1] for part in parts], np.float32)])
        hiss = rng.standard_normal(x.shape, dtype=np.float32)
        hiss *= np.float32(NUMBER["amplifier_uv"])
        x += hiss
        x -= x[128].copy()
        return x

    def _rhythms(self, rng, scene, courses):
        peak, parts = alpha_hz(self.traits, self.subject.young), []
        samples = len(courses.time_s)
        eyes = np.ones(samples, np.float32)
        for first, last in scene.eyes_closed:
            eyes[int(first * SFREQ) : int(last * SFREQ)] = NUMBER["closed_eyes"]
        for site, hertz, width, microvolts, trait, modulated_by in RHYTHMS:
            course = coloured(rng, 1, samples, band(hertz or peak, width))[0]
            course *= envelope(rng, samples, NUMBER["envelope_sd"])
            sd = NUMBER["alpha_sd" if hertz is None else "rhythm_sd"]
            level = microvolts * np.exp(sd * self.traits[trait]) * self.size / ADULT_10
            if modulated_by in courses.rhythms:
                course *= np.exp(np.clip(courses.rhythms[modulated_by], -3, 3))
            if modulated_by == "alpha":
                course *= eyes
            parts.append((self.head.site(site), np.float32(level) * course))
        return parts

    def _pair(self, rng, courses):
        """Two distant sources whose correlation varies and whose power does not."""
        both = coloured(rng, 2, len(courses.time_s), band(9.0, 4.0))
        own = NUMBER["coupling_sd"] * self.traits["coupling"]
        c = np.tanh(np.arctanh(NUMBER["coupling"]) + own + courses.coupling)
        second = c * both[0] + np.sqrt(1 - c**2) * both[1]
        level = np.float32(NUMBER["coupled_uv"] * self.size / ADULT_10)
        front, back = self.head.site("far_front"), self.head.site("far_back")
        return [(front, level * both[0]), (back, level * second)]

    def _bursts(self, rng, samples):
        rate = NUMBER["bursts_per_s"] * np.exp(NUMBER["bursts_sd"] * self.traits["burst_rate"])
        course = bursts(rng, samples, rate, 20.0)
        return [(self.head.site("burst_site"), NUMBER["bursts_uv"] * self.size / ADULT_10 * course)]

    def _potentials(self, courses, saccades):
        """What the task evokes, and lambda waves after saccades."""
        parts = [(self.head.site(site), course) for site, course in courses.sites.items()]
        delay = NUMBER["lambda_s"] + NUMBER["lambda_sd_s"] * self.traits["lambda_latency"]
        t = np.arange(40) / SFREQ
        wave = np.exp(-0.5 * ((t - delay) / 0.025) ** 2)
        wave -= 0.6 * np.exp(-0.5 * ((t - delay - 0.08) / 0.03) ** 2)
        level = self.world.lambda_waves * NUMBER["lambda_uv"]
        level *= np.exp(NUMBER["lambda_sd"] * self.traits["lambda"])
        course = scipy.signal.fftconvolve(saccades, level * wave)[: len(saccades)]
        return [*parts, (self.head.site("occipital"), course)]

    def _flicker(self, rng, scene):
        """The steady-state response to both patterns; its change follows the time line."""
        change = contrasts(scene, self.world.steady * self.snr)
        time_s = np.arange(round(scene.seconds * SFREQ)) / SFREQ
        level = NUMBER["flicker_uv"] * np.exp(NUMBER["flicker_sd"] * self.traits["flicker"])
        unsteady = 0.5 * np.exp(0.8 * self.traits["flicker_variability"])
        course = sum(
            change[side] * np.sin(2 * np.pi * hertz * time_s + rng.uniform(0, 2 * np.pi))
            for side, hertz in FLICKER_HZ
        )
        course = level * course * envelope(rng, len(time_s), min(unsteady, 1.2))
        return [(self.head.site("occipital"), course)]

    def _artefacts(self, scene, part):
        """-> (eyes, where saccades are, the rest); each artefact is (rate, map, course)."""
        rng = stream(*self.place, "artefacts", part)
        follow = lambda k: artefacts.follow(scene, self.artefacts_follow, k)
        often, samples = self.world.artefacts, round(scene.seconds * SFREQ)
        eyes, saccades = artefacts.eyes(rng, self.head, self.traits, follow(1))
        others = artefacts.muscle(rng, self.head, self.traits, follow(0))
        others += artefacts.movements(rng, self.head, self.subject.young, self.traits, samples)
        others += artefacts.mains(rng, self.head, self.traits, follow(2))
        weigh = lambda parts: [(often, *one) for one in parts]
        return weigh(eyes), saccades, weigh(others)


def as_recorded(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """(129, N) microvolts at 100 Hz -> (129, 5 N) float32 at 500 Hz, with the mains and offsets.

    The samples at 100 Hz lie on every fifth one. Cz, the reference, stays zero.
    """
    raw = scipy.signal.resample_poly(x, RAW_SFREQ // SFREQ, 1, axis=1).astype(np.float32)
    electrodes, samples = raw.shape
    time_s = np.arange(samples) / RAW_SFREQ
    phase = rng.uniform(0, 2 * np.pi)
    level = MAINS_UV * rng.lognormal(0, 0.5, electrodes)
    slow = rng.uniform(0.005, 0.03, electrodes), rng.uniform(0, 2 * np.pi, electrodes)
    offset = OFFSET_UV * rng.standard_normal(electrodes)
    mains = np.sin(2 * np.pi * MAINS_HZ * time_s + phase)
    mains += 0.1 * np.sin(2 * np.pi * 3 * MAINS_HZ * time_s + 3 * phase)
    for i in range(electrodes - 1):
        drift = DRIFT_UV * np.sin(2 * np.pi * slow[0][i] * time_s + slow[1][i])
        raw[i] += (level[i] * mains + offset[i] + drift).astype(np.float32)
    return raw
