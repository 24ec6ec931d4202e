"""Building a cache of the release that a test has written, by function and by command."""

import os
import subprocess
import sys
from pathlib import Path

from eeg.data.build import Settings, build
from eeg.data.cache import Cache
from eeg.data.release import find_release

ROOT = Path(__file__).resolve().parents[2]


def made(folder, force=False, **settings):
    """Build the cache of data/R1_L100_bdf beside it. -> (Report, Cache or None)."""
    release = find_release("R1", folder.parent)
    report = build(release, Settings(**settings), folder.parent.parent / "cache", force=force)
    return report, Cache(report.path) if report.windows else None


def command(folder, *more, script="cache", cache=None):
    """Run a script on the release in `folder`. cache: another place than beside it."""
    cache = cache or folder.parent.parent / "cache"
    places = ["--data", folder.parent, "--cache", cache]
    arguments = [sys.executable, ROOT / "run" / f"{script}.py", *places, *more]
    settings = {"capture_output": True, "text": True, "env": os.environ | {"PYTHONPATH": str(ROOT)}}
    return subprocess.run(list(map(str, arguments)), **settings)


def files_left(folder):
    cache = folder.parent.parent / "cache"
    return sorted(p.name for p in cache.iterdir()) if cache.exists() else []
