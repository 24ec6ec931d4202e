"""run/train.py: no interruption shows in what a run leaves behind."""

import json
import os
import select
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from eeg.runs.run import find_runs
from eeg.train import checkpoint
from eeg.train import trainer as module
from eeg.train.validation import Validation
from tests.children import Child
from tests.conftest import command
from tests.train.interruptions import Killed, faulty, sends
from tests.train.trained import ENVIRONMENT, killed, left_behind, says, the_run

VARIANTS = {
    "plain": (),
    "blend": ("--blend", "ridge"),
    "all": (
        *"--optimizer sam --ema 0.9 --schedule plateau --loss huber --l1 1e-5".split(),
        *"--set width=8 depth=1 head=number".split(),
        *"--augment mix=0.4 shift=0.1 mirror=0.5 scale=0.2".split(),
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_killed_run_ends_as_if_nothing_had_been(train, monkeypatch, tmp_path, variant):
    options = ("--challenge", 1, "--epochs", 2, *VARIANTS[variant])
    train(*options)
    reference = left_behind(the_run(train.out).folder)
    shutil.rmtree(train.out)

    moments = [
        (module.Trainer, "_train_batch", 4, 0),
        (module.Trainer, "_train_batch", 5, 5),
        (Validation, "_answers", 0, 0),
    ]
    if variant == "plain":
        moments += [
            (Validation, "_answers", 1, 5),
            (module.Trainer, "_end_epoch", 0, 0),
            (module.Trainer, "_finish", 0, 5),
            *((checkpoint, "write_through", n, 0) for n in (0, 9)),
            *((checkpoint.os, "replace", n, 0) for n in (2, 14)),
        ]
    for owner, name, after, minutes in moments:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, faulty({after + 1: Killed()}, owner, name))
            with pytest.raises(Killed):
                train(*options, "--checkpoint-minutes", minutes)
        (folder,) = (run.folder for run in find_runs(train.out))
        killed(folder)
        train("--resume")
        assert left_behind(folder) == reference, f"killed in {name}, call {after}"
        shutil.rmtree(train.out)


def test_kill_9(caches, tmp_path):
    """The same with a real process and a real signal."""
    options = "--challenge", 1, "--epochs", 3, "--checkpoint-minutes", 0
    line = command(caches, tmp_path / "whole", *options)
    whole = subprocess.Popen(line, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    line = command(caches, tmp_path / "killed", *options)
    process = Child(line, tmp_path / "printed", env=ENVIRONMENT)
    process.wait_until(lambda: "\nepoch" in process.printed())
    process.kill()
    process.wait()
    run = the_run(tmp_path / "killed")
    assert run.status == "died" and len(run.history["epochs"]) < 3
    line = command(caches, tmp_path / "killed", "--resume")
    subprocess.run(line, check=True, env=ENVIRONMENT, capture_output=True)
    assert whole.wait(120) == 0
    assert left_behind(run.folder) == left_behind(the_run(tmp_path / "whole").folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_ends_well(train, monkeypatch, number):
    with monkeypatch.context() as patch:
        count = sends(number, "_train_batch", 6, patch)
        printed = train("--challenge", 1, "--epochs", 2)
    run = the_run(train.out)
    assert run.status == "stopped"
    assert f"resume with: python run/train.py --resume {run.folder}" in printed
    assert count[0] == 6 and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert "resumed at epoch" in train("--resume", run.folder)
    assert the_run(train.out).status == "finished"
    first = json.loads((run.folder / "timing.json").read_text())["epochs"][0]
    assert first["windows_per_second"] * first["seconds"] == pytest.approx(
        16 * (run.state["batches"] - 6), rel=0.02
    )  # since it was resumed
    train("--challenge", 1, "--epochs", 2)
    one, two = find_runs(train.out)
    assert left_behind(one.folder) == left_behind(two.folder)


def test_asked_to_stop_while_validating(train, monkeypatch):
    """What validation had done by then, its random numbers too, shows nowhere."""
    options = ("--challenge", 1, "--epochs", 2, "--set", "width=8", "depth=1", "dropout=0.3")
    train(*options)
    reference = left_behind(the_run(train.out).folder)
    shutil.rmtree(train.out)
    with monkeypatch.context() as patch:
        sends(signal.SIGTERM, "_on_predicted", 1, patch)
        assert "saved at epoch 1" in train(*options)
    train("--resume")
    assert left_behind(the_run(train.out).folder) == reference


def test_asked_to_stop_at_the_end_of_a_fold_begins_no_other(train, monkeypatch):
    with monkeypatch.context() as patch:
        sends(signal.SIGTERM, "_finish", 1, patch)
        train("--challenge", 1, "--epochs", 1, "--cv", 2)
    runs = find_runs(train.out)
    assert runs[0].status == "finished" and not any(run.finished for run in runs[1:])


@pytest.mark.parametrize("error", [SystemExit(143), KeyboardInterrupt()])
def test_asked_to_stop_before_the_first_batch(train, monkeypatch, error):
    """SystemExit is what SIGTERM raises until the trainer heeds it."""
    with monkeypatch.context() as patch:
        patch.setattr(module.Trainer, "__init__", faulty({1: error}, module.Trainer, "__init__"))
        assert "resume with: python run/train.py --resume" in train("--challenge", 1, "--epochs", 1)
    assert the_run(train.out).status == "stopped"
    train("--resume")
    assert the_run(train.out).finished


def test_what_nohup_has_ignored_stays_ignored(train, monkeypatch):
    sends(signal.SIGHUP, "_train_batch", 2, monkeypatch)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        train("--challenge", 1, "--epochs", 1)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert the_run(train.out).finished


def test_a_terminal_that_is_gone_takes_nothing_with_it(caches, tmp_path):
    """It sends SIGHUP, and whatever is printed from then on is an error."""
    terminal, theirs = os.openpty()
    line = command(caches, tmp_path, "--challenge", 1, "--epochs", 500)
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(line, env=ENVIRONMENT, start_new_session=True, **streams)
    os.close(theirs)
    said = b""
    deadline = time.monotonic() + 120
    while b"epoch   1/" not in said:
        waiting, _, _ = select.select([terminal], [], [], max(deadline - time.monotonic(), 0))
        if not waiting:
            process.kill()
        try:
            assert waiting, f"no epoch after 120 s, but:\n{said.decode()}"
            said += os.read(terminal, 4096)
        except OSError:  # nobody is at the other end
            pytest.fail(f"it ended with exit code {process.wait()}:\n{said.decode()}")
    os.close(terminal)
    process.send_signal(signal.SIGHUP)  # it is not this session's leader's own terminal
    assert process.wait(60) == 0
    run = the_run(tmp_path)
    assert run.status == "stopped" and "resume with" in (run.folder / "log.txt").read_text()


def test_folds_are_a_plan_that_is_resumed(train, monkeypatch):
    finish = faulty({2: Killed()}, module.Trainer, "_finish")
    with monkeypatch.context() as patch:
        patch.setattr(module.Trainer, "_finish", finish)
        with pytest.raises(Killed):
            train("--challenge", 1, "--epochs", 1, "--cv", 3, "--train", "R1", "R5")
    for run in find_runs(train.out):
        if run.state["status"] in ("failed", "running"):
            killed(run.folder)
        elif run.state["status"] == "waiting":
            says(run.folder, pid=2**22 + 1)
    printed = train("--resume")
    runs = find_runs(train.out)
    assert len(runs) == 3
    assert all(run.finished for run in runs)
    assert [run.config["train"]["fold"] for run in runs] == [[1, 3], [2, 3], [3, 3]]
    sides = [set(run.config["split"]["valid"]["subjects"]) for run in runs]
    assert sum(map(len, sides)) == len(set.union(*sides))
    assert all(
        not side & set(run.config["split"]["train"]["subjects"]) for side, run in zip(sides, runs)
    )
    (summary,) = (runs[0].folder.parent).glob("*_summary.json")
    values = [run.best[1] for run in runs]
    assert json.loads(summary.read_text())["mean"] == pytest.approx(np.mean(values))
    assert f"mean {np.mean(values):.4f}" in printed
