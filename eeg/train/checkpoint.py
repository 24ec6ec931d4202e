"""Checkpoints: a run resumes from them exactly, whatever a kill, a full disk or a torn file did.

    last.pt  last.json          the newest state, and its epoch, batch, metrics, SHA-256 of the .pt
    previous.pt  previous.json  the one before it
    best.pt  best.json          the best epoch's weights: {"model", "settings", "epoch"}

A state is written to last.pt.partial, flushed and read back; then last becomes previous and the
partial last. A kill between any two of these steps leaves a file whose digest a .json knows.
"""

import hashlib
import io
import json
import os
import pickle
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

import eeg
from eeg import UserError
from eeg.files import partial, sync_folder, trouble, write_through, write_whole
from eeg.machine.recovery import on_host
from eeg.runs.run import Run
from eeg.train.progress import finite
from eeg.train.validation import Score


def save(folder: Path, name: str, state: dict, about: dict) -> None:
    """Write `state` as <name>.pt and `about` as <name>.json; the "last" before becomes "previous".
    Raises OSError where the disk is full; what was there stays."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if name == "last":
        finish(folder)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    about = about | {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    file, note = folder / f"{name}.pt", folder / f"{name}.json"
    try:
        write_through(partial(file), content)
        write_through(partial(note), json.dumps(about, indent=1).encode())
        if partial(file).read_bytes() != content:
            raise OSError(5, "what was written reads back as something else", str(partial(file)))
    except OSError:
        partial(file).unlink(missing_ok=True)
        partial(note).unlink(missing_ok=True)
        raise
    if name == "last":
        if note.exists():
            os.replace(note, folder / "previous.json")  # from here on `finish` would complete it
        finish(folder)
    else:
        os.replace(partial(file), file)
        os.replace(partial(note), note)
    sync_folder(folder)


@contextmanager
def finishing(folder: Path, path: Path, size: int | None = None) -> Iterator[None]:
    """While the last files of a run are written, raise UserError in place of OSError, with the
    command that writes them when there is room."""
    try:
        yield
    except OSError as e:
        what = trouble(e, path, "--out DIR in a new run", size)
        how = f"when there is room, resume this one with: {Run(folder).resume}"
        raise UserError(f"{what}; {how}") from None


def finish(folder: Path) -> None:
    """Rename the files of a save of last, or complete the renames of one that was killed."""
    file, note = folder / "last.pt", folder / "last.json"
    if note.exists() or noted(partial(note)) is None:
        return  # nothing was begun, or not even the writing came to its end
    if partial(file).exists():
        if file.exists():
            os.replace(file, folder / "previous.pt")
        os.replace(partial(file), file)
    os.replace(partial(note), note)


def begun(folder: Path) -> bool:
    """Whether there is a state to resume from, or what is left of one."""
    return any(noted(note) for note in folder.glob("*.json*"))


def noted(note: Path) -> dict | None:
    """What a .json says, None where it is torn or missing."""
    try:
        about = json.loads(note.read_bytes())
        return about if {"sha256", "epoch", "batch"} <= about.keys() else None
    except (FileNotFoundError, ValueError, AttributeError):
        return None


def load(folder: Path) -> tuple[dict | None, dict | None, list[str]]:
    """-> (the newest state that is whole, its .json, [what was wrong with others]), or (None, None,
    [...]) where there is none.

    A file is read if a .json knows its digest, and then only its tensors and plain values.
    """
    last, previous = Path(folder) / "last.pt", Path(folder) / "previous.pt"
    files = [last, previous, partial(last)]
    notes = [last.with_suffix(".json"), previous.with_suffix(".json")]
    notes.append(partial(notes[0]))
    known = {about["sha256"]: about for about in map(noted, notes) if about}
    wrong, found = [], []
    for file in files:
        if not file.exists():
            continue
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if digest in known:
            found.append((known[digest], file))
        elif file.suffix == ".pt":
            wrong.append(f"{file.name} is not what was saved (its SHA-256 stands in no .json)")
    when = lambda entry: (entry[0]["epoch"], entry[0]["batch"])
    for about, file in sorted(found, key=when, reverse=True):
        try:
            return torch.load(file, map_location="cpu", weights_only=True), about, wrong
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as e:
            wrong.append(f"{file.name}: {' '.join(str(e).split())[:200]}")
    return None, None, wrong


def export(path: Path, model_settings: dict, weights: dict) -> None:
    """Write the weights a submission and evaluation read: {"settings", "state"}."""
    buffer = io.BytesIO()
    torch.save({"settings": model_settings, "state": weights}, buffer)
    write_whole(path, buffer.getvalue())
    sync_folder(path.parent)


# what a checkpoint of a Trainer holds: all that decides what the run does next


def snapshot(trainer) -> dict:
    """The state of a Trainer. Work for the guard: it reads the device."""
    generators = {"cpu": torch.get_rng_state()}
    if trainer.stepper.guard.device.type == "cuda":
        generators["cuda"] = torch.cuda.get_rng_state(trainer.stepper.home)
    return on_host(
        {
            "epoch": trainer.epoch,
            "batch": trainer.batch,
            "sums": dict(trainer.sums),
            "waited": trainer.waited,
            "best": trainer.best,
            "lowest": vars(trainer.lowest),
            **trainer.stepper.state(),
            "schedule": trainer.schedule.state,
            "generators": generators,
            "history": trainer.journal.history,
            "left_out": sorted(trainer.damaged.rows),
        }
    )


def restore(trainer, state: dict) -> None:
    """Resume from a snapshot."""
    trainer.stepper.restore(state)
    trainer.schedule.state = dict(state["schedule"])
    trainer.epoch, trainer.batch, trainer.waited = state["epoch"], state["batch"], state["waited"]
    trainer.best, trainer.sums = dict(state["best"]), Counter(state["sums"])
    # older runs kept the epoch with the lowest value
    lowest = {"value": trainer.best["value"], "figures": {}, "shrink": 1.0, "share": 0.0}
    trainer.lowest = Score(**(lowest | {"errors": []} | state.get("lowest", {})))
    trainer.damaged.rows = set(state.get("left_out", ()))  # older runs did not look
    if trainer.damaged.rows:
        trainer.validation.leave_out_damaged()
    journal, home = trainer.journal, trainer.stepper.home
    journal.history = state["history"]
    trainer.events_shared = len(journal.history["events"])
    # An epoch that was trained twice is timed by the second time.
    known = {entry["epoch"]: entry for entry in journal.timing["epochs"]}
    journal.timing["epochs"] = [known[epoch] for epoch in sorted(known) if epoch < trainer.epoch]
    torch.set_rng_state(state["generators"]["cpu"])
    if "cuda" in state["generators"] and home.type == "cuda":
        torch.cuda.set_rng_state(state["generators"]["cuda"], home)


def describe(trainer) -> dict:
    """The content of the .json beside a checkpoint."""
    epochs = trainer.journal.history["epochs"]
    versions = {"eeg": eeg.__version__, "torch": torch.__version__, "numpy": np.__version__}
    return {
        "epoch": trainer.epoch,
        "batch": trainer.batch,
        "best_epoch": trainer.best["epoch"],
        "metrics": epochs[-1]["valid"] if epochs else {},
        "best": finite(trainer.best["value"]),
        "settings": trainer.stepper.model.settings,
        "versions": versions,
    }
