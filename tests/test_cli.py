"""What every command says of a bad argument, and how it counts."""

import subprocess
import sys
from pathlib import Path

import pytest

from eeg import cli

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(path.stem for path in (ROOT / "run").glob("*.py"))


def command(name, *words):
    return subprocess.run(
        [sys.executable, ROOT / "run" / f"{name}.py", *words], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "name, words, reason",
    [
        ("train", ["--lr", "abc"], "argument --lr: 'abc' is not a number of at least 0"),
        ("train", ["--lr", "-1"], "argument --lr: '-1' is not a number of at least 0"),
        ("train", ["--lr", "nan"], "argument --lr: 'nan' is not a number of at least 0"),
        ("train", ["--ema", "1"], "argument --ema: '1' is not a number from 0 to less than 1"),
        ("train", ["--max-memory", "much"], "argument --max-memory: 'much' is not a percentage"),
        (
            "train",
            ["--epochs", "2.5"],
            "argument --epochs: '2.5' is not a whole number of at least 1",
        ),
        ("train", ["--seed", "0", "x"], "argument --seed: 'x' is not a whole number"),
        (
            "train",
            ["--challenge", "3"],
            "argument --challenge: '3' is not a challenge; expected 1 or 2",
        ),
        (
            "train",
            ["--challenge", "1", "--set", "width"],
            "argument --set: 'width' is not NAME=VALUE",
        ),
        (
            "evaluate",
            ["--shift", "long"],
            "argument --shift: 'long' is not a length of time from 0 to 10 s",
        ),
        ("tune", ["--trials", "0"], "argument --trials: '0' is not a whole number of at least 1"),
        ("cache", ["--release", "5505"], "argument --release: '5505' is not a release"),
        (
            "synth",
            ["--release", "R1", "--seed", "one"],
            "argument --seed: 'one' is not a whole number",
        ),
    ],
)
def test_a_bad_value_is_named_in_one_line(name, words, reason):
    done = command(name, *words)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {reason}") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_unknown_option_gets_one_line_and_help_the_usage(name):
    done = command(name, "--no-such-option", "--no-such-option-either")
    assert done.returncode == 2 and (
        "--no-such-option" in done.stderr or "required: --" in done.stderr
    )
    assert (
        done.stderr.startswith("error: ")
        and done.stderr.endswith(f"see: python run/{name}.py --help\n")
        and len(done.stderr.splitlines()) == 1
    )
    done = command(name, "--help")
    assert (
        done.returncode == 0 and done.stdout.startswith("usage: ") and "--data DIR" in done.stdout
    )


@pytest.mark.parametrize(
    "arguments, text",
    [
        ((0, "subject"), "0 subjects"),
        ((1, "subject"), "1 subject"),
        ((2, "run"), "2 runs"),
        ((12345, "window"), "12,345 windows"),
        ((2, "batch"), "2 batches"),
        ((1, "batch"), "1 batch"),
        ((3, "process"), "3 processes"),
    ],
)
def test_counted_nouns(arguments, text):
    assert cli.counted(*arguments) == text


def test_one_subject_is_not_one_subjects(tmp_path):
    places = ["--data", tmp_path / "data", "--cache", tmp_path / "cache"]
    made = command("synth", "--release", "R8", "--subjects", "1", *places)
    assert "simulated: 1 subject, 3 recordings," in made.stdout, made.stderr
    built = command("cache", "--release", "R8", "--max-recordings", "1", *places)
    assert built.stdout.startswith("R8: 1 participant, 1 contrast-change recording in "), (
        built.stderr
    )
    assert " of 1 subject (" in built.stdout


def test_windows_left_out_of_training_are_counted_in_words():
    from eeg.train.progress import left_out

    said = [
        left_out(reason, n)
        for n in (1, 1234)
        for reason in ("copies", "bad subjects", "correct unknown")
    ]
    assert said[:3] == [
        "1 copied window",
        "1 window of bad subjects",
        "1 window with correct unknown",
    ]
    assert said[3:] == [
        "1,234 copied windows",
        "1,234 windows of bad subjects",
        "1,234 windows with correct unknown",
    ]


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0:00"),
        (7.4, "0:07"),
        (59.7, "1:00"),
        (750, "12:30"),
        (3600, "1:00:00"),
        (11100, "3:05:00"),
        (187200, "2 d 4 h"),
    ],
)
def test_clock(seconds, text):
    assert cli.clock(seconds) == text


@pytest.mark.parametrize("module, known", [("numpy", True), ("of_nobody", False)])
def test_a_python_that_lacks_what_is_needed(module, known):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from eeg import cli; "
    code += f"cli.run(lambda: __import__({module!r}))"
    bare = [sys.executable, "-I", "-S", "-c", code]  # without site-packages
    done = subprocess.run(bare, capture_output=True, text=True)
    assert done.returncode == 1 and ("Traceback" in done.stderr) != known
    if known:
        ways = "run make build, then source .venv/bin/activate"
        assert done.stderr == f"error: {sys.executable} has no module numpy: {ways}\n"
