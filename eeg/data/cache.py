"""Reads caches: every window of a release in one HDF5 file whose X can be memory-mapped.

`Cache` reads one or several such files as one. h5py alone can read a file as well. Messages take the
commands that rebuild a cache from here. eeg/data/build.py writes the files.
"""

import os
import re
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from eeg import UserError, hints
from eeg.data.release import CONTRAST, FACTORS, TASKS, cache_path

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
        alike = lambda path, found: build_command(
            path.parent,
            known_settings(wanted)
            | {
                key: value
                for key, value in known_settings(found).items()
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
            words = arguments(
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
        command = build_command(folder, neighbour(folder, challenge, mini) | {"release": missing})
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
                    f"{rebuild_file(path)}"
                )
            X = f["X"]
            offset, shape, dtype = X.id.get_offset(), X.shape, X.dtype
            attributes["dtype"] = str(dtype)
            if attributes["version"] != VERSION:
                raise UserError(
                    f"{path} is a cache of version {attributes['version']}, this program reads "
                    f"version {VERSION}; rebuild it with: {rebuild_known(path, attributes)}"
                )
    except FileNotFoundError:
        raise UserError(f"there is no cache {path}; build one with: {rebuild_file(path)}") from None
    except (OSError, KeyError) as e:
        raise UserError(
            f"{path} cannot be read as a cache ({' '.join(str(e).split())}); rebuild it with: "
            f"{rebuild_file(path)}"
        ) from None
    if offset is None:
        raise UserError(
            f"{path} holds its windows in chunks, which cannot be mapped; rebuild it with: "
            f"{rebuild_known(path, attributes)}"
        )
    return np.memmap(path, dtype, "r", offset, shape), attributes


# ------------------------------------------------------------------ the commands that build caches

_NAME = re.compile(r"challenge([12])_(R[1-9][0-9]?)(_mini)?_windows\.h5")


def known_settings(attributes):
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


def arguments(
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


def build_command(folder, known, force=False):
    """The command that builds caches in `folder` with these settings; "data" among them is where
    the releases lie.
    """
    known = dict(known)
    data = known.pop("data", None)
    return hints.command(
        "cache", *arguments(**known), *["--force"] * force, data=data, cache=folder
    )


def rebuild(cache, **changed):
    """The command that rebuilds the files of a Cache, with other settings where some are named."""
    groups = {}
    for path, attributes in zip(cache.paths, cache.attributes):
        known = known_settings(attributes) | changed
        release = known.pop("release")
        groups.setdefault((path.parent, *sorted(known.items(), key=str)), []).append(release)
    return " && ".join(
        build_command(folder, dict(known) | {"release": releases}, force=True)
        for (folder, *known), releases in groups.items()
    )


def rebuild_known(path, attributes):
    """The command that rebuilds one file by its attributes, of which another version of eeg may
    write others.
    """
    try:
        return build_command(path.parent, known_settings(attributes), force=True)
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
    return build_command(
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
                found = known_settings(dict(f.attrs) | {"dtype": f["X"].dtype})
        except (OSError, KeyError, ValueError):  # that one cannot be read either
            continue
        if found["mini"] == mini:
            return {key: value for key, value in found.items() if key != "max_recordings"}
    return {"challenge": challenge, "mini": mini}
