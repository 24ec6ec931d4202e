"""EEGNeX by exchange against the network as published: layer after layer here, and braindecode's
own in a child process."""

import copy
import json
import os
import subprocess

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from eeg.bench.peers import PEERS
from eeg.models.eegnex import Dropout, EEGNeX, from_braindecode
from tests.fixtures import make, networks

SHAPES = {
    "challenge": dict(n_chans=129, n_times=200),
    # shorter than a kernel: no row of A is free of the window's edges
    "short": dict(n_chans=5, n_times=40, n_outputs=2),
    "odd": dict(n_chans=7, n_times=101, n_outputs=3, kernel_block_1_2=35)
    | dict(filter_1=3, filter_2=4, depth_multiplier=3),
    "even": dict(n_chans=4, n_times=150, kernel_block_1_2=22)
    | dict(kernel_block_4=9, dilation_block_4=3, avg_pool_block4=3)
    | dict(kernel_block_5=5, dilation_block_5=1, avg_pool_block5=5),
    # an activation that is not 0 at 0
    "other": dict(n_chans=3, n_times=70, activation=nn.Softplus, depth_multiplier=1)
    | dict(filter_1=2, filter_2=6, max_norm_conv=0.1, max_norm_linear=0.05),
}
SMALL = dict(n_chans=3, n_times=24, kernel_block_1_2=6, filter_1=2, filter_2=2)
SMALL |= dict(kernel_block_4=3, kernel_block_5=2, avg_pool_block5=4)


def plain(net, x):
    """The network in its published order, on the layers (and so the parameters and statistics) of
    net."""
    left = (net.conv1.kernel_size[1] - 1) // 2
    pad = (left, net.conv1.kernel_size[1] - 1 - left)
    x = net.bn1(net.conv1(F.pad(x[:, None], pad)))
    x = net.bn2(net.conv2(F.pad(x, pad)))
    x = F.conv2d(x, net.conv3.weight.renorm(2, 0, net.max_norm_conv), groups=net.conv3.groups)
    x = F.dropout(net.pool3(net.act3(net.bn3(x))), net.drop3.p, net.training)
    x = net.bn5(net.conv5(net.bn4(net.conv4(x))))
    x = F.dropout(net.pool5(net.act5(x)), net.drop5.p, net.training)
    return F.linear(x.flatten(1), net.head.weight.renorm(2, 0, net.max_norm_linear), net.head.bias)


def network(dtype=torch.float64, seed=0, **settings):
    """A network whose every parameter and statistic matters."""
    torch.manual_seed(seed)
    net = EEGNeX(**{"drop_prob": 0.0, **settings}).to(dtype)
    with torch.no_grad():
        for bn in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
            for p in (bn.weight, bn.running_var):
                p.uniform_(0.5, 2)
            for p in (bn.bias, bn.running_mean):
                p.normal_()
        net.conv3.weight *= 20  # past max-norm for some filters
    return net


def brains(*shape, dtype=torch.float64):
    """Signals that share a course, have offsets for each electrode and drift: nothing is white or
    centred."""
    x = torch.randn(*shape, dtype=dtype).cumsum(2) / 5 + torch.randn(shape[2], dtype=dtype)
    return x + 3 * torch.randn(1, shape[1], 1, dtype=dtype)


def gradients(f, net, x, y):
    net.zero_grad()
    loss = F.mse_loss(f(x), y)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in net.named_parameters()}


def agree(a, b, tolerance, what):
    a, b = a.double(), b.double()
    off = (a - b).norm()
    assert off <= tolerance * max(b.norm(), 1e-3), f"{what}: off by {float(off / b.norm()):.1e}"


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("batch", [1, 5])
def test_equals_the_published_order(name, batch):
    """Loss, gradients (of the input too), running statistics, and then the answer in eval mode,
    folded or not."""
    net = network(**SHAPES[name])
    twin = copy.deepcopy(net)
    x = brains(batch, net.n_chans, net.n_times)
    y = torch.randn(batch, net.head.out_features, dtype=torch.float64)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    loss, grads = gradients(net, net, mine, y)
    want, wanted = gradients(lambda x: plain(twin, x), twin, theirs, y)
    agree(loss, want, 1e-10, "loss")
    for name in wanted:
        agree(grads[name], wanted[name], 1e-8, name)
    agree(mine.grad, theirs.grad, 1e-8, "input")
    for (name, buffer), other in zip(net.named_buffers(), twin.buffers()):
        agree(buffer, other, 1e-10, name)
    net.eval(), twin.eval()
    agree(net(x), plain(twin, x), 1e-10, "eval")
    agree(net.folded()(x), plain(twin, x), 1e-10, "folded")


@pytest.mark.parametrize("batch", [1, 4])
def test_single_precision(batch):
    net = network(torch.float32)
    twin = copy.deepcopy(net).double()
    x, y = brains(batch, 129, 200, dtype=torch.float32), torch.randn(batch, 1)
    loss, grads = gradients(net, net, x, y)
    want, wanted = gradients(lambda x: plain(twin, x), twin, x.double(), y.double())
    agree(loss, want, 1e-5, "loss")
    for name in wanted:
        if not name.startswith(
            "bn2"
        ):  # cancelled by block 3's batch norm: zero but for its epsilon
            agree(grads[name], wanted[name], 1e-4, name)
    net.eval(), twin.eval()
    for f in (net, net.folded()):
        agree(f(x), plain(twin, x.double()), 1e-5, "eval")


def test_gradcheck():
    net = network(**SMALL)
    x = brains(2, 3, 24).requires_grad_()
    names = [name for name, _ in net.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in net.parameters()]
    f = lambda x, *p: torch.func.functional_call(net, dict(zip(names, p)), x)
    assert torch.autograd.gradcheck(f, (x, *values))


@pytest.mark.parametrize("mode", ["bn1", "bn2", "bn3", "momentum", "cumulative", "no statistics"])
def test_batch_norms_keep_their_settings(mode):
    net = network(**SHAPES["odd"])
    bns = [net.bn1, net.bn2, net.bn3]
    if mode.startswith("bn"):
        getattr(net, mode).eval()  # frozen, as for fine-tuning
    for bn in bns:
        bn.momentum = {"momentum": 0.0, "cumulative": None}.get(mode, bn.momentum)
        if mode == "no statistics":
            bn.track_running_stats = False
            bn.running_mean = bn.running_var = None
    twin = copy.deepcopy(net)
    for _ in range(2):
        x = brains(4, net.n_chans, net.n_times)
        agree(net(x), plain(twin, x), 1e-10, mode)
    for (name, buffer), other in zip(net.named_buffers(), twin.buffers()):
        agree(buffer, other, 1e-10, name)
    if mode == "no statistics":
        agree(net.eval()(x), plain(twin.eval(), x), 1e-10, "eval")


def test_an_offset_does_not_cancel():
    """Signals on an offset of 10^4 times their deviation: single precision answers as double
    precision does for the same numbers."""
    net = network(torch.float32, n_chans=16)
    twin = copy.deepcopy(net).double()
    x = torch.randn(8, 16, 200) + 1e4
    agree(net(x), plain(twin, x.double()), 1e-3, "answer")
    for name in ("bn1", "bn2", "bn3"):
        agree(getattr(net, name).running_var, getattr(twin, name).running_var, 1e-5, name)


@pytest.mark.parametrize("value", [0.0, 1e-5, 0.4, 4e5])
@pytest.mark.parametrize("training", [True, False])
def test_constant_windows(value, training):
    net = network(torch.float32, n_chans=9).train(training)
    twin = copy.deepcopy(net).double()
    x = torch.full((3, 9, 200), value)
    loss, grads = gradients(net, net, x, torch.ones(3, 1))
    ones = torch.ones(3, 1, dtype=torch.float64)
    want, _ = gradients(lambda x: plain(twin, x), twin, x.double(), ones)
    agree(loss, want, 1e-3, "loss")
    assert all(g.isfinite().all() for g in grads.values())


def test_autocast_leaves_the_moments_alone():
    net = network(torch.float32, n_chans=20)
    twin = copy.deepcopy(net)
    x, y = brains(8, 20, 200, dtype=torch.float32) * 50, torch.randn(8, 1)
    with torch.autocast("cpu", torch.bfloat16):
        loss, grads = gradients(net, net, x, y)
    want, wanted = gradients(twin, twin, x, y)
    agree(loss, want, 0.03, "loss")
    agree(grads["conv1.weight"], wanted["conv1.weight"], 0.1, "conv1.weight")
    for name in ("bn1", "bn2", "bn3"):
        agree(getattr(net, name).running_var, getattr(twin, name).running_var, 1e-6, name)


def test_twenty_steps():
    net, x = network(torch.float32, n_chans=5, n_times=80), torch.randn(20, 6, 5, 80)
    twin, y = copy.deepcopy(net), torch.randn(20, 6, 1)
    for model, f in ((net, net), (twin, lambda x: plain(twin, x))):
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        for i in range(20):
            gradients(f, model, x[i], y[i])
            optimiser.step()
    for (name, p), other in zip(net.state_dict().items(), twin.state_dict().values()):
        agree(p, other, 1e-3, name)


@pytest.mark.parametrize("p", [0.0, 0.25, 0.5, 1.0])
def test_dropout(p):
    drop, x = Dropout(p), torch.ones(257, 1001, requires_grad=True)
    torch.manual_seed(0)
    y = drop(x)
    y.sum().backward()
    kept = y != 0
    assert abs(kept.float().mean() - (1 - p)) < 0.005 and torch.equal(y, x.grad)
    assert p == 1 or torch.allclose(y[kept], torch.tensor(1 / (1 - p)), rtol=1e-4)
    if 0 < p < 1:
        off = kept.float() - (1 - p)
        for j in (1, 2, 3, 4, 8):
            assert abs((off[:, :-j] * off[:, j:]).mean()) < 0.002, "neighbours depend on each other"
    assert torch.equal(drop.eval()(x), x)


def test_a_wrong_window_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 129, 400\), expected \(batch, 129, 200\)"):
        EEGNeX()(torch.zeros(2, 129, 400))
    with pytest.raises(ValueError, match="too few"):
        EEGNeX(n_times=3)


needs_peers = pytest.mark.skipif(
    not PEERS.exists(),
    reason="no peers' environment; `make peers` makes it; its answers are in tests/fixtures",
)
THEIRS = """
import sys, warnings, torch
warnings.simplefilter("ignore")
from eeg.bench.peers import stand_in_for_torchaudio
stand_in_for_torchaudio()
from braindecode.models import EEGNeX
torch.manual_seed(3)
out = {}
networks = {
    "challenge": dict(n_chans=129, n_times=200, n_outputs=1),
    "small": dict(n_chans=6, n_times=90, n_outputs=2, filter_2=8, kernel_block_1_2=15),
    "few": dict(n_chans=8, n_times=200, n_outputs=1),
}
for name, settings in networks.items():
    torch.manual_seed(3)
    net = EEGNeX(drop_prob=0.0, **settings)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x = torch.randn(3, settings["n_chans"], settings["n_times"]) + 0.5
    y = torch.randn(3, settings["n_outputs"])
    loss = torch.nn.functional.mse_loss(net(x), y)
    loss.backward()
    grads = {k: p.grad for k, p in net.named_parameters()}
    after = {k: v.clone() for k, v in net.state_dict().items()}
    out[name] = dict(settings=settings, before=before, x=x, y=y, loss=loss.detach())
    out[name] |= dict(grads=grads, after=after, answer=net.eval()(x).detach())
    if name == "challenge":  # 20 steps of it would take long
        continue
    net.load_state_dict(before)
    optimiser = torch.optim.SGD(net.train().parameters(), lr=0.01, momentum=0.9)
    for _ in range(20):
        optimiser.zero_grad()
        torch.nn.functional.mse_loss(net(x), y).backward()
        optimiser.step()
    out[name]["trained"] = net.state_dict()
torch.save(out, sys.argv[1])
"""


def stored_networks():
    return json.loads((make.HERE / "eegnex.json").read_text())["networks"]


def close_sketches(ours, theirs, tolerance, what):
    """Both [norm, projections]: equal to a share of the norm."""
    assert np.abs(np.subtract(ours, theirs)).max() <= 3 * tolerance * max(theirs[0], 1e-3), what


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_equals_what_braindecode_answered(name):
    """Gradients, statistics, answers and 20 steps of training of braindecode's network, which
    tests/fixtures/make.py has stored."""
    settings, theirs = networks.NETWORKS[name], stored_networks()[name]
    net = EEGNeX(drop_prob=0.0, **settings)
    assert name != "challenge" or sum(p.numel() for p in net.parameters()) == 62353
    shapes = theirs["shapes"]
    places = {key: torch.full(shapes[key], float(i)) for i, key in enumerate(shapes)}
    numbered = from_braindecode(copy.deepcopy(net), places).state_dict()
    # the name of each of their tensors in ours
    called = {list(places)[int(value.flatten()[0])]: key for key, value in numbered.items()}
    from_braindecode(net, networks.weights(shapes))
    ours = networks.results(net, settings, networks.STEPS if name == "small" else 0)
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    for key, sketch in theirs["gradients"].items():
        if not called[key].startswith("bn2"):  # block 3's batch norm takes them out again
            close_sketches(ours["gradients"][called[key]], sketch, 1e-4, key)
    for key, sketch in theirs["statistics"].items():
        tolerance = 1e-4 if key.endswith("mean") else 1e-5
        close_sketches(ours["statistics"][called[key]], sketch, tolerance, key)
    np.testing.assert_allclose(ours["answer"], theirs["answer"], rtol=1e-4, atol=1e-5)
    if name == "small":
        mine, wanted = (each["answer after training"] for each in (ours, theirs))
        np.testing.assert_allclose(mine, wanted, rtol=1e-3, atol=1e-3)


def same_numbers(a, b, tolerance):
    """Whether two nested structures agree, floats to a share of the largest of a list."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_numbers(a[key], b[key], tolerance) for key in a)
    atol = tolerance * np.max(np.abs(b), initial=1e-3)
    return np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=0, atol=atol)


@needs_peers
def test_the_stored_answers_are_those_of_this_braindecode():
    theirs, _ = make.braindecode()
    for name, stored in stored_networks().items():
        # zero but for rounding
        noise = [key for key in stored["gradients"] if key.startswith("block_2.1")]
        for one in (stored, theirs[name]):
            for key in noise:
                del one["gradients"][key]
        assert same_numbers(theirs[name], stored, 1e-3)


@needs_peers
def test_equals_braindecode(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(make.ROOT)}
    command = [PEERS, "-c", THEIRS, tmp_path / "theirs.pt"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, theirs in torch.load(tmp_path / "theirs.pt", weights_only=True).items():
        torch.manual_seed(3)
        net = EEGNeX(drop_prob=0.0, **theirs["settings"])
        initial = copy.deepcopy(net.state_dict())
        from_braindecode(net, theirs["before"])
        for key, value in net.state_dict().items():  # same seed, same initial weights
            assert torch.equal(value, initial[key]), key
        assert name != "challenge" or sum(p.numel() for p in net.parameters()) == 62353
        loss, grads = gradients(net, net, theirs["x"], theirs["y"])
        agree(loss, theirs["loss"], 1e-5, "loss")
        both = {**theirs["after"], **theirs["grads"]}
        wanted = from_braindecode(copy.deepcopy(net), both).state_dict()
        for key in grads:
            if not key.startswith("bn2"):
                agree(grads[key], wanted[key], 1e-4, key)
        after = from_braindecode(copy.deepcopy(net), theirs["after"]).state_dict()
        for key, value in net.state_dict().items():
            # the means nearly cancel
            agree(value, after[key], 1e-4 if key.endswith("mean") else 1e-5, key)
        agree(net.eval()(theirs["x"]), theirs["answer"], 1e-5, "answer")
        agree(net.folded()(theirs["x"]), theirs["answer"], 1e-5, "folded")
        if "trained" not in theirs:
            continue
        from_braindecode(net, theirs["before"]).train()
        optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
        for _ in range(20):
            gradients(net, net, theirs["x"], theirs["y"])
            optimiser.step()
        trained = from_braindecode(copy.deepcopy(net), theirs["trained"])
        for (key, p), other in zip(net.named_parameters(), trained.parameters()):
            agree(p, other, 1e-3, f"{key} after 20 steps")
        agree(net.eval()(theirs["x"]), trained.eval()(theirs["x"]), 1e-3, "answer after 20 steps")
