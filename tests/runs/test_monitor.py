"""What the monitor says of runs in every state, and of cards that answer, do not, or hang. Run
folders are written by hand."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from eeg.runs.monitor import Gpu, counts, events, look, sentence, sparkline, table
from eeg.runs.run import SILENCE_S, Run, all_runs, find_runs
from tests.runs.folders import write_json, write_run

SCRIPT = Path(__file__).resolve().parents[2] / "run" / "monitor.py"


def test_sparkline():
    assert sparkline([]) == ""
    assert sparkline([0.5]) == sparkline([7]) == "▄"
    assert sparkline([0, 1]) == "▁█" and sparkline([1, 0]) == "█▁"
    assert sparkline(list(range(8))) == "▁▂▃▄▅▆▇█"
    assert sparkline(list(range(16)), 8) == "▁▂▃▄▅▆▇█"  # means of two: 0.5, 2.5, ... 14.5
    assert len(sparkline([i % 7 for i in range(101)], 16)) == 16


def cells(folder):
    return look(Run(folder)).cells


def test_a_running_run(tmp_path):
    rates = {"windows_per_second": 1834.2, "seconds_left": 750}
    place = {"batch": 6, "batches": 24, "device": "cuda:0", "memory": 1.234e9}
    folder = write_run(tmp_path, "a/1", "running", **rates, **place)
    assert cells(folder) == {
        "run": "a/1",
        "status": "running",
        "epoch": "3/9 25 %",
        "best": "0.8000",
        "at": "2",
        "windows/s": "1,834",
        "left": "12:30",
        "device": "cuda:0",
        "memory": "1.23 GB",
        "validation": "nrmse 0.900 █▁▄ 0.850",
    }
    assert look(Run(folder)).remarks == []


def test_what_is_not_known_is_left_open(tmp_path):
    folder = tmp_path / "a" / "1"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"challenge": 1, "target": "rt_from_stimulus"}')
    assert cells(folder) == {"run": "a/1", "status": "running"}
    assert table([look(Run(folder))]) == ["run  status", "a/1  running"]


def test_each_state_comes_with_what_helps(tmp_path, dead):
    says = lambda *arguments, **state: look(Run(write_run(tmp_path, *arguments, **state))).remarks
    go_on = lambda name: f"python run/train.py --resume {tmp_path / name}"
    [line] = says("a/1", "running", pid=dead, updated=time.time() - 7300)
    gone = "its process is gone, its last update was 2:01:40 ago"
    assert line == f"{gone}; resume with: {go_on('a/1')}"
    assert says("a/2", "stopped", reason="26 of 31 GB are in use") == [
        f"stopped: 26 of 31 GB are in use; resume with: {go_on('a/2')}"
    ]
    assert says("a/3", "failed") == [f"failed; resume with: {go_on('a/3')}"]
    assert says("a/4", "waiting", reason="fold 2 of 5") == ["fold 2 of 5"]
    assert says("a/5", "waiting") == says("a/6", "finished") == []
    [line] = says("a/7", "running", updated=time.time() - 200)
    assert line.startswith("no update for 3:20: it may hang") and "a/7/log.txt" in line
    [line] = says("a/8", "running", host="elsewhere", updated=time.time() - SILENCE_S - 1)
    assert go_on("a/8") in line
    [line] = says("a/9", "finished", weights=False)
    assert "weights" in line and go_on("a/9") in line


def test_the_target_correct_is_judged_by_auroc(tmp_path):
    folder = write_run(tmp_path, "a/1", target="correct", nrmse=())
    epochs = [{"epoch": i + 1, "valid": {"auroc": v}} for i, v in enumerate((0.5, 0.75, 0.7))]
    write_json(folder / "history.json", {"epochs": epochs, "events": []})
    said = cells(folder)
    assert (said["best"], said["at"]) == ("0.7500", "2")
    assert said["validation"] == "auroc 0.500 ▁█▇ 0.700"


def test_one_broken_run_does_not_hide_the_others(tmp_path):
    write_run(tmp_path, "a/1")
    for name, file, text in (
        ("b/2", "config.json", "{"),
        ("c/3", "history.json", "[]"),
        ("d/4", "state.json", '{"status": "running"}'),
        ("e/5", "config.json", '{"challenge": 1}'),
    ):
        (write_run(tmp_path, name) / file).write_text(text)
    looks = [look(run) for run in all_runs(tmp_path)]
    unreadable = ["unreadable"] * 2
    # d says no more than that it is running
    assert [one.status for one in looks] == ["finished", *unreadable, "running", "unreadable"]
    assert all("remove" in one.remarks[0] for one in looks if one.status == "unreadable")
    assert counts(looks) == "5 runs: 3 unreadable, 1 finished, 1 running"


def test_columns_stand_under_their_titles(tmp_path):
    write_run(tmp_path, "short/1", device="cpu")
    state = {"device": "cuda:0", "reason": "because " * 30}
    write_run(tmp_path, "a_much_longer_name/2", "stopped", nrmse=(), **state)
    title, first, second, *note = table([look(run) for run in find_runs(tmp_path)], width=60)
    assert "memory" not in title and "windows/s" not in title  # nothing to say
    for name, text in (("status", "finished"), ("device", "cpu")):
        assert first.index(text) == title.index(name)
    assert second.index("cuda:0") == title.index("device")
    assert first.index("0.8000") + 6 == title.index("best") + 4
    assert len(note) > 3 and "".join(note).replace(" ", "").endswith("2")
    assert all(len(line) <= 60 and line.startswith("    ") for line in note)


def test_a_sentence_for_a_log(tmp_path):
    folder = write_run(tmp_path, "a/1", "stopped", nrmse=(0.9,), reason="asked to")
    assert sentence(look(Run(folder))) == [
        "a/1  stopped  epoch 1/9  best 0.9000  at 1  validation nrmse 0.900 ▄ 0.900",
        f"    stopped: asked to; resume with: python run/train.py --resume {folder}",
    ]


def test_events(tmp_path):
    folder = write_run(tmp_path, "a/1")
    halved = {"epoch": 2, "batch": 7, "kind": "out of memory", "text": "in 2 halves"}
    resumed = {"when": 0, "epoch": 3, "batch": 1, "kind": "resumed", "text": "at epoch 3"}
    write_json(folder / "history.json", {"epochs": [], "events": [halved]})
    write_json(folder / "timing.json", {"epochs": [], "events": [resumed]})
    first, second = events(Run(folder))
    assert first == "  epoch 2, batch 7  out of memory: in 2 halves"
    assert second.endswith("epoch 3  resumed: at epoch 3") and "19" in second
    assert cells(folder)["recovered"] == "2"


ROCM = {
    "card0": {
        "Temperature (Sensor edge) (C)": "61.0",
        "GPU use (%)": "97",
        "VRAM Total Memory (B)": "6425673728",
        "VRAM Total Used Memory (B)": "5100000000",
    },
    "system": {},
}


def says(text, code=0):
    return [sys.executable, "-c", f"import sys; print({text!r}); sys.exit({code})"]


def test_cards_that_answer():
    assert Gpu(60, {"rocm-smi": says("WARNING: low power state\n" + json.dumps(ROCM))}).lines() == [
        "gpu 0   97 % busy, 5.1 of 6.4 GB, 61 °C"
    ]
    assert Gpu(60, {"nvidia-smi": says("3, 1024, 8192, 45\n[N/A], 0, 8192, [N/A]")}).lines() == [
        "gpu 0   3 % busy, 1.1 of 8.6 GB, 45 °C",
        "gpu 1   0.0 of 8.6 GB",
    ]


def test_cards_that_do_not():
    hangs = [sys.executable, "-c", "import time; time.sleep(60)"]
    gpu = Gpu(0.2, {"rocm-smi": ["/absent/rocm-smi"], "nvidia-smi": hangs})
    start = time.monotonic()
    [line] = gpu.lines()
    assert "nvidia-smi does not answer within 0.2 s" in line and time.monotonic() - start < 20
    assert gpu.lines() == []  # not asked again
    assert "exit 9" in Gpu(60, {"nvidia-smi": says("NVIDIA-SMI has failed", 9)}).lines()[0]
    assert "cannot be read" in Gpu(60, {"nvidia-smi": says("well, well")}).lines()[0]
    assert "cannot be read" in Gpu(60, {"rocm-smi": says("no json")}).lines()[0]


def test_nothing_heavy_is_imported(tmp_path):
    write_run(tmp_path, "a/1")
    program = """
import runpy, sys
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as e:
    assert e.code == 0
assert not {"torch", "mne", "scipy", "h5py"} & set(sys.modules)
"""
    words = f"import sys; sys.argv = {[str(SCRIPT), '--out', str(tmp_path)]}\n{program}"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a/1  finished    3/9  0.8000" in done.stdout


def test_follow_ends_at_ctrl_c(tmp_path):
    folder = write_run(tmp_path, "a/1", "running", nrmse=(0.9,))
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "--out", tmp_path, "--follow", "--every", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "1 run: 1 running" in process.stdout.readline()
    assert "0.900 ▄ 0.900" in process.stdout.readline()
    epochs = [{"epoch": i + 1, "valid": {"nrmse": v}} for i, v in enumerate((0.9, 0.7))]
    write_json(folder / "new.json", {"epochs": epochs, "events": []})
    (folder / "new.json").rename(folder / "history.json")
    assert "1 run" in process.stdout.readline() and "0.900 █▁ 0.700" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=20)
    assert (process.returncode, rest, errors) == (0, "\n", "")


def test_a_run_that_is_not_there(tmp_path):
    command = [sys.executable, SCRIPT, "--out", tmp_path]
    done = subprocess.run([*command, "c1_tcn"], capture_output=True, text=True)
    assert done.returncode == 1 and "no run c1_tcn" in done.stderr
    assert "Traceback" not in done.stderr
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "python run/train.py --challenge 1" in done.stdout
