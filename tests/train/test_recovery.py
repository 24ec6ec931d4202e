"""Gradients on a device that fails: a stand-in, which is the CPU with errors thrown in at chosen calls."""

import copy
import gc
import threading
import weakref

import pytest
import torch
from torch import nn

from eeg.train import recovery
from eeg.train.recovery import CALM, Recovery, answers, is_device_error, is_out_of_memory, outcome

OOM = torch.cuda.OutOfMemoryError("HIP out of memory. Tried to allocate 2.00 GiB")
CRASH = RuntimeError("HIP error: an illegal memory access was encountered\nHIP kernel errors might be asynchronously reported")


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
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.GELU(), nn.Dropout(dropout), nn.Linear(8, 1))

    def forward(self, x):
        return self.layers(x)


class Card:
    """The step of a trainer whose `model` lies on a card. plan: {call: error} or a function (call, windows) -> error or None.

    A pass that fails leaves what failing passes leave: gradients, updated statistics, random numbers drawn. After an error that
    is not one of memory the card's contents are lost: NaN.
    """

    def __init__(self, model, plan, contents):
        self.model, self.plan, self.contents = model, plan if callable(plan) else lambda call, n: plan.get(call), contents
        self.calls, self.sizes, self.weights = 0, [], []

    def __call__(self, model, batch, weight):
        output = model(batch["x"])
        loss = nn.functional.mse_loss(output, batch["y"])
        error = None
        if model is self.model:
            error = self.plan(self.calls, len(output))
            self.calls += 1
        (weight * loss).backward()
        if error is not None:
            torch.rand(3)
            if not is_out_of_memory(error):
                for tensor in [*self.model.parameters(), *self.model.buffers(), *self.contents()]:
                    if tensor.is_floating_point():
                        tensor.data.fill_(float("nan"))
            raise error
        self.sizes.append(len(output))
        self.weights.append(weight)
        return loss.item(), output.detach()


def guarded(model, plan, beside=tuple, **settings):
    """-> (Recovery, Card, the list that events go to)."""
    events, card = [], Card(model, plan, beside)
    return Recovery(model, "cpu", lambda kind, text: events.append((kind, text)), card, beside, **settings), card, events


def batch(n=11, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(n, 6, generator=generator), "y": torch.randn(n, 1, generator=generator)}


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
        (lambda call, n: OOM, ["out of memory"] * 4 + ["device error"]),  # a single window, too
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


def train(model, plan, steps=6, **settings):
    """Six AdamW steps, and averaged weights. -> (guard, card, events, average)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    average = [p.detach().clone() for p in model.parameters()]
    beside = lambda: [*average, *(value for slot in optimizer.state.values() for value in slot.values())]
    guard, card, events = guarded(model, plan, beside, **settings)
    for i in range(steps):
        guard.gradients(batch(seed=i))
        optimizer.step()
        torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 0.5)
    return guard, card, events, average


@pytest.mark.parametrize(
    "plan, kinds, device_gone",
    [
        ({3: CRASH}, ["device error"], False),
        ({0: CRASH}, ["device error"], False),  # before the optimizer keeps anything
        ({1: CRASH, 3: CRASH, 5: CRASH}, ["device error"] * 3, False),  # not in a row
        ({1: CRASH, 2: CRASH, 3: CRASH}, ["device error", "device error", "moved to cpu"], False),
        (lambda call, n: CRASH if call in (2, 3, 4) else None, ["device error", "device error", "moved to cpu"], False),
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
    assert card.sizes == [3, 3, 3, 2] and card.weights == pytest.approx([3 / 11, 3 / 11, 3 / 11, 2 / 11])
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


def test_the_scale_of_float16_goes_into_gradients_alone_and_not_onto_the_cpu():
    model, values = Network(), batch()
    twin = copy.deepcopy(model)
    loss, _ = plain(twin, values)
    lives = [True, False]
    guard, _, _ = guarded(model, {0: CRASH, 2: CRASH}, alive=lambda device: lives.pop(0))
    assert guard.gradients(values, 1024.0)[0] == pytest.approx(loss)  # on a CPU copy, for the card
    near(gradients(model) / 1024, gradients(twin))
    guard.gradients(values, 1024.0)
    near(gradients(model) / 1024, gradients(twin))  # on the card
    guard.gradients(values, 1024.0)
    assert guard.moved
    near(gradients(model), gradients(twin))
    guard.gradients(values, 1024.0)
    near(gradients(model), gradients(twin))


def test_an_error_that_shows_before_the_batch_costs_the_last_update_and_says_so():
    model, broken = Network(), []

    def beside():
        if broken:
            raise broken.pop()
        return ()

    guard, card, events = guarded(model, {}, beside)
    before = state(model)
    guard.gradients(batch(seed=0))
    with torch.no_grad():
        model.layers[0].weight += 1  # the update
    broken.append(CRASH)
    guard.gradients(batch(seed=1))
    near(state(model), before)
    assert events[0][0] == "device error" and "before the last update" in events[0][1]


def test_what_the_copy_needs_to_know_of_the_model_it_knows():
    model = Network(norm=True)
    model.layers[1].eval()
    model.layers[0].weight.requires_grad_(False)
    twin = copy.deepcopy(model)
    plain(twin, batch())
    guard, _, _ = guarded(model, {0: CRASH})
    guard.gradients(batch())
    assert model.layers[0].weight.grad is None
    near(model.layers[0].bias.grad, twin.layers[0].bias.grad)
    near(state(model), state(twin))


def test_errors_of_the_program_are_not_the_devices():
    guard, _, events = guarded(Network(), {0: RuntimeError("mat1 and mat2 shapes cannot be multiplied (11x6 and 5x8)")})
    with pytest.raises(RuntimeError, match="shapes cannot"):
        guard.gradients(batch())
    guard, _, _ = guarded(Network(), {0: KeyError("y")})
    with pytest.raises(KeyError):
        guard.gradients(batch())
    assert not events


def test_on_the_cpu_for_good_a_further_error_ends_the_run():
    guard, _, _ = guarded(Network(), {0: CRASH, 2: CRASH}, alive=lambda device: False)
    guard.gradients(batch())
    with pytest.raises(RuntimeError, match="on the CPU, too: HIP error"):
        guard.gradients(batch())


@pytest.mark.parametrize(
    "error, memory, device",
    [
        (OOM, True, False),
        (MemoryError(), True, False),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True, False),
        (RuntimeError("CUDA error: out of memory"), True, False),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"), True, False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False, True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False, True),
        (RuntimeError("miopenStatusInternalError, MIOpen Error: hipModuleLaunchKernel"), False, True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False, False),
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
    assert not answers(cpu, limit=0.1)
    hold.set()


def test_a_fault_holds_nothing_of_the_pass_that_failed():
    held = []

    def work():
        big = torch.zeros(3)
        held.append(weakref.ref(big))
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    _, fault = outcome(work)
    assert fault.memory and held[0]() is None
