"""Which device is chosen, what verdicts are kept, and what is known of a machine without touching
its card."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eeg import UserError
from eeg.machine import amp, cards, device
from eeg.runs import journal
from tests.machine.roots import write

NODES = "sys/class/kfd/kfd/topology/nodes"
PCI = "sys/bus/pci/devices/0000:03:00.0"
AMD = {f"{PCI}/class": "0x030000\n", f"{PCI}/vendor": "0x1002\n"}
NVIDIA = {f"{PCI}/class": "0x030200\n", f"{PCI}/vendor": "0x10de\n"}
RDNA1 = AMD | {
    "dev/kfd": "",
    "dev/dri/renderD128": "",
    f"{NODES}/0/properties": "cpu_cores_count 12\ngfx_target_version 0\n",
    f"{NODES}/1/properties": "cpu_cores_count 0\ngfx_target_version 100100\n",
    "sys/module/amdgpu/version": "6.8.5\n",
}


@pytest.fixture(autouse=True)
def no_threads_asked_for(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.fixture
def build(monkeypatch):
    """-> a function that makes torch say what it was built for."""
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: False)
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)

    def set(cuda=None, hip=None):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.version, "hip", hip)

    set()
    return set


@pytest.fixture
def card(child, build, tmp_path, monkeypatch):
    """A machine with an RDNA1 card and a torch for ROCm. -> (choose, children): device.choose with
    the stand-in child, and the list of those that ran"""
    build(hip="6.2")
    write(tmp_path / "root", RDNA1)
    choose = lambda requested="auto", **settings: device.choose(
        requested,
        tmp_path / "cache",
        program=child[0],
        limit_s=5,
        root=tmp_path / "root",
        **settings,
    )
    yield choose, child[1]
    os.environ.pop("HSA_OVERRIDE_GFX_VERSION", None)  # choose has set it


def test_a_good_card_is_chosen_and_its_verdict_kept(card):
    choose, children = card
    seen, again = [], []
    choice = choose(on_check=lambda *of: seen.append((of[0].device, of[1].name, of[1].state)))
    assert (choice.device, choice.name, choice.precisions) == (
        "cuda:0",
        "Navi 10",
        ("fp32", "fp16"),
    )
    assert choice.reason == "passed its checks"
    kept = choose(on_check=lambda *of: again.append((of[0].device, of[1].name, of[1].state)))
    assert len(children()) == 1 and kept.device == "cuda:0"
    assert kept.reason.startswith("passed its checks on 20")
    assert kept.precisions == choice.precisions
    assert seen == again and len(seen) == 10
    choose(again=True)
    assert len(children()) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda root, monkeypatch: write(root, {"sys/module/amdgpu/version": "6.10.0\n"}),  # driver
        lambda root, monkeypatch: monkeypatch.setattr(torch, "__version__", "9.9.9"),
        lambda root, monkeypatch: monkeypatch.setattr(torch.version, "hip", "7.0"),
        lambda root, monkeypatch: write(
            root, {"sys/class/kfd/kfd/topology/nodes/1/properties": "gfx_target_version 100300\n"}
        ),  # card
        lambda root, monkeypatch: monkeypatch.setenv("HIP_VISIBLE_DEVICES", "1"),
        lambda root, monkeypatch: monkeypatch.setattr(
            device.platform, "release", lambda: "9.9"
        ),  # kernel
    ],
)
def test_another_driver_torch_or_card_is_checked_anew(card, tmp_path, monkeypatch, change):
    choose, children = card
    choose()
    change(tmp_path / "root", monkeypatch)
    choose()
    assert len(children()) == 2


def test_a_verdict_file_that_is_damaged_is_no_verdict(card, tmp_path):
    choose, children = card
    choose()
    for text in ('{"format": 1, "verd', '{"format": 7, "verdicts": []}', "[]", "null"):
        (tmp_path / "cache/device.json").write_text(text)
        assert choose().device == "cuda:0"
    assert len(children()) == 5
    device.forget(tmp_path / "cache")
    device.forget(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_cache_that_may_only_be_read_ends_nothing(card, tmp_path, monkeypatch, capsys):
    """Nothing is kept there, and a verdict that cannot be dropped is warned of."""
    choose, children = card
    monkeypatch.setattr(device.Path, "unlink", refused)
    monkeypatch.setattr(journal.os, "replace", refused)
    device.forget(tmp_path)
    assert "run/check.py --again" in capsys.readouterr().err
    assert choose().device == choose().device == "cuda:0" and len(children()) == 2  # checked anew
    amp.remember(tmp_path / "precision.json", "key", "bf16")
    assert amp.read(tmp_path / "precision.json") == {}


def refused(*arguments, **settings):
    raise PermissionError(13, "Permission denied")


def test_fp32_asks_for_no_autocast(monkeypatch):
    """Older torch has none of Metal, not even one that is switched off."""
    monkeypatch.setattr(torch, "autocast", refused)
    with amp.autocast("mps", "fp32"):
        pass


def test_the_override_that_passed_is_set_now_and_from_the_verdict(card, monkeypatch):
    choose, children = card
    monkeypatch.setenv("FAULT", "convolution:segfault")
    monkeypatch.setenv("WORKS_WITH", "10.1.0")
    choice = choose()
    assert choice.device == "cuda:0" and "HSA_OVERRIDE_GFX_VERSION=10.1.0" in choice.reason
    assert os.environ["HSA_OVERRIDE_GFX_VERSION"] == "10.1.0"
    del os.environ["HSA_OVERRIDE_GFX_VERSION"]
    assert choose().environment == {"HSA_OVERRIDE_GFX_VERSION": "10.1.0"}
    assert os.environ["HSA_OVERRIDE_GFX_VERSION"] == "10.1.0"
    assert len(children()) == 2


def test_a_bad_card_means_the_cpu_or_an_error_if_it_was_asked_for(card, monkeypatch):
    choose, children = card
    monkeypatch.setenv("FAULT", "convolution:segfault")
    choice = choose()
    assert choice.device == "cpu" and len(choice.attempts) == 3
    assert "failed 'convolution': the child died of SIGSEGV" in choice.reason
    assert "HSA_OVERRIDE_GFX_VERSION" not in os.environ
    choose()
    assert len(children()) == 3  # bad verdicts are kept, too
    with pytest.raises(
        UserError,
        match="--device rocm cannot be used: cuda:0 failed 'convolution'.*=10.3.0 failed",
    ):
        choose("rocm")
    with pytest.raises(UserError, match=r"on 20.*check.py --again"):
        choose("rocm")


def test_mixed_precision_that_fails_leaves_fp32(card, monkeypatch):
    monkeypatch.setenv("FAULT", "amp:segfault")
    choice = card[0]()
    assert choice.precisions == ("fp32",) and "mixed precision failed" in choice.reason


def test_a_card_that_is_occupied_is_asked_again_next_time(card, monkeypatch):
    choose, children = card
    monkeypatch.setenv("KIND", "gfx1100")
    monkeypatch.setenv("FAULT", "memory:full")
    monkeypatch.setattr(device, "amd_cards", lambda root: ["gfx1100"])
    monkeypatch.setattr(
        device.sys.modules["eeg.machine.probe"], "amd_cards", lambda root: ["gfx1100"]
    )
    assert choose().device == choose().device == "cpu"
    assert len(children()) == 2


def test_the_cpu_asked_for_is_not_checked(card):
    choose, children = card
    choice = choose("cpu")
    assert choice.device == "cpu" and choice.reason == "asked for"
    assert choice.precisions[0] == "fp32" and not children()


def test_names_of_devices(build):
    names = {"auto": "", "cpu": "cpu", "cuda": "cuda:0", "cuda:1": "cuda:1", "mps": "mps:0"}
    assert {name: device.parse(name) for name in names} == names
    with pytest.raises(UserError, match="not built for ROCm; pip install"):
        device.parse("rocm")
    build(hip="6.2")
    assert device.parse("rocm:1") == "cuda:1"


@pytest.mark.parametrize(
    "built, files, says",
    [
        ({}, {}, "is a CPU build, and no NVIDIA or AMD card"),
        ({}, AMD, "is a CPU build, and there is an AMD card: pip install .*rocm"),
        ({}, NVIDIA, "is a CPU build, and there is an NVIDIA card: pip install"),
        ({"cuda": "12.4"}, {}, "no /dev/nvidia.*: no NVIDIA card is to be seen"),
        ({"cuda": "12.4"}, NVIDIA, "an NVIDIA card is there, but its driver is not loaded"),
        ({"cuda": "12.4"}, AMD, "the AMD card wants another torch: .*rocm"),
        ({"cuda": "12.4"}, NVIDIA | {"dev/nvidiactl": "", "dev/nvidia0": ""}, "^$"),
        ({"cuda": "12.4"}, {"dev/dxg": ""}, "^$"),  # the Windows subsystem
        ({"hip": "6.2"}, AMD, "there is no /dev/kfd: an AMD card is there, but its driver"),
        ({"hip": "6.2"}, NVIDIA, "the NVIDIA card wants another torch: pip install"),
        ({"hip": "6.2"}, RDNA1, "^$"),
    ],
)
def test_why_there_is_no_card(build, tmp_path, built, files, says):
    build(**built)
    write(tmp_path, files)
    assert re.search(says, cards.absent("", tmp_path))


def test_a_hidden_card(build, tmp_path, monkeypatch):
    build(cuda="12.4")
    write(tmp_path, NVIDIA | {"dev/nvidiactl": "", "dev/nvidia0": ""})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES='' hides all cards" in cards.absent("", tmp_path)


def test_no_permission_on_a_card(build, tmp_path, monkeypatch):
    build(hip="6.2")
    write(tmp_path, RDNA1)
    monkeypatch.setattr(cards.os, "access", lambda path, mode: path.name != "kfd")
    assert "no permission on /dev/kfd (group" in cards.absent("", tmp_path)


def test_cards_as_the_kernel_lists_them(tmp_path):
    write(
        tmp_path,
        RDNA1 | {"sys/class/kfd/kfd/topology/nodes/2/properties": "gfx_target_version 90010\n"},
    )
    write(
        tmp_path,
        {
            "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA H200\nIRQ: 1\n",
            "sys/module/nvidia/version": "570.1\n",
        },
    )
    assert cards.amd_cards(tmp_path) == ["gfx1010", "gfx90a"]
    assert cards.nvidia_cards(tmp_path) == ["NVIDIA H200"]
    assert cards.pci_cards(tmp_path) == {"amd"}
    assert cards.driver(tmp_path).endswith("nvidia 570.1, amdgpu 6.8.5")


# The CPU


def cores(root, threads_of):
    """A machine whose CPU number i is a thread of core threads_of[i]."""
    write(
        root,
        {
            f"sys/devices/system/cpu/cpu{i}/topology/{name}": f"{value}\n"
            for i, core in enumerate(threads_of)
            for name, value in (("physical_package_id", core // 100), ("core_id", core % 100))
        },
    )


def test_threads_are_physical_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    cores(tmp_path, [0, 1, 2, 3, 0, 1, 2, 3])  # two threads a core
    assert [device.cpu_threads(n, tmp_path) for n in (1, 2, 3, 4, 9)] == [4, 2, 1, 1, 1]
    cores(tmp_path, [0, 1, 0, 1, 100, 101, 100, 101])  # two sockets
    assert device.cpu_threads(1, tmp_path) == 4
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 3}, raising=False)  # taskset
    assert device.cpu_threads(1, tmp_path) == 1


@pytest.mark.parametrize(
    "text, threads", [("1", 1), ("3", 3), ("2,4", 2), ("", 6), ("0", 6), ("many", 6)]
)
def test_threads_asked_for_in_the_environment(tmp_path, monkeypatch, text, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert device.cpu_threads(1, tmp_path) == threads


def test_threads_that_torchrun_sets_are_not_asked_for(tmp_path, monkeypatch):
    """It sets OMP_NUM_THREADS=1 for each of several processes where nobody has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert device.cpu_threads(2, tmp_path) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert device.cpu_threads(2, tmp_path) == 2


@pytest.mark.parametrize(
    "busy, threads", [(0.0, 6), (0.4, 6), (0.6, 5), (2.0, 4), (5.9, 1), (40.0, 1)]
)
def test_cores_that_others_keep_busy_are_left_to_them(tmp_path, monkeypatch, busy, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    assert device.cpu_threads(1, tmp_path, busy) == threads
    write(
        tmp_path, {"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/cpu.max": "200000 100000\n"}
    )
    assert device.cpu_threads(1, tmp_path, busy) == min(2, threads)


def test_threads_where_the_system_says_nothing_of_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    assert device.cpu_threads(1, tmp_path) == 6


def test_threads_within_a_control_group(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)
    write(
        tmp_path, {"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/cpu.max": "350000 100000\n"}
    )
    assert device.cpu_threads(1, tmp_path) == 3
    write(tmp_path, {"sys/fs/cgroup/box/cpu.max": "20000 100000\n"})
    assert device.cpu_threads(1, tmp_path) == 1


def test_threads_are_settled_in_a_fresh_process_and_memory_is_kept():
    program = """
import torch
from eeg.machine import device
device.keep_freed_memory()
device.settle_threads(2)
device.settle_threads(1)
print(torch.get_num_threads(), torch.get_num_interop_threads())
"""
    printed = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert printed.split() == ["1", "1"]


@pytest.mark.parametrize(
    "flags, has",
    [
        ("flags\t\t: fpu sse avx512f avx512_bf16", True),
        ("flags\t\t: fpu avx2", False),
        ("Features\t: fp asimd bf16", True),
        ("processor\t: 0", False),
    ],
)
def test_bfloat16_by_the_processors_flags(tmp_path, flags, has):
    write(tmp_path, {"proc/cpuinfo": f"processor\t: 0\nmodel name\t: X\n{flags}\n"})
    assert device.supports_bf16(tmp_path) == has


# run/check.py

SCRIPT = Path(__file__).parents[2] / "run/check.py"


def check(*arguments):
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"},
    )


def test_this_machines_cpu_can_train(tmp_path):
    done = check("--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    (attempt,) = said["attempts"]
    assert said["device"] == "cpu" and said["trusted"] and attempt["card"]["kind"] == "cpu"
    assert [
        each["state"] for each in attempt["checks"] if each["name"] not in ("amp", "transfer")
    ] == ["ok"] * 8


@pytest.fixture
def table(child, build, tmp_path, monkeypatch, capsys):
    """-> a function that runs run/check.py with the stand-in child -> (exit code, its output)"""
    from eeg.machine import probe

    inspect, absent, choose = probe.inspect, cards.absent, device.choose
    monkeypatch.setattr(
        probe,
        "inspect",
        lambda device, environment=None, on_check=None, *_: inspect(
            device, environment, on_check, child[0], 5
        ),
    )
    monkeypatch.setattr(cards, "absent", lambda wanted: absent(wanted, tmp_path / "root"))
    monkeypatch.setattr(
        device,
        "choose",
        lambda *arguments: choose(*arguments, program=child[0], limit_s=5, root=tmp_path / "root"),
    )

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--cache", str(tmp_path), *arguments])
        code = runpy.run_path(str(SCRIPT))["main"]()
        return code, capsys.readouterr().out

    yield run
    os.environ.pop("HSA_OVERRIDE_GFX_VERSION", None)


def test_the_table_without_a_card(table):
    code, text = table()
    assert code == 0 and "no GPU    torch" in text and "training uses cpu, " in text
    assert "\ncpu\n  detect       ok" in text


def test_the_table_of_a_card_that_wants_an_override(table, build, tmp_path, monkeypatch):
    build(hip="6.2")
    write(tmp_path / "root", RDNA1)
    monkeypatch.setenv("FAULT", "convolution:segfault")
    monkeypatch.setenv("WORKS_WITH", "10.1.0")
    code, text = table()
    first, second, cpu = re.split("\n(?=cuda:0|cpu)", text)[1:]
    assert code == 0 and "convolution  failed" in first and first.count("not run") == 6
    assert "the child died of SIGSEGV" in first
    assert second.startswith("cuda:0, HSA_OVERRIDE_GFX_VERSION=10.1.0\n")
    assert second.count(" ok ") == 10
    passed = "passed its checks with HSA_OVERRIDE_GFX_VERSION=10.1.0"
    assert f"training uses cuda:0, Navi 10, in fp32 or fp16: {passed}" in cpu


def test_no_device_at_all(table, monkeypatch):
    monkeypatch.setenv("FAULT", "matmul:wrong")
    code, text = table()
    assert code == 1 and "no device of this machine can train" in text


def test_a_device_that_is_none():
    assert check("--device", "gpu").returncode == 2
