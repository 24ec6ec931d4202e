"""All that decides what a run does next, as a checkpoint holds it."""

from collections import Counter

import numpy as np
import torch

import eeg
from eeg.train.progress import finite
from eeg.train.recovery import on_host


def snapshot(trainer) -> dict:
    """The state of a Trainer. Work for the guard: it reads the device."""
    return on_host(
        {
            "epoch": trainer.epoch,
            "batch": trainer.batch,
            "sums": dict(trainer.sums),
            "waited": trainer.waited,
            "best": trainer.best,
            **trainer.stepper.state(),
            "schedule": trainer.schedule.state,
            "generators": _generators(trainer),
            "history": trainer.journal.history,
            "left_out": sorted(trainer.damaged.rows),
        }
    )


def _generators(trainer):
    found = {"cpu": torch.get_rng_state()}
    if trainer.stepper.guard.device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(trainer.stepper.home)
    return found


def restore(trainer, state: dict) -> None:
    """Resume from a snapshot."""
    trainer.stepper.restore(state)
    trainer.schedule.state = dict(state["schedule"])
    trainer.epoch, trainer.batch, trainer.waited = state["epoch"], state["batch"], state["waited"]
    trainer.best, trainer.sums = dict(state["best"]), Counter(state["sums"])
    trainer.damaged.rows = set(state.get("left_out", ()))  # older runs did not look
    if trainer.damaged.rows:
        trainer.validation.leave_out_damaged()
    journal, home = trainer.journal, trainer.stepper.home
    journal.history = state["history"]
    trainer.events_shared = len(journal.history["events"])
    # an epoch that was trained twice is timed by the second time
    known = {entry["epoch"]: entry for entry in journal.timing["epochs"]}
    journal.timing["epochs"] = [known[epoch] for epoch in sorted(known) if epoch < trainer.epoch]
    torch.set_rng_state(state["generators"]["cpu"])
    if "cuda" in state["generators"] and home.type == "cuda":
        torch.cuda.set_rng_state(state["generators"]["cuda"], home)


def about(trainer) -> dict:
    """What stands in the .json beside a checkpoint."""
    epochs = trainer.journal.history["epochs"]
    return {
        "epoch": trainer.epoch,
        "batch": trainer.batch,
        "best_epoch": trainer.best["epoch"],
        "metrics": epochs[-1]["valid"] if epochs else {},
        "best": finite(trainer.best["value"]),
        "settings": trainer.stepper.model.settings,
        "versions": {
            "eeg": eeg.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }
