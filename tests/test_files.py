"""What cannot be written: the message says which file, how much room is missing, and which option
names another place.
"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eeg import UserError, files
from eeg.runs.run import find_runs
from eeg.train import checkpoint
from tests.score.conftest import write_run

ROOT = Path(__file__).resolve().parents[1]
MB = 10**6


def command(name, *words, **settings):
    return subprocess.run(
        [sys.executable, ROOT / "run" / f"{name}.py", *map(str, words)],
        capture_output=True,
        text=True,
        **settings,
    )


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def free(monkeypatch, size):
    monkeypatch.setattr(
        files.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": size})
    )


@pytest.mark.parametrize(
    "size, words",
    [
        (5 * MB, "it takes 5.0 MB, 3.0 MB more than the disk has free; "),
        (lambda: 5 * MB, "it takes 5.0 MB, 3.0 MB more than the disk has free; "),
        (None, "the disk has 2.0 MB free; "),
    ],
)
def test_a_full_disk(tmp_path, monkeypatch, size, words):
    free(monkeypatch, 2 * MB)
    with (
        pytest.raises(UserError) as caught,
        files.writing(tmp_path / "new" / "x.zip", "--zip FILE", size),
    ):
        full()
    assert (
        str(caught.value)
        == f"there is no room for {tmp_path}/new/x.zip: {words}free some, or name another place "
        f"with --zip FILE"
    )


def test_other_errors(tmp_path):
    (tmp_path / "a file").write_text("")
    with (
        pytest.raises(
            UserError,
            match="y cannot be written: Not a directory; name another place with --json FILE",
        ),
        files.writing(tmp_path / "y", "--json FILE"),
    ):
        (tmp_path / "a file" / "y").write_text("")


@pytest.mark.parametrize(
    "size, words",
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (62_700_000, "62.7 MB"),
        (2.5e9, "2.5 GB"),
    ],
)
def test_amounts(size, words):
    assert files.amount(size) == words


def test_a_file_is_there_whole_or_the_one_before_it_is(tmp_path, monkeypatch):
    path = tmp_path / "scores.json"
    files.write_whole(path, "old")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError):
        files.write_whole(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_synth(tmp_path, monkeypatch):
    from eeg.synth import release

    write, written = release.write_bdf, []

    def until_full(path, x):
        if len(written) == 2:
            full()
        write(path, x)
        written.append(path.stat().st_size)

    monkeypatch.setattr(release, "write_bdf", until_full)
    free(monkeypatch, MB)
    with pytest.raises(
        UserError,
        match=r"no room for .*R1_L100_bdf: it takes (\d+\.\d) MB, .* MB more than the disk has "
        r"free; free some, or name another place with --data DIR",
    ) as caught:
        release.simulate_release(tmp_path, "R1", 8, runs=1, jobs=1)
    takes = float(str(caught.value).split("it takes ")[1].split()[0])
    assert takes == pytest.approx(
        8 * sum(written) / 2 / MB, rel=0.1
    )  # of eight subjects, by the two that were written
    assert list(tmp_path.iterdir()) == []


def test_the_weights_at_the_end_of_training(train, monkeypatch):  # noqa: F811
    monkeypatch.setattr(checkpoint, "export", full)
    free(monkeypatch, 1000)
    with pytest.raises(
        UserError,
        match=r"no room for .*weights_challenge_1.pt: it takes .* kB more than the disk has free; "
        r".*--out DIR in a new run; when there is room, resume this one with: python "
        r"run/train.py --resume",
    ):
        train("--challenge", 1, "--epochs", 1, "--max-recordings", 4)
    [run] = find_runs(train.out)
    assert run.status == "failed"
    monkeypatch.undo()
    train("--resume", run.folder)
    assert find_runs(train.out)[0].finished


def test_export_leaves_nothing_half_written(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError):
        checkpoint.export(tmp_path / "weights.pt", {}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder(tmp_path, monkeypatch):
    from eeg.runs import journal

    monkeypatch.setattr(journal, "write_json", full)
    with pytest.raises(
        UserError,
        match="no room for .*/c1_tcn/: the disk has .* free; free some, or name another place "
        "with --out DIR",
    ):
        journal.claim(tmp_path, "c1_tcn", {})
    assert list(tmp_path.rglob("*")) == [tmp_path / "c1_tcn"]


def test_evaluate_json(tmp_path, caches):  # noqa: F811
    write_run(tmp_path / "out", "a/1")
    shared = ("a", "--release", "R5", "--cache", caches, "--out", tmp_path / "out", "--json")
    done = command("evaluate", *shared, "/dev/full")
    assert (
        done.returncode == 1
        and done.stderr.startswith("error: there is no room for /dev/full: it takes ")
        and done.stderr.endswith("--json FILE\n")
    )
    for place, reason in (
        (tmp_path / "absent" / "x.json", "there is no folder"),
        (tmp_path, "is a folder"),
    ):
        done = command("evaluate", *shared, place)
        assert (
            done.returncode == 1
            and reason in done.stderr
            and "--json FILE" in done.stderr
            and done.stdout == ""
        )  # before the work
    done = command("evaluate", *shared, "/dev/stdout")
    assert done.returncode == 0 and json.loads(
        done.stdout[done.stdout.index('{\n "challenge1"') : done.stdout.rindex("}") + 1]
    )


def test_submit(tmp_path, caches, monkeypatch):  # noqa: F811
    from eeg.score import submission

    free(monkeypatch, 1000)
    monkeypatch.setattr(Path, "write_bytes", full)
    entry = submission.Entry({}, 1.5)
    with pytest.raises(
        UserError,
        match=r"no room for .*x.zip: it takes .* kB, .* more than the disk has free; free some, "
        r"or name another place with --zip FILE",
    ):
        submission.write_zip(tmp_path / "x.zip", {1: entry, 2: entry})
    done = command("submit", "--out", tmp_path, "--zip", tmp_path / "absent" / "x.zip")
    assert (
        done.returncode == 1 and "there is no folder" in done.stderr and "--zip FILE" in done.stderr
    )


@pytest.fixture
def read_only(tmp_path):
    """A folder in which nobody can write, root neither: it is on no disk."""
    return Path("/proc/self")


def test_what_the_system_takes_in_pieces_is_written_whole(tmp_path, monkeypatch):
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda at, data, offset: whole(at, data[:7], offset))
    values = np.arange(40, dtype=np.float32).reshape(5, 8)
    with open(tmp_path / "x", "w+b") as file:
        files.write_at(file.fileno(), values, 3)
    assert (tmp_path / "x").read_bytes() == bytes(3) + values.tobytes()


@pytest.mark.parametrize(
    "name, words, option",
    [
        ("synth", ("--release", "R1", "--subjects", "1", "--data"), "--data DIR"),
        ("cache", ("--release", "R5", "--cache"), "--cache DIR"),
        ("train", ("--challenge", "1", "--out"), "--out DIR"),
        ("tune", ("--challenge", "1", "--out"), "--out DIR"),
    ],
)
def test_a_folder_that_cannot_be_written_names_the_option(
    caches,  # noqa: F811
    read_only,
    name,
    words,
    option,
):
    data = () if name == "synth" else ("--data", caches.parent / "data")
    cache = () if name == "cache" else ("--cache", caches)
    done = command(name, *data, *cache, *words, read_only)
    [line] = done.stderr.splitlines()
    assert (
        done.returncode == 1
        and line.startswith("error: ")
        and str(read_only) in line
        and option in line
    ), line
