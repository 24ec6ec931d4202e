"""Builds the cache of a release.

Events are cheap to read, so the number of windows is known before any sample is: the file is laid
out first (metadata written, X's blocks reserved), then the recordings are decoded straight into
their places.
"""

import errno
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import h5py
import numpy as np

import eeg
from eeg import UserError, files
from eeg.data.cache import DATA, FORMAT, STREAM, VERSION, look
from eeg.data.recording import open_signal, prepare
from eeg.data.release import CONTRAST, BadRecording, Exclusions, Recording, Release, cache_path
from eeg.data.sources import (
    digest,
    excluded_names,
    file_names,
    newer,
    reason_to_replace,
    source_files,
)
from eeg.data.trials import build_trials, flag_copies, read_events
from eeg.data.windows import LENGTH, OFFSET, SFREQ, STRIDE, TARGETS, Windows, cut_fixed, cut_trials
from eeg.models.montage import CHANNELS
from eeg.raw.preprocessing import Preprocessing
from eeg.raw.signals import Signals


@dataclass
class Settings:
    """What decides the contents of a cache, besides the release's files."""

    challenge: int = 1
    tasks: tuple[str, ...] = (CONTRAST,)
    dtype: str = "float32"
    margin_s: float = 0.0  # kept on both sides of each window
    max_recordings: int | None = None
    exclude: Exclusions = Exclusions()
    preprocessing: Preprocessing = Preprocessing()

    def recordings(self, release: Release) -> list[Recording]:
        """The recordings of a release that the cache is made from."""
        found = release.recordings(self.tasks)
        return [each for each in found if not self.exclude.reason(each)][: self.max_recordings]


@dataclass
class Report:
    """What a build did, for its closing lines."""

    path: Path
    built: bool = True
    reason: str = ""  # why an existing file was rebuilt
    windows: int = 0
    subjects: int = 0
    bytes: int = 0
    dropped: Counter = field(default_factory=Counter)  # reason -> trials
    flagged: Counter = field(default_factory=Counter)  # flag -> windows
    skipped: list = field(default_factory=list)  # (recording, reason)
    warned: list = field(default_factory=list)  # (recording, what is odd about it), used
    excluded: list = field(default_factory=list)  # (recording, reason), by the user's list
    clipped: int = 0  # samples beyond what float16 holds
    signals: Signals | None = None  # where recordings were not at 100 Hz yet


def build(
    release: Release,
    settings: Settings,
    folder: Path,
    jobs: int | None = None,
    force: bool = False,
    progress: Callable | None = None,
) -> Report:
    """Write the cache of a release, unless an up-to-date one is there.

    If the report counts no windows, nothing was written. progress(done, total, bytes) is called as
    each recording is finished. Recordings that are not at 100 Hz are preprocessed first, and kept
    in a folder until the cache is complete: a build that is interrupted continues. Raises UserError
    if the file cannot be written or, without `force`, if it was built with other settings or from
    another release.
    """
    report = Report(cache_path(folder, settings.challenge, release.name, release.mini))
    kept = report.path.with_name(report.path.name + ".signals")
    recordings = settings.recordings(release)
    report.excluded = settings.exclude.excluded(release.recordings(settings.tasks))
    excluded = excluded_names(release, report.excluded)
    sources = source_files(release, settings, recordings)
    fingerprint = digest(release, settings, sources, excluded)
    if report.path.exists() and not force:
        there = look(report.path)
        if there and there.fingerprint == fingerprint and not newer(sources, report.path):
            report.built, report.windows = False, there.windows
            report.bytes = report.path.stat().st_size
            files.remove(kept)  # of a build that was killed once its cache was complete
            return report
        report.reason = "the file there cannot be read"
        if there:
            report.reason = reason_to_replace(there, release, settings, recordings, excluded)
    with partial_file(report.path) as partial:
        tables = _read_tables(recordings)
        if force:
            files.remove(kept)
        with files.writing(kept, "--cache DIR"):
            worth = _worth(tables, settings)
            report.signals, heads = prepare(worth, settings.preprocessing, kept, jobs, progress)
        opened = lambda recording: open_signal(recording, settings.preprocessing, report.signals)
        head = lambda recording: heads.get(recording) or opened(recording)
        plans = _make_plans(release, settings, tables, head, report)
        if not plans:
            return report
        layout = _Layout(release, settings, recordings, fingerprint, excluded)
        shown = None if report.signals else progress
        rows = _write(partial, layout, plans, report, opened, jobs, shown)
        if rows is None:
            return report
        # not in its content: two places with the same files make the same cache
        files.note(partial, DATA, os.fsencode(os.path.abspath(release.root)))
        if release.streamed:
            files.note(partial, STREAM, os.fsencode(release.streamed))
        os.replace(partial, report.path)
    if report.signals:
        report.signals.remove()
    _write_through(report.path)
    report.windows, report.bytes = len(rows), report.path.stat().st_size
    report.subjects = len(np.unique(rows["subject"]))
    report.flagged = +Counter({flag: int(rows[flag].sum()) for flag in ("copy", "fast")})
    return report


# ----------------------------------------------------------------------------------------- planning


@dataclass
class _Plan:
    """One recording's windows before any of its samples is read."""

    recording: Recording
    windows: Windows
    first: int = 0  # its first row in X


def _read_tables(recordings):
    """[(recording, its trials as _trials gives them)], copies flagged."""
    tables = [(recording, _trials(recording)) for recording in recordings]
    for _, group in groupby(tables, key=lambda pair: pair[0].subject):
        flag_copies([table for _, table in group if isinstance(table, np.ndarray)])
    return tables


def _worth(tables, settings):
    """The recordings that may have windows: challenge 2 needs no events."""
    usable = lambda trials: settings.challenge == 2 or not isinstance(trials, BadRecording)
    return [recording for recording, trials in tables if usable(trials)]


def _make_plans(release, settings, tables, head, report):
    """The plans of the recordings with at least one window, from events and headers alone."""
    participants = release.participants() if settings.challenge == 2 else {}
    plans = []
    for number, (recording, trials) in enumerate(tables):
        try:
            if settings.challenge == 1 and isinstance(trials, BadRecording):
                raise trials
            signal = head(recording)
            if settings.challenge == 1:
                windows, dropped = cut_trials(trials, signal.n_times)
                report.dropped.update(dropped)
            else:  # which needs no events: without them it has no flags
                known = trials if isinstance(trials, np.ndarray) else None
                person = participants.get(recording.subject)
                windows = cut_fixed(known, signal.n_times, person)
            if not len(windows.starts):
                raise BadRecording("it has no valid trial")
        except BadRecording as e:
            report.skipped.append((recording, str(e)))
            continue
        if signal.warning:
            report.warned.append((recording, signal.warning))
        rows = windows.rows
        rows["subject"], rows["task"] = recording.subject.encode(), recording.task.encode()
        rows["run"], rows["recording"], rows["start"] = recording.run, number, windows.starts
        plans.append(_Plan(recording, windows))
    return plans


def _trials(recording):
    """Its trial table, the BadRecording if there is none, or None in a task without trials."""
    try:
        return build_trials(*read_events(recording.events)) if recording.task == CONTRAST else None
    except BadRecording as e:
        return e


# ------------------------------------------------------------------------------------------ writing


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Hold path.partial alone, and remove it at the end unless it was renamed."""
    with ExitStack() as held:
        with files.writing(path, "--cache DIR"):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = held.enter_context(files.exclusive_partial(path))
        if partial is None:
            raise UserError(f"another process is building {path}; wait for it, or stop it")
        try:
            yield partial
        finally:
            _second(partial).unlink(missing_ok=True)


class _Layout:
    """What a cache's file holds besides its windows: shape, attributes, recordings."""

    def __init__(self, release, settings, recordings, fingerprint, excluded):
        self.release = release
        self.dtype = np.dtype(settings.dtype)
        self.margin_samples = round(settings.margin_s * SFREQ)
        length = LENGTH[settings.challenge]
        self.shape = (len(CHANNELS), length + 2 * self.margin_samples)
        self.window_bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self.recordings = np.array([name.encode() for name in file_names(release, recordings)])
        windowing = f"from stimulus + {OFFSET} samples", f"every {STRIDE} samples"
        self.attributes = {
            "format": FORMAT,
            "version": VERSION,
            "challenge": settings.challenge,
            "release": release.name,
            "mini": release.mini,
            "simulated": release.simulated,
            "sfreq": float(SFREQ),
            "unit": "uV",
            "channels": np.array(CHANNELS, "S4"),
            "tasks": np.array(settings.tasks, "S24"),
            "max_recordings": settings.max_recordings or 0,
            "target": TARGETS[settings.challenge],
            "window_samples": length,
            "margin_samples": self.margin_samples,
            "windowing": windowing[settings.challenge - 1],
            "filter": "none for files at 100 Hz; files at other rates: "
            f"{settings.preprocessing.filters}, resampled to 100 Hz",
            **settings.preprocessing.attributes(),
            "package": eeg.__version__,
            "fingerprint": fingerprint,
        }
        if (oracle := release.oracle(settings.challenge)) is not None:
            self.attributes["oracle_nrmse"] = oracle
        if excluded:
            self.attributes["exclude"] = np.bytes_(
                os.fsencode(os.path.abspath(settings.exclude.path))
            )
            self.attributes["excluded"] = np.array([name.encode() for name in excluded])

    def write(self, file, plans):
        """Write all but the samples, and reserve their place. -> (offset of X, METADATA rows)."""
        first = 0
        for plan in plans:
            plan.first, first = first, first + len(plan.windows.starts)
        rows = np.concatenate([plan.windows.rows for plan in plans])
        labels = np.concatenate([plan.windows.labels for plan in plans])
        size = len(rows) * self.window_bytes
        needed = size + (1 << 20)  # for the rest
        with files.writing(file.with_suffix(""), "--cache DIR", needed):
            if shutil.disk_usage(file.parent).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            align = {"alignment_threshold": 1 << 16, "alignment_interval": 4096}
            with h5py.File(file, "w", libver="v110", locking=False, **align) as f:
                f.attrs.update(self.attributes)
                f["y"], f["metadata"], f["recordings"] = labels, rows, self.recordings
                offset = reserve(f, (len(rows), *self.shape), self.dtype)
            with open(file, "r+b") as f:
                os.posix_fallocate(f.fileno(), offset, size)  # a full disk is an error now
        return offset, rows


def reserve(file: h5py.File, shape: tuple, dtype) -> int:
    """Make X without writing it. -> its offset in the file."""
    place = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    place.set_layout(h5py.h5d.CONTIGUOUS)
    place.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    place.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    place.set_obj_track_times(False)  # the same release makes the same bytes
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, b"X", h5py.h5t.py_create(dtype), space, place)
    return file["X"].id.get_offset()


def _write(partial, layout, plans, report, opened, jobs, progress):
    """Write the whole file. -> its rows of METADATA, None if no recording could be read."""
    offset, rows = layout.write(partial, plans)
    failed = set()
    with closing(_fill(partial, offset, layout, plans, opened, jobs)) as results:
        for done, (plan, result) in enumerate(results, 1):
            if isinstance(result, BadRecording):
                report.skipped.append((plan.recording, str(result)))
                failed.add(id(plan))
            else:
                report.clipped += result
            if progress:
                progress(done, len(plans), len(plan.windows.starts) * layout.window_bytes)
    if not failed:
        return rows
    kept = [plan for plan in plans if id(plan) not in failed]
    return _move_together(partial, layout, offset, len(rows), kept) if kept else None


def _fill(partial, offset, layout, plans, opened, jobs):
    """Decode each recording's windows, all cores at once, and write them to their place.

    Yields (plan, BadRecording or the number of clipped samples) as each is done. Windows go through
    a buffer that stays in a core's cache, and pwrite: a map would fault every 4 KB.
    """
    own = threading.local()
    size = layout.window_bytes
    many = max(1, 500_000 // size)
    many_at_once = layout.release.readers or jobs or os.cpu_count()
    with open(partial, "r+b") as file, ThreadPoolExecutor(many_at_once) as pool:

        def read(plan):
            if not hasattr(own, "buffer"):
                own.buffer = np.empty((many, *layout.shape), layout.dtype)
            starts = plan.windows.starts - layout.margin_samples
            layout.release.provide(plan.recording, starts, layout.shape[1])
            signal, clipped = opened(plan.recording), 0
            for i in range(0, len(plan.windows.starts), many):
                out = own.buffer[: len(plan.windows.starts) - i]
                clipped += signal.read(starts[i : i + many], out)
                files.write_at(file.fileno(), out, offset + (plan.first + i) * size)
            return clipped

        futures = {pool.submit(read, plan): plan for plan in plans}
        try:
            for future in as_completed(futures):
                bad = future.exception()
                yield futures[future], bad if isinstance(bad, BadRecording) else future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _second(partial):
    return partial.with_name(partial.name + "2")  # there only while `partial` is held


def _move_together(partial, layout, offset, windows, kept):
    """Move the windows together in a second file: some recordings could not be read after all."""
    whole = np.memmap(partial, layout.dtype, "r", offset, (windows, *layout.shape))
    parts = [whole[plan.first : plan.first + len(plan.windows.starts)] for plan in kept]
    second = _second(partial)
    offset, rows = layout.write(second, kept)
    with open(second, "r+b") as file:
        file.seek(offset)
        for part in parts:
            file.write(part)
    os.replace(second, partial)
    return rows


def _write_through(path):
    """Wait in a thread until the file is on the disk, which takes as long as making it.

    The cache is complete and can be used at once. The process waits for the thread at its end:
    only a machine that loses power before then could still lose part of the file.
    """
    file = open(path, "rb")

    def wait():
        with file:
            os.fsync(file.fileno())

    threading.Thread(target=wait, name=f"write {path.name} through").start()
