"""Batches of a cache: shuffled by a seed, augmented, filled ahead of the model by one thread,
restarted anywhere.

No worker processes: a batch takes the native gather some milliseconds of one core. Where the model
computes on the CPU, threads=1 leaves it the others: a second thread would spin on a core of the
model's between batches (15 % of an epoch).
"""

import errno
import mmap
import os
import queue
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np

from eeg import UserError
from eeg.data.augment import Augment, mirrored
from eeg.data.cache import Cache, rebuild
from eeg.native import _native

BLOCK = 4096  # bytes: every disk takes places, lengths and addresses that are multiples of it
# Errors of a file system that does not read in such a way, or of a system that does not allow it,
# to a container or to all processes together.
REFUSED = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EAGAIN)

SIZE_UV = 20.0  # by which electrodes spread in aligned windows; a child's EEG spreads by 10 to 25
# Share of the largest eigenvalue of a covariance below which there is no signal but rounding:
# float32 has 1e-14, and float16 windows of 20 uV beside a common signal of all electrodes 1e-9.
ROUNDING = 1e-9


@dataclass
class Batch:
    """One batch; its arrays are good until the next but one is asked for."""

    rows: np.ndarray  # (B,) int64: the windows' numbers in the cache
    x: np.ndarray  # (B, C, T) float32
    # (B,) int32: the window was opened so much later, so an event in it lies so much earlier
    shift_samples: np.ndarray
    mix: np.ndarray  # (B,) float32: mixup's weight of the window itself, 1 where mixup is off
    finite: np.ndarray  # (B,) bool: the window holds neither NaN nor infinity


@dataclass(frozen=True)
class Order:
    """In which order windows come, and which of them this process takes.

    rank, world: this process takes every world-th window of each global batch of batch_size *
    world, of which every process has the same number. Shuffled, the last incomplete global batch is
    left out; in order it is kept, and a process's share of it may be empty.
    """

    shuffle: bool = True  # a permutation by (seed, epoch)
    balance: bool = False  # draw subjects equally often, windows with replacement
    rank: int = 0
    world: int = 1
    # Draws the windows of an epoch with a NumPy generator, two by two, as often as there are
    # windows; a pair stays together. By default each window is drawn once.
    pairs: Callable | None = None


@dataclass(frozen=True)
class Reading:
    """How windows are read.

    length: samples of a window, by default the cache's own. starts: (len(cache),) the stored sample
    at which each is cut, by default such that its middle is taken.
    """

    length: int | None = None
    starts: np.ndarray | None = None
    ahead: int = 2  # batches filled before they are wanted
    pin: bool = False  # into memory that a card can copy from by itself
    direct: bool = False  # past the system's cache of files, if that is possible
    threads: int = 0  # 0: all cores


class Batches:
    """The batches of windows `rows` (default all) of a cache."""

    def __init__(
        self,
        cache: Cache,
        rows: np.ndarray | None = None,
        batch_size: int = 64,
        seed: int = 0,
        augment: Augment = Augment(),
        zscore: bool = False,
        order: Order = Order(),
        reading: Reading = Reading(),
    ):
        self.cache, self.batch_size, self.seed = cache, batch_size, seed
        self.augment, self.zscore = augment, zscore
        self.shuffle, self.rank, self.world = order.shuffle, order.rank, order.world
        self.pairs = order.pairs
        self.ahead, self.pin, self.threads = reading.ahead, reading.pin, reading.threads
        self.rows = np.arange(len(cache)) if rows is None else np.asarray(rows, np.int64)
        _, self.channels, stored = cache.parts[0].shape
        self.length = reading.length or cache.window_samples
        middle = np.full(len(cache), (stored - self.length) // 2)
        self.starts = np.asarray(middle if reading.starts is None else reading.starts, np.int32)
        self._check(stored)
        self.direct = reading.direct and opened(cache, 1) is not None
        self._chances = self._balanced() if order.balance else None
        self._mirror = mirrored(cache.channels)
        self._parts = [_bits(X) for X in cache.parts]
        # Windows are asked for one by one, ahead of use: reading on beyond them would only push
        # out what others need.
        for X in cache.parts:
            X._mmap.madvise(mmap.MADV_RANDOM)

    def _check(self, stored):
        """Raise UserError where there are no such batches. stored: samples of a stored window."""
        cache, rows, rank = self.cache, self.rows, f"process {self.rank} of {self.world}"
        if rows.ndim != 1 or len(rows) == 0:
            raise UserError("there is no window to make batches of")
        if rows.min() < 0 or rows.max() >= len(cache):
            asked = f"windows {rows.min()} to {rows.max()}"
            raise UserError(f"{asked} were asked for of a cache of {len(cache)}")
        if self.batch_size < 1 or not 0 <= self.rank < self.world:
            raise UserError(f"a batch of {self.batch_size} for {rank} makes no sense")
        if self.length > stored:
            asked = f"windows of {self.length} samples"
            raise UserError(f"{asked} were asked for, the cache stores {stored}")
        shift_s, used = self.augment.shift, self.starts[rows]
        room = min(used.min(), stored - self.length - used.max())
        if round(shift_s * cache.sfreq) > room:
            raise UserError(
                f"a time shift of {shift_s} s was asked for, the cache has {room / cache.sfreq} s "
                f"around its windows; rebuild it with: {rebuild(cache, margin_s=shift_s)}"
            )

    def _balanced(self):
        """(n,) the chance of each window where subjects are drawn equally often."""
        release, subject = self.cache.release[self.rows], self.cache.metadata["subject"][self.rows]
        names = np.char.add(release.astype(str), subject.astype(str))
        _, which, counts = np.unique(names, return_inverse=True, return_counts=True)
        weight = 1 / counts[which]
        return weight / weight.sum()

    def __len__(self):
        whole, rest = divmod(len(self.rows), self.batch_size * self.world)
        return max(1, whole) if self.shuffle else whole + (rest > 0)

    def order(self, epoch: int) -> np.ndarray:
        """The windows of an epoch, in order, for all processes together: (n,) int64."""
        if not self.shuffle:
            return self.rows
        rng = np.random.default_rng([self.seed, epoch])
        if self.pairs:
            return self.pairs(rng)
        if self._chances is None:
            return self.rows[rng.permutation(len(self.rows))]
        return self.rows[rng.choice(len(self.rows), len(self.rows), p=self._chances)]

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """Go through the batches of an epoch, from batch `start` on.

        The thread that fills them ends with the loop, however that ends.
        """
        free, filled = queue.SimpleQueue(), queue.SimpleQueue()
        # one with the model, one being filled, the others waiting
        for _ in range(self.ahead + 2):
            free.put(self._buffer())
        fill = threading.Thread(
            target=self._fill, args=(epoch, start, free, filled), name="batches", daemon=True
        )
        fill.start()
        try:
            held = []
            while (found := filled.get()) is not None:
                if isinstance(found, BaseException):
                    raise found
                batch, buffer = found
                yield batch
                held.append(buffer)
                if len(held) > 1:
                    free.put(held.pop(0))
        finally:
            free.put(None)
            fill.join()

    def _fill(self, epoch, start, free, filled):
        """Fill free buffers: put (Batch, its buffer) for each batch, at the end None or the error.

        None among the free buffers says that the loop has ended.
        """
        try:
            order = self.order(epoch)
            draws = self.augment.native(self.seed, epoch, self.cache.sfreq)
            direct = opened(self.cache, self.batch_size) if self.direct else None
            chosen = self._chosen(order, start)
            for index in range(start, len(self)):
                following = self._chosen(order, index + 1)
                if direct is None and index + 1 < len(self):
                    self._announce(following)
                buffer = free.get()
                if buffer is None:
                    return
                filled.put((self._gather(chosen, buffer, draws, direct), buffer))
                chosen = following
            filled.put(None)
        except BaseException as e:  # it belongs to the loop that waits for the batch
            filled.put(e)

    def _chosen(self, order, index):
        """This process's windows of batch `index`: every world-th of the global batch."""
        size = self.batch_size * self.world
        together = order[index * size : (index + 1) * size]
        together = together.reshape(-1, 2 if self.pairs else 1)
        return together[self.rank :: self.world].flatten()

    def _places(self, rows):
        part = self.cache.part_of(rows)
        return part.astype(np.int32), rows - self.cache.first[part]

    def _announce(self, rows):
        """Tell the system which windows come next, so that it reads them now, and only them."""
        size = self._parts[0][0].nbytes
        for part, row in zip(*self._places(rows)):
            X = self.cache.parts[part]
            begin = X.offset % mmap.ALLOCATIONGRANULARITY + int(row) * size
            page = begin - begin % mmap.PAGESIZE
            X._mmap.madvise(mmap.MADV_WILLNEED, page, begin + size - page)

    def _buffer(self):
        shape = (self.batch_size, self.channels, self.length)
        if self.pin:
            import torch

            return torch.empty(shape, pin_memory=True).numpy()
        return np.empty(shape, np.float32)

    def _gather(self, rows, buffer, draws, direct):
        parts, (part, row) = self._parts, self._places(rows)
        aligns = isinstance(self.cache, Aligned)
        if len(rows) and (aligns or direct is not None):
            read = direct.windows if direct else lambda *_: [self.cache[i][None] for i in rows]
            found = read(part, row)
            parts = list(map(_bits, self.cache.align(rows, found) if aligns else found))
            part, row = np.arange(len(rows), dtype=np.int32), np.zeros(len(rows), np.int64)
        x, starts = buffer[: len(rows)], self.starts[rows]
        shift, mix = np.zeros(len(rows), np.int32), np.ones(len(rows), np.float32)
        windows = parts, part, row, starts, rows, self._mirror
        _native.gather(*windows, x, shift, mix, self.zscore, draws, self.threads)
        with np.errstate(invalid="ignore", over="ignore"):
            finite = np.isfinite(x.sum((1, 2)))  # x is still in the core's cache: 0.3 ms
        return Batch(rows, x, shift, mix, finite)


def _bits(X):
    """As the native side takes it: half precision by its bits."""
    return X.view(np.uint16) if X.dtype == np.float16 else X


# ------------------------------------------------------------------ windows aligned by subject


def aligned(cache: Cache, kind: str) -> Cache:
    """The same windows, of which Batches gives aligned ones: kind is "spread" or "euclidean", see
    Aligned, or "none"."""
    if kind == "none":
        return cache
    known = vars(cache).setdefault("aligned", {})  # several runs are scored on the same windows
    return known.setdefault(kind, Aligned(cache, kind))


class Aligned(Cache):
    """A Cache whose Batches take from each subject's windows how large its signals are, before
    anything else is done to them.

    "spread" divides each electrode by its standard deviation; "euclidean" multiplies the electrodes
    by the inverse square root of their covariance (He & Wu 2019, doi:10.1109/TBME.2019.2913914).
    Both are means over all finite windows that a file has of the subject, as they are stored, each
    about its own mean; they need no label, and are computed when a window of the subject is first
    asked for. Each electrode then spreads by SIZE_UV. Where there is no signal (Cz, the reference;
    a flat electrode; what a common average takes away) there is none afterwards: the inverse is
    that on the rank of the covariance.
    """

    def __init__(self, cache: Cache, kind: str):
        vars(self).update(vars(cache))
        self.kind, self._lock = kind, threading.Lock()  # several Batches may read at once
        part = np.repeat(np.arange(len(cache.paths)), np.diff(cache.first))
        who = np.char.add(part.astype("S"), cache.metadata["subject"])
        _, self._subject = np.unique(who, return_inverse=True)
        self._changes: dict[int, np.ndarray] = {}  # by subject (C,) or (C, C) float32

    def align(self, rows: np.ndarray, windows: list[np.ndarray]) -> list[np.ndarray]:
        """windows: (1, C, S) as stored, of these rows -> (1, C, S) float32, aligned"""
        x = np.concatenate(windows).astype(np.float32)
        with self._lock:
            for number in set(self._subject[rows].tolist()) - self._changes.keys():
                self._changes[number] = self._change(number)
            changes = np.stack([self._changes[number] for number in self._subject[rows].tolist()])
        with np.errstate(invalid="ignore"):  # of a damaged window, which is left out later
            found = changes[:, :, None] * x if self.kind == "spread" else changes @ x
        return list(found[:, None])

    def _change(self, number):
        covariance, windows = 0.0, 0
        rows = np.flatnonzero(self._subject == number)
        for start in range(0, len(rows), 64):
            x = np.stack([self[row] for row in rows[start : start + 64]]).astype(float)
            x = x[np.isfinite(x).all((1, 2))]
            x -= x.mean(2, keepdims=True)
            across = x.transpose(1, 0, 2).reshape(x.shape[1], -1)
            covariance = covariance + across @ across.T / x.shape[2]
            windows += len(x)
        covariance = covariance / max(windows, 1)
        change = _root(covariance.diagonal())
        if self.kind == "euclidean":
            alive = np.ix_(change > 0, change > 0)  # an electrode without a signal stays exactly so
            change = np.zeros(covariance.shape)
            values, vectors = np.linalg.eigh(covariance[alive])
            change[alive] = (vectors * _root(values)) @ vectors.T
        return (SIZE_UV * change).astype(np.float32)

    def __reduce__(self):
        return aligned, (Cache(self.paths), self.kind)


def _root(values):
    """values^(-1/2), 0 where there is nothing but rounding."""
    signal = values > ROUNDING * values.max(initial=0)
    return np.power(values, -0.5, out=np.zeros(len(values)), where=signal)


# ---------------------------------------------------------- past the system's cache of files

# For a cache that memory cannot hold. There a page is pushed out before it is wanted again, and
# making room for the next costs more than reading it does.


def opened(cache: Cache, most: int) -> "Direct | None":
    """A Direct, or None where the system or a file system refuses to read in such a way."""
    if not hasattr(_native, "DirectFiles"):
        return None
    try:
        direct = Direct(cache, most)
        direct.windows(np.zeros(1, np.int32), np.zeros(1, np.int64))  # some refuse it only here
    except OSError as e:
        if e.errno not in REFUSED:
            raise
        return None
    return direct


class Direct:
    """Reads up to `most` windows of a Cache at a time, all asked for at once."""

    def __init__(self, cache: Cache, most: int):
        window = cache.parts[0][0]
        self._cache, self._shape, self._dtype = cache, (1, *window.shape), window.dtype
        self._begin = np.array([X.offset for X in cache.parts])
        self._size = window.nbytes
        blocks = self._size // BLOCK + 2  # a window begins and ends within a block
        pages = mmap.mmap(-1, most * blocks * BLOCK)
        self._room = np.frombuffer(pages, np.uint8).reshape(most, -1)
        self._files = _native.DirectFiles([os.fsencode(path) for path in cache.paths], most)
        for path, one, found in zip(cache.paths, cache.attributes, self._files.identities):
            if one["identity"] != found:
                raise UserError(
                    f"{path} was replaced since it was opened: what was begun with the old one "
                    "cannot continue; start again"
                )

    def windows(self, part: np.ndarray, row: np.ndarray) -> list[np.ndarray]:
        """Window row[i] of file part[i], for each i: (1, C, S) arrays, good until the next call."""
        begin = self._begin[part] + row * self._size
        skip = begin % BLOCK
        wanted, got = skip + self._size, np.empty(len(row), np.int64)
        blocks = -(-wanted // BLOCK) * BLOCK
        self._files.read(part, begin - skip, blocks, self._room[: len(row)], got)
        for i in np.flatnonzero(got < wanted):
            path = self._cache.paths[part[i]]
            if got[i] < 0:
                raise OSError(-got[i], os.strerror(-got[i]), str(path))
            raise UserError(
                f"{path} ends within its window {row[i]}: it was cut off while it was read; "
                f"rebuild it with: {rebuild(self._cache)}"
            )
        places = zip(self._room, skip, wanted)
        return [room[a:b].view(self._dtype).reshape(self._shape) for room, a, b in places]
