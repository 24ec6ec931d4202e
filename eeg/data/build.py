"""Builds the cache of a release.

Events are cheap to read, so the number of windows is known before any sample is: the file is laid
out first (metadata written, X's blocks reserved), and the recordings are decoded straight into their
places.
"""

import errno
import hashlib
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import h5py
import numpy as np

import eeg
from eeg import UserError, cli, files, hints
from eeg.data.cache import (
    FORMAT,
    METADATA,
    VERSION,
    arguments,
    build_command,
    known_settings,
)
from eeg.data.recording import open_signal
from eeg.data.release import CONTRAST, BadRecording, Release, cache_path
from eeg.data.trials import build_trials, flag_copies, read_events
from eeg.data.windows import LENGTH, OFFSET, SFREQ, STRIDE, TARGETS, fixed_windows, stimulus_windows
from eeg.models.montage import CHANNELS


@dataclass
class Settings:
    """What decides the contents of a cache, besides the release's files."""

    challenge: int = 1
    tasks: tuple = (CONTRAST,)
    dtype: str = "float32"
    margin_s: float = 0.0  # kept on both sides of each window
    max_recordings: int | None = None


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
    clipped: int = 0  # samples beyond what float16 holds


# ----------------------------------------------------------------------------------------- planning


@dataclass
class _Plan:
    """One recording's windows before any of its samples is read."""

    recording: object
    starts: np.ndarray  # (n) int64, of the window itself, without margin
    rows: np.ndarray  # (n) METADATA
    labels: np.ndarray  # (n) float64
    first: int = 0  # its first row in X


def _trials(recording):
    return build_trials(*read_events(recording.events)) if recording.task == CONTRAST else None


def _plan(recording, trials, challenge, participants):
    """-> (the _Plan of one recording, {reason: dropped trials}). Raises BadRecording where it
    cannot be used.
    """
    if isinstance(trials, BadRecording):
        raise trials
    n_times = open_signal(recording).n_times
    if challenge == 1:
        kept, starts, dropped = stimulus_windows(trials, n_times)
        rows = np.zeros(len(kept), METADATA[1])
        for name in (
            "stimulus",
            "response",
            "rt_from_trialstart",
            "correct",
            "side",
            "copy",
            "fast",
        ):
            rows[name] = trials[name][kept]
        labels = trials["rt_from_stimulus"][kept]
    else:
        participant = participants.get(recording.subject)
        if participant is None:
            raise BadRecording("its subject is not in participants.tsv")
        if np.isnan(participant[TARGETS[2]]):
            raise BadRecording(f"its subject has no {TARGETS[2]} factor (n/a in participants.tsv)")
        if n_times < LENGTH[2]:
            raise BadRecording(f"it lasts {n_times / SFREQ:.2f} s, a window {LENGTH[2] // SFREQ} s")
        starts, dropped = fixed_windows(n_times), {}
        rows = np.zeros(len(starts), METADATA[2])
        for name, value in participant.items():
            rows[name] = value
        labels = np.full(len(starts), participant[TARGETS[2]])
        if trials is not None and len(trials):
            rows["fast"] = trials["fast"][0]
            copied = trials[trials["copy"]]
            if len(copied):  # the block from its first copied trial to its last
                rows["copy"] = (starts / SFREQ >= copied["start"].min()) & (
                    (starts + LENGTH[2]) / SFREQ <= copied["stop"].max()
                )
    rows["subject"], rows["task"], rows["run"] = (
        recording.subject.encode(),
        recording.task.encode(),
        recording.run,
    )
    rows["start"] = starts
    return _Plan(recording, starts, rows, labels), dropped


def _attempt(work, *arguments):
    try:
        return work(*arguments)
    except BadRecording as e:
        return e


def _make_plans(release, settings, report):
    """The plans of the recordings with at least one window: their events, headers and flags are
    read, no samples.
    """
    recordings = release.recordings(settings.tasks)[: settings.max_recordings]
    participants = release.participants() if settings.challenge == 2 else {}
    tables = [_attempt(_trials, recording) for recording in recordings]
    for _, group in groupby(zip(recordings, tables), key=lambda pair: pair[0].subject):
        flag_copies([table for _, table in group if isinstance(table, np.ndarray)])
    if settings.challenge == 2:  # which needs no events: without them it has no flags
        tables = [table if isinstance(table, np.ndarray) else None for table in tables]

    plans = []
    for number, (recording, trials) in enumerate(zip(recordings, tables)):
        result = _attempt(_plan, recording, trials, settings.challenge, participants)
        if isinstance(result, BadRecording):
            report.skipped.append((recording, str(result)))
            continue
        plan, dropped = result
        report.dropped.update(dropped)
        if len(plan.starts):
            plan.rows["recording"] = number
            plans.append(plan)
        else:
            report.skipped.append((recording, "it has no valid trial"))
    return plans


def _fingerprint(release, settings):
    """A digest of the settings and of name, size and time of each file a cache is made from."""
    # Spelled out: it must not change when a field of Settings is renamed.
    made_with = (
        f"Settings(challenge={settings.challenge!r}, tasks={settings.tasks!r}, "
        f"dtype={settings.dtype!r}, margin={settings.margin_s!r}, "
        f"max_recordings={settings.max_recordings!r})"
    )
    digest = hashlib.sha256(f"({VERSION}, {made_with})".encode())
    files = [release.folder / "participants.tsv"] if settings.challenge == 2 else []
    for recording in release.recordings(settings.tasks)[: settings.max_recordings]:
        files += [recording.signal] + [recording.events] * (recording.task == CONTRAST)
    for path in files:
        stat = path.stat() if path.exists() else None
        digest.update(
            repr(
                (str(path.relative_to(release.folder)), stat and (stat.st_size, stat.st_mtime_ns))
            ).encode()
        )
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------ writing


def second_file(partial):
    """The file that the windows move to where a recording failed: it lives only while `partial` is
    held.
    """
    return partial.with_name(partial.name + "2")


@contextmanager
def partial_file(path):
    """Hold path.partial alone, as files.exclusive_partial. Raises UserError if another process
    does.
    """
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = held.enter_context(files.exclusive_partial(path))
        except OSError as e:
            raise UserError(
                f"cannot write in {path.parent}/: {e.strerror}; name another folder with --cache "
                "DIR"
            ) from None
        if partial is None:
            raise UserError(
                f"another process is building {path} at this moment; wait for it, or stop it"
            )
        try:
            yield partial
        finally:
            second_file(partial).unlink(missing_ok=True)


def _lay_out(partial, shape, layout, labels, rows):
    """Write all of a cache but X's samples, and reserve their place. -> its offset in the file."""
    dtype = np.dtype(layout.dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    folder = partial.parent
    help = "free some, or name another folder with --cache DIR"
    if shutil.disk_usage(folder).free < size + (1 << 20):
        raise UserError(
            f"{folder}/ has {shutil.disk_usage(folder).free / 1e6:,.0f} MB free, the cache takes "
            f"{size / 1e6:,.0f} MB; {help}"
        )
    with h5py.File(
        partial,
        "w",
        libver="v110",
        locking=False,
        alignment_threshold=1 << 16,
        alignment_interval=4096,
    ) as f:
        f.attrs.update(layout.attributes)
        f["y"], f["metadata"], f["recordings"] = labels, rows, layout.recordings
        place = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        place.set_layout(h5py.h5d.CONTIGUOUS)
        place.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        place.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        place.set_obj_track_times(False)  # the same release makes the same bytes
        h5py.h5d.create(f.id, b"X", h5py.h5t.py_create(dtype), h5py.h5s.create_simple(shape), place)
        offset = f["X"].id.get_offset()
    with open(partial, "r+b") as f:
        try:
            # a full disk is an error now, and not after minutes of work
            os.posix_fallocate(f.fileno(), offset, size)
        except OSError as e:
            if e.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise UserError(
                f"{folder}/ has no room for the {size / 1e6:,.0f} MB of the cache; {help}"
            ) from None
    return offset


def _fill(partial, offset, shape, dtype, plans, margin_samples, jobs):
    """Decode each recording's windows, all cores at once, and write them to their place.

    shape: of one window. Yields (plan, BadRecording or samples clipped, bytes) as each is done.
    Through a buffer that stays in a core's cache and pwrite: a map would fault every 4 KB.
    """
    own = threading.local()
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    many = max(1, 500_000 // size)
    with open(partial, "r+b") as file, ThreadPoolExecutor(jobs or os.cpu_count()) as pool:

        def read(plan):
            if not hasattr(own, "buffer"):
                own.buffer = np.empty((many, *shape), dtype)
            signal, clipped = open_signal(plan.recording), 0
            for i in range(0, len(plan.starts), many):
                out = own.buffer[: len(plan.starts) - i]
                clipped += signal.read(plan.starts[i : i + many] - margin_samples, out)
                os.pwrite(file.fileno(), out, offset + (plan.first + i) * size)
            return clipped

        futures = {pool.submit(_attempt, read, plan): plan for plan in plans}
        try:
            for future in as_completed(futures):
                plan = futures[future]
                yield plan, future.result(), len(plan.starts) * size
        finally:
            pool.shutdown(cancel_futures=True)


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


def build(
    release: Release,
    settings: Settings,
    folder: Path,
    jobs: int | None = None,
    force: bool = False,
    progress: Callable | None = None,
) -> Report:
    """Write the cache of a release, unless an up-to-date one is there.

    Where the report counts no windows, nothing was written. progress(done, total, bytes) is called
    as each recording is finished. Raises UserError where the file cannot be written, and, without
    `force`, where it was built with other settings or from another release.
    """
    report = Report(cache_path(folder, settings.challenge, release.name, release.mini))
    fingerprint = _fingerprint(release, settings)
    if (
        report.path.exists()
        and not force
        and _is_up_to_date(release, settings, fingerprint, report)
    ):
        return report
    plans = _make_plans(release, settings, report)
    if plans:
        layout = _Layout(release, settings, fingerprint)
        with partial_file(report.path) as partial:
            rows = _write(partial, layout, plans, report, jobs, progress)
            if rows is None:
                return report
            os.replace(partial, report.path)
        _write_through(report.path)
        report.windows, report.bytes = len(rows), report.path.stat().st_size
        report.subjects = len(np.unique(rows["subject"]))
        flagged = {flag: int(rows[flag].sum()) for flag in ("copy", "fast")}
        report.flagged.update({flag: n for flag, n in flagged.items() if n})
    return report


def _is_up_to_date(release, settings, fingerprint, report):
    """Whether the file there is what would be built; if not, report.reason says why it may be
    replaced.
    """
    try:
        there = look(report.path)
    except (OSError, KeyError, ValueError):
        report.reason = "the file there cannot be read"
        return False
    if there.fingerprint == fingerprint:
        report.built, report.windows = False, there.windows
        report.bytes = report.path.stat().st_size
        return True
    report.reason = permit(there, release, settings)
    return False


class _Layout:
    """What a cache's file holds besides its windows: shape, attributes, recordings."""

    def __init__(self, release, settings, fingerprint):
        self.dtype = settings.dtype
        self.margin_samples = round(settings.margin_s * SFREQ)
        length = LENGTH[settings.challenge]
        self.shape = (len(CHANNELS), length + 2 * self.margin_samples)
        recordings = release.recordings(settings.tasks)[: settings.max_recordings]
        names = [str(r.signal.relative_to(release.folder)).encode() for r in recordings]
        self.recordings = np.array(names)
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
            "data": np.bytes_(os.fsencode(os.path.abspath(release.folder.parent))),
            "target": TARGETS[settings.challenge],
            "window_samples": length,
            "margin_samples": self.margin_samples,
            "windowing": f"from stimulus + {OFFSET} samples"
            if settings.challenge == 1
            else f"every {STRIDE} samples",
            "filter": "none for files at 100 Hz; files at other rates are filtered to 0.5-50 Hz "
            "and resampled to 100 Hz",
            "package": eeg.__version__,
            "fingerprint": fingerprint,
        }

    def write(self, file, plans):
        """Write all but the samples of these plans' windows. -> (offset of X, rows of METADATA)."""
        first = 0
        for plan in plans:
            plan.first, first = first, first + len(plan.starts)
        rows = np.concatenate([plan.rows for plan in plans])
        labels = np.concatenate([plan.labels for plan in plans])
        return _lay_out(file, (len(rows), *self.shape), self, labels, rows), rows


def _write(partial, layout, plans, report, jobs, progress):
    """Write the whole file. -> its rows of METADATA, None where no recording could be read."""
    offset, rows = layout.write(partial, plans)
    failed = set()
    results = _fill(partial, offset, layout.shape, layout.dtype, plans, layout.margin_samples, jobs)
    with closing(results):
        for done, (plan, result, size) in enumerate(results, 1):
            if isinstance(result, BadRecording):
                report.skipped.append((plan.recording, str(result)))
                failed.add(id(plan))
            else:
                report.clipped += result
            if progress:
                progress(done, len(plans), size)
    if not failed:
        return rows
    kept = [plan for plan in plans if id(plan) not in failed]
    return _move_together(partial, layout, offset, len(rows), kept) if kept else None


def _move_together(partial, layout, offset, windows, kept):
    """Move the windows together in a second file: some recordings could not be read after all."""
    whole = np.memmap(partial, layout.dtype, "r", offset, (windows, *layout.shape))
    parts = [whole[plan.first : plan.first + len(plan.starts)] for plan in kept]
    second = second_file(partial)
    offset, rows = layout.write(second, kept)
    with open(second, "r+b") as file:
        file.seek(offset)
        for part in parts:
            file.write(part)
    os.replace(second, partial)
    return rows


# ---------------------------------------------------------------------------------------- replacing


@dataclass(frozen=True)
class There:
    """A cache that is there, as far as is asked before it is replaced."""

    path: Path
    fingerprint: str
    settings: dict
    simulated: bool
    recordings: list  # file names
    windows: int
    features: bool


def look(path):
    """-> There. Raises OSError, KeyError or ValueError where the file is no cache."""
    with h5py.File(path, "r", locking=False) as f:
        attributes = dict(f.attrs) | {"dtype": f["X"].dtype}
        recordings = [name.decode() for name in f["recordings"][()]] if "recordings" in f else []
        simulated = bool(attributes["simulated"])
        return There(
            Path(path),
            str(attributes["fingerprint"]),
            known_settings(attributes),
            simulated,
            recordings,
            len(f["y"]),
            "neuro_features" in f,
        )


def permit(there, release, wanted):
    """-> why a cache is rebuilt with the settings `wanted`: files of its release have changed.
    Raises UserError where other things have.
    """
    known = {"release": release.name, "mini": release.mini, "data": release.folder.parent}
    known |= {
        name: getattr(wanted, name)
        for name in ("challenge", "tasks", "margin_s", "dtype", "max_recordings")
    }
    names = [
        str(r.signal.relative_to(release.folder))
        for r in release.recordings(wanted.tasks)[: wanted.max_recordings]
    ]
    if found := _differences(there, known, names, release.simulated):
        lost = cli.counted(there.windows, "window") + (
            " with their features" if there.features else ""
        )
        keep, replace = (
            build_command(there.path.parent, there.settings),
            build_command(there.path.parent, known, force=True),
        )
        raise UserError(
            f"{there.path} holds {lost}, made with {', '.join(found)}: they would be lost; keep it "
            f"with: {keep}, or replace it with: {replace}, or build in another folder with --cache "
            "DIR"
        )
    new, gone = len(set(names) - set(there.recordings)), len(set(there.recordings) - set(names))
    which = [
        f"{cli.counted(count, 'recording')} {what}"
        for count, what in ((new, "new"), (gone, "gone"))
        if count
    ]
    reason = "files of the release have changed" + (f" ({', '.join(which)})" if which else "")
    if there.features:
        again = hints.command(
            "features",
            *arguments(release.name, release.mini, wanted.challenge),
            cache=there.path.parent,
        )
        reason += f"; its features went with it, compute them with: {again}"
    return reason


def _differences(there, known, names, simulated):
    """What a cache has otherwise than would be built, as words: its own first."""
    was = there.settings
    most = lambda count: f"at most {cli.counted(count, 'recording')}" if count else "all recordings"
    kind = lambda is_simulated: "simulated data" if is_simulated else "real data"
    if "max_recordings" in was:
        recordings = most(was["max_recordings"]), most(known["max_recordings"])
    else:  # an old cache does not say it
        recordings = (
            cli.counted(len(there.recordings), "recording"),
            cli.counted(len(names), "recording"),
        )
    folders = [os.path.abspath(each["data"]) for each in (was, known) if "data" in each]
    pairs = [
        (f"a margin of {was['margin_s']:g} s", f"{known['margin_s']:g} s"),
        (was["dtype"], known["dtype"]),
        ("tasks " + " ".join(sorted(was["tasks"])), " ".join(sorted(known["tasks"]))),
        recordings,
        (kind(there.simulated), kind(simulated)),
        (f"the release in {folders[0]}", folders[-1]),
    ]
    return [f"{own} instead of {other}" for own, other in pairs if not own.endswith(other)]
