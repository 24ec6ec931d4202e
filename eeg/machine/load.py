"""How much of the processor other processes take: what all used, less this one and its children.

It matters because threads that wait for each other spin: beside another torch process a window took
348 ms with two threads, 2.7 ms with one. Imports nothing heavy: begun before torch is imported, it
costs no extra time.
"""

import os
import time
from pathlib import Path

SHORTEST = 0.3  # s over which a look averages: the system counts in hundredths
IDLE = (3, 4)  # columns of /proc/stat: idle, waiting for a disk
NICE = 1  # time of processes that give way to others
BUSY = 0.5  # cores, of up to five: with one more thread than free cores, that one would mostly wait


class Load:
    """Begins when it is made; `cores` looks. root: where /proc lies."""

    def __init__(self, root=Path("/")):
        self.root, self.used, self.own = root, used_seconds(root), own_seconds()
        self.began = time.monotonic()

    def cores(self) -> float:
        """Mean number of cores that others, also a virtual machine's host, kept busy since."""
        if self.used is None:  # macOS: the last minute's runnable processes
            return os.getloadavg()[0]
        time.sleep(max(0, SHORTEST - (time.monotonic() - self.began)))
        used, own = used_seconds(self.root) - self.used, own_seconds() - self.own
        return max(0.0, (used - own) / (time.monotonic() - self.began))


def own_seconds() -> float:
    """Seconds of this process, and of its children that have ended."""
    return sum(os.times()[:4])


def used_seconds(root: Path = Path("/")) -> float | None:
    """Seconds that this process's CPUs have worked since the machine started; None if unknown."""
    try:
        lines = (Path(root) / "proc/stat").read_text().splitlines()
    except FileNotFoundError:
        return None
    ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    left_out = IDLE if os.getpriority(os.PRIO_PROCESS, 0) > 0 else (NICE, *IDLE)
    ticks = 0
    for name, *columns in (line.split() for line in lines):
        if name in ours:  # the columns after the eighth are part of the first two
            ticks += sum(int(column) for i, column in enumerate(columns[:8]) if i not in left_out)
    return ticks / os.sysconf("SC_CLK_TCK")


def is_busy(busy: float, cores: int) -> bool:
    """Whether other processes that keep `busy` of `cores` cores at work disturb a measurement."""
    return busy >= max(BUSY, cores / 10)
