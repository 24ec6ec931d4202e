"""How near this process is to the end of its memory: the machine's, or that of a control group
around it.

Cached files do not count as used: the system drops them when memory is wanted, and a memory-mapped
cache of windows fills all memory with them. Linux; elsewhere nothing can be read and `Watch` says
so once asked.
"""

import resource
from dataclasses import dataclass
from pathlib import Path

from eeg import cli
from eeg.machine import cgroup


@dataclass
class Level:
    """One bound on memory: whose it is, bytes in use that cannot be dropped, bytes there may be."""

    name: str
    used: int
    limit: int

    @property
    def percent(self) -> float:
        return 100 * self.used / self.limit


def levels(root: Path = Path("/")) -> list[Level]:
    """The machine and each control group with a limit of its own below the machine's.

    -> list of Level, empty where the system does not say.
    """
    try:
        machine = {
            name: int(rest.split()[0]) * 1024
            for name, rest in (
                line.split(":", 1)
                for line in (Path(root) / "proc/meminfo").read_text().splitlines()
            )
        }
    except FileNotFoundError:
        return []
    total = machine["MemTotal"]
    found = [Level("the machine", total - machine["MemAvailable"], total)]
    for folder in cgroup.folders("memory", root):
        stat = cgroup.fields(folder / "memory.stat")
        if (folder / "memory.current").is_file():  # version 2
            # beyond `high` the kernel slows the group to a crawl
            limits = [cgroup.number(folder / name) for name in ("memory.max", "memory.high")]
            used = cgroup.number(folder / "memory.current")
            dropped = sum(
                stat.get(name, 0) for name in ("active_file", "inactive_file", "slab_reclaimable")
            )
        else:
            # version 1; without a limit its file holds a number near 2^63. total_: with the groups
            # inside
            limits = [cgroup.number(folder / "memory.limit_in_bytes")]
            used = cgroup.number(folder / "memory.usage_in_bytes")
            dropped = sum(
                stat.get(name, 0) for name in ("total_active_file", "total_inactive_file")
            )
        limit = min((value for value in limits if value), default=total)
        if used is not None and limit < total:
            found.append(Level(f"its control group {folder.name}", max(0, used - dropped), limit))
    return found


def own_limits(root: Path = Path("/")) -> list[Level]:
    """What `ulimit -v` and `ulimit -d`, or a batch system through them, allow this process.

    -> list of Level
    """
    try:
        status = dict(
            line.split(":", 1)
            for line in (Path(root) / "proc/self/status").read_text().splitlines()
        )
    except FileNotFoundError:
        return []
    found = []
    for name, field, option in (
        (resource.RLIMIT_AS, "VmSize", "-v"),
        (resource.RLIMIT_DATA, "VmData", "-d"),
    ):
        limit, _ = resource.getrlimit(name)
        if limit != resource.RLIM_INFINITY:
            found.append(Level(f"ulimit {option}", int(status[field].split()[0]) * 1024, limit))
    return found


def room(max_percent: float = 80, root: Path = Path("/")) -> float | None:
    """Bytes this process may still take before any bound on its memory is max_percent full; None
    where the system does not say.
    """
    return min(
        (level.limit * max_percent / 100 - level.used for level in levels(root) + own_limits(root)),
        default=None,
    )


def limit_bytes(root: Path = Path("/")) -> int | None:
    """Bytes of memory this process may ever have: the smallest limit of machine and control groups;
    None where the system does not say.
    """
    return min((level.limit for level in levels(root)), default=None)


def fits(size: int, root: Path = Path("/")) -> bool:
    """Whether `size` bytes of files can stay in memory once they are read: three quarters of it are
    theirs, the rest is for all else. True where the system does not say.
    """
    limit = limit_bytes(root)
    return limit is None or size <= 0.75 * limit


class Watch:
    """Asked every few batches, says what to do about memory.

    watch() -> (word, sentence). "fine"; "shrink" the first time use passes max_percent of any
    limit: hold fewer batches ahead; "stop" if it is still, or again, above at a later call: save,
    and end.
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
