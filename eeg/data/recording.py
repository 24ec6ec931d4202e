"""The signal of one recording, whatever its format: BDF through the native reader, EEGLAB .set and
EDF through MNE.

Both have `n_times` and `read(starts, out)`; the signal is that of the competition: 129 channels,
100 Hz, microvolts.
"""

import os
import threading

import numpy as np

from eeg._native import Bdf
from eeg.data.release import BadRecording
from eeg.data.windows import SFREQ
from eeg.models.montage import CHANNELS

_mne = (
    threading.Lock()
)  # MNE holds a whole recording in memory, several times while it filters: one at a time


def open_signal(recording):
    """The recording's signal. Raises BadRecording with the reason where it cannot be used."""
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
        raise BadRecording(
            f"it has {len(names)} channels, not the 129 of the net (no "
            f"{missing[0]}{' ...' if len(missing) > 1 else ''})"
        )
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
        """Windows from these samples (n) into out (n, 129, T), float32 or float16. -> how many
        samples float16 could not hold.
        """
        return self._bdf.read(
            starts, self._channels, out.view(np.uint16) if out.dtype == np.float16 else out
        )


class _Mne:
    """At another rate than 100 Hz it is filtered to 0.5-50 Hz and resampled, as the competition's
    own files were.
    """

    def __init__(self, path):
        self._path = path
        with _mne:
            raw = self._open()
            self._channels = _order(raw.ch_names)
            self.n_times = int(round(raw.n_times * SFREQ / raw.info["sfreq"]))

    def _open(self, preload=False):
        import mne

        readers = {
            ".bdf": mne.io.read_raw_bdf,
            ".edf": mne.io.read_raw_edf,
            ".set": mne.io.read_raw_eeglab,
        }
        try:
            return readers[self._path.suffix](self._path, preload=preload, verbose="error")
        except MemoryError:
            raise
        except (
            Exception
        ) as e:  # whatever MNE and SciPy raise on a file that is not what its name says
            raise BadRecording(
                f"MNE cannot read it: {' '.join(str(e).split()) or type(e).__name__}"
            ) from None

    def read(self, starts, out):
        with _mne:
            raw = self._open(preload=True)
            if raw.info["sfreq"] != SFREQ:
                raw.filter(0.5, min(50.0, 0.45 * raw.info["sfreq"]), verbose="error").resample(
                    SFREQ, verbose="error"
                )
            signal = raw.get_data()[self._channels] * 1e6
        if not np.isfinite(signal).all():
            bad = np.flatnonzero(~np.isfinite(signal).all(1))
            raise BadRecording(
                f"{(~np.isfinite(signal)).sum()} of its samples are not finite (first in "
                f"{CHANNELS[bad[0]]})"
            )
        limit = np.finfo(out.dtype).max
        clipped = 0
        for window, start in zip(out, starts):
            samples = signal[
                :, np.clip(np.arange(start, start + out.shape[2]), 0, signal.shape[1] - 1)
            ]
            clipped += int((np.abs(samples) > limit).sum())
            window[:] = np.clip(samples, -limit, limit)
        return clipped
