"""Runs are found, told apart and named, whatever state they were left in."""

import json
import os
import subprocess
import sys
import time

import pytest

from eeg import UserError
from eeg.runs.choice import best_run, choose_runs, named, newest_unfinished
from eeg.runs.run import SILENCE_S, Run, find_runs
from tests.runs.folders import write_json, write_run


def test_a_run_says_how_it_is(tmp_path, dead):
    status = lambda name, **state: Run(write_run(tmp_path, name, **state)).status
    assert status("a/1", status="finished") == "finished"
    assert status("a/2", status="stopped") == "stopped"
    assert status("a/3", status="running") == "running"
    assert status("a/4", status="running", pid=dead) == "died"
    # its process cannot be seen from here
    assert status("a/5", status="running", pid=dead, host="elsewhere") == "running"
    silent = {"status": "running", "updated": time.time() - SILENCE_S - 1}
    assert status("a/6", **silent, host="elsewhere") == "died"
    assert status("a/7", **silent) == "died"  # the id was given to another process


def test_a_killed_process_that_nobody_waits_for_is_dead(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    folder = write_run(tmp_path, "a/1", "running", pid=process.pid)
    assert Run(folder).status == "running"
    process.kill()
    deadline = time.time() + 10
    while Run(folder).status == "running" and time.time() < deadline:
        time.sleep(0.01)
    assert Run(folder).status == "died"
    process.wait()


def test_before_its_first_word(tmp_path):
    folder = tmp_path / "a" / "1"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"challenge": 2, "target": "externalizing"}')
    run = Run(folder)
    assert (run.status, run.challenge, run.best[0], run.finished) == ("running", 2, 0, False)
    os.utime(folder / "config.json", (0, time.time() - SILENCE_S - 1))
    assert Run(folder).status == "died"


def test_best(tmp_path, dead):
    write_run(tmp_path, "a/20260101_000000", nrmse=(0.9, 0.7))
    write_run(tmp_path, "b/20260102_000000", nrmse=(0.9, 0.6, 0.65))
    # better, but not finished; better at something else; without weights
    write_run(tmp_path, "c/20260103_000000", "running", nrmse=(0.1,), pid=dead)
    write_run(tmp_path, "d/20260104_000000", nrmse=(0.2,), target="correct")
    write_run(tmp_path, "e/20260105_000000", nrmse=(0.3,), weights=False)
    write_run(tmp_path, "f/20260106_000000", nrmse=(0.4,), challenge=2)
    run = best_run(tmp_path, 1)
    assert run.name == "b/20260102_000000" and run.best == (2, 0.6) and run.weights.exists()
    assert best_run(tmp_path, 2).name == "f/20260106_000000"
    assert [run.name[0] for run in find_runs(tmp_path)] == list("abcdef")


def chosen(out):
    """-> (the best run's name, what was said)."""
    said = []
    return best_run(out, 1, said.append).folder.parent.name, "".join(said)


def test_only_runs_validated_on_the_same_subjects_compete(tmp_path):
    """Others have lower scores: folds, trials on a few recordings, another release. The better of
    two on all of R5 is the best."""
    write_run(tmp_path, "plain/1", nrmse=(0.95,))
    write_run(tmp_path, "wide/1", nrmse=(0.94,))
    assert chosen(tmp_path) == ("wide", "")
    for i in range(5):
        which = {"options": {"fold": [i + 1, 5]}, "valid": ("R1", 4)}
        fold = write_run(tmp_path, f"cv/{i}", nrmse=(0.5 + 0.1 * i,), **which)
        config = json.loads((fold / "config.json").read_text())
        config["split"]["valid"]["subjects"] = [f"R1_{k}" for k in range(4 * i, 4 * i + 4)]
        (fold / "config.json").write_text(json.dumps(config))
    # the same subjects, fewer of their windows
    write_run(tmp_path, "small/1", nrmse=(0.3,), options={"max_recordings": 20})
    write_run(tmp_path, "smoke/1", nrmse=(0.2,), options={"max_subjects": 2}, valid=("R5", 2))
    write_run(tmp_path, "other/1", nrmse=(0.1,), valid=("R3", 50))
    name, said = chosen(tmp_path)
    assert name == "wide"
    assert said == (
        "left out of the choice: 8 runs not validated on 9 subjects of R5 (cv: one of 5 folds; "
        "other: 50 subjects of R3; small: 9 subjects of R5 with --max-recordings 20; "
        "smoke: 2 subjects of R5 with --max-subjects 2)"
    )


def test_without_r5_the_largest_validation_decides(tmp_path):
    write_run(tmp_path, "few/1", nrmse=(0.5,), valid=("R1", 6))
    write_run(tmp_path, "many/1", nrmse=(0.9,), valid=("R1", 12))
    write_run(tmp_path, "fold/1", nrmse=(0.1,), valid=("R1", 30), options={"fold": [1, 5]})
    name, said = chosen(tmp_path)
    assert name == "many" and said.startswith(
        "left out of the choice: 2 runs not validated on 12 subjects of R1 (few: 6 "
    )
    write_run(tmp_path, "usual/1", nrmse=(0.95,))
    assert chosen(tmp_path)[0] == "usual"
    write_run(tmp_path, "mini/1", nrmse=(0.2,), valid=("R5", 40), options={"mini": True})
    write_run(tmp_path, "bad/1", nrmse=(0.2,), valid=("R5", 11), options={"keep_bad": True})
    assert chosen(tmp_path)[0] == "usual"


def test_where_there_are_folds_alone_one_of_them_is_the_best(tmp_path):
    write_run(tmp_path, "cv/1", nrmse=(0.7,), valid=("R1", 4), options={"fold": [1, 2]})
    write_run(tmp_path, "cv/2", nrmse=(0.9,), valid=("R2", 5), options={"fold": [2, 2]})
    name, said = chosen(tmp_path)
    assert name == "cv" and "1 run not validated on one of 2 folds" in said
    assert best_run(tmp_path, 1, lambda line: None).name == "cv/2"


def test_a_run_that_does_not_compete_is_chosen_by_its_name(tmp_path):
    write_run(tmp_path, "plain/1")
    fold = write_run(tmp_path, "cv/1", nrmse=(0.1,), valid=("R1", 4), options={"fold": [1, 5]})
    assert [run.folder for run in choose_runs(tmp_path, ["cv"])] == [fold]


def test_the_best_epoch_of_a_classifier_is_the_highest(tmp_path):
    folder = write_run(tmp_path, "a/1", nrmse=(), target="correct")
    epochs = [
        {"epoch": i + 1, "valid": {"auroc": value, "loss": 0.7}}
        for i, value in enumerate((0.5, 0.71, float("nan"), 0.6))
    ]
    (folder / "history.json").write_text(json.dumps({"epochs": epochs, "events": []}))
    run = Run(folder)
    assert (run.metric, run.best, run.curve) == (
        "auroc",
        (2, 0.71),
        [(1, 0.5), (2, 0.71), (4, 0.6)],
    )


def test_an_epoch_without_a_figure_is_not_the_best(tmp_path):
    assert Run(write_run(tmp_path, "a/1", nrmse=(float("nan"), 0.9, None, 0.8))).best == (4, 0.8)
    epoch, nrmse = Run(write_run(tmp_path, "a/2", nrmse=(float("nan"),))).best
    assert epoch == 0 and nrmse != nrmse


def test_recoveries_are_counted_in_both_files(tmp_path):
    folder = write_run(tmp_path, "a/1")
    assert not Run(folder).recoveries
    event = lambda kind, **more: {"epoch": 1, "batch": 3, "kind": kind, "text": "", **more}
    faults = [event("out of memory"), event("device error"), event("out of memory")]
    ends = [event("stopped", when=1), event("resumed", when=2)]
    write_json(folder / "history.json", {"epochs": [], "events": faults})
    write_json(folder / "timing.json", {"epochs": [], "events": ends})
    assert Run(folder).recoveries == {"out of memory": 2, "device error": 1, "resumed": 1}


def test_the_command_to_resume_survives_a_shell(tmp_path):
    folder = write_run(tmp_path / "my runs", "a/1", "stopped")
    command = Run(folder).resume.replace("python run/train.py --resume", "printf %s")
    echo = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert echo.stdout == str(folder)


def test_a_waiting_run_waits_as_long_as_somebody_will_start_it(tmp_path, dead):
    write_run(tmp_path, "a/1", "waiting", updated=0)
    with pytest.raises(UserError, match="no unfinished run"):
        newest_unfinished(tmp_path)
    run = Run(write_run(tmp_path, "b/2", "waiting", pid=dead, updated=0))
    assert run.status == "stopped" and newest_unfinished(tmp_path).name == "b/2"


def test_a_run_is_meant_by_its_folder_or_its_names(tmp_path):
    write_run(tmp_path, "a/20260101_000000")
    last = write_run(tmp_path, "a/20260102_000000")
    write_run(tmp_path, "a/20260103_000000", "stopped")
    write_run(tmp_path, "b/20260101_000000", "stopped")
    assert choose_runs(tmp_path, [str(last)])[0].folder == last
    assert choose_runs(tmp_path, ["a/20260101_000000"])[0].name == "a/20260101_000000"
    assert choose_runs(tmp_path, ["a"])[0].name == "a/20260102_000000"  # the newest finished
    assert choose_runs(tmp_path, [str(tmp_path / "a")])[0].name == "a/20260102_000000"
    assert choose_runs(tmp_path, ["b"])[0].name == "b/20260101_000000"
    assert [run.name for run in named(tmp_path, "a")] == [
        f"a/2026010{day}_000000" for day in (1, 2, 3)
    ]
    assert [run.folder for run in named(tmp_path, str(last))] == [last]
    with pytest.raises(UserError, match="no run c: .* there are a, b"):
        choose_runs(tmp_path, ["c"])[0]


def test_what_to_resume(tmp_path, dead):
    now = time.time()
    write_run(tmp_path, "a/20260101_000000", "stopped", updated=now - 50)
    write_run(tmp_path, "b/20260102_000000", "running", updated=now - 90, pid=dead)
    write_run(tmp_path, "c/20260103_000000", "running")
    write_run(tmp_path, "d/20260104_000000")
    assert newest_unfinished(tmp_path).name == "a/20260101_000000"


def test_errors_name_what_helps(tmp_path, dead):
    with pytest.raises(
        UserError, match="no finished run of challenge 2 .* python run/train.py --challenge 2"
    ):
        best_run(tmp_path, 2)
    with pytest.raises(UserError, match="no unfinished run .* train one with"):
        newest_unfinished(tmp_path / "absent")
    with pytest.raises(UserError, match="no run a: .* train one with"):
        choose_runs(tmp_path, ["a"])[0]
    folder = write_run(tmp_path, "a/1", "running")
    with pytest.raises(UserError, match="a/1 still running"):
        newest_unfinished(tmp_path)
    with pytest.raises(UserError, match=r"still running \(epoch 3 of 9\)"):
        Run(folder).weights
    folder = write_run(tmp_path, "a/2", "running", pid=dead)
    with pytest.raises(UserError, match="it died.*--resume"):
        Run(folder).weights
    with pytest.raises(UserError, match="2 not finished|1 not finished|--resume .*a/2"):
        best_run(tmp_path, 1)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json is not JSON .* rm -r"):
        Run(folder).config


def trained(out, name, seed=0, fold=None, **state):
    """A run that says how it was trained. -> Run"""
    folder = write_run(out, name, **state)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"train": {"seed": seed, "fold": fold}})
    return Run(folder)


def test_a_name_that_mixes_plain_seed_and_fold_runs(tmp_path):
    trained(tmp_path, "a/20260101_000000")
    trained(tmp_path, "a/20260102_000000", seed=1)
    trained(tmp_path, "a/20260103_000000", seed=2)
    trained(tmp_path, "a/20260103_000001", seed=2, status="stopped")
    for k in (1, 2):
        trained(tmp_path, f"a/20260104_00000{k}", fold=[k, 2])
    trained(tmp_path, "b/20260101_000000", seed=1)
    stamps = lambda *texts, **how: [run.name for run in choose_runs(tmp_path, texts, **how)]
    assert stamps("a") == ["a/20260104_000002"]
    assert stamps("a", several=True) == [
        f"a/2026010{end}" for end in ("1_000000", "2_000000", "3_000000", "4_000001", "4_000002")
    ]
    assert stamps("a", seeds=[0, 2]) == ["a/20260101_000000", "a/20260103_000000"]
    assert stamps("a", "b", seeds=[1]) == ["a/20260102_000000", "b/20260101_000000"]
    assert stamps("a/20260102..20260103") == ["a/20260102_000000", "a/20260103_000000"]
    assert stamps("a/20260104_000002..") == ["a/20260104_000002"]
    assert stamps("a/..20260101", "a/20260101_000000") == ["a/20260101_000000"]
    assert stamps(f"{tmp_path}/a/..20260102") == ["a/20260101_000000", "a/20260102_000000"]
    assert stamps("a/20260102..", seeds=[1, 2]) == ["a/20260102_000000", "a/20260103_000000"]
    with pytest.raises(UserError, match=r"no finished run of a has seed 7 .*: 0, 1, 2\)"):
        choose_runs(tmp_path, ["a"], seeds=[0, 7])
    with pytest.raises(UserError, match=r"no run a/2027\.\.: those of a are 20260101_000000, "):
        choose_runs(tmp_path, ["a/2027.."])
    with pytest.raises(UserError, match="no run c"):
        choose_runs(tmp_path, ["c/2026.."])
