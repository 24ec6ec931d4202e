"""Rows: layers and networks."""

import copy
import statistics
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from eeg.bench import simulated
from eeg.bench.measure import (
    duration,
    in_turn,
    inference,
    median_seconds,
    megabytes,
    report,
    times_floor,
    training_step,
)
from eeg.bench.peers import Peer
from eeg.bench.plain import plain_tcn
from eeg.data.features import compute
from eeg.machine.device import keep_freed_memory
from eeg.machine.precision import LIMITS, at_precision, change, passes, size
from eeg.models import CLOSED_FORM, MODELS, PUBLIC, SETTINGS, build
from eeg.models.eegnex import EEGNeX, from_braindecode
from eeg.models.layers import DepthwiseConv1d, NormReLU
from eeg.models.tcn import TCN


def depthwise(rounds):
    """DepthwiseConv1d, forward and backward, against torch's conv1d(groups=channels). All cores."""
    shapes = ((64, 129, 200, 15, 1), (64, 160, 200, 15, 8), (64, 160, 200, 7, 4))
    good = all([_depthwise(rounds, *shape) for shape in shapes])
    return _last_channel(rounds) & _bfloat16(rounds) and good


def _step_of(C, dtype=torch.float32):
    """A function that goes through a depthwise layer of C channels, forward and backward."""
    torch.manual_seed(0)
    layer = DepthwiseConv1d(C, 15, bias=False)
    x = torch.randn(64, 200, C).to(dtype).requires_grad_()
    up = torch.randn(64, 200, C).to(dtype)
    return lambda: torch.autograd.grad(layer(x), (x, layer.weight), up)


def _last_channel(rounds):
    """129 channels against 128, which fill whole vectors."""
    mine, peer = in_turn(max(rounds, 15), _step_of(129), _step_of(128))
    return report("depthwise 129, against 128", mine, peer, 1.05 * 129 / 128, at_most=True)


def _bfloat16(rounds):
    """bfloat16, as in mixed precision, against float32."""
    mine, peer = in_turn(max(rounds, 15), _step_of(129, torch.bfloat16), _step_of(129))
    return report("depthwise bf16, against fp32", mine, peer, 1, at_most=True)


def block(rounds):
    """What follows the product in a block of tcn, both ways, against torch's operations. All cores.

    Batch norm, ReLU, a mask of channels and the residual; "x floor" counts the activations that
    must be read and written once each.
    """
    return all([_block(rounds, dtype) for dtype in (torch.float32, torch.bfloat16)])


def _block(rounds, dtype):
    torch.manual_seed(0)
    z, x, up = (torch.randn(64, 200, 160).to(dtype) for _ in range(3))
    mask, norm = torch.ones(64, 160), nn.BatchNorm2d(160)
    inputs = z.requires_grad_(), x.requires_grad_(), norm.weight, norm.bias

    def ours():
        y, *_ = NormReLU.apply(z, x, mask, norm.weight, norm.bias, norm.eps)
        return y.detach(), *torch.autograd.grad(y, inputs, up)

    def theirs():
        normed = norm(z.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)
        y = x + F.relu(normed) * mask[:, None].to(dtype)
        return y.detach(), *torch.autograd.grad(y, inputs, up)

    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    same = all(_close(a.float(), b.float(), tolerance) for a, b in zip(ours(), theirs()))
    mine, peer = in_turn(max(rounds, 15), ours, theirs)
    note = times_floor(mine, 3 * x.nbytes)
    return report(f"block, {dtype}", mine, peer, 2.7, same=same, note=note)


def _depthwise(rounds, B, C, T, K, dilation):
    torch.manual_seed(0)
    layer = DepthwiseConv1d(C, K, dilation, bias=False)
    x, up = torch.randn(B, T, C, requires_grad=True), torch.randn(B, T, C)
    # torch's own layout
    first, up_first = (each.detach().transpose(1, 2).contiguous() for each in (x, up))
    first.requires_grad_()

    def ours():
        y = layer(x)
        return y.detach(), *torch.autograd.grad(y, (x, layer.weight), up)

    def theirs():
        pad = K // 2 * dilation
        y = F.conv1d(first, layer.weight, padding=pad, dilation=dilation, groups=C)
        return y.detach(), *torch.autograd.grad(y, (first, layer.weight), up_first)

    (y, gx, gw), (y1, gx1, gw1) = ours(), theirs()
    pairs = (y, y1.transpose(1, 2)), (gx, gx1.transpose(1, 2)), (gw, gw1)
    same = all((a - b).abs().max() <= 1e-5 * b.abs().max() for a, b in pairs)
    mine, peer = in_turn(max(rounds, 15), ours, theirs)
    goal = 6 if C == 129 else None
    note = times_floor(mine, 5 * x.nbytes // 2)
    title = f"depthwise {C} x {K}, dilation {dilation}"
    return report(title, mine, peer, goal, same=same, note=note)


def _close(ours, theirs, tolerance):
    return bool((ours - theirs).norm() <= tolerance * theirs.norm())


def _same_eegnex(peer, batch):
    """Whether ours with braindecode's weights has its loss, gradients and answers."""
    peer("eegnex_results", batch=batch)
    theirs = torch.load(peer.folder / "eegnex.pt", weights_only=True)
    twin = from_braindecode(EEGNeX(drop_prob=0.0), theirs["before"])
    loss = torch.nn.functional.mse_loss(twin(theirs["x"]), theirs["y"])
    loss.backward()
    wanted = from_braindecode(copy.deepcopy(twin), theirs["after"] | theirs["grads"])
    wanted = dict(wanted.named_parameters())
    # the gradients of bn2 are 0 but for rounding
    gradients = (p for p in twin.named_parameters() if not p[0].startswith("bn2"))
    return (
        _close(loss, theirs["loss"], 1e-5)
        and all(_close(p.grad, wanted[key], 1e-4) for key, p in gradients)
        and _close(twin.folded()(theirs["x"]), theirs["answer"], 1e-5)
    )


def eegnex(rounds):
    """EEGNeX against braindecode's, with AdamW. Ours keeps freed memory, as the trainer does."""
    keep_freed_memory()
    torch.manual_seed(0)
    network, x, y = EEGNeX(), torch.randn(128, 129, 200), torch.randn(128, 1)
    folded = network.folded()
    good = True
    with Peer() as peer, Peer(sys.executable) as own:
        for batch, train, goal in ((128, True, 120), (128, False, 200), (1, False, 25)):
            name = f"EEGNeX {'step' if train else 'folded'}, batch {batch}"
            same = _same_eegnex(peer, batch)
            work = training_step(network, x, y) if train else inference(folded, x[:batch])
            here = lambda: median_seconds(work, 20)
            there = lambda: peer("eegnex", batch=batch, train=train)["seconds"]
            ours, theirs = in_turn(rounds, here, there)
            good &= report(name, ours, theirs, goal, same=same)
        mine = [own("training_memory", batch=128, own=True)["bytes"]]
        theirs = [peer("training_memory", batch=128, own=False)["bytes"]]
    return report("EEGNeX step, memory it takes", mine, theirs, 5, show=megabytes) and good


def same_tcn(batch: int, seed: int = 0) -> float:
    """The largest relative difference in scores and gradients of our tcn and plain_tcn.

    Values are shifted by +6 or -6 before each ReLU, where rounding could switch a gradient off.
    """
    torch.manual_seed(seed)
    ours, plain = TCN(dropout=0.0), plain_tcn()
    x, up = torch.randn(batch, 129, 200), torch.randn(batch, 200)
    with torch.no_grad():
        for key, p in ours.named_parameters():
            if key.endswith(("norm.bias", "squeeze.bias")):
                p.fill_(6.0)[::2] *= -1
        for p, q in zip(ours.parameters(), plain.parameters(), strict=True):
            q.copy_(p.view_as(q))
        for block in plain.blocks:
            block[-1].p = 0.0
    results = []
    for network in (ours, plain):
        scores = network(x)
        (scores * up).sum().backward()
        results.append([scores.detach(), *(p.grad for p in network.parameters())])
    return max(float((a - b.view_as(a)).norm() / b.norm()) for a, b in zip(*results))


def tcn(rounds):
    """A training step of tcn against the same network in nn.Conv1d in another process."""
    keep_freed_memory()
    difference = same_tcn(64)
    step = training_step(TCN(), torch.randn(64, 129, 200), torch.randn(64, 200))
    here = lambda: median_seconds(step, 10)
    with Peer() as peer:
        mine, theirs = in_turn(rounds, here, lambda: peer("plain_tcn_step", batch=64)["seconds"])
    note = f"gradients differ by {difference:.0e}"
    return report("tcn step, batch 64", mine, theirs, 4, same=difference < 1e-4, note=note)


STEPS = 60  # of training, before `latency` changes the precision
LATE_S = 0.015


def latency(rounds):
    """Every model at every precision: time of 1 and of 128 windows, size, answers and NRMSE.

    Models are trained for a moment: one that predicts the mean loses nothing by rounding.
    """
    data = _LatencyData(simulated.cache_with_margins())
    last = f"NRMSE ({STEPS} steps of training, {len(data.test)} windows of other subjects)"
    columns = f"{'batch 1':<26}{'batch 128':<26}{'size':<10}{'answer moves':<14}{last}"
    print(f"{'':<13}{'precision':<12}{columns}")
    good = True
    for name in (name for name in MODELS if name not in (*CLOSED_FORM, *PUBLIC)):
        model = data.trained(name)
        for precision in (None, *LIMITS):
            title = f"{'' if precision else name:<13}{precision or 'as trained':<12}"
            late = _latency(title, model, precision, data, rounds)
            good &= not late or precision == "fp16"
    return good


class _LatencyData:
    """Windows, labels and features of a cache, and which windows are of the subjects to test on."""

    def __init__(self, cache):
        X = simulated.without_margins(cache)
        subjects = cache.metadata["subject"]
        names = np.unique(subjects)
        test = np.isin(subjects, names[: len(names) // 4])
        self.train = np.flatnonzero(~test)
        self.test = torch.from_numpy(np.flatnonzero(test))
        self.x, self.y = torch.from_numpy(X), torch.from_numpy(cache.y).float()[:, None]
        self.features = torch.from_numpy(compute(X))

    def inputs(self, model, rows):
        return (self.x[rows], self.features[rows] if model.features == "file" else None)

    def trained(self, name):
        """A model after a short training, with a time head if it can: that one learns soonest."""
        torch.manual_seed(0)
        head = {"head": "time"} if "head" in SETTINGS[name] else {}
        model = build(name, **head)
        model.center.fill_(self.y[self.train].mean())
        model.scale.fill_(self.y[self.train].std())
        if model.features != "none":
            known = self.features[self.train]
            median = known.nanmedian(0).values
            model.median.copy_(median)
            model.mad.copy_((known - median).abs().nanmedian(0).values.clamp(min=1e-6))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        batches = np.random.default_rng(0).choice(self.train, (STEPS, 64))
        for rows in torch.from_numpy(batches):
            optimizer.zero_grad()
            answer = model(*self.inputs(model, rows))
            torch.nn.functional.mse_loss(answer, self.y[rows]).backward()
            optimizer.step()
        return model.eval()


def _latency(title, model, precision, data, rounds):
    """Prints a line of the table. -> whether one window takes too long."""
    form = at_precision(model, precision) if precision else model
    one, many = data.inputs(model, data.test[:1]), data.inputs(model, data.test[:128])
    times = 1 if precision == "fp16" else rounds  # many processors compute it slowly
    (single,) = in_turn(max(times, 3), inference(form, *one))
    (whole,) = in_turn(times, inference(form, *many))
    x, features = data.inputs(model, data.test)
    figures = change(model, form, x, data.y[data.test], features)
    score = f"{figures['nrmse']:+.5f}" if precision else f"{figures['before']:.4f}"
    if precision and not passes(precision, figures):
        score += "  REFUSED"
    late = statistics.median(single) >= LATE_S
    warning = f"  NOT under {1e3 * LATE_S:.0f} ms" if late else ""
    figures = f"{size(form) / 1e3:<7.0f}kB {figures['answer']:<14.1e}{score}"
    print(f"{title}{duration(single):<26}{duration(whole):<26}{figures}{warning}", flush=True)
    return late
