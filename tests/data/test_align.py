"""Windows aligned by subject, against NumPy and SciPy: flat electrodes, no full rank, before
anything else is done to them."""

import pickle

import h5py
import numpy as np
import pytest
import scipy.linalg

from eeg.data.augment import Augment, mirrored
from eeg.data.batches import SIZE_UV, Batches, Order, Reading, aligned
from eeg.data.build import Settings, build
from eeg.data.cache import Cache
from eeg.data.release import find_release
from eeg.raw.preprocessing import Preprocessing
from tests.conftest import trial_events, write_recording

FLAT = 6  # number of the electrode that is flat in the first subject
PEOPLE = {"R1": ("NDARAA001AAA", "NDARBB002BBB"), "R2": ("NDARAA001AAA",)}


@pytest.fixture(scope="module", params=["float32", "float16", "average reference"])
def cache(tmp_path_factory, request):
    """Of two files, both with a subject of the same name: electrodes share signals of other sizes
    in each."""
    root = tmp_path_factory.mktemp("align")
    settings = Settings(margin_s=0.25)
    if request.param == "float16":
        settings.dtype = "float16"
    elif request.param == "average reference":
        settings.preprocessing = Preprocessing(reference="average")
    for seed, (release, name) in enumerate((r, name) for r in PEOPLE for name in PEOPLE[r]):
        rng = np.random.default_rng(seed)
        sources = np.cumsum(rng.normal(size=(129, 4000)), 1) % 20
        digital = 3000 * (rng.normal(size=(129, 129)) * rng.uniform(0.2, 3, (129, 1))) @ sources
        digital[128] = 0
        if seed == 0:
            digital[FLAT] = 1234
        folder = root / "data" / f"{release}_L100_bdf"
        write_recording(folder, name, trial_events(6 - seed), np.round(digital).astype(int))
    return Cache([build(find_release(r, root / "data"), settings, root).path for r in PEOPLE])


def rows_of(cache, part, subject):
    inside = cache.part_of(np.arange(len(cache))) == part
    return np.flatnonzero(inside & (cache.metadata["subject"] == subject.encode()))


def each_subject(cache):
    """(rows of a subject in a file, the mean covariance of its windows by NumPy)"""
    for part, names in enumerate(PEOPLE.values()):
        for name in names:
            rows = rows_of(cache, part, name)
            each = [np.cov(cache[row].astype(float), bias=True) for row in rows]
            yield rows, np.mean(each, 0)


def read(cache, rows, **settings):
    order = Order(shuffle=False)
    with_margin = Reading(250, np.zeros(len(cache), int))
    batches = Batches(cache, rows, 4, order=order, reading=with_margin, **settings)
    return np.concatenate([batch.x.copy() for batch in batches.epoch(0)])


def test_euclidean_is_scipys_inverse_square_root(cache):
    changed = 0
    for rows, covariance in each_subject(cache):
        alive = np.flatnonzero(covariance.diagonal() > 1e-3)
        assert len(alive) >= 127
        own = covariance[np.ix_(alive, alive)]
        found = read(aligned(cache, "euclidean"), rows)
        x = np.stack([cache[row] for row in rows]).astype(float)
        if "average" in str(cache.attributes[0].get("reference")):  # of rank 128 at most
            root = np.real(scipy.linalg.sqrtm(np.linalg.pinv(own, rcond=1e-9, hermitian=True)))
            changed += 1
        else:
            root = np.real(scipy.linalg.fractional_matrix_power(own, -0.5))
            left = np.setdiff1d(np.arange(129), alive)
            assert 128 in left and not found[:, left].any()
        expected = SIZE_UV * root @ x[:, alive]
        np.testing.assert_allclose(found[:, alive], expected, atol=2e-3 * SIZE_UV)
        mean = np.mean([np.cov(window, bias=True) for window in found[:, alive]], 0)
        rank = np.linalg.matrix_rank(own, tol=1e-6, hermitian=True)
        values = np.linalg.eigvalsh(mean)[-rank:]
        np.testing.assert_allclose(values, SIZE_UV**2, rtol=2e-2)
    assert changed in (0, 3)


def test_spread_divides_each_electrode_by_its_own(cache):
    for rows, covariance in each_subject(cache):
        spread = np.sqrt(covariance.diagonal())
        factor = np.divide(SIZE_UV, spread, out=np.zeros(129), where=spread > 1e-3)
        expected = factor[:, None] * np.stack([cache[row] for row in rows]).astype(float)
        found = read(aligned(cache, "spread"), rows)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_what_else_is_done_to_windows_comes_after_it(cache):
    plain = read(aligned(cache, "euclidean"), None)
    both = Augment(mirror=1.0), mirrored(cache.channels)
    np.testing.assert_array_equal(
        read(aligned(cache, "euclidean"), None, augment=both[0]), plain[:, both[1]]
    )
    scored = read(aligned(cache, "euclidean"), None, zscore=True)
    alive = plain.std(2) > 1e-3
    np.testing.assert_allclose(scored.std(2)[alive], 1, rtol=1e-4)
    assert (read(cache, None) != plain).any() and aligned(cache, "none") is cache


def test_however_they_are_read(cache):
    """Past the system's cache of files, in another process, from a restart, in any order."""
    own = aligned(cache, "euclidean")
    assert aligned(cache, "euclidean") is own
    batches = lambda cache, **more: Batches(cache, batch_size=4, seed=1, reading=Reading(**more))
    whole = [(batch.rows, batch.x.copy()) for batch in batches(own).epoch(2)]
    for other in (
        batches(own, direct=True).epoch(2),
        batches(pickle.loads(pickle.dumps(own))).epoch(2),
        batches(aligned(Cache(cache.paths), "euclidean")).epoch(2),
    ):
        for (rows, x), batch in zip(whole, other, strict=True):
            np.testing.assert_array_equal(batch.rows, rows)
            np.testing.assert_array_equal(batch.x, x)
    rest = [batch.x.copy() for batch in batches(Cache(cache.paths), ahead=1).epoch(2, 1)]
    assert len(rest) == len(whole) - 1
    rest = [batch.x.copy() for batch in batches(aligned(Cache(cache.paths), "spread")).epoch(2, 1)]
    expected = [batch.x.copy() for batch in batches(aligned(cache, "spread")).epoch(2)]
    np.testing.assert_array_equal(rest, expected[1:])


def test_damaged_windows_are_none_of_it(cache, tmp_path):
    path = tmp_path / cache.paths[0].name
    path.write_bytes(cache.paths[0].read_bytes())
    with h5py.File(path, "r+") as f:
        f["X"][1, 5, 117] = np.nan
    damaged, rows = Cache(path), rows_of(cache, 0, PEOPLE["R1"][0])
    reading = Batches(aligned(damaged, "spread"), rows, 8, order=Order(shuffle=False)).epoch(0)
    (batch,) = reading
    assert batch.finite.tolist() == [row != 1 for row in rows]
    others = [np.cov(cache[row].astype(float), bias=True).diagonal() for row in rows if row != 1]
    factor = SIZE_UV / np.sqrt(np.mean(others, 0)[0])
    np.testing.assert_allclose(batch.x[0, 0], factor * cache[0][0, 25:225], rtol=1e-5, atol=1e-4)
