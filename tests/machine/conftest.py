"""A stand-in for the child process that checks a device."""

import json
import sys

import pytest

# Does the checks it is given well, but for one: python child.py DEVICE NAME ... with
# FAULT="name:what" in the environment
CHILD = """
import json, os, signal, sys, time


def say(**words):
    print(json.dumps(words), flush=True)


def abort():
    sys.stderr.write("Memory access fault by GPU node-1 on address 0x7f\\n")
    sys.stderr.flush()
    os.abort()


def hang():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(30)


def fail(text, **cause):
    say(check=name, state="failed", text=text, seconds=0.1, **cause)
    sys.exit(0)


FAULTS = {
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "abort": abort,
    "hang": hang,
    "nonsense": lambda: print("Memory: 12 GB", flush=True),
    "quiet": lambda: sys.exit(0),
    "wrong": lambda: fail("forward: 3.1e-01 away"),
    "full": lambda: fail("OutOfMemoryError: HIP out of memory", cause="no memory"),
}
device, *names = sys.argv[1:]
override = os.environ.get("HSA_OVERRIDE_GFX_VERSION")
with open(os.environ["CHILD_LOG"], "a") as log:
    log.write(json.dumps([device, names, override]) + chr(10))
at, _, what = os.environ.get("FAULT", "").partition(":")
if os.environ.get("WORKS_WITH", "") == (override or "no override"):
    at = ""
kind, count = os.environ.get("KIND", "gfx1010"), int(os.environ.get("COUNT", 1))
for name in names:
    say(check=name)
    if name == at:
        FAULTS[what]()
    card = {"card": {"name": "Navi 10", "kind": kind, "count": count}} if name == "detect" else {}
    say(check=name, state="ok", text="fine", seconds=0.1, **card)
if at == "end":
    os.close(1)
    time.sleep(30) if what == "hang" else os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    """-> (program, function that lists the children so far: [device, names, override])"""
    log, program = tmp_path / "log", tmp_path / "child.py"
    program.write_text(CHILD)
    log.touch()
    monkeypatch.setenv("CHILD_LOG", str(log))
    monkeypatch.delenv("HSA_OVERRIDE_GFX_VERSION", raising=False)
    children = lambda: [json.loads(line) for line in log.read_text().splitlines()]
    return (sys.executable, "-S", str(program)), children
