"""The cache: every window of a release in one HDF5 file whose X can be memory-mapped.

`build` writes it. Events are cheap to read, so the number of windows is known before any sample is:
the file is laid out first (metadata written, X's blocks reserved), and the recordings are decoded
straight into their places. `Cache` reads one or several such files as one. h5py alone can read the
file.
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
from functools import cached_property
from itertools import groupby
from pathlib import Path

import h5py
import numpy as np

import eeg
from eeg import UserError, files, hints
from eeg.data import rebuild
from eeg.data.rebuild import CONTRAST
from eeg.data.recording import open_signal
from eeg.data.release import FACTORS, BadRecording, Release, cache_path
from eeg.data.trials import build_trials, flag_copies, read_events
from eeg.data.windows import LENGTH, OFFSET, SFREQ, STRIDE, TARGETS, fixed_windows, stimulus_windows
from eeg.models.montage import CHANNELS

FORMAT, VERSION = "eeg windows", 1

_WINDOW = [
    ("subject", "S16"),
    ("task", "S24"),
    ("run", "<i2"),
    ("recording", "<i4"),
    ("start", "<i8"),
    ("copy", "?"),
    ("fast", "?"),
]
METADATA = {
    1: np.dtype(
        _WINDOW
        + [
            ("stimulus", "<f8"),
            ("response", "<f8"),
            ("rt_from_trialstart", "<f8"),
            ("correct", "i1"),
            ("side", "S5"),
        ]
    ),
    2: np.dtype(
        _WINDOW + [("age", "<f8"), ("sex", "S1")] + [(factor, "<f8") for factor in FACTORS]
    ),
}


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
        there = rebuild.look(report.path)
    except (OSError, KeyError, ValueError):
        report.reason = "the file there cannot be read"
        return False
    if there.fingerprint == fingerprint:
        report.built, report.windows = False, there.windows
        report.bytes = report.path.stat().st_size
        return True
    report.reason = rebuild.permit(there, release, settings)
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


# ------------------------------------------------------------------------------------------ reading


class Cache:
    """One or several cache files as one: len() windows, `X` mapped and never read whole, labels and
    metadata in memory.

    parts: the (N_i, C, T) arrays of the files, in order; first (files + 1): the number of each
    one's first window. Opening costs the same for any size; a Cache can be used in, and sent to,
    other processes.
    """

    def __init__(self, paths):
        self.paths = [Path(p) for p in ([paths] if isinstance(paths, (str, Path)) else paths)]
        if not self.paths:
            raise UserError(
                f"no cache was named; build one with: {hints.command('cache', '--release', 'R1')}"
            )
        self.parts, self.attributes = [], []
        for path in self.paths:
            X, attributes = _open(path)
            self.parts.append(X)
            self.attributes.append(attributes)
        self._check_same()
        self.first = np.cumsum([0] + [len(X) for X in self.parts])
        one = self.attributes[0]
        self.challenge, self.sfreq, self.channels = (
            int(one["challenge"]),
            float(one["sfreq"]),
            [name.decode() for name in one["channels"]],
        )
        self.margin_samples, self.window_samples = (
            int(one["margin_samples"]),
            int(one["window_samples"]),
        )  # samples
        self.simulated = any(bool(a["simulated"]) for a in self.attributes)

    def _check_same(self):
        wanted = self.attributes[0]
        alike = lambda path, found: rebuild.build(
            path.parent,
            rebuild.settings(wanted)
            | {
                key: value
                for key, value in rebuild.settings(found).items()
                if key in ("release", "mini", "data", "max_recordings")
            },
            force=True,
        )
        for path, X, found in zip(self.paths, self.parts, self.attributes):
            for key in (
                "challenge",
                "sfreq",
                "unit",
                "target",
                "window_samples",
                "margin_samples",
                "windowing",
            ):
                if found[key] != wanted[key]:
                    raise UserError(
                        f"{path} has {key} {found[key]}, {self.paths[0]} has {wanted[key]}: they "
                        f"cannot be used together; rebuild it with: {alike(path, found)}"
                    )
            if (
                X.dtype != self.parts[0].dtype
                or X.shape[1:] != self.parts[0].shape[1:]
                or (found["channels"] != wanted["channels"]).any()
            ):
                raise UserError(
                    f"{path} holds windows {X.shape[1:]} of {X.dtype}, {self.paths[0]} "
                    f"{self.parts[0].shape[1:]} of {self.parts[0].dtype}; rebuild it with: "
                    f"{alike(path, found)}"
                )

    def __len__(self):
        return int(self.first[-1])

    def __getitem__(self, i):
        """Window i as stored: (C, T with margins), microvolts."""
        i = range(len(self))[i]
        part = int(np.searchsorted(self.first, i, "right")) - 1
        return self.parts[part][i - self.first[part]]

    def is_finite(self, i):
        """Whether window i, as stored, holds neither NaN nor infinity."""
        return bool(np.isfinite(self[i]).all())

    def damage(self, i):
        """Where a window is that holds NaN or infinity, for a message: its file, number, recording
        and channels.
        """
        bad = ~np.isfinite(self[i]).all(1)
        part = int(np.searchsorted(self.first, i, "right")) - 1
        names = [name for name, is_bad in zip(self.channels, bad) if is_bad]
        of = f"channel{'s' * (len(names) > 1)} {', '.join(names[:3])}{', ...' * (len(names) > 3)}"
        row = self.metadata[i]
        recording = f"sub-{row['subject'].decode()}, {row['task'].decode()} run {row['run']}"
        number = i - self.first[part]
        return f"{self.paths[part]}: window {number} ({recording}) holds NaN or infinity in {of}"

    @cached_property
    def y(self):
        """(N,) float64."""
        return self._read("y")

    @cached_property
    def metadata(self):
        """(N,) one record a window, see METADATA."""
        return self._read("metadata")

    @cached_property
    def release(self):
        """(N,) str: the release of each window."""
        return np.repeat([str(a["release"]) for a in self.attributes], np.diff(self.first))

    @cached_property
    def features(self):
        """(N, F) float32, or None where run/features.py has not been run on every file."""
        return self._read("neuro_features", optional=True)

    def needed_features(self):
        """(N, F) float32. Raises UserError where there are none."""
        if self.features is None:
            words = rebuild.words(
                list(dict.fromkeys(self.release.tolist())),
                bool(self.attributes[0]["mini"]),
                self.challenge,
            )
            command = hints.command("features", *words, cache=self.paths[0].parent)
            raise UserError(
                f"this model takes the features of each window, and {self.paths[0]}, or one beside "
                f"it, has none; train one with --features layer, or add them with: {command}"
            )
        return self.features

    def _read(self, name, optional=False):
        arrays = []
        for path in self.paths:
            with h5py.File(path, "r", locking=False) as f:
                if optional and name not in f:
                    return None
                arrays.append(f[name][()])
        return np.concatenate(arrays)

    def __reduce__(self):
        return Cache, (self.paths,)


def find_caches(folder, challenge, releases, mini=False):
    """The Cache of these releases. Raises UserError naming what is missing."""
    paths = [cache_path(folder, challenge, release, mini) for release in releases]
    missing = [release for release, path in zip(releases, paths) if not path.exists()]
    if missing:
        absent = cache_path(folder, challenge, missing[0], mini)
        command = rebuild.build(
            folder, rebuild.neighbour(folder, challenge, mini) | {"release": missing}
        )
        raise UserError(
            f"no cache of {', '.join(missing)} for challenge {challenge} in {folder}/ (looked for "
            f"{absent.name}); build it with: {command}"
        )
    return Cache(paths)


def _open(path):
    """-> (X mapped, attributes and the "dtype" of X)."""
    try:
        with h5py.File(path, "r", locking=False) as f:
            attributes = dict(f.attrs)
            if attributes.get("format") != FORMAT:
                raise UserError(
                    f"{path} is not a cache of windows (its format is "
                    f"{attributes.get('format')!r}, expected {FORMAT!r}); rebuild it with: "
                    f"{rebuild.rebuild_file(path)}"
                )
            X = f["X"]
            offset, shape, dtype = X.id.get_offset(), X.shape, X.dtype
            attributes["dtype"] = str(dtype)
            if attributes["version"] != VERSION:
                raise UserError(
                    f"{path} is a cache of version {attributes['version']}, this program reads "
                    f"version {VERSION}; rebuild it with: {rebuild.rebuild_known(path, attributes)}"
                )
    except FileNotFoundError:
        raise UserError(
            f"there is no cache {path}; build one with: {rebuild.rebuild_file(path)}"
        ) from None
    except (OSError, KeyError) as e:
        raise UserError(
            f"{path} cannot be read as a cache ({' '.join(str(e).split())}); rebuild it with: "
            f"{rebuild.rebuild_file(path)}"
        ) from None
    if offset is None:
        raise UserError(
            f"{path} holds its windows in chunks, which cannot be mapped; rebuild it with: "
            f"{rebuild.rebuild_known(path, attributes)}"
        )
    return np.memmap(path, dtype, "r", offset, shape), attributes
