"""Batches: each window once, the same after a restart, shared out between processes, and no thread
left behind."""

import threading

import numpy as np
import pytest

from eeg import UserError
from eeg.data.augment import Augment
from eeg.data.batches import Batches, Order, Reading
from eeg.data.build import Settings, build
from eeg.data.cache import Cache
from eeg.data.release import find_release
from tests.conftest import trial_events, write_recording


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("batches")
    paths = []
    for release, counts in (("R1", (6, 2)), ("R2", (5,))):
        for i, n in enumerate(counts):
            folder = root / "data" / f"{release}_L100_bdf"
            write_recording(folder, f"NDARA{release}00{i}A", trial_events(n), seed=i)
        found = find_release(release, root / "data")
        paths.append(build(found, Settings(margin_s=0.25), root).path)
    return Cache(paths)


def epoch(batches, number, start=0):
    return [
        (b.rows.copy(), b.x.copy(), b.shift_samples.copy()) for b in batches.epoch(number, start)
    ]


def test_in_order_every_window_once(cache):
    seen = epoch(Batches(cache, batch_size=4, order=Order(shuffle=False)), 0)
    assert [len(b[0]) for b in seen] == [4, 4, 4, 1]
    np.testing.assert_array_equal(np.concatenate([b[0] for b in seen]), np.arange(13))
    np.testing.assert_array_equal(
        np.concatenate([b[1] for b in seen]), np.stack([cache[i][:, 25:225] for i in range(13)])
    )


def test_shuffled_by_seed_and_epoch(cache):
    batches = Batches(cache, batch_size=4, seed=1)
    rows = [np.concatenate([b[0] for b in epoch(batches, e)]) for e in (0, 1, 0)]
    assert len(set(rows[0])) == 12 == len(rows[0])
    assert (rows[0] == rows[2]).all() and (rows[0] != rows[1]).any()
    assert (batches.order(0) != Batches(cache, batch_size=4, seed=2).order(0)).any()
    assert set(batches.order(3)) == set(range(13))


def test_a_restart_goes_on_exactly(cache):
    augment = Augment(scale=0.2, noise=0.1, shift=0.25, dropout=0.1, mirror=0.5)
    batches = Batches(cache, batch_size=2, seed=1, augment=augment, zscore=True)
    whole, rest = epoch(batches, 4), epoch(batches, 4, start=3)
    assert len(whole) == 6 and len(rest) == 3
    for a, b in zip(whole[3:], rest):
        assert all((x == y).all() for x, y in zip(a, b))
    assert epoch(batches, 4, start=6) == []


def test_processes_share_a_global_batch_without_overlap(cache):
    alone = epoch(Batches(cache, batch_size=4, seed=1), 0)
    shares = [
        epoch(Batches(cache, batch_size=2, seed=1, order=Order(rank=r, world=2)), 0) for r in (0, 1)
    ]
    for whole, first, second in zip(alone, *shares, strict=True):
        np.testing.assert_array_equal(whole[0][0::2], first[0])
        np.testing.assert_array_equal(whole[0][1::2], second[0])
        np.testing.assert_array_equal(whole[1][1::2], second[1])


def test_balance_weighs_subjects_the_same(cache):
    batches = Batches(cache, batch_size=4, order=Order(balance=True))
    subjects = np.concatenate([cache.metadata["subject"][batches.order(e)] for e in range(400)])
    share = [(subjects == s).mean() for s in np.unique(subjects)]
    np.testing.assert_allclose(share, 1 / 3, atol=0.03)


def test_a_shift_is_reported_with_the_window_it_moved(cache):
    for batch in Batches(cache, batch_size=4, augment=Augment(shift=0.25)).epoch(0):
        for row, x, shift in zip(batch.rows, batch.x, batch.shift_samples):
            np.testing.assert_array_equal(x, cache[int(row)][:, 25 + shift : 225 + shift])


def test_the_thread_ends_with_the_loop(cache, monkeypatch):
    batches = Batches(cache, batch_size=2)
    for _ in batches.epoch(0):
        break
    with pytest.raises(RuntimeError, match="model"):
        for _ in batches.epoch(0):
            raise RuntimeError("model")
    monkeypatch.setattr(batches, "_gather", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(batches.epoch(0))
    assert not [t for t in threading.enumerate() if t.name == "batches"]


def test_a_batch_is_good_until_the_next_but_one(cache):
    held = []
    for batch in Batches(cache, batch_size=2, reading=Reading(ahead=1)).epoch(0):
        held.append((batch, batch.x.copy()))
        for earlier, copy in held[-2:]:
            np.testing.assert_array_equal(earlier.x, copy)


@pytest.mark.parametrize(
    "settings, reason",
    [
        (dict(rows=[]), "no window"),
        (dict(rows=[13]), "of a cache of 13"),
        (dict(batch_size=0), "makes no sense"),
        (dict(order=Order(rank=2, world=2)), "makes no sense"),
        (
            dict(augment=Augment(shift=0.3)),
            "python run/cache.py --release R1.* --margin 0.3 --force",
        ),
        (dict(reading=Reading(length=251)), "the cache stores 250"),
    ],
)
def test_mistakes(cache, settings, reason):
    with pytest.raises(UserError, match=reason):
        Batches(cache, **settings)
    with pytest.raises(UserError, match="noise must lie"):
        Augment(noise=-1)
