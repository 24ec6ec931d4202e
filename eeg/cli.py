"""What every script in run/ shares: the arguments of all commands, and how a command ends.

A script parses its arguments before it imports anything heavy, then works. `run` gives it its exit
code: 0 success, 2 bad arguments (argparse), 1 anything else, with one line on stderr and no
traceback for a user's mistake.
"""

import argparse
import codecs
import math
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TextIO

from eeg import UserError, files, hints


class Parser(argparse.ArgumentParser):
    """Answers a bad argument with one line; its usage is behind --help."""

    def error(self, message):
        see = hints.command(self.prog.removesuffix(".py"), "--help")
        self.exit(2, f"error: {message}; see: {see}\n")

    def parse_known_args(self, *arguments, **more):
        """Keep the files and folders of the command line as well, for messages."""
        found, rest = super().parse_known_args(*arguments, **more)
        for action in self._actions:
            value = getattr(found, action.dest, None)
            if action.option_strings and isinstance(value, Path):
                hints.places[action.option_strings[-1]] = value, action.metavar
            if action.dest in ("data", "cache", "out"):
                hints.given[action.dest] = value
        return found, rest


def parser(doc: str, **settings) -> Parser:
    """A Parser that shows the script's docstring as it stands and knows --data and --cache."""
    form = argparse.RawDescriptionHelpFormatter
    p = Parser(description=doc, formatter_class=form, allow_abbrev=False, **settings)
    _add_folder(p, "data", "releases", "$EEG_DATA if set, otherwise data/")
    _add_folder(p, "cache", "caches", "cache/")
    return p


def _add_folder(p, place, what, default):
    help = f"folder of the {what} (default: {default})"
    p.add_argument(f"--{place}", type=Path, default=hints.default(place), metavar="DIR", help=help)


# The arguments that several scripts share. p: a parser, or a group of its arguments.


def add_out(p) -> None:
    _add_folder(p, "out", "runs", "experiments/")


def add_release(p, help: str = "R1 ... R12", required: bool = False) -> None:
    p.add_argument("--release", nargs="+", required=required, type=release, metavar="R", help=help)


def add_challenge(p, **more) -> None:
    help = "1: response times, 2: the externalizing factor"
    help += f" (default: {more['default']})" if "default" in more else ""
    p.add_argument("--challenge", type=challenge, metavar="{1,2}", help=help, **more)


def add_mini(p) -> None:
    p.add_argument("--mini", action="store_true", help="use the mini releases (20 subjects each)")


def add_jobs(p) -> None:
    p.add_argument("--jobs", type=positive, metavar="N", help="threads (default: all cores)")


def add_exclude(p) -> None:
    help = "leave out the recordings on this list: a recording or subject and the reason, per line"
    p.add_argument("--exclude", type=Path, metavar="FILE", help=help)


def add_filters(p) -> None:
    """--bandpass and --notch, of the commands that read recordings at more than 100 Hz."""
    help = "filter recordings that are not at 100 Hz yet to this band (default: 0.5 50)"
    edges = {"nargs": 2, "type": at_least_0, "metavar": ("LOW", "HIGH"), "default": (0.5, 50.0)}
    p.add_argument("--bandpass", help=help, **edges)
    help = "take the mains out of them at this frequency (default: 60; 0: leave it in)"
    p.add_argument("--notch", type=at_least_0, metavar="HZ", default=60.0, help=help)


def check_filters(p: Parser, args: argparse.Namespace) -> None:
    """Ends with the parser's error where the filters of add_filters make no sense."""
    low, high = args.bandpass
    if not 0 < low < high <= 50:
        p.error(
            f"--bandpass {low:g} {high:g}: expected 0 < LOW < HIGH <= 50 Hz, half of the 100 Hz "
            "that come out"
        )
    if 0 < args.notch < 2:
        p.error(f"--notch {args.notch:g}: expected 0 or at least 2 Hz")


def add_plot(p, help: str) -> None:
    p.add_argument("--plot", type=picture, metavar="FILE", help=help)


def add_tmux(p) -> None:
    help = "start in a detached tmux session; print how to attach"
    p.add_argument("--tmux", action="store_true", help=help)


def add_bucket(p) -> None:
    """--source, --endpoint, --connections, --timeout, --time-limit of the commands that fetch."""
    kinds = (
        "the competition's 100 Hz recordings (challenge), or the 500 Hz originals of two buckets"
    )
    help = f"{kinds} (default: challenge)"
    p.add_argument("--source", choices=SOURCES, default=SOURCES[0], help=help)
    help = "another server with the same buckets, as http://127.0.0.1:9000 (default: Amazon's)"
    p.add_argument("--endpoint", type=endpoint, metavar="URL", help=help)
    help = "requests at the same time (default: 8)"
    p.add_argument("--connections", type=positive, default=8, metavar="N", help=help)
    help = "repeat a request after so many seconds of silence (default: 20)"
    p.add_argument("--timeout", type=above_0, default=20.0, metavar="S", help=help)
    help = "stop after so many minutes; the same command then continues (default: no limit)"
    p.add_argument("--time-limit", type=above_0, metavar="MIN", help=help)


def check_bucket(p: Parser, args: argparse.Namespace) -> None:
    """Ends with the parser's error where an argument of add_bucket comes without --stream."""
    for name in ("source", "endpoint", "connections", "timeout", "time_limit"):
        if not args.stream and getattr(args, name) != p.get_default(name):
            p.error(f"--{name.replace('_', '-')} goes with --stream")


def add_device(p) -> None:
    default = "auto: a card that passes run/check.py, otherwise the CPU"
    help = f"auto, cpu, cuda, cuda:1, rocm or mps (default: {default})"
    p.add_argument("--device", type=device, default="auto", metavar="DEVICE", help=help)


def add_runs(p, default: str) -> None:
    """RUN, --seed and --out, which choose runs in every command that takes several."""
    names = "a run's folder; name/stamp under --out; a name, for its newest finished run"
    stamps = "or name/FROM..TO, for a range of stamps, which may be cut short"
    help = f"{names}; {stamps} (default: {default})"
    p.add_argument("runs", nargs="*", metavar="RUN", help=help)
    help = "of the named runs, keep those trained with these seeds, without folds of --cv"
    p.add_argument("--seed", nargs="+", type=whole, metavar="N", help=help)
    add_out(p)


def add_scoring(p) -> None:
    """--challenge, --release, --mini and --ensemble of the commands that score runs."""
    help = "score runs of this challenge only"
    p.add_argument("--challenge", type=challenge, metavar="{1,2}", help=help)
    add_release(p, "test releases (default: R6 and R7, or the one that is cached)")
    add_mini(p)
    ways = (
        "by their average, by non-negative weights, or by ridge regression on their answers and "
        "time-head statistics (the last two are fitted on validation subjects and cannot be "
        "scored on them)"
    )
    help, kinds = f"also score the runs combined: {ways}", ("average", "weights", "stack")
    p.add_argument("--ensemble", choices=kinds, help=help)


def check_chosen(p: Parser, args: argparse.Namespace) -> None:
    """Ends with the parser's error where --seed has no names to choose from."""
    if args.seed and not args.runs:
        p.error("--seed chooses among the runs you name, as in: c1_tcn --seed 0 1 2")


# argparse types


def checked(read: Callable, fits: Callable, expected: str) -> Callable[[str], Any]:
    """An argparse type: read(text) where that fits, else an error that says what was expected."""

    def parse(text):
        try:
            value = read(text)
        except ValueError:
            value = None
        if value is None or not fits(value):
            raise argparse.ArgumentTypeError(f"'{text}' is not {expected}")
        return value

    return parse


def picture(text: str) -> Path:
    """argparse type: the name of a file that a picture is saved in."""
    if not text.lower().endswith((".png", ".pdf", ".svg")):
        raise argparse.ArgumentTypeError(f"{text}: name a .png, .pdf or .svg file")
    return Path(text)


NEEDED = ("numpy", "h5py", "mne", "scipy", "torch")  # what make build installs
DEVICE = r"(auto|cpu|mps)|(cuda|rocm)(?::(\d+))?"
DEVICES = "expected auto, cpu, cuda, cuda:1, rocm or mps"
SOURCES = ("challenge", "fcp-indi", "openneuro")  # see eeg/bucket/source.py
RELEASES = "releases are called R1, R2, ... R12"

whole = checked(int, lambda value: True, "a whole number")
positive = checked(int, lambda value: value >= 1, "a whole number of at least 1")
at_least_0 = checked(float, lambda value: 0 <= value < math.inf, "a number of at least 0")
above_0 = checked(float, lambda value: 0 < value < math.inf, "a number above 0")
share = checked(float, lambda value: 0 <= value < 1, "a number from 0 to less than 1")
percent = checked(float, lambda value: 0 < value <= 100, "a percentage from 0 to 100")
seconds = checked(float, lambda value: 0 <= value <= 10, "a length of time from 0 to 10 s")
challenge = checked(int, lambda value: value in (1, 2), "a challenge; expected 1 or 2")
release = checked(str, re.compile("R[1-9][0-9]?").fullmatch, f"a release; {RELEASES}")
URL = r"https?://[^/?#@\s]+(/[^?#\s]*)?"
endpoint = checked(str, re.compile(URL).fullmatch, "an address like http://127.0.0.1:9000")
device = checked(str, re.compile(DEVICE).fullmatch, f"a device; {DEVICES}")


def counted(number: int, noun: str) -> str:
    """A number of things in words: 1 subject, 2 subjects, 1,234 windows, 2 batches."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith(('ch', 's', 'x')) else 's'}"


def clock(seconds: float) -> str:
    """A length of time: 0:07, 12:30, 3:05:00, 2 d 4 h."""
    seconds = round(seconds)
    if seconds >= 86400:
        return f"{seconds // 86400} d {seconds % 86400 // 3600} h"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def moment(when: float | None = None) -> str:
    """A Unix time, now by default, as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))


def anonymous_memory() -> int:
    """Bytes of memory of this process, without pages of mapped files, which the system can drop."""
    if not os.path.exists("/proc/self/status"):  # macOS: the highest so far, with what is mapped
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon"))


class Progress:
    """Shows long work as a tqdm bar, or in a log as a line every 10 s. peak: most memory so far.

    Called as progress(done, total, size): how many of how many are done, and the last one's bytes.
    With the unit "B", done and total are bytes.
    """

    def __init__(self, unit: str):
        self._unit, self._bytes = unit, 0
        self._bar: Any = None  # tqdm's, made at its first use
        self._start = self._said = self._looked = time.monotonic()
        self._first: int | None = None  # bytes that were there before
        self.peak = anonymous_memory()

    def __call__(self, done: int, total: int, size: int = 0) -> None:
        now = time.monotonic()
        self._bytes += size
        if self._first is None:
            self._first = done if self._unit == "B" else done - 1
        if now - self._looked > 0.02 or done == total:
            self._looked, self.peak = now, max(self.peak, anonymous_memory())
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = self._new_bar(total)
            self._bar.total = total
            self._bar.update(done - self._bar.n)
            if size:
                rate = self._bytes / 1e9 / (now - self._start)
                self._bar.set_postfix_str(f"{rate:.2f} GB/s", refresh=False)
        elif now - self._said > 10:
            self._said = now
            left = (total - done) * (now - self._start) / max(1, done - self._first)
            far = f"{done}/{total} {self._unit}"
            if self._unit == "B":
                far = f"{files.amount(done)} of {files.amount(total)}"
            print(f"{far}, {clock(left)} left", flush=True)

    def _new_bar(self, total):
        from tqdm import tqdm

        if self._unit == "B":
            return tqdm(total=total, unit="B", unit_scale=True, initial=self._first)
        return tqdm(total=total, unit=f" {self._unit}", initial=self._first)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()
        self.peak = max(self.peak, anonymous_memory())


def _legible(error):
    """Bytes for what a terminal cannot show: those of a file's name as they are, otherwise "?"."""
    part = error.object[error.start : error.end]
    named = lambda c: 0xDC80 <= ord(c) <= 0xDCFF  # a byte that Python could not decode
    return b"".join(bytes([ord(c) - 0xDC00]) if named(c) else b"?" for c in part), error.end


def settle_streams() -> None:
    """Make printing safe: a closed stream leads nowhere, and no character is an error."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file opened would take its number, and what is printed
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))
    codecs.register_error("legible", _legible)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="legible")  # type: ignore[union-attr]


def mute(stream: TextIO) -> None:
    """Drop what is still printed: the terminal, or the reader of the pipe, is gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _flush():
    """Write out what was printed. Where that fails, drop the rest."""
    try:
        sys.stdout.flush()
    except OSError as e:
        mute(sys.stdout)
        if isinstance(e, BrokenPipeError):
            raise
        raise UserError(f"what is printed cannot be written: {e.strerror}") from None


def _system_error(error):
    """A full disk or a lack of permission in words, with the option that names another place."""
    words = str(error.strerror or error)
    if not isinstance(error.filename, (str, bytes, os.PathLike)):
        return words
    path = os.fsdecode(error.filename)
    option = files.option_of(path)
    return f"{words}: {path}" + (f"; name another place with {option}" if option else "")


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call main() and exit with its code; a user's mistake or a system error becomes one line."""
    settle_streams()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup has it ignored
            # unwinds, so that clean-up runs
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        code = main() or 0
        _flush()
        sys.exit(code)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped: nothing is left half-written", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `run/... | head`
        mute(sys.stdout)
    except OSError as e:
        print(f"error: {_system_error(e)}", file=sys.stderr)
    except ModuleNotFoundError as e:
        if e.name not in NEEDED:
            raise
        ways = "run make build, then source .venv/bin/activate"
        print(f"error: {sys.executable} has no module {e.name}: {ways}", file=sys.stderr)
    sys.exit(1)
