"""What a run computes with (device, threads, precision), and whether its model and windows are
still those it began with.

A run keeps what it has settled once, and all runs of a plan share it: a comparison of seeds must
not differ in its last digits.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from eeg import UserError, cli, hints
from eeg.data.cache import Cache
from eeg.machine import amp, device
from eeg.machine.recovery import outcome
from eeg.models.model import Model
from eeg.runs.parallel import Ranks
from eeg.runs.plan import planned
from eeg.runs.run import Run
from eeg.train.options import Options

MEASURED = 64  # windows at most in the batch on which precisions are measured


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
            what = f"{run.folder}/config.json lacks {', '.join(missing)}"
            raise UserError(f"{what}: it cannot be resumed; train another with: {run.again()}")
        return cls(run.folder, config, [other.config for other in planned(run)])

    def first(self, name: str):
        """The value of this name for the run, else for the first run of its plan that has one."""
        return next((each[name] for each in (self.config, *self.plan) if name in each), None)

    @property
    def again(self) -> str:
        """The command that trains another run like it."""
        return Run(self.folder).again()


def choose_device(options: Options, ranks: Ranks) -> device.Choice:
    """Let the first process look for cards, because checks of one card must not meet. If it finds
    any, each process takes the card of its number."""
    choice = ranks.broadcast(device.choose(options.device, options.cache) if ranks.main else None)
    if ranks.world > 1 and choice.device.startswith("cuda"):
        return device.choose(f"cuda:{ranks.local}", options.cache)
    return choice


def choose_threads(
    asked: int | None, settled: Settled, processes: int, busy: float
) -> tuple[int, str]:
    """-> (threads to compute with, the same in words). busy: cores that other programs use"""
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
        fewer = count < device.cpu_threads(processes)
        if fewer and not device.threads_of_environment(processes):
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
    """The precision of --amp, by default the fastest for this model. -> (its name, why in words)

    It is measured once. On a CPU that other programs keep busy no measurement could be trusted:
    that run and its plan are float32.
    """
    for config in (settled.config, *settled.plan):
        if config.get("device") == choice.device and "precision" in config:
            return config["precision"], ""
    if options.amp not in ("auto", "off", *choice.precisions):
        supported = f"{choice.name} supports {', '.join(choice.precisions)}"
        see = hints.command("check", cache=options.cache)
        raise UserError(f"--amp {options.amp} cannot be used: {supported}; see: {see}")
    if options.amp != "auto" or len(choice.precisions) == 1:
        return "fp32" if options.amp in ("auto", "off") else options.amp, ""
    windows = min(MEASURED, options.batch_size, windows)
    key = json.dumps([choice.name, threads, windows])
    path, cores = options.cache / "precision.json", device.cpu_cores()
    what = model, choice.device, choice.precisions, windows
    chosen, fault = outcome(amp.choose, *what, path, key, busy, cores)
    return ("fp32", f"; no precision measured: {fault.text}") if fault else chosen


def check_model(settled: Settled, model: Model) -> None:
    """Raises UserError where the options of config.json give another model than it says."""
    known, settings = settled.config.get("model", {}), json.loads(json.dumps(model.settings))
    if len(known) <= 1:  # a run that has not begun knows the name of its model alone
        return
    other = sorted(name for name in known | settings if known.get(name) != settings.get(name))
    if other:
        what = f'"train" and "model" give a different {other[0]} of the model'
        path = settled.folder / "config.json"
        raise UserError(f"{path} contradicts itself: {what}; train another with: {settled.again}")


def fingerprints(cache: Cache) -> dict[str, str]:
    """{release: digest of what its cache was made from, and how}"""
    return {str(about["release"]): str(about["fingerprint"]) for about in cache.attributes}


def check_windows(settled: Settled, cache: Cache, sides: dict) -> None:
    """Raises UserError where the windows are not those that the run, or a run of its plan, began
    with. Runs of older versions know the names and numbers of their windows alone.
    """
    caches = fingerprints(cache)
    known, files = settled.first("caches") or caches, zip(cache.paths, caches)
    changed = [str(path) for path, name in files if known.get(name) != caches[name]]
    if not changed and settled.config.get("split", sides) == sides:
        return
    what = "the windows have changed"
    if changed:
        have = f"{' and '.join(changed)} {'has' if len(changed) == 1 else 'have'}"
        what = f"{have} been rebuilt from other files or with other settings"
    raise UserError(
        f"{what} since {settled.folder} began; resume it with the caches it began with, in another "
        f"--cache DIR, or train a new one with: {settled.again}"
    )
