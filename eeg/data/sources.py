"""The files that a cache is made from: which they are, whether they are still the same, and why a
cache is replaced."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from time import time_ns

from eeg import UserError, cli, hints
from eeg.data.cache import VERSION, arguments, build_command, differences
from eeg.data.release import CONTRAST
from eeg.raw.preprocessing import Preprocessing
from eeg.raw.source import companions

HEAD_BYTES = 1 << 16  # of a signal's file: its header and first samples


@dataclass
class Sources:
    tables: list[Path]
    signals: list[Path]


def source_files(release, settings, recordings) -> Sources:
    """The files that the cache of these recordings is made from."""
    tables = [release.folder / "participants.tsv"] if settings.challenge == 2 else []
    tables += [recording.events for recording in recordings if recording.task == CONTRAST]
    if settings.preprocessing.across_channels:
        tables += [recording.channels for recording in recordings]
    signals = [file for each in recordings for file in (each.signal, *companions(each.signal))]
    return Sources(tables, signals)


def digest(release, settings, sources: Sources, excluded: Sequence[str] = ()) -> str:
    """The fingerprint of a cache: its settings, and each file's name, size and content.

    excluded: the recordings that a user's list leaves out, with the reasons.
    Of a signal the beginning counts: there are gigabytes of the rest. It does not say when and
    where files were written: the same release makes the same bytes.
    """
    # Spelled out: it must not change when a field of Settings is renamed.
    made_with = (
        f"Settings(challenge={settings.challenge!r}, tasks={settings.tasks!r}, "
        f"dtype={settings.dtype!r}, margin={settings.margin_s!r}, "
        f"max_recordings={settings.max_recordings!r})"
    )
    if excluded:  # a cache without exclusions keeps its fingerprint
        made_with += f", excluded={list(excluded)!r}"
    # caches of ready files are as they were before there was a choice
    ready = all(path.suffix == ".bdf" for path in sources.signals)
    if not ready or settings.preprocessing != Preprocessing():
        made_with += f", {settings.preprocessing.attributes()!r}"
    whole = hashlib.sha256(f"({VERSION}, {made_with})".encode())
    for paths, most in ((sources.tables, -1), (sources.signals, HEAD_BYTES)):
        for path in paths:
            size = path.stat().st_size if path.exists() else None
            whole.update(repr((str(path.relative_to(release.folder)), size)).encode())
            if size is not None:
                with open(path, "rb") as file:
                    whole.update(file.read(most))
    return whole.hexdigest()


def newer(sources: Sources, path: Path) -> bool:
    """Whether one of these files was written after `path`."""
    there = [source for source in (*sources.tables, *sources.signals) if source.exists()]
    built, now = path.stat().st_mtime_ns, time_ns()
    # a time in the future comes from another clock and says nothing
    return any(built <= source.stat().st_mtime_ns < now for source in there)


def file_names(release, recordings) -> list[str]:
    """Of their signals, in the release's folder."""
    return [str(recording.signal.relative_to(release.folder)) for recording in recordings]


def excluded_names(release, excluded) -> list[str]:
    """["sub-X/eeg/sub-X_..._eeg.bdf<tab>reason", ...], as a cache keeps them."""
    names = file_names(release, [recording for recording, _ in excluded])
    return [f"{name}\t{reason}" for name, (_, reason) in zip(names, excluded)]


def reason_to_replace(there, release, settings, recordings, excluded) -> str:
    """Why a cache is rebuilt: files of its release have changed.

    Raises UserError if settings or the release differ, for then its windows would be lost.
    """
    folder, names = there.path.parent, file_names(release, recordings)
    known = {each.name: getattr(settings, each.name) for each in fields(settings)}
    known |= {"release": release.name, "mini": release.mini}
    known |= {"data": release.root, "stream": release.streamed}
    if found := differences(there, known, names, release.simulated):
        lost = cli.counted(there.windows, "window") + " with their features" * there.features
        keep, replace = build_command(folder, there.settings), build_command(folder, known, True)
        raise UserError(
            f"{there.path} holds {lost}, made with {', '.join(found)}: they would be lost; keep it "
            f"with: {keep}, or replace it with: {replace}, or build in another folder with --cache "
            "DIR"
        )
    new, gone = len(set(names) - set(there.recordings)), len(set(there.recordings) - set(names))
    counts = {"new": new, "gone": gone}
    changes = [f"{cli.counted(n, 'recording')} {what}" for what, n in counts.items() if n]
    what = "files of the release have changed"
    if there.excluded != excluded:
        what = "the list of excluded recordings has changed"
    reason = what + f" ({', '.join(changes)})" * bool(changes)
    if there.features:
        words = arguments(release.name, release.mini, settings.challenge)
        again = hints.command("features", *words, cache=folder)
        reason += f"; its features went with it, compute them with: {again}"
    return reason
