"""run/pretrain.py, and run/train.py --init: what a model takes over, and what of it may change."""

import json
import shutil

import pytest
import torch

import eeg.models
from eeg import UserError
from eeg.models.transformer import Masked
from eeg.runs.run import Run, find_runs
from eeg.train import trainer as module
from eeg.train.options import Options
from eeg.train.validation import Validation
from eeg.transfer import begin as transfer
from tests.train.interruptions import Killed, faulty
from tests.train.trained import killed, the_run, weights

SMALL = "--set width=8 depth=2 heads=2 inner=16".split()
HIDE = ("--release", "R1", *SMALL, "--epochs", 2, "--amp", "off", "--max-recordings", 3)
TUNE = ("--challenge", 1, "--epochs", 1, "--amp", "off", "--batch-size", 16)


def state_of(run):
    return torch.load(run.weights, weights_only=True)["state"]


def left_behind(run):
    state = {name: value.numpy().tobytes() for name, value in state_of(run).items()}
    return state, (run.folder / "history.json").read_bytes()


@pytest.fixture
def encoder(train):
    """A finished run of run/pretrain.py."""
    train.other("pretrain", *HIDE)
    return the_run(train.out)


def tune(train, *arguments):
    """Train with --init. -> (what was printed, the new Run)"""
    known = {run.folder for run in find_runs(train.out)}
    printed = train.other("train", *TUNE, *arguments)
    (new,) = (run for run in find_runs(train.out) if run.folder not in known)
    return printed, new


@pytest.mark.parametrize("model", ["transformer", "conformer"])
def test_killed_while_pretraining_it_ends_as_if_nothing_had_been(train, monkeypatch, model):
    options = (*HIDE, "--model", model)
    train.other("pretrain", *options)
    reference = left_behind(the_run(train.out))
    assert reference[0]
    shutil.rmtree(train.out)
    for owner, name, after, minutes in (
        (module.Trainer, "_train_batch", 2, 0),
        (Validation, "_answers", 1, 5),
        (module.Trainer, "_finish", 0, 5),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, faulty({after + 1: Killed()}, owner, name))
            with pytest.raises(Killed):
                train.other("pretrain", *options, "--checkpoint-minutes", minutes)
        (run,) = find_runs(train.out)
        killed(run.folder)
        assert "pretrain.py --resume" in Run(run.folder).resume
        train.other("pretrain", "--resume", run.folder)
        assert left_behind(Run(run.folder)) == reference, f"killed in {name}, call {after}"
        shutil.rmtree(train.out)


def test_learns_to_restore_and_answers_nothing(train, encoder):
    first, last = (entry["valid"]["nrmse"] for entry in encoder.history["epochs"])
    assert last < first < 1.1 and not encoder.scored
    assert encoder.best == (2, last) and "nrmse" in train.other("monitor")
    for script in ("evaluate", "submit", "compare"):
        with pytest.raises(UserError, match="answers nothing yet; train a model that begins"):
            train.other(script, encoder.folder)
    assert "pretrained without labels" in train.other("report", encoder.folder)
    page = (encoder.folder / "report.html").read_text()
    assert page.count("Validation window") >= 3 and "restored where it was hidden" in page


def test_takes_over_the_encoder_and_says_how_much(train, encoder):
    printed, run = tune(train, "--init", encoder.folder, "--members", 2)
    theirs = state_of(encoder)
    own = [name for name in theirs if name.startswith("network.")]
    assert f"init    {len(own)} tensors from {encoder.name}; 12 of this model are new, " in printed
    assert f"{len(theirs) - len(own)} of its own are left over (decoder)" in printed
    about = run.config["begun"]
    assert about["matched"] == sorted(own) and all(".head." in name for name in about["new"])
    assert run.config["model"]["width"] == 8  # as the encoder's, without --set


def model_like(run, **settings):
    torch.manual_seed(1)
    more = {"width": 8, "depth": 2, "heads": 2, "inner": 16} | settings
    name = more.pop("name", "transformer")
    return eeg.models.build(name, members=more.pop("members", 1), **more)


def test_every_tensor_of_the_encoder_is_the_runs_own(encoder):
    theirs = state_of(encoder)
    for members in (1, 2):
        model = model_like(encoder, members=members)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        about = transfer.begin(model, encoder)
        for name, value in model.state_dict().items():
            plain = name.replace("networks.0.", "").replace("networks.1.", "")
            if plain in theirs:
                assert torch.equal(value, theirs[plain]) and name not in about["new"]
            else:
                assert torch.equal(value, before[name])


def test_what_does_not_fit_is_an_error(train, encoder):
    with pytest.raises(UserError, match=r"position is \[50, 16\] in this model and \[50, 8\]"):
        transfer.begin(model_like(encoder, width=16), encoder)
    with pytest.raises(UserError, match="none of the .* tensors of signal_.* belongs to"):
        state = {"settings": {}, "state": {"decoder.hidden": torch.zeros(64)}}
        torch.save(state, encoder.weights)
        transfer.begin(model_like(encoder), encoder)
    for words, message in (
        (("--model", "tcn", "--init", encoder.folder), "tcn has no encoder"),
        (("--freeze", 1), "--freeze goes with --init RUN"),
        (("--lora", 2, "--freeze", 1, "--init", encoder.folder), "choose one of them"),
    ):
        with pytest.raises(SystemExit):
            train.other("train", *TUNE, *words)
        assert len(find_runs(train.out)) == 1, message


def test_frozen_stages_stay_as_they_are(train):
    """The statistics of their batch norms too, in the conformer."""
    train.other("pretrain", *HIDE, "--model", "conformer")
    encoder = the_run(train.out)
    theirs = state_of(encoder)
    _, run = tune(train, "--init", encoder.folder, "--freeze", 2, "--blend", "none", "--members", 1)
    moved = {name for name, value in state_of(run).items()
             if name in theirs and not torch.equal(value, theirs[name])}  # fmt: skip
    assert moved and all(name.startswith("network.layers.1.") for name in moved)
    with pytest.raises(UserError, match="this conformer has 3 stages, what makes the tokens and 2"):
        tune(train, "--init", encoder.folder, "--freeze", 4)


def test_low_rank_changes_end_in_the_weights(train, encoder):
    """What is exported is an ordinary model, each of whose layers moved by a matrix of rank 1."""
    _, run = tune(train, "--init", encoder.folder, "--lora", 1, "--blend", "none", "--members", 1)
    weights(run.folder)  # loads strictly
    theirs, own = state_of(encoder), state_of(run)
    changed = [name for name in theirs if name in own and not torch.equal(own[name], theirs[name])]
    assert len(changed) == 9 and not [name for name in own if "parametrizations" in name]
    for name in changed:
        sizes = torch.linalg.svdvals((own[name] - theirs[name]).double())
        assert sizes[0] > 1e-6 and sizes[1] < 1e-3 * sizes[0]


def test_learning_rates_fall_from_the_head_on():
    model = model_like(None, members=2)
    found = transfer.decays(model, 0.5)
    assert found["network.networks.1.head.last.weight"] == 1
    assert found["network.networks.0.layers.1.attend.weight"] == 0.5
    assert found["network.networks.1.layers.0.norm1.bias"] == 0.25
    assert found["network.networks.0.position"] == found["network.networks.0.project.bias"] == 0.125


def test_config_keeps_what_the_run_needs(encoder):
    kept = json.loads((encoder.folder / "config.json").read_text())["train"]
    assert kept["mask"] == 0.4 and kept["target"] == "signal" and "init" not in kept
    assert "mask" not in Options(1).kept() and "layer_decay" not in Options(1).kept()
    model = Masked(**encoder.config["model"])
    model.load_state_dict(state_of(encoder))
