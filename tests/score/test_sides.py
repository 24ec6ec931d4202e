"""Which windows a run is scored on, and what forbids it."""

import shutil

import h5py
import numpy as np
import pytest

from eeg import UserError
from eeg.data.cache import cache_path
from eeg.score.sides import check_side, scored_side, side
from tests.conftest import LABELS
from tests.score.conftest import subject_names, write_run


def people(cache, rows):
    return sorted({name.decode() for name in cache.metadata["subject"][rows]})


def test_what_is_cached_of_the_test_releases(caches, tmp_path):
    cache, rows = scored_side(caches, 1)
    assert people(cache, rows) == subject_names("R6") + subject_names("R7")
    assert len(rows) == len(cache)
    shutil.copy(cache_path(caches, 1, "R7"), tmp_path)
    cache, rows = scored_side(tmp_path, 1)
    assert people(cache, rows) == subject_names("R7")
    assert people(*scored_side(caches, 2, ["R5", "R6", "R5"])) == subject_names(
        "R5"
    ) + subject_names("R6")
    with pytest.raises(
        UserError, match="no cache of R6, R7 .*run/cache.py --release R6 R7 --challenge 2"
    ):
        scored_side(tmp_path, 2)


def test_of_challenge_2_the_contrast_change_task_alone_is_scored(caches, tmp_path):
    path = shutil.copy(cache_path(caches, 2, "R6"), tmp_path)
    with h5py.File(path, "r+") as f:
        metadata = f["metadata"][()]
        other = metadata["subject"] == subject_names("R6")[1].encode()
        metadata["task"][other] = b"RestingState"
        f["metadata"][()] = metadata
    _, rows = scored_side(tmp_path, 2, ["R6"])
    np.testing.assert_array_equal(rows, np.flatnonzero(~other))
    with h5py.File(path, "r+") as f:
        metadata["task"] = b"RestingState"
        f["metadata"][()] = metadata
    with pytest.raises(UserError, match="has no window of contrastChangeDetection"):
        scored_side(tmp_path, 2, ["R6"])


def test_the_sides_a_run_was_trained_on(caches, tmp_path):
    run = write_run(tmp_path, "a/1")
    assert people(*side(caches, [run], "train")) == subject_names("R1")
    assert people(*side(caches, [run], "valid")) == subject_names("R5")
    with_copies = shutil.copytree(caches, tmp_path / "cache")
    with h5py.File(cache_path(with_copies, 1, "R5"), "r+") as f:
        metadata = f["metadata"][()]
        metadata["copy"][:4] = True
        f["metadata"][()] = metadata
    np.testing.assert_array_equal(side(with_copies, [run], "valid")[1], np.arange(4, len(metadata)))
    run.config["train"]["keep_copies"] = True
    assert len(side(with_copies, [run], "valid")[1]) == len(metadata)


def test_nobody_is_fitted_on_whom_a_member_was_trained_on(caches, tmp_path):
    r1, r5 = subject_names("R1"), subject_names("R5")
    one = write_run(tmp_path, "a/1", sides={"train": r1[:3], "valid": r1[3:] + r5[:1]})
    two = write_run(tmp_path, "a/2", sides={"train": r1[1:4], "valid": r1[:1] + r5[1:2]})
    assert people(*side(caches, [one, two], "valid")) == r1[4:] + r5[:2]
    folds = [
        write_run(tmp_path, f"cv/{i}", sides={"train": r1[:i] + r1[i + 1 :], "valid": [r1[i]]})
        for i in range(5)
    ]
    with pytest.raises(
        UserError, match="folds of a cross-validation leave none.*--ensemble average"
    ):
        side(caches, folds, "valid")
    away = write_run(tmp_path, "b/1", sides={"train": r1, "valid": ["NDARR5999XX"]})
    with pytest.raises(
        UserError, match="R5_windows.h5 has no window of the 1 validation subject of b/1"
    ):
        side(caches, [away], "valid")


@pytest.mark.parametrize(
    "changed, reason",
    [
        (
            {"input": {"sfreq": 200.0, "window_samples": 200, "channels": LABELS}},
            "is sampled at 100 Hz, a/1 was trained at 200 Hz; "
            "train another with: python run/train.py --challenge 1",
        ),
        (
            {"input": {"sfreq": 100.0, "window_samples": 150, "channels": LABELS}},
            "has windows of 200 samples, a/1 was trained on 150; "
            "train another with: python run/train.py --challenge 1",
        ),
        (
            {"input": {"sfreq": 100.0, "window_samples": 200, "channels": LABELS[:64]}},
            r"has 129 channels \(E1, E2, E3, ...\), a/1 was trained on 64 channels",
        ),
        (
            {"target": "rt_from_trialstart"},
            "a/1 predicts rt_from_trialstart, challenge 1 is scored on rt_from_stimulus",
        ),
        (
            {"challenge": 2, "target": "externalizing"},
            "a/1 is a run of challenge 2, .*challenge1_R6_windows.h5 a cache of challenge 1",
        ),
        (
            {"sides": {"train": ["NDARR6001XX", "NDARR1000XX"]}},
            r"trained on 1 of the subjects it would be scored on \(NDARR6001XX\)",
        ),
    ],
)
def test_what_may_not_be_scored(caches, tmp_path, changed, reason):
    with pytest.raises(UserError, match=reason):
        check_side(write_run(tmp_path, "a/1", **changed), scored_side(caches, 1))


def test_what_may_be_scored(caches, tmp_path):
    check_side(write_run(tmp_path, "a/1"), scored_side(caches, 1))
    check_side(write_run(tmp_path, "a/2", 2, target="factors"), scored_side(caches, 2))
    run = write_run(tmp_path, "a/3")
    del run.config["split"]
    with pytest.raises(UserError, match="config.json lacks split"):
        check_side(run, scored_side(caches, 1))
