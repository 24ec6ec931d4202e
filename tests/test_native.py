"""A checkout whose extension is not built, or is another's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bare(tmp_path):
    """A copy of the project without its extension."""
    without = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(ROOT / "eeg", tmp_path / "eeg", ignore=without)
    return tmp_path


def said(bare, before=""):
    """What a script that reads windows says there, after Python ran `before`."""
    (bare / "sitecustomize.py").write_text(before)
    script = "from eeg import cli; cli.run(lambda: __import__('eeg.data.batches'))"
    command = [sys.executable, "-c", script]
    environment = os.environ | {"PYTHONPATH": str(bare)}
    done = subprocess.run(command, cwd=bare, env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr


def test_what_is_not_built_is_said_in_a_sentence(bare):
    code, words = said(bare)
    assert code == 1 and "Traceback" not in words
    assert words.startswith("error: the native extension is not built here")
    assert "run make build" in words


def test_the_extension_of_another_checkout_is_not_taken(bare):
    built = {
        f"eeg.{path.name.split('.')[0]}": str(path) for path in (ROOT / "eeg").glob("_native*.so")
    }
    finder = f"""
import sys
from importlib.util import spec_from_file_location

class Installed:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in {built!r}:
            return spec_from_file_location(name, {built!r}[name])

sys.meta_path.append(Installed)
"""
    code, words = said(bare, finder)
    assert code == 1 and f"that of {ROOT} was found: run make build in {bare}" in words
