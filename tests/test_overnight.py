"""run/overnight.py beside stand-ins of the scripts it runs: order, arguments, where it goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.children import Child

ROOT = Path(__file__).parents[1]

# Notes its arguments; as train.py it makes the run folder, finished or as MODE says, and as
# compare.py it promotes
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
name, words = Path(__file__).stem, sys.argv[1:]
after = lambda option: words[words.index(option) + 1]

def arguments(words):
    if "--epohcs" in words: sys.exit("error: unrecognized arguments: --epohcs")

def make(run, status):
    challenge = int(after("--challenge"))
    run.mkdir(parents=True, exist_ok=True)
    target = {1: "rt_from_stimulus", 2: "externalizing"}[challenge]
    nrmse = 0.8 if "hybrid" in run.parent.name else 0.9
    (run / "config.json").write_text(json.dumps({"challenge": challenge, "target": target}))
    epoch = {"epoch": 1, "train": {}, "valid": {"nrmse": nrmse}, "lr": 0.1, "best": True}
    (run / "history.json").write_text(json.dumps({"epochs": [epoch], "events": []}))
    (run / "state.json").write_text(json.dumps({"status": status}))
    if status == "finished":
        (run / f"weights_challenge_{challenge}.pt").touch()

def main():
    open(os.environ["LOG"], "a").write(json.dumps([name, *words]) + chr(10))
    mode = os.environ.get("MODE", "")
    if mode == name + " fails": sys.exit("error: no such thing")
    if name == "train":
        run = Path(after("--out")) / after("--name") / "20261121_101500"
        make(run, "stopped")
        if mode == "waits":
            saves = lambda *_: (time.sleep(0.3), print("saved", flush=True), sys.exit())
            signal.signal(signal.SIGTERM, saves)
            print("training", flush=True)
            time.sleep(30)
        if mode != "stops":
            make(run, "finished")
    if name == "compare":
        make(Path(after("--out")) / ("promoted_challenge_" + after("--challenge")), "finished")

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def night(tmp_path):
    """-> start(mode, *arguments): a Popen; and the list of the stages that ran."""
    (tmp_path / "run").mkdir()
    shutil.copy(ROOT / "run/overnight.py", tmp_path / "run")
    for name in ("cache", "features", "train", "compare", "submit"):
        (tmp_path / f"run/{name}.py").write_text(STAND_IN)
    for release in ("R1", "R5", "R7"):
        (tmp_path / f"data/{release}_L100_bdf").mkdir(parents=True)

    def start(mode="", *arguments, output=None):
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "LOG": str(tmp_path / "log"),
            "MODE": mode,
        }
        command = [
            sys.executable,
            tmp_path / "run/overnight.py",
            "--release",
            "R1",
            "R2",
            *arguments,
        ]
        if output:
            return Child(command, output, cwd=tmp_path, env=environment)
        return subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start, lambda: [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]


def option(stage, name, count=1):
    """What stands after an option of a stage."""
    at = stage.index(name) + 1
    return stage[at : at + count]


def test_all_stages_in_order_and_what_is_done_is_kept(night):
    start, log = night
    process = start("", "--epochs", "3", "--exclude", "bad.tsv")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    one, two = (
        ["cache", "features", "train", "train", "compare"],
        ["cache", "train", "train", "compare"],
    )
    assert [stage[0] for stage in log()] == [*one, *two, "submit"]
    for stage in log():
        if stage[0] in ("cache", "features"):
            assert option(stage, "--release", 4) == ["R1", "R2", "R5", "R7"]  # R6 is not on disk
        without = option(stage, "--exclude") if "--exclude" in stage else []
        assert without == ["bad.tsv"] * (stage[0] == "cache")
    trains = [stage for stage in log() if stage[0] == "train"]
    for stage, (challenge, model) in zip(
        trains, [("1", "cnn"), ("1", "hybrid"), ("2", "cnn"), ("2", "hybrid")]
    ):
        assert option(stage, "--model") == [model] and option(stage, "--challenge") == [challenge]
        assert option(stage, "--name") == [f"overnight_c{challenge}_R1_R2_{model}"]
        assert option(stage, "--train", 2) == ["R1", "R2"] and option(stage, "--valid") == ["R5"]
        assert stage[-3:] == ["--resume", "--epochs", "3"]
    # the features make all the difference; those of challenge 2 are computed, for the server has no
    # file
    cnn, hybrid = ([word.replace("hybrid", "cnn") for word in stage] for stage in trains[:2])
    assert cnn == hybrid and "--features" not in trains[0]
    assert option(trains[3], "--features") == ["layer"]
    for stage, challenge in zip([stage for stage in log() if stage[0] == "compare"], "12"):
        assert stage[1:4] == [
            f"overnight_c{challenge}_R1_R2_cnn",
            f"overnight_c{challenge}_R1_R2_hybrid",
            "--promote",
        ]
    assert log()[-1][:3] == [
        "submit",
        "experiments/promoted_challenge_1",
        "experiments/promoted_challenge_2",
    ]
    assert "--anyway" not in log()[-1]
    start().communicate(timeout=60)
    assert [stage[0] for stage in log()[10:]] == [
        "cache",
        "features",
        "compare",
        "cache",
        "compare",
        "submit",
    ]


def test_one_challenge_alone(night):
    """Of the other one no run is there: the command that writes the zip without it is named."""
    start, log = night
    out, err = start("", "--challenge", "1").communicate(timeout=60)
    assert [stage[0] for stage in log()] == ["cache", "features", "train", "train", "compare"], err
    # all else is the default
    command = f"python {ROOT}/run/submit.py experiments/promoted_challenge_1 --constant 2"
    assert (
        f"there is no finished run of challenge 2; let a constant stand in with: {command}" in out
    )
    out, err = start("", "--challenge", "2", "--anyway").communicate(timeout=60)
    submit = log()[-1]
    assert (
        submit[:3]
        == ["submit", "experiments/promoted_challenge_1", "experiments/promoted_challenge_2"]
        and submit[-1] == "--anyway"
    )


def test_without_test_releases_the_better_by_validation_is_submitted(night, tmp_path):
    start, log = night
    (tmp_path / "data" / "R7_L100_bdf").rmdir()
    out, err = start().communicate(timeout=60)
    assert (
        "compare" not in [stage[0] for stage in log()]
        and "no comparison: neither R6 nor R7 is on disk" in out
    )
    best = [
        f"experiments/overnight_c{challenge}_R1_R2_hybrid/20261121_101500" for challenge in (1, 2)
    ]
    assert log()[-1][1:3] == best, err


@pytest.mark.parametrize(
    "words, code, says",
    [
        (
            ["--epohcs", "3"],
            1,
            "error: unrecognized arguments: --epohcs",
        ),  # of the stand-in; the true one ends with 2
        (["--model", "tcn"], 2, "error: --model cannot be chosen here"),
        (["--target=correct"], 2, "error: --target=correct cannot be chosen here"),
    ],
)
def test_mistakes_show_before_the_night_begins(night, tmp_path, words, code, says):
    start, log = night
    process = start("", *words)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code and err.startswith(says) and not (tmp_path / "log").exists()


def test_simulated_releases_need_anyway_at_once(night, tmp_path):
    start, log = night
    (tmp_path / "data" / "R1_L100_bdf" / "dataset_description.json").write_text(
        '{"Name": "simulated"}'
    )
    process = start()
    _, err = process.communicate(timeout=60)
    assert (
        process.returncode == 1
        and "R1 is simulated" in err
        and "add --anyway" in err
        and not (tmp_path / "log").exists()
    )
    start("", "--anyway").communicate(timeout=60)
    assert log()[-1][0] == "submit" and log()[-1][-1] == "--anyway"


def test_options_for_training_are_checked_by_the_training_itself():
    done = subprocess.run(
        [sys.executable, ROOT / "run" / "overnight.py", "--release", "R1", "--epohcs", "3"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.startswith(
        "error: unrecognized arguments: --epohcs 3"
    )


@pytest.mark.parametrize(
    "mode, ran, says",
    [
        ("features fails", ["cache", "features"], "stage 2, features, ended with exit code 1"),
        ("stops", ["cache", "features", "train"], "cnn has stopped before its end"),
    ],
)
def test_a_stage_that_does_not_finish_ends_the_night(night, mode, ran, says):
    start, log = night
    process = start(mode)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and says in err and [stage[0] for stage in log()] == ran


def test_asked_to_stop_it_waits_for_the_stage_to_save(night, tmp_path):
    start, log = night
    process = start("waits", output=tmp_path / "printed")
    process.wait_until(lambda: "training" in process.printed())
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0 and "saved\nstopped in stage 3, cnn" in process.printed(), (
        process.printed()
    )
    assert len(log()) == 3
