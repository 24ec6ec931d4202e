"""run/train.py in several processes."""

import subprocess
import sys

import pytest
import torch

from tests.conftest import command
from tests.train.trained import ENVIRONMENT, the_run, weights

# run/train.py, but that the second process dies in its second batch, and once torchrun has begun
# anew runs out of memory, as late as it can; the first is asked to stop in epoch 2
IN_TROUBLE = """
import os, runpy, signal, sys
import torch
from eeg.train.optim import Stepper
from eeg.train.trainer import Trainer
step, train_batch = Stepper._forward_backward, Trainer._train_batch
rank, calls = int(os.environ["RANK"]), [0]

def fails_once(self, *arguments):
    calls[0] += 1
    answer = step(self, *arguments)
    if rank == 1 and calls[0] == 4:  # epoch 1 has four batches; from then on batches come in parts
        raise torch.cuda.OutOfMemoryError("HIP out of memory")
    return answer

def asked(self, batch):
    train_batch(self, batch)
    if rank == 1 and self.batch == 2 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os._exit(9)
    if rank == 0 and self.epoch == 2:
        os.kill(os.getpid(), signal.SIGTERM)

Stepper._forward_backward, Trainer._train_batch = fails_once, asked
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_two_processes_take_the_steps_of_one(caches, tmp_path):
    """For a model without batch norm, at the same global batch, whatever happens to one of them;
    and they stop together."""
    options = (
        *"--challenge 1 --model transformer --set dropout=0.0 head=time --lr 1e-4".split(),
        *"--schedule constant --warmup 0 --max-recordings 3".split(),
    )
    line = command(caches, tmp_path / "one", "--epochs", 1, *options)
    one = subprocess.Popen(line, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    (tmp_path / "in_trouble.py").write_text(IN_TROUBLE)
    line = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", "2", "--max-restarts", "1", str(tmp_path / "in_trouble.py")),
        *command(caches, tmp_path / "two", "--epochs", 2, *options)[1:],
    ]
    two = subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, timeout=100)
    assert two.returncode == 0, two.stdout + two.stderr
    printed = two.stdout
    assert one.wait(120) == 0
    a, b = (the_run(tmp_path / name) for name in ("one", "two"))
    assert b.status == "stopped" and "saved at epoch 2, batch 2" in printed
    assert [(event["kind"], event["batch"]) for event in b.history["events"]] == [
        ("out of memory", 3)
    ]  # the other process's
    best = torch.load(b.folder / "checkpoints" / "best.pt", weights_only=True)["model"]
    for name, x in weights(a.folder).state_dict().items():
        torch.testing.assert_close(x, best[name], rtol=1e-3, atol=1e-5, msg=name)
    a, b = a.history["epochs"][0], b.history["epochs"][0]
    assert a["valid"]["nrmse"] == pytest.approx(b["valid"]["nrmse"], rel=1e-4)
    assert a["train"] == pytest.approx(b["train"], rel=1e-4)
