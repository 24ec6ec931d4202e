"""Recordings as they were made: EEGLAB .set, EDF, BrainVision and BDF, a few channels at a time.

A whole recording at 500 Hz in double precision may be 2 GB, so nobody holds one.
"""

import re
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


def check_continuous(path: Path) -> None:
    """Raise Unusable where an EDF+D or BDF+D file leaves out some time between its records.

    MNE reads on as if nothing were missing, and events after a gap would be at other samples.
    """
    with open(path, "rb") as file:
        head = file.read(256)
        if head[192:197] not in (b"EDF+D", b"BDF+D"):
            return
        count, seconds, width = int(head[252:256]), float(head[244:252]), 2 + (head[0] == 0xFF)
        fields, first_byte = file.read(256 * count), 256 * (count + 1)
        labels = [fields[16 * i : 16 * i + 16].strip() for i in range(count)]
        samples = [int(fields[at : at + 8]) for at in range(216 * count, 224 * count, 8)]
        times = [i for i, label in enumerate(labels) if label.endswith(b"Annotations")]
        if not times:
            raise Unusable("it is discontinuous (+D) and has no times of its records")
        of_record, place = width * sum(samples), width * sum(samples[: times[0]])
        half_sample_s = 0.5 * seconds / max(n for i, n in enumerate(samples) if i not in times)
        records, start = (path.stat().st_size - first_byte) // of_record, 0.0
        for record in range(records):
            file.seek(first_byte + record * of_record + place)
            found = re.match(
                rb"([+-]\d+(?:\.\d*)?)[\x14\x15]", file.read(width * samples[times[0]])
            )
            if not found:
                raise Unusable(f"it is discontinuous (+D), and its record {record} has no time")
            start = start if record else float(found[1])
            gap = float(found[1]) - start - record * seconds
            if abs(gap) > half_sample_s:
                raise Unusable(f"it is discontinuous: {gap:g} s are missing before record {record}")


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
        if path.suffix in (".edf", ".bdf"):
            check_continuous(path)
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
