"""Which folder may import which: arrows point down, and no two folders import each other. How many
files a folder may hold, how many lines a file, and how many columns a line."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "eeg"
FOLDERS = sorted(path.parent for path in PACKAGE.rglob("*/__init__.py"))
SOURCES = [*PACKAGE.rglob("*.py"), *(ROOT / "run").glob("*.py"), *(ROOT / "csrc").rglob("*.?pp")]
SOURCES.sort()
MOST_FILES, MOST_LINES = 13, 400  # of Python in a folder, with its __init__; in a file
COLUMNS = 100

# Each may import those before it. What every script shares comes first, `models` ships alone.
ORDER = (
    "hints",
    "native",
    "files",
    "cli",
    "option",
    "models",
    "raw",
    "data",
    "bucket",
    "synth",
    "machine",
    "ridge",
    "runs",
    "score",
    "audit",
    "transfer",
    "train",
    "bench",
)
ALONE = ("models",)
NEEDED_BY = {"_native": ("native", "models", "bench")}  # bench measures its functions alone


def imports(path):
    """The names under eeg that a file imports: ["data.cache.Cache", ...]."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found += [f"{node.module}.{name.name}" for name in node.names]
    return [name.removeprefix("eeg.") for name in found if name.startswith("eeg.")]


def part(path):
    """The folder, or the file, of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_arrows_point_down(path):
    own = part(path)
    for name in imports(path):
        to = name.split(".")[0]
        if to in NEEDED_BY:
            assert own in NEEDED_BY[to], f"{path.name} imports eeg.{name}"
        elif to in ORDER and to != own:
            assert own in ORDER and own not in ALONE, f"{path.name} imports eeg.{name}"
            assert ORDER.index(to) < ORDER.index(own), f"{path.name} imports eeg.{name}"


def test_every_part_has_its_place():
    parts = {part(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert parts == set(ORDER)


def test_every_folder_is_installed():
    [listed] = re.findall(r"^packages = (.*)$", (ROOT / "pyproject.toml").read_text(), re.M)
    parents = (path.parent.relative_to(ROOT) for path in PACKAGE.rglob("__init__.py"))
    assert set(ast.literal_eval(listed)) == {".".join(parent.parts) for parent in parents}


@pytest.mark.parametrize("folder", [PACKAGE, *FOLDERS], ids=lambda folder: folder.name)
def test_a_folder_can_be_taken_in_at_a_glance(folder):
    files = sorted(path.name for path in folder.glob("*.py"))
    assert len(files) <= MOST_FILES, f"{folder.name} has {len(files)} files: {', '.join(files)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_can_be_read_at_one_sitting(path):
    """The formatters leave long comments and texts alone."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MOST_LINES, f"{path.relative_to(ROOT)} has {len(lines)} lines"
    long = [number for number, line in enumerate(lines, 1) if len(line) > COLUMNS]
    assert not long, f"{path.relative_to(ROOT)}, line {long[0]} has more than {COLUMNS} columns"
