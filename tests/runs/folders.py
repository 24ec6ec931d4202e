"""Run folders as the trainer leaves them, written by hand."""

import json
import os
import socket
import time
from pathlib import Path

TARGETS = {1: "rt_from_stimulus", 2: "externalizing"}


def write_json(path: Path, content) -> None:
    path.write_text(json.dumps(content))


def side(release: str, people: int) -> dict:
    subjects = [f"{release}_{i}" for i in range(people)]
    return {"releases": [release], "windows": 50 * people, "subjects": subjects}


def write_run(out: Path, name: str, status="finished", nrmse=(0.9, 0.8, 0.85), **more) -> Path:
    """A run folder with an NRMSE for each epoch. -> its path

    more: challenge; target; weights: False leaves them out; valid: the release that validates, and
    how many subjects; options: of training; anything else goes into state.json.
    """
    challenge = more.pop("challenge", 1)
    target, weights = more.pop("target", TARGETS[challenge]), more.pop("weights", True)
    valid, options = more.pop("valid", ("R5", 9)), more.pop("options", {})
    folder = out / name
    folder.mkdir(parents=True)
    config = {"challenge": challenge, "target": target, "name": folder.parent.name}
    if status == "finished":
        config |= {"train": options, "split": {"train": side("R1", 20), "valid": side(*valid)}}
    write_json(folder / "config.json", config)
    epochs = [{"epoch": i + 1, "valid": {"nrmse": value}} for i, value in enumerate(nrmse)]
    write_json(folder / "history.json", {"epochs": epochs, "events": []})
    state = {"status": status, "pid": os.getpid(), "host": socket.gethostname()}
    state |= {"epoch": len(nrmse), "epochs": 9, "updated": time.time()}
    write_json(folder / "state.json", state | more)
    if weights and status == "finished":
        (folder / f"weights_challenge_{challenge}.pt").write_bytes(b"")
    return folder
