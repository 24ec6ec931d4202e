"""Splits: nobody on both sides, copies and bad subjects out, folds whole and even."""

import shutil

import h5py
import numpy as np
import pytest

from eeg import UserError
from eeg.data import split as module
from eeg.data.cache import Cache, cache_path
from eeg.data.release import choose_releases
from eeg.data.split import Keep, further, labels, names, split, subject_folds


def change(path, **columns):
    with h5py.File(path, "r+") as f:
        metadata = f["metadata"][()]
        for name, value in columns.items():
            metadata[name] = value(metadata)
        f["metadata"][()] = metadata


def test_releases_that_are_cached_are_taken(tmp_path):
    for release in ("R3", "R1", "R5", "R6", "R10"):
        cache_path(tmp_path, 1, release).touch()
    assert choose_releases(tmp_path, 1, None, None, False, 0) == (("R1", "R3", "R10"), ("R5",))
    assert choose_releases(tmp_path, 1, None, None, False, 5) == (("R1", "R3", "R10"), ())
    assert choose_releases(tmp_path, 1, None, ["R3"], False, 0) == (("R1", "R10"), ("R3",))
    assert choose_releases(tmp_path, 1, ["R5", "R1", "R5"], None, False, 0) == (("R5", "R1"), ())
    cache_path(tmp_path, 1, "R5").unlink()
    assert choose_releases(tmp_path, 1, None, None, False, 0) == (("R1", "R3", "R10"), ())
    with pytest.raises(
        UserError,
        match="no cache of a training release for challenge 2 .*run/cache.py --release R1 --mini "
        "--challenge 2",
    ):
        choose_releases(tmp_path, 2, None, None, True, 0)
    with pytest.raises(UserError, match="no cache of R4, R7 .*run/cache.py --release R4 R7"):
        choose_releases(tmp_path, 1, ["R1", "R4"], ["R7"], False, 0)
    with pytest.raises(UserError, match="use one of them"):
        choose_releases(tmp_path, 1, None, ["R5"], False, 5)


def test_by_release(caches):
    found = split(caches, 1, ("R1",), ("R5",))
    assert set(found.cache.release[found.train]) == {"R1"} and set(
        found.cache.release[found.valid]
    ) == {"R5"}
    assert not names(found.cache, found.train) & names(found.cache, found.valid)
    about = found.describe("valid")
    assert (
        about["releases"] == ["R5"]
        and about["windows"] == len(found.valid)
        and about["subjects"] == sorted(names(found.cache, found.valid))
    )


def test_without_a_validation_release_a_fifth_of_the_subjects_validates(caches):
    found = split(caches, 1, ("R1",), ())
    train, valid = names(found.cache, found.train), names(found.cache, found.valid)
    assert (
        train | valid == names(found.cache, slice(None))
        and not train & valid
        and 1 <= len(valid) <= 2
    )
    assert (
        len(found.train) + len(found.valid) == len(found.cache) - found.cache.metadata["copy"].sum()
    )


def test_folds_are_whole_subjects_of_about_the_same_size():
    rng = np.random.default_rng(0)
    for count in (2, 5, 7):
        subjects = rng.choice(
            [f"S{i:02d}" for i in range(23)], 997, p=rng.dirichlet(np.full(23, 0.5))
        )
        folds = subject_folds(subjects, count)
        for subject in np.unique(subjects):
            assert len(set(folds[subjects == subject])) == 1
        sizes = np.bincount(folds, minlength=count)
        largest = np.unique(subjects, return_counts=True)[1].max()
        assert sizes.sum() == 997 and sizes.max() - sizes.min() <= max(largest, 1)
    with pytest.raises(UserError, match="5 folds .* have 2"):
        subject_folds(np.array(["a", "b", "b"]), 5)


def test_each_subject_validates_in_one_fold(caches):
    seen = []
    for k in (1, 2, 3):
        found = split(caches, 1, ("R1", "R5"), (), fold=(k, 3))
        everyone, valid = names(found.cache, slice(None)), names(found.cache, found.valid)
        assert names(found.cache, found.train) == everyone - valid
        seen += sorted(valid)
    assert sorted(seen) == sorted(everyone) and len(everyone) > 3


def test_what_is_left_out(caches, tmp_path, monkeypatch):
    folder = shutil.copytree(caches, tmp_path / "cache")
    change(cache_path(folder, 1, "R1"), copy=lambda m: np.arange(len(m)) < 5)
    n = len(Cache(cache_path(folder, 1, "R1")))
    assert len(split(folder, 1, ("R1",), ("R5",)).train) == n - 5
    assert len(split(folder, 1, ("R1",), ("R5",), keep=Keep(copies=True)).train) == n
    someone = Cache(cache_path(folder, 1, "R1")).metadata["subject"][-1]
    own = int((Cache(cache_path(folder, 1, "R1")).metadata["subject"] == someone).sum())
    monkeypatch.setattr(module, "BAD", {someone.decode()})
    found = split(folder, 1, ("R1",), ("R5",))
    assert len(found.train) == n - 5 - own and found.dropped["bad subjects"] == own
    assert len(split(folder, 1, ("R1",), ("R5",), keep=Keep(bad=True)).train) == n - 5
    few = split(folder, 1, ("R1",), ("R5",), keep=Keep(recordings=2))
    for release in ("R1", "R5"):
        rows = np.concatenate([few.train, few.valid])
        own = rows[few.cache.release[rows] == release]
        assert len(np.unique(few.cache.metadata["recording"][own])) == 2


def test_the_first_subjects_of_each_release(caches, monkeypatch):
    """Of those that have windows left, and each with all of them: the three of R5 are fewer than
    four."""
    cache = Cache(cache_path(caches, 1, "R1"))
    names = sorted({name.decode() for name in cache.metadata["subject"][~cache.metadata["copy"]]})
    monkeypatch.setattr(module, "BAD", {names[0]})
    found = split(caches, 1, ("R1",), ("R5",), keep=Keep(subjects=4))
    assert found.describe("train")["subjects"] == names[1:5]
    whole = split(caches, 1, ("R1",), ("R5",))
    assert np.array_equal(found.valid, whole.valid)
    chosen = np.isin(
        whole.cache.metadata["subject"][whole.train], [name.encode() for name in names[1:5]]
    )
    assert np.array_equal(found.train, whole.train[chosen])


def test_a_split_that_cannot_be(caches, tmp_path):
    with pytest.raises(UserError, match="R1 is named for training and for validation"):
        split(caches, 1, ("R1", "R5"), ("R1",))
    with pytest.raises(UserError, match="no cache of R9 .*run/cache.py --release R9"):
        split(caches, 1, ("R1", "R9"), ("R5",))
    folder = shutil.copytree(caches, tmp_path / "cache")
    change(cache_path(folder, 1, "R5"), copy=lambda m: np.ones(len(m), bool))
    with pytest.raises(
        UserError,
        match=r"no subject is left for the validation side \(R5: .* windows of copies was left",
    ):
        split(folder, 1, ("R1",), ("R5",))
    shutil.copy(cache_path(folder, 1, "R1"), cache_path(folder, 2, "R1"))
    with pytest.raises(UserError, match="windows of challenge 1, expected 2; .* --challenge 2"):
        split(folder, 2, ("R1",), ())
    first = Cache(cache_path(folder, 1, "R1")).metadata["subject"][0]
    change(
        cache_path(folder, 1, "R5"),
        copy=lambda m: np.zeros(len(m), bool),
        subject=lambda m: np.full(len(m), first),
    )
    with pytest.raises(AssertionError, match="both sides"):
        split(folder, 1, ("R1",), ("R5",))


def test_labels_of_every_target(caches):
    one, two = Cache(cache_path(caches, 1, "R1")), Cache(cache_path(caches, 2, "R1"))
    np.testing.assert_array_equal(
        labels(one, "rt_from_stimulus")[:, 0], one.metadata["response"] - one.metadata["stimulus"]
    )
    np.testing.assert_array_equal(
        labels(one, "rt_from_trialstart")[:, 0], one.metadata["rt_from_trialstart"]
    )
    correct = labels(one, "correct")[:, 0]
    np.testing.assert_array_equal(np.where(np.isnan(correct), -1, correct), one.metadata["correct"])
    np.testing.assert_array_equal(labels(two, "factors")[:, 0], two.y)
    np.testing.assert_array_equal(labels(two, "factors")[:, 1], two.metadata["p_factor"])
    also = further(two, ("age", "sex"))
    np.testing.assert_array_equal(also[:, 0], two.metadata["age"])
    np.testing.assert_array_equal(also[:, 1] == 1, two.metadata["sex"] == b"M")
    assert further(one, ()).shape == (len(one), 0)
