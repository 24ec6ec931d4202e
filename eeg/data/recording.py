"""The signal of one recording: 100 Hz BDF through the native reader, others as eeg/raw made them.

Each has `n_times` and `read(starts, out)`; the signal is that of the competition: 129 channels,
100 Hz, microvolts.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eeg import UserError, files
from eeg.data.release import BadRecording, Recording, read_tsv
from eeg.data.windows import SFREQ
from eeg.native import _native
from eeg.raw.preprocess import preprocess
from eeg.raw.preprocessing import Preprocessing
from eeg.raw.signals import Signals
from eeg.raw.source import Unusable, check_continuous, order
from eeg.raw.spatial import matrix


class Head(NamedTuple):
    """What the header of a signal says."""

    n_times: int
    warning: str


def _ready(path):
    """The _Bdf of a file at 100 Hz, None for others. Raises BadRecording."""
    if path.suffix != ".bdf":
        return None
    signal = _Bdf(path)
    return signal if signal.sfreq == SFREQ else None


def prepare(
    recordings: Iterable[Recording],
    preprocessing: Preprocessing,
    folder: Path,
    jobs: int | None = None,
    progress: Callable | None = None,
) -> tuple[Signals | None, dict[Recording, Head]]:
    """Preprocess the recordings that are not ready and keep them in `folder`.

    Ready are those that the native reader reads as they are: BDF at 100 Hz, and what is damaged.
    -> (where the others are kept, None if all are ready; {recording: its head} of those that are
    read without a change). Raises UserError where filters were chosen for recordings that have been
    filtered.
    """
    raw, ready, heads = [], [], {}
    for recording in recordings:
        try:
            signal = _ready(recording.signal)
        except (BadRecording, OSError):  # open_signal says why
            ready.append(recording.signal)
            continue
        (ready if signal else raw).append(recording.signal)
        if signal and not preprocessing.across_channels:
            heads[recording] = Head(signal.n_times, signal.warning)
    if ready and not preprocessing.usual_filters:
        raise UserError(
            f"{ready[0]} is at 100 Hz: it has been filtered, and is not filtered again; --bandpass "
            "and --notch are for recordings at higher rates, leave them out"
        )
    if not raw:
        files.remove(folder)
        return None, heads
    signals = Signals(folder, preprocessing)
    signals.prepare(raw, jobs, progress)
    return signals, heads


def open_signal(
    recording: Recording,
    preprocessing: Preprocessing = Preprocessing(),
    signals: Signals | None = None,
) -> "_Bdf | _Array | _Mixed":
    """The recording's signal. Raises BadRecording with the reason if it cannot be used.

    signals: where recordings at other rates or of other formats have been prepared; else they are
    preprocessed here and now.
    """
    try:
        signal: _Bdf | _Array | None = _ready(recording.signal)
        if signal is None and signals:
            signal = _Array(signals.open(recording.signal))
        elif signal is None:
            signal = _Array(preprocess(recording.signal, preprocessing))
        if not preprocessing.across_channels:
            return signal
        mixing = matrix(preprocessing, bad_channels(recording))
    except Unusable as e:
        raise BadRecording(str(e)) from None
    return signal if mixing is None else _Mixed(signal, mixing)


def bad_channels(recording: Recording) -> list[str]:
    """The electrodes that its channels.tsv calls bad; [] where it has no column `status`."""
    if not recording.channels.exists():
        return []
    table = read_tsv(recording.channels)
    status = table.get("status", [])
    return [name for name, word in zip(table.get("name", []), status) if word.lower() == "bad"]


class _Bdf:
    """warning: what is odd about a file that can be used; else empty."""

    warning = ""

    def __init__(self, path):
        try:
            self._bdf = _native.Bdf(os.fsencode(path))
            check_continuous(path)
        except ValueError as e:
            raise BadRecording(str(e)) from None
        self.sfreq, self.n_times = self._bdf.sfreq, self._bdf.n_times
        if not self._bdf.closed:
            length = f"{self.n_times / self.sfreq:g} s by its size"
            self.warning = f"the recording was never closed (-1 records); it is {length}"
        try:
            self._channels = np.array(order(self._bdf.labels), np.int32)
        except Unusable as e:
            raise BadRecording(str(e)) from None

    def read(self, starts, out):
        """Windows from these samples (n) into out (n, 129, T), float32 or float16.

        -> how many samples float16 could not hold
        """
        bits = out.view(np.uint16) if out.dtype == np.float16 else out
        return self._bdf.read(starts, self._channels, bits)


class _Array:
    """A whole signal (129, samples), in memory or mapped."""

    warning = ""

    def __init__(self, samples):
        self._samples, self.n_times = samples, samples.shape[1]

    def read(self, starts, out):
        clipped = 0
        for window, start in zip(out, starts):
            # over the edge the nearest sample is repeated
            inside = np.clip(np.arange(start, start + out.shape[2]), 0, self.n_times - 1)
            clipped += _store(self._samples[:, inside], window)
        return clipped


class _Mixed:
    """A signal with its electrodes mixed: interpolated or against another reference."""

    def __init__(self, signal, mixing):
        self._signal, self._mixing, self.n_times = signal, mixing, signal.n_times
        self.warning = signal.warning

    def read(self, starts, out):
        single = np.empty(out.shape, np.float32)
        self._signal.read(starts, single)
        return sum(_store(self._mixing @ window, to) for window, to in zip(single, out))


def _store(samples, out):
    """Round to the type of out. -> how many samples it could not hold"""
    limit = np.finfo(out.dtype).max
    out[:] = np.clip(samples, -limit, limit)
    return int((np.abs(samples) > limit).sum())
