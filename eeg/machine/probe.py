"""The ten checks of a device, from outside: a child process does them (eeg.machine.check), and may crash, hang or say nonsense there.

What the child says as it goes is noted, and where it dies or stays silent the check it was at has failed. An RDNA1 card under ROCm is
tried without an override of its architecture and with each of two, every time in a new child.
"""

import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from eeg.machine.cards import amd_cards

CHECKS = (
    "detect",
    "allocate",
    "matmul",
    "convolution",
    "batch norm",
    "optimiser",
    "amp",
    "memory",
    "transfer",
    "small steps",
)
PROGRAM = (sys.executable, "-m", "eeg.machine.check")
LIMIT = 120  # s that one check may take; ROCm compiles its convolutions at first use, which takes many seconds each

# RDNA1: ROCm has no kernels for these. From ROCm 6.1 on some run as they are; 10.3.0 crashes cards on which 10.1.0 works.
RDNA1 = ("gfx1010", "gfx1011", "gfx1012")
OVERRIDE = "HSA_OVERRIDE_GFX_VERSION"
OVERRIDES = (None, "10.1.0", "10.3.0")  # None: without


@dataclass
class Check:
    """How one check went. state: ok, failed, skipped (makes no sense here), not run (an earlier one failed)."""

    name: str
    state: str
    text: str = ""
    seconds: float = 0.0


@dataclass
class Attempt:
    """The checks of one device under one setting of the environment. environment: variables to set, or with None to remove."""

    device: str
    environment: dict
    checks: list = field(default_factory=list)
    card: dict = field(default_factory=dict)  # name, kind, count: as far as the child came to say

    @property
    def trusted(self):
        """Whether float32 may be trained on it: everything went well, mixed precision aside."""
        return len(self.checks) == len(CHECKS) and all(
            check.state in ("ok", "skipped") for check in self.checks if check.name != "amp"
        )

    @property
    def failure(self):
        """The first check that failed, mixed precision aside, or None."""
        return next(
            (check for check in self.checks if check.state == "failed" and check.name != "amp"),
            None,
        )

    @property
    def setting(self):
        """The environment in words."""
        return ", ".join(
            f"without {name}" if value is None else f"{name}={value}"
            for name, value in self.environment.items()
        )

    def precisions(self):
        passed = any(check.name == "amp" and check.state == "ok" for check in self.checks)
        return ("fp32", ("bf16" if self.device == "cpu" else "fp16")) if passed else ("fp32",)


def inspect(device, environment=None, on_check=None, program=PROGRAM, limit=LIMIT):
    """Run the checks of a device ("cuda:0", "cpu") in a child process under `environment` (see Attempt). -> Attempt.

    on_check(attempt, check) is called as each check ends. program: what to run as the child. limit: s that one check may take.
    """
    attempt = Attempt(device, environment or {})

    def note(check):
        attempt.checks.append(check)
        if on_check:
            on_check(attempt, check)

    while len(attempt.checks) < len(CHECKS):
        run_child(attempt, CHECKS[len(attempt.checks) :], note, program, limit)
        if attempt.failure:
            for name in CHECKS[len(attempt.checks) :]:
                note(Check(name, "not run"))
        # without mixed precision a card is still of use: another child goes on after it
    return attempt


def run_child(attempt, names, note, program, limit):
    """Let one child run the checks called `names`, until it ends, fails, or says nothing for `limit` seconds. note(check) each."""
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        child = subprocess.Popen(
            [*program, attempt.device, *names],
            env=surroundings(attempt.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        lines = queue.SimpleQueue()

        def read():
            with child.stdout:
                for line in child.stdout:
                    lines.put(line)
            lines.put(None)

        threading.Thread(target=read, name="device check", daemon=True).start()
        running, began, trouble = (
            names[0],
            time.perf_counter(),
            "",
        )  # until it says which, it is on its way to the first
        try:
            while (line := lines.get(timeout=limit)) is not None:
                said = json.loads(line)
                if "state" not in said:
                    running, began = said["check"], time.perf_counter()
                    continue
                attempt.card = said.get("card", attempt.card)
                note(Check(said["check"], said["state"], said["text"], said["seconds"]))
                running = None
            child.wait(timeout=limit)  # it has closed its output, so it is ending
        except (queue.Empty, subprocess.TimeoutExpired):
            trouble = f"no answer within {limit:g} s"
        except ValueError:
            trouble = f"the child's answer is cut short or none: {line.strip()[:100]}"
        finally:
            free = kill(child)
        if running is None and attempt.checks[-1].state == "failed":
            return  # it has said so itself, and ended
        complete = len(attempt.checks) == len(CHECKS)
        if complete and not trouble and child.returncode == 0:
            return
        errors.seek(0)
        last_words = next(
            (line.strip() for line in reversed(errors.read().splitlines()) if line.strip()), ""
        )
    text = trouble or ending(child.returncode)
    if not free:
        text += "; the child cannot be killed, the driver holds it: the machine may need a restart"
    elif last_words:
        text += f": {last_words[:300]}"
    if complete:  # it did all, then crashed or hung as it gave the device back
        last = attempt.checks.pop()
        running, text = last.name, f"afterwards, {text}"
    note(Check(running or CHECKS[len(attempt.checks)], "failed", text, time.perf_counter() - began))


def surroundings(changes):
    """The environment of a child: this one's with `changes` (None removes), and this very eeg, whatever else is installed."""
    environment = {**os.environ, **changes}
    package = Path(importlib.util.find_spec("eeg").origin).parents[1]
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(package), *filter(None, [environment.get("PYTHONPATH")])]
    )
    return {name: value for name, value in environment.items() if value is not None}


def kill(child):
    """End a child and what it started. -> False if it cannot be ended (it waits inside the driver)."""
    if child.poll() is None:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has just ended
            pass
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        return False
    return True


def ending(code):
    """How a process ended, in words, from its return code."""
    if code >= 0:
        return f"the child ended with exit code {code}"
    try:
        return f"the child died of {signal.Signals(-code).name}"
    except ValueError:
        return f"the child died of signal {-code}"


def attempt_all(wanted, on_check, program, limit, root):
    """Try the device wanted, or on auto each card in turn, until one passes. -> the attempts, the good one last."""
    if wanted or not (torch.version.cuda or torch.version.hip):
        return attempt_one(wanted or "mps:0", on_check, program, limit, root)
    attempts, index, count = [], 0, 1
    while index < count:
        attempts += attempt_one(f"cuda:{index}", on_check, program, limit, root)
        if attempts[-1].trusted:
            break
        index, count = index + 1, max(attempt.card.get("count", 1) for attempt in attempts)
    return attempts


def attempt_one(device, on_check, program, limit, root):
    """Try one device as the environment is; an RDNA1 card under ROCm then with each override, each in a new child. -> the attempts."""
    attempts = [inspect(device, {}, on_check, program, limit)]
    if (
        torch.version.hip
        and not attempts[0].trusted
        and set(RDNA1) & {attempts[0].card.get("kind"), *amd_cards(root)}
    ):
        for value in OVERRIDES:
            if value != os.environ.get(OVERRIDE) and not attempts[-1].trusted:
                attempts.append(inspect(device, {OVERRIDE: value}, on_check, program, limit))
    return attempts
