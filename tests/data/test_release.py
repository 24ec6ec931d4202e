"""Recordings that a list leaves out of a cache."""

import h5py
import numpy as np
import pytest

from eeg import UserError
from eeg.data.release import read_exclusions
from tests.conftest import trial_events, write_participants, write_recording
from tests.data.helpers import command, made

ONE, TWO, THREE = "NDARAA001AAA", "NDARBB002BBB", "NDARCC003CCC"
TASK = "contrastChangeDetection"


@pytest.fixture
def folder(tmp_path):
    """R1: subject ONE with runs 1 and 2, TWO and THREE with run 1."""
    folder = tmp_path / "data" / "R1_L100_bdf"
    write_participants(folder, [ONE, TWO, THREE])
    for i, (subject, run) in enumerate(((ONE, 1), (ONE, 2), (TWO, 1), (THREE, 1))):
        write_recording(folder, subject, trial_events(rt=1 + 0.1 * i), run=run, seed=i)
    return folder


def listed(folder, text):
    path = folder.parent.parent / "bad.tsv"
    path.write_text(text)
    return read_exclusions(path)


def kept(cache):
    rows = np.unique(cache.metadata[["subject", "run"]])
    return [(row["subject"].decode(), int(row["run"])) for row in rows]


@pytest.mark.parametrize(
    "line, left_out",
    [
        (f"sub-{ONE}_task-{TASK}_run-2\tflat", {(ONE, 2)}),
        (f"sub-{ONE}_task-{TASK}_run-2_eeg.bdf flat", {(ONE, 2)}),
        (f"sub-{ONE}/eeg/sub-{ONE}_task-{TASK}_run-2_eeg.bdf\tflat", {(ONE, 2)}),
        (f"sub-{ONE}_task-{TASK}\tflat", {(ONE, 1), (ONE, 2)}),
        (f"{ONE}/2   flat", {(ONE, 2)}),
        (f"R1/{ONE}/2\tflat", {(ONE, 2)}),
        (f"{ONE}\tflat", {(ONE, 1), (ONE, 2)}),
        (f"recording\treason\n# a comment\n\nsub-{TWO}\tflat", {(TWO, 1)}),
        (f"\ufeff{TWO} flat\r\n{THREE} noisy\r\n", {(TWO, 1), (THREE, 1)}),
        (f"sub-{ONE}_task-RestingState\tflat", set()),
        ("# nothing", set()),
    ],
)
def test_ways_to_name_a_recording(folder, line, left_out):
    report, cache = made(folder, exclude=listed(folder, line))
    everyone = [(ONE, 1), (ONE, 2), (TWO, 1), (THREE, 1)]
    assert kept(cache) == [each for each in everyone if each not in left_out]
    assert {(r.subject, r.run) for r, _ in report.excluded} == left_out


@pytest.mark.parametrize(
    "text, trouble",
    [
        (f"{ONE}\tflat\nsub-{TWO}\n", f"line 2: 'sub-{TWO}' has no reason"),
        ("sub-../../etc\tflat", "line 1: 'sub-../../etc' is neither"),
        (f"sub-{ONE},flat and more", "is neither a recording nor a subject"),
        (f"{ONE}/x flat", "is neither a recording"),
    ],
)
def test_a_list_that_cannot_be_understood(folder, text, trouble):
    with pytest.raises(UserError, match="expected a line like: sub-") as e:
        listed(folder, text)
    assert trouble in str(e.value)


def test_a_list_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_exclusions(tmp_path / "bad.tsv")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_exclusions(tmp_path)
    (tmp_path / "bad.tsv").write_bytes(b"NDARAA caf\xe9")
    with pytest.raises(UserError, match="is not text in UTF-8"):
        read_exclusions(tmp_path / "bad.tsv")


def test_what_is_excluded_is_kept_in_the_cache(folder):
    report, cache = made(folder, exclude=listed(folder, f"{ONE}/2\t30 electrodes are flat\n"))
    with h5py.File(report.path) as f:
        name = f"sub-{ONE}/eeg/sub-{ONE}_task-{TASK}_run-2_eeg.bdf"
        assert [each.decode() for each in f.attrs["excluded"]] == [
            f"{name}\t30 electrodes are flat"
        ]
        assert name not in [each.decode() for each in f["recordings"]]
        assert f.attrs["exclude"].decode().endswith("bad.tsv")


def test_many_may_be_excluded(folder):
    """More than the 64 kB of an attribute in HDF5's first format."""
    many = "".join(f"{ONE}/{run} {'long ' * 500}\n" for run in range(2, 100))
    for run in range(3, 100):
        write_recording(folder, ONE, trial_events(n=2), b"never opened", run=run)
    report, cache = made(folder, exclude=listed(folder, many))
    assert len(report.excluded) == 98 and len(kept(cache)) == 3
    with h5py.File(report.path) as f:
        assert len(f.attrs["excluded"]) == 98


def test_another_list_rebuilds_and_the_same_does_not(folder):
    made(folder)
    first = listed(folder, f"{ONE}/2 flat\n")
    report, _ = made(folder, exclude=first)
    assert report.built and "excluded recordings has changed (1 recording gone)" in report.reason
    assert not made(folder, exclude=first)[0].built
    same = listed(
        folder, f"# said otherwise\nsub-{ONE}_task-{TASK}_run-2\tflat\nNDARZZ009ZZZ gone\n"
    )
    assert not made(folder, exclude=same)[0].built
    report, cache = made(folder, exclude=listed(folder, f"{TWO} flat\n"))
    assert report.built and "(1 recording new, 1 recording gone)" in report.reason
    assert kept(cache) == [(ONE, 1), (ONE, 2), (THREE, 1)]
    report, _ = made(folder, exclude=listed(folder, f"{TWO} noisy\n"))  # the reason is kept, too
    assert report.built


def test_a_cache_with_exclusions_is_not_replaced_by_one_without(folder):
    made(folder, exclude=listed(folder, f"{ONE}/2 flat\n"))
    with pytest.raises(UserError, match="1 recording excluded instead of 0 recordings") as e:
        made(folder)
    keep, replace = str(e.value).split("keep it with: ")[1].split(", or replace it with: ")
    assert "--exclude" in keep and "bad.tsv" in keep
    assert "--exclude" not in replace and "--force" in replace
    assert made(folder, force=True)[0].built and made(folder)[0].excluded == []


def test_the_command_counts_and_names_them(folder, tmp_path):
    (tmp_path / "bad.tsv").write_text(f"{ONE}/2\tflat\nsub-NDARZZ009ZZZ\tgone\n")
    words = "--release", "R1", "--exclude", tmp_path / "bad.tsv"
    done = command(folder, *words)
    assert done.returncode == 0, done.stderr
    assert "note      1 of 2 lines in" in done.stdout and "R1: sub-NDARZZ009ZZZ" in done.stdout
    assert "excluded  1 recording, by" in done.stdout
    assert f"sub-{ONE} {TASK} run 2: flat" in done.stdout
    assert "1 recording excluded (--force" in command(folder, *words).stdout
    (tmp_path / "bad.tsv").write_text("".join(f"{name} flat\n" for name in (ONE, TWO, THREE)))
    done = command(folder, *words, "--force")
    assert done.returncode == 1 and "excludes every recording of R1" in done.stderr
