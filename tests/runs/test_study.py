"""A search over settings: which trials are kept, who works on what, what is left after a kill.

stand_in.py takes the place of training.
"""

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from eeg import UserError
from eeg.models import CLOSED_FORM, MODELS, check, tuned
from eeg.runs.space import as_arguments, check_space, draw, rungs
from eeg.runs.study import Study
from eeg.train.options import search_rules
from tests.children import Child

STAND_IN = Path(__file__).with_name("stand_in.py")
RULES = search_rules()
WORKER = """
import sys
from pathlib import Path
from eeg.runs.study import Study
from eeg.train.options import search_rules
folder, train = map(Path, sys.argv[1:])
Study.open(folder, {"challenge": 1}, search_rules(), (), train).work()
"""


def begin(out, **wanted):
    wanted = {"challenge": 1, "space": {"lr": {"range": [0, 1]}}, "trials": 9, "epochs": 9} | wanted
    return Study.open(out / "tune", wanted, RULES, (), STAND_IN)


def worker(folder, output):
    """A worker of the study in folder, in a process of its own."""
    return Child([sys.executable, "-c", WORKER, folder, STAND_IN], output)


def calls(out):
    """[(what, trial, epochs, pid)] in the order they happened."""
    return [
        (what, int(name[-3:]), int(epochs), int(pid))
        for what, name, epochs, pid in map(str.split, (out / "calls.txt").read_text().splitlines())
    ]


def test_rungs():
    assert rungs(27, 27, 3, 3) == [[27, 3], [9, 9], [3, 27]]
    assert rungs(10, 100, 3, 4) == [[10, 6], [2, 25], [1, 100]]
    assert rungs(2, 2, 3, 3) == [[2, 1], [1, 2]]
    assert rungs(5, 7, 1, 3) == [[5, 7]]


@pytest.mark.parametrize("model", [None, *(name for name in MODELS if name not in CLOSED_FORM)])
@pytest.mark.parametrize("challenge", [1, 2])
def test_the_default_space_is_of_the_model_that_is_trained(tmp_path, model, challenge):
    """What it draws is what the model's own settings take."""
    fixed = ["--train", "R1", "--model", model] if model else []
    plan = Study.open(tmp_path / "tune", {"challenge": challenge, "fixed": fixed}, RULES).plan
    own = {option.removeprefix("set.") for option in plan["space"] if option.startswith("set.")}
    assert own == set(tuned(model or "tcn")) and {"lr", "weight-decay", "batch-size", "ema"} < set(
        plan["space"]
    )
    for settings in plan["settings"]:
        check(model or "tcn", {key: settings[f"set.{key}"] for key in own})


def test_a_draw_stays_in_its_space_and_depends_on_seed_and_number_alone():
    space = {
        "lr": {"log": [1e-4, 1e-2]},
        "ema": {"range": [0.9, 1]},
        "depth": {"int": [2, 4]},
        "aux": [["age"], []],
        "loss": "huber",
    }
    drawn = [draw(space, 3, number) for number in range(300)]
    assert drawn[7] == draw(space, 3, 7) != draw(space, 4, 7)
    rates = sorted(settings["lr"] for settings in drawn)
    assert (
        1e-4 <= rates[0] and rates[-1] <= 1e-2 and 0.0007 < rates[150] < 0.0014
    )  # the middle of a logarithmic range is 0.001
    assert Counter(settings["depth"] for settings in drawn).keys() == {2, 3, 4}
    assert all(0.9 <= settings["ema"] <= 1 and settings["loss"] == "huber" for settings in drawn)
    assert {tuple(settings["aux"]) for settings in drawn} == {("age",), ()}


def test_settings_become_options():
    settings = {
        "lr": 0.001,
        "batch_size": 32,
        "balance": True,
        "keep-bad": False,
        "rho": None,
        "set.width": 96,
        "set.head": "number",
        "augment.mix": 0.2,
        "aux": ["age", "sex"],
    }
    words = "--lr 0.001 --batch-size 32 --balance --set width=96 head=number"
    assert as_arguments(settings) == f"{words} --augment mix=0.2 --aux age sex".split()
    assert (
        as_arguments({"lr": 0.1, "set.width": 96}, ["--set", "depth=3", "--model=unet"])
        == "--set depth=3 width=96 --model unet --lr 0.1".split()
    )


def test_what_is_fitted_in_closed_form_is_not_searched(tmp_path):
    with pytest.raises(UserError, match="ridge chooses its strength itself, .* --model ridge"):
        Study.open(tmp_path / "tune", {"challenge": 1, "fixed": ["--model", "ridge"]}, RULES)


def test_what_all_trials_share_is_not_searched(tmp_path):
    usual = Study.open(
        tmp_path / "a", {"challenge": 1, "fixed": ["--lr", "0.1", "--set", "dropout=0.2"]}, RULES
    ).plan["space"]
    assert usual.keys() == {"weight-decay", "batch-size", "ema"}
    with pytest.raises(UserError, match="'set.width' stands in the space and after --"):
        begin(tmp_path / "b", space={"set.width": [3]}, fixed=["--set", "width=4"])
    with pytest.raises(UserError, match="--epochs after --"):
        begin(tmp_path / "c", fixed=["--epochs", "4"])
    with pytest.raises(UserError, match="'unet' after --"):
        begin(tmp_path / "d", fixed=["unet"])


@pytest.mark.parametrize(
    "space",
    [
        {},
        [],
        {"lr": []},
        {"lr": {"log": [0, 1]}},
        {"lr": {"range": [2, 1]}},
        {"lr": {"normal": [0, 1]}},
        {"lr": {"log": [1]}},
        {"lr": {}},
        {"epochs": [3]},
        {"list_models": True},
        {"valid": ["R3", "R5"]},
        {"max_recordings": {"int": [5, 9]}},
    ],
)
def test_a_space_that_makes_no_sense(space):
    with pytest.raises(UserError, match="space"):
        check_space(space, RULES)


def test_the_best_go_on(tmp_path):
    study = begin(tmp_path, trials=9, epochs=9, rungs=3)
    assert study.plan["steps"] == [[9, 1], [3, 3], [1, 9]]
    study.work(lambda line: None)
    distance = {
        number: (settings["lr"] - 0.5) ** 2
        for number, settings in enumerate(study.plan["settings"])
    }
    ranked = sorted(distance, key=distance.get)
    trained = {
        epochs: sorted(
            trial for what, trial, at, _ in calls(tmp_path) if what == "end" and at == epochs
        )
        for epochs in (1, 3, 9)
    }
    assert trained == {1: list(range(9)), 3: sorted(ranked[:3]), 9: ranked[:1]}
    table = study.table()
    assert (
        [row[0] for row in table[:3]] == ranked[:3]
        and table[0][1] == 9
        and table[0][2] == pytest.approx(distance[ranked[0]] + 1 / 9)
    )
    before = len(calls(tmp_path))
    begin(tmp_path).work()  # nothing is left to do
    assert len(calls(tmp_path)) == before


def test_workers_share_and_survivors_of_a_kill_are_not_trained_twice(tmp_path):
    begin(
        tmp_path,
        space={"lr": {"range": [0, 1]}, "set.sleep": 0.2},
        trials=6,
        rungs=2,
        epochs=2,
        eta=2,
    )
    start = lambda name: worker(tmp_path / "tune", tmp_path / name)
    workers = [start("first"), start("second")]
    workers[0].wait_until((tmp_path / "calls.txt").exists)
    workers[0].send_signal(signal.SIGKILL)  # its training lives on, and holds the trial
    workers.append(start("third"))
    assert [each.wait(60) for each in workers] == [-9, 0, 0], [each.printed() for each in workers]
    found = calls(tmp_path)
    assert Counter(found[i][1:3] for i in range(len(found)) if found[i][0] == "end") == Counter(
        {(trial, 1): 1 for trial in range(6)}
        | {(trial, 2): 1 for trial in {t for _, t, e, _ in found if e == 2}}
    )
    assert len({trial for _, trial, epochs, _ in found if epochs == 2}) == 3
    held = set()
    for what, trial, _, _ in found:  # a trial is never in two hands
        assert (trial in held) == (what == "end")
        held ^= {trial}


def test_a_killed_training_goes_on(tmp_path):
    study = begin(tmp_path, space={"lr": {"range": [0, 1]}, "set.sleep": 0.5}, trials=1, rungs=1)
    killed = worker(study.folder, tmp_path / "printed")
    killed.wait_until((tmp_path / "calls.txt").exists)
    killed.kill()
    killed.wait()
    os.kill(calls(tmp_path)[0][3], signal.SIGKILL)
    study.work(lambda line: None)
    assert [what for what, *_ in calls(tmp_path)] == ["begin", "begin", "end"]
    assert len(list(tmp_path.glob("tune_000/*"))) == 1  # the same run, resumed


def test_a_failed_trial_stays_behind(tmp_path):
    study = begin(
        tmp_path, trials=3, rungs=2, eta=2, space={"lr": {"range": [0, 1]}, "set.note": "x"}
    )
    study.plan["settings"][1] |= {"lr": 0.5, "set.fail": 1}
    (study.folder / "study.json").write_text(json.dumps(study.plan))
    study.work(lambda line: None)
    assert (
        study.results(1)[0]["failed"] == "the loss is not finite"
        and study.results(1)[0]["value"] is None
    )
    assert sorted(row[0] for row in study.table()) == [0, 2]


def test_a_study_that_cannot_succeed_stops(tmp_path):
    with pytest.raises(UserError, match="does not take the settings of trial 0 .*--unknown"):
        begin(tmp_path / "a", space={"unknown": [1]}).work()
    with pytest.raises(
        UserError, match="first 3 trials all failed, this one because the loss is not finite"
    ):
        begin(tmp_path / "b", space={"set.fail": 1}).work(lambda line: None)


def test_a_study_is_joined_with_the_same_question_only(tmp_path):
    begin(tmp_path)
    assert (
        Study.open(tmp_path / "tune", {"challenge": 1, "trials": None}, RULES).plan["trials"] == 9
    )
    with pytest.raises(UserError, match="begun with trials 9, not 5"):
        begin(tmp_path, trials=5)
