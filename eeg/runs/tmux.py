"""A command in a detached tmux session, which outlives the terminal, the connection and the process
that started it.

The session is called eeg-NAME and ends with the command. What the command prints goes to its window
and to a log, at whose end stands how it went.
"""

import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

from eeg import UserError

# Carried over: a tmux server that runs already would give the environment that it was started in.
VARIABLES = re.compile(
    "PATH|PYTHONPATH|LD_LIBRARY_PATH|VIRTUAL_ENV|CONDA_PREFIX|LANG|"
    "(EEG|OMP|MKL|OPENBLAS|CUDA|HIP|HSA|ROCR|MIOPEN|GPU|PYTORCH|TORCH|NCCL)_.*"
)
WATCHED = 3.0  # s for which a command is watched: bad arguments and missing files show by then
ENDED = "ended with exit code"


def start(name, command, folder=Path("."), watched=WATCHED):
    """Run `command` (a list) in a new session, in this working directory and environment.

    -> what to tell the user, with the attach command.

    folder: where the log lies, called after session and time. Where a session eeg-NAME lives
    already, the new one is eeg-NAME-2, and so on. Raises UserError where there is no tmux, where it
    refuses, and where the command fails within the first seconds.
    """
    if not shutil.which("tmux"):
        raise UserError(
            "there is no tmux; on Debian or Ubuntu: apt-get install tmux. Or: nohup "
            + shlex.join(map(str, command))
            + " &"
        )
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    log, session = launch(
        re.sub(r"[^\w-]+", "_", name), command, folder
    )  # tmux has a meaning for . and :
    end = time.monotonic() + watched
    while time.monotonic() < end:
        time.sleep(0.05)
        if tmux("has-session", "-t", f"={session}").returncode:
            lines = (
                log.read_text(encoding="utf-8", errors="replace").splitlines()
                if log.exists()
                else []
            )
            if not lines or lines[-1] != f"{ENDED} 0":
                said = " / ".join(lines[-3:]) or "without a word"
                raise UserError(f"the command ended at once: {said} (log: {log})")
            return f"the command has ended; log: {log}"
    return (
        f"runs in tmux session {session}; watch it with: tmux attach -t {session}  "
        f"(leave it with Ctrl-B D)\nlog: {log}"
    )


def launch(name, command, folder):
    """Start the first free session of this name. -> (log, session)"""
    variables = [
        f"{variable}={value}"
        for variable, value in os.environ.items()
        if VARIABLES.fullmatch(variable)
    ]
    words = shlex.join(["env", *variables, "PYTHONUNBUFFERED=1", *map(str, command)])
    for number in range(1, 100):
        session = f"eeg-{name}" + (f"-{number}" if number > 1 else "")
        log = folder / f"{session}_{time.strftime('%Y%m%d_%H%M%S')}.log"
        # Ctrl-C and a closed window are the command's to answer, and its last words still reach the
        # log. The outer shell alone dies of a closed window: only then are those within told of it.
        tee = f"trap '' INT HUP; exec tee -a {shlex.quote(str(log))}"
        line = f"trap : INT; {{ trap : INT HUP; {words}; echo {ENDED} $?; }} 2>&1 | {{ {tee}; }}"
        size = ("-x", "200", "-y", "50")
        done = tmux("new-session", "-d", "-s", session, *size, "-c", os.getcwd(), "sh", "-c", line)
        if not done.returncode:
            return log, session
        if "duplicate session" not in done.stderr:
            raise UserError(
                f"tmux starts no session: {done.stderr.strip() or f'exit code {done.returncode}'}"
            )
    raise UserError(
        f"sessions eeg-{name} to eeg-{name}-99 are all alive; "
        f"end some: tmux ls, tmux kill-session -t eeg-{name}"
    )


def tmux(*arguments):
    return subprocess.run(
        ["tmux", *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        stdin=subprocess.DEVNULL,
    )
