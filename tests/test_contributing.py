"""CONTRIBUTING.md: its examples run as they stand there, and what it names exists."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
EXAMPLES = [name for name, text in SECTIONS.items() if "\n# " in text and "```python" in text]
FOR_A_TEST = ["--epochs", "1", "--batch-size", "16", "--amp", "off", "--max-recordings", "3"]


def blocks(section, language):
    return re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.S)


@pytest.fixture
def copy(tmp_path):
    """A copy of the package and the scripts, which an example may change."""
    for folder in ("eeg", "run"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / "copy" / folder, ignore=ignored)
    return tmp_path / "copy"


@pytest.mark.parametrize("section", EXAMPLES)
def test_an_example_runs(section, copy, caches):
    for block in blocks(section, "python"):
        first, text = block.split("\n", 1)
        path = copy / first.removeprefix("# ")
        assert path.parent.is_dir()
        with open(path, "a", encoding="utf-8") as file:
            file.write("\n\n" + text if path.stat().st_size else text)
    commands = "".join(blocks(section, "sh")).splitlines()
    assert commands
    for line in commands:
        python, *arguments = shlex.split(line, comments=True)
        assert python == "python"
        if "--challenge" in arguments:
            arguments += [*FOR_A_TEST, "--out", copy / "experiments"]
        done = subprocess.run(
            [sys.executable, *arguments, "--cache", caches],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_has_an_example_of_each():
    expected = ("model", "loss", "augmentation", "feature", "command", "bench row")
    for thing in expected:
        assert any(name.endswith(thing) for name in SECTIONS), thing


def test_what_the_page_names_exists():
    for path in re.findall(r"`((?:eeg|csrc|tests|run)/[^` ]*)`", PAGE):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("section", ["An augmentation", "A feature"])
def test_the_names_in_a_list_are_in_its_files(section):
    """- `FILE`: ... `NAME` ..."""
    items = re.findall(r"^- `([^`]+)`: (.*?)(?=^- |\n\n|\Z)", SECTIONS[section], re.M | re.S)
    assert items
    for path, text in items:
        source = (ROOT / path).read_text(encoding="utf-8")
        for name in re.findall(r"`([^`]+)`", text):
            assert name in source, f"{name} is not in {path}"
