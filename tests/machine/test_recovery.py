"""Gradients on a device that fails: a stand-in, which is the CPU with errors thrown in at chosen
calls."""

import copy
import gc
import threading
import weakref

import pytest
import torch
from torch import nn

from eeg.machine import recovery
from eeg.machine.faults import is_device_error, is_out_of_memory
from eeg.machine.recovery import CALM, Recovery, answers, outcome

OOM = torch.cuda.OutOfMemoryError("HIP out of memory. Tried to allocate 2.00 GiB")
CRASH = RuntimeError("HIP error: an illegal memory access was encountered\nperhaps reported late")


FULL_CPU = (
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 8 bytes"
)


@pytest.fixture(autouse=True)
def quick():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny networks
    gc.freeze()  # each fault collects garbage, and must not look through all of pytest for it
    yield
    gc.unfreeze()
    torch.set_num_threads(threads)


class Network(nn.Module):
    """Small, with or without batch norm and dropout."""

    def __init__(self, norm=False, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(6, 8),
            nn.BatchNorm1d(8) if norm else nn.Identity(),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(8, 1),
        )

    def forward(self, x):
        return self.layers(x)


class Card:
    """The step of a trainer, on a stand-in for a card: the CPU. plan: {call: error} or a function
    (call, windows) -> error or None.

    A pass that fails leaves what failing passes leave: gradients, updated statistics, random
    numbers drawn. After an error that is not one of memory the card's contents are lost: NaN.
    """

    def __init__(self, plan):
        self.plan = plan if callable(plan) else lambda call, n: plan.get(call)
        self.calls, self.sizes, self.weights = 0, [], []

    def __call__(self, model, batch, weight):
        output = model(batch["x"])
        loss = nn.functional.mse_loss(output, batch["y"])
        error = None
        if not self.guard.away:
            error = self.plan(self.calls, len(output))
            self.calls += 1
        (weight * loss).backward()
        if error is not None:
            torch.rand(3)
            self.fail(error)
        self.sizes.append(len(output))
        self.weights.append(weight)
        return loss.item(), output.detach()

    def fail(self, error):
        if not is_out_of_memory(error):
            gradients = [p.grad for p in self.guard.model.parameters() if p.grad is not None]
            for tensor in [*self.guard._held(), *gradients]:
                if tensor.is_floating_point():
                    tensor.data.fill_(float("nan"))
        raise error


def guarded(model, plan, beside=tuple, moments=tuple, alive=answers):
    """-> (Recovery, Card, the list that events go to)."""
    events, card = [], Card(plan)
    on_event = lambda kind, text: events.append((kind, text))
    card.guard = Recovery(model, "cpu", card, on_event, beside, moments)
    card.guard.alive = alive
    return card.guard, card, events


def batch(n=11, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(n, width, generator=generator) for width in (6, 1))
    return {"x": x, "y": y}


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def state(model):
    return torch.cat([t.detach().double().flatten() for t in model.state_dict().values()])


def plain(model, values):
    """Forward and backward by torch alone. -> (loss, outputs)."""
    model.zero_grad()
    output = model(values["x"])
    loss = nn.functional.mse_loss(output, values["y"])
    loss.backward()
    return loss.item(), output.detach()


def near(got, wanted):
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "plan, kinds",
    [
        ({}, []),
        ({0: OOM}, ["out of memory"]),
        ({0: OOM, 1: OOM}, ["out of memory"] * 2),
        ({0: OOM, 2: OOM}, ["out of memory"] * 2),  # in the second half
        (lambda call, n: OOM if n > 2 else None, ["out of memory"] * 3),
        (lambda call, n: OOM, ["out of memory"] * 5),  # a single window, too
        ({0: CRASH}, ["device error"]),
        ({0: OOM, 1: CRASH}, ["out of memory", "device error"]),
    ],
)
def test_the_gradient_is_that_of_an_undisturbed_pass(plan, kinds):
    model, values = Network(), batch()
    twin = copy.deepcopy(model)
    loss, output = plain(twin, values)
    guard, _, events = guarded(model, plan)
    model.layers[0].weight.grad = torch.ones(8, 6)  # the batch before left it
    got_loss, got_output = guard.gradients(values)
    assert [kind for kind, _ in events] == kinds
    assert got_loss == pytest.approx(loss, abs=1e-6)
    near(got_output, output)
    near(gradients(model), gradients(twin))
    near(state(model), state(twin))


def train(model, plan, steps=6, updates=None, **settings):
    """Six AdamW steps, and averaged weights. updates: {update: (error, whether before or after its
    work)}. -> (guard, card, events, average)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    average = [p.detach().clone() for p in model.parameters()]
    moments = lambda: [value for slot in optimizer.state.values() for value in slot.values()]
    guard, card, events = guarded(model, plan, lambda: average, moments, **settings)
    calls, updates = [0], updates or {}

    def move():
        error, late = (None, None) if guard.away else updates.get(calls[0], (None, None))
        calls[0] += not guard.away
        if error and not late:
            card.fail(error)
        optimizer.step()
        if error and late == "halfway":
            card.fail(error)
        torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 0.5)
        if error:
            card.fail(error)

    for i in range(steps):
        guard.gradients(batch(seed=i))
        guard.update("the step", move)
    return guard, card, events, average


@pytest.mark.parametrize(
    "plan, kinds, device_gone",
    [
        ({3: CRASH}, ["device error"], False),
        ({0: CRASH}, ["device error"], False),  # before the optimizer keeps anything
        ({1: CRASH, 3: CRASH, 5: CRASH}, ["device error"] * 3, False),  # not in a row
        ({1: CRASH, 2: CRASH, 3: CRASH}, ["device error", "device error", "moved to cpu"], False),
        ({2: CRASH}, ["moved to cpu"], True),
        ({0: CRASH}, ["moved to cpu"], True),
    ],
)
def test_training_ends_with_the_weights_of_an_undisturbed_run(plan, kinds, device_gone):
    undisturbed = Network(norm=True, dropout=0.3)
    *_, average = train(undisturbed, {})
    model = Network(norm=True, dropout=0.3)
    guard, _, events, got_average = train(model, plan, alive=lambda device: not device_gone)
    assert [kind for kind, _ in events] == kinds
    assert guard.moved == ("moved to cpu" in kinds)
    assert "illegal memory access" in events[0][1] and "\n" not in events[0][1]
    near(state(model), state(undisturbed))
    near(torch.cat([a.flatten() for a in got_average]), torch.cat([a.flatten() for a in average]))


def test_parts_weigh_by_their_windows_and_outputs_keep_their_order():
    model = Network()
    guard, card, _ = guarded(model, {0: OOM, 1: OOM})
    _, output = guard.gradients(batch(11))
    assert card.sizes == [3, 3, 3, 2]
    assert card.weights == pytest.approx([3 / 11, 3 / 11, 3 / 11, 2 / 11])
    near(output, model(batch(11)["x"]).detach())


def test_a_pass_cut_short_leaves_statistics_and_random_numbers_as_they_were():
    model, values = Network(norm=True, dropout=0.5), batch(10)
    twin = copy.deepcopy(model)
    guard, _, _ = guarded(model, {0: OOM})
    torch.manual_seed(3)
    guard.gradients(values)
    torch.manual_seed(3)
    twin.zero_grad()
    for half in (slice(0, 5), slice(5, 10)):
        (nn.functional.mse_loss(twin(values["x"][half]), values["y"][half]) / 2).backward()
    near(state(model), state(twin))
    near(gradients(model), gradients(twin))


def test_parts_stay_small_for_a_while_and_grow_again():
    guard, card, events = guarded(Network(), {0: OOM})
    for _ in range(CALM + 2):
        guard.gradients(batch(4))
    assert card.sizes == [2, 2] * CALM + [4, 4]
    assert len(events) == 1


def test_a_batch_of_fewer_windows_than_parts():
    guard, card, _ = guarded(Network(), lambda call, n: OOM if n > 1 else None)
    guard.gradients(batch(8))
    guard.gradients(batch(3))
    assert card.sizes == [1] * 11


@pytest.mark.parametrize("late", [False, "halfway", True])
@pytest.mark.parametrize(
    "plan, kinds, device_gone",
    [
        ({0: OOM}, ["out of memory"], False),  # the moments do not exist before it
        ({3: OOM}, ["out of memory"], False),
        ({3: OOM, 4: OOM}, ["out of memory"] * 2, False),
        ({0: CRASH}, ["device error"], False),
        ({3: CRASH}, ["device error"], False),
        ({2: CRASH, 4: CRASH, 5: CRASH}, ["device error"] * 3, False),  # not in a row
        ({2: CRASH, 3: CRASH, 4: CRASH}, ["device error", "device error", "moved to cpu"], False),
        ({0: CRASH}, ["moved to cpu"], True),
        ({5: CRASH}, ["moved to cpu"], True),
    ],
)
def test_a_step_that_fails_is_taken_once_and_whole(plan, kinds, device_gone, late):
    """Bit for bit: the arithmetic of the repeated step is that of the step."""
    undisturbed = Network(norm=True, dropout=0.3)
    *_, average = train(undisturbed, {})
    model = Network(norm=True, dropout=0.3)
    updates = {call: (error, late) for call, error in plan.items()}
    alive = lambda device: not device_gone
    guard, _, events, got_average = train(model, {}, updates=updates, alive=alive)
    assert [kind for kind, _ in events] == kinds
    assert guard.moved == ("moved to cpu" in kinds)
    assert torch.equal(state(model), state(undisturbed))
    assert all(torch.equal(got, wanted) for got, wanted in zip(got_average, average))


def test_the_scale_of_float16_is_taken_out_again_and_not_used_on_the_cpu():
    model, values = Network(), batch()
    twin = copy.deepcopy(model)
    loss, _ = plain(twin, values)
    lives = [True, False]
    guard, card, _ = guarded(model, {0: CRASH, 2: CRASH}, alive=lambda device: lives.pop(0))
    # on the CPU for the card; on the card; the card is lost; and stays so
    for weight in (1.0, 1024.0, 1.0, 1.0):
        assert guard.gradients(values, 1024.0)[0] == pytest.approx(loss)
        near(gradients(model), gradients(twin))
        assert card.weights[-1] == weight
    assert guard.moved


def test_reading_from_a_card_that_is_gone_gives_what_was_there():
    model = Network(norm=True)
    guard, card, events = guarded(model, {}, alive=lambda device: False)
    guard.gradients(batch())
    before = state(model)
    answers = []

    def read():
        if not guard.away:
            card.fail(CRASH)
        answers.append(state(model))
        return "done"

    assert guard.read("a checkpoint", read) == "done" and guard.moved
    assert torch.equal(answers[0], before) and torch.equal(state(model), before)
    why = "it does not answer any more: HIP error: an illegal memory access was encountered"
    assert events == [("moved to cpu", f"cpu is given up, {why}")]


def test_reading_with_less_memory():
    guard, _, events = guarded(Network(), {})
    assert guard.read("validation", lambda: Card.fail(None, OOM), lambda: 7) == 7
    assert [kind for kind, _ in events] == ["out of memory"] and not guard.away


def test_a_card_that_dies_on_the_way_back_is_given_up_with_nothing_lost(monkeypatch):
    undisturbed, model = Network(norm=True), Network(norm=True)
    train(undisturbed, {})
    home, calls = Recovery._to_home, [0]

    def to_home(self):
        calls[0] += 1
        if calls[0] == 2:  # the first is the constructor's
            for p in list(self.model.parameters())[:2]:
                p.data.fill_(float("nan"))
            raise CRASH
        home(self)

    monkeypatch.setattr(Recovery, "_to_home", to_home)
    guard, _, events, _ = train(model, {3: CRASH})
    assert [kind for kind, _ in events] == ["device error", "moved to cpu"] and guard.moved
    near(state(model), state(undisturbed))


def test_a_card_that_takes_nothing_is_given_up_at_once(monkeypatch):
    def refuse(self):
        raise CRASH

    monkeypatch.setattr(Recovery, "_to_home", refuse)
    guard, _, events = guarded(Network(), {})
    assert guard.moved and [kind for kind, _ in events] == ["moved to cpu"]


def test_a_tensor_nobody_named_is_not_filled_with_zeros():
    extra = []
    guard, _, _ = guarded(Network(), {0: CRASH}, lambda: extra)
    extra.append(torch.ones(3))
    with pytest.raises(KeyError, match="missing in `beside`"):
        guard.gradients(batch())


def test_what_the_copy_needs_to_know_of_the_model_it_knows():
    model = Network(norm=True)
    model.layers[1].eval()
    model.layers[0].weight.requires_grad_(False)
    twin = copy.deepcopy(model)
    plain(twin, batch())
    guard, _, _ = guarded(model, {0: CRASH})
    guard.gradients(batch())
    assert model.layers[0].weight.grad is None and not model.layers[1].training
    near(model.layers[0].bias.grad, twin.layers[0].bias.grad)
    near(state(model), state(twin))


def test_errors_of_the_program_are_not_the_devices():
    mistake = RuntimeError("mat1 and mat2 shapes cannot be multiplied (11x6 and 5x8)")
    guard, _, events = guarded(Network(), {0: mistake})
    with pytest.raises(RuntimeError, match="shapes cannot"):
        guard.gradients(batch())
    guard, _, _ = guarded(Network(), {0: KeyError("y")})
    with pytest.raises(KeyError):
        guard.gradients(batch())
    assert not events


def test_on_the_cpu_for_good_a_further_error_ends_the_run():
    guard, _, _ = guarded(Network(), {0: CRASH}, alive=lambda device: False)
    guard.gradients(batch())

    def fail(*_):
        raise CRASH

    with pytest.raises(RuntimeError, match="on the CPU, too: HIP error"):
        guard.update("the step", fail)
    guard.step = fail
    with pytest.raises(RuntimeError, match="on the CPU, too: HIP error"):
        guard.gradients(batch())


@pytest.mark.parametrize(
    "error, memory, device",
    [
        (OOM, True, False),
        (MemoryError(), True, False),
        (RuntimeError(FULL_CPU), True, False),
        (RuntimeError("CUDA error: out of memory"), True, False),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"), True, False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False, True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False, True),
        (
            RuntimeError("miopenStatusInternalError, MIOpen Error: hipModuleLaunchKernel"),
            False,
            True,
        ),
        (RuntimeError("The size of tensor a (3) must match the size of b (4)"), False, False),
        (ValueError("CUDA error: not from torch"), False, False),
    ],
)
def test_errors_told_apart(error, memory, device):
    assert (is_out_of_memory(error), is_device_error(error)) == (memory, device)


def test_whether_a_device_answers(monkeypatch):
    cpu, hold = torch.device("cpu"), threading.Event()
    assert answers(cpu)

    def crash(device):
        raise CRASH

    monkeypatch.setattr(recovery, "synchronize", crash)
    assert not answers(cpu)
    monkeypatch.setattr(recovery, "synchronize", lambda device: hold.wait())  # hangs
    assert not answers(cpu, limit_s=0.1)
    hold.set()


def test_a_fault_holds_nothing_of_the_pass_that_failed():
    held = []

    def work():
        big = torch.zeros(3)
        held.append(weakref.ref(big))
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    _, fault = outcome(work)
    assert fault.memory and held[0]() is None
