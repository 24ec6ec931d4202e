"""Several networks side by side, against each of them alone."""

import pytest
import torch

from eeg import models
from eeg.models.layers import Normalize
from eeg.train.losses import loss

HEADS = [dict(head="time"), dict(head="number", n_outputs=2, aux=("age",))]


def made(**settings):
    torch.manual_seed(0)
    return models.build("tcn", width=8, depth=1, dropout=0.0, members=3, **settings)


def alone(model):
    """One model for each network of `model`."""
    found = []
    for network in model.network.networks:
        settings = model.settings | {"members": 1}
        one = models.build(**settings)
        one.network = network
        one.center, one.scale = model.center, model.scale
        found.append(one)
    return found


@pytest.mark.parametrize("settings", HEADS, ids=lambda settings: settings["head"])
def test_answers_are_the_mean_of_each_alone(settings):
    model = made(**settings).eval()
    model.center.fill_(1.5)
    model.scale.fill_(0.4)
    x = torch.randn(5, 129, 200)
    with torch.no_grad():
        each = torch.stack([one.eval()(x) for one in alone(model)])
        assert torch.allclose(model(x), each.mean(0), atol=1e-5)
        assert torch.allclose(models.fold(model)(x), each.mean(0), atol=1e-4)
    assert (each.std(0) > 1e-3).all()  # they begin with other weights


def test_each_learns_as_if_it_were_alone():
    """The gradients of each are a third of those of its own loss."""
    model = made(**HEADS[1]).train()
    x, y = torch.randn(4, 129, 200), torch.randn(4, 3)
    raw = model.raw(x)
    assert len(raw) == 12
    loss("mse", model, raw, y.repeat(3, 1)).backward()
    gradients = [p.grad.clone() for p in model.network.parameters()]
    model.zero_grad()
    for one in alone(model):
        (loss("mse", one, one.train().raw(x), y) / 3).backward()
    for ours, wanted in zip(gradients, model.network.parameters()):
        assert torch.allclose(ours, wanted.grad, atol=1e-5)


def test_the_settings_make_the_same_model_again():
    model = made(head="time")
    again = models.build(**model.settings)
    again.load_state_dict(model.state_dict())
    x = torch.randn(2, 129, 200)
    assert torch.equal(model.eval()(x), again.eval()(x))
    assert "members" not in models.build("tcn").settings


def test_members_take_turns_at_ways_to_normalise():
    """Against three networks, each of which has its way alone."""
    model = made(head="time", normalize="spread+level").eval()
    ways = ("spread", "level", "spread")
    x = 20 * torch.randn(5, 129, 200) + 10 * torch.randn(5, 129, 1)
    with torch.no_grad():
        each = [one.eval() for one in alone(model)]
        for one, way in zip(each, ways):
            one.normalize = Normalize(way)
        wanted = torch.stack([one(x) for one in each]).mean(0)
        assert torch.allclose(model(x), wanted, atol=1e-5)
        assert torch.allclose(models.fold(model)(x), wanted, atol=1e-4)
    assert made(normalize="level+none").settings["normalize"] == "level+none"
    single = models.build("tcn", width=8, depth=1, normalize="level+none")
    assert single.settings["normalize"] == single.normalize.kind == "level"
