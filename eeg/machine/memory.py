"""How much memory this process has left: the machine's, or that of a control group around it.

Cached files do not count as used: the system drops them when memory is needed, and a memory-mapped
cache of windows fills all memory with them. Only Linux tells; elsewhere `Watch` says so.
"""

import resource
from dataclasses import dataclass
from pathlib import Path

from eeg import cli
from eeg.machine import cgroup

# Files of a control group: bytes in use, limits, and the fields of memory.stat that can be dropped.
# Beyond `high` the kernel slows a group to a crawl. In version 1, `total_` includes the groups
# inside, and no limit is a number near 2^63.
DROPPABLE = ("active_file", "inactive_file", "slab_reclaimable")
VERSION_2 = ("memory.current", ("memory.max", "memory.high"), DROPPABLE)
TOTALS = ("total_active_file", "total_inactive_file")
VERSION_1 = ("memory.usage_in_bytes", ("memory.limit_in_bytes",), TOTALS)


@dataclass
class Level:
    """One bound on memory."""

    name: str  # whose it is
    used: int  # bytes that cannot be dropped
    limit: int  # bytes

    @property
    def percent(self) -> float:
        return 100 * self.used / self.limit


def levels(root: Path = Path("/")) -> list[Level]:
    """The machine and each control group with a limit below the machine's; [] if unknown."""
    machine = cgroup.fields(Path(root) / "proc/meminfo")  # kB
    if not machine:
        return []
    total = 1024 * machine["MemTotal"]
    found = [Level("the machine", total - 1024 * machine["MemAvailable"], total)]
    for folder in cgroup.folders("memory", root):
        newer = (folder / "memory.current").is_file()
        current, bounds, droppable = VERSION_2 if newer else VERSION_1
        stat = cgroup.fields(folder / "memory.stat")
        dropped = sum(stat.get(name, 0) for name in droppable)
        limits = [cgroup.number(folder / name) for name in bounds]
        limit = min((value for value in limits if value), default=total)
        used = cgroup.number(folder / current)
        if used is not None and limit < total:
            found.append(Level(f"its control group {folder.name}", max(0, used - dropped), limit))
    return found


def own_limits(root: Path = Path("/")) -> list[Level]:
    """What `ulimit -v` and `ulimit -d`, or a batch system through them, allow this process."""
    status, found = cgroup.fields(Path(root) / "proc/self/status"), []  # kB
    kinds = (("-v", resource.RLIMIT_AS, "VmSize"), ("-d", resource.RLIMIT_DATA, "VmData"))
    for option, kind, field in kinds:
        limit, _ = resource.getrlimit(kind)
        if status and limit != resource.RLIM_INFINITY:
            found.append(Level(f"ulimit {option}", 1024 * status[field], limit))
    return found


def room(max_percent: float = 80, root: Path = Path("/")) -> float | None:
    """Bytes this process may take before a bound on memory is max_percent full; None if unknown."""
    bounds = levels(root) + own_limits(root)
    return min((bound.limit * max_percent / 100 - bound.used for bound in bounds), default=None)


def limit_bytes(root: Path = Path("/")) -> int | None:
    """The smallest memory limit of machine and control groups, in bytes; None if unknown."""
    return min((level.limit for level in levels(root)), default=None)


def fits(size: int, root: Path = Path("/")) -> bool:
    """Whether `size` bytes of files fit in three quarters of the memory; True if unknown."""
    limit = limit_bytes(root)
    return limit is None or size <= 0.75 * limit


class Watch:
    """Says every few batches what to do about memory: watch() -> (word, sentence).

    Above max_percent of any limit, first "shrink": hold fewer batches ahead; then "stop": save and
    end. Else "fine".
    """

    def __init__(self, max_percent: float = 80, root: Path = Path("/")):
        self.max_percent, self.root, self.shrunk = max_percent, root, False

    def __call__(self) -> tuple[str, str]:
        found = levels(self.root)
        if not found:
            return "fine", "this system does not say how much memory is in use"
        level = max(found, key=lambda level: level.percent)
        text = f"{level.percent:.0f} % of the {level.limit / 1e9:.1f} GB of {level.name} are in use"
        if level.percent <= self.max_percent:
            return "fine", text
        own = cli.anonymous_memory() / 1e9
        text += f", {own:.1f} GB by this process; --max-memory allows {self.max_percent:g} %"
        if not self.shrunk:
            self.shrunk = True
            return "shrink", text + ": fewer batches are held ahead"
        return "stop", text + ": saved and stopped; resume with --resume when memory is free"
