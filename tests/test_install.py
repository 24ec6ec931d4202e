"""`git clone` makes a folder called eeg: from the one that holds it, `import eeg` must find the
package, not that folder.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_import_from_the_folder_that_holds_the_clone(tmp_path):
    if missing := [name for name in ("pip", "setuptools") if find_spec(name) is None]:
        pytest.skip(
            f"no {missing[0]} in this environment, which has made eeg importable in another way"
        )
    clone, environment = tmp_path / "eeg", tmp_path / "environment"
    shutil.copytree(ROOT / "eeg", clone / "eeg", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", clone)
    (clone / "setup.py").write_text(
        "from setuptools import setup\nsetup()\n"
    )  # the extension is built already
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    Path(site, "others.pth").write_text(
        sysconfig.get_path("purelib") + "\n"
    )  # what is installed where the tests run
    alone = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    install = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-build-isolation",
        "--no-deps",
        "--editable",
        clone,
    ]  # as `make` does
    subprocess.run(install, check=True, env=alone, capture_output=True)
    code = "import eeg, eeg.data.cache; from eeg import UserError; print(eeg.__file__)"
    done = subprocess.run(
        [python, "-c", code], cwd=tmp_path, env=alone, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(clone / "eeg" / "__init__.py"), done.stderr
