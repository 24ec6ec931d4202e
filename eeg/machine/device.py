"""Which device to train on: CUDA, ROCm, Metal, else the CPU.

A card is trusted only after a child process has just used it: unsupported cards (RDNA1 under ROCm
above all) crash the process, hang it, or compute nonsense. So ten checks (eeg.machine.check) run in
a child with a time limit, and this process does not touch the card before. The verdict is kept by
driver, torch and card.
"""

import ctypes
import json
import os
import platform
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from eeg import UserError, cli, hints
from eeg.files import write_json
from eeg.machine import cgroup
from eeg.machine.cards import absent, amd_cards, driver, first_line, install, nvidia_cards
from eeg.machine.probe import (
    LIMIT_S,
    NO_ANSWER,
    NO_MEMORY,
    OVERRIDE,
    PROGRAM,
    Attempt,
    Check,
    OnCheck,
    attempt_all,
)

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
    """The device to train on.

    device: for torch.device(). precisions: those it may use, fp32 first. reason: a clause for a
    person. environment: as Attempt's; already put into os.environ.
    """

    device: str
    name: str
    precisions: tuple[str, ...]
    reason: str
    environment: dict[str, str | None] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)


def choose(
    requested: str = "auto",
    folder: Path = Path("cache"),
    again: bool = False,
    on_check: OnCheck | None = None,
    program: Sequence[str] = PROGRAM,
    limit_s: float = LIMIT_S,
    root: Path = Path("/"),
) -> Choice:
    """Choose the device to train on; call it before anything in this process uses a card.

    requested: as cli.device takes it. On auto the CPU is chosen where no card passes; a card asked
    for by name that fails is a UserError. folder: where verdicts are kept (device.json). again:
    ignore them. on_check(attempt, check) is called as each check ends. program, limit_s: the child,
    and how long one of its checks may take. root: where /dev, /proc and /sys lie.
    """
    wanted = parse(requested)
    if wanted == "cpu":
        return cpu("asked for")
    look = hints.command("check", cache=folder)
    if problem := absent(wanted, root):
        if wanted:
            raise UserError(f"--device {requested} cannot be used: {problem}")
        return cpu(f"no GPU found; `{look}` says why")

    verdicts, key = Path(folder) / "device.json", verdict_key(wanted, root)
    when, attempts = (None, None) if again else recall(verdicts, key)
    if attempts is None:
        attempts = attempt_all(wanted, on_check, program, limit_s, root)
        if conclusive(attempts, key):
            remember(verdicts, key, attempts)
    elif on_check:
        for attempt in attempts:
            for check in attempt.checks:
                on_check(attempt, check)

    for attempt in attempts:
        if attempt.trusted:
            adopt(attempt.environment)
            return _trusted(attempt, attempts, when)
    failed = "; ".join(map(_failed, attempts))
    if when:
        failed += f" (on {when}; `{hints.command('check', '--again', cache=folder)}` tries again)"
    if wanted:
        raise UserError(f"--device {requested} cannot be used: {failed}")
    return cpu(f"{failed}; `{look}` shows all", attempts)


def _trusted(attempt, attempts, when):
    """The Choice of a device that has passed, on the date `when` if its verdict was kept."""
    reason = "passed its checks"
    if when:
        reason += f" on {when}"
    if attempt.setting:
        reason += f" with {attempt.setting}"
    precisions = attempt.precisions()
    if "fp16" not in precisions:
        reason += "; fp32 only, mixed precision failed"
    name = attempt.card.get("name", attempt.device)
    return Choice(attempt.device, name, precisions, reason, attempt.environment, attempts)


def _failed(attempt):
    device = f"{attempt.device} {attempt.setting}".rstrip()
    return f"{device} failed '{attempt.failure.name}': {attempt.failure.text}"


def parse(requested: str) -> str:
    """What cli.device lets through -> "cpu", "cuda:0", "mps:0", or "" for auto."""
    found = re.fullmatch(cli.DEVICE, requested)
    assert found, requested  # cli.device has checked it
    plain, family, index = found.groups()
    if family == "rocm" and not torch.version.hip:
        raise UserError(
            f"--device {requested}: torch {torch.__version__} is not built for ROCm; "
            f"{install('amd')}"
        )
    return f"cuda:{index or 0}" if family else {"auto": "", "cpu": "cpu", "mps": "mps:0"}[plain]


def cpu(reason: str, attempts: Sequence[Attempt] = ()) -> Choice:
    precisions = ("fp32", "bf16") if supports_bf16() else ("fp32",)
    return Choice("cpu", processor(), precisions, reason, attempts=list(attempts))


def adopt(environment: Mapping[str, str | None]) -> None:
    """Set and remove variables for this process; the card's runtime reads them when it starts."""
    if environment and torch.cuda.is_initialized():
        raise RuntimeError(
            f"the card is in use already, {environment} comes too late: "
            "call choose() before the first use of a card"
        )
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


# Verdicts kept


def verdict_key(wanted: str, root: Path = Path("/")) -> dict:
    """All that a verdict depends on, found without touching the card."""
    if sys.platform == "linux":
        cards = nvidia_cards(root) + amd_cards(root)
    else:
        cards = [f"{platform.machine()} macOS {platform.mac_ver()[0]}"]
    return {
        "device": wanted or "auto",
        "torch": f"{torch.__version__} cuda {torch.version.cuda} hip {torch.version.hip}",
        "driver": driver(root),
        "cards": cards,
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def conclusive(attempts: Sequence[Attempt], key: dict) -> bool:
    """Whether a verdict tells something about the card, so that it is worth keeping.

    Not where no card could be named or reached, or where another process may have held its memory.
    """
    if not key["cards"]:
        return False
    if attempts[-1].trusted:
        return True
    failures = [attempt.failure for attempt in attempts if attempt.failure]
    unnamed = any(each.name == "detect" and each.cause != NO_ANSWER for each in failures)
    return not unnamed and not any(each.cause == NO_MEMORY for each in failures)


def read_verdicts(path: Path) -> list[dict]:
    """The verdicts in a file; none where it is missing or damaged: the checks run again."""
    try:
        kept = json.loads(Path(path).read_text(encoding="utf-8"))
        return kept["verdicts"] if kept["format"] == 1 else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def recall(path: Path, key: dict) -> tuple[str, list[Attempt]] | tuple[None, None]:
    """The kept verdict of this key: its date and attempts."""
    for verdict in read_verdicts(path):
        if verdict["key"] == key:
            return verdict["when"], [
                Attempt(**each | {"checks": [Check(**check) for check in each["checks"]]})
                for each in verdict["attempts"]
            ]
    return None, None


def remember(path: Path, key: dict, attempts: Sequence[Attempt]) -> None:
    """Keep a verdict, in place of an older one of the same key."""
    kept = [verdict for verdict in read_verdicts(path) if verdict["key"] != key]
    written = [asdict(attempt) for attempt in attempts]
    kept.append({"key": key, "when": time.strftime("%Y-%m-%d"), "attempts": written})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"format": 1, "verdicts": kept})
    except OSError:
        pass  # a cache that may only be read: the next run checks again


def forget(folder: Path) -> None:
    """Drop all verdicts: a card that passed its checks has failed since."""
    try:
        (Path(folder) / "device.json").unlink(missing_ok=True)
    except OSError as e:  # it may only be read
        again = hints.command("check", "--again", cache=folder)
        print(
            f"warning: {folder}/device.json still trusts a card that has failed ({e.strerror}); "
            f"check it with: {again}",
            file=sys.stderr,
        )


# The CPU


def cpu_threads(processes: int = 1, root: Path = Path("/"), busy: float = 0.0) -> int:
    """Threads to compute with: OMP_NUM_THREADS where it is set, else one a free core.

    The cores are those of `cpu_cores`, shared with `processes` - 1 others like this one, less the
    `busy` ones that other programs keep at work (eeg.machine.load).
    """
    if asked := threads_of_environment(processes):
        return asked
    cores, quota = cpu_cores(root), cgroup.cpus(root)
    granted = cores if quota is None else min(cores, int(quota))
    return max(1, min(granted // processes, int(cores - busy + 0.5)))


def threads_of_environment(processes: int = 1) -> int | None:
    """What OMP_NUM_THREADS says, None where it says nothing.

    torchrun sets it to 1 for each of several processes where nobody has: that says nothing either.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if not asked.isdigit() or int(asked) < 1 or (processes > 1 and asked == "1"):
        return None
    return int(asked)


def cpu_cores(root: Path = Path("/")) -> int:
    """The physical cores this process may run on. A second thread on a core only slows it."""
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
    else:
        allowed = set(range(os.cpu_count() or 1))
    cores = set()
    for number in allowed:
        topology = Path(root) / f"sys/devices/system/cpu/cpu{number}/topology"
        package = first_line(topology / "physical_package_id")
        core = first_line(topology / "core_id")
        cores.add((package, core) if core else number)
    return len(cores)


def settle_threads(threads: int) -> None:
    """Give torch its threads, and run one operator at a time. Call it before the first operator."""
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)


def keep_freed_memory() -> None:
    """Let glibc keep what a freed batch leaves instead of giving it back.

    Else each step faults the same pages in again: a step of tcn takes 70 to 127 ms, not 57.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:  # other C libraries have none
        trim_threshold, mmap_threshold, most = -1, -3, 2**31 - 1
        mallopt(trim_threshold, most)
        if not mallopt(mmap_threshold, most):
            mallopt(mmap_threshold, 32 << 20)  # older ones allow no more


def cpu_flags(root: Path = Path("/")) -> set[str]:
    """What the processor can do, by the names the kernel gives it."""
    try:
        lines = (Path(root) / "proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return set()
    flags = (line.split(":", 1)[1] for line in lines if re.match(r"(flags|Features)\s*:", line))
    return set(next(flags, "").split())


def supports_bf16(root: Path = Path("/")) -> bool:
    """Whether the processor multiplies bfloat16 itself; else bfloat16 is slower than float32."""
    return bool({"avx512_bf16", "amx_bf16", "bf16", "svebf16"} & cpu_flags(root))


def processor() -> str:
    """The CPU's name."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def synchronize(device: torch.device | str) -> None:
    """Wait until a device has done all it was asked to; its errors are raised here."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
