"""Runs a command in a detached tmux session, which outlives the terminal and the connection.

The session is called eeg-NAME and ends with the command. What the command prints goes to its window
and to a log, whose last line is the exit code.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from eeg import UserError

# Carried over: a tmux server that runs already would give the environment that it was started in.
VARIABLES = re.compile(
    "PATH|PYTHONPATH|LD_LIBRARY_PATH|VIRTUAL_ENV|CONDA_PREFIX|LANG|"
    "(EEG|OMP|MKL|OPENBLAS|CUDA|HIP|HSA|ROCR|MIOPEN|GPU|PYTORCH|TORCH|NCCL)_.*"
)
WATCHED = 3.0  # s for which a command is watched: bad arguments and missing files show by then
ENDED = "ended with exit code"


def detach(name: str, folder: Path) -> str:
    """Start this command line, without --tmux, in a session. -> as `start`"""
    words = [word for word in sys.argv[1:] if word != "--tmux"]
    return start(name, [sys.executable, os.path.abspath(sys.argv[0]), *words], folder)


def start(name: str, command: Sequence, folder: Path = Path(), watched: float = WATCHED) -> str:
    """Run `command` in a new session, in this working directory and environment. -> how to attach

    folder: where the log lies. If a session eeg-NAME exists, the new one is eeg-NAME-2, and so on.
    Raises UserError without tmux, and where the command fails within the first seconds.
    """
    if not shutil.which("tmux"):
        instead = f"nohup {shlex.join(map(str, command))} &"
        get = "on Debian or Ubuntu: apt-get install tmux"
        raise UserError(f"there is no tmux; {get}. Or: {instead}")
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    plain = re.sub(r"[^\w-]+", "_", name)  # tmux has a meaning for . and :
    log, session = launch(plain, command, folder)
    end = time.monotonic() + watched
    while time.monotonic() < end:
        time.sleep(0.05)
        if tmux("has-session", "-t", f"={session}").returncode:
            text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            lines = text.splitlines()
            if not lines or lines[-1] != f"{ENDED} 0":
                said = " / ".join(lines[-3:]) or "without a word"
                raise UserError(f"the command ended at once: {said} (log: {log})")
            return f"the command has ended; log: {log}"
    watch = f"watch it with: tmux attach -t {session}  (leave it with Ctrl-B D)"
    return f"runs in tmux session {session}; {watch}\nlog: {log}"


def launch(name: str, command: Sequence, folder: Path) -> tuple[Path, str]:
    """Start the first free session of this name. -> (log, session)"""
    kept = [variable for variable in os.environ if VARIABLES.fullmatch(variable)]
    variables = [f"{variable}={os.environ[variable]}" for variable in kept]
    words = shlex.join(["env", *variables, "PYTHONUNBUFFERED=1", *map(str, command)])
    for number in range(1, 100):
        session = f"eeg-{name}" + (f"-{number}" if number > 1 else "")
        log = folder / f"{session}_{time.strftime('%Y%m%d_%H%M%S')}.log"
        # The command itself answers Ctrl-C and a closed window, and its last words still reach the
        # log. Only the outer shell dies of a closed window: then those within are told of it.
        tee = f"trap '' INT HUP; exec tee -a {shlex.quote(str(log))}"
        line = f"trap : INT; {{ trap : INT HUP; {words}; echo {ENDED} $?; }} 2>&1 | {{ {tee}; }}"
        size = ("-x", "200", "-y", "50")
        done = tmux("new-session", "-d", "-s", session, *size, "-c", os.getcwd(), "sh", "-c", line)
        if not done.returncode:
            return log, session
        if "duplicate session" not in done.stderr:
            why = done.stderr.strip() or f"exit code {done.returncode}"
            raise UserError(f"tmux starts no session: {why}")
    end_some = f"end some: tmux ls, tmux kill-session -t eeg-{name}"
    raise UserError(f"sessions eeg-{name} to eeg-{name}-99 are all alive; {end_some}")


def tmux(*arguments: str) -> subprocess.CompletedProcess:
    how: dict = {"encoding": "utf-8", "errors": "surrogateescape", "stdin": subprocess.DEVNULL}
    return subprocess.run(["tmux", *arguments], capture_output=True, **how)
