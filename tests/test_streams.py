"""Printing is never what a command fails at: closed streams, terminals without bars and umlauts,
paths of any bytes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eeg.runs.run import find_runs
from tests.conftest import command
from tests.runs.folders import write_run

ROOT = Path(__file__).resolve().parents[1]
MONITOR = [sys.executable, str(ROOT / "run" / "monitor.py")]
PLAIN = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}  # ASCII for all that Python reads and writes


def in_shell(words, redirection):
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *map(str, words)],
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&-", "<&- >&- 2>&-", "2>&-"])
def test_closed_streams(tmp_path, redirection):
    write_run(tmp_path, "a/1")
    done = in_shell([*MONITOR, "--out", tmp_path], redirection)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("finished" in done.stdout) == (">&-" not in redirection.split())


def test_what_is_printed_does_not_land_in_a_file_that_took_the_number_of_a_closed_stream(tmp_path):
    code = """
import os
from eeg import cli

def main():
    file = open("file", "w")
    print("words")
    os.system("echo child")

cli.run(main)
"""
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "") and (tmp_path / "file").read_text() == ""


def test_a_full_disk_behind_the_output(tmp_path):
    write_run(tmp_path, "a/1")
    done = in_shell([*MONITOR, "--out", tmp_path], "> /dev/full")
    [line] = (
        done.stderr.splitlines()
    )  # how much it says depends on whether Python holds back what is printed
    assert (
        done.returncode == 1
        and line.startswith("error: ")
        and line.endswith("No space left on device")
    )


def test_a_reader_that_leaves(tmp_path):
    for i in range(3):
        write_run(tmp_path, f"a/{i}")
    done = in_shell([*MONITOR, "--out", tmp_path], "| true")
    assert done.stderr == ""


def test_a_terminal_without_bars(tmp_path):
    write_run(tmp_path, "ärger/1")
    done = subprocess.run(
        [*MONITOR, "--out", tmp_path],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert (
        (done.returncode, done.stderr) == (0, b"")
        and b"?rger/1  finished" in done.stdout
        and b"0.900 ??? 0.850" in done.stdout
    )


def test_names_of_any_bytes(tmp_path):
    name = os.fsdecode(b"l\xe4rm")  # as an older system wrote it: no UTF-8
    write_run(tmp_path, f"{name}/1")
    for environment in ({}, PLAIN):
        done = subprocess.run(
            [*MONITOR, "--out", tmp_path], capture_output=True, env=os.environ | environment
        )
        assert (done.returncode, done.stderr) == (0, b"") and b"l\xe4rm/1  finished" in done.stdout


def test_all_steps_where_only_ascii_is_known(tmp_path, caches):  # noqa: F811
    """Names and folders that are not ASCII, from a release to a report."""
    here = tmp_path / "Jürg ☃"
    here.mkdir()
    (here / "caché").symlink_to(caches)

    def run(*words):
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=here,
            capture_output=True,
            env=os.environ | PLAIN,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode()

    script = lambda name: ROOT / "run" / f"{name}.py"
    run(script("synth"), "--release", "R6", "--subjects", "2", "--runs", "1", "--data", "données")
    run(script("cache"), "--release", "R6", "--data", "données", "--cache", "caché-deux")
    run(script("features"), "--release", "R6", "--cache", "caché-deux")
    places = ("--cache", "caché", "--out", "expé")
    options = ("--challenge", "1", "--epochs", "1", "--name", "c1_☃")
    said = run(*command("caché", "expé", *options)[1:])
    [found] = find_runs(here / "expé")
    assert (
        found.finished and found.config["command"][-1] == "c1_\udce2\udc98\udc83"
    )  # its bytes, as this system gave them
    assert f"weights expé/c1_☃/{found.folder.name}" in said and "weights expé/c1_☃" in (
        found.folder / "log.txt"
    ).read_text(encoding="utf-8")
    assert "c1_☃" in run(script("monitor"), "--out", "expé")
    run(script("evaluate"), "c1_☃", "--release", "R5", *places, "--json", "scorés.json")
    assert json.loads((here / "scorés.json").read_bytes())["challenge1"]["windows"] > 0
    run(script("report"), "c1_☃", "--quick", "--release", "R5", *places)
    assert (found.folder / "report.html").stat().st_size > 10_000
