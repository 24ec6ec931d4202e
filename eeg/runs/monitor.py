"""What run/monitor.py shows of runs: a table, what is wrong with which and what to do, and how busy the GPU is. Nothing heavy is imported."""

import json
import math
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from textwrap import wrap

from eeg import UserError, cli
from eeg.runs.run import Run

BARS = "▁▂▃▄▅▆▇█"
QUIET = 60  # s without a word after which a run that seems alive is asked about; it speaks every few seconds
COLUMNS = (
    "run",
    "status",
    "epoch",
    "best",
    "at",
    "windows/s",
    "left",
    "device",
    "memory",
    "recovered",
    "validation",
)


def sparkline(values, width=16):
    """The course of some numbers as a line of bars, lowest to highest; of more than `width`, means of neighbours."""
    if len(values) > width:
        edges = [len(values) * i // width for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in zip(edges, edges[1:])]
    if not values:
        return ""
    low, high = min(values), max(values)
    return "".join(
        BARS[round((value - low) / (high - low) * 7) if high > low else 3] for value in values
    )


def duration(seconds):
    """0:07, 12:30, 3:05:00, 2 d 4 h."""
    seconds = round(seconds)
    if seconds >= 86400:
        return f"{seconds // 86400} d {seconds % 86400 // 3600} h"
    minutes, seconds = divmod(seconds, 60)
    return (
        f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
        if minutes >= 60
        else f"{minutes}:{seconds:02d}"
    )


@dataclass
class Look:
    """One look at a run: its status ("unreadable" where its files say nothing useful), its cells of the table, and what is wrong with it."""

    run: Run
    status: str
    cells: dict  # of COLUMNS those that have something to say
    remarks: list


def look(run):
    """-> Look. A run that cannot be read is shown as such."""
    try:
        return Look(run, run.status, _cells(run), _remarks(run))
    except UserError as e:
        return Look(run, "unreadable", {"run": run.name, "status": "unreadable"}, [str(e)])


def _cells(run):
    state, running = run.state, run.status == "running"
    epoch, best = run.best
    cells = {"run": run.name, "status": run.status}
    if state.get("epoch") is not None:
        cells["epoch"] = f"{state['epoch']}/{state.get('epochs', '?')}" + (
            f" {100 * state.get('batch', 0) // state['batches']:2d} %"
            if running and state.get("batches")
            else ""
        )
    if epoch:
        values = [value for _, value in run.curve]
        cells |= {
            "best": f"{best:.4f}",
            "at": str(epoch),
            "validation": f"{run.metric} {values[0]:.3f} {sparkline(values)} {values[-1]:.3f}",
        }
    if running and state.get("windows_per_second") is not None:
        cells["windows/s"] = f"{state['windows_per_second']:,.0f}"
    if running and state.get("seconds_left") is not None:
        cells["left"] = duration(state["seconds_left"])
    if state.get("device"):
        cells["device"] = str(state["device"])
    if state.get("memory"):
        cells["memory"] = f"{state['memory'] / 1e9:.2f} GB"
    if run.recoveries:
        cells["recovered"] = str(sum(run.recoveries.values()))
    return cells


def _remarks(run):
    """What a person should know, and the command that helps: lines of text, none where all is well."""
    reason, silent = run.state.get("reason"), time.time() - run.updated
    if run.status == "running":
        return (
            [f"no word for {duration(silent)}: it may hang; its log: {run.folder / 'log.txt'}"]
            if silent > QUIET
            else []
        )
    if run.status == "died":
        return [
            f"its process is gone, its last word was {duration(silent)} ago; go on with: {run.resume}"
        ]
    if run.status == "finished" and not run.finished:
        return [f"finished, but its weights file is gone; go on with: {run.resume}"]
    if run.status in ("stopped", "failed"):
        return [f"{run.status}{f': {reason}' if reason else ''}; go on with: {run.resume}"]
    return [reason] if reason else []


def table(looks, width=10**6):
    """-> lines: a title, then the runs, each followed by what is wrong with it, wrapped at `width`. Columns in which no run has anything are left out."""
    used = [
        name
        for name in COLUMNS
        if name in ("run", "status") or any(name in one.cells for one in looks)
    ]
    rows = [dict(zip(used, used)), *(one.cells for one in looks)]
    widths = {name: max(len(cells.get(name, "")) for cells in rows) for name in used}
    align = lambda cells, name: (
        str.ljust if name in ("run", "status", "device", "validation") else str.rjust
    )(cells.get(name, ""), widths[name])
    lines = ["  ".join(align(cells, name) for name in used).rstrip() for cells in rows]
    for i in range(len(looks) - 1, -1, -1):
        lines[i + 2 : i + 2] = [
            part
            for text in looks[i].remarks
            for part in wrap(
                text, width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
            )
        ]
    return lines


def sentence(one):
    """-> lines: the same of one run, for a log."""
    cells = dict(one.cells)
    parts = [
        cells.pop("run"),
        cells.pop("status"),
        *(f"{name} {value}" for name, value in cells.items()),
    ]
    return ["  ".join(parts), *(f"    {remark}" for remark in one.remarks)]


def counts(looks):
    """How many runs are in which state, in a line."""
    found = Counter(one.status for one in looks)
    return (
        f"{cli.counted(len(looks), 'run')}"
        + (": " if found else "")
        + ", ".join(f"{n} {status}" for status, n in found.most_common())
    )


def events(run):
    """-> lines: all that the run got over, oldest first as its files have it."""
    lines = [
        f"  epoch {event['epoch']}, batch {event.get('batch', '?')}  {event['kind']}: {event['text']}"
        for event in run.history["events"]
    ]
    for event in run.timing["events"]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["when"]))
        lines.append(f"  {when}, epoch {event.get('epoch', '?')}  {event['kind']}: {event['text']}")
    return lines


class Gpu:
    """Asks rocm-smi and nvidia-smi how busy the cards are. One that is not there, or does not answer in time, is not asked again."""

    COMMANDS = {
        "rocm-smi": ["rocm-smi", "--showuse", "--showmeminfo", "vram", "--showtemp", "--json"],
        "nvidia-smi": [
            "nvidia-smi",
            "--query-gpu=utilization.gpu,memory.used,memory.total,temperature.gpu",
            "--format=csv,noheader,nounits",
        ],
    }

    def __init__(self, timeout=2.0, commands=None):
        self.timeout, self.commands = timeout, dict(self.COMMANDS if commands is None else commands)

    def lines(self):
        """One line a card; one line where a tool did not answer."""
        found = []
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
                found.append(
                    f"gpu     {tool} said something that is not understood: {' '.join(text.split())[:60]}"
                )
        return found

    def _ask(self, command):
        """-> (what it says, None), or (None, why not; "" where the tool is not there)."""
        try:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
                encoding="utf-8",
                errors="replace",
            )
        except OSError:
            return None, ""
        try:
            text, _ = process.communicate(timeout=self.timeout)
        except subprocess.TimeoutExpired:
            process.kill()  # and not waited for: a process that a crashed driver holds never ends
            return None, f"does not answer within {self.timeout:g} s: the driver may hang"
        return (
            (text, None)
            if process.returncode == 0
            else (None, f"says there is no usable card (exit {process.returncode})")
        )


def _line(card, load, used, total, celsius):
    parts = [f"{load:.0f} % busy"] if math.isfinite(load) else []
    parts += [f"{used / 1e9:.1f} of {total / 1e9:.1f} GB"] if math.isfinite(used + total) else []
    parts += [f"{celsius:.0f} °C"] if math.isfinite(celsius) else []
    return f"gpu {card}   {', '.join(parts) or 'says nothing of its load'}"


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
    return [
        _line(i, load, used * 2**20, total * 2**20, celsius)
        for i, (load, used, total, celsius) in enumerate(
            [_number(c.strip()) for c in cells] for cells in rows
        )
    ]


def _rocm(text):
    """Its keys differ between versions in their ends: the first that begins with what is wanted."""
    lines = []
    for card, said in json.loads(text[text.index("{") :]).items():  # warnings may stand before it
        if card.startswith("card"):
            number = lambda *starts: next(
                (
                    _number(value)
                    for start in starts
                    for key, value in said.items()
                    if key.startswith(start)
                ),
                math.nan,
            )
            lines.append(
                _line(
                    card[4:],
                    number("GPU use"),
                    number("VRAM Total Used"),
                    number("VRAM Total Memory"),
                    number("Temperature (Sensor edge", "Temperature"),
                )
            )
    return lines
