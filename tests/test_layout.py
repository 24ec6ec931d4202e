"""Which folder may import which: arrows point down, and no two folders import each other."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "eeg"

# Each may import those before it. What every script shares comes first, `models` ships alone.
ORDER = (
    "hints",
    "native",
    "files",
    "cli",
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
