"""Writing files: publish by rename, locks, and what a user is told where that fails."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eeg import UserError, hints

FULL = (errno.ENOSPC, errno.EDQUOT)  # the disk, or the user's share of it


def write_at(descriptor: int, data, offset: int) -> None:
    """Write all of `data`, bytes or an array, at a place of a file. The system may take less at a
    time than it is given."""
    rest = memoryview(data).cast("B")
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


# Publish by rename: a reader sees what was there before or the new one, whole.


def partial(path: Path) -> Path:
    """Where a file or folder is made before it is renamed to `path`."""
    return path.with_name(path.name + ".partial")


@contextmanager
def publishing(path: Path, ending: str = "") -> Iterator[Path]:
    """Yield a place for a new file or folder; rename it to `path` if all went well, else remove it.

    ending: what the temporary name must end in, for writers that look at it.
    """
    path = Path(path)
    new = path.with_name(partial(path).name + ending)
    remove(new)  # left by a process that was killed
    try:
        yield new
        if new.is_dir() and path.exists():  # a rename does not replace a folder
            old = path.with_name(path.name + ".old")
            remove(old)
            os.rename(path, old)
            os.rename(new, path)
            remove(old)
        else:
            os.replace(new, path)
    finally:
        remove(new)


def remove(path: Path) -> None:
    """Remove a file or folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_through(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with open(path, "wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the renames in a folder have reached the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it is there whole, or the one before it is.

    A place that is no ordinary file, as /dev/stdout, is written to directly.
    """
    path = Path(path)
    content = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    with publishing(path) as new:
        # A card may take the machine down, and a rename may reach the disk before the content.
        write_through(new, content)


def write_json(path: Path, content: object) -> None:
    write_whole(path, json.dumps(content, indent=1) + "\n")


# Notes: a few bytes that a file carries beside its content, as its times and its owner. Where the
# file system keeps none, or a program copies the content alone, there are none.


def note(path: Path, name: str, content: bytes) -> None:
    """Keep a note of this name with a file, where that is possible."""
    if hasattr(os, "setxattr"):  # Linux
        with suppress(OSError):
            os.setxattr(path, f"user.eeg.{name}", content)


def noted(path: Path, name: str) -> bytes | None:
    """The note of this name, None if the file carries none."""
    if hasattr(os, "getxattr"):
        with suppress(OSError):
            return os.getxattr(path, f"user.eeg.{name}")
    return None


# Locks: the kernel releases them when the last process that has the file open ends, however it
# ends.


def lock(file, wait: bool = False) -> bool:
    """Lock an open file or descriptor. False if another process holds it and `wait` is False."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[int | None]:
    """Hold the lock of a file, made if missing. Yields its descriptor, None if another holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield fd if lock(fd, wait) else None
    finally:
        os.close(fd)


@contextmanager
def locked_folder(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder. Yields whether it is held: False if another process holds it."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield lock(fd)
    finally:
        os.close(fd)


@contextmanager
def exclusive_partial(path: Path) -> Iterator[Path | None]:
    """Hold path.partial alone and remove it at the end unless it was renamed.

    Yields None if another process holds it. What a killed process left is written over.
    """
    new = partial(path)
    while True:
        with locked(new, wait=False) as fd:
            if fd is None:
                yield None
                return
            if not new.exists() or new.stat().st_ino != os.fstat(fd).st_ino:
                continue  # another process published this very file between our open and our lock
            try:
                yield new
            finally:
                new.unlink(missing_ok=True)
            return


# What a user is told


@contextmanager
def writing(path: Path, option: str, size: int | Callable[[], int] | None = None) -> Iterator[None]:
    """While `path` is written, raise UserError in place of OSError.

    option: what names its place, as "--zip FILE". size: the bytes it takes if known, or a function
    that returns them.
    """
    try:
        yield
    except OSError as e:
        raise UserError(trouble(e, path, option, size() if callable(size) else size)) from None


def trouble(error: OSError, path: Path | str, option: str, size: int | None = None) -> str:
    """An OSError while `path` was written, as words for a user."""
    other = f"name another place with {option}"
    if error.errno not in FULL:
        return f"{path} cannot be written: {error.strerror or error}; {other}"
    folder = next(each for each in Path(os.path.abspath(path)).parents if each.is_dir())
    free = shutil.disk_usage(folder).free
    takes = f"the disk has {amount(free)} free"
    if size:
        missing = amount(max(1, size - free))
        takes = f"it takes {amount(size)}, {missing} more than the disk has free"
    return f"there is no room for {path}: {takes}; free some, or {other}"


def amount(size: float) -> str:
    """The size of a file in words: 1.2 GB, 300 bytes."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size:,.0f} bytes"


def check_room(path: Path, option: str, size: int) -> None:
    """Raise UserError if the disk has no room for so many bytes at `path`, or below it."""
    parents = [path.absolute(), *path.absolute().parents]
    free = shutil.disk_usage(next(each for each in parents if each.is_dir())).free
    if size > free:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise UserError(trouble(full, path, option, size))


def check_writable(path: Path, option: str) -> None:
    """Raise UserError if no file can be made at `path`: called before the work begins."""
    folder, other = path.parent, f"name another place with {option}"
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file with {option}")
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}/ for {path.name}; make it, or {other}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise UserError(f"{path} cannot be written: {folder}/ is read-only; {other}")


def option_of(path: str) -> str | None:
    """The option of this command line that names the place of a path, as "--out DIR", or None."""
    path = os.path.abspath(path)
    found: dict[str, str] = {}
    for option, (place, metavar) in hints.places.items():
        root = os.path.abspath(place)
        inside = os.path.commonpath((path, root)) == root
        if inside or path.startswith(root + "."):  # x.zip.partial
            found.setdefault(root, f"{option} {metavar}")
    return found[max(found, key=len)] if found else None
