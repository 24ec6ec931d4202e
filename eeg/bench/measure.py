"""How the rows of run/bench.py measure and print."""

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from eeg import cli

ROOT = Path(__file__).resolve().parents[2]


# ------------------------------------------------------------------------------------- measuring


def in_turn(rounds: int, *works: Callable) -> list[list[float]]:
    """Runs each work once to warm up, then all in turn, `rounds` times. -> lists of seconds.

    A work that returns a number has measured its own seconds. Any other is timed here.
    """
    times = [[] for _ in works]
    for _ in range(rounds + 1):
        for work, own in zip(works, times):
            start = time.perf_counter()
            seconds = work()
            timed = time.perf_counter() - start
            own.append(seconds if isinstance(seconds, (int, float)) else timed)
    return [own[1:] for own in times]


def median_seconds(work: Callable, times: int = 1) -> float:
    """The median time of a work, after one call to warm up."""
    return statistics.median(in_turn(times, work)[0])


def peak_bytes(work: Callable) -> int:
    """By how much this process's own memory grows at most while it does the work three times."""
    before = peak = cli.anonymous_memory()
    done = threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.0005):
            peak = max(peak, cli.anonymous_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(3):
        work()
    done.set()
    watcher.join()
    return peak - before


def training_step(network, x, y) -> Callable:
    """A function that makes one training step of a network, with AdamW."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(network(x), y).backward()
        optimizer.step()

    return step


def inference(network, *inputs) -> Callable:
    """A function that computes a network's answer."""
    network.eval()

    def answer():
        with torch.inference_mode():
            network(*inputs)

    return answer


def script(name: str, *arguments) -> list[str]:
    """The command line of a script in run/."""
    return [sys.executable, str(ROOT / "run" / f"{name}.py"), *map(str, arguments)]


def run_script(name: str, *arguments) -> None:
    """Runs a script in run/ in silence. Raises CalledProcessError."""
    subprocess.run(script(name, *arguments), check=True, stdout=subprocess.DEVNULL)


# -------------------------------------------------------------------------------------- printing

HEADING = f"{'simulated data':<30}{'ours: median (range)':<26}{'peer':<26}ratio"


def duration(times: list[float]) -> str:
    """A median with its range, in a unit that fits."""
    median = statistics.median(times)
    units = (("s", 1), ("ms", 1e3), ("us", 1e6))
    unit, scale = next((u, s) for u, s in units if median * s >= 1 or u == "us")
    return f"{median * scale:.3g} {unit} ({min(times) * scale:.3g}..{max(times) * scale:.3g})"


def megabytes(sizes: list[float]) -> str:
    return f"{statistics.median(sizes) / 1e6:.3g} MB"


def verdict(met: bool) -> str:
    return "met" if met else "NOT MET"


def times_floor(ours: list[float], size: int) -> str:
    """A note: how many times as long as a copy of `size` bytes in memory by one thread takes."""
    source, target = np.ones(max(size, 1), np.uint8), np.zeros(max(size, 1), np.uint8)
    floor_s = median_seconds(lambda: np.copyto(target, source), 5)
    return f"{statistics.median(ours) / floor_s:.1f} x floor"


def report(
    name: str,
    ours: list[float],
    theirs: list[float] | None = None,
    goal: float | None = None,
    at_most: bool = False,
    same: bool = True,
    note: str = "",
    show: Callable = duration,
) -> bool:
    """Prints a line of the table. -> whether the results are the same and the goal is met.

    The ratio of medians is peer / ours and the goal its minimum; with at_most it is ours / peer and
    the goal its maximum.
    """
    ratio, met = None, True
    if theirs:
        ratio = statistics.median(theirs) / statistics.median(ours)
        ratio = 1 / ratio if at_most else ratio
    if goal is not None:
        met = ratio <= goal if at_most else ratio >= goal
    line = f"{name:<30}{show(ours):<26}{show(theirs) if theirs else '-':<26}"
    line += "-      " if ratio is None else f"{ratio:5.2f}  " if at_most else f"{ratio:5.1f}x "
    if goal is not None:
        line += f"goal {f'<= {goal:g}' if at_most else f'{goal:g}x'} {verdict(met)}"
    if not same:
        line += "  DIFFERENT RESULTS"
    print(line + (f"  {note}" if note else ""), flush=True)
    return met and same


def report_limit(name: str, times: list[float], limit_s: float) -> bool:
    """Prints a line for a time without a peer. -> whether it is below its limit."""
    met = statistics.median(times) < limit_s
    report(name, times, note=f"goal < {limit_s:g} s {verdict(met)}")
    return met


def report_figure(figure: str, meaning: str, met: bool) -> bool:
    """Prints a figure that is no time below the line it belongs to. -> met."""
    print(f"  {figure} {meaning} {verdict(met)}")
    return met
