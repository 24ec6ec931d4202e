"""EEGLAB .set files, written by any version: the samples inside or in an .fdt file beside it.

MNE holds all samples of a .set in double precision, and needs another package for those saved as
MATLAB 7.3. Here they stay as they are in the file until a channel is asked for.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FIELDS = ("data", "srate", "nbchan", "pnts", "trials", "chanlocs")
CHUNK_BYTES = 16e6  # of an .fdt that are read at a time


@dataclass
class Set:
    names: list[str]
    sfreq: float
    n_times: int
    samples: np.ndarray | Path  # (channels, samples) microvolts, or the .fdt that holds them

    def volts(self, channels: list[int]) -> np.ndarray:
        """(these channels, samples) float64."""
        if isinstance(self.samples, np.ndarray):
            return self.samples[channels].astype(float) * 1e-6
        out, every = np.empty((len(channels), self.n_times)), len(self.names)
        many = max(1, int(CHUNK_BYTES / 4 / every))
        with open(self.samples, "rb") as file:
            for first in range(0, self.n_times, many):
                count = min(many, self.n_times - first)
                chunk = np.fromfile(file, "<f4", count * every).reshape(count, every)
                out[:, first : first + count] = chunk[:, channels].T
        out *= 1e-6
        return out


def open_set(path: Path) -> Set:
    """Raises ValueError, and whatever SciPy and h5py raise on damaged files."""
    with open(path, "rb") as file:
        version_7_3 = b"MATLAB 7.3" in file.read(128)
    found = _read_hdf5(path) if version_7_3 else _read_mat(path)
    if missing := [name for name in FIELDS[:4] if name not in found]:
        raise ValueError(f"it has no EEG.{missing[0]}")
    channels, pnts, trials = (int(found.get(name, 1)) for name in ("nbchan", "pnts", "trials"))
    if trials != 1:
        raise ValueError(f"it holds {trials} epochs, not one continuous recording")
    samples = found["data"]
    if isinstance(samples, str):
        samples = _find_fdt(path, samples, channels, pnts)
    else:
        samples = samples.reshape(channels, -1)
        if samples.shape[1] != pnts:
            raise ValueError(f"it holds {samples.shape[1]} samples, its header says {pnts}")
    names = found["chanlocs"] or [f"EEG {i:03d}" for i in range(channels)]
    if len(names) != channels:
        raise ValueError(f"it names {len(names)} channels, its header says {channels}")
    return Set(names, float(found["srate"]), pnts, samples)


def _find_fdt(path, name, channels, pnts):
    """The .fdt of a .set: that of the same name, for EEG.data may tell its name of old."""
    places = path.with_suffix(".fdt"), path.with_name(Path(name.replace("\\", "/")).name)
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise ValueError(f"there is no {places[0].name}, which holds its samples")
    size, expected = file.stat().st_size, 4 * channels * pnts
    if size < expected:
        raise ValueError(f"{file.name} has {size:,} bytes; {expected:,} are expected")
    return file


def _read_mat(path) -> dict[str, Any]:
    """The FIELDS of a .set saved as MATLAB 5 to 7: fields of EEG, or variables themselves."""
    import scipy.io

    wanted = ["EEG", *FIELDS]
    found = scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False, variable_names=wanted)
    if "EEG" in found:
        found = vars(found["EEG"])
    found = {name: found[name] for name in FIELDS if name in found}
    labels = [str(place.labels) for place in np.atleast_1d(found.get("chanlocs", []))]
    return found | {"chanlocs": labels}


def _read_hdf5(path) -> dict[str, Any]:
    """The same of a .set saved as MATLAB 7.3, where arrays are transposed and text is numbers."""
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        group = file["EEG"] if "EEG" in file else file
        found: dict[str, Any] = {
            name: float(group[name][()].item())
            for name in ("srate", "nbchan", "pnts", "trials")
            if name in group
        }
        data, places = group["data"], group.get("chanlocs")
        is_text = data.attrs.get("MATLAB_class") == b"char"
        found["data"] = _text(data) if is_text else data[()].T
        found["chanlocs"] = []
        if isinstance(places, h5py.Group):
            labels = places["labels"]
            refers = labels.dtype == h5py.ref_dtype
            found["chanlocs"] = (
                [_text(file[one]) for one in labels[()].ravel()] if refers else [_text(labels)]
            )
    return found


def _text(dataset):
    return "".join(map(chr, dataset[()].ravel()))


def write_set(path: Path, names: tuple[str, ...], sfreq: float, samples: np.ndarray) -> None:
    """Write (channels, samples) microvolts as .set and .fdt, as EEGLAB saves in two files."""
    import scipy.io

    fdt = path.with_suffix(".fdt")
    np.ascontiguousarray(samples.T, "<f4").tofile(fdt)
    labels = np.zeros(len(names), [("labels", object), ("type", object)])
    labels["labels"], labels["type"] = names, "EEG"
    empty = np.zeros((0, 0))
    eeg = {
        "setname": path.stem,
        "filename": path.name,
        "filepath": "",
        "nbchan": float(len(names)),
        "trials": 1.0,
        "pnts": float(samples.shape[1]),
        "srate": float(sfreq),
        "xmin": 0.0,
        "xmax": (samples.shape[1] - 1) / sfreq,
        "data": fdt.name,
        "datfile": fdt.name,
        "icawinv": empty,
        "icasphere": empty,
        "icaweights": empty,
        "icaact": empty,
        "chanlocs": labels,
        "ref": "Cz",
        "event": empty,
        "epoch": empty,
    }
    scipy.io.savemat(path, {"EEG": eeg}, appendmat=False)
    with open(path, "r+b") as file:  # SciPy writes the time there: the same must make the same
        file.write(b"MATLAB 5.0 MAT-file".ljust(116))
