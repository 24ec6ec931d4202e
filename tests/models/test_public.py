"""Published encoders: braindecode's answers with braindecode's weights, what torch has of their
parts, and how they see a window."""

import json
import math
import os
import subprocess

import mne
import numpy as np
import pytest
import torch
from scipy.signal import resample_poly
from torch import nn

from eeg.bench.peers import PEERS
from eeg.models import PUBLIC, build
from eeg.models.layers import Normalize
from eeg.models.montage import CHANNELS, places
from eeg.models.public import from_braindecode, to_braindecode
from eeg.models.public.attention import Attention
from eeg.models.public.luna import Query, Turned, waves
from eeg.models.public.patches import Resample
from tests.fixtures import make, published

OWN = {  # the settings of ours
    "cbramod": {"pool": "none"},
    "luna base": {"channels": published.ELECTRODES},
    "luna large": {"channels": published.ELECTRODES, "size": "large"},
}


def network(name, n_chans=len(published.ELECTRODES), n_times=200, **more):
    """Ours, that of a Model, for windows of n_times samples at 100 Hz."""
    settings = OWN[name] | {"n_chans": n_chans, "n_times": n_times} | more
    return build(name.split()[0], n_outputs=published.OUTPUTS, **settings).network.eval()


def answer(net, x):
    """To windows at the rate and in the unit that the encoder was trained with."""
    with torch.no_grad():
        return net.head(net.encode(x))


@pytest.mark.parametrize("name", published.NETWORKS)
def test_equals_what_braindecode_answered(name):
    """With weights that tests/fixtures/make.py gave both; every tensor has its place."""
    stored = json.loads((make.HERE / "published.json").read_text())["networks"][name]
    n_times = published.NETWORKS[name][1]["n_times"]
    net = network(name, n_times=300)  # 3 s: three patches of cbramod
    theirs = published.weights(stored["shapes"])
    net.load_state_dict(from_braindecode(theirs))
    found = answer(net, published.windows(n_times))
    torch.testing.assert_close(found, torch.tensor(stored["answer"]), rtol=1e-5, atol=1e-5)
    back = to_braindecode(net.state_dict())
    assert {key: list(value.shape) for key, value in back.items()} == stored["shapes"]
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)


needs_peers = pytest.mark.skipif(
    not PEERS.exists(),
    reason="no peers' environment; `make peers` makes it; its answers are in tests/fixtures",
)
THEIRS = """
import sys, warnings, torch
warnings.simplefilter("ignore")
from eeg.bench.peers import stand_in_for_torchaudio
stand_in_for_torchaudio()
from braindecode import models
from eeg.models.montage import CHANNELS
from tests.fixtures import published
found = {}
for name, ours in torch.load(sys.argv[1], weights_only=True).items():
    network, settings = published.NETWORKS[name]
    settings = settings | {"n_times": ours["x"].shape[2], "n_outputs": 2, "n_chans": 129}
    torch.manual_seed(5)
    net = getattr(models, network)(chs_info=published.information(CHANNELS), **settings).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() == 1:  # norms and biases that are not 1 and 0
                parameter.add_(0.1 * torch.randn_like(parameter))
        found[name] = {"state": {key: value.clone() for key, value in net.state_dict().items()}}
        found[name]["answer"] = net(ours["x"])
        net.load_state_dict(ours["state"])
        found[name]["with ours"] = net(ours["x"])
torch.save(found, sys.argv[2])
"""


@needs_peers
def test_the_stored_answers_are_those_of_this_braindecode():
    _, now = make.braindecode()
    stored = json.loads((make.HERE / "published.json").read_text())["networks"]
    for name, theirs in now.items():
        assert theirs["shapes"] == stored[name]["shapes"]
        np.testing.assert_allclose(theirs["answer"], stored[name]["answer"], rtol=1e-4, atol=1e-4)


@needs_peers
def test_equals_braindecode_in_both_directions(tmp_path):
    """129 electrodes, 2 s: braindecode's weights in ours, and ours in braindecode's network."""
    torch.manual_seed(4)
    ours = {}
    for name in published.NETWORKS:
        net = network(name, 129, channels=None) if "luna" in name else network(name, 129)
        x = published.windows(net.resample.matrix.shape[1], 3, 129)
        ours[name] = {"state": to_braindecode(net.state_dict()), "x": x, "answer": answer(net, x)}
    torch.save(ours, tmp_path / "ours.pt")
    command = [PEERS, "-c", THEIRS, tmp_path / "ours.pt", tmp_path / "theirs.pt"]
    environment = os.environ | {"PYTHONPATH": str(make.ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, theirs in torch.load(tmp_path / "theirs.pt", weights_only=True).items():
        close = {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(ours[name]["answer"], theirs["with ours"], **close)
        net = network(name, 129, channels=None) if "luna" in name else network(name, 129)
        net.load_state_dict(from_braindecode(theirs["state"]))
        torch.testing.assert_close(answer(net, ours[name]["x"]), theirs["answer"], **close)
        assert theirs["answer"].std() > 0.01


def test_names_go_both_ways_and_never_meet():
    state = {"head.1.weight": 1, "layers.0.in_proj.bias": 2, "overhead.x": 3, "in_proj.weight": 4}
    assert list(to_braindecode(state)) == [
        *("final_layer.1.weight", "layers.0.in_proj_bias", "overhead.x", "in_proj_weight")
    ]
    assert from_braindecode(to_braindecode(state)) == state
    with pytest.raises(ValueError, match="two tensors would be head.1.weight"):
        from_braindecode(to_braindecode(state) | {"head.1.weight": 5})


# ------------------------------------------------------------------------- parts that torch has too


@pytest.mark.parametrize("width, heads", [(8, 2), (15, 3)])
def test_attention_is_torchs(width, heads):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(width, heads, batch_first=True).eval()
    ours = Attention(width, heads, dropout=0.5).eval()
    nn.init.normal_(theirs.in_proj_bias)
    ours.load_state_dict(from_braindecode(theirs.state_dict()))
    x, keys, values = torch.randn(2, 5, width), torch.randn(2, 7, width), torch.randn(2, 7, width)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])
    torch.testing.assert_close(ours.across(x, keys, values), theirs(x, keys, values)[0])


def test_a_query_layer_is_torchs_encoder_layer():
    torch.manual_seed(0)
    how = {"activation": "gelu", "batch_first": True, "norm_first": True}
    theirs = nn.TransformerEncoderLayer(8, 2, 32, **how).eval()
    ours = Query(8, 0.1).eval()
    ours.load_state_dict(from_braindecode(theirs.state_dict()))
    x = torch.randn(3, 4, 8)
    torch.testing.assert_close(ours(x), theirs(x))


def test_pairs_are_turned_as_complex_numbers_are():
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    turned = Turned(6).double()(x)
    steps = np.exp(1j * np.arange(7)[:, None] * 10000.0 ** (-np.arange(3) / 3))
    wanted = (x[..., ::2].numpy() + 1j * x[..., 1::2].numpy()) * steps
    np.testing.assert_allclose(turned[..., ::2], wanted.real, atol=1e-6)
    np.testing.assert_allclose(turned[..., 1::2], wanted.imag, atol=1e-6)


def test_places_as_waves_by_hand():
    found = waves(torch.tensor([[0.0, -1, 5], [2, 1, 5.5], [1, 0, 6]], dtype=torch.float64), 16)
    at = [[0, 0, 0], [1, 1, 0.5], [0.5, 0.5, 1]]
    for electrode in range(3):
        wanted = [
            f(2**power * at[electrode][axis])
            for power in range(2)
            for axis in range(3)
            for f in (math.sin, math.cos)
        ]
        np.testing.assert_allclose(found[electrode], [*wanted, 0, 0, 0, 0], atol=1e-6)


# ------------------------------------------------------------------------- how a window is seen


@pytest.mark.parametrize("rate, patch, n_times", [(200, 200, 200), (256, 40, 200), (256, 40, 131)])
def test_resampling_is_scipys(rate, patch, n_times):
    resample = Resample(n_times, rate, patch)
    x = np.random.default_rng(0).normal(size=(2, 3, n_times))
    wanted = resample_poly(x, rate // 4, 25, axis=2)
    found = resample(torch.from_numpy(x)).numpy()
    samples = wanted.shape[2]
    assert found.shape[2] == resample.patches * patch and 0 <= found.shape[2] - samples < patch
    np.testing.assert_allclose(found[..., :samples], wanted, atol=1e-5)
    assert (found[..., samples:] == 0).all()


def test_electrodes_lie_where_mne_has_them():
    info = mne.create_info(list(CHANNELS), 100, "eeg").set_montage("GSN-HydroCel-129")
    wanted = np.array([channel["loc"][:3] for channel in info["chs"]])
    np.testing.assert_allclose(places(CHANNELS), wanted, rtol=1e-7, atol=1e-9)


def test_luna_knows_electrodes_by_their_names():
    """In another order it says the same, with other names it does not."""
    x, order = published.windows(520), [4, 0, 6, 2, 1, 3, 5]
    torch.manual_seed(0)
    net = network("luna base")
    names = [published.ELECTRODES[i] for i in order]
    moved, strange = (network("luna base", channels=each) for each in (names, names[::-1]))
    for other in (moved, strange):
        other.load_state_dict(net.state_dict())
    torch.testing.assert_close(answer(moved, x[:, order]), answer(net, x), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(answer(strange, x[:, order]), answer(net, x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"n_chans": 128}, "windows of 128 electrodes and 129 names"),
        (
            {"n_chans": 2, "channels": ["E1", "Fp1"]},
            "no place is known of electrode 'Fp1': the Hyd",
        ),
        ({"n_chans": 2, "channels": "E1"}, "luna takes a list of names of electrodes"),
        ({"normalize": "window"}, "normalize='window': luna takes no other than 'channel'"),
        ({"size": "small"}, "size=small: luna takes base or large or huge"),
    ],
)
def test_what_luna_does_not_know_is_an_error(settings, message):
    with pytest.raises(ValueError, match=message):
        build("luna", **settings)


def test_hundreds_of_microvolts():
    x = 50 * torch.randn(2, 4, 100) + torch.randn(4, 1) * 1000
    x[0, 0, 3] = 1e5
    wanted = ((x - x.mean(2, keepdim=True)) / 100).clamp(-10, 10)
    for scaled in (x, x * 1e-6):
        torch.testing.assert_close(Normalize("hundreds")(scaled), wanted, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------- what every model promises

MADE = {"cbramod": {"depth": 2}, "luna": {}}


@pytest.mark.parametrize("name", PUBLIC)
def test_volts_and_microvolts_give_one_answer(name):
    torch.manual_seed(0)
    model = build(name, **MADE[name]).eval()
    x = 20 * torch.randn(3, 129, 200) + 100 * torch.randn(129, 1)
    x[:, -1] = 0  # the reference
    with torch.no_grad():
        a, b = model(x), model(x * 1e-6)
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
        # and alone as in a batch
        torch.testing.assert_close(model(x[1:2]), a[1:2], rtol=1e-4, atol=1e-4)
        assert a.std() > 1e-3 and model(x[:0]).shape == (0, 1)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_parameter_learns_and_settings_make_it_again(name):
    few = {"channels": published.ELECTRODES} if name == "luna" else {"depth": 2, "pool": "none"}
    model = build(name, n_chans=7, n_times=150, n_outputs=4, aux=("age",), **few)
    x = 20 * torch.randn(4, 7, 150)
    model.raw(x).square().mean().backward()
    for key, parameter in model.named_parameters():
        if not key.endswith("in_proj.bias"):  # that of the keys changes no attention
            assert parameter.grad.abs().max() > 0, key
    other = build(**json.loads(json.dumps(model.settings)))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(x), other.eval()(x)) and model(x).shape == (4, 4)
