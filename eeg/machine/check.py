"""Ten checks of a device. Each does what training will do, and compares with the CPU in float64.

    python -m eeg.machine.check cuda:0 [NAME ...]

eeg.machine.probe runs it in a process of its own, which a bad card may crash or hang. It writes a
line of JSON on stdout as each check begins, {"check": name}, and one as it ends, with "state" (ok,
failed, skipped), "text" and "seconds"; a failure may add "cause", `detect` adds the card. It ends
at the first failure: after an error of the card, nothing the process does can be relied on.
"""

import copy
import json
import os
import sys
import time
from contextlib import nullcontext

import torch
from torch import nn
from torch.nn import functional as F

from eeg.machine import device as devices
from eeg.machine import probe
from eeg.machine.amp import unscale
from eeg.machine.faults import is_out_of_memory

# Relative to the norm of what is compared. float32 sums end near 1e-6; NVIDIA's convolutions round
# factors to TF32 (2^-11) by default.
FLOAT32, TF32, HALF = 1e-4, 5e-3, 5e-2


class Wrong(Exception):
    """The device did something unexpected."""


class Skipped(Exception):
    """The check makes no sense on this device."""


def agree(what, got, wanted, limit):
    """The relative difference of `got`, on the device, and `wanted`, float64 on the CPU. Raises
    Wrong where it is more than rounding."""
    got = got.detach().cpu().double()
    if not torch.isfinite(got).all():
        raise Wrong(f"{what}: NaN or infinite numbers")
    difference = ((got - wanted).norm() / wanted.norm()).item()
    if not difference <= limit:
        away = f"{difference:.1e} away from the CPU's numbers"
        raise Wrong(f"{what}: {away}, at most {limit:.0e} is rounding")
    return difference


def within(*differences):
    """What a check says where all these relative differences are rounding."""
    return f"within {max(differences):.0e} of the CPU"


def numbers(*shape, seed=0):
    """Standard normal float32 numbers on the CPU, the same in every process."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def compare_layer(what, layer, x, device, limit):
    """The largest relative difference of a layer's forward and backward pass, device against CPU.
    `layer` is float64 and keeps its gradients."""
    there = copy.deepcopy(layer).float().to(device)
    here_x, there_x = x.detach().double().requires_grad_(), x.detach().to(device).requires_grad_()
    here_y, there_y = layer(here_x), there(there_x)
    g = numbers(*here_y.shape, seed=7)
    here_y.backward(g.double())
    there_y.backward(g.to(device))
    pairs = {"forward": (there_y, here_y.detach())}
    pairs["backward to the input"] = there_x.grad, here_x.grad
    for (name, here), p in zip(layer.named_parameters(), there.parameters()):
        pairs[f"backward to the {name}"] = p.grad, here.grad
    for (name, here), b in zip(layer.named_buffers(), there.buffers()):
        if here.is_floating_point():
            pairs[name] = b, here
    return max(agree(f"{what}, {name}", *pair, limit) for name, pair in pairs.items())


def detect(device):
    """Is it there, and what is it?"""
    if device.type == "cuda":
        if not torch.cuda.is_available():
            torch.cuda.init()  # raises, and says why
            raise Wrong("torch finds no card")
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise Wrong(f"there is no {device}, torch finds {count} card{'s' * (count > 1)}")
        card = torch.cuda.get_device_properties(device)
        kind = f"compute capability {card.major}.{card.minor}"
        if torch.version.hip:
            kind = getattr(card, "gcnArchName", "").split(":")[0]
        text = f"{card.name}, {kind}, {card.total_memory / 1e9:.1f} GB"
        return {"text": text, "card": {"name": card.name, "kind": kind, "count": count}}
    if device.type == "mps" and not torch.backends.mps.is_available():
        needed = "macOS 12.3 or later on Apple silicon or AMD is needed"
        raise Wrong(f"torch finds no Metal device ({needed})")
    name = "Apple Metal" if device.type == "mps" else devices.processor()
    return {"text": name, "card": {"name": name, "kind": device.type, "count": 1}}


def allocate(device):
    """Allocate, write and read 64 MB."""
    x = torch.zeros(16 << 20, device=device)
    x += 0.5
    # Metal has no float64
    total = x.double().sum().item() if device.type != "mps" else x.sum().item()
    if total != 8 << 20:
        raise Wrong(f"16 Mi halves add up to {total}, not to {8 << 20}")
    return "64 MB"


def matmul(device):
    """Multiply matrices, of odd sizes too."""
    differences = []
    for m, k, n in ((512, 512, 512), (200, 129, 48), (1, 200, 7), (63, 1, 65)):
        a, b = numbers(m, k, seed=1), numbers(k, n, seed=2)
        got, wanted = a.to(device) @ b.to(device), a.double() @ b.double()
        differences.append(agree(f"({m} x {k}) ({k} x {n})", got, wanted, FLOAT32))
    return within(*differences)


def convolution(device):
    """The convolutions of the models, forward and backward: unsupported cards fail here first."""
    torch.manual_seed(0)
    one_each = nn.Conv1d(129, 129, 15, padding=7, groups=129)
    kinds = {
        "across electrodes": (nn.Conv1d(129, 48, 1), (4, 129, 200)),
        "along time, a filter an electrode": (one_each, (2, 129, 200)),
        "dilated": (nn.Conv1d(48, 48, 3, padding=8, dilation=8), (4, 48, 200)),
        "2-D": (nn.Conv2d(8, 32, (1, 33), padding="same"), (2, 8, 9, 67)),
        "2-D, grouped": (nn.Conv2d(32, 64, (129, 1), groups=32), (2, 32, 129, 19)),
        "transposed": (nn.ConvTranspose1d(48, 24, 2, stride=2), (4, 48, 50)),
    }
    differences = []
    for what, (layer, shape) in kinds.items():
        differences.append(compare_layer(what, layer.double(), numbers(*shape), device, TF32))
    return within(*differences)


def batch_norm(device):
    """Batch norm in training (output, gradients, running statistics), then in evaluation."""
    layer = nn.BatchNorm1d(48).double()
    x = 3 + 2 * numbers(8, 48, 200)
    training = compare_layer("training", layer, x, device, FLOAT32)
    layer.zero_grad()
    evaluation = compare_layer("evaluation", layer.eval(), x, device, FLOAT32)
    return within(training, evaluation)


def optimiser(device):
    """Five AdamW steps from given gradients, clipped."""
    start = numbers(300, 41)
    here, there = nn.Parameter(start.double()), nn.Parameter(start.to(device, copy=True))
    steps = [torch.optim.AdamW([p], lr=0.1, weight_decay=0.01) for p in (here, there)]
    for i in range(5):
        g = numbers(300, 41, seed=i)
        here.grad, there.grad = g.double(), g.to(device)
        for p, step in zip((here, there), steps):
            nn.utils.clip_grad_norm_([p], 1.0)
            step.step()
    got, wanted = there.detach().cpu() - start, here.detach() - start.double()
    return within(agree("five steps of AdamW", got, wanted, FLOAT32))


def small():
    """A small network of the toolkit's kind, for the checks that train."""
    torch.manual_seed(0)
    time_filter = nn.Conv1d(16, 16, 15, padding=7, groups=16)
    layers = time_filter, nn.Conv1d(16, 24, 1), nn.BatchNorm1d(24), nn.GELU()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 1))


def amp(device):
    """Mixed precision: float16 with a loss scale, on a CPU bfloat16. Compares gradients, then takes
    twenty steps."""
    if device.type == "cpu" and not devices.supports_bf16():
        raise Skipped("this processor has no bfloat16 instructions")
    dtype = torch.bfloat16 if device.type == "cpu" else torch.float16
    x, y = numbers(32, 16, 100), numbers(32, 1, seed=1)
    here, there = small().double(), small().to(device)
    F.mse_loss(here(x.double()), y.double()).backward()
    scale = 2.0**10 if dtype == torch.float16 else 1.0  # no step overflows
    autocast, losses = torch.autocast(device.type, dtype), []
    for loss in steps(20, there, x.to(device), y.to(device), autocast, scale):
        if not losses:
            difference = agree("gradients", gradients(there), gradients(here), HALF)
        losses.append(loss.item())
    falls("20 steps", losses)
    return f"{str(dtype).split('.')[1]}, within {difference:.0e} of the CPU's float64"


def steps(count, network, x, y, autocast=nullcontext(), scale=1.0):
    """Train on one batch. Yields the loss of each step before the weights change."""
    step = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(count):
        step.zero_grad()
        with autocast:
            loss = F.mse_loss(network(x).float(), y)
        (scale * loss).backward()
        unscale(network.parameters(), scale)
        yield loss
        step.step()


def gradients(network):
    return torch.cat([p.grad.detach().cpu().double().flatten() for p in network.parameters()])


def falls(what, losses):
    """Raise Wrong unless training on one batch has brought the loss down."""
    first, last = losses[0], losses[-1]
    if not last < 0.98 * first:  # written so that NaN fails
        raise Wrong(f"{what} took the loss from {first:.4f} to {last:.4f}, it should fall")


def memory(device):
    """Fill most of the free memory, read it back and free it; 256 MB if free memory is unknown."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    block = 16 << 20  # int32: 64 MB
    count = max(4, int(0.8 * free) // (4 * block))
    blocks = [torch.full((block,), i, dtype=torch.int32, device=device) for i in range(count)]
    for i, x in enumerate(blocks):
        if not (x == i).all().item():
            raise Wrong(f"block {i} of {count} holds other numbers than were written")
    del blocks, x
    if device.type == "cuda":
        torch.cuda.empty_cache()
        back = torch.cuda.mem_get_info(device)[0]
        if back < 0.9 * free:
            after = f"after filling and freeing, {back / 1e9:.1f} GB are"
            raise Wrong(f"{free / 1e9:.1f} GB were free; {after}")
    return f"{count * 4 * block / 1e9:.1f} GB"


def transfer(device):
    """Numbers copied to the device come back unchanged, from pinned memory too."""
    if device.type == "cpu":
        raise Skipped("the CPU is the host")
    for n in (1, 129 * 200 + 1, 4 << 20):
        x = numbers(n)
        if not torch.equal(x.to(device).cpu(), x):
            raise Wrong(f"{n} numbers came back changed")
        if device.type == "cuda":
            pinned, back = x.pin_memory(), torch.empty(n, pin_memory=True)
            back.copy_(pinned.to(device, non_blocking=True), non_blocking=True)
            devices.synchronize(device)
            if not torch.equal(back, x):
                raise Wrong(f"{n} numbers from pinned memory came back changed")
    return "plain and pinned" if device.type == "cuda" else "plain"


def small_steps(device):
    """200 quick training steps: memory must not grow, and the loss must fall."""
    x, y = numbers(16, 16, 100).to(device), numbers(16, 1, seed=1).to(device)
    losses, held = [], []
    for i, loss in enumerate(steps(200, small().to(device), x, y)):
        if i in (20, 199):
            losses.append(loss.item())
            held.append(torch.cuda.memory_allocated(device) if device.type == "cuda" else 0)
    if held[1] > held[0]:
        raise Wrong(f"memory held grew from {held[0]} to {held[1]} bytes in 179 equal steps")
    falls("180 steps", losses)
    return f"loss {losses[0]:.3f} -> {losses[1]:.3f}"


WORKS = (detect, allocate, matmul, convolution, batch_norm, optimiser, amp, memory, transfer)
CHECKS = dict(zip(probe.CHECKS, (*WORKS, small_steps), strict=True))


def main(arguments):
    name, *chosen = arguments
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # drivers and libraries print on stdout too: what they say goes to stderr
    device = torch.device(name)
    for check in chosen or CHECKS:
        print(json.dumps({"check": check}), file=out)
        start, said = time.perf_counter(), {}
        try:
            answer = CHECKS[check](device)
            devices.synchronize(device)  # so that a late error is this check's
            said = {"state": "ok", **(answer if isinstance(answer, dict) else {"text": answer})}
        except Skipped as e:
            said = {"state": "skipped", "text": str(e)}
        except Exception as e:  # any error is the answer to this check
            lines = str(e).strip().splitlines() or ["no reason given"]
            text = lines[0] if isinstance(e, Wrong) else f"{type(e).__name__}: {lines[0]}"
            said = {"state": "failed", "text": text}
            if is_out_of_memory(e):
                said["cause"] = probe.NO_MEMORY
        seconds = time.perf_counter() - start
        print(json.dumps({"check": check, "seconds": seconds, **said}), file=out)
        if said["state"] == "failed":
            return


if __name__ == "__main__":
    main(sys.argv[1:])
