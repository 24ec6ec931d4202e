"""`run/bench.py quality`: its cells, what is measured again, shuffled labels, one run of it all."""

import dataclasses
import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from eeg import UserError
from eeg.bench import quality, recipes
from eeg.bench.recipes import CHOOSING, RECIPES, SHUFFLED, THIN, USUAL_WORLDS, Plan
from eeg.data.release import FACTORS
from eeg.data.windows import METADATA
from eeg.files import locked
from eeg.models import SETTINGS
from eeg.synth.worlds import WORLDS
from eeg.train import options
from tests.bench.made_up import cell_about
from tests.conftest import ROOT

# --------------------------------------------------------------------------- what is asked


@pytest.mark.parametrize(
    "words, said",
    [
        ("quality --worlds real moon", "--worlds moon: the worlds are real, easy, null"),
        ("quality --recipes tcn soup", "--recipes soup: the recipes are start-kit, ridge"),
        ("quality --sizes 4", "--sizes 4: expected 5 to 5000 subjects"),
        ("quality --seeds -1", "--seeds -1: a seed lies from 0"),
        ("decode --worlds real", "--worlds belongs to the row quality"),
        ("--hours 0", "--hours belongs to the row quality"),
    ],
)
def test_wrong_use_exits_2(words, said):
    command = [sys.executable, ROOT / "run" / "bench.py", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and done.stderr.count("\n") == 1


def test_held_out_worlds_are_measured_only_by_name():
    held_out = {name for name, world in WORLDS.items() if world.held_out}
    assert held_out and not held_out & set(USUAL_WORLDS)
    assert "easy" not in USUAL_WORLDS and SHUFFLED in USUAL_WORLDS
    assert set(CHOOSING) | held_out | {"easy"} == set(WORLDS)


def test_every_model_is_measured():
    assert set(SETTINGS) <= set(RECIPES)


def test_the_thin_table_comes_first():
    cells = Plan().cells()
    assert len(cells) == len(set(cells))
    thin = len(USUAL_WORLDS) * 2 * len(THIN)
    first, then = cells[:thin], cells[thin : 3 * thin]
    assert {(cell.size, cell.seed) for cell in first} == {(30, 0)}
    assert {(cell.world, cell.challenge, cell.recipe) for cell in first} == {
        (world, challenge, recipe)
        for world in USUAL_WORLDS
        for challenge in (1, 2)
        for recipe in THIN
    }
    assert {(cell.size, cell.seed) for cell in then} == {(30, 1), (30, 2)}  # more seeds
    assert {cell.recipe for cell in then} == set(THIN)
    others = cells[3 * thin :]
    place = lambda wanted: next(k for k, cell in enumerate(others) if wanted(cell))
    assert place(lambda cell: cell.recipe == "unet") < place(lambda cell: cell.size == 100)
    assert place(lambda cell: cell.size == 100) < place(lambda cell: cell.size == 300)
    both = lambda cell: cell.recipe == "unet" and cell.seed == 1  # differs in two ways
    assert place(lambda cell: cell.size == 300) < place(both)


@pytest.mark.parametrize("challenge", [1, 2])
def test_the_start_kits_recipe_is_the_kits(challenge):
    kit, own = (recipes.resolved(name, challenge) for name in ("start-kit", "default"))
    assert (kit.model, kit.lr, kit.weight_decay, kit.batch_size) == ("eegnex", 1e-3, 1e-5, 128)
    assert (kit.loss, kit.schedule, kit.normalize) == ("mse", "cosine", "none")
    assert (kit.augment, list(kit.aux), kit.blend) == ({}, [], "none")
    assert kit.ema == kit.clip == kit.warmup == kit.l1 == 0
    assert kit.epochs == own.epochs
    assert own == options.Options(challenge)


# --------------------------------------------------------------------------- what is measured


@pytest.fixture
def trainings(monkeypatch):
    """Trainings take no time and score 0.9. -> (cells in the order of their training, recipes whose
    training fails)"""
    begun, broken = [], []

    def train_and_score(self, folder, cell, work):
        begun.append(cell)
        if cell.recipe in broken:
            return {"failed": "run/train.py: the card is gone"}
        return cell_about(0.9)

    monkeypatch.setattr(quality.Measurement, "train_and_score", train_and_score)
    monkeypatch.setattr(quality.Measurement, "make_caches", lambda *_: None)
    return begun, broken


@pytest.fixture
def plan(tmp_path):
    return Plan(("real", "null"), ("default", "ridge"), (30,), (0, 1), (1,), out=tmp_path / "q")


def test_finished_cells_are_skipped(plan, trainings, capsys):
    begun, _ = trainings
    assert quality.quality(plan)
    assert begun == plan.cells()
    about = json.loads((plan.out / plan.cells()[0].file).read_text())
    assert (about["world"], about["seed"], about["simulated"]) == ("real", 0, True)
    assert quality.quality(dataclasses.replace(plan, jobs=3)) and len(begun) == 8
    (plan.out / plan.cells()[3].file).unlink()
    assert quality.quality(plan) and begun[8:] == [plan.cells()[3]]
    assert "8 of 8 cells are measured" in capsys.readouterr().out


def test_a_changed_default_is_measured_again_and_not_mixed(plan, trainings, monkeypatch, capsys):
    begun, _ = trainings
    quality.quality(plan)
    epochs = dataclasses.replace(options.ABOUT["epochs"], defaults=options.each(13, 10))
    monkeypatch.setitem(options.ABOUT, "epochs", epochs)
    begun.clear()
    capsys.readouterr()
    quality.quality(dataclasses.replace(plan, hours=0))
    assert begun == [] and "4 of 8 cells are measured" in capsys.readouterr().out
    quality.quality(plan)
    assert begun == [cell for cell in plan.cells() if cell.recipe == "default"]


def test_changed_words_of_a_recipe_are_measured_again(plan, trainings, monkeypatch):
    begun, _ = trainings
    quality.quality(plan)
    begun.clear()
    monkeypatch.setitem(RECIPES, "ridge", "--model ridge --set on=features")
    quality.quality(plan)
    assert begun == [cell for cell in plan.cells() if cell.recipe == "ridge"]


def test_a_changed_world_is_measured_again(plan, trainings, monkeypatch):
    begun, _ = trainings
    quality.quality(plan)
    before = quality.fingerprint_of_data("null")
    begun.clear()
    monkeypatch.setitem(WORLDS, "null", dataclasses.replace(WORLDS["null"], background=1.5))
    quality.fingerprint_of_data.cache_clear()
    assert quality.fingerprint_of_data("null") != before
    quality.quality(plan)
    quality.fingerprint_of_data.cache_clear()
    assert {cell.world for cell in begun} == {"null"}


def test_worlds_have_fingerprints_of_their_own_and_keep_them():
    made = quality.fingerprint_of_data.__wrapped__
    first = [made(name) for name in ("real", "region", SHUFFLED)]
    assert len(set(first)) == 3
    assert made("real") == first[0]


def test_a_failed_training_is_named_and_tried_again(plan, trainings, capsys):
    begun, broken = trainings
    broken.append("ridge")
    assert not quality.quality(plan)
    printed = capsys.readouterr().out
    name = "real, challenge 1, 30 subjects, seed 0, ridge"
    assert f"FAILED: {name}: run/train.py: the card is gone" in printed
    assert "4 of 8 cells are measured" in printed
    begun.clear()
    broken.clear()
    assert quality.quality(plan)
    assert begun == [cell for cell in plan.cells() if cell.recipe == "ridge"]


def test_nothing_begins_after_the_hours_are_over(plan, trainings, capsys):
    begun, _ = trainings
    quality.quality(dataclasses.replace(plan, hours=1e-9))
    assert begun == [] and "8 cells left" in capsys.readouterr().out


def test_one_call_measures_and_another_may_look(plan, trainings, capsys):
    quality.quality(dataclasses.replace(plan, worlds=("null",)))
    with locked(plan.out / "lock"):
        with pytest.raises(UserError, match="another call is measuring in .*; --hours 0 prints"):
            quality.quality(plan)
        assert quality.quality(dataclasses.replace(plan, hours=0))
    assert "4 of 8 cells are measured" in capsys.readouterr().out


def test_a_program_that_changes_while_it_measures_is_refused(plan):
    cell = plan.cells()[0]
    trained = json.loads(json.dumps(cell.options().kept()))
    quality.check_options(trained | {"seed": 7, "cache": "elsewhere", "train": ["R1"]}, cell)
    with pytest.raises(UserError, match="trained with lr 0.5, expected .*: the program"):
        quality.check_options(trained | {"lr": 0.5}, cell)


# --------------------------------------------------------------------------- shuffled labels

WINDOWS = {b"A": 7, b"B": 3, b"C": 1, b"D": 9, b"E": 6}


def made_cache(path, challenge):
    """A small cache whose labels say whose they are: 10 k + 0.1 n for subject k's window n."""
    whose = np.repeat(list(WINDOWS), list(WINDOWS.values()))
    metadata = np.zeros(len(whose), METADATA[challenge])
    metadata["subject"] = whose
    number = np.repeat(np.arange(len(WINDOWS)), list(WINDOWS.values()))
    y = 10.0 * number
    if challenge == 1:
        y += 0.1 * np.concatenate([np.arange(n) for n in WINDOWS.values()])
    else:
        for k, name in enumerate(FACTORS):
            metadata[name] = number + 0.01 * k
        y = metadata["externalizing"].copy()
    with h5py.File(path, "w") as f:
        f.attrs.update(challenge=challenge, fingerprint="abc")
        f["X"], f["y"], f["metadata"] = np.arange(len(y)), y, metadata
    return whose, y, metadata


def read_cache(path):
    with h5py.File(path) as f:
        assert f.attrs["fingerprint"] != "abc"
        assert (f["X"][()] == np.arange(len(f["y"]))).all()
        return f["y"][()], f["metadata"][()]


def test_response_times_go_to_other_subjects_and_none_is_lost(tmp_path):
    whose, before, metadata = made_cache(tmp_path / "c.h5", 1)
    quality.shuffle(tmp_path / "c.h5")
    y, now = read_cache(tmp_path / "c.h5")
    assert np.array_equal(np.sort(y), np.sort(before))  # the same times, each once
    assert (y // 10 != before // 10).all()  # no window has one of its own subject
    assert (now == metadata).all()


def test_each_subject_has_the_factors_of_another(tmp_path):
    whose, before, metadata = made_cache(tmp_path / "c.h5", 2)
    quality.shuffle(tmp_path / "c.h5")
    y, now = read_cache(tmp_path / "c.h5")
    assert np.array_equal(y, now["externalizing"])
    given = {}
    for name in WINDOWS:
        (label,) = np.unique(y[whose == name])  # one for all of its windows
        given[name] = label
        assert label not in before[whose == name]
    assert sorted(given.values()) == sorted(set(before))  # each subject's goes to one
    for k, name in enumerate(FACTORS):  # the four of one subject stay together
        assert np.allclose(now[name] - 0.01 * k, np.round(now[name]))
        assert np.array_equal(np.round(now[name]), np.round(now["externalizing"]))
    assert np.array_equal(now["subject"], metadata["subject"])


# --------------------------------------------------------------------------- all of it


def test_what_a_failed_script_said_last_is_kept(plan):
    measurement = quality.Measurement(plan)
    assert measurement.command("train", "--list-models", "--help") == ""
    said = measurement.command("train", "--challenge", 3)
    assert said.startswith("run/train.py: argument --challenge: '3' is not a challenge")


def test_a_cell_is_trained_scored_and_published(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quality, "TEST_SUBJECTS", 3)
    monkeypatch.setattr(quality, "RUNS", 1)
    monkeypatch.setitem(RECIPES, "tcn", "--model eegnex --blend none --epochs 1 --amp off")
    plan = Plan((SHUFFLED,), ("tcn",), (5,), (0,), (1,), out=tmp_path / "q")
    assert quality.quality(plan)
    assert "1 of 1 cells are measured" in capsys.readouterr().out
    about = json.loads((plan.out / "cells/shuffled/challenge1_5_seed0_tcn.json").read_text())
    assert about["test"]["nrmse"] > 0 and about["test"]["subjects"] == 3
    assert [line["name"][:4] for line in about["baselines"]] == ["the ", "labe", "labe"]
    assert (about["best_epoch"], about["epochs"], about["oracle"]) == (1, 1, None)
    assert [len(about["curves"][side]) for side in ("train", "valid")] == [1, 1]
    assert about["settings"]["lr"] == options.Options(1).lr
    left = {path.name for path in plan.out.iterdir()}
    assert left == {"cells", "lock", "quality.md", "quality.png"}
