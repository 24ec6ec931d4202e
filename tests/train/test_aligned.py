"""--align: what a run learns from, is scored on and resumes with; what is refused."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from eeg import UserError
from eeg.data.batches import SIZE_UV
from eeg.data.cache import Cache, cache_path
from eeg.score.metrics import nrmse
from eeg.train import trainer as module
from tests.conftest import ROOT
from tests.train.interruptions import Killed, faulty
from tests.train.trained import ENVIRONMENT, killed, left_behind, the_run, weights


def aligned_by_hand(cache, kind):
    """(N, 129, 220): each subject's windows by NumPy's eigenvalues."""
    x = np.stack([cache[row] for row in range(len(cache))]).astype(float)
    for name in np.unique(cache.metadata["subject"]):
        own = cache.metadata["subject"] == name
        covariance = np.mean([np.cov(window, bias=True) for window in x[own]], 0)
        if kind == "spread":
            covariance = np.diag(covariance.diagonal())
        inverse = np.linalg.pinv(covariance, rcond=1e-9, hermitian=True)
        values, vectors = np.linalg.eigh(inverse)
        x[own] = SIZE_UV * (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T @ x[own]
    return x


@pytest.mark.parametrize("kind, blend", [("spread", "none"), ("euclidean", "ridge")])
def test_network_ridge_and_evaluation_take_windows_aligned_by_their_own_subject(
    train, caches, kind, blend
):
    """The test subjects' own statistics are those of their windows: here they are R5's, which
    another release validates."""
    options = ("--challenge", 1, "--epochs", 2, "--train", "R1", "--align", kind, "--blend", blend)
    train(*options, "--valid", "R5", "--lr", "3e-4")
    run = the_run(train.out)
    assert run.align == kind
    cache = Cache(cache_path(caches, 1, "R5"))
    x = torch.from_numpy(aligned_by_hand(cache, kind)[:, :, 10:210]).float()
    with torch.no_grad():
        model = weights(run.folder)
        if blend == "ridge":
            model.share.fill_(0.7)  # whatever is chosen for so few subjects
            model.shrink.fill_(0.6)
            saved = {"settings": model.settings, "state": model.state_dict()}
            torch.save(saved, run.weights)
            assert model.beside(x).std() > 0
        p = model(x)[:, 0].double().numpy()
    scores = train.out / "scores.json"
    printed = train.other("evaluate", run.folder, "--release", "R5", "--json", scores)
    assert json.loads(scores.read_text())["challenge1"]["nrmse"] == pytest.approx(
        nrmse(cache.y, p), rel=1e-4
    )
    assert f"note: {run.name} aligns each subject by all of its windows (--align)" in printed
    valid = ~cache.metadata["copy"]
    if blend == "none":
        assert run.best[1] == pytest.approx(nrmse(cache.y[valid], p[valid]), rel=1e-4)


def test_a_ridge_is_fitted_to_aligned_windows(train, caches):
    """By which it bounds samples: eight of their deviations."""
    found = []
    for kind in ("none", "spread"):
        train.other("train", "--challenge", 1, "--model", "ridge", "--align", kind)
        found.append(the_run(train.out))
        shutil.move(train.out, train.out.with_name(kind))
        folder = train.out.with_name(kind) / found[-1].name
        found[-1] = weights(folder)
    x = aligned_by_hand(cache := Cache(cache_path(caches, 1, "R1")), "spread")
    limits = np.median(x[:, :, 10:210].std(2)[~cache.metadata["copy"]], 0)
    plain, own = (model.network.limit.numpy() / 8 for model in found)
    np.testing.assert_allclose(own[:128], limits[:128], rtol=1e-4)
    assert not np.allclose(plain[:128], limits[:128], rtol=0.1)


def test_killed_it_ends_as_if_nothing_had_been(train, monkeypatch):
    options = "--challenge 1 --epochs 2 --align euclidean".split()
    train(*options)
    reference = left_behind(the_run(train.out).folder)
    shutil.rmtree(train.out)
    with monkeypatch.context() as patch:
        step = faulty({5: Killed()}, module.Trainer, "_train_batch")
        patch.setattr(module.Trainer, "_train_batch", step)
        with pytest.raises(Killed):
            train(*options, "--checkpoint-minutes", 0)
    folder = the_run(train.out).folder
    killed(folder)
    train("--resume", folder)
    assert left_behind(folder) == reference


def test_it_is_not_submitted(train, caches):
    """The command ends with 1 and one sentence that says why, and what to do."""
    train("--challenge", 1, "--epochs", 1, "--align", "spread")
    run = the_run(train.out)
    line = [sys.executable, ROOT / "run" / "submit.py", run.folder, "--constant", 2]
    line += ["--cache", caches, "--zip", train.out / "s.zip", "--anyway"]
    done = subprocess.run(
        list(map(str, line)), env=ENVIRONMENT, capture_output=True, text=True, timeout=100
    )
    (said,) = done.stderr.splitlines()
    assert done.returncode == 1 and not (train.out / "s.zip").exists()
    assert f"error: {run.name} aligns each subject by all of its windows (--align spread), " in said
    assert "the server shows single windows of unknown subjects; train one with: python" in said
    assert "--align" not in said.split("train one with")[1]


def test_what_does_not_go_together(train, capsys):
    small = "--set width=8 depth=1 heads=2 inner=16 --epochs 1 --amp off --members 1".split()
    tuned = ("--challenge", 1, "--model", "transformer", *small, "--blend", "none")
    train.other("train", *tuned, "--align", "euclidean")
    encoder = the_run(train.out)
    with pytest.raises(UserError, match="was trained with --align euclidean, and embeddings are"):
        train.other("embed", encoder.folder, "--release", "R1")
    train.other("train", *tuned, "--init", encoder.folder, "--name", "tuned")
    config = json.loads(next(train.out.glob("tuned/*/config.json")).read_text())
    assert config["train"]["align"] == "euclidean"  # as the encoder's
    for words, why in (
        (("--model", "hybrid", "--features", "layer"), "features are those of windows in uV"),
        (("--align", "whiten"), "invalid choice: 'whiten'"),
    ):
        with pytest.raises(SystemExit):
            train.other("train", "--challenge", 1, "--align", "spread", *words)
        assert why in capsys.readouterr().err
