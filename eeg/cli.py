"""What every script in run/ shares: the arguments of all commands, and how a command ends.

A script is: parse the arguments (nothing heavy imported yet), import, work. `run` gives it its exit code:
0 success, 2 bad arguments (argparse), 1 anything else, with one line on stderr and no traceback for a user's mistake.
"""

import argparse
import os
import signal
import sys
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
