"""Shared by the tests of scoring: caches of noise, run folders, scripts called in this process."""

import importlib.util
import json
import os
import shutil
import socket
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import eeg.models
from eeg.data.build import Settings, build
from eeg.data.cache import cache_path
from eeg.data.release import find_release
from eeg.runs.run import Run
from tests.conftest import LABELS, trial_events, write_recording

ROOT = Path(__file__).resolve().parents[2]
# subjects; of the test releases enough for an interval
PEOPLE = {"R1": 5, "R5": 4, "R6": 8, "R7": 4}


def subject_names(release):
    return [f"NDAR{release}{i:03d}XX" for i in range(PEOPLE[release])]


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    """The folder with caches of R1, R5, R6 and R7 for both challenges (challenge 1: 0.1 s margin).

    Signals are noise; response times and factors differ between subjects.
    """
    root = tmp_path_factory.mktemp("score")
    for r, name in enumerate(PEOPLE):
        folder = root / "data" / f"{name}_L100_bdf"
        for i, subject in enumerate(subject_names(name)):
            write_recording(
                folder,
                subject,
                trial_events(3 + i % 5, rt=1.1 + 0.2 * (i % 5) + 0.07 * (i // 5) + 0.05 * r),
                seconds=40,
                seed=10 * r + i,
            )
        rows = "".join(
            f"sub-{subject}\tM\t{8 + i}\t0.1\t0.2\t0.3\t{0.4 * i - 0.1 * r:.1f}\n"
            for i, subject in enumerate(subject_names(name))
        )
        (folder / "participants.tsv").write_text(
            "participant_id\tsex\tage\tp_factor\tattention\tinternalizing\texternalizing\n" + rows
        )
        for challenge in (1, 2):
            build(
                find_release(name, root / "data"),
                Settings(challenge, margin_s=0.1 if challenge == 1 else 0),
                root / "cache",
            )
    assert cache_path(root / "cache", 2, "R7").exists()
    return root / "cache"


def write_run(
    out,
    name,
    challenge=1,
    seed=0,
    head="time",
    center=None,
    sides=None,
    state=None,
    nrmse=0.9,
    network="tcn",
    train=None,
    **changed,
):
    """A finished run of a tiny untrained network.

    center: its answer to every window. sides: {"train": subjects, "valid": subjects} instead of
    R1's and R5's. train: settings of its training. changed: entries of config.json.
    """
    torch.manual_seed(seed)
    heads = {"head": head if challenge == 1 else "number"} if network == "tcn" else {}
    model = eeg.models.build(network, width=8, depth=1, **heads)
    if center is not None:
        model.center[:], model.shrink[:] = center, 0
    split = {}
    for side, release in (("train", "R1"), ("valid", "R5")):
        names = (sides or {}).get(side, subject_names(release))
        releases = sorted({name[4:6] for name in names})
        split[side] = {"releases": releases, "windows": 0, "subjects": names}
    config = {
        "challenge": challenge,
        "target": {1: "rt_from_stimulus", 2: "externalizing"}[challenge],
        "model": model.settings,
        "train": {"lr": 1e-3, "seed": seed, "keep_copies": False, "mini": False} | (train or {}),
        "split": split,
        "input": {"sfreq": 100.0, "window_samples": 200, "channels": LABELS},
        "device": "cpu",
    }
    epochs = [{"epoch": i + 1, "valid": {"nrmse": nrmse + 0.1 * (i != 1)}} for i in range(3)]
    run = save_run(Path(out) / name, model, config | changed, epochs, state)
    timing = {"epochs": [{"epoch": i + 1, "seconds": 41.3} for i in range(3)], "events": []}
    (run.folder / "timing.json").write_text(json.dumps(timing))
    return Run(run.folder)


def save_run(folder, model, config, epochs, state=None):
    """A run folder as the trainer leaves it when it has finished. -> Run"""
    folder.mkdir(parents=True)
    said = {"status": "finished", "pid": os.getpid(), "host": socket.gethostname()}
    said |= {"updated": time.time()} | (state or {})
    history = {"epochs": epochs, "events": []}
    for file, content in (("config", config), ("history", history), ("state", said)):
        (folder / f"{file}.json").write_text(json.dumps(content))
    weights = {"settings": model.settings, "state": model.state_dict()}
    torch.save(weights, folder / f"weights_challenge_{config['challenge']}.pt")
    return Run(folder)


def write_fold(out, nrmse, **about):
    """A finished run that is one of five folds."""
    names = subject_names("R1")
    sides = {"train": names[1:], "valid": names[:1]}
    return write_run(out, "c1_cv/1", nrmse=nrmse, sides=sides, train={"fold": [1, 5]}, **about)


def copied(caches, folder, challenge, releases=PEOPLE):
    """Copies of the caches, which a test may change. -> folder"""
    folder.mkdir()
    for release in releases:
        shutil.copy(cache_path(caches, challenge, release), folder)
    return folder


def by_hand(run, folder, releases, challenge=1):
    """-> (y, p, metadata) of a run on whole releases, with h5py and torch alone. Challenge 1."""
    import h5py

    saved = torch.load(run.weights, weights_only=True)
    model = eeg.models.build(**saved["settings"])
    model.load_state_dict(saved["state"])
    y, p, metadata = [], [], []
    for name in releases:
        with h5py.File(cache_path(folder, challenge, name), "r") as f, torch.no_grad():
            y.append(f["y"][()])
            metadata.append(f["metadata"][()])
            p.append(model.eval()(torch.from_numpy(f["X"][:, :, 10:210]))[:, 0].numpy())
    return np.concatenate(y), np.concatenate(p), np.concatenate(metadata)


@pytest.fixture
def script(monkeypatch, caches, capsys):
    """script("evaluate", *arguments) calls run/evaluate.py in this process. -> what it printed

    It raises what the script raises.
    """

    def call(name, *arguments):
        spec = importlib.util.spec_from_file_location(name, ROOT / "run" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(
            sys, "argv", [f"{name}.py", "--cache", str(caches), *map(str, arguments)]
        )
        capsys.readouterr()
        module.main()
        return capsys.readouterr().out

    return call
