"""Rows: run/train.py from end to end."""

import json
import shutil
import statistics
import subprocess
import time

from eeg import UserError
from eeg.bench import simulated
from eeg.bench.measure import in_turn, report, report_figure, script
from eeg.bench.plain import BATCH, plain_epochs
from eeg.machine.memory import limit_bytes

ONE = ("--members", 1, "--blend", "none")  # one network, as its peer trains


def _states(out):
    """What each run in a folder says of its progress."""
    return [json.loads(path.read_text()) for path in out.glob("*/*/state.json")]


def _check_ended(process):
    if process.returncode:
        raise UserError(f"run/train.py ended with exit code {process.returncode}")


def _timed_run(cache, out, epochs):
    """Trains tcn with run/train.py. -> (seconds to the first batch, timing.json, config.json)."""
    shutil.rmtree(out, ignore_errors=True)
    places = ("--cache", cache.paths[0].parent, "--out", out)
    options = ("--challenge", 1, *places, *ONE, "--patience", 1000, "--keep-copies", "--epochs")
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # the first command measures the precisions, and the second finds them
    subprocess.run(script("train", *options, 1), check=True, **quiet)
    shutil.rmtree(out)
    start, first_s = time.perf_counter(), None
    process = subprocess.Popen(script("train", *options, epochs), stdout=subprocess.DEVNULL)
    while process.poll() is None and first_s is None:
        if any(state.get("batch") for state in _states(out)):
            first_s = time.perf_counter() - start
        time.sleep(0.01)
    process.wait()
    _check_ended(process)
    if first_s is None:
        raise UserError("run/train.py ended before its first batch was seen; use more --rounds")
    (timing,) = (json.loads(path.read_text()) for path in out.glob("*/*/timing.json"))
    (config,) = (json.loads(path.read_text()) for path in out.glob("*/*/config.json"))
    return first_s, timing["epochs"], config


def train(rounds):
    """Epochs of tcn by run/train.py against plain torch; the time to the first batch."""
    cache = simulated.cache_with_margins()
    first_s, epochs, config = _timed_run(cache, simulated.FOLDER / "experiments", rounds + 1)
    mine = [1 / entry["windows_per_second"] for entry in epochs[1:]]
    windows = len(cache) // BATCH * BATCH
    theirs = [seconds / windows for seconds in plain_epochs(cache, max(1, rounds // 2))]
    speed = f"{1 / statistics.median(mine):,.0f} windows/s"
    note = f"{config['precision']}, {speed}, validation included"
    good = report("train tcn, a window", mine, theirs, 4, note=note)
    share = min(entry["model_share"] for entry in epochs)
    memory = max(entry["memory"] for entry in epochs)
    good &= report_figure(f"{first_s:.1f} s", "to the first batch, goal < 5 s", first_s < 5)
    in_model = f"{100 * share:.1f} %"
    good &= report_figure(in_model, "of an epoch in the model, goal >= 90 %", share >= 0.9)
    return _report_memory(memory) and good


def _report_memory(size):
    return report_figure(f"{size / 1e6:.0f} MB", "of its own memory, goal < 1500 MB", size < 1.5e9)


def _trained_for(seconds, folder, settle_s=3):
    """Trains from the caches of a folder. -> (seconds a window once settled, peak bytes)"""
    out = folder / "experiments"
    shutil.rmtree(out, ignore_errors=True)
    options = ("--cache", folder, "--out", out, *ONE, "--keep-copies", "--amp", "off")
    command = script("train", "--challenge", 1, *options)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    seen, whole_s = [], settle_s + seconds
    lasted = lambda: seen[-1]["updated"] - seen[0]["updated"] if seen else 0
    while process.poll() is None and lasted() < whole_s:
        time.sleep(0.05)
        for state in _states(out):
            if state.get("batch") and (not seen or state["updated"] > seen[-1]["updated"]):
                seen.append(state)
    process.terminate()
    process.wait()
    _check_ended(process)
    if not seen or seen[-1]["epoch"] != 1:
        raise UserError(f"an epoch of the cache in {folder} took less than {whole_s} s")
    first = next(state for state in seen if state["updated"] >= seen[0]["updated"] + settle_s)
    windows = BATCH * (seen[-1]["batch"] - first["batch"])
    each = (seen[-1]["updated"] - first["updated"]) / windows
    return each, max(state["memory"] for state in seen)


def large(rounds, seconds=20):
    """run/train.py with a cache of 1.5 times the memory, against one in the page cache.

    It should be no slower; 0.95 allows for the differences between equal runs.
    """
    source, memory = simulated.cache_with_margins().paths[0], limit_bytes()
    few = simulated.cache_of_zeros(source, memory // 5)
    many = simulated.cache_of_zeros(source, memory * 3 // 2)
    peaks = []

    def from_page_cache():
        subprocess.run(["cat", few / source.name], check=True, stdout=subprocess.DEVNULL)
        return from_folder(few)

    def from_folder(folder):
        each, peak = _trained_for(seconds, folder)
        peaks.append(peak)
        return each

    mine, theirs = in_turn(rounds, lambda: from_folder(many), from_page_cache)
    sizes = [f"{(folder / source.name).stat().st_size / 1e9:.0f} GB" for folder in (many, few)]
    speed = f"{1 / statistics.median(mine):,.0f} windows/s"
    note = f"{sizes[0]}, {speed}; its peer: the same from {sizes[1]} in the page cache"
    good = report("train from a cache > memory", mine, theirs, 0.95, note=note)
    return _report_memory(max(peaks)) and good
