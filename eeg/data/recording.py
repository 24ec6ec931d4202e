"""The signal of one recording: BDF through the native reader, EEGLAB .set and EDF through MNE.

Both have `n_times` and `read(starts, out)`; the signal is that of the competition: 129 channels,
100 Hz, microvolts.
"""

import os
import threading

import numpy as np

from eeg._native import Bdf
from eeg.data.release import BadRecording, Recording
from eeg.data.windows import SFREQ
from eeg.models.montage import CHANNELS

# MNE holds a whole recording in memory, several times while it filters: one at a time
_mne = threading.Lock()


def open_signal(recording: Recording) -> "_Bdf | _Mne":
    """The recording's signal. Raises BadRecording with the reason if it cannot be used."""
    if recording.signal.suffix == ".bdf":
        signal = _Bdf(recording.signal)
        if signal.sfreq == SFREQ:
            return signal
    return _Mne(recording.signal)


def _order(names):
    """Where each of the 129 channels stands among these names."""
    place = {name.strip().removeprefix("EEG "): i for i, name in enumerate(names)}
    missing = [name for name in CHANNELS if name not in place]
    if missing:
        no = missing[0] + " ..." * (len(missing) > 1)
        raise BadRecording(f"it has {len(names)} channels, not the 129 of the net (no {no})")
    return [place[name] for name in CHANNELS]


class _Bdf:
    def __init__(self, path):
        try:
            self._bdf = Bdf(os.fsencode(path))
        except ValueError as e:
            raise BadRecording(str(e)) from None
        self.sfreq, self.n_times = self._bdf.sfreq, self._bdf.n_times
        self._channels = np.array(_order(self._bdf.labels), np.int32)

    def read(self, starts, out):
        """Windows from these samples (n) into out (n, 129, T), float32 or float16.

        -> how many samples float16 could not hold
        """
        bits = out.view(np.uint16) if out.dtype == np.float16 else out
        return self._bdf.read(starts, self._channels, bits)


class _Mne:
    """Filters to 0.5-50 Hz and resamples, as was done for the competition's own files."""

    def __init__(self, path):
        self._path = path
        with _mne:
            raw = self._open()
            self._channels = _order(raw.ch_names)
            self.n_times = int(round(raw.n_times * SFREQ / raw.info["sfreq"]))

    def _open(self, preload=False):
        import mne

        names = {".bdf": "read_raw_bdf", ".edf": "read_raw_edf", ".set": "read_raw_eeglab"}
        read = getattr(mne.io, names[self._path.suffix])
        try:
            return read(self._path, preload=preload, verbose="error")
        except MemoryError:
            raise
        # whatever MNE and SciPy raise on a file that is not what its name says
        except Exception as e:
            words = " ".join(str(e).split()) or type(e).__name__
            raise BadRecording(f"MNE cannot read it: {words}") from None

    def read(self, starts, out):
        with _mne:
            raw = self._open(preload=True)
            sfreq = raw.info["sfreq"]
            if sfreq != SFREQ:
                raw.filter(0.5, min(50.0, 0.45 * sfreq), verbose="error")
                raw.resample(SFREQ, verbose="error")
            signal = raw.get_data()[self._channels] * 1e6
        bad = ~np.isfinite(signal)
        if bad.any():
            first = CHANNELS[np.flatnonzero(bad.any(1))[0]]
            raise BadRecording(f"{bad.sum()} of its samples are not finite (first in {first})")
        limit, clipped = np.finfo(out.dtype).max, 0
        for window, start in zip(out, starts):
            inside = np.clip(np.arange(start, start + out.shape[2]), 0, signal.shape[1] - 1)
            samples = signal[:, inside]
            clipped += int((np.abs(samples) > limit).sum())
            window[:] = np.clip(samples, -limit, limit)
        return clipped
