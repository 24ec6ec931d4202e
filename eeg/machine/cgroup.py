"""The control groups of this process: a container, a batch system or systemd may limit it.

root: where /proc and /sys lie; / except in tests. A group is bound by its own limit and by those of
all groups around it.
"""

import re
from pathlib import Path


def folders(controller: str, root: Path = Path("/")) -> list[Path]:
    """The folders of the groups, version 1 and 2, that limit "memory" or "cpu", innermost first."""
    base, listed = Path(root) / "sys/fs/cgroup", Path(root) / "proc/self/cgroup"
    if not listed.is_file():
        return []
    found = []
    for line in listed.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            # version 2: one hierarchy, at the top or, beside version 1, in unified/
            mounts = [base, base / "unified"]
        elif controller in controllers.split(","):
            # version 1: one hierarchy a controller; `cpu` may be mounted as `cpu,cpuacct`
            mounts = [base / controller, base / controllers]
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in mounts:
            # in a container the path may be the host's: then only the top is mounted here
            for depth in range(len(parts), -1, -1):
                folder = mount.joinpath(*parts[:depth])
                if folder not in found and any(folder.glob(f"{controller}.*")):
                    found.append(folder)
    return found


def number(path: Path) -> int | None:
    """The number in a one-number file; None where there is no such file or it says `max`."""
    try:
        text = Path(path).read_text().strip()
    except OSError:  # the root group has no such file; a group can go at any time
        return None
    return None if text == "max" else int(text)


def fields(path: Path) -> dict[str, int]:
    """The `name number` and `name: number` lines of a file; {} where there is no such file."""
    try:
        text = Path(path).read_text(errors="replace")
    except OSError:
        return {}
    found = re.findall(r"^([^\s:]+):?[ \t]+(\d+)", text, re.MULTILINE)
    return {name: int(value) for name, value in found}


def cpus(root: Path = Path("/")) -> float | None:
    """How many CPUs' worth of time this process's groups may use, or None without a limit."""
    shares = []
    for folder in folders("cpu", root):
        path = folder / "cpu.max"
        if path.is_file():  # version 2: "quota period" or "max period", microseconds
            quota, period = map(int, path.read_text().replace("max", "-1").split())
        else:
            quota = number(folder / "cpu.cfs_quota_us") or 0
            period = number(folder / "cpu.cfs_period_us") or 0
        if quota > 0 and period:
            shares.append(quota / period)
    return min(shares, default=None)
