"""--help of every command answers at once: nothing heavy has been imported when it has been
printed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "run").glob("*.py"))
HEAVY = {"torch", "numpy", "h5py", "mne", "scipy", "matplotlib"}

# A script with --help, and, as the interpreter ends, which modules there are
RUN = """
import atexit, json, runpy, sys
script, file = sys.argv[1:]
atexit.register(lambda: open(file, "w").write(json.dumps(list(sys.modules))))
sys.argv = [script, "--help"]
runpy.run_path(script, run_name="__main__")
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help_imports_nothing_heavy(script, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RUN, script, tmp_path / "modules"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {script.name}") and "--data" in done.stdout
    modules = json.loads((tmp_path / "modules").read_text())
    numpy_only = (
        {"numpy"} if script.stem == "monitor" else set()
    )  # it knows a run's target by eeg.data.windows
    assert HEAVY & set(modules) <= numpy_only


def test_there_are_commands():
    assert {"cache", "train", "evaluate", "submit", "bench"} <= {path.stem for path in SCRIPTS}
