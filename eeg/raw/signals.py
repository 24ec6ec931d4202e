"""Recordings brought to 100 Hz, each in a file of its own, until a cache is made of them."""

import hashlib
import os
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from eeg import files
from eeg.raw.preprocess import preprocess
from eeg.raw.preprocessing import Preprocessing
from eeg.raw.source import Unusable, companions
from eeg.raw.workers import in_processes

VERSION = 1  # of what preprocess() does


class Signals:
    """What preprocess() made of recordings: a folder of .npy files, (129, samples) microvolts.

    An interrupted build finds there what it had finished.
    """

    def __init__(self, folder: Path, settings: Preprocessing):
        self.folder, self.settings = folder, settings
        self.made = self.found = 0  # recordings: now, and by an earlier build
        self.peak_bytes = 0  # most memory that one process needed
        self._known: dict[Path, Path | Unusable] = {}

    def prepare(
        self, paths: Sequence[Path], jobs: int | None = None, progress: Callable | None = None
    ) -> None:
        """Preprocess these recordings, all cores at once, except those that are there.

        progress(done, total, bytes) is called as each is finished.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = {path: self.folder / f"{identity(path, self.settings)}.npy" for path in paths}
        for stale in set(self.folder.iterdir()) - set(kept.values()):
            files.remove(stale)  # of other settings or other files
        missing = [path for path in paths if not kept[path].exists()]
        self._known = {path: kept[path] for path in set(paths) - set(missing)}
        missing.sort(key=size, reverse=True)
        tasks = [(path, self.settings, kept[path]) for path in missing]
        done = self.found = len(self._known)
        for (path, _, target), result in in_processes(keep, tasks, jobs):
            bad = isinstance(result, Unusable)
            if not bad and isinstance(result, ValueError):
                raise result
            self._known[path] = result if bad else target
            done += 1
            if not bad:
                self.made, self.peak_bytes = self.made + 1, max(self.peak_bytes, result)
            if progress:
                progress(done, len(paths), size(path))

    def open(self, path: Path) -> np.ndarray:
        """(129, samples) float32, mapped. Raises Unusable with the reason."""
        known = self._known[path]
        if isinstance(known, Unusable):
            raise known
        return np.load(known, mmap_mode="r")

    def remove(self) -> None:
        """Remove the folder: the cache is complete."""
        files.remove(self.folder)


def keep(path: Path, settings: Preprocessing, target: Path) -> int:
    """Preprocess one recording into a file. -> the most memory that this process has needed."""
    samples = preprocess(path, settings)
    with files.publishing(target, ".npy") as new, open(new, "wb") as file:
        np.save(file, samples)
        file.flush()
        os.fsync(file.fileno())  # or a machine that stops might keep the name without the samples
    return memory_peak()


def memory_peak() -> int:
    """Bytes: the most memory that this process has needed."""
    if os.path.exists("/proc/self/status"):  # the other number begins with the parent's
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def identity(path: Path, settings: Preprocessing) -> str:
    """What a preprocessed recording is known by: its files and filters."""
    known: list[object] = [VERSION, settings.filters]
    for file in (path, *companions(path)):
        state = file.stat()
        known += [os.path.abspath(file), state.st_size, state.st_mtime_ns]
    return hashlib.sha256(repr(known).encode()).hexdigest()[:32]


def size(path: Path) -> int:
    """Bytes of a recording, with the files beside it that hold a part of it."""
    return sum(file.stat().st_size for file in (path, *companions(path)))
