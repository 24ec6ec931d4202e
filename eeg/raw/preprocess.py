"""A recording at any rate -> the competition's: 129 channels, 100 Hz, filtered, in microvolts.

Filters and resampling are MNE's, channel by channel, so that a few channels at a time give what the
whole recording gives.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np

from eeg.models.montage import CHANNELS, SFREQ
from eeg.raw.preprocessing import Preprocessing
from eeg.raw.source import Source, Unusable, order

PADDING = 100  # samples on each side at least
MOST_V = 1.0  # no electrode has more; its offset may be 0.3 V
BLOCK_BYTES = 150e6  # of float64 samples that are filtered at a time


def preprocess(path: Path, settings: Preprocessing) -> np.ndarray:
    """(129, samples) float32 microvolts at 100 Hz. Raises Unusable.

    Sample i is at i / 100 s, so times in seconds stay what they are. A recording at 100 Hz is
    not filtered.
    """
    source = Source(path)
    channels = order(source.names)
    if source.sfreq < SFREQ:
        raise Unusable(f"it has {source.sfreq:g} samples a second; {SFREQ} or more are needed")
    many = max(1, int(BLOCK_BYTES / 8 / source.n_times))
    out = np.empty((0, 0), np.float32)
    for first in range(0, len(channels), many):
        part = source.part(channels[first : first + many])
        _check_samples(part.get_data(), first)
        if source.sfreq == SFREQ:
            microvolts = part.get_data() * 1e6
        else:
            microvolts = _resample(_filter(part, settings), source.sfreq) * 1e6
        if not first:
            out = np.empty((len(channels), microvolts.shape[1]), np.float32)
        out[first : first + many] = microvolts
    return out


def _filter(part, settings):
    """Filter an MNE Raw. -> (channels, samples) volts"""
    low, high = settings.bandpass
    part.filter(low, high, verbose="error")
    # a notch ends 0.25 % and 1 Hz above its centre; recordings at 100 to 120 Hz hold no such mains
    if settings.notch and 1.0025 * settings.notch + 1 < part.info["sfreq"] / 2:
        part.notch_filter(settings.notch, verbose="error")
    return part.get_data()


def _resample(x, sfreq):
    """MNE's resampling to 100 Hz, with as many samples before and after as do not shift it.

    It stretches what it resamples to a whole number of samples. For 500 Hz, x and npad have to be
    multiples of 5: then it equals raw.resample(100, npad=padding(n_times)). MNE's own npad="auto",
    a power of 2 in all, moves events by up to 8 ms.
    """
    from mne.filter import resample

    wanted = round(x.shape[1] * SFREQ / sfreq)
    ratio = Fraction(SFREQ / sfreq).limit_denominator(1000)
    up, down = ratio.numerator, ratio.denominator
    missing = -(-wanted // up) * down - x.shape[1]
    x = np.pad(x, ((0, 0), (0, missing)), "edge") if missing > 0 else x[:, : x.shape[1] + missing]
    npad = padding(x.shape[1], down)
    return resample(x, up=up, down=down, npad=npad, verbose="error")[:, :wanted]


def padding(samples: int, step: int = 5) -> int:
    """How many samples are put on each side before resampling: a multiple of `step`, as `samples`
    is, of at least 100, with which the whole is a product of 2, 3 and 5: transforms are fast then.
    """
    from scipy.fft import next_fast_len

    steps = samples // step
    whole = steps + 2 * -(-PADDING // step)
    while (whole - steps) % 2 or next_fast_len(whole * step, real=True) != whole * step:
        whole += 1
    return (whole - steps) // 2 * step


def _check_samples(volts, first):
    bad = ~np.isfinite(volts)
    if bad.any():
        name = CHANNELS[first + np.flatnonzero(bad.any(1))[0]]
        raise Unusable(f"{bad.sum():,} of its samples are not finite (first in {name})")
    usual = np.median(np.abs(volts[:, :: max(1, volts.shape[1] // 1000)]))
    if usual > MOST_V:  # MNE takes a unit that it does not know for volts
        raise Unusable(f"its samples are {usual:,.0f} V: the unit in its header is not understood")
