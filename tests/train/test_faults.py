"""A run whose device fails at any statement that touches it ends with the weights of a run that was
left in peace.

The device is a stand-in: the CPU, whose contents are lost (NaN) with every error but one of memory.
"""

import functools

import pytest
import torch

from eeg.machine import amp, device, recovery
from eeg.runs.run import find_runs
from eeg.train import checkpoint, optim, validation
from eeg.train.optim import Stepper
from tests.train.interruptions import CRASH, OOM

# the error, whether the device still answers, the event
ERRORS = {
    "error": (CRASH, True, "device error"),
    "out of memory": (OOM, True, "out of memory"),
    "dead device": (CRASH, False, "moved to cpu"),
}

# Where it fails: what is called there, whether the error shows at its end, and its how manieth call
# fails.
PLACES = {
    "first pass": (Stepper, "_forward_backward", True, 5),
    "between the passes": (optim.SAM, "ascend", True, 3),
    "second pass": (Stepper, "_forward_backward", True, 6),
    "clipping": (torch.nn.utils, "clip_grad_norm_", True, 4),
    "descent": (optim.SAM, "descend", True, 3),
    "first step": (torch.optim.AdamW, "step", True, 1),
    "optimiser step": (torch.optim.AdamW, "step", True, 3),
    "averaging": (optim.Average, "update", True, 3),
    "validation": (validation, "predict", False, 1),
    "best weights": (Stepper, "_weights", True, 1),
    "checkpoint": (checkpoint, "snapshot", True, 2),
}
OF_SAM = ("between the passes", "second pass", "descent")
WITHOUT_SAM = [place for place in PLACES if place not in OF_SAM]

OPTIONS = (
    *"--challenge 1 --epochs 2 --model transformer --set head=number dropout=0.0 depth=1".split(),
    *"width=16 --loss mse --max-recordings 3 --clip 1 --checkpoint-minutes 1000".split(),
)


class Card:
    """Fails once: at a call of a place, while the model lies on it."""

    def __init__(self, monkeypatch, place, error, alive):
        self.error, self.calls, self.guard = error, 0, None
        owner, name, late, self.call = PLACES[place]
        work, make = getattr(owner, name), recovery.Recovery.__init__

        @functools.wraps(work)
        def failing(*arguments, **settings):
            away = self.guard is None or self.guard.away
            self.calls += not away
            due = not away and self.calls == self.call
            if due and not late:
                self.fail()
            answer = work(*arguments, **settings)
            if due:
                self.fail()
            return answer

        def remembered(guard, *arguments, **settings):
            make(guard, *arguments, **settings)
            self.guard, guard.alive = guard, lambda device: alive

        monkeypatch.setattr(recovery.Recovery, "__init__", remembered)
        monkeypatch.setattr(owner, name, failing)

    def fail(self):
        if self.error is CRASH:
            gradients = [p.grad for p in self.guard.model.parameters() if p.grad is not None]
            for tensor in [*self.guard._held(), *gradients]:
                if tensor.is_floating_point() and tensor.dim():
                    tensor.data.fill_(float("nan"))
        raise self.error


def train_and_look(train, *options):
    """-> (the run, all tensors of its last checkpoint, its history but for events)"""
    train(*OPTIONS, *options)
    run = find_runs(train.out)[-1]
    state, *_ = checkpoint.load(run.folder / "checkpoints")
    tensors = {
        f"{part} {name}": tensor
        for part in ("model", "average")
        for name, tensor in (state[part].get("model") or state[part]).items()
    }
    for number, slots in state["optimizer"]["state"].items():
        tensors |= {f"{number} {name}": tensor for name, tensor in slots.items()}
    return run, tensors, run.history["epochs"]


@pytest.fixture(scope="module")
def undisturbed():
    """Reference runs by their options, each trained once."""
    return {}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize(
    "optimizer, place",
    [("sam", place) for place in PLACES] + [("adamw", place) for place in WITHOUT_SAM],
)
def test_a_fault_changes_nothing(train, monkeypatch, undisturbed, optimizer, place, kind):
    """Bit for bit, but where memory runs out in a pass: half batches add up to the whole one but
    for rounding.

    Attention's bias of keys has no gradient but rounding, which AdamW makes as large as any other.
    """
    options = ("--optimizer", optimizer)
    if options not in undisturbed:
        undisturbed[options] = train_and_look(train, *options)[1:]
    tensors, epochs = undisturbed[options]
    with monkeypatch.context() as patch:
        error, alive, event = ERRORS[kind]
        card = Card(patch, place, error, alive)
        run, got, got_epochs = train_and_look(train, *options)
    assert card.calls >= card.call, "the fault never came"
    assert [each["kind"] for each in run.history["events"]] == [event]
    assert run.finished and card.guard.moved == (kind == "dead device")
    in_parts = kind == "out of memory" and place in ("first pass", "second pass")
    for name, tensor in tensors.items():
        if in_parts:
            limit = 3e-4 if name.endswith("attend.bias") else 1e-5
            torch.testing.assert_close(got[name], tensor, atol=limit, rtol=1e-4)
        else:
            assert torch.equal(got[name], tensor), name
    if in_parts or (kind, place) == ("out of memory", "validation"):  # in smaller batches
        for entry, wanted in zip(got_epochs, epochs, strict=True):
            assert entry["valid"]["nrmse"] == pytest.approx(wanted["valid"]["nrmse"], abs=1e-5)
    else:
        assert got_epochs == epochs


@pytest.mark.parametrize("error", [CRASH, OOM], ids=["error", "out of memory"])
def test_a_precision_that_cannot_be_measured_is_not_taken(train, monkeypatch, error):
    """The measurement touches the device before the first batch: it may fail too."""

    def fail(*_):
        raise error

    monkeypatch.setattr(amp, "choose", fail)
    monkeypatch.setattr(device, "supports_bf16", lambda: True)
    printed = train(*OPTIONS, "--amp", "auto")
    (run,) = find_runs(train.out)
    assert run.finished and run.config["precision"] == "fp32"
    assert f"no precision measured: {error}" in printed
