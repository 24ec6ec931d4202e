"""Embeddings: what an encoder makes of windows, kept in a cache, and a ridge on them."""

import shutil

import h5py
import numpy as np
import pytest
import torch

import eeg.models
from eeg import UserError
from eeg.data.cache import Cache, cache_path
from eeg.models.transformer import Masked
from eeg.ridge import embeddings
from eeg.runs.run import find_runs
from eeg.score.predict import load_model

SMALL = "--set width=8 depth=1 heads=2 inner=16".split()


@pytest.fixture
def own_caches(caches, tmp_path):
    """Caches that a test may change."""
    return shutil.copytree(caches, tmp_path / "cache")


@pytest.fixture
def encoder(train, own_caches):
    """A run of run/pretrain.py, which has taken one step."""
    words = "--release", "R1", *SMALL, "--epochs", 1, "--amp", "off", "--max-recordings", 2
    train.other("pretrain", *words, "--cache", own_caches)
    return find_runs(train.out)[0]


@pytest.mark.parametrize("challenge, crops", [(1, (10,)), (2, (0, 100))])
def test_embeddings_are_the_mean_tokens_of_each_quarter(
    train, encoder, own_caches, challenge, crops
):
    path = cache_path(own_caches, challenge, "R1")
    with h5py.File(path, "r+") as f:
        before = {name: f[name][()] for name in f}
        f["X"][5, 7, 150] = np.nan
    words = encoder.folder, "--release", "R1", "--challenge", challenge, "--cache", own_caches
    assert "32 numbers each" in train.other("embed", *words)
    saved = torch.load(encoder.weights, weights_only=True)
    model = Masked(**saved["settings"]).eval()
    model.load_state_dict(saved["state"])
    with h5py.File(path) as f:
        assert f["embeddings"].shape == (len(f["y"]), len(crops), 32)
        assert np.isnan(f["embeddings"][5]).all() and np.isfinite(f["embeddings"][6]).all()
        for name, values in before.items():
            if name != "X":
                assert f[name][()].tobytes() == values.tobytes()
        for number, crop in enumerate(crops):
            x = f["X"][2:4, :, crop : crop + 200].astype(float)
            x = x - x.mean(2, keepdims=True)
            spread = x.std(2, keepdims=True)
            x = np.where(spread > 0, x / np.where(spread > 0, spread, 1), 0)
            with torch.no_grad():
                tokens = model.network.encode(torch.from_numpy(x).float()).numpy()
            # 50 tokens: quarters of 12.5 share the one in their middle
            ends = [(0, 13), (12, 25), (25, 38), (37, 50)]
            expected = np.stack([tokens[:, a:b].mean(1) for a, b in ends], 2).reshape(2, -1)
            np.testing.assert_allclose(f["embeddings"][2:4, number], expected, atol=2e-5)
    assert "has up-to-date embeddings" in train.other("embed", *words)


def test_a_ridge_on_stored_embeddings_is_that_on_computed_ones(train, encoder, own_caches):
    """It is scored and submitted as any model: the encoder is inside."""
    words = "--challenge", 1, "--model", "ridge", "--init", encoder.folder, "--cache", own_caches
    found = []
    kinds = ["embeddings"], ["embeddings"], ["features", "embeddings"]
    for on, stored in zip(kinds, (False, True, True)):
        if stored:
            place = "--release", "R1", "R5", "--cache", own_caches
            train.other("embed", encoder.folder, *place)
        known = {run.folder for run in find_runs(train.out)}
        printed = train.other("train", *words, "--on", *on)
        (run,) = (run for run in find_runs(train.out) if run.folder not in known)
        assert run.finished and "encoder" in run.config["model"]
        assert "tensors from signal_transformer" in printed
        found.append((run.best[1], load_model(run.weights)))
    (one, plain), (two, read), (_, both) = found
    assert one == pytest.approx(two, abs=1e-4)
    weights = (model.network.weight for model in (plain, read))
    torch.testing.assert_close(*weights, rtol=1e-2, atol=1e-3)
    assert both.network.weight.shape[1] == 103 + 32
    x = torch.from_numpy(np.array(Cache(cache_path(own_caches, 1, "R5")).parts[0][:3, :, 10:210]))
    torch.testing.assert_close(read(x), read(1e-6 * x), rtol=1e-3, atol=1e-3)
    again = eeg.models.build(**read.settings)
    again.load_state_dict(read.state_dict())
    assert torch.equal(again.eval()(x), read(x))


def test_embeddings_of_another_run_are_replaced_and_not_read(train, encoder, own_caches):
    path = cache_path(own_caches, 1, "R1")
    made = embeddings.embedding_of(encoder)
    assert embeddings.add(path, made, "one") and not embeddings.add(path, made, "one")
    other = embeddings.embedding_of(encoder)
    other.network.position += 1
    assert embeddings.stored(Cache(path), other) is None
    assert embeddings.add(path, other, "other")
    assert embeddings.about(path)["run"] == "other"
    assert embeddings.stored(Cache(path), made) is None
    both = [path, cache_path(own_caches, 1, "R5")]
    assert embeddings.stored(Cache(both), other) is None  # the second file has none


def test_an_encoder_is_asked_for_with_its_run(train, encoder):
    for words in (["--on", "embeddings"], ["--init", str(encoder.folder)]):
        with pytest.raises(SystemExit):
            train.other("train", "--challenge", 1, "--model", "ridge", *words)
    with pytest.raises(UserError, match="no run nothing"):
        train.other("embed", "nothing", "--release", "R1")


def test_without_any_run_it_says_how_to_pretrain_one(train):
    with pytest.raises(UserError, match="no run signal_transformer.*; pretrain one with: python"):
        train.other("embed", "--release", "R1")
    with pytest.raises(UserError, match=r"run/pretrain.py --release R1 --cache .* --out "):
        train.other("embed", "conformer", "--release", "R1")
