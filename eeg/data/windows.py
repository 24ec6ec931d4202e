"""Which samples are a window: the competition's rules, in whole samples."""

import numpy as np

from eeg.models.montage import SFREQ, START_S

TARGETS = {1: "rt_from_stimulus", 2: "externalizing"}

# challenge 1: 2 s from 0.5 s after the stimulus. challenge 2: 4 s every 2 s, of which training and
# scoring take 2 s
OFFSET = round(START_S * SFREQ)
LENGTH = {1: 200, 2: 400}
STRIDE = 200


def sample_of(seconds, sfreq=SFREQ):
    """The sample that MNE takes for an annotation at this time: onsets are kept in whole
    microseconds, then rounded half to even.
    """
    return np.round(np.round(np.asarray(seconds, float), 6) * sfreq)


def stimulus_windows(trials, n_times):
    """Challenge 1. -> (kept: numbers of the trials that give a window, starts (len(kept)) int64,
    dropped: {reason: count}).
    """
    no_stimulus = np.isnan(trials["stimulus"])
    no_response = ~no_stimulus & np.isnan(trials["response"])
    starts = np.where(no_stimulus, -1, sample_of(np.nan_to_num(trials["stimulus"]))) + OFFSET
    complete = ~no_stimulus & ~no_response
    outside = complete & ((starts + LENGTH[1] > n_times) | (starts < OFFSET))
    kept = np.flatnonzero(complete & ~outside)
    dropped = {
        "no response": no_response.sum(),
        "no stimulus": no_stimulus.sum(),
        "past the end of the recording": outside.sum(),
    }
    return (
        kept,
        starts[kept].astype(np.int64),
        {reason: int(n) for reason, n in dropped.items() if n},
    )


def fixed_windows(n_times):
    """Challenge 2: the starts (n) int64 of all 4 s windows, every 2 s, that end within the
    recording.
    """
    return np.arange(0, n_times - LENGTH[2] + 1, STRIDE, dtype=np.int64)
