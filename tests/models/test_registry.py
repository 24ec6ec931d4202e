"""What every model of the registry promises, whichever it is."""

import json
import re

import pytest
import torch
from torch.nn import functional as F

from eeg.models import CLOSED_FORM, MODELS, PUBLIC, SETTINGS, build, fold, tuned
from eeg.models.model import multiply_adds
from eeg.score.metrics import nrmse

# step by step; of published encoders, which are large, tests/models/test_public.py says the same
LEARNING = [name for name in MODELS if name not in (*CLOSED_FORM, *PUBLIC)]
TIMED = ["tcn", "unet", "transformer", "conformer"]  # those that can score moments


def made(name, seed=0, **settings):
    torch.manual_seed(seed)
    return build(name, **settings)


def windows(n=6, n_chans=129, n_times=200, seed=1):
    """Simulated windows in microvolts, no two electrodes on one offset, and features for the models
    that take them."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(n, n_chans, n_times, generator=random) * 20
    x = x + 100 * torch.randn(n_chans, 1, generator=random)
    return x, torch.randn(n, 103, generator=random)


def inputs(model, x, features):
    return (x, features[: len(x)]) if model.features == "file" else (x,)


def quiet(name):
    """Settings without dropout."""
    return {"drop_prob": 0.0} if name == "eegnex" else {"dropout": 0.0}


@pytest.mark.parametrize("name", LEARNING)
def test_it_learns_16_windows_by_heart(name):
    model = made(name, **quiet(name))
    x, features = windows(16)
    y = 0.6 + 1.8 * torch.rand(16, 1, generator=torch.Generator().manual_seed(2))
    model.center.fill_(y.mean()), model.scale.fill_(y.std())
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(1, 151):
        loss = F.mse_loss(model(*inputs(model, x, features)), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 10 == 0:
            with torch.no_grad():
                answer = model.eval()(*inputs(model, x, features))
            score = nrmse(y.squeeze(1).numpy(), answer.squeeze(1).numpy())
            model.train()
            if score < 0.1:
                return
    pytest.fail(f"{name} is at NRMSE {score:.3f} after {step} steps")


@pytest.mark.parametrize("name", LEARNING)
def test_a_seed_gives_the_same_model_and_the_same_steps(name):
    x, features = windows()
    results = []
    for _ in range(2):
        model = made(name)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(2):  # with dropout
            optimiser.zero_grad()
            model.raw(*inputs(model, x, features)).square().mean().backward()
            optimiser.step()
        results.append(model.state_dict())
    assert all(torch.equal(value, results[1][key]) for key, value in results[0].items())
    other = made(name, seed=1).state_dict()
    assert any(not torch.equal(value, other[key]) for key, value in made(name).state_dict().items())


def hard(kind):
    x, _ = windows(4)
    if kind == "zero":
        return torch.zeros_like(x)
    if kind == "constant":
        return torch.full_like(x, 1e-5)
    if kind == "artefact":
        # V: one electrode at the amplifier's limit, one that jumps there; the reference at 0
        x = x * 1e-6
        x[:, 3], x[:, 7, 100:], x[:, -1] = 0.4, -0.4, 0
        return x
    x[0], x[1] = 0, 0.4  # "mixed": windows of nothing beside windows of something
    return x


@pytest.mark.parametrize("kind", ["zero", "constant", "artefact", "mixed"])
@pytest.mark.parametrize("name", MODELS)
def test_no_window_makes_nan(name, kind):
    model = made(name)
    x, features = hard(kind), windows(4)[1]
    features[0] = torch.nan  # a feature that could not be computed
    model.raw(*inputs(model, x, features)).square().mean().backward()
    for key, p in model.named_parameters():
        assert p.grad is None or p.grad.isfinite().all(), key
    for form in (model.eval(), fold(model)):
        answer = form(*inputs(model, x, features))
        assert answer.shape == (4, 1) and answer.isfinite().all()


@pytest.mark.parametrize(
    "normalize", ["channel", "spread", "window", "robust", "amplitude", "level"]
)
@pytest.mark.parametrize("name", LEARNING)
def test_volts_and_microvolts_give_one_answer(name, normalize):
    model = made(name, normalize=normalize).eval()
    x, features = windows()
    x[:, -1] = 0  # the reference
    a, b = (model(*inputs(model, scaled, features)) for scaled in (x, x * 1e-6))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert a.std() > 0


def test_features_computed_in_the_model_do_not_know_the_unit():
    model = made("hybrid", features="layer").eval()
    x, _ = windows()
    torch.testing.assert_close(model(x), model(x * 1e-6), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_folded_says_the_same_and_leaves_the_model_alone(name):
    model = made(name)
    x, features = windows(8)
    with torch.no_grad():
        for _ in range(3):  # statistics that are not 0 and 1
            model(*inputs(model, x * torch.rand(8, 1, 1), features))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5), module.bias.normal_()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert model.training
    folded = fold(model)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    given = inputs(model.eval(), x, features)
    torch.testing.assert_close(folded(*given), model(*given), rtol=1e-5, atol=1e-5)
    assert not any(p.requires_grad for p in folded.parameters())
    assert not any(m.training for m in folded.modules())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules()), "a norm is left"


OTHERS = dict(n_chans=21, n_times=101, normalize="robust"), dict(n_outputs=4, aux=["age", "sex"])


@pytest.mark.parametrize("settings", [dict(), *OTHERS])
@pytest.mark.parametrize("name", LEARNING)
def test_settings_make_the_model_again(name, settings):
    if settings.get("n_outputs") == 4 and name in ("tcn", "unet"):
        settings = settings | {"head": "number"}  # by default they score moments
    if name == "hybrid":
        settings = settings | {"width": 64, "kernels": [7, 15]}
    model = made(name, **settings)
    other = build(**json.loads(json.dumps(model.settings)))
    other.load_state_dict(model.state_dict())
    n_chans, n_times = model.settings["n_chans"], model.settings["n_times"]
    given = inputs(model, *windows(3, n_chans, n_times))
    a = model.eval()(*given)
    assert torch.equal(a, other.eval()(*given)) and other.settings == model.settings
    assert a.shape == (3, settings.get("n_outputs", 1)) and a.dtype == torch.float32
    numbers = 6 if "aux" in settings else 1
    width = n_times if model.head == "time" else numbers
    assert model.raw(*given).shape == (3, width)


@pytest.mark.parametrize("name", TIMED)
def test_a_time_head_answers_the_expected_moment(name):
    model = made(name, head="time", n_times=150).eval()
    x, _ = windows(3, n_times=150)
    scores = model.raw(x)
    assert scores.shape == (3, 150)
    p = scores.double().exp() / scores.double().exp().sum(1, keepdim=True)
    moments_s = 0.5 + torch.arange(150, dtype=torch.float64) / 100  # after the stimulus
    close = lambda wanted: torch.testing.assert_close(
        model(x).squeeze(1).double(), wanted, rtol=1e-5, atol=1e-5
    )
    close(p @ moments_s)
    model.center.fill_(1.6), model.shrink.fill_(0.25)
    close(1.6 + 0.25 * (p @ moments_s - 1.6))


def test_four_factors_in_their_units_and_further_numbers_aside():
    model = made("transformer", n_outputs=4, aux=("age", "sex")).eval()
    model.center.copy_(torch.tensor([1.0, 2, 3, 4]))
    model.scale.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    model.shrink.copy_(torch.tensor([1.0, 0.5, 0, 1]))
    x, _ = windows(3)
    raw = model.raw(x)
    assert raw.shape == (3, 6)
    wanted = [1 + 0.1 * raw[:, 0], 2 + 0.5 * 0.2 * raw[:, 1], torch.full((3,), 3.0)]
    torch.testing.assert_close(model(x), torch.stack([*wanted, 4 + 0.4 * raw[:, 3]], 1))


MISTAKES = [
    ("resnet", dict(), "there is no model 'resnet'; there are tcn, eegnex"),
    ("tcn", dict(widht=3), "tcn has no setting 'widht'; it has head, width, depth"),
    ("tcn", dict(normalize="z"), "normalize='z': it is one of channel, spread, window"),
    ("tcn", dict(features="file"), "tcn takes no features"),
    ("hybrid", dict(features="some"), "hybrid takes none, file or layer"),
    ("tcn", dict(n_outputs=4), "head='time' with 4 outputs"),
    ("tcn", dict(head="clock"), "head=clock: tcn takes number or time"),
    ("cnn", dict(width=30), "width=30: cnn with 4 heads takes a multiple of 4"),
    ("transformer", dict(width=30), "width=30: transformer with 4 heads takes a multiple of 4"),
    (
        "cnn",
        dict(width=32, heads=2, kernels=[3, 5, 7]),
        "width=32: cnn with 3 kernels takes a multiple of 3",
    ),
    ("tcn", dict(kernel=4), "kernel=4: tcn takes an odd number from 1 to 199"),
    ("tcn", dict(width="abc"), "width=abc: tcn takes a whole number from 1 to 2048"),
    ("unet", dict(width=0), "width=0: unet takes a whole number from 1 to 2048"),
    ("unet", dict(width=True), "width=True: unet takes a whole number from 1 to 2048"),
    ("conformer", dict(width=96.5), "width=96.5: conformer takes a whole number from 1 to 2048"),
    ("eegnex", dict(drop_prob=1), "drop_prob=1: eegnex takes a number from 0 to less than 1"),
    (
        "eegnex",
        dict(drop_prob=float("nan")),
        "drop_prob=nan: eegnex takes a number from 0 to less than 1",
    ),
    (
        "eegnex",
        dict(activation="relu"),
        "activation=relu: eegnex takes a class of torch.nn, which only Python can name",
    ),
    (
        "hybrid",
        dict(kernels=7),
        "kernels=7: hybrid takes a list of odd numbers from 1 to 199, as [7,15,31]",
    ),
    ("tcn", dict(dropout=None), "dropout=None: tcn takes a number from 0 to less than 1"),
]


@pytest.mark.parametrize("name, settings, text", MISTAKES)
def test_wrong_settings_are_named(name, settings, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        build(name, **settings)


def test_wrong_windows_are_named():
    takes = "[2, 128, 200], this model takes (batch, 129 channels, 200 samples)"
    for name, x, text in (
        ("hybrid", windows(2)[0], "needs the features of each window"),
        ("tcn", torch.zeros(2, 128, 200), takes),
        ("tcn", torch.zeros(129, 200), "[129, 200]"),
    ):
        with pytest.raises(ValueError, match=re.escape(text)):
            build(name)(x)


@pytest.mark.parametrize("name", LEARNING)
def test_a_search_draws_what_a_network_takes(name):
    """At both ends; and it changes what is trained."""
    assert tuned(name)
    for key, values in tuned(name).items():
        low, high = values["range"]
        assert low <= SETTINGS[name][key].default <= high
        for value in (low, high):
            build(name, **{key: value})
        x, features = windows(4)
        torch.manual_seed(0)
        one = build(name, **{key: high}).train()
        given = inputs(one, x, features)
        with torch.no_grad():
            assert not torch.equal(one(*given), one(*given))  # it drops at random


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("end", ["least", "most"])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_a_network_is_made_at_the_ends_of_what_its_settings_take(name, end):
    """Each in turn, the others as they are: width 1 and 2048 with one head."""
    for key, setting in SETTINGS[name].items():
        numbers = re.fullmatch(r"an? (?:whole |odd )?number from (\S+) to (\S+)", setting.words)
        if not numbers:
            continue
        value = json.loads(numbers[1 if end == "least" else 2])
        others = {"width": {"heads": 1, "kernels": [7]}, "heads": {"width": 64}}.get(key, {})
        settings = {each: given for each, given in others.items() if each in SETTINGS[name]}
        settings[key] = value
        if name == "eegnex" and key.startswith("avg_pool") and end == "most":
            continue  # nothing is left of a window: it says so itself
        model = build(name, **settings)
        x, features = windows(1)
        assert torch.isfinite(model.eval()(*inputs(model, x, features))).all(), key


def test_sizes_and_costs():
    """tcn's by hand; the others within what was asked of them."""
    models = {name: build(name) for name in MODELS}
    count = lambda model: sum(p.numel() for p in model.parameters())
    parameters = {name: count(model) for name, model in models.items()}
    costs = {name: multiply_adds(model) for name, model in models.items()}
    W, C, T = 160, 129, 200
    weights = C * 15 + C * W + 4 * (W * 15 + W * W)
    gates = W * 20 + 20 * W
    # and norms, the gates' biases, the last layer
    assert parameters["tcn"] == weights + 5 * 2 * W + gates + 20 + W + W + 1
    assert costs["tcn"] == T * weights + gates + T * W
    assert parameters["eegnex"] == 62353
    assert 130e3 < parameters["cnn"] < 170e3 and 450e3 < parameters["transformer"] < 550e3
    assert all((1e6 < cost < 60e6) == (name not in PUBLIC) for name, cost in costs.items())
