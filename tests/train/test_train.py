"""run/train.py: what a run leaves behind, and that no interruption shows in it."""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch

import eeg.models
from eeg import UserError
from eeg.data.cache import Cache, Settings, build, cache_path
from eeg.data.direct import opened
from eeg.data.release import find_release
from eeg.data.synth import simulate_release
from eeg.machine import amp, device
from eeg.machine.load import Load
from eeg.runs.journal import Journal
from eeg.runs.run import Run, find_runs
from eeg.score.predict import predict
from eeg.train import checkpoint
from eeg.train import trainer as module
from tests.children import Child
from tests.conftest import ROOT, command

OOM = torch.cuda.OutOfMemoryError("HIP out of memory. Tried to allocate 2.00 GiB")
CRASH = RuntimeError("HIP error: an illegal memory access was encountered")


class Killed(BaseException):
    """What no code catches."""


def the_run(out):
    (run,) = find_runs(out)
    return Run(run.folder)


def weights(folder, challenge=1):
    saved = torch.load(folder / f"weights_challenge_{challenge}.pt", weights_only=True)
    model = eeg.models.build(**saved["settings"])
    model.load_state_dict(saved["state"])
    return model.eval()


def left_behind(folder):
    """All that must not depend on interruptions, as bytes."""
    state = torch.load(folder / "weights_challenge_1.pt", weights_only=True)["state"]
    return {name: value.numpy().tobytes() for name, value in state.items()}, (
        folder / "history.json"
    ).read_bytes()


def test_what_a_run_leaves(train, caches):
    printed = train("--challenge", 1, "--epochs", 3)
    run = the_run(train.out)
    assert (
        run.name.startswith("c1_tcn/20")
        and run.status == "finished"
        and "simulated data" in printed
    )
    config, epochs = run.config, run.history["epochs"]
    assert (
        config["target"] == "rt_from_stimulus"
        and config["train"]["lr"] == 3e-3
        and config["simulated"]
        and config["precision"] == "fp32"
        and config["versions"]["torch"] == torch.__version__
    )
    assert config["split"]["train"]["releases"] == ["R1"] and config["split"]["valid"][
        "releases"
    ] == ["R5"]
    assert [entry["epoch"] for entry in epochs] == [1, 2, 3] and all(
        entry["skipped_steps"] == 0 for entry in epochs
    )
    assert (
        len(Run(run.folder).history["events"]) == 0
        and len(json.loads((run.folder / "timing.json").read_text())["epochs"]) == 3
    )
    for name in ("last", "best"):
        note = json.loads((run.folder / "checkpoints" / f"{name}.json").read_text())
        content = (run.folder / "checkpoints" / f"{name}.pt").read_bytes()
        assert (
            note["sha256"] == __import__("hashlib").sha256(content).hexdigest()
            and note["settings"] == config["model"]
        )
    # the exported weights are the best epoch's: their NRMSE, by hand, is the best of the history
    with h5py.File(cache_path(caches, 1, "R5"), "r") as f:
        keep = ~f["metadata"]["copy"]
        x, y = torch.from_numpy(f["X"][()][keep][:, :, 10:210]), f["y"][()][keep]
    with torch.no_grad():
        p = weights(run.folder)(x)[:, 0].numpy()
    nrmse = np.sqrt(((p - y) ** 2).mean()) / y.std()
    assert nrmse == pytest.approx(min(entry["valid"]["nrmse"] for entry in epochs), rel=1e-5)
    train_y = Cache(cache_path(caches, 1, "R1"))
    mean = train_y.y[~train_y.metadata["copy"]].mean()
    assert epochs[0]["valid"]["mean_predictor"] == pytest.approx(
        np.sqrt(((mean - y) ** 2).mean()) / y.std()
    )


def test_it_learns(train):
    """A window's answer is drawn toward what its label was: a few epochs on six simulated subjects suffice to see it."""
    train("--challenge", 1, "--epochs", 12, "--lr", 0.01, "--augment", "--ema", 0.5)
    epochs = the_run(train.out).history["epochs"]
    assert epochs[-1]["train"]["loss"] < 0.8 * epochs[0]["train"]["loss"]


VARIANTS = {
    "plain": (),
    "all": (
        "--optimizer",
        "sam",
        "--ema",
        0.9,
        "--schedule",
        "plateau",
        "--loss",
        "huber",
        "--set",
        "width=8",
        "depth=1",
        "head=number",
        "--l1",
        1e-5,
        "--augment",
        "mix=0.4",
        "shift=0.1",
        "mirror=0.5",
        "scale=0.2",
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_killed_run_ends_as_if_nothing_had_been(train, monkeypatch, tmp_path, variant):
    options = ("--challenge", 1, "--epochs", 2, *VARIANTS[variant])
    train(*options)
    reference = left_behind(the_run(train.out).folder)
    shutil.rmtree(train.out)

    def dies_in(owner, name, after):
        """The after-th call of owner.name is the last thing the process does."""
        work, left = getattr(owner, name), [after]

        def call(*arguments, **settings):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return work(*arguments, **settings)

        return owner, name, call

    moments = [
        (module.Trainer, "_train_batch", 4, 0),
        (module.Trainer, "_train_batch", 5, 5),
        (module.Trainer, "_predict", 0, 0),
    ]
    if variant == "plain":
        moments += [
            (module.Trainer, "_predict", 1, 5),
            (module.Trainer, "_end_epoch", 0, 0),
            (module.Trainer, "_finish", 0, 5),
        ]
        moments += [(checkpoint, "write_through", n, 0) for n in (0, 9)] + [
            (checkpoint.os, "replace", n, 0) for n in (2, 14)
        ]
    for owner, name, after, minutes in moments:
        with monkeypatch.context() as patch:
            patch.setattr(*dies_in(owner, name, after))
            with pytest.raises(Killed):
                train(*options, "--checkpoint-minutes", minutes)
        (folder,) = (run.folder for run in find_runs(train.out))
        state = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(
            json.dumps(state | {"status": "running", "pid": 2**22 + 1})
        )  # it is this process's number otherwise
        train("--resume")
        assert left_behind(folder) == reference, f"killed in {name}, call {after}"
        shutil.rmtree(train.out)


def test_kill_9(caches, tmp_path):
    """The same with a real process and a real signal."""
    line = command(
        caches, tmp_path / "whole", "--challenge", 1, "--epochs", 3, "--checkpoint-minutes", 0
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    whole = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL)
    process = Child(
        [word.replace("whole", "killed") for word in line], tmp_path / "printed", env=environment
    )
    process.wait_until(lambda: "\nepoch" in process.printed())
    process.kill()
    process.wait()
    killed = the_run(tmp_path / "killed")
    assert killed.status == "died" and len(killed.history["epochs"]) < 3
    subprocess.run(
        command(caches, tmp_path / "killed", "--resume"),
        check=True,
        env=environment,
        capture_output=True,
    )
    assert whole.wait(120) == 0
    assert left_behind(killed.folder) == left_behind(the_run(tmp_path / "whole").folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_ends_well(train, monkeypatch, number):
    work, count = module.Trainer._train_batch, [0]

    def call(*arguments):
        count[0] += 1
        if count[0] == 6:
            os.kill(os.getpid(), number)
        return work(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module.Trainer, "_train_batch", call)
        printed = train("--challenge", 1, "--epochs", 2)
    run = the_run(train.out)
    assert (
        run.status == "stopped"
        and f"go on with: python run/train.py --resume {run.folder}" in printed
    )
    assert count[0] == 6 and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert (
        "resumed at epoch" in train("--resume", run.folder)
        and the_run(train.out).status == "finished"
    )
    first = json.loads((run.folder / "timing.json").read_text())["epochs"][0]
    assert first["windows_per_second"] * first["seconds"] == pytest.approx(
        16 * (run.state["batches"] - 6), rel=0.02
    )  # since it was resumed
    train("--challenge", 1, "--epochs", 2)
    one, two = find_runs(train.out)
    assert left_behind(one.folder) == left_behind(two.folder)


def sends(number, method, call, monkeypatch):
    """This process is sent a signal as Trainer.<method> is called for the call-th time."""
    work, count = getattr(module.Trainer, method), [0]

    def wrapped(*arguments):
        count[0] += 1
        if count[0] == call:
            os.kill(os.getpid(), number)
        return work(*arguments)

    monkeypatch.setattr(module.Trainer, method, wrapped)


def test_asked_to_stop_while_validating(train, monkeypatch):
    """What validation had done by then, its random numbers too, shows nowhere."""
    options = ("--challenge", 1, "--epochs", 2, "--set", "width=8", "depth=1", "dropout=0.3")
    train(*options)
    reference = left_behind(the_run(train.out).folder)
    shutil.rmtree(train.out)
    with monkeypatch.context() as patch:
        sends(signal.SIGTERM, "_on_predicted", 1, patch)
        assert "saved at epoch 1" in train(*options)
    train("--resume")
    assert left_behind(the_run(train.out).folder) == reference


def test_asked_to_stop_at_the_end_of_a_fold_begins_no_other(train, monkeypatch):
    with monkeypatch.context() as patch:
        sends(signal.SIGTERM, "_finish", 1, patch)
        train("--challenge", 1, "--epochs", 1, "--cv", 2)
    assert [run.status for run in find_runs(train.out)][0] == "finished" and len(
        [run for run in find_runs(train.out) if run.finished]
    ) == 1


@pytest.mark.parametrize("error", [SystemExit(143), KeyboardInterrupt()])
def test_asked_to_stop_before_the_first_batch(train, monkeypatch, error):
    """SystemExit is what SIGTERM raises until the trainer heeds it."""
    with monkeypatch.context() as patch:
        patch.setattr(module.Trainer, "__init__", faulty({1: error}, "__init__"))
        assert "go on with: python run/train.py --resume" in train("--challenge", 1, "--epochs", 1)
    assert the_run(train.out).status == "stopped"
    train("--resume")
    assert the_run(train.out).finished


def test_what_nohup_has_ignored_stays_ignored(train, monkeypatch):
    sends(signal.SIGHUP, "_train_batch", 2, monkeypatch)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        train("--challenge", 1, "--epochs", 1)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert the_run(train.out).finished


def test_a_terminal_that_is_gone_takes_nothing_with_it(caches, tmp_path):
    """It sends SIGHUP, and whatever is printed from then on is an error."""
    terminal, theirs = os.openpty()
    line = command(caches, tmp_path, "--challenge", 1, "--epochs", 500)
    process = subprocess.Popen(
        line,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    deadline = time.monotonic() + 120
    while b"epoch   1/" not in said:
        waiting, _, _ = select.select([terminal], [], [], max(deadline - time.monotonic(), 0))
        if not waiting:
            process.kill()
        try:
            assert waiting, f"no epoch after 120 s, but:\n{said.decode()}"
            said += os.read(terminal, 4096)
        except OSError:  # nobody is at the other end
            pytest.fail(f"it ended with exit code {process.wait()}:\n{said.decode()}")
    os.close(terminal)
    process.send_signal(signal.SIGHUP)  # it is not this session's leader's own terminal
    assert process.wait(60) == 0
    run = the_run(tmp_path)
    assert run.status == "stopped" and "go on with" in (run.folder / "log.txt").read_text()


def faulty(plan, name="_step"):
    """Trainer.<name> that raises plan[call]."""
    work, calls = getattr(module.Trainer, name), [0]

    def step(*arguments):
        calls[0] += 1
        if calls[0] in plan:
            raise plan[calls[0]]
        return work(*arguments)

    return step


@pytest.mark.parametrize(
    "plan, kinds",
    [
        ({3: CRASH}, ["device error"]),
        (
            {3: CRASH, 4: CRASH},
            ["device error", "moved to cpu"],
        ),  # the second while it is computed on the CPU
        ({n: CRASH for n in (3, 5, 7)}, ["device error", "device error", "moved to cpu"]),
    ],
)
def test_a_device_that_fails_changes_nothing(train, monkeypatch, plan, kinds):
    train("--challenge", 1, "--epochs", 1)
    reference, _ = left_behind(the_run(train.out).folder)
    shutil.rmtree(train.out)
    monkeypatch.setattr(module.Trainer, "_step", faulty(plan))
    train("--challenge", 1, "--epochs", 1)
    run = the_run(train.out)
    assert left_behind(run.folder)[0] == reference
    assert [event["kind"] for event in run.history["events"]] == kinds


def test_a_batch_that_does_not_fit_is_computed_in_parts(train, monkeypatch):
    monkeypatch.setattr(module.Trainer, "_step", faulty({2: OOM, 3: OOM}))
    train("--challenge", 1, "--epochs", 1)
    run = the_run(train.out)
    assert (
        run.finished and [event["kind"] for event in run.history["events"]] == ["out of memory"] * 2
    )


# run/train.py in a process that may take so many bytes of memory beyond what Python and torch have
IN_LITTLE_ROOM = """
import resource, runpy, sys
import eeg.train.trainer
from eeg.machine import memory
with open("/proc/self/status") as f:
    held = next(1024 * int(line.split()[1]) for line in f if line.startswith("VmData"))
limit = int((held + int(sys.argv[1])) / 0.8)  # of which --max-memory gives 80 %
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_batch_larger_than_memory(caches, tmp_path):
    """All training windows at once, of which memory holds about half; and hardly any."""
    (tmp_path / "program.py").write_text(IN_LITTLE_ROOM)

    def trained(room):
        line = command(
            caches,
            tmp_path / str(room),
            "--challenge",
            1,
            "--epochs",
            1,
            "--set",
            "depth=4",
            "--batch-size",
            100_000,
        )
        line[1:1] = [str(tmp_path / "program.py"), str(room)]
        return subprocess.run(
            line,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )

    done = trained(320_000_000)
    assert done.returncode == 0, done.stderr
    run = the_run(tmp_path / "320000000")
    windows, part = run.config["split"]["train"]["windows"], run.config["part"]
    assert (
        f"batch   all {windows} training windows: --batch-size 100000 asks for more than there are"
        in done.stdout
    )
    assert (
        f"computed in parts of at most {part}, and batch norm sees one part at a time"
        in done.stdout
        and 8 <= part < windows
    )
    assert run.finished and run.state["batches"] == 1 and not run.history["events"]
    done = trained(100_000_000)
    assert done.returncode == 1 and re.fullmatch(
        rf"error: training on batches of {windows} windows takes at least .* free to take; free some, .*",
        done.stderr.strip(),
    )


def test_parts_belong_to_a_run(train, monkeypatch):
    """Batch norm sees one at a time: a run that is resumed where there is more room goes on with the parts it had."""
    monkeypatch.setattr(module, "largest_part", lambda model, size, held, room: (5, 1e9))
    train("--challenge", 1, "--epochs", 2)
    whole = left_behind(the_run(train.out).folder)
    shutil.rmtree(train.out)
    with monkeypatch.context() as patch:
        sends(signal.SIGTERM, "_train_batch", 3, patch)
        train("--challenge", 1, "--epochs", 2)
    monkeypatch.setattr(module, "largest_part", lambda model, size, held, room: (size, 1e9))
    assert (
        "computed in parts of at most 5" in train("--resume")
        and left_behind(the_run(train.out).folder) == whole
    )
    shutil.rmtree(train.out)
    train("--challenge", 1, "--epochs", 2)
    assert left_behind(the_run(train.out).folder) != whole


def test_the_precision_is_measured_on_a_modest_batch(train, monkeypatch):
    """And never on more windows than there are."""
    asked = []
    monkeypatch.setattr(
        amp,
        "choose",
        lambda model, device, precisions, windows, *rest: asked.append(windows) or ("fp32", ""),
    )
    monkeypatch.setattr(device, "supports_bf16", lambda: True)
    for size in (16, 70, 100_000):
        train("--challenge", 1, "--epochs", 1, "--amp", "auto", "--batch-size", size)
    assert asked == [16, 64, 64]


def test_the_runs_of_a_plan_share_a_precision(train, monkeypatch):
    """What is measured may differ from time to time; what compares seeds must not."""
    answers = iter([("bf16", "; because"), ("fp32", "")])
    monkeypatch.setattr(amp, "choose", lambda *arguments: next(answers))
    monkeypatch.setattr(device, "supports_bf16", lambda: True)
    assert "bf16 (asked for; because)" in train(
        "--challenge", 1, "--epochs", 1, "--amp", "auto", "--device", "cpu", "--seed", 0, 1, 2
    )
    runs = find_runs(train.out)
    assert [run.config["precision"] for run in runs] == ["bf16"] * 3
    train("--resume", runs[0].folder, "--epochs", 2)
    assert Run(runs[0].folder).config["precision"] == "bf16" and next(answers) == ("fp32", "")


def test_gradients_that_are_not_finite_are_left_out_and_counted(train, monkeypatch):
    work, calls = module.Trainer._step, [0]

    def step(self, model, batch, weight):
        calls[0] += 1
        if calls[0] in (2, 3):
            batch = batch | {"x": torch.full_like(batch["x"], torch.inf)}
        return work(self, model, batch, weight)

    monkeypatch.setattr(module.Trainer, "_step", step)
    train("--challenge", 1, "--epochs", 1)
    run = the_run(train.out)
    assert run.history["epochs"][0]["skipped_steps"] == 2
    assert all(value.isfinite().all() for value in weights(run.folder).state_dict().values())


def damaged(caches, tmp_path, release, windows, value=np.nan, challenge=1):
    """The caches, of which these windows of one have `value` in channel E3, and the last of them in E7, too."""
    folder = tmp_path / "cache"
    if not folder.exists():
        shutil.copytree(caches, folder)
    with h5py.File(cache_path(folder, challenge, release), "r+") as f:
        for window in windows:
            f["X"][window, 2, 50:60] = value
        f["X"][windows[-1], 6, 120] = value
    return folder


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_windows_with_nan_or_infinity_are_left_out_and_named(train, caches, tmp_path, value):
    """The run is as if the cache had never had them, but for what it says. One batch is all of them: its step is skipped."""
    rows = np.flatnonzero(~Cache(cache_path(caches, 1, "R1")).metadata["copy"])
    some = [int(row) for row in rows[[3, 40, 41, 90]]]
    folder = damaged(caches, tmp_path, "R1", some, value)
    printed = train("--challenge", 1, "--epochs", 2, "--cache", folder, "--batch-size", 7)
    run = the_run(train.out)
    path = cache_path(folder, 1, "R1")
    events = [event["text"] for event in run.history["events"]]
    assert len(events) == 3 and all(event["kind"] == "left out" for event in run.history["events"])
    found = [
        int(
            re.match(
                rf"{path}: window (\d+) \(sub-NDAR\w+, contrastChangeDetection run \d\) holds NaN or infinity in (?:channel E3|channels E3, E7), left out of training",
                text,
            )[1]
        )
        for text in events
    ]
    assert (
        len(set(found)) == 3
        and set(found) <= set(some)
        and events[2].endswith("; what follows is counted only")
    )
    assert re.search(
        rf"left out 4 windows with NaN or infinity: 4 of {path}, rebuild it with: python run/cache.py .*--release R1 .*--force",
        printed,
    )
    assert all(
        entry["skipped_steps"] == 0 and entry["train"]["loss"] < 10
        for entry in run.history["epochs"]
    )


def test_windows_that_are_left_out_change_nothing_else(train, caches, tmp_path):
    """A batch without its damaged windows is what a batch of the others would have been: by the trainer, and by a copy of it that never saw them."""
    row = int(np.flatnonzero(~Cache(cache_path(caches, 1, "R1")).metadata["copy"])[3])
    seen, work = [], module.Trainer._step

    def step(self, model, batch, weight):
        seen.append({name: value.clone() for name, value in batch.items()})
        return work(self, model, batch, weight)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Trainer, "_step", step)
        train("--challenge", 1, "--epochs", 1)
        whole, seen = seen, []
        train("--challenge", 1, "--epochs", 1, "--cache", damaged(caches, tmp_path, "R1", [row]))
    assert len(whole) == len(seen) and sum(
        len(a["x"]) - len(b["x"]) for a, b in zip(whole, seen)
    ) in (0, 1)
    for a, b in zip(whole, seen):
        kept = [i for i in range(len(a["x"])) if any(torch.equal(a["x"][i], x) for x in b["x"])]
        assert (
            len(kept) == len(b["x"])
            and torch.equal(a["x"][kept], b["x"])
            and torch.equal(a["y"][kept], b["y"])
        )


def test_a_killed_run_remembers_what_it_left_out(train, caches, tmp_path, monkeypatch):
    rows = np.flatnonzero(~Cache(cache_path(caches, 1, "R1")).metadata["copy"])
    folder = damaged(caches, tmp_path, "R1", [int(row) for row in rows[::9]])
    damaged(caches, tmp_path, "R5", [4, 5])
    options = ("--challenge", 1, "--epochs", 3, "--cache", folder)
    train(*options)
    reference = left_behind(the_run(train.out).folder)
    shutil.rmtree(train.out)
    with monkeypatch.context() as patch:
        sends(signal.SIGTERM, "_train_batch", 9, patch)
        train(*options)
    printed = train("--resume", "--cache", folder)
    assert left_behind(the_run(train.out).folder) == reference
    assert f"left out {len(rows[::9]) + 2} windows with NaN or infinity" in printed


def test_validation_windows_with_nan_do_not_validate(train, caches, tmp_path):
    """The score is that of the others, and the mean predictor's too."""
    rows = np.flatnonzero(~Cache(cache_path(caches, 1, "R5")).metadata["copy"])
    folder = damaged(caches, tmp_path, "R5", [int(rows[2])])
    train("--challenge", 1, "--epochs", 1, "--cache", folder)
    run, cache = the_run(train.out), Cache(cache_path(folder, 1, "R5"))
    others = np.delete(rows, 2)
    y, p = cache.y[others], predict(weights(run.folder), cache, others)[:, 0]
    valid = run.history["epochs"][0]["valid"]
    assert valid["nrmse"] == pytest.approx(np.sqrt(((p - y) ** 2).mean()) / y.std(), rel=1e-5)
    mean = weights(run.folder).center[0].item()
    assert valid["mean_predictor"] == pytest.approx(
        np.sqrt(((mean - y) ** 2).mean()) / y.std(), rel=1e-5
    )
    (event,) = run.history["events"]
    assert f"window {rows[2]} " in event["text"] and event["text"].endswith(
        "holds NaN or infinity in channels E3, E7, left out of validation"
    )
    with h5py.File(cache_path(folder, 1, "R5"), "r+") as f:
        f["X"][:, 0] = np.inf
    with pytest.raises(UserError, match="all .* validation windows hold NaN or infinity"):
        train("--challenge", 1, "--epochs", 1, "--cache", folder)


def test_sam_climbs_as_far_as_rho_whatever_is_clipped(train, monkeypatch):
    climb, far = module.optim.SAM.ascend, []

    def ascend(self, norm):
        before = [p.detach().clone() for p in self.parameters]
        climb(self, norm)
        far.append(
            float(
                torch.sqrt(
                    sum(
                        (p.detach() - old).square().sum() for p, old in zip(self.parameters, before)
                    )
                )
            )
        )

    monkeypatch.setattr(module.optim.SAM, "ascend", ascend)
    train("--challenge", 1, "--epochs", 1, "--optimizer", "sam", "--rho", 0.05, "--clip", 0.001)
    assert far and far == pytest.approx([0.05] * len(far), rel=1e-3)


def test_sam_comes_back_from_where_there_is_no_gradient(train, monkeypatch):
    """The second of the two gradients of each step is not finite: no step is made, and the weights are those of the start."""
    work, calls, weights = module.Trainer._step, [0], []

    def step(self, model, batch, weight):
        calls[0] += 1
        if calls[0] % 2:
            weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]).clone())
        else:
            batch = batch | {"x": torch.full_like(batch["x"], torch.inf)}
        return work(self, model, batch, weight)

    monkeypatch.setattr(module.Trainer, "_step", step)
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
    assert "save failed" in [
        event["kind"] for event in json.loads((run.folder / "timing.json").read_text())["events"]
    ]


def test_a_stop_that_cannot_save_does_not_say_it_did(train, monkeypatch):
    sends(signal.SIGTERM, "_train_batch", 3, monkeypatch)
    monkeypatch.setattr(
        checkpoint,
        "write_through",
        lambda path, content: (_ for _ in ()).throw(
            OSError(28, "No space left on device", str(path))
        ),
    )
    printed = train("--challenge", 1, "--epochs", 1)
    assert (
        "saved at" not in printed
        and "stopped, as it was at the last checkpoint; go on with" in printed
    )


def test_a_log_that_is_full_does_not_end_a_run(tmp_path, capsys):
    (tmp_path / "log.txt").symlink_to("/dev/full")
    journal = Journal(tmp_path)
    journal.say("a word")
    journal.close()
    assert "a word" in capsys.readouterr().out


def test_memory_that_runs_short(train, monkeypatch):
    said = iter(["fine", "shrink", "fine", "stop", "fine"])
    monkeypatch.setattr(module, "LOOK", 1)
    monkeypatch.setattr(
        module, "Watch", lambda percent: lambda: (next(said, "fine"), "95 % of 8.0 GB")
    )
    printed = train("--challenge", 1, "--epochs", 2)
    run = the_run(train.out)
    assert (
        run.status == "stopped"
        and run.state["reason"] == "95 % of 8.0 GB"
        and printed.count("95 % of 8.0 GB") == 2
    )
    train("--resume")
    train("--challenge", 1, "--epochs", 2)
    one, two = find_runs(train.out)
    assert left_behind(one.folder) == left_behind(two.folder)


def test_more_windows_than_memory_holds_are_the_same_windows(train, caches, monkeypatch):
    if opened(Cache(cache_path(caches, 1, "R1")), 1) is None:
        pytest.skip(f"files in {caches} cannot be read past the system's cache")
    train("--challenge", 1, "--epochs", 2)
    for users in (module, sys.modules["eeg.score.predict"]):
        monkeypatch.setattr(users, "fits", lambda size: False)
    assert "past the system's cache of files" in train("--challenge", 1, "--epochs", 2)
    one, two = find_runs(train.out)
    assert left_behind(one.folder) == left_behind(two.folder)


def test_a_checkpoint_cut_in_half(train):
    train("--challenge", 1, "--epochs", 1)
    folder = the_run(train.out).folder
    last = folder / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    printed = train("--resume", folder, "--epochs", 2)
    assert (
        "warning: last.pt is not what was saved" in printed
        and the_run(train.out).state["epoch"] == 2
    )
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
    assert [entry["epoch"] for entry in run.history["epochs"]] == [1, 2] and run.config["train"][
        "epochs"
    ] == 2
    with pytest.raises(UserError, match="no unfinished run in .*start one with"):
        train("--resume")


def test_a_finished_run_that_cannot_go_on_is_still_finished(train, caches, tmp_path):
    train("--challenge", 1, "--epochs", 1)
    run = the_run(train.out)
    before = run.state
    with pytest.raises(UserError, match="no cache of R1"):
        train("--resume", run.folder, "--epochs", 2, "--cache", tmp_path)
    assert the_run(train.out).finished and the_run(train.out).state == before


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
    say = lambda status: (second.folder / "state.json").write_text(
        json.dumps(second.state | {"status": status, "pid": os.getpid(), "updated": time.time()})
    )
    say("running")
    with pytest.raises(UserError, match="still running"):
        train("--resume", "--challenge", 1, "--name", "of two")
    say("stopped")
    with pytest.raises(SystemExit):
        train("--challenge", 1, "--model", "resnet")  # nothing to go on with
    train("--resume")
    assert Run(second.folder).finished and len(find_runs(train.out)) == 2
    say("stopped")
    assert "resumed at epoch 2" in train("--resume", train.out / "of two")


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
    """A loss scale of float16 is no concern of float32, nor the other way about. (The CPU can do the loss scale of float16, not float16.)"""
    finish = module.Trainer._finish

    def killed(self):
        raise Killed

    types = dict.fromkeys(("fp32", "fp16"))
    monkeypatch.setattr(module.amp, "TYPES", types)
    make = module.Trainer.__init__

    def made(self, options, model, split, device, precision, *further):
        make(self, options, model, split, device, precision_now[0], *further)

    monkeypatch.setattr(module.Trainer, "__init__", made)
    monkeypatch.setattr(module.Trainer, "_finish", killed)
    precision_now = [first]
    with pytest.raises(Killed):
        train("--challenge", 1, "--epochs", 1)
    run = the_run(train.out)
    state, _, _ = checkpoint.load(run.folder / "checkpoints")
    assert (state["scale"] is None) == (first == "fp32")
    (run.folder / "state.json").write_text(json.dumps(run.state | {"status": "stopped"}))
    precision_now = [then]
    trainers = []
    monkeypatch.setattr(
        module.Trainer, "_finish", lambda self: (trainers.append(self), finish(self))[1]
    )
    printed = train("--resume", "--epochs", 2)
    assert "resumed at epoch 2" in printed and the_run(train.out).finished
    steps = len(trainers[0].batches)
    assert (trainers[0].scale.scale, trainers[0].scale.good) == (
        (2.0**14, steps) if then == "fp16" else (1.0, 0)
    )


def last_device_line(run):
    return [
        line for line in (run.folder / "log.txt").read_text().splitlines() if "  device  " in line
    ][-1]


def test_threads_are_kept_by_a_run_and_its_plan(train, monkeypatch, caches):
    """Another number sums in another order: a resumed run would not end as one left in peace."""
    settled = []
    monkeypatch.setattr(device, "settle_threads", settled.append)
    monkeypatch.setattr(device, "cpu_cores", lambda *root: 4)
    monkeypatch.setattr(Load, "cores", lambda self: 0.0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    train("--challenge", 1, "--epochs", 1, "--threads", 3)
    run = the_run(train.out)
    assert (
        settled == [3]
        and run.config["threads"] == 3
        and "threads" not in run.config["train"]
        and "cpu, 3 threads, fp32" in last_device_line(run)
    )
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
    assert (
        settled[6:] == [2]
        and "2 threads as before, while other programs keep 3.0 of 4 cores busy: --threads 1 may be faster"
        in last_device_line(first)
    )


def test_folds_are_a_plan_that_is_resumed(train, monkeypatch):
    work, calls = module.Trainer._finish, [0]

    def finish(self):
        calls[0] += 1
        if calls[0] == 2:
            raise Killed
        return work(self)

    with monkeypatch.context() as patch:
        patch.setattr(module.Trainer, "_finish", finish)
        with pytest.raises(Killed):
            train("--challenge", 1, "--epochs", 1, "--cv", 3, "--train", "R1", "R5")
    for run in find_runs(train.out):
        if run.state["status"] in ("waiting", "failed", "running"):
            state = json.loads((run.folder / "state.json").read_text())
            (run.folder / "state.json").write_text(
                json.dumps(
                    state
                    | {"pid": 2**22 + 1}
                    | ({"status": "running"} if state["status"] == "failed" else {})
                )
            )
    printed = train("--resume")
    runs = find_runs(train.out)
    assert (
        len(runs) == 3
        and all(run.finished for run in runs)
        and [run.config["train"]["fold"] for run in runs] == [[1, 3], [2, 3], [3, 3]]
    )
    sides = [set(run.config["split"]["valid"]["subjects"]) for run in runs]
    assert sum(map(len, sides)) == len(set.union(*sides)) and all(
        not side & set(run.config["split"]["train"]["subjects"]) for side, run in zip(sides, runs)
    )
    (summary,) = (runs[0].folder.parent).glob("*_summary.json")
    values = [run.best[1] for run in runs]
    assert (
        json.loads(summary.read_text())["mean"] == pytest.approx(np.mean(values))
        and f"mean {np.mean(values):.4f}" in printed
    )


@pytest.mark.parametrize(
    "options, loss",
    [
        (("--target", "correct"), "cross-entropy"),
        (("--target", "rt_from_trialstart", "--loss", "focal"), "focal"),
        (("--model", "hybrid", "--set", "width=16", "depth=1", "--features", "layer"), "mse"),
        (("--model", "hybrid", "--set", "width=16", "depth=1", "--schedule", "onecycle"), "mse"),
        (("--amp", "bf16", "--balance", "--clip", 0), "time"),
    ],
)
def test_other_things_to_learn_and_ways_to(train, options, loss):
    train("--challenge", 1, "--epochs", 1, *options)
    run = the_run(train.out)
    assert run.finished and run.config["loss"] == loss
    valid = run.history["epochs"][0]["valid"]
    assert 0 <= valid["auroc"] <= 1 if loss == "cross-entropy" else 0.3 < valid["nrmse"] < 3


@pytest.mark.parametrize("options", [(), ("--target", "factors", "--aux", "age")])
def test_challenge_2(train, caches, options):
    printed = train("--challenge", 2, "--epochs", 1, *options)
    run = the_run(train.out)
    model = weights(run.folder, 2)
    entry = run.history["epochs"][0]
    assert (
        model.shrink[0] == pytest.approx(entry["shrink"])
        and 0 <= entry["shrink"] <= 1
        and f"shrunk to {entry['shrink']:.2f}" in printed
    )
    # no other strength would have been better on the validation windows
    known = Cache(cache_path(caches, 2, "R5"))
    rows = np.flatnonzero(~known.metadata["copy"])
    y, p = known.y[rows], predict(model, known, rows)[:, 0]
    model.shrink.fill_(1.0)
    full, center = predict(model, known, rows)[:, 0], model.center[0].item()
    strengths = np.linspace(0, 1, 1001)
    best = lambda rows: min(
        strengths, key=lambda s: ((center + s * (full[rows] - center) - y[rows]) ** 2).mean()
    )
    assert ((p - y) ** 2).mean() <= (
        (center + best(slice(None)) * (full - center) - y) ** 2
    ).mean() + 1e-6
    # the figure is of subjects on which the strength was not fitted: the one with most windows against the other two
    most = known.metadata["subject"][rows] == max(
        np.unique(known.metadata["subject"][rows]),
        key=lambda name: (known.metadata["subject"][rows] == name).sum(),
    )
    scored = np.empty(len(y))
    for half in (most, ~most):
        scored[half] = center + best(~half) * (full[half] - center)
    assert entry["valid"]["nrmse"] == pytest.approx(
        np.sqrt(((scored - y) ** 2).mean()) / y.std(), rel=1e-3
    )
    assert entry["valid"]["nrmse"] > np.sqrt(((p - y) ** 2).mean()) / y.std()
    cache = Cache(cache_path(caches, 2, "R1"))
    kept = cache.metadata[~cache.metadata["copy"]]
    assert model.center[0].item() == pytest.approx(kept["externalizing"].mean(), rel=1e-5)
    assert model.n_outputs == (4 if options else 1) and list(model.aux) == (
        ["age"] if options else ["age", "sex"]
    )


def test_one_validation_subject_cannot_validate_challenge_2(train):
    with pytest.raises(
        UserError,
        match="validation side has 1 subject, .* needs at least 2: name more releases with --valid",
    ):
        train("--challenge", 2, "--epochs", 1, "--max-recordings", 1)


# run/train.py, but that the second process dies in its second batch, and once torchrun has begun anew runs out of memory, as late as it can; the first is asked to stop in epoch 2
IN_TROUBLE = """
import os, runpy, signal, sys
import torch
from eeg.train.trainer import Trainer
step, train_batch, rank, calls = Trainer._step, Trainer._train_batch, int(os.environ["RANK"]), [0]

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

Trainer._step, Trainer._train_batch = fails_once, asked
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_two_processes_take_the_steps_of_one(caches, tmp_path):
    """For a model without batch norm, at the same global batch, whatever happens to one of them; and they stop together."""
    options = [
        "--challenge",
        1,
        "--model",
        "transformer",
        "--set",
        "dropout=0.0",
        "head=time",
        "--lr",
        1e-4,
        "--schedule",
        "constant",
        "--warmup",
        0,
        "--max-recordings",
        3,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    one = subprocess.Popen(
        [*command(caches, tmp_path / "one", "--epochs", 1, *options)],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    (tmp_path / "in_trouble.py").write_text(IN_TROUBLE)
    line = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "1",
        str(tmp_path / "in_trouble.py"),
        *command(caches, tmp_path / "two", "--epochs", 2, *options)[1:],
    ]
    two = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=100)
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
    assert a.history["epochs"][0]["valid"]["nrmse"] == pytest.approx(
        b.history["epochs"][0]["valid"]["nrmse"], rel=1e-4
    )
    assert a.history["epochs"][0]["train"] == pytest.approx(
        b.history["epochs"][0]["train"], rel=1e-4
    )


@pytest.mark.parametrize(
    "options, reason",
    [
        (("--challenge", 1, "--train", "R9"), "no cache of R9 .*run/cache.py --release R9"),
        (
            ("--challenge", 1, "--mini"),
            "no cache of a training release .*run/cache.py --release R1 --mini",
        ),
        (
            ("--challenge", 1, "--model", "hybrid", "--set", "width=16", "--augment", "mirror=0.5"),
            "--features layer",
        ),
        (
            ("--challenge", 1, "--augment", "shift=0.5"),
            "run/cache.py --release R1 R5 --margin 0.5 --force",
        ),
        (("--challenge", 1, "--amp", "fp16"), "--amp fp16 cannot be used"),
        (("--challenge", 1, "--device", "cuda"), "--device cuda cannot be used"),
        (("--challenge", 1, "--loss", "time", "--set", "head=number"), "time head"),
        (("--resume", "nothing"), "no run nothing"),
        (("--resume",), "no unfinished run"),
    ],
)
def test_what_cannot_be(train, options, reason):
    with pytest.raises(UserError, match=reason):
        train(*options)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--challenge", 3),
        ("--challenge", 1, "--target", "externalizing"),
        ("--challenge", 1, "--augment", "blur=1"),
        ("--challenge", 1, "--cv", 1),
        ("--challenge", 1, "--aux", "age"),
        ("--challenge", 1, "--ema", 1),
        ("--challenge", 1, "--set", "width"),
        ("--challenge", 1, "--seed", -1),
        ("--challenge", 1, "--name", "a/b"),
        ("--challenge", 1, "--augment", "scale=much"),
        ("--challenge", 1, "--epoch", 2),
    ],
)
def test_arguments_that_cannot_be(train, options):
    with pytest.raises(SystemExit) as e:
        train(*options)
    assert e.value.code == 2


@pytest.mark.parametrize(
    "options, said",
    [
        (
            ("--model", "resnet"),
            "--model: there is no model 'resnet'; there are tcn, eegnex, unet, cnn, hybrid, transformer, conformer",
        ),
        (
            ("--set", "wdith=8"),
            "--set wdith=8: tcn has no setting 'wdith'; it has head, width, depth, kernel, dropout",
        ),
        (
            ("--set", "normalize=none"),
            "--set normalize=none: tcn has no setting 'normalize'; it has head, width, depth, kernel, dropout",
        ),
        (("--set", "width=abc"), "--set width=abc: tcn takes a whole number from 1 to 2048"),
        (("--set", "width=0"), "--set width=0: tcn takes a whole number from 1 to 2048"),
        (("--set", "kernel=4"), "--set kernel=4: tcn takes an odd number from 1 to 199"),
        (
            ("--model", "eegnex", "--set", "drop_prob=1.5"),
            "--set drop_prob=1.5: eegnex takes a number from 0 to less than 1",
        ),
        (
            ("--model", "cnn", "--set", "heads=3"),
            "--set width=160: cnn with 3 heads takes a multiple of 3",
        ),
    ],
)
def test_what_a_model_does_not_take(train, capsys, options, said):
    """A bad argument, known before torch is there: exit code 2 and a line."""
    with pytest.raises(SystemExit) as e:
        train("--challenge", 1, *options)
    assert (
        e.value.code == 2
        and f"error: {said}" in capsys.readouterr().err
        and not find_runs(train.out)
    )


def test_labels_that_cannot_be_learned(train, caches, tmp_path, monkeypatch):
    folder = shutil.copytree(caches, tmp_path / "cache")
    with h5py.File(cache_path(folder, 1, "R1"), "r+") as f:
        f["y"][3] = np.nan
    with pytest.raises(
        UserError,
        match="1 of .* labels are NaN or infinite, the first in .*challenge1_R1_windows.h5",
    ):
        train("--challenge", 1, "--cache", folder)
    with h5py.File(cache_path(folder, 1, "R1"), "r+") as f:
        f["y"][:] = 1.5
    with pytest.raises(UserError, match="all labels of a side are the same"):
        train("--challenge", 1, "--cache", folder)
    shutil.copy(cache_path(folder, 2, "R1"), cache_path(folder, 1, "R1"))
    with pytest.raises(UserError, match="cannot be used together|challenge 2, expected 1"):
        train("--challenge", 1, "--cache", folder)
    assert not find_runs(train.out)  # what never began leaves nothing


def test_mixup_mixes_all_that_the_model_sees(train, caches, monkeypatch):
    """A window, its stored features and its label are the same mixture."""
    work, seen = module.Trainer._tensors, []

    def tensors(self, batch):
        found = work(self, batch)
        seen.append((batch.rows.copy(), batch.mix.copy(), batch.x.copy(), found))
        return found

    monkeypatch.setattr(module.Trainer, "_tensors", tensors)
    train(
        "--challenge",
        1,
        "--epochs",
        1,
        "--model",
        "hybrid",
        "--augment",
        "mix=0.4",
        "--set",
        "width=8",
        "depth=1",
    )
    cache = Cache([cache_path(caches, 1, "R1"), cache_path(caches, 1, "R5")])
    assert seen and any((mix < 1).any() for _, mix, _, _ in seen)
    for rows, mix, x, found in seen:
        before = np.roll(np.arange(len(rows)), 1)
        for name, plain in (("x", x), ("features", cache.features[rows])):
            share = mix.reshape(-1, *[1] * (plain.ndim - 1))
            np.testing.assert_allclose(
                found[name].numpy(),
                share * plain + (1 - share) * plain[before],
                rtol=1e-4,
                atol=1e-3,
            )
        label = mix * found["y"][:, 0].numpy() + (1 - mix) * found["other"][:, 0].numpy()
        np.testing.assert_allclose(
            label, mix * cache.y[rows] + (1 - mix) * cache.y[rows[before]], rtol=1e-5
        )


def test_features_that_are_not_there(train, caches, tmp_path):
    folder = shutil.copytree(caches, tmp_path / "cache")
    with h5py.File(cache_path(folder, 1, "R5"), "r+") as f:
        del f["neuro_features"]
    with pytest.raises(
        UserError,
        match="takes the features of each window.*--features layer, .*run/features.py --release R1 R5",
    ):
        train("--challenge", 1, "--model", "hybrid", "--set", "width=16", "--cache", folder)


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
    """As many windows of the same subjects, with the same labels, but other signals: of the training side, then of the validation side."""
    data, folder = tmp_path / "data", tmp_path / "cache"

    def make(name, seed, snr):
        shutil.rmtree(data, ignore_errors=True)
        simulate_release(data, name, 3, seed, snr, ("contrastChangeDetection",), 1)
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
            match=rf"^{path} has been rebuilt from other files or with other settings since {run.folder} began; .*--cache DIR, or train a new one with: python \S*run/train.py .*--challenge 1",
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


def test_models_are_listed_with_what_they_are(train):
    printed = train("--list-models")
    for name in eeg.models.MODELS:
        count = sum(p.numel() for p in eeg.models.build(name).parameters())
        assert f"{count:,}" in next(
            line for line in printed.splitlines() if line.split()[0] == name
        )
