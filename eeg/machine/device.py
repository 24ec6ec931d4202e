"""Chooses the device to train on: CUDA, ROCm, Metal, else the CPU.

Unsupported cards (RDNA1 under ROCm above all) crash the process, hang it, or compute nonsense. So
ten checks (eeg.machine.check) run in a child process with a time limit before this process touches
the card. The verdict is kept by driver, torch and card.
"""

import ctypes
import json
import os
import platform
import re
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from eeg import UserError, cli, hints
from eeg.files import write_json
from eeg.machine import cgroup, probe
from eeg.machine.cards import absent, amd_cards, driver, first_line, install, nvidia_cards
from eeg.machine.probe import Attempt, Check

# What else decides which card is seen and how it is driven, besides driver and torch.
VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"),
    *("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF", "PYTORCH_ALLOC_CONF", probe.OVERRIDE),
)


@dataclass
class Choice:
    """The device to train on."""

    device: str  # for torch.device()
    name: str
    precisions: tuple[str, ...]  # that it may use, fp32 first
    reason: str  # a clause for a person
    environment: dict[str, str | None] = field(default_factory=dict)  # already in os.environ
    attempts: list[Attempt] = field(default_factory=list)


def choose(
    requested: str = "auto",
    folder: Path = Path("cache"),
    again: bool = False,
    on_check: probe.OnCheck | None = None,
    program: Sequence[str] = probe.PROGRAM,
    limit_s: float = probe.LIMIT_S,
    root: Path = Path("/"),
) -> Choice:
    """Choose the device to train on; call it before anything in this process uses a card.

    requested: as cli.device takes it. On auto the CPU is chosen where no card passes; a card asked
    for by name that fails is a UserError. folder: where verdicts are kept (device.json). again:
    ignore them. on_check, program, limit_s: as for probe.inspect. root: holds dev, proc and sys.
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
        attempts = probe.attempt_all(wanted, root, on_check, program, limit_s)
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
    reason = "passed its checks" + (f" on {when}" if when else "")
    reason += f" with {attempt.setting}" if attempt.setting else ""
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
        problem = f"torch {torch.__version__} is not built for ROCm; {install('amd')}"
        raise UserError(f"--device {requested}: {problem}")
    return f"cuda:{index or 0}" if family else {"auto": "", "cpu": "cpu", "mps": "mps:0"}[plain]


def cpu(reason: str, attempts: Sequence[Attempt] = ()) -> Choice:
    precisions = ("fp32", "bf16") if supports_bf16() else ("fp32",)
    return Choice("cpu", processor(), precisions, reason, attempts=list(attempts))


def adopt(environment: Mapping[str, str | None]) -> None:
    """Set and remove variables of this process, before the card's runtime starts and reads them."""
    if environment and torch.cuda.is_initialized():
        raise RuntimeError(f"call choose() before the first use of a card, to set {environment}")
    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
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
    """Whether a verdict is worth keeping: about the card itself, and not about an unreachable card
    or memory that another process may have held."""
    if not key["cards"]:
        return False
    if attempts[-1].trusted:
        return True
    failures = [attempt.failure for attempt in attempts if attempt.failure]
    unnamed = any(each.name == "detect" and each.cause != probe.NO_ANSWER for each in failures)
    return not unnamed and not any(each.cause == probe.NO_MEMORY for each in failures)


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
            attempts = [Attempt(**each) for each in verdict["attempts"]]
            for attempt in attempts:
                stored: list = attempt.checks  # dicts, as JSON keeps them
                attempt.checks = [Check(**check) for check in stored]
            return verdict["when"], attempts
    return None, None


def remember(path: Path, key: dict, attempts: Sequence[Attempt]) -> None:
    """Keep a verdict, in place of an older one of the same key."""
    kept = [verdict for verdict in read_verdicts(path) if verdict["key"] != key]
    written = [asdict(attempt) for attempt in attempts]
    kept.append({"key": key, "when": time.strftime("%Y-%m-%d"), "attempts": written})
    with suppress(OSError):  # a read-only cache: the next run checks again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"format": 1, "verdicts": kept})


def forget(folder: Path) -> None:
    """Drop all verdicts, because a card that passed its checks has failed since."""
    try:
        (Path(folder) / "device.json").unlink(missing_ok=True)
    except OSError as e:  # a read-only cache
        kept = f"{folder}/device.json still trusts a card that has failed ({e.strerror})"
        again = hints.command("check", "--again", cache=folder)
        print(f"warning: {kept}; check it with: {again}", file=sys.stderr)


# The CPU


def cpu_threads(processes: int = 1, root: Path = Path("/"), busy: float = 0.0) -> int:
    """Threads to compute with: OMP_NUM_THREADS where it is set, else one for each free core.

    processes: how many like this one share the cores. busy: cores that other programs keep at work.
    """
    if asked := threads_of_environment(processes):
        return asked
    cores, quota = cpu_cores(root), cgroup.cpus(root)
    granted = cores if quota is None else min(cores, int(quota))
    return max(1, min(granted // processes, int(cores - busy + 0.5)))


def threads_of_environment(processes: int = 1) -> int | None:
    """What OMP_NUM_THREADS asks for, or None. The 1 that torchrun gives several processes where the
    user has set nothing asks for nothing."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if not asked.isdigit() or int(asked) < 1 or (processes > 1 and asked == "1"):
        return None
    return int(asked)


def cpu_cores(root: Path = Path("/")) -> int:
    """The physical cores this process may run on. A second thread on a core only slows it."""
    known = hasattr(os, "sched_getaffinity")
    cores = set()
    for number in os.sched_getaffinity(0) if known else range(os.cpu_count() or 1):
        topology = Path(root) / f"sys/devices/system/cpu/cpu{number}/topology"
        core = first_line(topology / "core_id")
        cores.add((first_line(topology / "physical_package_id"), core) if core else number)
    return len(cores)


def settle_threads(threads: int) -> None:
    """Give torch its threads, and run one operator at a time. Call it before the first operator."""
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)


def keep_freed_memory() -> None:
    """Let glibc keep a freed batch's memory. Else a step of tcn takes 70 to 127 ms, not 57."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:  # other C libraries have none
        trim_threshold, mmap_threshold, most = -1, -3, 2**31 - 1
        mallopt(trim_threshold, most)
        if not mallopt(mmap_threshold, most):
            mallopt(mmap_threshold, 32 << 20)  # older ones allow no more


def use_free_cores(load) -> None:
    """Let torch take the cores that other programs leave. load: a Load begun before the imports."""
    keep_freed_memory()
    torch.set_num_threads(cpu_threads(busy=load.cores()))


def cpu_info(pattern: str, root: Path = Path("/")) -> str:
    """The first value in /proc/cpuinfo whose name matches; "" where there is none."""
    path = Path(root) / "proc/cpuinfo"
    text = path.read_text() if path.exists() else ""
    found = re.search(rf"^(?:{pattern})\s*:(.*)", text, re.MULTILINE | re.IGNORECASE)
    return found[1].strip() if found else ""


def supports_bf16(root: Path = Path("/")) -> bool:
    """Whether the processor multiplies bfloat16 itself; else bfloat16 is slower than float32."""
    flags = cpu_info("flags|features", root).split()
    return bool({"avx512_bf16", "amx_bf16", "bf16", "svebf16"}.intersection(flags))


def processor() -> str:
    """The CPU's name."""
    return cpu_info("model name.*?") or platform.processor() or platform.machine()


def synchronize(device: torch.device | str) -> None:
    """Wait until a device has finished its work; its errors are raised here."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
