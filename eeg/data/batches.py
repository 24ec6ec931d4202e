"""Batches of a cache: shuffled by a seed, augmented, filled ahead of the model by one thread,
restarted anywhere.

No worker processes: a batch takes the native gather some milliseconds of one core. Where the model
computes on the CPU, threads=1 leaves it the others: a second thread would spin on a core of the
model's between batches (15 % of an epoch).
"""

import mmap
import queue
import threading
from dataclasses import dataclass

import numpy as np

from eeg import UserError, _native
from eeg.data.augment import Augment, mirrored
from eeg.data.cache import rebuild
from eeg.data.direct import opened


@dataclass
class Batch:
    """One batch; its arrays are good until the next but one is asked for."""

    rows: np.ndarray  # (B,) int64: the windows' numbers in the cache
    x: np.ndarray  # (B, C, T) float32
    shift_samples: (
        np.ndarray
    )  # (B,) int32: the window was opened so much later, so an event in it lies so much earlier
    mix: np.ndarray  # (B,) float32: mixup's weight of the window itself, 1 where mixup is off
    finite: np.ndarray  # (B,) bool: the window holds neither NaN nor infinity


class Batches:
    """The batches of some windows of a cache.

    rows: the windows to go through (default all). length: samples a window (default the cache's
    own). starts: (len(cache),) the stored sample at which each is cut, by default such that its
    middle is taken and Augment.shift may move it either way. shuffle: a permutation by (seed,
    epoch); off, the windows come in order. balance: subjects are drawn equally often, windows with
    replacement. rank, world: this process takes every world-th window of each global batch of
    batch_size * world. An epoch has the same number of batches in every process; shuffled, the last
    incomplete global batch is left out, in order it is kept (and may be empty). direct: read past
    the system's cache of files, if that is possible.
    """

    def __init__(
        self,
        cache,
        rows=None,
        batch_size=64,
        seed=0,
        augment=Augment(),
        zscore=False,
        length=None,
        starts=None,
        shuffle=True,
        balance=False,
        rank=0,
        world=1,
        ahead=2,
        pin=False,
        direct=False,
        threads=0,
    ):
        self.cache, self.batch_size, self.seed = cache, batch_size, seed
        self.augment, self.zscore, self.shuffle, self.balance = augment, zscore, shuffle, balance
        self.rank, self.world, self.ahead, self.pin, self.threads = rank, world, ahead, pin, threads
        self.rows = np.arange(len(cache)) if rows is None else np.asarray(rows, np.int64)
        _, self.channels, stored = cache.parts[0].shape
        self.length = length or cache.window_samples
        middle = (stored - self.length) // 2
        self.starts = np.full(len(cache), middle, np.int32)
        if starts is not None:
            self.starts = np.asarray(starts, np.int32)
        self._check(stored)
        self.direct = direct and opened(cache, 1) is not None
        if balance:
            release, subject = cache.release[self.rows], cache.metadata["subject"][self.rows]
            names = np.char.add(release.astype(str), subject.astype(str))
            self._subjects = np.unique(names, return_inverse=True)[1]
        self._mirror = mirrored(cache.channels)
        self._parts = [_bits(X) for X in cache.parts]
        # Windows are asked for one by one, ahead of use: reading on beyond them would only push
        # out what others need.
        for X in cache.parts:
            X._mmap.madvise(mmap.MADV_RANDOM)

    def _check(self, stored):
        """Raise UserError where there are no such batches. stored: samples of a stored window."""
        cache, rows = self.cache, self.rows
        if rows.ndim != 1 or len(rows) == 0:
            raise UserError("there is no window to make batches of")
        if rows.min() < 0 or rows.max() >= len(cache):
            raise UserError(
                f"windows {rows.min()} to {rows.max()} were asked for of a cache of {len(cache)}"
            )
        if self.batch_size < 1 or not 0 <= self.rank < self.world:
            raise UserError(
                f"a batch of {self.batch_size} for process {self.rank} of {self.world} "
                "makes no sense"
            )
        if self.length > stored:
            raise UserError(
                f"windows of {self.length} samples were asked for, the cache stores {stored}"
            )
        shift_s, used = self.augment.shift, self.starts[rows]
        room = min(used.min(), stored - self.length - used.max())
        if round(shift_s * cache.sfreq) > room:
            raise UserError(
                f"a time shift of {shift_s} s was asked for, the cache has {room / cache.sfreq} s "
                f"around its windows; rebuild it with: {rebuild(cache, margin_s=shift_s)}"
            )

    def __len__(self):
        whole, rest = divmod(len(self.rows), self.batch_size * self.world)
        return max(1, whole) if self.shuffle else whole + (rest > 0)

    def order(self, epoch):
        """The windows of an epoch, in order, for all processes together: (n,) int64."""
        if not self.shuffle:
            return self.rows
        rng = np.random.default_rng([self.seed, epoch])
        if not self.balance:
            return self.rows[rng.permutation(len(self.rows))]
        weight = 1 / np.bincount(self._subjects)[self._subjects]
        return self.rows[rng.choice(len(self.rows), len(self.rows), p=weight / weight.sum())]

    def epoch(self, epoch, start=0):
        """Go through the batches of an epoch, from batch `start` on. The thread that fills them
        ends with the loop, however that ends.
        """
        order = self.order(epoch)
        buffers = [
            self._buffer() for _ in range(self.ahead + 2)
        ]  # one with the model, one being filled, the others waiting
        free, filled = queue.SimpleQueue(), queue.SimpleQueue()
        for buffer in buffers:
            free.put(buffer)
        direct = opened(self.cache, self.batch_size) if self.direct else None
        draws = self.augment.native(self.seed, epoch, self.cache.sfreq)

        def fill():
            try:
                chosen = self._chosen(order, start) if start < len(self) else None
                for index in range(start, len(self)):
                    following = self._chosen(order, index + 1) if index + 1 < len(self) else None
                    if following is not None and direct is None:
                        self._announce(following)
                    buffer = free.get()
                    if buffer is None:  # the loop has ended
                        return
                    filled.put(self._gather(chosen, buffer, draws, direct))
                    chosen = following
                filled.put(None)
            except BaseException as e:  # it belongs to the loop that waits for the batch
                filled.put(e)

        thread = threading.Thread(target=fill, name="batches", daemon=True)
        thread.start()
        try:
            held = []
            while (batch := filled.get()) is not None:
                if isinstance(batch, BaseException):
                    raise batch
                yield batch
                held.append(batch)
                if len(held) > 1:
                    free.put(held.pop(0).buffer)
        finally:
            free.put(None)
            thread.join()

    def _chosen(self, order, index):
        """This process's windows of batch `index`: every world-th of the global batch."""
        size = self.batch_size * self.world
        return np.ascontiguousarray(
            order[index * size : (index + 1) * size][self.rank :: self.world]
        )

    def _places(self, rows):
        part = np.searchsorted(self.cache.first, rows, "right") - 1
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
        if direct is not None and len(rows):
            parts = [_bits(X) for X in direct.windows(part, row)]
            part, row = np.arange(len(rows), dtype=np.int32), np.zeros(len(rows), np.int64)
        x, shift, mix = (
            buffer[: len(rows)],
            np.zeros(len(rows), np.int32),
            np.ones(len(rows), np.float32),
        )
        _native.gather(
            parts,
            part,
            row,
            self.starts[rows],
            rows,
            self._mirror,
            x,
            shift,
            mix,
            self.zscore,
            draws,
            self.threads,
        )
        with np.errstate(invalid="ignore", over="ignore"):
            finite = np.isfinite(
                x.sum((1, 2))
            )  # one pass over what is in the processor's cache: 0.3 ms of the 60 of a batch
        batch = Batch(rows, x, shift, mix, finite)
        batch.buffer = buffer
        return batch


def _bits(X):
    """As the native side takes it: half precision by its bits."""
    return X.view(np.uint16) if X.dtype == np.float16 else X
