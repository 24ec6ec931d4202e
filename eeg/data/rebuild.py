"""The commands that build caches with the settings of caches that are there, for messages, and how
two such settings differ.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import h5py

from eeg import UserError, cli, hints
from eeg.data.release import TASKS

CONTRAST = "contrastChangeDetection"
_NAME = re.compile(r"challenge([12])_(R[1-9][0-9]?)(_mini)?_windows\.h5")


def settings(attributes):
    """What a cache was built with and from, of its attributes (and "dtype"): those that say it. Old
    caches say less.
    """
    known = {
        "release": str(attributes["release"]),
        "mini": bool(attributes["mini"]),
        "challenge": int(attributes["challenge"]),
    }
    known["tasks"] = tuple(task.decode() for task in attributes["tasks"])
    known["margin_s"] = int(attributes["margin_samples"]) / float(attributes["sfreq"])
    known["dtype"] = str(attributes["dtype"])
    if "max_recordings" in attributes:
        known["max_recordings"] = int(attributes["max_recordings"]) or None
    if "data" in attributes and (data := Path(os.fsdecode(attributes["data"]))).is_dir():
        known["data"] = data
    return known


def words(
    release,
    mini=False,
    challenge=1,
    tasks=(CONTRAST,),
    margin_s=0.0,
    dtype="float32",
    max_recordings=None,
):
    """Settings as run/cache.py's arguments: those that are not its defaults."""
    found = ["--release", *([release] if isinstance(release, str) else release)]
    found += ["--mini"] * mini
    found += ["--challenge", str(challenge)] if challenge != 1 else []
    if challenge == 2 and tuple(tasks) != (CONTRAST,):
        found += ["--tasks", *(["all"] if set(tasks) == set(TASKS) else tasks)]
    found += ["--margin", f"{margin_s:g}"] if margin_s else []
    found += ["--dtype", dtype] if dtype != "float32" else []
    return found + (["--max-recordings", str(max_recordings)] if max_recordings else [])


def build(folder, known, force=False):
    """The command that builds caches in `folder` with these settings; "data" among them is where
    the releases lie.
    """
    known = dict(known)
    data = known.pop("data", None)
    return hints.command("cache", *words(**known), *["--force"] * force, data=data, cache=folder)


def rebuild(cache, **changed):
    """The command that rebuilds the files of a Cache, with other settings where some are named."""
    groups = {}
    for path, attributes in zip(cache.paths, cache.attributes):
        known = settings(attributes) | changed
        release = known.pop("release")
        groups.setdefault((path.parent, *sorted(known.items(), key=str)), []).append(release)
    return " && ".join(
        build(folder, dict(known) | {"release": releases}, force=True)
        for (folder, *known), releases in groups.items()
    )


def rebuild_known(path, attributes):
    """The command that rebuilds one file by its attributes, of which another version of eeg may
    write others.
    """
    try:
        return build(path.parent, settings(attributes), force=True)
    except (KeyError, ValueError):
        return rebuild_file(path)


def rebuild_file(path):
    """The command that rebuilds a file which says nothing of itself: what its name says, with the
    settings of caches beside it.
    """
    path = Path(path)
    if not (match := _NAME.fullmatch(path.name)):
        return hints.command("cache", "--release", "R1", cache=path.parent)
    challenge, release, mini = int(match[1]), match[2], bool(match[3])
    return build(
        path.parent,
        neighbour(path.parent, challenge, mini) | {"release": release},
        force=path.exists(),
    )


def neighbour(folder, challenge, mini):
    """The settings of another cache of this challenge in the folder, with which a new one can be
    used together.
    """
    for path in sorted(Path(folder).glob(f"challenge{challenge}_R*_windows.h5")):
        try:
            with h5py.File(path, "r", locking=False) as f:
                found = settings(dict(f.attrs) | {"dtype": f["X"].dtype})
        except (OSError, KeyError, ValueError):  # that one cannot be read either
            continue
        if found["mini"] == mini:
            return {key: value for key, value in found.items() if key != "max_recordings"}
    return {"challenge": challenge, "mini": mini}


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
            settings(attributes),
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
            build(there.path.parent, there.settings),
            build(there.path.parent, known, force=True),
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
            *words(release.name, release.mini, wanted.challenge),
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
