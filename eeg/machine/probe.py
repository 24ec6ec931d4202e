"""Runs the ten checks of a device (eeg.machine.check) in a child process.

The child may crash, hang or print nonsense. Its answers are read as they come; where it dies or
stays silent, its current check has failed. An RDNA1 card under ROCm is tried without an override of
its architecture and with each of two, every time in a new child.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

import eeg
from eeg.machine.cards import amd_cards
from eeg.machine.faults import says_out_of_memory

CHECKS = (
    *("detect", "allocate", "matmul", "convolution", "batch norm", "optimiser", "amp", "memory"),
    *("transfer", "small steps"),
)
PROGRAM = (sys.executable, "-m", "eeg.machine.check")
LIMIT_S = 120  # for one check; ROCm compiles its convolutions at first use, many seconds each

# RDNA1: ROCm has no kernels for these. From ROCm 6.1 on some run as they are; 10.3.0 crashes cards
# on which 10.1.0 works.
RDNA1 = ("gfx1010", "gfx1011", "gfx1012")
OVERRIDE = "HSA_OVERRIDE_GFX_VERSION"
OVERRIDES = (None, "10.1.0", "10.3.0")  # None: without

# Why a check failed, where more than its text is needed
NO_ANSWER = "no answer"  # the child died, hung or printed nonsense
NO_MEMORY = "no memory"  # perhaps another process holds it


@dataclass
class Check:
    """How one check went."""

    name: str
    state: str  # ok, failed, skipped (makes no sense here), not run (an earlier one failed)
    text: str = ""
    seconds: float = 0.0
    cause: str = ""  # of a failure: NO_ANSWER, NO_MEMORY or ""


OnCheck = Callable[["Attempt", Check], object]


@dataclass
class Attempt:
    """The checks of one device under one setting of the environment."""

    device: str
    environment: dict[str, str | None]  # variables to set, or with None to remove
    checks: list[Check] = field(default_factory=list)
    card: dict = field(default_factory=dict)  # name, kind and count, if the child got that far

    @property
    def trusted(self) -> bool:
        """Whether it may be trained on in float32: all passed, mixed precision aside."""
        passed = [c.state in ("ok", "skipped") for c in self.checks if c.name != "amp"]
        return len(self.checks) == len(CHECKS) and all(passed)

    @property
    def failure(self) -> Check | None:
        """The first check that failed, mixed precision aside."""
        return next((c for c in self.checks if c.state == "failed" and c.name != "amp"), None)

    @property
    def setting(self) -> str:
        """The environment in words."""
        word = lambda name, value: f"without {name}" if value is None else f"{name}={value}"
        return ", ".join(word(*item) for item in self.environment.items())

    def precisions(self) -> tuple[str, ...]:
        """The precisions it may use, fp32 first."""
        mixed = any(check.name == "amp" and check.state == "ok" for check in self.checks)
        half = "bf16" if self.device == "cpu" else "fp16"
        return ("fp32", half) if mixed else ("fp32",)


def inspect(
    device: str,
    environment: Mapping[str, str | None] | None = None,
    on_check: OnCheck | None = None,
    program: Sequence[str] = PROGRAM,
    limit_s: float = LIMIT_S,
) -> Attempt:
    """Run the checks of a device ("cuda:0", "cpu") in a child process.

    environment: as in Attempt. on_check(attempt, check) is called as each check ends. program: what
    the child runs. limit_s: how long one check may take.
    """
    attempt = Attempt(device, dict(environment or {}))

    def note(check):
        attempt.checks.append(check)
        if on_check:
            on_check(attempt, check)

    while len(attempt.checks) < len(CHECKS):
        _Child(attempt, note, program, limit_s).run()
        if attempt.failure:
            for name in CHECKS[len(attempt.checks) :]:
                note(Check(name, "not run"))
        # without mixed precision a card is still useful: another child runs the remaining checks
    return attempt


class _Child:
    """A child process that runs the checks `attempt` still lacks, until it ends or fails."""

    def __init__(self, attempt, note, program, limit_s):
        self.attempt, self.note, self.limit_s = attempt, note, limit_s
        self.names = CHECKS[len(attempt.checks) :]
        self.command = [*program, attempt.device, *self.names]
        self.lines = queue.SimpleQueue()
        # the current check; at first the one the child will begin with
        self.running, self.began = self.names[0], time.perf_counter()

    def run(self):
        with tempfile.TemporaryFile("w+", errors="replace") as errors:
            env = surroundings(self.attempt.environment)
            how = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
            process = subprocess.Popen(self.command, env=env, start_new_session=True, **how)
            threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()
            try:
                trouble = self._listen(process)
            finally:
                ended = kill(process)
            if self.running is None and self.attempt.checks[-1].state == "failed":
                return  # it has said so itself, and ended
            complete = len(self.attempt.checks) == len(CHECKS)
            if complete and not trouble and process.returncode == 0:
                return
            errors.seek(0)
            last_words = (errors.read().strip().splitlines() or [""])[-1].strip()
        self._note_failure(trouble or ending(process.returncode), ended, last_words, complete)

    def _read(self, stdout):
        with stdout:
            for line in stdout:
                self.lines.put(line)
        self.lines.put(None)

    def _listen(self, process):
        """Note what the child answers until it ends. -> what went wrong, in words, or None"""
        line = ""
        try:
            while (line := self.lines.get(timeout=self.limit_s)) is not None:
                said = json.loads(line)
                if "state" not in said:
                    self.running, self.began = said["check"], time.perf_counter()
                    continue
                self.attempt.card = said.pop("card", self.attempt.card)
                self.note(Check(name=said.pop("check"), **said))
                self.running = None
            process.wait(timeout=self.limit_s)  # it has closed its output, so it is ending
        except (queue.Empty, subprocess.TimeoutExpired):
            return f"no answer within {self.limit_s:g} s"
        except ValueError:
            return f"the child's answer cannot be read: {line.strip()[:100]}"
        return None

    def _note_failure(self, text, ended, last_words, complete):
        """The child did not end properly: its current check has failed."""
        if not ended:
            text += "; the child cannot be killed, the driver holds it: restart the machine"
        elif last_words:
            text += f": {last_words[:300]}"
        name = self.running
        if complete:  # all passed, then it crashed or hung as it released the device
            name, text = self.attempt.checks.pop().name, f"afterwards, {text}"
        cause = NO_MEMORY if says_out_of_memory(last_words) else NO_ANSWER
        seconds = time.perf_counter() - self.began
        name = name or CHECKS[len(self.attempt.checks)]
        self.note(Check(name, "failed", text, seconds, cause))


def surroundings(changes: Mapping[str, str | None]) -> dict[str, str]:
    """The environment of a child: that of this process with `changes` and this eeg package."""
    environment = {**os.environ, **changes}
    paths = (str(Path(eeg.__file__).parents[1]), environment.get("PYTHONPATH"))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return {name: value for name, value in environment.items() if value is not None}


def kill(child: subprocess.Popen) -> bool:
    """End a child and what it started. False if it cannot be ended: it waits inside the driver."""
    if child.poll() is None:
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(child.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        child.wait(timeout=10)
    return child.returncode is not None


def ending(code: int) -> str:
    """How a process ended, in words, from its return code."""
    if code >= 0:
        return f"the child ended with exit code {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"the child died of {names.get(-code, f'signal {-code}')}"


def attempt_all(wanted: str, root: Path, *how) -> list[Attempt]:
    """Try the device wanted, or on auto ("") each card in turn. A card that passes is the last.

    how: what `inspect` takes after the environment."""
    if wanted or not (torch.version.cuda or torch.version.hip):
        return attempt_one(wanted or "mps:0", root, *how)
    attempts, index, count = [], 0, 1
    while index < count:
        attempts += attempt_one(f"cuda:{index}", root, *how)
        if attempts[-1].trusted:
            break
        index, count = index + 1, max(attempt.card.get("count", 1) for attempt in attempts)
    return attempts


def attempt_one(device: str, root: Path, *how) -> list[Attempt]:
    """Try one device as the environment is, then an RDNA1 card under ROCm with each override."""
    attempts = [inspect(device, {}, *how)]
    kinds = {attempts[0].card.get("kind"), *amd_cards(root)}
    if torch.version.hip and set(RDNA1) & kinds:
        for value in OVERRIDES:
            if value != os.environ.get(OVERRIDE) and not attempts[-1].trusted:
                attempts.append(inspect(device, {OVERRIDE: value}, *how))
    return attempts
