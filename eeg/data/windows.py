"""Which samples are a window, by the competition's rules, and what is kept about each window."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from eeg import UserError
from eeg.data.release import FACTORS, BadRecording
from eeg.models.montage import SFREQ, START_S

TARGETS = {1: "rt_from_stimulus", 2: "externalizing"}

# challenge 1: 2 s from 0.5 s after the stimulus. challenge 2: 4 s every 2 s, of which training and
# scoring take 2 s
OFFSET = round(START_S * SFREQ)
LENGTH = {1: 200, 2: 400}
STRIDE = 200
INPUT = LENGTH[1]  # samples that a model sees, in both challenges


def _record(fields):
    """The dtype of "name type, name type"."""
    return np.dtype([tuple(field.split()) for field in fields.split(", ")])


_WINDOW = "subject S16, task S24, run <i2, recording <i4, start <i8, copy ?, fast ?"
_TRIAL = "stimulus <f8, response <f8, rt_from_trialstart <f8, correct i1, side S5"
_SUBJECT = "age <f8, sex S1, " + ", ".join(f"{factor} <f8" for factor in FACTORS)
METADATA = {1: _record(f"{_WINDOW}, {_TRIAL}"), 2: _record(f"{_WINDOW}, {_SUBJECT}")}


@dataclass
class Windows:
    """The windows of one recording."""

    starts: np.ndarray  # (n) int64: the first sample, without margin
    rows: np.ndarray  # (n) METADATA
    labels: np.ndarray  # (n) float64


def sample_of(seconds) -> np.ndarray:
    """The sample MNE takes for an annotation: whole microseconds, then rounded half to even."""
    return np.round(np.round(np.asarray(seconds, float), 6) * SFREQ)


def cut_trials(trials: np.ndarray, n_times: int) -> tuple[Windows, Counter]:
    """Challenge 1: (Windows, {reason: dropped trials})."""
    no_stimulus = np.isnan(trials["stimulus"])
    no_response = ~no_stimulus & np.isnan(trials["response"])
    starts = np.where(no_stimulus, -1, sample_of(np.nan_to_num(trials["stimulus"]))) + OFFSET
    complete = ~no_stimulus & ~no_response
    outside = complete & ((starts + LENGTH[1] > n_times) | (starts < OFFSET))
    kept = np.flatnonzero(complete & ~outside)
    rows = np.zeros(len(kept), METADATA[1])
    for name in "stimulus response rt_from_trialstart correct side copy fast".split():
        rows[name] = trials[name][kept]
    reasons = ("no response", "no stimulus", "past the end of the recording")
    counts = [int(dropping.sum()) for dropping in (no_response, no_stimulus, outside)]
    dropped = Counter(dict(zip(reasons, counts)))
    starts, labels = starts[kept].astype(np.int64), trials["rt_from_stimulus"][kept]
    return Windows(starts, rows, labels), +dropped


def fixed_windows(n_times: int) -> np.ndarray:
    """Challenge 2: the starts (n) int64 of all 4 s windows, every 2 s, within the recording."""
    return np.arange(0, n_times - LENGTH[2] + 1, STRIDE, dtype=np.int64)


def cut_fixed(trials, n_times: int, participant: Mapping | None) -> Windows:
    """Challenge 2. trials: a trial table or None, for the flags `copy` and `fast` alone."""
    if participant is None:
        raise BadRecording("its subject is not in participants.tsv")
    label = participant[TARGETS[2]]
    if np.isnan(label):
        raise BadRecording(f"its subject has no {TARGETS[2]} factor (n/a in participants.tsv)")
    if n_times < LENGTH[2]:
        raise BadRecording(f"it lasts {n_times / SFREQ:.2f} s, a window {LENGTH[2] // SFREQ} s")
    starts = fixed_windows(n_times)
    rows = np.zeros(len(starts), METADATA[2])
    for name, value in participant.items():
        rows[name] = value
    if trials is not None and len(trials):
        rows["fast"] = trials["fast"][0]
        copied = trials[trials["copy"]]
        if len(copied):  # the block from its first copied trial to its last
            begins, ends = starts / SFREQ, (starts + LENGTH[2]) / SFREQ
            rows["copy"] = (begins >= copied["start"].min()) & (ends <= copied["stop"].max())
    return Windows(starts, rows, np.full(len(starts), label))


def check_electrodes(model, path: Path, channels: list[str]) -> None:
    """Raises UserError where a network of the model knows electrodes by their names, and was made
    for others than those of the windows in this cache, or for another order of them."""
    for network in model.modules():
        known = getattr(network, "electrodes", channels)
        for number, (one, other) in enumerate(zip_longest(known, channels), 1):
            if one != other:
                what = f"electrode {number} is {other} in {path} and {one} for the model"
                raise UserError(f"{what}, which knows electrodes by their names and order")
