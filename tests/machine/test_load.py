"""How busy other programs keep the machine: against made-up counters, and against a process that
does nothing but work."""

import os
import subprocess
import sys
import time

import pytest

from eeg.machine import load

TICKS = os.sysconf("SC_CLK_TCK")


def counters(root, **cores):
    """Write /proc/stat: seconds of user, nice, system, idle, iowait, irq, softirq, steal of each
    CPU."""
    (root / "proc").mkdir(exist_ok=True)
    lines = [
        f"{name} " + " ".join(str(round(TICKS * seconds)) for seconds in columns) + " 5 5"
        for name, columns in cores.items()
    ]
    (root / "proc" / "stat").write_text(
        "\n".join(["cpu  1 2 3 4", *lines, "intr 1 2", "btime 17"]) + "\n"
    )


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only where a test says so: clock["own"] is this process's, clock["now"]
    everybody's."""
    now = {"own": 0.0, "now": 100.0}
    monkeypatch.setattr(load, "own_seconds", lambda: now["own"])
    monkeypatch.setattr(load.time, "monotonic", lambda: now["now"])
    monkeypatch.setattr(load.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(load.os, "sched_getaffinity", lambda pid: {0, 2})
    return now


def test_what_others_use_is_what_all_used_but_for_ones_own(tmp_path, clock):
    counters(
        tmp_path,
        cpu0=(10, 0, 1, 50, 3, 0, 0, 0),
        cpu1=(0, 0, 0, 0, 0, 0, 0, 0),
        cpu2=(5, 0, 0, 90, 0, 0, 0, 0),
    )
    look = load.Load(tmp_path)
    # within 2 s: 0 works all the time, 1.5 s of it in this process; 1 is not for this process;
    # 2 idles, waits for a disk, and works 0.25 s
    counters(
        tmp_path,
        cpu0=(11, 0, 1.25, 50, 3, 0.25, 0.25, 0.25),
        cpu1=(2, 0, 0, 0, 0, 0, 0, 0),
        cpu2=(5, 0, 0.25, 91, 3.75, 0, 0, 0),
    )
    clock["now"] += 2
    clock["own"] += 1.5
    assert look.cores() == pytest.approx((2 + 0.25 - 1.5) / 2)


def test_programs_that_give_way_do_not_count(tmp_path, clock, monkeypatch):
    counters(tmp_path, cpu0=(0, 0, 0, 0, 0, 0, 0, 0))
    monkeypatch.setattr(load.os, "getpriority", lambda which, who: 0)
    look = load.Load(tmp_path)
    counters(tmp_path, cpu0=(0, 1, 0, 0, 0, 0, 0, 0))
    clock["now"] += 1
    assert look.cores() == 0
    monkeypatch.setattr(
        load.os, "getpriority", lambda which, who: 10
    )  # who gives way itself does not see them give way
    assert look.cores() == pytest.approx(1)


def test_a_program_that_works_is_seen():
    """One that spins on a core of its own is one core more than before, as far as this machine has
    one to give."""
    quiet = load.Load()
    time.sleep(1)
    before = quiet.cores()
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)
        look = load.Load()
        used = _seconds(spinning.pid)
        time.sleep(1)
        used = _seconds(spinning.pid) - used
        assert look.cores() > 0.8 * used and (look.cores() > before or before > 1)
    finally:
        spinning.kill()
        spinning.wait()


def test_ones_own_work_and_that_of_children_is_no_load():
    """A child that works for a second is none of the others."""
    look = load.Load()
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import time; end = time.process_time() + 1\nwhile time.process_time() < end: pass",
        ],
        check=True,
    )
    own = load.own_seconds() - look.own
    assert own >= 1
    used = load.used_seconds() - look.used
    assert look.cores() == pytest.approx((used - own) / (time.monotonic() - look.began), abs=0.1)


def _seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@pytest.mark.parametrize(
    "busy, cores, shows", [(0.3, 2, False), (0.5, 2, True), (0.9, 12, False), (1.2, 12, True)]
)
def test_when_a_machine_is_busy(busy, cores, shows):
    assert load.is_busy(busy, cores) == shows
