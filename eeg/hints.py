"""The commands that messages suggest. Pasted as they are they work, from where the user stands and on the user's own files.

A message that suggests a command has it made here, of the settings it has at hand. What it does not know, as a message of
eeg/data does not know where releases lie, is what this command line said of its folders: `eeg.cli` keeps that in `given`.
"""

import os
import shlex
import sys
from pathlib import Path

places = {}  # option: (path, metavar), of every option of this command line that names a file or a folder
given = {}  # "data", "cache", "out": the folders of this command line; none where eeg is used as a library

HEEDS = {  # what each script does with folders: it takes other ones too, and they change nothing
    "cache": ("data", "cache"),
    "check": ("cache",),
    "compare": ("cache", "out"),
    "evaluate": ("cache", "out"),
    "download": ("data",),
    "features": ("cache",),
    "monitor": ("out",),
    "overnight": ("data", "cache", "out"),
    "report": ("data", "cache", "out"),
    "submit": ("cache", "out"),
    "synth": ("data",),
    "train": ("cache", "out"),
    "tune": ("data", "cache", "out"),
}
ONLY_PRINTS = ("--help", "--list", "--list-models")


def default(place):
    """The folder that a script takes where none is named."""
    return Path(
        {"data": os.environ.get("EEG_DATA", "data"), "cache": "cache", "out": "experiments"}[place]
    )


def command(name, *words, **places):
    """The command line of run/<name>.py with these words and, where they are not the default, the user's folders.

    data, cache, out: folders the caller knows; where it does not, or says None, those of this command line.
    """
    words = list(map(str, words))
    if not set(words) & set(ONLY_PRINTS):
        for place in HEEDS[name]:
            words += _place(place, places.get(place))
    return shlex.join(["python", str(script(name)), *words])


def this(name, *more):
    """The command line that was typed, with more words after it. For scripts alone."""
    return shlex.join(["python", str(script(name)), *sys.argv[1:], *map(str, more)])


def _place(place, folder):
    """-> ["--cache", "DIR"], or [] where it is the default. As the user has written it, if it is the same folder."""
    said = given.get(place)
    if folder is None or said is not None and _same(folder, said):
        folder = said
    return [] if folder is None or _same(folder, default(place)) else [f"--{place}", str(folder)]


def _same(one, other):
    return os.path.abspath(one) == os.path.abspath(other)


def script(name):
    """Where run/<name>.py lies, as seen from here."""
    path, here = Path(__file__).resolve().parents[1] / "run" / f"{name}.py", Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
