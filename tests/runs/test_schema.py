"""A run's files are checked where they are read: whatever they say, no command ends in a traceback,
and other runs are used."""

import copy
import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eeg import UserError
from eeg.runs import run as runs
from eeg.runs import schema
from eeg.runs.choice import best_run, named, newest_unfinished
from eeg.runs.monitor import events, look
from eeg.runs.run import Run, find_runs
from tests.runs.folders import write_run

ROOT = Path(__file__).resolve().parents[2]
STATUSES = ("finished", "running", "died", "stopped", "failed", "waiting")
VALUES = (None, [], {}, "x", -1, math.nan)


@pytest.fixture(autouse=True)
def said_nothing_before():
    runs._say_once.cache_clear()


SPOILT = {
    "cut off": ("config.json", '{"challenge": 1, "tar'),
    "empty": ("config.json", ""),
    "not text": ("config.json", "\udcff\udcfe"),
    "too deep": ("config.json", "[" * 100_000),
    "a challenge that is a list": (
        "config.json",
        '{"challenge": [1], "target": "rt_from_stimulus"}',
    ),
    "no target": ("config.json", '{"challenge": 1}'),
    "null history": ("history.json", "null"),
    "null epochs": ("history.json", '{"epochs": null, "events": []}'),
    "a time that is text": (
        "timing.json",
        '{"epochs": [{"epoch": 1, "seconds": "long"}], "events": []}',
    ),
    "a status that is a number": ("state.json", '{"status": 3}'),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_run_that_cannot_be_read_is_left_out(tmp_path, fault, capsys):
    write_run(tmp_path, "a/20260101_000000", nrmse=(0.5,))
    write_run(tmp_path, "a/20260102_000000", "stopped")
    file, text = SPOILT[fault]
    spoilt = write_run(tmp_path, "a/20260103_000000", nrmse=(0.1,))
    (spoilt / file).write_text(text, errors="surrogateescape")
    for _ in range(2):
        assert [run.folder.name[7] for run in find_runs(tmp_path)] == ["1", "2"]
        assert best_run(tmp_path, 1).best == (1, 0.5)
        assert newest_unfinished(tmp_path).folder.name == "20260102_000000"
        assert len(named(tmp_path, "a")) == 2
    [line] = capsys.readouterr().err.splitlines()  # said once
    assert line.startswith(f"left out: {spoilt / file} ") and "rm " in line
    assert look(Run(spoilt)).status == "unreadable"


def test_a_run_that_is_named_and_cannot_be_read_is_an_error(tmp_path):
    folder = write_run(tmp_path, "a/1")
    (folder / "config.json").write_text(
        '{"challenge": 1, "target": "rt_from_stimulus", "train": {"lr": "high"}}'
    )
    wrong = r'says train.lr: "high", expected a number from 0 to 1e\+09'
    expected = rf"{folder}/config.json {wrong}; .* rm -r {folder}$"
    with pytest.raises(UserError, match=expected):
        named(tmp_path, "a/1")[0].config
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    with pytest.raises(UserError, match="config.json cannot be read: Is a directory"):
        Run(folder).config


@pytest.mark.parametrize(
    "command",
    [["evaluate"], ["submit"], ["compare"], ["report"], ["train", "--resume"], ["monitor"]],
)
def test_commands_do_without_a_run_that_cannot_be_read(tmp_path, command):
    name, *more = command
    spoilt = write_run(tmp_path, "a/1")
    (spoilt / "config.json").write_text('{"challenge": [1')
    places = ["--out", tmp_path, "--cache", tmp_path]
    command = [sys.executable, ROOT / "run" / f"{name}.py", *more, *places]
    done = subprocess.run(command, capture_output=True, text=True)
    if name == "monitor":
        assert (done.returncode, done.stderr) == (0, "") and "unreadable" in done.stdout
        return
    left_out, error = done.stderr.splitlines()
    assert done.returncode == 1 and left_out.startswith("left out: ") and "is not JSON" in left_out
    assert error.startswith("error: ") and "no " in error


# --------------------------------------------------------------------------- every key, every value


@pytest.fixture(scope="module")
def trained(caches, tmp_path_factory):
    """The folder of a run as run/train.py leaves it, with events."""
    from tests.conftest import command

    out = tmp_path_factory.mktemp("trained")
    words = command(caches, out, "--challenge", "1", "--epochs", "1", "--max-recordings", "4")
    subprocess.run(words, check=True, capture_output=True)
    [folder] = out.glob("*/*")
    event = {"epoch": 1, "batch": 2, "kind": "device error", "text": "lost"}
    for file, more in (("history.json", {}), ("timing.json", {"when": time.time()})):
        content = json.loads((folder / file).read_text())
        content["events"].append(event | more)
        (folder / file).write_text(json.dumps(content))
    return folder


def places(value, place=()):
    """Where a value holds others: of a list the first alone."""
    yield place
    if isinstance(value, list):
        value = dict(enumerate(value[:1]))
    for key, each in value.items() if isinstance(value, dict) else ():
        yield from places(each, (*place, key))


def replaced(content, place, value):
    if not place:
        return value
    content = copy.deepcopy(content)
    at = content
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return content


@pytest.mark.parametrize("file", schema.FILES)
def test_what_training_writes_fits_and_nothing_else_is_a_traceback(trained, tmp_path, file):
    for name in schema.FILES:
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    (tmp_path / "weights_challenge_1.pt").write_bytes(b"")
    assert Run(tmp_path).finished and look(Run(tmp_path)).status == "finished"
    content, refused = json.loads((trained / file).read_text()), 0
    for place in places(content):
        for value in VALUES:
            (tmp_path / file).write_text(json.dumps(replaced(content, place, value)))
            run = Run(tmp_path)
            if one := [run for run in runs.readable([run])]:
                assert look(one[0]).status in STATUSES
                events(run), run.best, run.recoveries, run.finished, run.scored, run.resume
            else:
                refused += 1
                assert look(run).status == "unreadable"
                assert len(look(run).remarks[0].splitlines()) == 1
    assert refused > 3 * len(content)


def test_what_is_missing(trained, tmp_path):
    for name in schema.FILES:
        content = json.loads((trained / name).read_text())
        for place in places(content):
            if place and not isinstance(place[-1], int):
                for each in schema.FILES:
                    (tmp_path / each).write_bytes((trained / each).read_bytes())
                less = replaced(content, place, None)
                at = less
                for key in place[:-1]:
                    at = at[key]
                del at[place[-1]]
                (tmp_path / name).write_text(json.dumps(less))
                for run in runs.readable([Run(tmp_path)]):
                    look(run), events(run), run.best, run.finished, run.scored


def test_resuming_a_config_that_contradicts_itself(train, trained):
    folder = shutil.copytree(trained, train.out / "a" / "20260101_000000")
    config = json.loads((folder / "config.json").read_text())
    config["train"]["set"] = {}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError,
        match='"train" and "model" give a different depth of the model; train another with: python',
    ):
        train("--resume", folder, "--epochs", 2)


def test_resuming_a_config_that_lacks_what_training_needs(train):
    folder = write_run(train.out, "a/1", "stopped")  # its config says challenge, target and name
    with pytest.raises(
        UserError,
        match="lacks train, versions, .*; train another with: python run/train.py --challenge 1",
    ):
        train("--resume", folder)
