"""Recordings as they were made: EEGLAB .set, EDF, BrainVision and BDF, a few channels at a time.

A whole recording at 500 Hz in double precision may be 2 GB, so nobody holds one.
"""

from pathlib import Path

from eeg.models.montage import CHANNELS
from eeg.raw.eeglab import open_set

READERS = {".bdf": "read_raw_bdf", ".edf": "read_raw_edf", ".vhdr": "read_raw_brainvision"}


class Unusable(ValueError):
    """One recording cannot be used; the message is the reason."""


def companions(path: Path) -> list[Path]:
    """The files beside a recording that hold a part of it."""
    beside = {".set": (".fdt",), ".vhdr": (".eeg", ".vmrk", ".dat")}.get(path.suffix, ())
    return [file for file in map(path.with_suffix, beside) if file.exists()]


def order(names: list[str]) -> list[int]:
    """Where each of the 129 channels stands among these names."""
    place = {name.strip().removeprefix("EEG "): i for i, name in enumerate(names)}
    missing = [name for name in CHANNELS if name not in place]
    if missing:
        no = missing[0] + " ..." * (len(missing) > 1)
        raise Unusable(f"it has {len(names)} channels, not the 129 of the net (no {no})")
    return [place[name] for name in CHANNELS]


class Source:
    """A recording: `names` of channels, `sfreq` in Hz, `n_times` samples."""

    def __init__(self, path: Path):
        """Raises Unusable if the file is not what its name says."""
        import mne

        self._raw = self._set = None
        try:
            if path.suffix == ".set":
                self._set = found = open_set(path)
                self.names = found.names
            else:
                read = getattr(mne.io, READERS[path.suffix])
                self._raw = found = read(path, preload=False, verbose="error")
                self.names = found.ch_names
        except (MemoryError, KeyboardInterrupt):
            raise
        # whatever MNE and SciPy raise on a file that is not what its name says
        except Exception as e:
            words = " ".join(str(e).split()) or type(e).__name__
            raise Unusable(f"it cannot be read: {words}") from None
        self.sfreq = float(found.sfreq if self._set else found.info["sfreq"])
        self.n_times = int(found.n_times)
        if not self.n_times:
            raise Unusable("it holds no samples")

    def part(self, channels: list[int]):
        """These channels as an MNE Raw in memory, in volts, all of them EEG."""
        import mne

        names = [self.names[i] for i in channels]
        if self._set:
            info = mne.create_info(names, self.sfreq, "eeg")
            return mne.io.RawArray(self._set.volts(channels), info, verbose="error")
        part = self._raw.copy().pick(names, verbose="error").load_data(verbose="error")
        types = {
            name: "eeg" for name, type in zip(names, part.get_channel_types()) if type != "eeg"
        }
        part.set_channel_types(types, on_unit_change="ignore", verbose="error")
        return part.reorder_channels(names)
