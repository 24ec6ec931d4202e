"""Which cards the machine has and why torch may not reach them, found without touching one.

root: where /dev, /proc and /sys lie; / except in tests.
"""

import os
import platform
import re
import sys
from pathlib import Path

import torch

from eeg.machine import cgroup

NVIDIA_NODES = ("nvidiactl", "nvidia[0-9]*", "nvhost-*")  # nvhost: Jetson
# By maker: what its torch is built for, its device file, all names of that, what may ail the driver
NODES = {
    "nvidia": ("CUDA", "/dev/nvidia*", NVIDIA_NODES, "is not loaded"),
    "amd": ("ROCm", "/dev/kfd", ("kfd",), "(amdgpu) is not loaded or not built for computing"),
}


def absent(wanted: str = "", root: Path = Path("/")) -> str:
    """Why no card can be used, in a sentence with what to do; "" if one may be there."""
    root, version = Path(root), torch.__version__
    seen = pci_cards(root)
    metal = torch.backends.mps.is_built()
    if wanted.startswith("mps") or (metal and not wanted):
        return "" if metal else f"torch {version} is not built for Metal (mps), which macOS has"
    if not torch.version.cuda and not torch.version.hip:
        build = f"torch {version} is a CPU build, and"
        if not seen:
            return f"{build} no NVIDIA or AMD card is seen on this machine"
        cards = " and an ".join(sorted(maker.upper() for maker in seen))
        return f"{build} there is an {cards} card: {'; '.join(map(install, sorted(seen)))}"
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        if os.environ.get(name) in ("", "-1"):
            return f"{name}='{os.environ[name]}' hides all cards: unset {name}"
    # the Windows subsystem reaches cards through /dev/dxg
    if sys.platform != "linux" or (root / "dev/dxg").exists():
        return ""
    maker, other = ("nvidia", "amd") if torch.version.cuda else ("amd", "nvidia")
    built_for, node, patterns, fault = NODES[maker]
    nodes = [found for pattern in patterns for found in (root / "dev").glob(pattern)]
    if not nodes:
        card = f"no {maker.upper()} card is to be seen"
        if maker in seen:
            card = f"an {maker.upper()} card is there, but its driver {fault}"
        if other in seen:
            card += f"; the {other.upper()} card wants another torch: {install(other)}"
        return f"torch {version} is built for {built_for}, and there is no {node}: {card}"
    if maker == "amd":
        nodes += (root / "dev/dri").glob("renderD*")
    for path in nodes:
        if not os.access(path, os.R_OK | os.W_OK):
            owner = group(path)
            what = f"no permission on /{path.relative_to(root)} (group {owner})"
            return f"{what}: sudo usermod -aG {owner} $USER, then log in again"
    return ""


def install(maker: str) -> str:
    """How to get a torch for a maker's cards."""
    pip, page = "pip install --force-reinstall torch", "https://pytorch.org/get-started/locally"
    if maker == "amd":
        index = "https://download.pytorch.org/whl/rocm6.4"
        return f"{pip} --index-url {index} (or the ROCm that {page} names)"
    return pip if sys.platform == "linux" else f"{pip} --index-url as {page} says"


def group(path: Path) -> str:
    try:
        return path.group()
    except KeyError:  # a container knows the number only
        return str(path.stat().st_gid)


def pci_cards(root: Path = Path("/")) -> set[str]:
    """The makers of cards, {"nvidia", "amd"}, by the PCI bus or, if hidden, by device files."""
    folders = (Path(root) / "sys/bus/pci/devices").glob("*")
    # display controllers and processing accelerators
    cards = [path for path in folders if first_line(path / "class")[:4] in ("0x03", "0x12")]
    vendors = {first_line(path / "vendor") for path in cards}
    found = set()
    for maker, vendor, node in (("nvidia", "0x10de", "nvidiactl"), ("amd", "0x1002", "kfd")):
        if vendor in vendors or (Path(root) / "dev" / node).exists():
            found.add(maker)
    return found


def nvidia_cards(root: Path = Path("/")) -> list[str]:
    """Names of NVIDIA cards, as the driver lists them."""
    files = sorted((Path(root) / "proc/driver/nvidia/gpus").glob("*/information"))
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
    return [found[1].strip() for text in texts if (found := re.search(r"Model:(.*)", text))]


def amd_cards(root: Path = Path("/")) -> list[str]:
    """The kinds of AMD cards (gfx1010, ...), as the kernel lists them."""
    found = []
    for path in sorted((Path(root) / "sys/class/kfd/kfd/topology/nodes").glob("*/properties")):
        # 100100: major 10, minor 1, step 0; 0 for a CPU
        version = int(cgroup.fields(path).get("gfx_target_version", 0))
        if version:
            found.append(f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}")
    return found


def driver(root: Path = Path("/")) -> str:
    """Versions of kernel and, where loaded, of the cards' drivers."""
    found = [f"{platform.system()} {platform.release()}"]
    for name in ("nvidia", "amdgpu"):
        if version := first_line(Path(root) / "sys/module" / name / "version"):
            found.append(f"{name} {version}")
    return ", ".join(found)


def first_line(path: Path) -> str:
    """The first line of a system file; "" where there is none or it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").split("\n", 1)[0].strip()
    except OSError:
        return ""
