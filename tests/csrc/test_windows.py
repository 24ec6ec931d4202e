"""The gather against NumPy, and the statistics of everything that is drawn."""

import mne
import numpy as np
import pytest
import scipy.stats
from eeg._native import Augment, gather

from eeg.data.augment import mirrored
from eeg.models.montage import CHANNELS


def parts_of(C, S, n=(5, 9), dtype=np.float32, seed=0, mean=0.0):
    rng = np.random.default_rng(seed)
    return [(mean + 10 * rng.standard_normal((k, C, S))).astype(dtype) for k in n]


def run(parts, windows, T, offset=0, zscore=False, threads=0, there=None, **augment):
    first = np.cumsum([0] + [len(p) for p in parts])
    windows = np.asarray(windows, np.int64)
    part = np.searchsorted(first, windows, "right") - 1
    C, B = parts[0].shape[1], len(windows)
    written = np.full((B, C, T), 7, np.float32), np.zeros(B, np.int32), np.zeros(B, np.float32)
    there = np.arange(C, dtype=np.int32) if there is None else there
    views = [p.view(np.uint16) if p.dtype == np.float16 else p for p in parts]
    rows, offsets = windows - first[part], np.full(B, offset, np.int32)
    places = part.astype(np.int32), rows, offsets, windows, there
    gather(views, *places, *written, zscore, Augment(**augment), threads)
    return written


def stored(parts, windows, T, offset):
    return np.concatenate(parts)[windows][:, :, offset : offset + T].astype(np.float32)


@pytest.mark.parametrize("C", [1, 3, 128, 129])
@pytest.mark.parametrize("T, S", [(1, 1), (7, 9), (199, 199), (200, 250), (250, 250)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_off_is_what_is_stored(C, T, S, dtype):
    parts, windows = parts_of(C, S, dtype=dtype), [13, 0, 5, 5, 4]
    out, shift, mix = run(parts, windows, T, (S - T) // 2)
    np.testing.assert_array_equal(out, stored(parts, windows, T, (S - T) // 2))
    assert (shift == 0).all() and (mix == 1).all()


@pytest.mark.parametrize("T", [1, 8, 32])  # one at a time, eight at a time, both
def test_every_float16_there_is(T):
    every = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(-1, 1, T)
    out = run([every], range(len(every)), T)[0]
    same = (out.view(np.uint32) == every.astype(np.float32).view(np.uint32)) | np.isnan(every)
    assert same.all() and np.isnan(out).sum() == np.isnan(every).sum() == 2046


@pytest.mark.parametrize("T", [7, 199, 200, 250])
@pytest.mark.parametrize("mean", [0, 1e4])
def test_zscore_equals_numpy(T, mean):
    parts = parts_of(129, 260, mean=mean)
    parts[0][1, 3] = 4.2  # flat
    parts[0][1, 4, 50] = np.nan
    out, _, _ = run(parts, range(14), T, 5, zscore=True)
    x = stored(parts, range(14), T, 5).astype(np.float64)
    with np.errstate(invalid="ignore"):
        expected = (x - x.mean(2, keepdims=True)) / x.std(2, keepdims=True)
    expected[1, 3] = 0
    rtol, atol = (1e-4, 2e-4) if mean else (1e-5, 2e-6)
    np.testing.assert_allclose(out, expected, rtol=rtol, atol=atol)
    assert np.isnan(out[1, 4]).all() == (T > 45) and np.isnan(out).sum() == (T if T > 45 else 0)


EVERYTHING = dict(scale=0.2, dropout=0.1, noise=0.01, mask=0.2, mirror=0.5, mix=0.2, shift=25)


@pytest.mark.parametrize("zscore", [False, True])
def test_a_draw_belongs_to_its_window(zscore):
    parts = parts_of(129, 250)
    settings = dict(T=200, offset=25, zscore=zscore, there=mirrored(CHANNELS), **EVERYTHING)
    settings |= dict(seed=3, epoch=5)
    a = run(parts, range(14), threads=1, **settings)
    for threads in (2, 4, 7):
        b = run(parts, range(14), threads=threads, **settings)
        assert all((x == y).all() for x, y in zip(a, b))
    order = [9, 2, 13, 2]
    assert all((x == y[order]).all() for x, y in zip(run(parts, order, **settings), a))
    for other in (dict(seed=4), dict(epoch=6)):
        assert (run(parts, range(14), **(settings | other))[0] != a[0]).any()


def test_scale():
    parts = parts_of(3, 20, n=(4000,))
    ratio = (run(parts, range(4000), 20, scale=0.2)[0] / parts[0]).astype(np.float64)
    assert np.ptp(ratio, axis=(1, 2)).max() < 1e-5  # one for a window
    drawn = ratio[:, 0, 0]
    assert scipy.stats.kstest(drawn, "uniform", (0.8, 0.4)).pvalue > 1e-3


def test_dropout():
    parts = parts_of(129, 8, n=(600,))
    gone = (run(parts, range(600), 8, dropout=0.1)[0] == 0).all(2)
    assert gone.mean() == pytest.approx(0.1, abs=0.005)
    assert np.abs(np.corrcoef(gone.T) - np.eye(129)).max() < 0.22
    assert np.abs(np.corrcoef(gone[:-1].ravel(), gone[1:].ravel())[0, 1]) < 0.02
    assert gone.sum(1).var() == pytest.approx(129 * 0.09, rel=0.2)  # each channel for itself


def test_noise_is_normal_and_independent():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 129, 200)) * np.logspace(-1, 3, 129)[:, None]
    x = x.astype(np.float32)
    noise = (run([x], range(300), 200, noise=0.5)[0] - x).astype(np.float64)
    z = noise / (0.5 * x.std(2, keepdims=True))
    assert z.mean() == pytest.approx(0, abs=2e-3) and z.std() == pytest.approx(1, abs=2e-3)
    assert scipy.stats.kurtosis(z.ravel()) == pytest.approx(0, abs=0.03)
    assert scipy.stats.skew(z.ravel()) == pytest.approx(0, abs=5e-3)
    between = lambda rows: np.abs(np.corrcoef(rows) - np.eye(len(rows))).max()
    assert between(z.transpose(1, 0, 2).reshape(129, -1)) < 0.025  # channels
    assert between(z.transpose(2, 0, 1).reshape(200, -1)) < 0.035  # samples
    assert between(z[:100].reshape(100, -1)) < 0.04  # windows
    x[0, 0] = 3.0  # a flat channel has no standard deviation
    assert (run([x], [0], 200, noise=0.5)[0][0, 0] == 3).all()


def test_shift_moves_the_window_and_says_by_how_much():
    parts = [np.broadcast_to(np.arange(250, dtype=np.float32), (4000, 2, 250)).copy()]
    out, shift, _ = run(parts, range(4000), 200, 25, shift=25)
    assert (out[:, 0, 0] == 25 + shift).all() and (np.diff(out, axis=2) == 1).all()
    counts = np.bincount(shift + 25, minlength=51)
    assert len(counts) == 51 and scipy.stats.chisquare(counts).pvalue > 1e-3


def test_mask():
    parts = parts_of(3, 200, n=(3000,))
    zero = run(parts, range(3000), 200, mask=0.25)[0] == 0
    assert (zero.all(1) == zero.any(1)).all()  # all channels at once
    length = zero[:, 0].sum(1)
    edges = np.abs(np.diff(zero[:, 0].astype(int), axis=1)).sum(1)
    assert edges.max() <= 2 and length.max() == 50 and length.mean() == pytest.approx(25, abs=1)
    assert zero[:, 0].mean(0)[60:140].std() < 0.02  # anywhere


def test_mirror_is_that_of_the_net():
    positions = mne.channels.make_standard_montage("GSN-HydroCel-129").get_positions()["ch_pos"]
    there = mirrored(CHANNELS)
    assert (there[there] == np.arange(129)).all()
    for i, j in enumerate(there):
        here, other = positions[CHANNELS[i]], positions[CHANNELS[j]]
        np.testing.assert_allclose(here * [-1, 1, 1], other, atol=1e-9)
    parts = parts_of(129, 4, n=(2000,))
    out = run(parts, range(2000), 4, there=there, mirror=0.5)[0]
    flipped = (out == parts[0][:, there]).all((1, 2))
    assert flipped.mean() == pytest.approx(0.5, abs=0.05)
    assert (out[~flipped] == parts[0][~flipped]).all()


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0])
def test_mixup_weights(alpha):
    parts = parts_of(1, 1, n=(4000,))
    mix = run(parts, range(4000), 1, mix=alpha)[2]
    folded = np.maximum(b := scipy.stats.beta(alpha, alpha).rvs(200000, random_state=0), 1 - b)
    assert mix.min() >= 0.5 and scipy.stats.ks_2samp(mix, folded.astype(np.float32)).pvalue > 1e-3


PART = np.zeros((4, 2, 10), np.float32)
ONE, ZERO = np.zeros(1, np.int64), np.zeros(1, np.int32)
GOOD = dict(parts=[PART], part=ZERO, row=ONE, offset=ZERO, window=ONE, zscore=False)
GOOD |= dict(mirror=np.arange(2, dtype=np.int32), out=np.zeros((1, 2, 8), np.float32))
GOOD |= dict(shift=ZERO.copy(), mix=np.zeros(1, np.float32), augment=Augment())
WRONG = [
    (TypeError, dict(row=ZERO)),
    (TypeError, dict(out=np.zeros((1, 2, 8)))),
    (TypeError, dict(parts=[PART.astype(float)])),
    (TypeError, dict(mirror=np.arange(2))),
    (TypeError, dict(augment=None)),
    (ValueError, dict(out=np.zeros((1, 3, 8), np.float32))),
    (ValueError, dict(parts=[PART[:, :, ::2]])),
    (ValueError, dict(parts=[])),
    (ValueError, dict(parts=[PART, PART[:, :, :9].copy()])),
    (ValueError, dict(out=np.zeros((1, 2, 0), np.float32))),
    (ValueError, dict(shift=np.zeros(2, np.int32))),
    (ValueError, dict(threads=-1)),
    (IndexError, dict(row=ONE + 4)),
    (IndexError, dict(row=ONE - 1)),
    (IndexError, dict(part=ZERO + 1)),
    (IndexError, dict(offset=ZERO + 3)),
    (IndexError, dict(offset=ZERO - 1)),
    (IndexError, dict(augment=Augment(shift=1))),
    (IndexError, dict(mirror=np.array([0, 2], np.int32))),
]


@pytest.mark.parametrize("error, bad", WRONG)
def test_wrong_arguments_are_refused(error, bad):
    gather(**GOOD)
    with pytest.raises(error):
        gather(**(GOOD | bad))


def test_no_windows():
    keys = ("part", "row", "offset", "window", "shift", "mix", "out")
    gather(**(GOOD | {key: GOOD[key][:0].copy() for key in keys}))


def test_strengths_out_of_range_are_refused():
    settings = dict(scale=-1), dict(dropout=1.5), dict(noise=float("nan")), dict(shift=-1)
    for bad in (*settings, dict(mix=2)):
        with pytest.raises(ValueError, match="must"):
            Augment(**bad)
