"""run/train.py: what a run learns and leaves behind."""

import json

import h5py
import numpy as np
import pytest
import torch

import eeg.models
from eeg import UserError
from eeg.data.cache import Cache, cache_path
from eeg.runs.run import Run
from eeg.score.predict import predict
from eeg.train import trainer as module
from tests.train.trained import the_run, weights


def test_what_a_run_leaves(train, caches):
    printed = train("--challenge", 1, "--epochs", 3)
    run = the_run(train.out)
    assert run.name.startswith("c1_tcn/20")
    assert run.status == "finished"
    assert "simulated data" in printed
    config, epochs = run.config, run.history["epochs"]
    assert config["target"] == "rt_from_stimulus"
    assert config["train"]["lr"] == 3e-3
    assert config["simulated"]
    assert config["precision"] == "fp32"
    assert config["versions"]["torch"] == torch.__version__
    assert config["split"]["train"]["releases"] == ["R1"]
    assert config["split"]["valid"]["releases"] == ["R5"]
    assert [entry["epoch"] for entry in epochs] == [1, 2, 3]
    assert all(entry["skipped_steps"] == 0 for entry in epochs)
    assert len(Run(run.folder).history["events"]) == 0
    assert len(json.loads((run.folder / "timing.json").read_text())["epochs"]) == 3
    for name in ("last", "best"):
        note = json.loads((run.folder / "checkpoints" / f"{name}.json").read_text())
        content = (run.folder / "checkpoints" / f"{name}.pt").read_bytes()
        assert note["sha256"] == __import__("hashlib").sha256(content).hexdigest()
        assert note["settings"] == config["model"]
    # the exported weights are the best epoch's: their NRMSE, by hand, is the best of the history
    with h5py.File(cache_path(caches, 1, "R5"), "r") as f:
        keep = ~f["metadata"]["copy"]
        x, y = torch.from_numpy(f["X"][()][keep][:, :, 10:210]), f["y"][()][keep]
    with torch.no_grad():
        p = weights(run.folder)(x)[:, 0].numpy()
    nrmse = np.sqrt(((p - y) ** 2).mean()) / y.std()
    assert nrmse == pytest.approx(min(entry["valid"]["nrmse"] for entry in epochs), rel=1e-5)
    train_y = Cache(cache_path(caches, 1, "R1"))
    mean = train_y.y[~train_y.metadata["copy"]].mean()
    assert epochs[0]["valid"]["mean_predictor"] == pytest.approx(
        np.sqrt(((mean - y) ** 2).mean()) / y.std()
    )


def test_it_learns(train):
    """A window's answer is drawn toward what its label was: a few epochs on six simulated subjects
    suffice to see it."""
    train("--challenge", 1, "--epochs", 12, "--lr", 0.01, "--augment", "--ema", 0.5)
    epochs = the_run(train.out).history["epochs"]
    assert epochs[-1]["train"]["loss"] < 0.9 * epochs[0]["train"]["loss"]
    assert epochs[-1]["valid"]["nrmse"] < 0.7 * epochs[0]["valid"]["nrmse"]  # on other subjects


@pytest.mark.parametrize(
    "options, loss",
    [
        (("--target", "correct"), "cross-entropy"),
        (("--target", "rt_from_trialstart", "--loss", "focal"), "focal"),
        (("--model", "hybrid", "--set", "width=16", "depth=1", "--features", "layer"), "mse"),
        (("--model", "hybrid", "--set", "width=16", "depth=1", "--schedule", "onecycle"), "mse"),
        (("--amp", "bf16", "--balance", "--clip", 0), "time"),
    ],
)
def test_other_things_to_learn_and_ways_to(train, options, loss):
    train("--challenge", 1, "--epochs", 1, *options)
    run = the_run(train.out)
    assert run.finished and run.config["loss"] == loss
    valid = run.history["epochs"][0]["valid"]
    assert 0 <= valid["auroc"] <= 1 if loss == "cross-entropy" else 0.3 < valid["nrmse"] < 3


@pytest.mark.parametrize("options", [(), ("--target", "factors", "--aux", "age")])
def test_challenge_2(train, caches, options):
    printed = train("--challenge", 2, "--epochs", 1, *options)
    run = the_run(train.out)
    model = weights(run.folder, 2)
    entry = run.history["epochs"][0]
    assert model.shrink[0] == pytest.approx(entry["shrink"])
    assert 0 <= entry["shrink"] <= 1
    assert f"shrunk to {entry['shrink']:.2f}" in printed
    # no other strength would have been better on the validation windows
    known = Cache(cache_path(caches, 2, "R5"))
    rows = np.flatnonzero(~known.metadata["copy"])
    y, p = known.y[rows], predict(model, known, rows)[:, 0]
    model.shrink.fill_(1.0)
    full, center = predict(model, known, rows)[:, 0], model.center[0].item()
    strengths = np.linspace(0, 1, 1001)
    best = lambda rows: min(
        strengths, key=lambda s: ((center + s * (full[rows] - center) - y[rows]) ** 2).mean()
    )
    assert ((p - y) ** 2).mean() <= (
        (center + best(slice(None)) * (full - center) - y) ** 2
    ).mean() + 1e-6
    # the figure is of subjects on which the strength was not fitted: the one with most windows
    # against the other two
    most = known.metadata["subject"][rows] == max(
        np.unique(known.metadata["subject"][rows]),
        key=lambda name: (known.metadata["subject"][rows] == name).sum(),
    )
    scored = np.empty(len(y))
    for half in (most, ~most):
        scored[half] = center + best(~half) * (full[half] - center)
    assert entry["valid"]["nrmse"] == pytest.approx(
        np.sqrt(((scored - y) ** 2).mean()) / y.std(), rel=1e-3
    )
    assert entry["valid"]["nrmse"] > np.sqrt(((p - y) ** 2).mean()) / y.std()
    cache = Cache(cache_path(caches, 2, "R1"))
    kept = cache.metadata[~cache.metadata["copy"]]
    assert model.center[0].item() == pytest.approx(kept["externalizing"].mean(), rel=1e-5)
    assert model.n_outputs == (4 if options else 1)
    assert list(model.aux) == (["age"] if options else ["age", "sex"])


def test_one_validation_subject_cannot_validate_challenge_2(train):
    with pytest.raises(
        UserError,
        match="validation side has 1 subject, .* needs at least 2: name more releases with --valid",
    ):
        train("--challenge", 2, "--epochs", 1, "--max-recordings", 1)


def test_mixup_mixes_all_that_the_model_sees(train, caches, monkeypatch):
    """A window, its stored features and its label are the same mixture."""
    work, seen = module.Trainer._tensors, []

    def tensors(self, batch):
        found = work(self, batch)
        seen.append((batch.rows.copy(), batch.mix.copy(), batch.x.copy(), found))
        return found

    monkeypatch.setattr(module.Trainer, "_tensors", tensors)
    options = "--challenge 1 --epochs 1 --model hybrid --augment mix=0.4 --set width=8 depth=1"
    train(*options.split())
    cache = Cache([cache_path(caches, 1, "R1"), cache_path(caches, 1, "R5")])
    assert seen and any((mix < 1).any() for _, mix, _, _ in seen)
    for rows, mix, x, found in seen:
        before = np.roll(np.arange(len(rows)), 1)
        for name, plain in (("x", x), ("features", cache.features[rows])):
            share = mix.reshape(-1, *[1] * (plain.ndim - 1))
            wanted = share * plain + (1 - share) * plain[before]
            np.testing.assert_allclose(found[name].numpy(), wanted, rtol=1e-4, atol=1e-3)
        label = mix * found["y"][:, 0].numpy() + (1 - mix) * found["other"][:, 0].numpy()
        wanted = mix * cache.y[rows] + (1 - mix) * cache.y[rows[before]]
        np.testing.assert_allclose(label, wanted, rtol=1e-5)


def test_models_are_listed_with_what_they_are(train):
    printed = train("--list-models")
    for name in eeg.models.MODELS:
        count = sum(p.numel() for p in eeg.models.build(name).parameters())
        assert f"{count:,}" in next(
            line for line in printed.splitlines() if line.split()[0] == name
        )
