"""Reads caches: every window of a release in one HDF5 file whose X can be memory-mapped.

`Cache` reads one or several such files as one; h5py alone can read a file as well. Below it are the
commands that build caches, for messages. eeg/data/build.py writes the files.
"""

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from eeg import UserError, cli, files, hints
from eeg.data.release import CONTRAST, TASKS, Exclusions, cache_path
from eeg.models.features import NEUROSCIENCE, definitions
from eeg.raw.preprocessing import Preprocessing

FORMAT, VERSION = "eeg windows", 1
# notes of a cache: the data root it was made from; the words by which it came from a bucket
DATA, STREAM = NOTES = "data", "stream"
# what the files of one Cache must agree on
ALIKE = "challenge sfreq unit target window_samples margin_samples windowing reference".split()


class Cache:
    """One or several cache files as one: len() windows, `X` mapped and never read whole.

    parts: the (N_i, C, T) arrays of the files, in order; first (files + 1): the number of each
    file's first window. Labels and metadata are read when they are first used. A Cache can be used
    in, and sent to, other processes.
    """

    def __init__(self, paths: str | Path | Iterable[str | Path]):
        self.paths = [Path(p) for p in ([paths] if isinstance(paths, (str, Path)) else paths)]
        if not self.paths:
            command = hints.command("cache", "--release", "R1")
            raise UserError(f"no cache was named; build one with: {command}")
        opened = [_open(path) for path in self.paths]
        self.parts = [X for X, _ in opened]
        self.attributes = [attributes for _, attributes in opened]
        self._check_alike()
        self.first = np.cumsum([0] + [len(X) for X in self.parts])
        one = self.attributes[0]
        self.challenge, self.sfreq = int(one["challenge"]), float(one["sfreq"])
        self.channels = [name.decode() for name in one["channels"]]
        self.margin_samples = int(one["margin_samples"])
        self.window_samples = int(one["window_samples"])
        self.simulated = any(bool(a["simulated"]) for a in self.attributes)

    def _check_alike(self):
        """Raise UserError if the files hold windows that cannot be used together."""
        X0, wanted = self.parts[0], self.attributes[0]
        for path, X, found in zip(self.paths, self.parts, self.attributes):
            unlike = lambda key: found.get(key, "none") != wanted.get(key, "none")
            if differing := list(filter(unlike, ALIKE)):
                key = differing[0]
                one, other = (each.get(key, "none") for each in (found, wanted))
                trouble = (
                    f"has {key} {one}, {self.paths[0]} has {other}: they cannot be used together"
                )
            elif (X.dtype, X.shape[1:]) != (X0.dtype, X0.shape[1:]) or (
                found["channels"] != wanted["channels"]
            ).any():
                trouble = (
                    f"holds windows {X.shape[1:]} of {X.dtype}, {self.paths[0]} {X0.shape[1:]} of "
                    f"{X0.dtype}"
                )
            else:
                continue
            known, own = known_settings(wanted), known_settings(found)
            for key in ("release", "mini", "data", "max_recordings"):
                if key in own:
                    known[key] = own[key]
            command = build_command(path.parent, known, force=True)
            raise UserError(f"{path} {trouble}; rebuild it with: {command}")

    def __len__(self):
        return int(self.first[-1])

    def part_of(self, rows):
        """The number of the file that each of these windows lies in."""
        return np.searchsorted(self.first, rows, "right") - 1

    def __getitem__(self, i):
        """Window i as stored: (C, T with margins), microvolts."""
        i = range(len(self))[i]
        part = self.part_of(i)
        return self.parts[part][i - self.first[part]]

    def is_finite(self, i: int) -> bool:
        """Whether window i, as stored, holds neither NaN nor infinity."""
        return bool(np.isfinite(self[i]).all())

    def damage(self, i: int) -> str:
        """Where NaN or infinity is in window i: file, number, recording and channels."""
        part, row = self.part_of(i), self.metadata[i]
        bad = ~np.isfinite(self[i]).all(1)
        names = [name for name, is_bad in zip(self.channels, bad) if is_bad]
        of = f"channel{'s' * (len(names) > 1)} {', '.join(names[:3])}{', ...' * (len(names) > 3)}"
        recording = f"sub-{row['subject'].decode()}, {row['task'].decode()} run {row['run']}"
        number = i - self.first[part]
        return f"{self.paths[part]}: window {number} ({recording}) holds NaN or infinity in {of}"

    @cached_property
    def y(self) -> np.ndarray:
        """(N,) float64: the labels."""
        return self._read("y")

    @cached_property
    def metadata(self) -> np.ndarray:
        """(N,) records of eeg.data.windows.METADATA."""
        return self._read("metadata")

    @cached_property
    def release(self) -> np.ndarray:
        """(N,) str: the release of each window."""
        return np.repeat([str(a["release"]) for a in self.attributes], np.diff(self.first))

    @property
    def oracle(self) -> float | None:
        """The NRMSE that a reader of the hidden sources would reach, of simulated releases of one
        world; else None."""
        found = {a.get("oracle_nrmse") for a in self.attributes}
        return None if len(found) > 1 or None in found else float(found.pop())

    @cached_property
    def features(self) -> np.ndarray | None:
        """(N, 103) float32, or None where run/features.py has not been run on every file."""
        return self._columns((NEUROSCIENCE,))

    def needed_features(self, groups: tuple[str, ...] = (NEUROSCIENCE,)) -> np.ndarray:
        """(N, F) float32 of these groups. Raises UserError where a file does not have them."""
        usual = groups == (NEUROSCIENCE,)
        found = self.features if usual else self._columns(groups)
        if found is None:
            releases = list(dict.fromkeys(str(a["release"]) for a in self.attributes))
            words = arguments(releases, bool(self.attributes[0]["mini"]), self.challenge)
            words += [] if usual else ["--groups", *groups]
            command = hints.command("features", *words, cache=self.paths[0].parent)
            what = "the features" if usual else f"the features {' + '.join(groups)}"
            raise UserError(
                f"this model takes {what} of each window, and {self.paths[0]}, or one beside "
                f"it, has none; train one with --features layer, or add them with: {command}"
            )
        return found

    def _columns(self, groups):
        """The stored features of these groups, None where a file lacks one."""
        names, arrays = list(definitions(groups)), []
        for path in self.paths:
            with h5py.File(path, "r", locking=False) as f:
                there = f.get("neuro_features")
                known = [] if there is None else [name.decode() for name in there.attrs["names"]]
                if not set(names) <= set(known):
                    return None
                columns = [known.index(name) for name in names]
                whole = columns == list(range(len(known)))
                arrays.append(there[()] if whole else there[()][:, columns])
        return np.concatenate(arrays)

    def _read(self, name):
        arrays = []
        for path in self.paths:
            with h5py.File(path, "r", locking=False) as f:
                arrays.append(f[name][()])
        return np.concatenate(arrays)

    def __reduce__(self):
        return Cache, (self.paths,)


def find_caches(folder: Path, challenge: int, releases: Iterable[str], mini: bool = False) -> Cache:
    """The Cache of these releases. Raises UserError naming what is missing."""
    paths = {name: cache_path(folder, challenge, name, mini) for name in releases}
    if missing := [name for name, path in paths.items() if not path.exists()]:
        known = neighbour(folder, challenge, mini) | {"release": missing}
        raise UserError(
            f"no cache of {', '.join(missing)} for challenge {challenge} in {folder}/ (looked for "
            f"{paths[missing[0]].name}); build it with: {build_command(folder, known)}"
        )
    cache = Cache(paths.values())
    if cache.challenge != challenge:
        raise UserError(
            f"{cache.paths[0]} holds windows of challenge {cache.challenge}, expected {challenge}; "
            f"rebuild it with: {rebuild(cache, challenge=challenge)}"
        )
    return cache


def _attributes(file, path):
    """Those of an HDF5 file, with its notes: old caches have the data root among them."""
    notes = {name: files.noted(path, name) for name in NOTES}
    return {name: note for name, note in notes.items() if note} | dict(file.attrs)


def _open(path):
    """(X mapped; the file's attributes, the "dtype" of X, the file's "identity" on the disk)."""
    try:
        with h5py.File(path, "r", locking=False) as f:
            attributes = _attributes(f, path)
            if attributes.get("format") != FORMAT:
                raise UserError(
                    f"{path} is not a cache of windows (its format is "
                    f"{attributes.get('format')!r}, expected {FORMAT!r}); rebuild it with: "
                    f"{rebuild_file(path)}"
                )
            X, version = f["X"], attributes["version"]
            offset, shape, dtype = X.id.get_offset(), X.shape, X.dtype
    except FileNotFoundError:
        command = rebuild_file(path)
        raise UserError(f"there is no cache {path}; build one with: {command}") from None
    except (OSError, KeyError) as e:
        raise UserError(
            f"{path} cannot be read as a cache ({' '.join(str(e).split())}); rebuild it with: "
            f"{rebuild_file(path)}"
        ) from None
    attributes["dtype"] = str(dtype)
    if version != VERSION:
        trouble = f"is a cache of version {version}, this program reads version {VERSION}"
    elif offset is None:
        trouble = "holds its windows in chunks, which cannot be mapped"
    else:
        with open(path, "rb") as file:
            about = os.fstat(file.fileno())
            attributes["identity"] = (about.st_dev, about.st_ino)
            return np.memmap(file, dtype, "r", offset, shape), attributes
    raise UserError(f"{path} {trouble}; rebuild it with: {rebuild_known(path, attributes)}")


# ----------------------------------- how caches were built, and the commands that build them

_NAME = re.compile(r"challenge([12])_(R[1-9][0-9]?)(_mini)?_windows\.h5")


def known_settings(attributes: Mapping) -> dict[str, Any]:
    """What a cache was built with and from, by its attributes and "dtype". Old caches say less."""
    known = {
        "release": str(attributes["release"]),
        "mini": bool(attributes["mini"]),
        "challenge": int(attributes["challenge"]),
        "tasks": tuple(task.decode() for task in attributes["tasks"]),
        "margin_s": int(attributes["margin_samples"]) / float(attributes["sfreq"]),
        "dtype": str(attributes["dtype"]),
        "preprocessing": Preprocessing.of(attributes),
    }
    if "max_recordings" in attributes:
        known["max_recordings"] = int(attributes["max_recordings"]) or None
    if DATA in attributes and (data := Path(os.fsdecode(attributes[DATA]))).is_dir():
        known["data"] = data
    if STREAM in attributes:
        known["stream"] = os.fsdecode(attributes[STREAM])
    if "exclude" in attributes:  # its path; what it excluded is in "excluded"
        known["exclude"] = Exclusions(Path(os.fsdecode(attributes["exclude"])))
    return known


@dataclass(frozen=True)
class There:
    """What is asked about a cache before it is replaced."""

    path: Path
    fingerprint: str
    settings: dict[str, Any]
    simulated: bool
    recordings: list[str]  # file names
    excluded: list[str]  # "file name<tab>reason", of recordings that a user's list left out
    windows: int
    features: bool


def look(path: Path) -> There | None:
    """What is asked about a cache, or None if the file cannot be read as a cache."""
    try:
        with h5py.File(path, "r", locking=False) as f:
            attributes = _attributes(f, path) | {"dtype": f["X"].dtype}
            return There(
                path=path,
                fingerprint=str(attributes["fingerprint"]),
                settings=known_settings(attributes),
                simulated=bool(attributes["simulated"]),
                recordings=[name.decode() for name in f["recordings"]] if "recordings" in f else [],
                excluded=[name.decode() for name in attributes.get("excluded", ())],
                windows=len(f["y"]),
                features="neuro_features" in f,
            )
    except (OSError, KeyError, ValueError):
        return None


def differences(there: There, known: dict, names: list[str], simulated: bool) -> list[str]:
    """How a cache differs from what would be built: ["float32 instead of float16", ...]."""
    was = there.settings
    counts = [cli.counted(len(some), "recording") for some in (there.recordings, names)]
    if "max_recordings" in was:  # else it is an old cache
        limits = was["max_recordings"], known["max_recordings"]
        counts = [
            f"at most {cli.counted(n, 'recording')}" if n else "all recordings" for n in limits
        ]
    steps = [each["preprocessing"] for each in (was, known)]
    kinds = ["simulated data" if each else "real data" for each in (there.simulated, simulated)]
    folders = [os.path.abspath(each.get("data", known["data"])) for each in (was, known)]
    without = [len(there.excluded)] * 2
    if there.excluded and not known["exclude"].path:
        without[1] = 0  # the list was not named this time; another list replaces it
    pairs = [
        ("", *(f"{cli.counted(n, 'recording')} excluded" for n in without)),
        ("a margin of ", *(f"{each['margin_s']:g} s" for each in (was, known))),
        ("", was["dtype"], known["dtype"]),
        ("", *(each.filters for each in steps)),
        ("reference ", *(each.reference for each in steps)),
        ("bad electrodes ", *(each.bad_electrodes for each in steps)),
        ("tasks ", *(" ".join(sorted(each["tasks"])) for each in (was, known))),
        ("", *counts),
        ("", *kinds),
        ("the release in ", *folders),
    ]
    return [f"{what}{own} instead of {other}" for what, own, other in pairs if own != other]


def arguments(
    release: str | list[str],
    mini: bool = False,
    challenge: int = 1,
    tasks: Iterable[str] = (CONTRAST,),
    margin_s: float = 0.0,
    dtype: str = "float32",
    max_recordings: int | None = None,
    exclude: Exclusions = Exclusions(),
    preprocessing: Preprocessing = Preprocessing(),
    stream: str = "",
) -> list[str]:
    """Settings as arguments of run/cache.py, without those that are its defaults. stream: --stream
    and what goes with it."""
    found = ["--release", *([release] if isinstance(release, str) else release)]
    found += ["--mini"] * mini
    found += ["--challenge", str(challenge)] if challenge != 1 else []
    if challenge == 2 and tuple(tasks) != (CONTRAST,):
        found += ["--tasks", *(["all"] if set(tasks) == set(TASKS) else tasks)]
    found += ["--margin", f"{margin_s:g}"] if margin_s else []
    found += ["--dtype", dtype] if dtype != "float32" else []
    found += ["--exclude", str(exclude.path)] if exclude.path else []
    found += preprocessing.arguments() + shlex.split(stream)
    return found + (["--max-recordings", str(max_recordings)] if max_recordings else [])


def build_command(folder: Path, known: Mapping[str, Any], force: bool = False) -> str:
    """The command that builds caches in `folder` with known settings."""
    settings = dict(known)
    data = settings.pop("data", None)  # where the releases lie
    words = arguments(**settings) + ["--force"] * force
    return hints.command("cache", *words, data=data, cache=folder)


def rebuild(cache: Cache, **changed) -> str:
    """The command that rebuilds the files of a Cache, with changed settings if any are named."""
    groups: dict[tuple, list[str]] = {}
    for path, attributes in zip(cache.paths, cache.attributes):
        known = known_settings(attributes) | changed
        release = known.pop("release")
        groups.setdefault((path.parent, *sorted(known.items(), key=str)), []).append(release)
    commands = [
        build_command(folder, {**dict(known), "release": releases}, force=True)
        for (folder, *known), releases in groups.items()
    ]
    return " && ".join(commands)


def rebuild_known(path: Path, attributes: Mapping) -> str:
    """The command that rebuilds one file, by its attributes if this version understands them."""
    try:
        return build_command(path.parent, known_settings(attributes), force=True)
    except (KeyError, ValueError):
        return rebuild_file(path)


def rebuild_file(path: Path) -> str:
    """The command that rebuilds one file, by its name and the settings of caches beside it."""
    match = _NAME.fullmatch(path.name)
    if not match:
        return hints.command("cache", "--release", "R1", cache=path.parent)
    known = neighbour(path.parent, int(match[1]), bool(match[3])) | {"release": match[2]}
    return build_command(path.parent, known, force=path.exists())


def neighbour(folder: Path, challenge: int, mini: bool) -> dict[str, Any]:
    """The settings of another cache of this challenge in the folder: a new one must fit to it."""
    for there in map(look, sorted(folder.glob(f"challenge{challenge}_R*_windows.h5"))):
        if there and there.settings["mini"] == mini:
            there.settings.pop("max_recordings", None)
            return there.settings
    return {"challenge": challenge, "mini": mini}
