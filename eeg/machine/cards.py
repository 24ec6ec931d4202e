"""Which cards the machine has and why torch may not reach them, found without touching one.

Below `root`: the real / but in tests.
"""

import glob
import grp
import os
import platform
import re
import sys
from pathlib import Path

import torch

from eeg.machine import cgroup


def absent(wanted: str = "", root: Path = Path("/")) -> str:
    """Why no card can be used, in a sentence with what to do; "" if one may be there."""
    root, version = Path(root), torch.__version__
    seen = pci_cards(root)
    metal = torch.backends.mps.is_built()
    if wanted.startswith("mps") or (metal and not wanted):
        return "" if metal else f"torch {version} is not built for Metal (mps), which macOS has"
    if not torch.version.cuda and not torch.version.hip:
        if not seen:
            return (
                f"torch {version} is a CPU build, and no NVIDIA or AMD card is seen on this machine"
            )
        return (
            f"torch {version} is a CPU build, and there is an "
            f"{' and an '.join(sorted(maker.upper() for maker in seen))} card: "
            + "; ".join(install(maker) for maker in sorted(seen))
        )
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        if os.environ.get(name) in ("", "-1"):
            return f"{name}='{os.environ[name]}' hides all cards: unset {name}"
    # the Windows subsystem reaches cards through /dev/dxg
    if sys.platform != "linux" or (root / "dev/dxg").exists():
        return ""
    if torch.version.cuda:
        nodes = [root / "dev/nvidiactl", *map(Path, glob.glob(str(root / "dev/nvidia[0-9]*")))]
        nodes += map(Path, glob.glob(str(root / "dev/nvhost-*")))  # Jetson
        if not any(node.exists() for node in nodes):
            other = f"; the AMD card wants another torch: {install('amd')}" if "amd" in seen else ""
            card = (
                "an NVIDIA card is there, but its driver is not loaded"
                if "nvidia" in seen
                else "no NVIDIA card is to be seen"
            )
            return f"torch {version} is built for CUDA, and there is no /dev/nvidia*: {card}{other}"
    else:
        nodes = [root / "dev/kfd"]
        if not nodes[0].exists():
            other = (
                f"; the NVIDIA card wants another torch: {install('nvidia')}"
                if "nvidia" in seen
                else ""
            )
            card = (
                "an AMD card is there, but its driver (amdgpu) is not loaded or "
                "not built for computing"
                if "amd" in seen
                else "no AMD card is to be seen"
            )
            return f"torch {version} is built for ROCm, and there is no /dev/kfd: {card}{other}"
        nodes += map(Path, glob.glob(str(root / "dev/dri/renderD*")))
    for node in nodes:
        if node.exists() and not os.access(node, os.R_OK | os.W_OK):
            return (
                f"no permission on /{node.relative_to(root)} (group {group(node)}): "
                f"sudo usermod -aG {group(node)} $USER, then log in again"
            )
    return ""


def install(maker: str) -> str:
    """How to get a torch for a maker's cards."""
    if maker == "nvidia":
        return "pip install --force-reinstall torch" + (
            ""
            if sys.platform == "linux"
            else " --index-url as https://pytorch.org/get-started/locally says"
        )
    return (
        "pip install --force-reinstall torch "
        "--index-url https://download.pytorch.org/whl/rocm6.4 "
        "(or the ROCm that https://pytorch.org/get-started/locally names)"
    )


def group(path: Path) -> str:
    number = path.stat().st_gid
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:  # a container knows the number only
        return str(number)


def pci_cards(root: Path = Path("/")) -> set[str]:
    """The makers of display and compute cards, {"nvidia", "amd"}, on the PCI bus or, where that is
    hidden, by their device files.
    """
    makers = {"0x10de": "nvidia", "0x1002": "amd"}
    found = set()
    for folder in (Path(root) / "sys/bus/pci/devices").glob("*"):
        # display controller, processing accelerator
        if first_line(folder / "class")[:4] in ("0x03", "0x12"):
            found.add(makers.get(first_line(folder / "vendor"), ""))
    if (Path(root) / "dev/nvidiactl").exists():
        found.add("nvidia")
    if (Path(root) / "dev/kfd").exists():
        found.add("amd")
    return found - {""}


def nvidia_cards(root: Path = Path("/")) -> list[str]:
    """Names of NVIDIA cards, as the driver lists them."""
    files = sorted((Path(root) / "proc/driver/nvidia/gpus").glob("*/information"))
    return [
        match.group(1).strip()
        for match in (
            re.search(r"Model:(.*)", path.read_text(encoding="utf-8", errors="replace"))
            for path in files
        )
        if match
    ]


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
    modules = [
        f"{name} {version}"
        for name in ("nvidia", "amdgpu")
        if (version := first_line(Path(root) / "sys/module" / name / "version"))
    ]
    return ", ".join([f"{platform.system()} {platform.release()}", *modules])


def first_line(path: Path) -> str:
    """The first line of a file of the system's, "" where there is none or it may not be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").split("\n", 1)[0].strip()
    except OSError:
        return ""
