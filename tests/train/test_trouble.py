"""run/train.py: failing devices, full disks and gradients that are not finite."""

import shutil
import signal

import pytest
import torch

from eeg.runs.journal import Journal
from eeg.train import checkpoint, optim
from eeg.train.optim import Stepper
from tests.train.interruptions import CRASH, OOM, faulty, sends
from tests.train.trained import left_behind, the_run, weights


@pytest.mark.parametrize(
    "plan, kinds",
    [
        ({3: CRASH}, ["device error"]),
        # the second while it is computed on the CPU
        ({3: CRASH, 4: CRASH}, ["device error", "moved to cpu"]),
        ({n: CRASH for n in (3, 5, 7)}, ["device error", "device error", "moved to cpu"]),
    ],
)
def test_a_device_that_fails_changes_nothing(train, monkeypatch, plan, kinds):
    train("--challenge", 1, "--epochs", 1)
    reference, _ = left_behind(the_run(train.out).folder)
    shutil.rmtree(train.out)
    monkeypatch.setattr(Stepper, "_forward_backward", faulty(plan))
    train("--challenge", 1, "--epochs", 1)
    run = the_run(train.out)
    assert left_behind(run.folder)[0] == reference
    assert [event["kind"] for event in run.history["events"]] == kinds


def test_a_batch_that_does_not_fit_is_computed_in_parts(train, monkeypatch):
    monkeypatch.setattr(Stepper, "_forward_backward", faulty({2: OOM, 3: OOM}))
    train("--challenge", 1, "--epochs", 1)
    run = the_run(train.out)
    assert run.finished
    assert [event["kind"] for event in run.history["events"]] == ["out of memory"] * 2


def test_gradients_that_are_not_finite_are_left_out_and_counted(train, monkeypatch):
    work, calls = Stepper._forward_backward, [0]

    def step(self, model, batch, weight):
        calls[0] += 1
        if calls[0] in (2, 3):
            batch = batch | {"x": torch.full_like(batch["x"], torch.inf)}
        return work(self, model, batch, weight)

    monkeypatch.setattr(Stepper, "_forward_backward", step)
    train("--challenge", 1, "--epochs", 1)
    run = the_run(train.out)
    assert run.history["epochs"][0]["skipped_steps"] == 2
    assert all(value.isfinite().all() for value in weights(run.folder).state_dict().values())


def test_sam_climbs_as_far_as_rho_whatever_is_clipped(train, monkeypatch):
    climb, far = optim.SAM.ascend, []

    def ascend(self, norm):
        before = [p.detach().clone() for p in self.parameters]
        climb(self, norm)
        moved = [(p.detach() - old).flatten() for p, old in zip(self.parameters, before)]
        far.append(torch.cat(moved).norm().item())

    monkeypatch.setattr(optim.SAM, "ascend", ascend)
    train("--challenge", 1, "--epochs", 1, "--optimizer", "sam", "--rho", 0.05, "--clip", 0.001)
    assert far and far == pytest.approx([0.05] * len(far), rel=1e-3)


def test_sam_comes_back_from_where_there_is_no_gradient(train, monkeypatch):
    """The second of the two gradients of each step is not finite: no step is made, and the weights
    are those of the start."""
    work, calls, weights = Stepper._forward_backward, [0], []

    def step(self, model, batch, weight):
        calls[0] += 1
        if calls[0] % 2:
            weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]).clone())
        else:
            batch = batch | {"x": torch.full_like(batch["x"], torch.inf)}
        return work(self, model, batch, weight)

    monkeypatch.setattr(Stepper, "_forward_backward", step)
    train("--challenge", 1, "--epochs", 1, "--optimizer", "sam")
    assert len(weights) > 2 and all(torch.equal(each, weights[0]) for each in weights)


def test_a_full_disk_does_not_end_a_run(train, monkeypatch, capsys):
    work, calls = checkpoint.write_through, [0]

    def full(path, content):
        calls[0] += 1
        if 3 <= calls[0] <= 12:
            raise OSError(28, "No space left on device", str(path))
        return work(path, content)

    monkeypatch.setattr(checkpoint, "write_through", full)
    printed = train("--challenge", 1, "--epochs", 3, "--checkpoint-minutes", 0)
    run = the_run(train.out)
    assert run.finished and "No space left on device" in printed
    assert "save failed" in [event["kind"] for event in run.timing["events"]]


def test_a_stop_that_cannot_save_does_not_say_it_did(train, monkeypatch):
    sends(signal.SIGTERM, "_train_batch", 3, monkeypatch)

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "write_through", full)
    printed = train("--challenge", 1, "--epochs", 1)
    assert "saved at" not in printed
    assert "stopped, the last checkpoint is kept; resume with" in printed


def test_a_log_that_is_full_does_not_end_a_run(tmp_path, capsys):
    (tmp_path / "log.txt").symlink_to("/dev/full")
    journal = Journal(tmp_path)
    journal.say("a word")
    journal.close()
    assert "a word" in capsys.readouterr().out
