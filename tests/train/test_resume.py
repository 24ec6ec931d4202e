"""run/train.py --resume: which run, with which settings, and when it is refused."""

import json
import os
import shutil
import signal
import time

import h5py
import numpy as np
import pytest

from eeg import UserError
from eeg.data.build import Settings, build
from eeg.data.cache import Cache, cache_path
from eeg.data.release import find_release
from eeg.machine import amp, device
from eeg.machine.load import Load
from eeg.runs.run import Run, find_runs
from eeg.synth.release import simulate_release
from eeg.train import checkpoint
from eeg.train import trainer as module
from tests.train.interruptions import Killed, sends
from tests.train.trained import says, the_run


def test_which_run_is_resumed(train, monkeypatch):
    train("--challenge", 1, "--epochs", 1, "--name", "of two")
    with monkeypatch.context() as patch:
        sends(signal.SIGTERM, "_train_batch", 2, patch)
        printed = train("--challenge", 1, "--epochs", 1, "--name", "of two")
    first, second = find_runs(train.out)
    assert f"--resume '{second.folder}'" in printed  # for a shell
    nursery = train.out / "of two" / ".1.partial"
    nursery.mkdir()
    shutil.copy(second.folder / "config.json", nursery)  # killed as it was made
    now = lambda: {"pid": os.getpid(), "updated": time.time()}
    say = lambda status: says(second.folder, status=status, **now())
    say("running")
    with pytest.raises(UserError, match="still running"):
        train("--resume", "--challenge", 1, "--name", "of two")
    say("stopped")
    with pytest.raises(SystemExit):
        train("--challenge", 1, "--model", "resnet")  # nothing to resume
    train("--resume")
    assert Run(second.folder).finished and len(find_runs(train.out)) == 2
    say("stopped")
    assert "resumed at epoch 2" in train("--resume", train.out / "of two")


def test_a_checkpoint_cut_in_half(train):
    train("--challenge", 1, "--epochs", 1)
    folder = the_run(train.out).folder
    last = folder / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    printed = train("--resume", folder, "--epochs", 2)
    assert "warning: last.pt is not what was saved" in printed
    assert the_run(train.out).state["epoch"] == 2
    for path in (folder / "checkpoints").glob("*.pt"):
        path.write_bytes(b"no")
    with pytest.raises(UserError, match="no checkpoint in .* can be used .*train another with"):
        train("--resume", folder, "--epochs", 3)


def test_more_epochs_for_a_finished_run(train):
    train("--challenge", 1, "--epochs", 1)
    folder = the_run(train.out).folder
    with pytest.raises(UserError, match="has finished its 1 epoch; for more say --epochs N"):
        train("--resume", folder)
    train("--resume", folder, "--epochs", 2)
    run = the_run(train.out)
    assert [entry["epoch"] for entry in run.history["epochs"]] == [1, 2]
    assert run.config["train"]["epochs"] == 2
    with pytest.raises(UserError, match="no unfinished run in .*train one with"):
        train("--resume")


def test_a_finished_run_that_cannot_go_on_is_still_finished(train, caches, tmp_path):
    train("--challenge", 1, "--epochs", 1)
    run = the_run(train.out)
    before = run.state
    with pytest.raises(UserError, match="no cache of R1"):
        train("--resume", run.folder, "--epochs", 2, "--cache", tmp_path)
    assert the_run(train.out).finished and the_run(train.out).state == before


def test_resumed_from_another_folder_and_by_options_that_are_newer(
    train, caches, tmp_path, monkeypatch
):
    monkeypatch.chdir(caches.parent)
    train("--challenge", 1, "--epochs", 1, "--cache", caches.name)
    folder = the_run(train.out).folder
    config = json.loads((folder / "config.json").read_text())
    del config["train"]["balance"], config["train"]["ema"]  # as a run of an older version
    config["train"]["gone"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    train("--resume", folder, "--epochs", 2, "--cache", "cache")
    assert the_run(train.out).state["epoch"] == 2


@pytest.mark.parametrize("first, then", [("fp16", "fp32"), ("fp32", "fp16")])
def test_resumed_in_another_precision(train, monkeypatch, first, then):
    """A loss scale of float16 is no concern of float32, nor the other way about. (The CPU can do
    the loss scale of float16, not float16.)"""
    finish = module.Trainer._finish

    def killed(self):
        raise Killed

    types = dict.fromkeys(("fp32", "fp16"))
    monkeypatch.setattr(amp, "TYPES", types)
    make = module.Trainer.__init__

    def made(self, options, model, split, journal, place, ranks):
        make(
            self, options, model, split, journal, place._replace(precision=precision_now[0]), ranks
        )

    monkeypatch.setattr(module.Trainer, "__init__", made)
    monkeypatch.setattr(module.Trainer, "_finish", killed)
    precision_now = [first]
    with pytest.raises(Killed):
        train("--challenge", 1, "--epochs", 1)
    run = the_run(train.out)
    state, _, _ = checkpoint.load(run.folder / "checkpoints")
    assert (state["scale"] is None) == (first == "fp32")
    says(run.folder, status="stopped")
    precision_now = [then]
    trainers = []
    noted = lambda self: (trainers.append(self), finish(self))[1]
    monkeypatch.setattr(module.Trainer, "_finish", noted)
    printed = train("--resume", "--epochs", 2)
    assert "resumed at epoch 2" in printed and the_run(train.out).finished
    steps = len(trainers[0].batches)
    scale = trainers[0].stepper.scale
    assert (scale.scale, scale.good) == ((2.0**14, steps) if then == "fp16" else (1.0, 0))


def last_device_line(run):
    lines = (run.folder / "log.txt").read_text().splitlines()
    return [line for line in lines if "  device  " in line][-1]


def test_threads_are_kept_by_a_run_and_its_plan(train, monkeypatch, caches):
    """Another number sums in another order: a resumed run would not end as one left in peace."""
    settled = []
    monkeypatch.setattr(device, "settle_threads", settled.append)
    monkeypatch.setattr(device, "cpu_cores", lambda *root: 4)
    monkeypatch.setattr(Load, "cores", lambda self: 0.0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    train("--challenge", 1, "--epochs", 1, "--threads", 3)
    run = the_run(train.out)
    assert settled == [3]
    assert run.config["threads"] == 3
    assert "threads" not in run.config["train"]
    assert "cpu, 3 threads, fp32" in last_device_line(run)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    train("--resume", run.folder, "--epochs", 2)
    train("--resume", run.folder, "--epochs", 3, "--threads", 1)
    train("--resume", run.folder, "--epochs", 4)
    assert settled == [3, 3, 1, 1]
    shutil.rmtree(train.out)
    monkeypatch.delenv("OMP_NUM_THREADS")
    busy = iter([2.0, 0.0])
    monkeypatch.setattr(Load, "cores", lambda self: next(busy))
    train("--challenge", 1, "--epochs", 1, "--seed", 0, 1)
    assert settled[4:] == [2, 2]
    first, second = find_runs(train.out)
    assert (
        "cpu, 2 threads, for other programs keep 2.0 of 4 cores busy: --threads 4 takes all"
        in last_device_line(first)
    )
    monkeypatch.setattr(Load, "cores", lambda self: 3.0)
    train("--resume", first.folder, "--epochs", 2)
    assert settled[6:] == [2]
    assert (
        "2 threads as before, while other programs keep 3.0 of 4 cores busy: --threads 1 may "
        "be faster" in last_device_line(first)
    )


def test_windows_that_have_changed_since(train, caches, tmp_path):
    folder = shutil.copytree(caches, tmp_path / "cache")
    train("--challenge", 1, "--epochs", 1, "--cache", folder)
    with h5py.File(cache_path(folder, 1, "R5"), "r+") as f:
        metadata = f["metadata"][()]
        metadata["copy"][:3] = ~metadata["copy"][:3]
        f["metadata"][()] = metadata
    with pytest.raises(UserError, match="the windows have changed since"):
        train("--resume", the_run(train.out).folder, "--epochs", 2, "--cache", folder)


def test_a_release_that_was_made_again_under_a_run(train, tmp_path):
    """As many windows of the same subjects, with the same labels, but other signals: of the
    training side, then of the validation side."""
    data, folder = tmp_path / "data", tmp_path / "cache"

    def make(name, seed, snr):
        shutil.rmtree(data, ignore_errors=True)
        simulate_release(data, name, 3, seed=seed, world="easy", snr=snr, runs=1)
        return build(find_release(name, data), Settings(1), folder).path

    paths = [make("R1", 0, 1.0), make("R5", 1, 1.0)]
    train("--challenge", 1, "--epochs", 1, "--cache", folder)
    run = the_run(train.out)
    assert set(run.config["caches"]) == {"R1", "R5"}
    for (name, seed), path in zip((("R1", 0), ("R5", 1)), paths):
        before = path.read_bytes()
        labels = Cache(path).y
        make(name, seed, 3.0)
        assert np.array_equal(Cache(path).y, labels) and path.read_bytes() != before
        with pytest.raises(
            UserError,
            match=rf"^{path} has been rebuilt from other files or with other settings since "
            rf"{run.folder} began; .*--cache DIR, or train a new one with: python "
            rf"\S*run/train.py .*--challenge 1",
        ):
            train("--resume", run.folder, "--epochs", 2, "--cache", folder)
        path.write_bytes(before)
    config = json.loads((run.folder / "config.json").read_text())
    train("--resume", run.folder, "--epochs", 2, "--cache", folder)  # what it began with is back
    make("R1", 0, 3.0)
    del config["caches"]  # as a run of an older version: it cannot know
    (run.folder / "config.json").write_text(json.dumps(config))
    train("--resume", run.folder, "--epochs", 3, "--cache", folder)
    assert len(Run(run.folder).history["epochs"]) == 3


def test_one_process_a_run(train, monkeypatch):
    train("--challenge", 1, "--epochs", 1)
    folder = the_run(train.out).folder
    import fcntl

    with open(folder / "log.txt", "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is training"):
            train("--resume", folder, "--epochs", 2)
