"""run/train.py: memory, parts of a batch and the precision."""

import re
import shutil
import signal
import subprocess
import sys

import pytest

from eeg.data.batches import opened
from eeg.data.cache import Cache, cache_path
from eeg.machine import amp, device
from eeg.runs.run import Run, find_runs
from eeg.train import trainer as module
from tests.conftest import command
from tests.train.interruptions import sends
from tests.train.trained import ENVIRONMENT, left_behind, the_run

# run/train.py in a process that may take so many bytes of memory beyond what Python and torch have
IN_LITTLE_ROOM = """
import resource, runpy, sys
import eeg.train.trainer
from eeg.machine import memory
with open("/proc/self/status") as f:
    held = next(1024 * int(line.split()[1]) for line in f if line.startswith("VmData"))
limit = int((held + int(sys.argv[1])) / 0.8)  # of which --max-memory gives 80 %
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")"""


def test_a_batch_larger_than_memory(caches, tmp_path):
    """All training windows at once, of which memory holds about half; and hardly any."""
    (tmp_path / "program.py").write_text(IN_LITTLE_ROOM)

    def trained(room):
        options = "--challenge 1 --epochs 1 --set depth=4 --batch-size 100000".split()
        line = command(caches, tmp_path / str(room), *options)
        line[1:1] = [str(tmp_path / "program.py"), str(room)]
        settings = {"env": ENVIRONMENT, "capture_output": True, "text": True, "timeout": 300}
        return subprocess.run(line, **settings)

    done = trained(320_000_000)
    assert done.returncode == 0, done.stderr
    run = the_run(tmp_path / "320000000")
    windows, part = run.config["split"]["train"]["windows"], run.config["part"]
    assert (
        f"batch   all {windows} training windows: --batch-size 100000 asks for more than there are"
        in done.stdout
    )
    assert (
        f"computed in parts of at most {part}, and batch norm sees one part at a time"
        in done.stdout
    )
    assert 8 <= part < windows
    assert run.finished and run.state["batches"] == 1 and not run.history["events"]
    done = trained(100_000_000)
    assert done.returncode == 1
    assert re.fullmatch(
        rf"error: training on batches of {windows} windows takes at least .* free to take; free "
        rf"some, .*",
        done.stderr.strip(),
    )


def test_parts_belong_to_a_run(train, monkeypatch):
    """Batch norm sees one at a time: a run that is resumed where there is more room goes on with
    the parts it had."""
    monkeypatch.setattr(module, "largest_part", lambda model, size, held, room: (5, 1e9))
    train("--challenge", 1, "--epochs", 2)
    whole = left_behind(the_run(train.out).folder)
    shutil.rmtree(train.out)
    with monkeypatch.context() as patch:
        sends(signal.SIGTERM, "_train_batch", 3, patch)
        train("--challenge", 1, "--epochs", 2)
    monkeypatch.setattr(module, "largest_part", lambda model, size, held, room: (size, 1e9))
    assert "computed in parts of at most 5" in train("--resume")
    assert left_behind(the_run(train.out).folder) == whole
    shutil.rmtree(train.out)
    train("--challenge", 1, "--epochs", 2)
    assert left_behind(the_run(train.out).folder) != whole


def test_the_precision_is_measured_on_a_modest_batch(train, monkeypatch):
    """And never on more windows than there are."""
    asked = []
    choose = lambda model, device, precisions, windows, *_: asked.append(windows) or ("fp32", "")
    monkeypatch.setattr(amp, "choose", choose)
    monkeypatch.setattr(device, "supports_bf16", lambda: True)
    for size in (16, 70, 100_000):
        train("--challenge", 1, "--epochs", 1, "--amp", "auto", "--batch-size", size)
    assert asked == [16, 64, 64]


def test_the_runs_of_a_plan_share_a_precision(train, monkeypatch):
    """What is measured may differ from time to time; what compares seeds must not."""
    answers = iter([("bf16", "; because"), ("fp32", "")])
    monkeypatch.setattr(amp, "choose", lambda *arguments: next(answers))
    monkeypatch.setattr(device, "supports_bf16", lambda: True)
    options = "--challenge 1 --epochs 1 --amp auto --device cpu --seed 0 1 2".split()
    assert "bf16 (asked for; because)" in train(*options)
    runs = find_runs(train.out)
    assert [run.config["precision"] for run in runs] == ["bf16"] * 3
    train("--resume", runs[0].folder, "--epochs", 2)
    assert Run(runs[0].folder).config["precision"] == "bf16" and next(answers) == ("fp32", "")


def test_memory_that_runs_short(train, monkeypatch):
    said = iter(["fine", "shrink", "fine", "stop", "fine"])
    monkeypatch.setattr(module, "LOOK", 1)
    look = lambda: (next(said, "fine"), "95 % of 8.0 GB")
    monkeypatch.setattr(module, "Watch", lambda percent: look)
    printed = train("--challenge", 1, "--epochs", 2)
    run = the_run(train.out)
    assert run.status == "stopped"
    assert run.state["reason"] == "95 % of 8.0 GB"
    assert printed.count("95 % of 8.0 GB") == 2
    train("--resume")
    train("--challenge", 1, "--epochs", 2)
    one, two = find_runs(train.out)
    assert left_behind(one.folder) == left_behind(two.folder)


def test_more_windows_than_memory_holds_are_the_same_windows(train, caches, monkeypatch):
    if opened(Cache(cache_path(caches, 1, "R1")), 1) is None:
        pytest.skip(f"files in {caches} cannot be read past the system's cache")
    train("--challenge", 1, "--epochs", 2)
    for users in (module, sys.modules["eeg.score.predict"]):
        monkeypatch.setattr(users, "fits", lambda size: False)
    assert "past the system's cache of files" in train("--challenge", 1, "--epochs", 2)
    one, two = find_runs(train.out)
    assert left_behind(one.folder) == left_behind(two.folder)
