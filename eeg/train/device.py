"""Which device to train on: CUDA, ROCm, Metal, else the CPU. A card is trusted only after a child process has just used it.

Unsupported cards (RDNA1 under ROCm above all) crash the process, hang it, or compute nonsense. So ten checks (eeg.train.check)
run in a child with a time limit; this process does not touch the card before. The verdict is kept by driver, torch and card.
"""

import ctypes
import glob
import grp
import importlib.util
import json
import os
import platform
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from eeg import UserError
from eeg.train import cgroup

CHECKS = ("detect", "allocate", "matmul", "convolution", "batch norm", "optimiser", "amp", "memory", "transfer", "small steps")
PROGRAM = (sys.executable, "-m", "eeg.train.check")
LIMIT = 120  # s that one check may take; ROCm compiles its convolutions at first use, which takes many seconds each

# RDNA1: ROCm has no kernels for these. From ROCm 6.1 on some run as they are; 10.3.0 crashes cards on which 10.1.0 works.
RDNA1 = ("gfx1010", "gfx1011", "gfx1012")
OVERRIDE = "HSA_OVERRIDE_GFX_VERSION"
OVERRIDES = (None, "10.1.0", "10.3.0")  # None: without

# What else decides which card is seen and how it is driven, besides driver and torch.
VARIABLES = (OVERRIDE, "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF", "PYTORCH_ALLOC_CONF")


@dataclass
class Check:
    """How one check went. state: ok, failed, skipped (makes no sense here), not run (an earlier one failed)."""

    name: str
    state: str
    text: str = ""
    seconds: float = 0.0


@dataclass
class Attempt:
    """The checks of one device under one setting of the environment. environment: variables to set, or with None to remove."""

    device: str
    environment: dict
    checks: list = field(default_factory=list)
    card: dict = field(default_factory=dict)  # name, kind, count: as far as the child came to say

    @property
    def trusted(self):
        """Whether float32 may be trained on it: everything went well, mixed precision aside."""
        return len(self.checks) == len(CHECKS) and all(check.state in ("ok", "skipped") for check in self.checks if check.name != "amp")

    @property
    def failure(self):
        """The first check that failed, mixed precision aside, or None."""
        return next((check for check in self.checks if check.state == "failed" and check.name != "amp"), None)

    @property
    def setting(self):
        """The environment in words."""
        return ", ".join(f"without {name}" if value is None else f"{name}={value}" for name, value in self.environment.items())

    def precisions(self):
        passed = any(check.name == "amp" and check.state == "ok" for check in self.checks)
        return ("fp32", ("bf16" if self.device == "cpu" else "fp16")) if passed else ("fp32",)


@dataclass
class Choice:
    """The device to train on. device: for torch.device(); precisions: those it may use, fp32 first; reason: a clause for a person."""

    device: str
    name: str
    precisions: tuple
    reason: str
    environment: dict = field(default_factory=dict)  # as in Attempt; already put into os.environ
    attempts: list = field(default_factory=list)


def choose(requested="auto", folder=Path("cache"), again=False, on_check=None, program=PROGRAM, limit=LIMIT, root=Path("/")):
    """Choose the device to train on. To be called before anything in this process uses a card. -> Choice.

    requested: auto, cpu, cuda, cuda:1, rocm, mps. On auto the CPU is taken where no card passes; a card asked for by name that
    fails is a UserError. folder: where verdicts are kept (device.json). again: whatever verdict is kept. on_check(attempt, check)
    is called as each check ends. program, limit: the child and the seconds one of its checks may take. root: where /dev, /proc and /sys lie.
    """
    wanted = parse(requested)
    if wanted == "cpu":
        return cpu("asked for")
    problem = absent(wanted, root)
    if problem:
        if wanted:
            raise UserError(f"--device {requested} cannot be used: {problem}")
        return cpu("no GPU found; `python run/check.py` says why")

    verdicts, key = Path(folder) / "device.json", verdict_key(wanted, root)
    when, attempts = (None, None) if again else recall(verdicts, key)
    if attempts is None:
        attempts = attempt_all(wanted, on_check, program, limit, root)
        if conclusive(attempts, key):
            remember(verdicts, key, attempts)
    elif on_check:
        for attempt in attempts:
            for check in attempt.checks:
                on_check(attempt, check)

    passed = f"passed its checks{f' on {when}' if when else ''}"
    for attempt in attempts:
        if attempt.trusted:
            adopt(attempt.environment)
            reason = passed + (f" with {attempt.setting}" if attempt.setting else "")
            if "fp16" not in attempt.precisions():
                reason += "; fp32 only, mixed precision failed"
            return Choice(attempt.device, attempt.card.get("name", attempt.device), attempt.precisions(), reason, attempt.environment, attempts)
    failed = "; ".join(f"{a.device}{f' {a.setting}' if a.setting else ''} failed '{a.failure.name}': {a.failure.text}" for a in attempts)
    if when:
        failed += f" (on {when}; `python run/check.py --again` tries anew)"
    if wanted:
        raise UserError(f"--device {requested} cannot be used: {failed}")
    return cpu(f"{failed}; `python run/check.py` shows all", attempts)


def parse(requested):
    """ "cpu", "cuda:0", "mps:0", or "" for auto."""
    match = re.fullmatch(r"(auto|cpu|mps)|(cuda|rocm)(?::(\d+))?", requested)
    if not match:
        raise UserError(f"--device {requested} is no device; expected auto, cpu, cuda, cuda:1, rocm or mps")
    plain, family, index = match.groups()
    if family == "rocm" and not torch.version.hip:
        raise UserError(f"--device {requested}: torch {torch.__version__} is not built for ROCm; {install('amd')}")
    return f"cuda:{index or 0}" if family else {"auto": "", "cpu": "cpu", "mps": "mps:0"}[plain]


def cpu(reason, attempts=()):
    return Choice("cpu", processor(), ("fp32", "bf16") if supports_bf16() else ("fp32",), reason, attempts=list(attempts))


def adopt(environment):
    """Set and remove variables for this process; the card's runtime reads them when it starts."""
    if environment and torch.cuda.is_initialized():
        raise RuntimeError(f"the card is in use already, {environment} comes too late: choose() belongs before the first use of a card")
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


# The checks, from outside


def inspect(device, environment=None, on_check=None, program=PROGRAM, limit=LIMIT):
    """Run the checks of a device ("cuda:0", "cpu") in a child process under `environment` (see Attempt). -> Attempt."""
    attempt = Attempt(device, environment or {})
    names = list(CHECKS)
    while names:
        run_child(attempt, names, on_check, program, limit)
        names = list(CHECKS[len(attempt.checks) :])
        if attempt.checks[-1].name != "amp" or attempt.failure:  # a child that mixed precision has killed: another one goes on in float32
            for name in names:
                attempt.checks.append(Check(name, "not run"))
            break
    return attempt


def run_child(attempt, names, on_check, program, limit):
    """Let one child run the checks called `names`, until it ends, fails, or says nothing for `limit` seconds. Adds to attempt.checks."""
    environment = {**os.environ, **{name: value for name, value in attempt.environment.items() if value is not None}}
    for name in [name for name, value in attempt.environment.items() if value is None]:
        environment.pop(name, None)
    package = str(Path(importlib.util.find_spec("eeg").origin).parents[1])  # this very eeg, whatever else is installed
    environment["PYTHONPATH"] = os.pathsep.join([package, *filter(None, [environment.get("PYTHONPATH")])])

    def note(check):
        attempt.checks.append(check)
        if on_check:
            on_check(attempt, check)

    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        child = subprocess.Popen([*program, attempt.device, *names], stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, env=environment, text=True, start_new_session=True)
        lines = queue.SimpleQueue()

        def read():
            for line in child.stdout:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, name="device check", daemon=True).start()
        running, began, hung = names[0], time.perf_counter(), False  # until it says which, it is on its way to the first
        try:
            while (line := lines.get(timeout=limit)) is not None:
                said = json.loads(line)
                if "state" not in said:
                    running, began = said["check"], time.perf_counter()
                    continue
                attempt.card = said.get("card", attempt.card)
                note(Check(said["check"], said["state"], said["text"], said["seconds"]))
                running = None
            child.wait(timeout=limit)  # it has closed its output, so it is ending
        except (queue.Empty, subprocess.TimeoutExpired):
            hung = True
        finally:
            free = kill(child)
        failed = bool(attempt.checks) and attempt.checks[-1].state == "failed" and attempt.checks[-1].name != "amp"
        if failed or (len(attempt.checks) == len(CHECKS) and not hung and child.returncode == 0):
            return
        errors.seek(0)
        last_words = next((line.strip() for line in reversed(errors.read().splitlines()) if line.strip()), "")
    text = f"no answer within {limit:g} s" if hung else ending(child.returncode)
    if not free:
        text += "; the child cannot be killed, the driver holds it: the machine may need a restart"
    elif last_words:
        text += f": {last_words[:300]}"
    if running is None and len(attempt.checks) == len(CHECKS):  # it did all and then crashed or hung as it gave the device back
        last = attempt.checks.pop()
        running, text = last.name, f"afterwards, {text}"
    note(Check(running or CHECKS[len(attempt.checks)], "failed", text, time.perf_counter() - began))


def kill(child):
    """End a child and what it started. -> False if it cannot be ended (it waits inside the driver)."""
    if child.poll() is None:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has just ended
            pass
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        return False
    return True


def ending(code):
    """How a process ended, in words, from its return code."""
    if code >= 0:
        return f"the child ended with exit code {code}"
    try:
        return f"the child died of {signal.Signals(-code).name}"
    except ValueError:
        return f"the child died of signal {-code}"


def attempt_all(wanted, on_check, program, limit, root):
    """Try the device wanted, or on auto each card in turn, until one passes. -> the attempts, the good one last."""
    if wanted or not (torch.version.cuda or torch.version.hip):
        return attempt_one(wanted or "mps:0", on_check, program, limit, root)
    attempts, index, count = [], 0, 1
    while index < count:
        attempts += attempt_one(f"cuda:{index}", on_check, program, limit, root)
        if attempts[-1].trusted:
            break
        index, count = index + 1, max(attempt.card.get("count", 1) for attempt in attempts)
    return attempts


def attempt_one(device, on_check, program, limit, root):
    """Try one device as the environment is; an RDNA1 card under ROCm then with each override, each in a new child. -> the attempts."""
    attempts = [inspect(device, {}, on_check, program, limit)]
    if torch.version.hip and not attempts[0].trusted and set(RDNA1) & {attempts[0].card.get("kind"), *amd_cards(root)}:
        for value in OVERRIDES:
            if value != os.environ.get(OVERRIDE) and not attempts[-1].trusted:
                attempts.append(inspect(device, {OVERRIDE: value}, on_check, program, limit))
    return attempts


# Verdicts kept


def verdict_key(wanted, root=Path("/")):
    """All that a verdict depends on, found without touching the card."""
    return {
        "device": wanted or "auto",
        "torch": f"{torch.__version__} cuda {torch.version.cuda} hip {torch.version.hip}",
        "driver": driver(root),
        "cards": nvidia_cards(root) + amd_cards(root) if sys.platform == "linux" else [f"{platform.machine()} macOS {platform.mac_ver()[0]}"],
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def conclusive(attempts, key):
    """Whether the verdict says something about the card: not where none could be named or reached, or another process held its memory."""
    failures = [attempt.failure for attempt in attempts if not attempt.trusted]
    passing = any(failure.name == "detect" and "the child" not in failure.text and "no answer" not in failure.text or "out of memory" in failure.text.lower() for failure in failures)
    return bool(key["cards"]) and (attempts[-1].trusted or not passing)


def read_verdicts(path):
    """The verdicts in a file; none where there is no file or what is there is not one of ours: then the checks just run again."""
    try:
        kept = json.loads(Path(path).read_text())
        return kept["verdicts"] if kept["format"] == 1 else []
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def recall(path, key):
    """The kept verdict of this key. -> (date, attempts), or (None, None)."""
    for verdict in read_verdicts(path):
        if verdict["key"] == key:
            return verdict["when"], [Attempt(a["device"], a["environment"], [Check(**check) for check in a["checks"]], a["card"]) for a in verdict["attempts"]]
    return None, None


def remember(path, key, attempts):
    """Keep a verdict, in place of an older one of the same key; published by rename."""
    kept = [verdict for verdict in read_verdicts(path) if verdict["key"] != key]
    kept.append({"key": key, "when": time.strftime("%Y-%m-%d"), "attempts": [asdict(attempt) for attempt in attempts]})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps({"format": 1, "verdicts": kept}, indent=1))
    os.replace(partial, path)


def forget(folder):
    """Drop all verdicts: a card that passed its checks has failed since."""
    (Path(folder) / "device.json").unlink(missing_ok=True)


# What the machine has, without touching a card


def absent(wanted="", root=Path("/")):
    """Why no card can be used, in a sentence with what to do; "" if one may be there."""
    root, version = Path(root), torch.__version__
    seen = pci_cards(root)
    metal = torch.backends.mps.is_built()
    if wanted.startswith("mps") or (metal and not wanted):
        return "" if metal else f"torch {version} is not built for Metal (mps), which macOS has"
    if not torch.version.cuda and not torch.version.hip:
        if not seen:
            return f"torch {version} is a CPU build, and no NVIDIA or AMD card is to be seen on this machine"
        return f"torch {version} is a CPU build, and there is an {' and an '.join(sorted(maker.upper() for maker in seen))} card: " + "; ".join(install(maker) for maker in sorted(seen))
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        if os.environ.get(name) in ("", "-1"):
            return f"{name}='{os.environ[name]}' hides all cards: unset {name}"
    if sys.platform != "linux" or (root / "dev/dxg").exists():  # the Windows subsystem reaches cards through /dev/dxg
        return ""
    if torch.version.cuda:
        nodes = [root / "dev/nvidiactl", *map(Path, glob.glob(str(root / "dev/nvidia[0-9]*")))]
        nodes += map(Path, glob.glob(str(root / "dev/nvhost-*")))  # Jetson
        if not any(node.exists() for node in nodes):
            other = f"; the AMD card wants another torch: {install('amd')}" if "amd" in seen else ""
            card = "an NVIDIA card is there, but its driver is not loaded" if "nvidia" in seen else "no NVIDIA card is to be seen"
            return f"torch {version} is built for CUDA, and there is no /dev/nvidia*: {card}{other}"
    else:
        nodes = [root / "dev/kfd"]
        if not nodes[0].exists():
            other = f"; the NVIDIA card wants another torch: {install('nvidia')}" if "nvidia" in seen else ""
            card = "an AMD card is there, but its driver (amdgpu) is not loaded or not built for computing" if "amd" in seen else "no AMD card is to be seen"
            return f"torch {version} is built for ROCm, and there is no /dev/kfd: {card}{other}"
        nodes += map(Path, glob.glob(str(root / "dev/dri/renderD*")))
    for node in nodes:
        if node.exists() and not os.access(node, os.R_OK | os.W_OK):
            return f"no permission on /{node.relative_to(root)} (group {group(node)}): sudo usermod -aG {group(node)} $USER, then log in again"
    return ""


def install(maker):
    """How to get a torch for a maker's cards."""
    if maker == "nvidia":
        return "pip install --force-reinstall torch" + ("" if sys.platform == "linux" else " --index-url as https://pytorch.org/get-started/locally says")
    return "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/rocm6.4 (or the ROCm that https://pytorch.org/get-started/locally names)"


def group(path):
    number = path.stat().st_gid
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:  # a container knows the number only
        return str(number)


def pci_cards(root=Path("/")):
    """The makers of display and compute cards, {"nvidia", "amd"}, on the PCI bus or, where that is hidden, by their device files."""
    makers = {"0x10de": "nvidia", "0x1002": "amd"}
    found = set()
    for folder in (Path(root) / "sys/bus/pci/devices").glob("*"):
        if first_line(folder / "class")[:4] in ("0x03", "0x12"):  # display controller, processing accelerator
            found.add(makers.get(first_line(folder / "vendor"), ""))
    if (Path(root) / "dev/nvidiactl").exists():
        found.add("nvidia")
    if (Path(root) / "dev/kfd").exists():
        found.add("amd")
    return found - {""}


def nvidia_cards(root=Path("/")):
    """Names of NVIDIA cards, as the driver lists them."""
    files = sorted((Path(root) / "proc/driver/nvidia/gpus").glob("*/information"))
    return [match.group(1).strip() for match in (re.search(r"Model:(.*)", path.read_text()) for path in files) if match]


def amd_cards(root=Path("/")):
    """The kinds of AMD cards (gfx1010, ...), as the kernel lists them."""
    found = []
    for path in sorted((Path(root) / "sys/class/kfd/kfd/topology/nodes").glob("*/properties")):
        version = int(cgroup.fields(path).get("gfx_target_version", 0))  # 100100: major 10, minor 1, step 0; 0 for a CPU
        if version:
            found.append(f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}")
    return found


def driver(root=Path("/")):
    """Versions of kernel and, where loaded, of the cards' drivers."""
    modules = [f"{name} {version}" for name in ("nvidia", "amdgpu") if (version := first_line(Path(root) / "sys/module" / name / "version"))]
    return ", ".join([f"{platform.system()} {platform.release()}", *modules])


def first_line(path):
    """The first line of a file of the system's, "" where there is none or it may not be read."""
    try:
        return Path(path).read_text().split("\n", 1)[0].strip()
    except OSError:
        return ""


# The CPU


def cpu_threads(processes=1, root=Path("/")):
    """Threads to compute with: the physical cores this process may use (affinity, control group), shared with `processes` - 1 others. A second thread on a core only slows it."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = set()
    for number in allowed:
        topology = Path(root) / f"sys/devices/system/cpu/cpu{number}/topology"
        package, core = first_line(topology / "physical_package_id"), first_line(topology / "core_id")
        cores.add((package, core) if core else number)
    count, quota = len(cores), cgroup.cpus(root)
    if quota is not None:
        count = min(count, int(quota))
    return max(1, count // processes)


def settle_threads(threads):
    """Give torch its threads, and one for operators side by side: there is one at a time. Before the first operator."""
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)


def keep_freed_memory():
    """Let glibc keep what a freed batch leaves instead of giving it back: else each step faults the same pages in again (57 ms a step of tcn, not 70 to 127)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:  # other C libraries have none
        trim_threshold, mmap_threshold, most = -1, -3, 2**31 - 1
        mallopt(trim_threshold, most)
        mallopt(mmap_threshold, most)


def cpu_flags(root=Path("/")):
    """What the processor can do, by the names the kernel gives it."""
    try:
        lines = (Path(root) / "proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return set()
    return next((set(line.split(":", 1)[1].split()) for line in lines if re.match(r"(flags|Features)\s*:", line)), set())


def supports_bf16(root=Path("/")):
    """Whether the processor multiplies bfloat16 itself; where it does not, bfloat16 is slower than float32."""
    return bool({"avx512_bf16", "amx_bf16", "bf16", "svebf16"} & cpu_flags(root))


def processor():
    """The CPU's name."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def grad_scaler(device_type, enabled):
    """A gradient scaler; torch 2.2 has it under CUDA's name only."""
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device_type, enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)


def synchronize(device):
    """Wait until a device has done all it was asked to; its errors come here."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
