"""Memory left and time allowed, under made-up /proc and /sys of machines and containers."""

import pytest

from eeg.machine import cgroup, memory
from tests.machine.roots import write

GB = 1024**3
MEMINFO = f"""\
MemTotal:       {31 * 1024**2} kB
MemFree:  1 kB
MemAvailable:   {21 * 1024**2} kB
HugePages_Total:       0
"""
MACHINE = {"proc/meminfo": MEMINFO}


def version_2(
    used_gb, limit="4294967296", high="max", cached_gb=1.0, folder="sys/fs/cgroup/user.slice/box"
):
    active, inactive = int(0.75 * cached_gb * GB), int(0.25 * cached_gb * GB)
    stat = f"anon 5\nactive_file {active}\ninactive_file {inactive}\nslab_reclaimable 0\n"
    files = {
        "memory.current": str(int(used_gb * GB)),
        "memory.max": limit,
        "memory.high": high,
        "memory.stat": stat,
    }
    return {
        "proc/self/cgroup": "0::/user.slice/box\n",
        "sys/fs/cgroup/user.slice/memory.stat": "anon 5\n",
    } | {f"{folder}/{name}": text for name, text in files.items()}


def version_1(used_gb, limit=str(4 * GB), cached_gb=1.0):
    folder = "sys/fs/cgroup/memory/docker/abc"
    files = {
        "memory.usage_in_bytes": str(int(used_gb * GB)),
        "memory.limit_in_bytes": limit,
        "memory.stat": f"cache 7\ntotal_active_file {int(cached_gb * GB)}\ntotal_inactive_file 0\n",
    }
    groups = ("11:memory", "4:cpu,cpuacct", "1:name=systemd")
    listed = {"proc/self/cgroup": "".join(f"{group}:/docker/abc\n" for group in groups)}
    return listed | {f"{folder}/{name}": text for name, text in files.items()}


def test_a_machine_without_control_groups(tmp_path):
    write(tmp_path, MACHINE)
    (level,) = memory.levels(tmp_path)
    assert level.name == "the machine" and level.percent == pytest.approx(100 * 10 / 31)
    assert memory.limit_bytes(tmp_path) == 31 * GB


@pytest.mark.parametrize("files", [version_2(3), version_1(3)])
def test_a_control_group_counts_what_cannot_be_dropped(tmp_path, files):
    write(tmp_path, MACHINE | files)
    _, level = memory.levels(tmp_path)
    assert (level.used, level.limit) == (2 * GB, 4 * GB) and "control group" in level.name
    assert memory.limit_bytes(tmp_path) == 4 * GB


@pytest.mark.parametrize(
    "files",
    [
        version_2(3, limit="max"),
        version_1(3, limit="9223372036854771712"),
        version_2(3, limit=str(64 * GB)),
    ],
)
def test_a_control_group_without_a_limit_of_its_own_is_left_out(tmp_path, files):
    write(tmp_path, MACHINE | files)
    assert [level.name for level in memory.levels(tmp_path)] == ["the machine"]


def test_the_soft_limit_counts_as_one(tmp_path):
    write(tmp_path, MACHINE | version_2(3, limit="max", high=str(5 * GB)))
    assert memory.limit_bytes(tmp_path) == 5 * GB


def test_the_groups_around_count_too_and_a_path_of_the_hosts_is_found_at_the_top(tmp_path):
    write(tmp_path, MACHINE | version_2(3, folder="sys/fs/cgroup/user.slice"))
    assert memory.limit_bytes(tmp_path) == 4 * GB
    write(
        tmp_path / "container",
        MACHINE
        | version_2(3, folder="sys/fs/cgroup")
        | {"proc/self/cgroup": "0::/../../kubepods/pod1\n"},
    )
    assert memory.limit_bytes(tmp_path / "container") == 4 * GB


def test_what_fits(tmp_path):
    assert memory.fits(10**15, tmp_path)  # where nothing is said
    write(tmp_path, MACHINE | version_2(3))
    assert memory.fits(3 * GB, tmp_path) and not memory.fits(3 * GB + 1, tmp_path)


def test_a_system_that_says_nothing(tmp_path):
    assert memory.levels(tmp_path) == [] and memory.limit_bytes(tmp_path) is None
    assert memory.Watch(root=tmp_path)() == (
        "fine",
        "this system does not say how much memory is in use",
    )


def test_this_system():
    assert all(0 < level.used <= level.limit for level in memory.levels())


def test_the_watch_shrinks_once_then_stops(tmp_path):
    watch = memory.Watch(80, tmp_path)
    words = []
    # of 4 GB, 1 GB of them files that can be dropped: 50, 77.5, 82.5, 77.5, 87.5 %
    for used_gb in (3, 4.1, 4.3, 4.1, 4.5):
        write(tmp_path, MACHINE | version_2(used_gb))
        words.append(watch())
    assert [word for word, _ in words] == ["fine", "fine", "shrink", "fine", "stop"]
    assert "82 % of the 4.3 GB of its control group box are in use" in words[2][1]
    assert "--max-memory allows 80 %" in words[2][1]
    assert "--resume" in words[4][1]


def test_the_watch_looks_at_the_worst(tmp_path):
    write(
        tmp_path,
        {"proc/meminfo": f"MemTotal: {31 * 1024**2} kB\nMemAvailable: {1024**2} kB\n"}
        | version_2(2),
    )
    word, text = memory.Watch(90, tmp_path)()
    assert word == "shrink" and "97 % of the 33.3 GB of the machine" in text


@pytest.mark.parametrize(
    "files, wanted",
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n",
            },
            1.5,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000",
            },
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/x\n0::/x\n",
                "sys/fs/cgroup/unified/x/cpu.max": "300000 100000\n",
            },
            3.0,
        ),  # both versions
    ],
)
def test_cpus_of_a_control_group(tmp_path, files, wanted):
    write(tmp_path, files)
    assert cgroup.cpus(tmp_path) == wanted
