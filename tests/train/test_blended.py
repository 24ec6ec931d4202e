"""A run whose network has a ridge beside it."""

import json
import subprocess

import numpy as np
import pytest
import torch

from eeg.data.cache import Cache
from eeg.score.predict import predict_validation
from eeg.score.sides import Side
from eeg.train.options import Options
from tests.conftest import command
from tests.train.trained import ENVIRONMENT, the_run, weights


@pytest.fixture(scope="module")
def run(caches, tmp_path_factory):
    out = tmp_path_factory.mktemp("blended")
    line = command(caches, out, "--challenge", 1, "--epochs", 1, "--blend", "ridge")
    subprocess.run(line, check=True, env=ENVIRONMENT, capture_output=True)
    return the_run(out)


def windows(caches, count=8):
    return torch.from_numpy(np.array(Cache([next(caches.glob("challenge1_R5*"))]).parts[0][:count]))


def test_the_answer_is_the_network_s_and_the_ridge_s_by_their_weights(run, caches):
    model, x = weights(run.folder), windows(caches)[:, :, 10:210]
    with torch.no_grad():
        network = (model.network(model.normalize(x)).softmax(1) @ model.moments)[:, None]
        ridge = model.ridge.numbers(x) @ model.ridge.weight.T + model.ridge.bias
        wanted = model.center + model.shrink * (network - model.center)
        wanted = wanted + model.share * model.scale * ridge
        assert torch.allclose(model(x), wanted, atol=1e-5)
        assert torch.allclose(model(1e-6 * x), model(x), atol=1e-4)
    assert model.share > 0 and model.ridge.weight.abs().sum() > 0


def test_history_and_weights_agree(run):
    entry = json.loads((run.folder / "history.json").read_text())["epochs"][0]
    model = weights(run.folder)
    assert entry["shrink"] == pytest.approx(float(model.shrink))
    assert entry["share"] == pytest.approx(float(model.share))


def test_validation_is_repeated_from_the_weights(run, caches):
    """compare scores a run's validation windows as its training did."""
    from eeg.data.split import split

    options = Options.from_config(run.config)
    both = split(options.cache, 1, options.train, options.valid)
    side = Side(both.cache, both.valid)
    p = predict_validation(run, side)
    error = np.sqrt(np.square(p - side.y).mean()) / side.y.std()
    entry = json.loads((run.folder / "history.json").read_text())["epochs"][0]
    assert error == pytest.approx(entry["valid"]["nrmse"], abs=1e-5)


def test_a_run_from_before_there_were_blends_has_none(run):
    config = json.loads((run.folder / "config.json").read_text())
    del config["train"]["blend"]
    assert Options.from_config(config).blend == "none"
