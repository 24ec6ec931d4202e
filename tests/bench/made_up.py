"""Cells that no training has filled: numbers that a test chooses."""

from eeg.score.baselines import TRAINING_MEAN


def cell_about(nrmse, half=0.05, mean=1.0, oracle=0.5, best_epoch=8):
    """What a cell holds, as eeg/bench/quality.py writes it. half: of its interval, or None."""
    ends = {} if half is None else {"low": nrmse - half, "high": nrmse + half}
    label_only = {"name": "label-only: the subject's earlier trials", "nrmse": 0.95}
    return {
        "test": {"nrmse": nrmse, "windows": 100, "subjects": 24, **ends},
        "baselines": [{"name": TRAINING_MEAN, "nrmse": mean}, label_only],
        "oracle": oracle,
        "best_epoch": best_epoch,
        "epochs": 10,
        "curves": {"train": [0.9] * 10, "valid": [0.95] * 10},
    }
