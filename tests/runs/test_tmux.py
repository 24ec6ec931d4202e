"""Commands in detached tmux sessions, on a tmux server of the test's own."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from eeg import UserError
from eeg.runs import tmux


@pytest.fixture
def server(tmp_path, monkeypatch):
    """-> a function that lists the sessions."""
    if not shutil.which("tmux"):
        pytest.skip("no tmux")
    monkeypatch.setenv("TMUX_TMPDIR", str(tmp_path))
    monkeypatch.delenv("TMUX", raising=False)
    yield lambda: tmux.tmux("list-sessions", "-F", "#{session_name}").stdout.split()
    tmux.tmux("kill-server")


def wait(true, seconds=20):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    assert true()


def log_of(said):
    return said.rpartition("log: ")[2].strip()


def test_the_command_runs_here_with_this_environment_and_is_logged(server, tmp_path, monkeypatch):
    # a server with an environment of its own
    subprocess.run(["tmux", "new-session", "-d", "-s", "older", "sleep 30"], check=True)
    (tmp_path / "it's here").mkdir()
    monkeypatch.chdir(tmp_path / "it's here")
    monkeypatch.setenv("EEG_DATA", 'some "data" $HOME')
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    program = """
import os, sys, time
print(os.getcwd())
print(os.environ["EEG_DATA"], os.environ["PYTHONPATH"])
print(sys.argv[1:])
time.sleep(30)
"""
    command = [sys.executable, "-c", program, "--set", "a b=1"]
    said = tmux.start("c1.tcn: a b", command, tmp_path / "runs", watched=0.2)
    log = log_of(said)
    assert "tmux attach -t eeg-c1_tcn_a_b " in said
    assert log.startswith(f"{tmp_path}/runs/eeg-c1_tcn_a_b_")
    assert sorted(server()) == ["eeg-c1_tcn_a_b", "older"]
    wait(lambda: os.path.exists(log) and open(log).read().count("\n") == 3)
    lines = [f"{tmp_path}/it's here", 'some "data" $HOME /somewhere', "['--set', 'a b=1']", ""]
    assert open(log).read().split("\n") == lines


def test_a_name_in_use_gives_the_next(server, tmp_path):
    for _ in range(3):
        tmux.start("twin", ["sleep", "100"], tmp_path, watched=0)
    assert sorted(server()) == ["eeg-twin", "eeg-twin-2", "eeg-twin-3"]


def test_it_survives_the_death_of_all_who_started_it(server, tmp_path):
    program = """
import time
from eeg.runs import tmux
print(tmux.start("orphan", ["sleep", "100"], watched=0), flush=True)
time.sleep(30)
"""
    alone = {"cwd": tmp_path, "start_new_session": True}
    command = [sys.executable, "-c", program]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **alone)
    parent.stdout.readline()
    os.killpg(parent.pid, signal.SIGKILL)
    parent.wait()
    assert server() == ["eeg-orphan"]


def test_last_words_reach_the_log_after_ctrl_c(server, tmp_path):
    program = """
import time
try:
    print("up"); time.sleep(30)
except KeyboardInterrupt:
    time.sleep(0.3); print("saved")
"""
    log = log_of(tmux.start("stop", [sys.executable, "-c", program], tmp_path, watched=0))
    wait(lambda: os.path.exists(log) and "up" in open(log).read())
    tmux.tmux("send-keys", "-t", "eeg-stop", "C-c")
    wait(lambda: not server())
    assert open(log).read() == "up\nsaved\nended with exit code 0\n"


def test_a_closed_window_lets_the_command_finish(server, tmp_path):
    program = """
import signal, time
def end(*_):
    time.sleep(0.3); print("saved"); raise SystemExit
signal.signal(signal.SIGHUP, end); print("up"); time.sleep(30)
"""
    log = log_of(tmux.start("closed", [sys.executable, "-c", program], tmp_path, watched=0))
    wait(lambda: os.path.exists(log) and "up" in open(log).read())
    tmux.tmux("kill-session", "-t", "eeg-closed")
    wait(lambda: open(log).read() == "up\nsaved\nended with exit code 0\n")


def test_a_command_that_fails_at_once_is_told_of(server, tmp_path):
    with pytest.raises(UserError, match="no cache here / ended with exit code 1 .*eeg-bad_"):
        tmux.start(
            "bad", [sys.executable, "-c", "raise SystemExit('error: no cache here')"], tmp_path
        )
    assert "has ended" in tmux.start("quick", ["true"], tmp_path)


def test_without_tmux_and_with_one_that_refuses(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="apt-get install tmux"):
        tmux.start("name", ["true"], tmp_path)
    refusal = "error connecting to /tmp/tmux-0/default (Permission denied)"
    (tmp_path / "tmux").write_text(f"#!/bin/sh\necho '{refusal}' >&2; exit 1\n")
    (tmp_path / "tmux").chmod(0o755)
    with pytest.raises(UserError, match="tmux starts no session: error connecting"):
        tmux.start("name", ["true"], tmp_path)
