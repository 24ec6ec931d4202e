"""What a run has left behind, for tests of run/train.py."""

import json
import os

import torch

import eeg.models
from eeg.runs.run import Run, find_runs
from tests.conftest import ROOT

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}  # of child processes


def the_run(out):
    (run,) = find_runs(out)
    return Run(run.folder)


def weights(folder, challenge=1):
    saved = torch.load(folder / f"weights_challenge_{challenge}.pt", weights_only=True)
    model = eeg.models.build(**saved["settings"])
    model.load_state_dict(saved["state"])
    return model.eval()


def left_behind(folder):
    """All that must not depend on interruptions, as bytes."""
    state = torch.load(folder / "weights_challenge_1.pt", weights_only=True)["state"]
    history = (folder / "history.json").read_bytes()
    return {name: value.numpy().tobytes() for name, value in state.items()}, history


def says(folder, **facts):
    """Change what a run says of itself in state.json."""
    path = folder / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def killed(folder):
    """Let a run look as if its process, which is the tests' own, had been killed."""
    says(folder, status="running", pid=2**22 + 1)
