"""Predictions: the windows that the competition scores, cut by a loop written from its rules."""

import random
import shutil
import tracemalloc

import h5py
import numpy as np
import pytest
import torch

import eeg.models
from eeg import UserError
from eeg.data.augment import PAIRS
from eeg.data.build import Settings, build
from eeg.data.cache import Cache
from eeg.data.release import find_release
from eeg.score.predict import QUANTILES, TEMPERATURES, Question, answers_and_times, predict
from tests.conftest import LABELS, trial_events, write_participants, write_recording


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two releases of noise: R1 of two subjects, one with two runs, R2 of one. Lengths differ."""
    root = tmp_path_factory.mktemp("predict")
    for name, subjects in (("R1", ["NDARAA001AAA", "NDARBB002BBB"]), ("R2", ["NDARCC003CCC"])):
        folder = root / "data" / f"{name}_L100_bdf"
        write_participants(folder, subjects)
        for i, subject in enumerate(subjects):
            write_recording(
                folder, subject, trial_events(5 + i), seconds=36 + 7 * i, seed=10 * int(name[1]) + i
            )
    write_recording(
        root / "data" / "R1_L100_bdf", "NDARBB002BBB", trial_events(3), run=2, seconds=21, seed=5
    )
    return root


def cached(data, challenge, **settings):
    folder = data / f"cache{challenge}{settings}".replace(" ", "").replace("'", "")
    return Cache(
        [
            build(find_release(name, data / "data"), Settings(challenge, **settings), folder).path
            for name in ("R1", "R2")
        ]
    )


def seen(model, x, features):
    """For a Question: the window itself."""
    return x.flatten(1)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_window_that_is_damaged_is_named(data, tmp_path, model, value):
    """The answer to it would say nothing of the weights."""
    paths = [shutil.copy(path, tmp_path) for path in cached(data, 1).paths]
    with h5py.File(paths[1], "r+") as f:
        f["X"][2, 4, 7] = value
    cache = Cache(paths)
    row = len(cache.parts[0]) + 2
    with pytest.raises(
        UserError,
        match=rf"^{paths[1]}: window 2 \(sub-NDARCC003CCC, contrastChangeDetection run 1\) "
        "holds NaN or infinity in channel E5; rebuild it with: python run/cache.py .*R2",
    ):
        predict(model, cache)
    answered = predict(model, cache, leave_out=True)
    assert np.isnan(answered[row]).all() and np.isfinite(np.delete(answered, row, 0)).all()
    assert np.isfinite(predict(model, cache, np.delete(np.arange(len(cache)), row))).all()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return eeg.models.build("tcn", width=8, depth=1, dropout=0.5)  # as it comes: in training mode


@pytest.mark.parametrize("margin_s, dtype", [(0, "float32"), (0.25, "float16")])
def test_challenge_2_windows_are_cut_as_the_competition_cuts_them(data, model, margin_s, dtype):
    cache = cached(data, 2, margin_s=margin_s, dtype=dtype)
    expected = []
    for path in cache.paths:
        with h5py.File(path, "r") as f:
            X, recordings = f["X"][()].astype(np.float32), f["metadata"]["recording"]
        for recording in sorted(set(recordings)):
            draw = random.Random(42)
            for window in X[recordings == recording]:
                begin = draw.randint(0, 200) + round(100 * margin_s)
                expected.append(window[:, begin : begin + 200].ravel())
    assert len(cache) == len(expected) > 50 and len(set(cache.metadata["recording"])) == 3
    np.testing.assert_array_equal(
        predict(model, cache, None, Question(seen), 7), np.array(expected)
    )
    some = np.array([40, 3, 22, 21, 4])  # a window is cut the same whatever others are asked for
    np.testing.assert_array_equal(
        predict(model, cache, some, Question(seen), 2), np.array(expected)[some]
    )


@pytest.mark.parametrize("margin_s, batch", [(0, 128), (0.25, 4)])
def test_challenge_1_takes_the_window_itself(data, model, margin_s, batch):
    cache, done = cached(data, 1, margin_s=margin_s), []
    m = round(100 * margin_s)
    windows = np.stack([cache[i][:, m : m + 200] for i in range(len(cache))])
    found = predict(model, cache, batch=batch, progress=lambda *args: done.append(args))
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(windows)).numpy()
    model.train()
    assert found.shape == (len(cache), 1) and found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert done[-1] == (len(cache), len(cache)) and len(done) == -(-len(cache) // batch)
    assert predict(model, cache, []).shape == (0, 1)


def test_views(data, model):
    cache = cached(data, 1, margin_s=0.25)
    other = {f"E{a}": f"E{b}" for pair in PAIRS for a, b in (pair, pair[::-1])}
    swapped = [LABELS.index(other.get(name, name)) for name in LABELS]
    X = np.stack([cache[i] for i in range(len(cache))])
    views = [
        X[:, rows][:, :, at : at + 200]
        for at in (5, 25, 45)
        for rows in (list(range(129)), swapped)
    ]
    np.testing.assert_allclose(
        predict(model, cache, question=Question(seen, 0.2, True)),
        np.mean(views, 0).reshape(len(X), -1),
        rtol=1e-5,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        predict(model, cache, question=Question(seen, mirror=True)),
        np.mean(views[2:4], 0).reshape(len(X), -1),
        rtol=1e-5,
        atol=1e-5,
    )


def test_views_of_challenge_2_stay_within_the_stored_window(data, model):
    cache = cached(data, 2)
    found, draw = predict(model, cache, question=Question(seen, 1.0)), random.Random(42)
    cuts = [draw.randint(0, 200) for _ in range(17)]
    assert min(cuts) < 100 < max(cuts)
    for i, cut in enumerate(cuts):  # the first recording
        mean = np.mean(
            [cache[i][:, at : at + 200] for at in (max(cut - 100, 0), cut, min(cut + 100, 200))], 0
        )
        np.testing.assert_allclose(found[i], mean.ravel(), rtol=1e-5, atol=1e-4)


def test_time_statistics_by_hand(data, model):
    cache = cached(data, 1)
    found = predict(model, cache, question=Question(answers_and_times))
    scores = predict(model, cache, question=Question(lambda model, x, _: model.raw(x)))
    assert found.shape == (len(cache), 13)
    np.testing.assert_array_equal(found[:, :1], predict(model, cache))
    t = 0.5 + np.arange(200) / 100
    for row, s in zip(found[:, 1:], scores):
        softmax = lambda s: np.exp(s - s.max()) / np.exp(s - s.max()).sum()
        p = softmax(s)
        expected = [(softmax(s / temperature) * t).sum() for temperature in TEMPERATURES]
        expected += [-(p * np.log(p)).sum(), t[s.argmax()], p.max()]
        expected += [t[np.flatnonzero(np.cumsum(p) >= q)[0]] for q in QUANTILES]
        np.testing.assert_allclose(row[:7], expected[:7], rtol=1e-4)
        # by rounding a quantile may fall on the sample beside
        np.testing.assert_allclose(row[7:], expected[7:], atol=0.0101)


def test_memory_is_that_of_a_batch(data, model):
    """What is allocated while 12 times as many windows go through grows by their answers alone."""
    cache, peaks = cached(data, 2), []
    for n in (20, 240):
        tracemalloc.start()
        predict(
            model,
            cache,
            np.arange(n) % len(cache),
            Question(lambda model, x, _: x[:, 0, :1]),
            batch=10,
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] > 10 * 129 * 200 * 4 and peaks[1] - peaks[0] < 100_000


def test_mistakes(data, model):
    with pytest.raises(
        UserError,
        match="0.25 s around its windows; .*run/cache.py --release R1 R2 --margin 0.3 --force",
    ):
        predict(model, cached(data, 1, margin_s=0.25), question=Question(shift_s=0.3))
    with pytest.raises(UserError, match="windows of 200 samples, the model takes 100"):
        predict(eeg.models.build("tcn", n_times=100), cached(data, 1))
    with pytest.raises(UserError, match="windows of 400 samples, the model takes 500"):
        predict(eeg.models.build("tcn", n_times=500), cached(data, 2))
    numbers = eeg.models.build("tcn", width=8, depth=1, head="number")
    assert predict(numbers, cached(data, 1), question=Question(answers_and_times)).shape[1] == 1
    takes_features = eeg.models.build("hybrid", features="file", width=8, depth=1)
    with pytest.raises(UserError, match="run/features.py --release R1 R2 --challenge 2"):
        predict(takes_features, cached(data, 2))
    with pytest.raises(UserError, match="leave out --shift and --mirror"):
        predict(takes_features, cached(data, 2), question=Question(mirror=True))
