"""CONTRIBUTING.md: its examples run as they stand there, and what it names exists."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
EXAMPLES = [name for name, text in SECTIONS.items() if "\n# " in text and "```python" in text]
FOR_A_TEST = ["--epochs", "1", "--batch-size", "16", "--amp", "off", "--max-recordings", "3"]
FOR_A_TEST += ["--members", "1", "--blend", "none"]


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
    expected = ("model", "loss", "augmentation", "with its kernel", "command", "bench row")
    for thing in expected:
        assert any(name.endswith(thing) for name in SECTIONS), thing


def test_what_the_page_names_exists():
    for path in re.findall(r"`((?:eeg|csrc|tests|run)/[^` ]*)`", PAGE):
        assert (ROOT / path).exists(), path


def squeezed(line):
    return " ".join(line.split())


def patched(block, root):
    """Applies a diff to the file that its first line names. -> the file."""
    name, *lines = block.splitlines()
    path = root / name
    source = path.read_text(encoding="utf-8").splitlines()
    for hunk in "\n".join(lines).split("\n@@\n"):
        hunk = hunk.splitlines()
        old = [squeezed(line[1:]) for line in hunk if line[0] in " -"]
        new = [line[1:] for line in hunk if line[0] in " +"]
        starts = range(len(source) - len(old) + 1)
        found = [at for at in starts if list(map(squeezed, source[at : at + len(old)])) == old]
        assert len(found) == 1, f"{name}: {len(found)} places for {old}"
        source[found[0] : found[0] + len(old)] = new
    path.write_text("\n".join(source) + "\n", encoding="utf-8")
    return path


USE = {
    "An augmentation": """
        from eeg.data.augment import AUGMENTATIONS, Augment
        assert "invert" in AUGMENTATIONS and Augment(invert=0.5).invert == 0.5
    """,
    "A feature with its kernel": """
        import torch
        from eeg.models.features import FEATURES
        from eeg.models.neuro import NeuroFeatures
        values = NeuroFeatures()(torch.randn(2, 129, 200))
        a, b, c = (values[:, list(FEATURES).index(f"ssvep{n}")] for n in ("20", "25", "_sum"))
        assert values.shape == (2, len(FEATURES)) and torch.allclose(a + b, c)
    """,
}


@pytest.mark.parametrize("section", USE)
def test_an_example_with_a_kernel(section, copy):
    """The Python part runs; the C++ part compiles, without being built into the extension."""
    shutil.copytree(ROOT / "csrc", copy / "csrc")
    for block in blocks(section, "diff"):
        path = patched(block, copy)
        if path.suffix == ".hpp":
            compiler = shlex.split(os.environ.get("CXX") or "g++")  # perhaps behind ccache
            check = ["-std=c++17", "-fopenmp", "-fsyntax-only", "-x", "c++"]
            subprocess.run([*compiler, *check, path], check=True)
    code = textwrap.dedent(USE[section])
    environment = os.environ | {"PYTHONPATH": str(copy)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=copy, env=environment)
