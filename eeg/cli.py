"""What every script in run/ shares: the arguments of all commands, and how a command ends.

A script is: parse the arguments (nothing heavy imported yet), import, work. `run` gives it its exit code:
0 success, 2 bad arguments (argparse), 1 anything else, with one line on stderr and no traceback for a user's mistake.
"""

import argparse
import os
import re
import signal
import sys
import time
from pathlib import Path

from eeg import UserError


def parser(doc, **settings):
    """An ArgumentParser that shows the script's docstring as it stands and knows --data and --cache."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)
    p.add_argument("--data", type=Path, default=Path(os.environ.get("EEG_DATA", "data")), metavar="DIR", help="where releases lie (default: $EEG_DATA, else data/)")
    p.add_argument("--cache", type=Path, default=Path("cache"), metavar="DIR", help="where caches lie (default: cache/)")
    return p


def positive(text):
    """argparse type: a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return value


def at_least_0(text):
    """argparse type: a number of at least 0."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return value


def share(text):
    """argparse type: a number from 0 to 1, 1 not included."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to less than 1")
    return value


def percent(text):
    """argparse type: more than 0, at most 100."""
    value = float(text)
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not a percentage")
    return value


def release(text):
    """argparse type: the name of a release."""
    if not re.fullmatch(r"R[1-9][0-9]?", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a release; releases are called R1, R2, ... R12")
    return text


DEVICE = r"(auto|cpu|mps)|(cuda|rocm)(?::(\d+))?"


def device(text):
    """argparse type: the name of a device."""
    if not re.fullmatch(DEVICE, text):
        raise argparse.ArgumentTypeError(f"'{text}' is no device; expected auto, cpu, cuda, cuda:1, rocm or mps")
    return text


def seconds(text):
    """argparse type: a length of time, 0 to 10 s."""
    value = float(text)
    if not 0 <= value <= 10:
        raise argparse.ArgumentTypeError(f"{text} is not a length of time from 0 to 10 s")
    return value


def anonymous_memory():
    """Bytes of memory that are this process's own; pages of mapped files, which the system can drop, are not."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon"))


class Progress:
    """Shows long work: a tqdm bar on a terminal, a plain line every 10 s in a log. Notes the peak of memory as it goes.

    Called as progress(done, total, bytes): how many of how many are done, and the bytes the last one made.
    """

    def __init__(self, unit):
        self._unit, self._bar, self._bytes = unit, None, 0
        self._start = self._said = self._looked = time.monotonic()
        self.peak = anonymous_memory()

    def __call__(self, done, total, size=0):
        now = time.monotonic()
        self._bytes += size
        if now - self._looked > 0.02 or done == total:
            self._looked, self.peak = now, max(self.peak, anonymous_memory())
        if sys.stderr.isatty():
            if self._bar is None:
                from tqdm import tqdm

                self._bar = tqdm(total=total, unit=f" {self._unit}", initial=done - 1)
            self._bar.update(done - self._bar.n)
            if size:
                self._bar.set_postfix_str(f"{self._bytes / 1e9 / (now - self._start):.2f} GB/s", refresh=False)
        elif now - self._said > 10:
            self._said = now
            print(f"{done}/{total} {self._unit}, {(total - done) * (now - self._start) / done:.0f} s left", flush=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()
        self.peak = max(self.peak, anonymous_memory())


def run(main):
    """Call main() and leave the process with its exit code; user mistakes and system errors become one line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that clean-up runs
    try:
        sys.exit(main() or 0)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped: nothing is left half-written", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `run/... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as e:  # a full disk, a folder without permission: the system's own words say it best
        print(f"error: {e.strerror or e}{': ' + str(e.filename) if e.filename else ''}", file=sys.stderr)
    sys.exit(1)
