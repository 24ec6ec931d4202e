"""What a run computes with, and whether it is still the run that it was: device, threads,
precision, model, windows.

What a run has settled once it keeps, and all runs of a plan share it: what compares seeds must not
differ in its last digits.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from eeg import UserError, cli, hints
from eeg.data.cache import Cache
from eeg.machine import amp, device
from eeg.models.model import Model
from eeg.runs.plan import planned
from eeg.runs.run import Run
from eeg.train.options import Options
from eeg.train.parallel import Ranks
from eeg.train.recovery import outcome

MEASURED = 64  # windows at most, of the batch on which precisions are measured


@dataclass
class Settled:
    """What the config.json of a run says, and those of the runs of its plan."""

    folder: Path
    config: dict
    plan: list[dict]

    @classmethod
    def read(cls, run: Run) -> "Settled":
        """Raises UserError where config.json lacks what resuming needs."""
        config = run.config
        missing = [name for name in ("train", "versions") if name not in config]
        options = config.get("train", {})
        missing += [name for name in ("train", "valid", "fold", "seed") if name not in options]
        if missing:
            raise UserError(
                f"{run.folder}/config.json says nothing of {', '.join(missing)}, so this run "
                f"cannot be resumed; train another with: {run.again()}"
            )
        return cls(run.folder, config, [other.config for other in planned(run)])

    def first(self, name: str):
        """What the run says under this name, else the first run of its plan that does, else
        None."""
        return next((each[name] for each in (self.config, *self.plan) if name in each), None)

    @property
    def again(self) -> str:
        """The command that trains another run like it."""
        return Run(self.folder).again()


def choose_device(options: Options, ranks: Ranks) -> device.Choice:
    """Each of several processes has the card of its number if the first process finds any: checks
    of one card must not meet."""
    choice = device.choose(options.device, options.cache) if ranks.main else None
    choice = ranks.broadcast(choice)
    if ranks.world > 1 and choice.device.startswith("cuda"):
        return device.choose(f"cuda:{ranks.local}", options.cache)
    return choice


def choose_threads(
    asked: int | None, settled: Settled, processes: int, busy: float
) -> tuple[int, str]:
    """-> (threads to compute with, the same in words). busy: cores that other programs keep at
    work, see eeg.machine.load"""
    cores, why = device.cpu_cores(), ""
    known = settled.first("threads")
    others = f"other programs keep {busy:.1f} of {cores} cores busy"
    if asked:
        count = asked
    elif known:
        count = min(known, max(1, cores // processes))
        if count > max(1, cores - busy + 0.5):
            why = f" as before, while {others}: --threads 1 may be faster"
    else:
        count = device.cpu_threads(processes, busy=busy)
        from_environment = device.threads_of_environment(processes)
        if not from_environment and count < device.cpu_threads(processes):
            why = f", for {others}: --threads {cores} takes all"
    return count, f"{cli.counted(count, 'thread')}{why}"


def choose_precision(
    options: Options,
    choice: device.Choice,
    model: Model,
    windows: int,
    settled: Settled,
    threads: int,
    busy: float,
) -> tuple[str, str]:
    """The precision of --amp: what the device supports and is faster on this model. -> (its name,
    why, in words, or "")

    It is measured once. On a CPU that other programs keep busy nothing is measured, because each
    measurement would say something else: that run and its plan are float32.
    """
    for config in (settled.config, *settled.plan):
        if config.get("device") == choice.device and "precision" in config:
            return config["precision"], ""
    if options.amp not in ("auto", "off", *choice.precisions):
        raise UserError(
            f"--amp {options.amp} cannot be used: {choice.name} supports "
            f"{', '.join(choice.precisions)}; see: {hints.command('check', cache=options.cache)}"
        )
    if options.amp != "auto" or len(choice.precisions) == 1:
        return "fp32" if options.amp in ("auto", "off") else options.amp, ""
    windows = min(MEASURED, options.batch_size, windows)
    key = json.dumps([choice.name, threads, windows])
    chosen, fault = outcome(
        amp.choose,
        model,
        choice.device,
        choice.precisions,
        windows,
        options.cache / "precision.json",
        key,
        busy,
        device.cpu_cores(),
    )
    return ("fp32", f"; no precision measured: {fault.text}") if fault else chosen


def check_model(settled: Settled, model: Model) -> None:
    """Raises UserError where the options of config.json give another model than it says."""
    known, settings = settled.config.get("model", {}), json.loads(json.dumps(model.settings))
    if len(known) <= 1:  # a run that has not begun knows the name of its model alone
        return
    other = sorted(name for name in known | settings if known.get(name) != settings.get(name))
    if other:
        raise UserError(
            f"{settled.folder}/config.json contradicts itself: its settings under train give a "
            f"model of another {other[0]} than stands under model; "
            f"train another with: {settled.again}"
        )


def fingerprints(cache: Cache) -> dict[str, str]:
    """{release: digest of what its cache was made from, and how}"""
    return {
        str(attributes["release"]): str(attributes["fingerprint"])
        for attributes in cache.attributes
    }


def check_windows(settled: Settled, cache: Cache, sides: dict) -> None:
    """Raises UserError where a run would resume with other windows than it, or a run of its plan,
    had.

    Runs of older versions know the names and numbers of their windows alone.
    """
    caches = fingerprints(cache)
    known = settled.first("caches") or caches
    changed = [
        str(path)
        for path, release in zip(cache.paths, caches)
        if known.get(release) != caches[release]
    ]
    if not changed and settled.config.get("split", sides) == sides:
        return
    what = "the windows have changed"
    if changed:
        have = "has" if len(changed) == 1 else "have"
        what = (
            f"{' and '.join(changed)} {have} been rebuilt from other files or with other settings"
        )
    raise UserError(
        f"{what} since {settled.folder} began; resume it with the caches it began with, in another "
        f"--cache DIR, or train a new one with: {settled.again}"
    )
