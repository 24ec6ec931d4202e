"""Writing where a user has said: what cannot be written, how much room is missing, and which option names another place."""

import errno
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

from eeg import UserError, hints

FULL = (errno.ENOSPC, errno.EDQUOT)  # the disk, or the user's share of it


@contextmanager
def writing(path, option, size=None):
    """Within it `path` is written. Raises UserError in place of OSError.

    option: what names its place, as "--zip FILE". size: the bytes it takes, where that is known, or a function that says it.
    """
    try:
        yield
    except OSError as e:
        raise UserError(trouble(e, path, option, size() if callable(size) else size)) from None


def trouble(error, path, option, size=None):
    """An OSError while `path` was written, as words for a user."""
    if error.errno not in FULL:
        return (
            f"{path} cannot be written: {error.strerror or error}; name another place with {option}"
        )
    folder = next(each for each in Path(os.path.abspath(path)).parents if each.is_dir())
    free = shutil.disk_usage(folder).free
    takes = (
        f"it takes {amount(size)}, {amount(max(1, size - free))} more than the disk has free"
        if size
        else f"the disk has {amount(free)} free"
    )
    return f"there is no room for {path}: {takes}; free some, or name another place with {option}"


def amount(size):
    """Bytes in words."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size:,.0f} bytes"


def write_whole(path, text):
    """Write a text file: it is there whole, or the one before it is. What is no ordinary file, as /dev/stdout, is just written to."""
    path = Path(path)
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(
                f.fileno()
            )  # a card may take the machine down, and a rename may reach the disk before what was written
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def write_json(path, content):
    """Publish a small JSON file by rename: a reader sees the old one or the new one, whole."""
    write_whole(path, json.dumps(content, indent=1) + "\n")


def check_writable(path, option):
    """Raises UserError where a file could not be made at `path`: before the work whose result it takes."""
    folder = Path(path).parent
    if Path(path).is_dir():
        raise UserError(f"{path} is a folder; name a file with {option}")
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}/ for {Path(path).name}; make it, or name another place with {option}"
        )
    if not os.access(path if Path(path).exists() else folder, os.W_OK):
        raise UserError(
            f"{path} cannot be written: {folder}/ is read-only; name another place with {option}"
        )


def option_of(path):
    """The option of this command line within whose place a path lies, as "--out DIR"; None where it is none's."""
    path, found = os.path.abspath(path), None
    for option, (place, metavar) in hints.places.items():
        place = os.path.abspath(place)
        if os.path.commonpath((path, place)) == place or path.startswith(
            place + "."
        ):  # x.zip.partial
            if found is None or len(place) > len(found[0]):
                found = place, f"{option} {metavar}"
    return found and found[1]
