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

ROOT = Path(__file__).parents[2]

# Notes its arguments; as train.py it makes the run folder, finished or as MODE says
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
name, words = Path(__file__).stem, sys.argv[1:]
open(os.environ["LOG"], "a").write(json.dumps([name, *words]) + chr(10))
mode = os.environ.get("MODE", "")
if mode == name + " fails": sys.exit("error: no such thing")
if name == "train":
    run = Path(words[words.index("--out") + 1]) / words[words.index("--name") + 1] / "20261121_101500"
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text('{"challenge": 1, "target": "rt_from_stimulus"}')
    say = lambda status: (run / "state.json").write_text(json.dumps({"status": status}))
    say("stopped")
    if mode == "waits":
        signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), print("saved", flush=True), sys.exit()))
        print("training", flush=True)
        time.sleep(30)
    if mode != "stops":
        say("finished")
        (run / "weights_challenge_1.pt").touch()
"""


@pytest.fixture
def night(tmp_path):
    """-> start(mode, *arguments): a Popen; and the list of the stages that ran."""
    (tmp_path / "run").mkdir()
    shutil.copy(ROOT / "run/overnight.py", tmp_path / "run")
    for name in ("cache", "features", "train", "compare"):
        (tmp_path / f"run/{name}.py").write_text(STAND_IN)
    for release in ("R1", "R5", "R7"):
        (tmp_path / f"data/{release}_L100_bdf").mkdir(parents=True)

    def start(mode="", *arguments, output=None):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "LOG": str(tmp_path / "log"), "MODE": mode}
        command = [sys.executable, tmp_path / "run/overnight.py", "--release", "R1", "R2", *arguments]
        if output:
            return Child(command, output, cwd=tmp_path, env=environment)
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start, lambda: [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]


def test_all_stages_in_order_and_what_is_done_is_kept(night):
    start, log = night
    process = start("", "--epochs", "3")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert [stage[0] for stage in log()] == ["cache", "features", "train", "train", "compare"]
    cache, features, tcn, hybrid, compare = log()
    assert cache[1:7] == features[1:7] == ["--release", "R1", "R2", "R5", "R7", "--challenge"]  # R6 is not on disk
    for stage, model in ((tcn, "tcn"), (hybrid, "hybrid")):
        assert stage[1:11] == ["--model", model, "--name", f"overnight_c1_R1_R2_{model}", "--train", "R1", "R2", "--valid", "R5", "--challenge"]
        assert stage[-3:] == ["--resume", "--epochs", "3"]
    assert compare[1:3] == ["overnight_c1_R1_R2_tcn", "overnight_c1_R1_R2_hybrid"]
    start().communicate(timeout=60)
    assert [stage[0] for stage in log()[5:]] == ["cache", "features", "compare"]


@pytest.mark.parametrize("mode, ran, says", [("features fails", ["cache", "features"], "stage 2, features, ended with exit code 1"), ("stops", ["cache", "features", "train"], "tcn has stopped before its end")])
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
    assert process.wait(60) == 0 and "saved\nstopped in stage 3, tcn" in process.printed(), process.printed()
    assert len(log()) == 3
