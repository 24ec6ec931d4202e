"""Flat, noisy and clipped electrodes of a recording, from some of its windows in a cache."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from eeg.data.cache import Cache
from eeg.data.release import CONTRAST
from eeg.models.montage import CHANNELS, GROUPS

ELECTRODES = 128  # without Cz, the reference, which is flat by construction
MOST_WINDOWS, LEAST_WINDOWS = 8, 3  # of a recording that are read
ENOUGH = 4000  # windows in all
FLAT_UV = 0.1  # standard deviation in a window
NOISY = 5  # times the standard deviation of the recording's median electrode
HELD = 4  # samples in a row at the extreme of a window
LINE_HZ = 60
MOST_ORIGINALS = 16  # files of which the line noise is measured before filters
_SOME = [CHANNELS.index(name) for name in "E11 E24 E124 E36 E104 E55 E62 E45 E108".split()]


@dataclass
class Quality:
    """The recordings of a cache. R recordings, 128 electrodes."""

    names: list[tuple[str, str]]  # (release, the signal's file, within its folder) of each
    flat: np.ndarray  # (R, 128) bool
    noisy: np.ndarray  # (R, 128) bool: or not finite
    clipped: np.ndarray  # (R, 128) bool
    line_db: np.ndarray  # (R,) power at `line_hz` above that beside it, median electrode
    line_hz: float  # 60, or where 60 Hz folds to at the cache's rate
    windows_read: int

    @property
    def bad(self) -> np.ndarray:
        """(R, 128) bool"""
        return self.flat | self.noisy | self.clipped


def measure(cache: Cache) -> Quality:
    """The quality of each recording, from 3 to 8 windows that are spread over it."""
    keys = np.stack([np.asarray(cache.part_of(np.arange(len(cache)))), cache.metadata["recording"]])
    keys, which = np.unique(keys, axis=1, return_inverse=True)
    rows_of = np.split(
        np.argsort(which.reshape(-1), kind="stable"), np.cumsum(np.bincount(which))[:-1]
    )
    files = [_recordings(path) for path in cache.paths]
    most = max(LEAST_WINDOWS, min(MOST_WINDOWS, ENOUGH // len(rows_of)))
    found, windows = [], 0
    for rows in rows_of:
        chosen = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
        X = np.stack([cache[int(i)][:ELECTRODES] for i in chosen]).astype(np.float32)
        found.append(electrodes(X, cache.sfreq))
        windows += len(chosen)
    names = [
        (str(cache.attributes[part]["release"]), files[part][number]) for part, number in keys.T
    ]
    flat, noisy, clipped, line_db = (np.array(column) for column in zip(*found))
    return Quality(names, flat, noisy, clipped, line_db, folded(cache.sfreq), windows)


def _recordings(path):
    with h5py.File(path, "r", locking=False) as f:
        return [name.decode() for name in f["recordings"]]


def electrodes(X: np.ndarray, sfreq: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """(flat (C,), noisy (C,), clipped (C,), line noise in dB) of windows X (n, C, T) in microvolts.

    Flat and noisy are what an electrode is in most of the windows, clipped is what it is in any.
    """
    finite = np.isfinite(X).all(2)
    X = np.where(finite[:, :, None], X, 0)
    spread = np.where(finite, X.std(2), np.nan)
    broken = ~finite.any(0)
    spread = np.where(broken, np.inf, np.nanmedian(np.where(broken, 0, spread), 0))
    flat = spread < FLAT_UV
    alive = spread[~flat & ~broken]
    noisy = spread > NOISY * np.median(alive) if len(alive) else broken
    moving = X.std(2) >= FLAT_UV  # which windows of NaN are not, either
    clipped = (moving & (_held(X, X.max(2)) | _held(X, X.min(2)))).any(0) & ~flat
    return flat, noisy, clipped, _line_db(X, flat | noisy, sfreq)


def _held(X, extreme):
    """(n, C) bool: whether a window stays at its extreme (n, C) for HELD samples in a row."""
    there = X == extreme[:, :, None]
    runs = [there[:, :, i : there.shape[2] - HELD + 1 + i] for i in range(HELD)]
    return np.logical_and.reduce(runs).any(2)


def folded(sfreq: float) -> float:
    """Where the line frequency, or what a filter left of it, is seen at this sampling rate."""
    return abs(LINE_HZ - sfreq * round(LINE_HZ / sfreq))


def _line_db(X, bad, sfreq):
    """Power at the line frequency above the power beside it, dB; NaN if that cannot be said.

    The median over good electrodes. Occipital ones are left out: they follow the task's flicker, of
    20 Hz, whose second harmonic is where 60 Hz folds to at 100 Hz.
    """
    good = [i for i in np.flatnonzero(~bad) if CHANNELS[i] not in GROUPS["occipital"]]
    f = np.fft.rfftfreq(X.shape[2], 1 / sfreq)
    away = np.abs(f - folded(sfreq))
    at, beside = away <= 0.5, (away >= 1.5) & (away <= 5)
    if not good or not at.any() or not beside.any():
        return np.nan
    own = X[:, good] - X[:, good].mean(2, keepdims=True)
    power = (np.abs(np.fft.rfft(own * np.hanning(X.shape[2]), axis=2)) ** 2).mean(0)
    ratio = power[:, at].mean(1) / np.maximum(power[:, beside].mean(1), 1e-30)
    return float(10 * np.log10(max(np.median(ratio), 1e-12)))


def original_line_db(signals: list[Path], most: int = MOST_ORIGINALS) -> dict[int, float]:
    """{number of the recording: dB at 60 Hz}, of those whose files are sampled fast enough.

    From the middle minute of a few electrodes of at most `most` recordings of one release.
    """
    from eeg.raw.source import Source, Unusable, order

    found: dict[int, float] = {}
    slow = 0
    numbers = np.linspace(0, len(signals) - 1, min(most, len(signals))).astype(int)
    for i in np.unique(numbers):
        if slow == 2:  # a release has one rate, as a rule
            break
        try:
            source = Source(signals[i])
            if source.sfreq <= 2 * LINE_HZ + 10:
                slow += 1
                continue
            channels = np.array(order(source.names))[_SOME]
            x = source.part(channels.tolist()).get_data() * 1e6
        except Unusable:  # the cache has named it with the reason
            continue
        segment = int(2 * source.sfreq)
        count = min(x.shape[1] // segment, 30)
        first = (x.shape[1] - count * segment) // 2
        X = np.full((count, ELECTRODES, segment), np.nan, np.float32)
        parts = x[:, first : first + count * segment].reshape(len(x), count, segment)
        X[:, _SOME] = parts.transpose(1, 0, 2)
        bad = np.ones(ELECTRODES, bool)
        bad[_SOME] = X[:, _SOME].std(2).max(0, initial=0) < FLAT_UV
        found[int(i)] = _line_db(X, bad, source.sfreq)
    return found


def contrast_name(file: str) -> tuple[str, int]:
    """(subject, run) of a contrast-change recording's file name; run 0 where it has none."""
    stem = file.split("/")[-1].removeprefix("sub-").split("_eeg.")[0]
    subject, _, run = stem.partition(f"_task-{CONTRAST}")
    return subject, int(run.removeprefix("_run-") or 0)
