"""Which device to train on: CUDA, ROCm, Metal, else the CPU. A card is trusted only after a child process has just used it.

Unsupported cards (RDNA1 under ROCm above all) crash the process, hang it, or compute nonsense. So ten checks (eeg.machine.check)
run in a child with a time limit; this process does not touch the card before. The verdict is kept by driver, torch and card.
"""

import ctypes
import json
import os
import platform
import re
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from eeg import UserError, cli, hints
from eeg.files import write_json
from eeg.machine import cgroup
from eeg.machine.cards import absent, amd_cards, driver, first_line, install, nvidia_cards
from eeg.machine.probe import LIMIT, OVERRIDE, PROGRAM, Attempt, Check, attempt_all

# What else decides which card is seen and how it is driven, besides driver and torch.
VARIABLES = (
    OVERRIDE,
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_HIP_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
)


@dataclass
class Choice:
    """The device to train on. device: for torch.device(); precisions: those it may use, fp32 first; reason: a clause for a person."""

    device: str
    name: str
    precisions: tuple
    reason: str
    environment: dict = field(default_factory=dict)  # as in Attempt; already put into os.environ
    attempts: list = field(default_factory=list)


def choose(
    requested="auto",
    folder=Path("cache"),
    again=False,
    on_check=None,
    program=PROGRAM,
    limit=LIMIT,
    root=Path("/"),
):
    """Choose the device to train on. To be called before anything in this process uses a card. -> Choice.

    requested: as cli.device takes it. On auto the CPU is taken where no card passes; a card asked for by name that
    fails is a UserError. folder: where verdicts are kept (device.json). again: whatever verdict is kept. on_check(attempt, check)
    is called as each check ends. program, limit: the child and the seconds one of its checks may take. root: where /dev, /proc and /sys lie.
    """
    wanted, look = parse(requested), hints.command("check", cache=folder)
    if wanted == "cpu":
        return cpu("asked for")
    problem = absent(wanted, root)
    if problem:
        if wanted:
            raise UserError(f"--device {requested} cannot be used: {problem}")
        return cpu(f"no GPU found; `{look}` says why")

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
            return Choice(
                attempt.device,
                attempt.card.get("name", attempt.device),
                attempt.precisions(),
                reason,
                attempt.environment,
                attempts,
            )
    failed = "; ".join(
        f"{a.device}{f' {a.setting}' if a.setting else ''} failed '{a.failure.name}': {a.failure.text}"
        for a in attempts
    )
    if when:
        failed += f" (on {when}; `{hints.command('check', '--again', cache=folder)}` tries again)"
    if wanted:
        raise UserError(f"--device {requested} cannot be used: {failed}")
    return cpu(f"{failed}; `{look}` shows all", attempts)


def parse(requested):
    """What cli.device lets through -> "cpu", "cuda:0", "mps:0", or "" for auto."""
    plain, family, index = re.fullmatch(cli.DEVICE, requested).groups()
    if family == "rocm" and not torch.version.hip:
        raise UserError(
            f"--device {requested}: torch {torch.__version__} is not built for ROCm; {install('amd')}"
        )
    return f"cuda:{index or 0}" if family else {"auto": "", "cpu": "cpu", "mps": "mps:0"}[plain]


def cpu(reason, attempts=()):
    return Choice(
        "cpu",
        processor(),
        ("fp32", "bf16") if supports_bf16() else ("fp32",),
        reason,
        attempts=list(attempts),
    )


def adopt(environment):
    """Set and remove variables for this process; the card's runtime reads them when it starts."""
    if environment and torch.cuda.is_initialized():
        raise RuntimeError(
            f"the card is in use already, {environment} comes too late: choose() belongs before the first use of a card"
        )
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


# Verdicts kept


def verdict_key(wanted, root=Path("/")):
    """All that a verdict depends on, found without touching the card."""
    return {
        "device": wanted or "auto",
        "torch": f"{torch.__version__} cuda {torch.version.cuda} hip {torch.version.hip}",
        "driver": driver(root),
        "cards": nvidia_cards(root) + amd_cards(root)
        if sys.platform == "linux"
        else [f"{platform.machine()} macOS {platform.mac_ver()[0]}"],
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def conclusive(attempts, key):
    """Whether the verdict says something about the card: not where none could be named or reached, or another process may have held its memory."""
    failures = [attempt.failure for attempt in attempts if not attempt.trusted]
    unnamed = any(
        failure.name == "detect"
        and "the child" not in failure.text
        and "no answer" not in failure.text
        for failure in failures
    )
    occupied = any("out of memory" in failure.text.lower() for failure in failures)
    return bool(key["cards"]) and (attempts[-1].trusted or not unnamed and not occupied)


def read_verdicts(path):
    """The verdicts in a file; none where there is no file or what is there is not one of ours: then the checks just run again."""
    try:
        kept = json.loads(Path(path).read_text(encoding="utf-8"))
        return kept["verdicts"] if kept["format"] == 1 else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def recall(path, key):
    """The kept verdict of this key. -> (date, attempts), or (None, None)."""
    for verdict in read_verdicts(path):
        if verdict["key"] == key:
            return verdict["when"], [
                Attempt(
                    a["device"],
                    a["environment"],
                    [Check(**check) for check in a["checks"]],
                    a["card"],
                )
                for a in verdict["attempts"]
            ]
    return None, None


def remember(path, key, attempts):
    """Keep a verdict, in place of an older one of the same key."""
    kept = [verdict for verdict in read_verdicts(path) if verdict["key"] != key]
    kept.append(
        {
            "key": key,
            "when": time.strftime("%Y-%m-%d"),
            "attempts": [asdict(attempt) for attempt in attempts],
        }
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"format": 1, "verdicts": kept})
    except OSError:
        pass  # a cache that may only be read: the next run checks again


def forget(folder):
    """Drop all verdicts: a card that passed its checks has failed since."""
    try:
        (Path(folder) / "device.json").unlink(missing_ok=True)
    except OSError as e:  # it may only be read
        print(
            f"warning: {folder}/device.json still trusts a card that has failed ({e.strerror}); check it with: {hints.command('check', '--again', cache=folder)}",
            file=sys.stderr,
        )


# The CPU


def cpu_threads(processes=1, root=Path("/"), busy=0.0):
    """Threads to compute with: OMP_NUM_THREADS where it is set, else the cores of `cpu_cores`, shared with `processes` - 1 others like this one,
    less those that other programs keep busy (eeg.machine.load)."""
    if asked := threads_of_environment(processes):
        return asked
    cores = cpu_cores(root)
    quota = cgroup.cpus(root)
    granted = cores if quota is None else min(cores, int(quota))
    return max(1, min(granted // processes, int(cores - busy + 0.5)))


def threads_of_environment(processes=1):
    """What OMP_NUM_THREADS says, None where it says nothing. torchrun sets it to 1 for each of several processes where nobody has: that says nothing either."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if not asked.isdigit() or int(asked) < 1 or (processes > 1 and asked == "1"):
        return None
    return int(asked)


def cpu_cores(root=Path("/")):
    """The physical cores this process may run on. A second thread on a core only slows it."""
    allowed = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    cores = set()
    for number in allowed:
        topology = Path(root) / f"sys/devices/system/cpu/cpu{number}/topology"
        package, core = (
            first_line(topology / "physical_package_id"),
            first_line(topology / "core_id"),
        )
        cores.add((package, core) if core else number)
    return len(cores)


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
        mallopt(mmap_threshold, most) or mallopt(
            mmap_threshold, 32 << 20
        )  # older ones allow no more


def cpu_flags(root=Path("/")):
    """What the processor can do, by the names the kernel gives it."""
    try:
        lines = (Path(root) / "proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return set()
    return next(
        (
            set(line.split(":", 1)[1].split())
            for line in lines
            if re.match(r"(flags|Features)\s*:", line)
        ),
        set(),
    )


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


def synchronize(device):
    """Wait until a device has done all it was asked to; its errors come here."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
