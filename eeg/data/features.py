"""Features of windows: how they are computed, and how they get into a cache.

    compute(X, ...)   (N, C, T) microvolts -> (N, F) float32, NaN where a feature cannot be computed
    add(path)         computes them for a cache and adds `neuro_features` to it

A kill at any moment leaves the cache as it was. eeg/models/features.py says what each feature is,
and which groups there are.
"""

import hashlib
import io
import os
import shlex
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from eeg import UserError, files
from eeg.data.cache import NOTES, Cache
from eeg.models.features import FEATURE_GROUPS, FEATURES, NEUROSCIENCE, definitions
from eeg.models.montage import CHANNELS, GROUPS, LAGS, SFREQ

VERSION = 1  # of the arithmetic: raise it when a feature changes and its definition does not
USUAL = (NEUROSCIENCE,)


def compute(
    X: np.ndarray,
    first: int = 0,
    length: int | None = None,
    threads: int | None = None,
    groups: tuple[str, ...] = USUAL,
) -> np.ndarray:
    """Features of X (N, C, samples), float32 or float16, microvolts at 100 Hz: (N, F) float32.

    first, length: the samples that count, for windows stored with a margin. groups: of
    FEATURE_GROUPS. A channel that is flat or not finite is left out of its groups; a feature that
    then cannot be computed is NaN. `neuroscience` is the same for any number of threads, and
    `transition` takes as many as torch does.
    """
    if X.dtype not in (np.float32, np.float16):
        raise TypeError(f"X must be float32 or float16, got {X.dtype}")
    if X.ndim != 3 or X.shape[1] != len(CHANNELS):
        raise ValueError(f"X must be (windows, {len(CHANNELS)} channels, samples), got {X.shape}")
    length = length or X.shape[2] - first
    parts = {NEUROSCIENCE: _neuroscience, "transition": _transition}
    return np.hstack([parts[group](X, first, length, threads or 0) for group in groups])


def _transition(X, first, length, threads):
    import torch

    from eeg.models.neuro import NeuroFeatures

    layer = NeuroFeatures(groups=("transition",))
    return layer(torch.from_numpy(X[:, :, first : first + length].astype(np.float32))).numpy()


def _neuroscience(X, first, length, threads):
    from eeg.native import _native

    listed = [CHANNELS.index(name) for group in GROUPS.values() for name in group]
    chosen = np.unique(listed).astype(np.int32)
    members = np.searchsorted(chosen, listed).astype(np.int32)
    sizes = np.array([len(group) for group in GROUPS.values()], np.int32)
    X = np.ascontiguousarray(X).view(np.uint16 if X.dtype == np.float16 else np.float32)
    out = np.empty((len(X), len(FEATURES) - 4 * len(LAGS)), np.float32)
    lagged = np.empty((len(X), len(LAGS), 4), np.float32)
    _native.window_features(X, first, length, chosen, members, sizes, out, threads)
    _native.lagged_correlations(X, first, length, np.array(LAGS, np.int32), lagged, threads)
    return np.hstack([out, lagged.reshape(len(X), 4 * len(LAGS))])


@dataclass
class Report:
    """What `add` did, for its closing lines."""

    windows: int
    computed: bool = True
    missing: dict[str, int] = field(default_factory=dict)  # feature -> windows in which it is NaN


def add(
    path: Path,
    force: bool = False,
    threads: int | None = None,
    progress: Callable | None = None,
    chunk: int = 512,
    groups: tuple[str, ...] = USUAL,
) -> Report:
    """Add `neuro_features` to a cache, unless it has them as they would be computed now.

    groups: of FEATURE_GROUPS. Others that the cache has, as they would be computed now, stay. X is
    read from its map, `chunk` windows at a time. progress(done, total, bytes) is called after
    each. Raises UserError if the file is not a cache of these channels or cannot be written, or if
    another process is at it.
    """
    from eeg.data.build import partial_file

    cache, path = Cache(path), Path(path)
    _check(cache)
    X = cache.parts[0]
    source = cache.attributes[0]["fingerprint"]

    def fingerprint(groups):
        identity = repr((VERSION, definitions(groups), GROUPS, source, X.shape, str(X.dtype)))
        return hashlib.sha256(identity.encode()).hexdigest()

    with partial_file(path.with_name(path.name + ".features")) as partial:
        known = _present(path, fingerprint)
        missing = tuple(group for group in groups if force or group not in known)
        if not missing:
            return Report(len(X), False, _count(known, groups))
        with opened(path) as file:  # a file that cannot be written is refused before the work
            made = np.empty((len(X), len(definitions(missing))), np.float32)
            cut = cache.margin_samples, cache.window_samples
            for at in range(0, len(X), chunk):
                windows = X[at : at + chunk]
                made[at : at + chunk] = compute(windows, *cut, threads=threads, groups=missing)
                if progress:
                    progress(min(at + chunk, len(X)), len(X), windows.nbytes)
            known |= _divided(missing, made)
            stored = tuple(group for group in FEATURE_GROUPS if group in known)
            values = np.hstack([known[group] for group in stored])
            with files.writing(path, "--cache DIR", values.nbytes):
                names = np.array(list(definitions(stored)), "S32")
                about = {"names": names, "fingerprint": fingerprint(stored)}
                publish(path, file.fileno(), partial, "neuro_features", values, about)
    return Report(len(X), True, _count(known, groups))


def _check(cache):
    if tuple(cache.channels) != CHANNELS or cache.sfreq != SFREQ:
        raise UserError(
            f"{cache.paths[0]} holds {len(cache.channels)} channels "
            f"({', '.join(cache.channels[:3])} ...) at {cache.sfreq:g} Hz; features need E1 ... "
            f"E128 and Cz at {SFREQ} Hz"
        )


def opened(path: Path):
    """A cache, to add to it. Raises UserError where it cannot be written."""
    try:
        return open(path, "r+b", buffering=0)
    except OSError as e:
        raise UserError(
            f"{path} cannot be written ({e.strerror}); make it writable with: chmod u+w "
            f"{shlex.quote(str(path))}"
        ) from None


def _present(path, fingerprint):
    """{group: its columns} of a cache's features, {} where they are not as computed now."""
    with h5py.File(path, "r", locking=False) as f:
        there = f.get("neuro_features")
        if there is None:
            return {}
        names = {name.decode() for name in there.attrs["names"]}
        groups = tuple(group for group, known in FEATURE_GROUPS.items() if set(known) <= names)
        same = there.attrs.get("fingerprint") == fingerprint(groups)
        return _divided(groups, there[()]) if same else {}


def _divided(groups, values):
    """{group: its columns} of the features of several groups."""
    ends = np.cumsum([len(FEATURE_GROUPS[group]) for group in groups])
    return dict(zip(groups, np.split(values, ends[:-1], 1)))


def _count(known, groups):
    """{name: the windows in which the feature is NaN}, where there are any."""
    missing = {}
    for group in groups:
        counts = np.isnan(known[group]).sum(0)
        missing |= {name: int(n) for name, n in zip(FEATURE_GROUPS[group], counts) if n}
    return missing


# X may be tens of GB, so the dataset is added to the file that is there, and yet in one step. HDF5
# works on a _Shadow of the file. What it appends goes to the disk at once: readers see nothing of
# it, for the superblock says where the file ends. What it changes in place is held back: the
# superblock and the root group's header, which the cache's layout puts into the first 4096 bytes.
# They are written last, in a single call within one page, which a kill cannot divide. Should
# another layout need changes elsewhere, the file is copied and the copy renamed instead: slower, no
# less safe. A feature set that is replaced stays in the file as dead bytes, 412 a window.
_PAGE = 4096


class _Shadow(io.RawIOBase):
    def __init__(self, fd):
        head = os.pread(fd, 36, 0)
        recent = head[:8] == b"\x89HDF\r\n\x1a\n" and head[8] in (2, 3) and head[12:20] == bytes(8)
        # where the file ends for its readers
        self.end = int.from_bytes(head[28:36], "little") if recent else os.fstat(fd).st_size
        self.patches = []  # (offset, bytes) held back
        self._fd, self._at = fd, 0

    def readable(self):
        return True

    writable = seekable = readable

    def seek(self, offset, whence=io.SEEK_SET):
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: os.fstat(self._fd).st_size}
        self._at = base[whence] + offset
        return self._at

    def readinto(self, buffer):
        data = bytearray(os.pread(self._fd, len(buffer), self._at))
        for offset, patch in self.patches:
            low, high = max(offset, self._at), min(offset + len(patch), self._at + len(data))
            if low < high:
                data[low - self._at : high - self._at] = patch[low - offset : high - offset]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def write(self, data):
        data = bytes(data)
        held = data[: max(self.end - self._at, 0)]
        if held:
            self.patches.append((self._at, held))
        rest, at = memoryview(data)[len(held) :], self._at + len(held)
        files.write_at(self._fd, rest, at)
        self._at += len(data)
        return len(data)

    def truncate(self, size=None):
        size = self._at if size is None else size
        os.ftruncate(self._fd, max(size, self.end))
        return size


def publish(
    path: Path, fd: int, partial: Path, name: str, values: np.ndarray, attributes: dict
) -> None:
    """Add a dataset to a cache that is open as `fd`, or replace it. partial: where a copy of the
    cache may be made. Raises OSError where the disk is full, UserError where the cache was rebuilt.
    """

    def put(f):
        new = f.create_dataset(f"{name}.new", data=values)
        new.attrs.update(attributes)
        # the new one has its place before the old one's is free: nothing old is written over
        f.flush()
        if name in f:
            del f[name]
        f.move(f"{name}.new", name)

    shadow = _Shadow(fd)
    try:
        os.posix_fallocate(fd, shadow.end, values.nbytes + (1 << 20))  # a full disk says so here
        with h5py.File(shadow, "r+") as f:
            put(f)
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, shadow.end)
        raise
    if not os.path.samestat(os.fstat(fd), path.stat()):
        raise UserError(f"{path} was rebuilt while its {name} were computed; run this again")
    changed = max(offset + len(patch) for offset, patch in shadow.patches)
    if changed <= _PAGE:
        page = bytearray(os.pread(fd, changed, 0))
        for offset, patch in shadow.patches:
            page[offset : offset + len(patch)] = patch
        os.fsync(fd)  # what the page points to is on the disk before the page is
        files.write_at(fd, page, 0)
        os.fsync(fd)
        return
    os.ftruncate(fd, shadow.end)
    shutil.copyfile(path, partial)
    with h5py.File(partial, "r+", locking=False) as f:
        put(f)
    with open(partial, "rb") as f:
        os.fsync(f.fileno())
    shutil.copymode(path, partial)
    for name in NOTES:
        if note := files.noted(path, name):
            files.note(partial, name, note)
    os.replace(partial, path)
