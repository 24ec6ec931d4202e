"""The brain without a task: 1/f background, rhythms that wax and wane, saccades' potentials."""

from collections.abc import Callable

import numpy as np
import scipy.fft
import scipy.signal

from eeg.models.montage import SFREQ
from eeg.synth.table import NUMBER


def coloured(
    rng: np.random.Generator, rows: int, samples: int, shape: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """(rows, samples) float32 noise of unit variance with amplitude spectrum shape(hertz), from
    0.5 Hz on.
    """
    size = scipy.fft.next_fast_len(samples, real=True)
    hertz = scipy.fft.rfftfreq(size, 1 / SFREQ).astype(np.float32)
    first = np.searchsorted(hertz, 0.5)
    amplitude = shape(hertz[first:]).astype(np.float32)
    drawn = rng.standard_normal((rows, len(amplitude), 2), dtype=np.float32)
    spectrum = np.zeros((rows, len(hertz)), np.complex64)
    power = 4 * float((amplitude.astype(float) ** 2).sum())
    spectrum[:, first:] = drawn.view(np.complex64)[..., 0]
    spectrum[:, first:] *= amplitude * np.float32(size / np.sqrt(power))
    return scipy.fft.irfft(spectrum, size, axis=1, overwrite_x=True)[:, :samples]


def band(centre_hz: float, width_hz: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda hertz: np.exp(-0.5 * ((hertz - centre_hz) / width_hz) ** 2)


def aperiodic(exponent: float) -> Callable[[np.ndarray], np.ndarray]:
    """Amplitude of the background: power falls with f^-exponent, above a knee."""
    knee = NUMBER["knee_hz"] ** exponent
    return lambda hertz: (knee + hertz**exponent) ** -0.5


def envelope(rng: np.random.Generator, samples: int, sd: float) -> np.ndarray:
    """(samples,) float32: log-normal, unit mean square, with a new value every second or so."""
    knots = np.arange(-2, samples / SFREQ + 3)
    values = np.convolve(rng.standard_normal(len(knots)), [0.5, 0.7, 0.5], "same")
    slow = np.interp(np.arange(samples) / SFREQ, knots, values)
    course = np.exp(sd * slow)
    return (course / np.sqrt(np.mean(course**2))).astype(np.float32)


def exponent(traits: dict, young: float) -> float:
    """Of a subject's power spectrum, f^-exponent."""
    own = NUMBER["exponent_sd"] * traits["exponent"]
    return NUMBER["exponent"] - 0.1 + NUMBER["exponent_child"] * young + own


def alpha_hz(traits: dict, young: float) -> float:
    """The subject's alpha peak."""
    own = NUMBER["alpha_sd_hz"] * traits["alpha_peak"]
    return NUMBER["alpha_adult_hz"] + NUMBER["alpha_child_hz"] * young + own


def size(traits: dict, young: float) -> float:
    """A subject's amplitude, of that of an average adult."""
    return (1 + NUMBER["child_gain"] * young) * np.exp(NUMBER["background_sd"] * traits["power"])


def impulses(
    rng: np.random.Generator, samples: int, per_s: float, values: Callable[[int], np.ndarray]
) -> np.ndarray:
    """(samples,) float32: zeros, but for values(how many) at random moments."""
    count = rng.poisson(per_s * samples / SFREQ)
    course = np.zeros(samples, np.float32)
    np.add.at(course, rng.integers(0, samples, count), values(count))
    return course


def bursts(rng: np.random.Generator, samples: int, per_s: float, hertz: float) -> np.ndarray:
    """(samples,) float32: brief bursts of a rhythm, of unit mean square whatever their rate."""
    wave = burst(hertz)
    course = impulses(rng, samples, per_s, lambda count: rng.choice([-1, 1], count))
    course = scipy.signal.fftconvolve(course, wave, "same")
    return (course / np.sqrt(per_s / SFREQ * (wave**2).sum())).astype(np.float32)


def burst(hertz: float) -> np.ndarray:
    """(61,) float32: about three periods of 20 Hz, peak 1."""
    t = np.arange(-30, 31) / SFREQ
    return (np.exp(-0.5 * (t / 0.06) ** 2) * np.cos(2 * np.pi * hertz * t)).astype(np.float32)
