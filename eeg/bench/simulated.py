"""The simulated releases and caches that the rows of run/bench.py read, in build/bench/."""

from pathlib import Path

import h5py
import numpy as np

from eeg.bench.measure import ROOT, run_script
from eeg.data.build import reserve
from eeg.data.cache import Cache

FOLDER = ROOT / "build" / "bench"
DATA = FOLDER / "data"
CHALLENGE1 = "challenge1_R1_windows.h5"


def release(name: str, subjects: int) -> Path:
    """Simulates a release, where it is not there yet. -> its folder. The start kit finds it too."""
    run_script("synth", "--release", name, "--subjects", subjects, "--data", DATA)
    kit_name = DATA / f"EEG2025r{name[1:]}"
    if not kit_name.is_symlink():
        kit_name.symlink_to(f"{name}_L100_bdf")
    return DATA / f"{name}_L100_bdf"


def cache_with_margins():
    """A Cache of challenge 1 with 0.25 s on both sides of each window."""
    release("R1", 20)
    folder = FOLDER / "margin"
    run_script("cache", "--release", "R1", "--margin", 0.25, "--data", DATA, "--cache", folder)
    return Cache(folder / CHALLENGE1)


def without_margins(cache):
    """The windows of a cache (N, C, T), float32."""
    crop = slice(cache.margin_samples, cache.margin_samples + cache.window_samples)
    return np.ascontiguousarray(cache.parts[0][:, :, crop], np.float32)


def cache_of_zeros(source: Path, size: int) -> Path:
    """Writes a sparse cache of about `size` bytes from `source`, all samples 0. -> its folder"""
    path = FOLDER / f"zeros_{size >> 20}" / source.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(source) as old, h5py.File(path, "w", libver="v110", locking=False) as new:
        windows = np.arange(size // old["X"][0].nbytes) % len(old["X"])
        new.attrs.update(old.attrs)
        for name, rows in (("y", windows), ("metadata", windows), ("recordings", slice(None))):
            new[name] = old[name][()][rows]
        reserve(new, (len(windows), *old["X"].shape[1:]), old["X"].dtype)
    return path.parent
