"""What a run has left behind, for tests of run/train.py."""

import torch

import eeg.models
from eeg.runs.run import Run, find_runs


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
    return {name: value.numpy().tobytes() for name, value in state.items()}, (
        folder / "history.json"
    ).read_bytes()
