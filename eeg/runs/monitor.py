"""What run/monitor.py shows: runs, what is wrong with them, how busy the cards are. Imports nothing
heavy.
"""

import json
import math
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import TextWrapper

from eeg import UserError, cli
from eeg.runs.run import Run

BARS = "▁▂▃▄▅▆▇█"
QUIET_S = 60  # without an update after which a run may hang; it writes one every few seconds
COLUMNS = "run status epoch best at windows/s left device memory recovered validation".split()
LEFT = ("run", "status", "device", "validation")  # aligned left


def sparkline(values: Sequence[float], width: int = 16) -> str:
    """Numbers as a line of bars; beyond `width`, means of neighbours."""
    if len(values) > width:
        edges = [len(values) * i // width for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in zip(edges, edges[1:])]
    if not values:
        return ""
    low, high = min(values), max(values)
    if low == high:
        return BARS[3] * len(values)
    return "".join(BARS[round((value - low) / (high - low) * 7)] for value in values)


@dataclass
class Look:
    """How a run is at one moment."""

    run: Run
    status: str  # as Run's, or "unreadable"
    cells: dict[str, str]  # what the COLUMNS show, where there is something
    remarks: list[str]  # what is wrong with it


def look(run: Run) -> Look:
    """Look at a run; one that cannot be read is shown as such."""
    try:
        return Look(run, run.status, _cells(run), _remarks(run))
    except UserError as e:
        return Look(run, "unreadable", {"run": run.name, "status": "unreadable"}, [str(e)])


def _cells(run):
    state, running = run.state, run.status == "running"
    epoch, best = run.best
    cells = {"run": run.name, "status": run.status}
    if state.get("epoch") is not None:
        cells["epoch"] = f"{state['epoch']}/{state.get('epochs', '?')}"
        if running and state.get("batches"):
            cells["epoch"] += f" {100 * state.get('batch', 0) // state['batches']:2d} %"
    if epoch:
        values = [value for _, value in run.curve]
        course = f"{run.metric} {values[0]:.3f} {sparkline(values)} {values[-1]:.3f}"
        cells |= {"best": f"{best:.4f}", "at": str(epoch), "validation": course}
    if running and state.get("windows_per_second") is not None:
        cells["windows/s"] = f"{state['windows_per_second']:,.0f}"
    if running and state.get("seconds_left") is not None:
        cells["left"] = cli.clock(state["seconds_left"])
    if state.get("device"):
        cells["device"] = str(state["device"])
    if state.get("memory"):
        cells["memory"] = f"{state['memory'] / 1e9:.2f} GB"
    if run.recoveries:
        cells["recovered"] = str(sum(run.recoveries.values()))
    return cells


def _remarks(run):
    """What is wrong, and the command that helps; nothing where all is well."""
    reason, silent_s = run.state.get("reason"), time.time() - run.updated
    silence = cli.clock(silent_s)
    if run.status == "running":
        if silent_s <= QUIET_S:
            return []
        return [f"no update for {silence}: it may hang; its log: {run.folder / 'log.txt'}"]
    if run.status == "died":
        what = f"its process is gone, its last update was {silence} ago"
    elif run.status == "finished" and not run.finished:
        what = "finished, but its weights file is gone"
    elif run.status in ("stopped", "failed"):
        what = f"{run.status}: {reason}" if reason else run.status
    else:
        return [reason] if reason else []
    return [f"{what}; resume with: {run.resume}"]


def table(looks: Sequence[Look], width: int = 10**6) -> list[str]:
    """Lines: a title, then each run with its remarks, wrapped at `width`. Omits empty columns."""
    filled = {"run", "status"}.union(*(one.cells for one in looks))
    used = [name for name in COLUMNS if name in filled]
    rows = [dict(zip(used, used)), *(one.cells for one in looks)]
    widths = {name: max(len(cells.get(name, "")) for cells in rows) for name in used}

    def line(cells):
        pad = lambda name: str.ljust if name in LEFT else str.rjust
        parts = [pad(name)(cells.get(name, ""), widths[name]) for name in used]
        return "  ".join(parts).rstrip()

    wrapper = TextWrapper(width, " " * 4, " " * 4, break_on_hyphens=False)
    title, *rows = map(line, rows)
    lines = [title]
    for one, row in zip(looks, rows):
        lines += [row, *(part for text in one.remarks for part in wrapper.wrap(text))]
    return lines


def sentence(one: Look) -> list[str]:
    """The same of one run as lines for a log."""
    run, status, *others = one.cells.items()
    parts = [run[1], status[1], *(f"{name} {value}" for name, value in others)]
    return ["  ".join(parts), *(f"    {remark}" for remark in one.remarks)]


def counts(looks: Sequence[Look]) -> str:
    """How many runs have which status, in a line."""
    found = Counter(one.status for one in looks).most_common()
    statuses = ", ".join(f"{n} {status}" for status, n in found)
    return cli.counted(len(looks), "run") + (f": {statuses}" if found else "")


def events(run: Run) -> list[str]:
    """What the run got over, as lines in the order of its files."""
    lines = []
    for event in run.history["events"]:
        where = f"epoch {event['epoch']}, batch {event.get('batch', '?')}"
        lines.append(f"  {where}  {event['kind']}: {event['text']}")
    for event in run.timing["events"]:
        where = f"{cli.moment(event['when'])}, epoch {event.get('epoch', '?')}"
        lines.append(f"  {where}  {event['kind']}: {event['text']}")
    return lines


class Gpu:
    """Asks rocm-smi and nvidia-smi how busy the cards are; not again one that does not answer."""

    QUERY = "--query-gpu=utilization.gpu,memory.used,memory.total,temperature.gpu"
    COMMANDS = {
        "rocm-smi": ["rocm-smi", "--showuse", "--showmeminfo", "vram", "--showtemp", "--json"],
        "nvidia-smi": ["nvidia-smi", QUERY, "--format=csv,noheader,nounits"],
    }

    def __init__(self, timeout_s: float = 2.0, commands: dict[str, list] | None = None):
        self.timeout_s = timeout_s
        self.commands = dict(self.COMMANDS if commands is None else commands)

    def lines(self) -> list[str]:
        """One line a card; one line where a tool did not answer."""
        found: list[str] = []
        for tool, command in list(self.commands.items()):
            text, problem = self._ask(command)
            if text is None:
                del self.commands[tool]
                found += [f"gpu     {tool} {problem}"] * bool(problem)
                continue
            try:
                found += _rocm(text) if tool == "rocm-smi" else _nvidia(text)
            except ValueError:
                del self.commands[tool]
                answer = " ".join(text.split())[:60]
                found.append(f"gpu     the answer of {tool} cannot be read: {answer}")
        return found

    def _ask(self, command):
        """-> (its answer, None), or (None, why there is none; "" where the tool is missing)"""
        quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        text = {"encoding": "utf-8", "errors": "replace"}
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, **quiet, **text)
        except OSError:
            return None, ""
        try:
            answer, _ = process.communicate(timeout=self.timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()  # but do not wait: a process that a crashed driver holds never ends
            return None, f"does not answer within {self.timeout_s:g} s: the driver may hang"
        if process.returncode:
            return None, f"says there is no usable card (exit {process.returncode})"
        return answer, None


def _line(card, load, used, total, celsius):
    parts = [f"{load:.0f} % busy"] if math.isfinite(load) else []
    parts += [f"{used / 1e9:.1f} of {total / 1e9:.1f} GB"] if math.isfinite(used + total) else []
    parts += [f"{celsius:.0f} °C"] if math.isfinite(celsius) else []
    return f"gpu {card}   {', '.join(parts) or 'load unknown'}"


def _number(text):
    """NaN for what a card does not know: [N/A], [Not Supported]."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def _nvidia(text):
    rows = [line.split(",") for line in text.strip().splitlines()]
    if any(len(cells) != 4 for cells in rows):
        raise ValueError
    lines = []
    for i, cells in enumerate(rows):
        load, used, total, celsius = (_number(cell.strip()) for cell in cells)
        lines.append(_line(i, load, used * 2**20, total * 2**20, celsius))
    return lines


def _rocm(text):
    cards = json.loads(text[text.index("{") :])  # warnings may stand before it
    lines = []
    for card, said in cards.items():
        if card.startswith("card"):
            load, used = _first(said, "GPU use"), _first(said, "VRAM Total Used")
            total = _first(said, "VRAM Total Memory")
            celsius = _first(said, "Temperature (Sensor edge", "Temperature")
            lines.append(_line(card[4:], load, used, total, celsius))
    return lines


def _first(said, *starts):
    """The value of the first key that begins so: rocm-smi ends them differently by version."""
    found = (said[key] for start in starts for key in said if key.startswith(start))
    return _number(next(found, None))
