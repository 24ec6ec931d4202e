"""What an amplifier at 500 Hz records of a simulated signal, before anybody filters it."""

import numpy as np
import scipy.signal

from eeg.models.montage import SFREQ

RAW_SFREQ = 500  # Hz, that of the HBN originals
MAINS_HZ = 60
# Not physiology, but the size of what a high-impedance net picks up, in microvolts
MAINS_UV, OFFSET_UV, DRIFT_UV = 15.0, 3000.0, 60.0


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
