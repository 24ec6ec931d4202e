"""How much memory a step takes, as reckoned, against what the system says a process took; and parts
that are the whole."""

import subprocess
import sys

import pytest
import torch

import eeg.models
from eeg import UserError
from eeg.machine import memory
from eeg.machine.capacity import kept_bytes, largest_part
from tests.conftest import ROOT

# A step of a model on so many windows, in a process whose malloc gives nothing back: what its own
# memory grew by, in bytes
TAKEN = """
import sys, torch
torch.set_num_threads(1)
import eeg.models
from eeg import cli
from eeg.machine.capacity import kept_bytes
from eeg.machine.device import keep_freed_memory
keep_freed_memory()
model, n = eeg.models.build(sys.argv[1]).train(), int(sys.argv[2])
model.raw(torch.randn(4, 129, 200)).square().mean().backward()
x = torch.randn(n, 129, 200)
before = cli.anonymous_memory()
model.raw(x).square().mean().backward()
fixed, each = kept_bytes(model)
print(cli.anonymous_memory() - before, fixed + n * each)
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux says what memory is a process's own"
)
@pytest.mark.parametrize("name", ["tcn", "eegnex", "unet", "cnn", "transformer", "conformer"])
def test_a_step_takes_less_than_twice_what_it_keeps(name):
    done = subprocess.run(
        [sys.executable, "-c", TAKEN, name, "128"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    taken, kept = map(float, done.stdout.split())
    assert kept < taken < 2 * kept


def model():
    torch.manual_seed(0)
    return eeg.models.build("tcn", width=16, depth=1)


def test_counting_changes_nothing():
    counted, untouched = model(), model()
    state = torch.get_rng_state()
    first = kept_bytes(counted)
    assert torch.equal(torch.get_rng_state(), state) and kept_bytes(counted) == first
    for a, b in zip(counted.state_dict().values(), untouched.state_dict().values()):
        assert torch.equal(a, b)


def test_parts_by_the_room_there_is():
    network, held = model(), 4 * 129 * 200 * 4
    step = lambda windows: largest_part(network, windows, held, 1e12)[1]
    assert largest_part(network, 300, held, step(300)) == (300, step(300))
    whole, fewer = step(300), step(300) - 100 * (step(301) - step(300) - held)
    part, _ = largest_part(network, 300, held, fewer)
    assert 198 <= part <= 200  # room for all 300 to wait and 200 to be computed
    need = r"batches of 300 windows takes at least .* MB of memory, .* MB are free to take"
    with pytest.raises(UserError, match=rf"{need}; use --batch-size (\d+)") as e:
        largest_part(network, 300, held, whole / 4)
    size = int(str(e.value).split()[-1])
    assert largest_part(network, size, held, whole / 4)[0] >= 8
    with pytest.raises(UserError, match="use --batch-size"):
        largest_part(network, size + 1, held, whole / 4)
    with pytest.raises(UserError, match="free some, raise --max-memory, or train a smaller model"):
        largest_part(network, 4, held, 1e6)


def test_room_is_what_the_tightest_bound_leaves(monkeypatch):
    levels = [memory.Level("the machine", 60, 100), memory.Level("its control group", 10, 50)]
    monkeypatch.setattr(memory, "levels", lambda root: levels)
    monkeypatch.setattr(memory, "own_limits", lambda root: [memory.Level("ulimit -d", 1, 100)])
    assert memory.room(80) == 20 and memory.room(50) == -10
    levels[1].used = 35
    assert memory.room(80) == 5
    monkeypatch.setattr(memory, "own_limits", lambda root: [memory.Level("ulimit -d", 78, 100)])
    assert memory.room(80) == 2


def test_a_limit_of_the_process_is_one_of_them():
    program = """
import resource
from eeg.machine import memory
assert memory.own_limits() == []
resource.setrlimit(resource.RLIMIT_DATA, (10**9, 10**9))
resource.setrlimit(resource.RLIMIT_AS, (10**10, 10**10))
virtual, data = memory.own_limits()
held = bytearray(2 * 10**8)
print(virtual.limit, data.limit, memory.own_limits()[1].used - data.used)
"""
    said = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert said[:2] == ["10000000000", "1000000000"] and 1.9e8 < int(said[2]) < 2.1e8
