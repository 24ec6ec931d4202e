"""What the tests of training share: caches of small simulated releases, and runs of run/train.py in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eeg.data.cache import Settings, build
from eeg.data.features import add
from eeg.data.release import find_release
from eeg.data.synth import simulate_release

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    """The folder with caches of both challenges of simulated R1 (6 subjects) and R5 (3); challenge 1 with 0.1 s margin and features."""
    root = tmp_path_factory.mktemp("train")
    for name, subjects in (("R1", 6), ("R5", 3)):
        simulate_release(root / "data", name, subjects, 0, 1.0, ("contrastChangeDetection",), 1)
        for challenge in (1, 2):
            path = build(find_release(name, root / "data"), Settings(challenge, margin=0.1 if challenge == 1 else 0), root / "cache").path
            if challenge == 1:
                add(path, 1)
    return root / "cache"


@pytest.fixture
def train(caches, tmp_path):
    """Runs run/train.py: train(*arguments) -> CompletedProcess with its output as text. A tiny model, unless arguments say otherwise; runs lie in tmp_path/out."""

    def command(*arguments, tiny=True):
        small = ["--set", "width=8", "depth=1", "--amp", "off"] if tiny else []
        return [sys.executable, str(ROOT / "run" / "train.py"), "--cache", str(caches), "--out", str(tmp_path / "out"), *small, *map(str, arguments)]

    def call(*arguments, tiny=True, check=True, **settings):
        done = subprocess.run(command(*arguments, tiny=tiny), capture_output=True, text=True, timeout=300, env=os.environ | {"PYTHONPATH": str(ROOT)}, **settings)
        if check:
            assert done.returncode == 0, done.stderr
        return done

    call.command = command
    call.out = tmp_path / "out"
    return call
