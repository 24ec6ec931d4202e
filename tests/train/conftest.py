"""What the tests of training share: caches of small simulated releases, and run/train.py."""

import importlib.util
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
            path = build(
                find_release(name, root / "data"),
                Settings(challenge, margin=0.1 if challenge == 1 else 0),
                root / "cache",
            ).path
            if challenge == 1:
                add(path, 1)
    return root / "cache"


TINY = ("--set", "width=8", "depth=1", "--amp", "off", "--batch-size", "16")


def command(caches, out, *arguments):
    """run/train.py as a command line; a tiny tcn, unless arguments say otherwise."""
    return [
        sys.executable,
        str(ROOT / "run" / "train.py"),
        "--cache",
        str(caches),
        "--out",
        str(out),
        *TINY,
        *map(str, arguments),
    ]


@pytest.fixture
def train(monkeypatch, caches, tmp_path, capsys):
    """Calls run/train.py in this process: train(*arguments) -> what it printed. Raises what it raises. Runs lie in tmp_path/out."""
    import torch

    from eeg.train import device

    monkeypatch.setattr(
        device, "settle_threads", lambda threads: None
    )  # once torch has worked, some of it cannot be changed
    monkeypatch.setattr(device, "keep_freed_memory", lambda: None)

    def call(*arguments):
        spec = importlib.util.spec_from_file_location("train", ROOT / "run" / "train.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", command(caches, tmp_path / "out", *arguments)[1:])
        capsys.readouterr()
        state = torch.get_rng_state()
        module.main()
        torch.set_rng_state(state)
        return capsys.readouterr().out

    call.out = tmp_path / "out"
    return call
