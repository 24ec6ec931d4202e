"""The commands that messages suggest: they can be pasted, from where the user stands.

A message that suggests a command has it made here from the settings it knows. A folder that it does
not know, as eeg/data does not know where releases lie, is that of this command line: `eeg.cli`
keeps it in `given`.
"""

import os
import shlex
import sys
from pathlib import Path

# option: (path, metavar), for every option of this command line that names a file or a folder
places: dict[str, tuple[Path, str]] = {}
# "data", "cache", "out": the folders of this command line; empty where eeg is used as a library
given: dict[str, Path] = {}

HEEDS = {  # the folders that each script uses: it takes other ones too, and they change nothing
    "audit": ("data",),
    "cache": ("data", "cache"),
    "check": ("cache",),
    "compare": ("cache", "out"),
    "convert": ("data",),
    "evaluate": ("cache", "out"),
    "download": ("data",),
    "embed": ("cache", "out"),
    "features": ("cache",),
    "monitor": ("out",),
    "overnight": ("data", "cache", "out"),
    "pretrain": ("cache", "out"),
    "report": ("data", "cache", "out"),
    "submit": ("cache", "out"),
    "synth": ("data",),
    "train": ("cache", "out"),
    "tune": ("data", "cache", "out"),
}
ONLY_PRINTS = ("--help", "--list", "--list-models")


def default(place: str) -> Path:
    """The folder that a script takes where none is named."""
    data = os.environ.get("EEG_DATA", "data")
    return Path({"data": data, "cache": "cache", "out": "experiments"}[place])


def command(name: str, *words: object, **places: Path | None) -> str:
    """The command line of run/<name>.py with these words and the user's folders.

    data, cache, out: folders the caller knows; where one is missing or None, that of this command
    line. Default folders are left out.
    """
    line = list(map(str, words))
    if not set(line) & set(ONLY_PRINTS):
        for place in HEEDS[name]:
            line += _place(place, places.get(place))
    return shlex.join(["python", str(script(name)), *line])


def this(name: str, *more: object) -> str:
    """The command line that was typed, with more words after it. For scripts alone."""
    return shlex.join(["python", str(script(name)), *sys.argv[1:], *map(str, more)])


def _place(place, folder):
    """-> ["--cache", "DIR"], as the user has written the folder; [] where it is the default."""
    said = given.get(place)
    if folder is None or said is not None and _same(folder, said):
        folder = said
    return [] if folder is None or _same(folder, default(place)) else [f"--{place}", str(folder)]


def _same(one, other):
    return os.path.abspath(one) == os.path.abspath(other)


def script(name: str) -> Path:
    """Where run/<name>.py lies, as seen from here."""
    path = Path(__file__).resolve().parents[1] / "run" / f"{name}.py"
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
