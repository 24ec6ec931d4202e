"""run/train.py: windows that hold NaN or infinity."""

import re
import shutil
import signal

import h5py
import numpy as np
import pytest
import torch

from eeg import UserError
from eeg.data.cache import Cache, cache_path
from eeg.score.predict import predict
from eeg.train.optim import Stepper
from tests.train.interruptions import sends
from tests.train.trained import left_behind, the_run, weights


def damaged(caches, tmp_path, release, windows, value=np.nan, challenge=1):
    """The caches, of which these windows of one have `value` in channel E3, and the last of them in
    E7, too."""
    folder = tmp_path / "cache"
    if not folder.exists():
        shutil.copytree(caches, folder)
    with h5py.File(cache_path(folder, challenge, release), "r+") as f:
        for window in windows:
            f["X"][window, 2, 50:60] = value
        f["X"][windows[-1], 6, 120] = value
    return folder


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_windows_with_nan_or_infinity_are_left_out_and_named(train, caches, tmp_path, value):
    """The run is as if the cache had never had them, but for what it says. One batch is all of
    them: its step is skipped."""
    rows = np.flatnonzero(~Cache(cache_path(caches, 1, "R1")).metadata["copy"])
    some = [int(row) for row in rows[[3, 40, 41, 90]]]
    folder = damaged(caches, tmp_path, "R1", some, value)
    printed = train("--challenge", 1, "--epochs", 2, "--cache", folder, "--batch-size", 7)
    run = the_run(train.out)
    path = cache_path(folder, 1, "R1")
    events = [event["text"] for event in run.history["events"]]
    assert len(events) == 3 and all(event["kind"] == "left out" for event in run.history["events"])
    found = [
        int(
            re.match(
                rf"{path}: window (\d+) \(sub-NDAR\w+, contrastChangeDetection run \d\) holds NaN "
                rf"or infinity in (?:channel E3|channels E3, E7), left out of training",
                text,
            )[1]
        )
        for text in events
    ]
    assert len(set(found)) == 3
    assert set(found) <= set(some)
    assert events[2].endswith("; what follows is counted only")
    assert re.search(
        rf"left out 4 windows with NaN or infinity: 4 of {path}, rebuild it with: python "
        rf"run/cache.py .*--release R1 .*--force",
        printed,
    )
    assert all(
        entry["skipped_steps"] == 0 and entry["train"]["loss"] < 10
        for entry in run.history["epochs"]
    )


def test_windows_that_are_left_out_change_nothing_else(train, caches, tmp_path):
    """A batch without its damaged windows is what a batch of the others would have been: by the
    trainer, and by a copy of it that never saw them."""
    row = int(np.flatnonzero(~Cache(cache_path(caches, 1, "R1")).metadata["copy"])[3])
    seen, work = [], Stepper._forward_backward

    def step(self, model, batch, weight):
        seen.append({name: value.clone() for name, value in batch.items()})
        return work(self, model, batch, weight)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepper, "_forward_backward", step)
        train("--challenge", 1, "--epochs", 1)
        whole, seen = seen, []
        train("--challenge", 1, "--epochs", 1, "--cache", damaged(caches, tmp_path, "R1", [row]))
    assert len(whole) == len(seen)
    assert sum(len(a["x"]) - len(b["x"]) for a, b in zip(whole, seen)) in (0, 1)
    for a, b in zip(whole, seen):
        kept = [i for i in range(len(a["x"])) if any(torch.equal(a["x"][i], x) for x in b["x"])]
        assert len(kept) == len(b["x"])
        assert torch.equal(a["x"][kept], b["x"])
        assert torch.equal(a["y"][kept], b["y"])


def test_a_killed_run_remembers_what_it_left_out(train, caches, tmp_path, monkeypatch):
    rows = np.flatnonzero(~Cache(cache_path(caches, 1, "R1")).metadata["copy"])
    folder = damaged(caches, tmp_path, "R1", [int(row) for row in rows[::9]])
    damaged(caches, tmp_path, "R5", [4, 5])
    options = ("--challenge", 1, "--epochs", 3, "--cache", folder)
    train(*options)
    reference = left_behind(the_run(train.out).folder)
    shutil.rmtree(train.out)
    with monkeypatch.context() as patch:
        sends(signal.SIGTERM, "_train_batch", 9, patch)
        train(*options)
    printed = train("--resume", "--cache", folder)
    assert left_behind(the_run(train.out).folder) == reference
    assert f"left out {len(rows[::9]) + 2} windows with NaN or infinity" in printed


def test_validation_windows_with_nan_do_not_validate(train, caches, tmp_path):
    """The score is that of the others, and the mean predictor's too."""
    rows = np.flatnonzero(~Cache(cache_path(caches, 1, "R5")).metadata["copy"])
    folder = damaged(caches, tmp_path, "R5", [int(rows[2])])
    train("--challenge", 1, "--epochs", 1, "--cache", folder)
    run, cache = the_run(train.out), Cache(cache_path(folder, 1, "R5"))
    others = np.delete(rows, 2)
    y, p = cache.y[others], predict(weights(run.folder), cache, others)[:, 0]
    valid = run.history["epochs"][0]["valid"]
    assert valid["nrmse"] == pytest.approx(np.sqrt(((p - y) ** 2).mean()) / y.std(), rel=1e-5)
    mean = weights(run.folder).center[0].item()
    assert valid["mean_predictor"] == pytest.approx(
        np.sqrt(((mean - y) ** 2).mean()) / y.std(), rel=1e-5
    )
    (event,) = run.history["events"]
    assert f"window {rows[2]} " in event["text"]
    assert event["text"].endswith(
        "holds NaN or infinity in channels E3, E7, left out of validation"
    )
    with h5py.File(cache_path(folder, 1, "R5"), "r+") as f:
        f["X"][:, 0] = np.inf
    with pytest.raises(UserError, match="all .* validation windows hold NaN or infinity"):
        train("--challenge", 1, "--epochs", 1, "--cache", folder)
