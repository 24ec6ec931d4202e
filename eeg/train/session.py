"""From a command line to finished runs: each run of a plan, from where it is to its end.

run/train.py and run/pretrain.py share it. torch is imported late: meanwhile it is measured how busy
other programs keep the machine.
"""

import shutil
import sys
from pathlib import Path

from eeg import UserError
from eeg.models import CLOSED_FORM
from eeg.train.options import ABOUT, Options


def train_all(args) -> None:
    """Train the runs that the arguments ask for. args: with `options`, those of each new run,
    `name`, of their folder, and may_begin: whether --resume begins one where there is none."""
    from eeg.runs.parallel import Ranks
    from eeg.runs.plan import find_plan, summarise

    ranks, plan, new = Ranks(), [], False
    try:
        plan, new = ranks.broadcast(find_plan(args, ranks) if ranks.main else None)
        for folder in plan:
            if train(folder, args, ranks) == "stopped":
                break
        if ranks.main:
            summarise(plan[0])
    except UserError:
        if ranks.main and new and not any((folder / "checkpoints").exists() for folder in plan):
            for folder in plan:  # it ended before it began: there is nothing to resume
                shutil.rmtree(folder)
        raise
    finally:
        ranks.stop()
    ranks.leave()


def train(folder, args, ranks):
    """Train the run of this folder from where it is to its end. -> "finished" or "stopped" """
    from eeg.runs.journal import Journal
    from eeg.runs.run import Run

    journal, trainer = Journal(folder, quiet=not ranks.main), None
    journal.state(force=True)
    try:
        trainer = prepare(folder, args, ranks, journal)
        return trainer.run()
    except (Exception, KeyboardInterrupt, SystemExit) as e:
        # Ctrl-C and SIGTERM come here before there is anything to save, or when sent twice.
        asked = not isinstance(e, Exception)
        if trainer is None and journal.before.get("status") == "finished":
            journal.state(**journal.before)  # more epochs were asked for: it is still finished
        elif asked:
            journal.state("stopped", reason="")
        else:
            why = str(e) if isinstance(e, UserError) else f"{type(e).__name__}: {e}"
            journal.state("failed", reason=why)
        if not asked:
            raise
        journal.say(f"stopped, the last checkpoint is kept; resume with: {Run(folder).resume}")
        return "stopped"
    finally:
        journal.close()


def prepare(folder, args, ranks, journal):
    """Device, windows, model, checkpoint. -> Trainer, where the run stands"""
    from eeg.machine.load import Load

    load = Load()  # measures what other programs do while torch is imported
    import torch

    from eeg.data.split import Keep
    from eeg.data.split import split as find_windows
    from eeg.data.windows import check_electrodes
    from eeg.machine import device
    from eeg.models.model import multiply_adds
    from eeg.runs.run import Run
    from eeg.train import progress, setup
    from eeg.train.optim import Place

    settled = setup.Settled.read(Run(folder))
    config, options = settled.config, resumed_options(settled.config, args)

    was_killed = journal.before.get("status") == "running"
    if ranks.main and config.get("device", "cpu") != "cpu" and was_killed:
        device.forget(options.cache)  # the card passed its checks and may still have ended the run
    choice = setup.choose_device(options, ranks)
    ranks.use(choice.device)
    device.keep_freed_memory()
    # One of several processes would take the others for other programs.
    busy = load.cores() if ranks.here == 1 else 0.0
    threads, in_words = setup.choose_threads(args.threads, settled, ranks.here, busy)
    device.settle_threads(threads)

    keep = Keep(options.keep_copies, options.keep_bad, options.max_recordings, options.max_subjects)
    releases = options.train, options.valid, options.mini
    split = find_windows(options.cache, options.challenge, *releases, options.fold, keep)
    sides = {side: split.describe(side) for side in ("train", "valid")}
    torch.manual_seed(options.seed)
    model = make_model(options)
    check_electrodes(model, split.cache.paths[0], split.cache.channels)
    setup.check_model(settled, model)
    setup.check_windows(settled, split.cache, sides)
    began = begin(model, options, journal) if options.init else {}
    cost = multiply_adds(model)  # while it lies on the CPU

    measured = None
    if ranks.main:
        windows = len(split.train)
        measured = setup.choose_precision(options, choice, model, windows, settled, threads, busy)
    precision, why = ranks.broadcast(measured)
    place = Place(choice.device, precision, config.get("part"))
    trainer = make_trainer(options, model, split, journal, place, ranks, threads)
    what = f", {in_words}" if choice.device == "cpu" else f" {choice.name}"
    processes = f", {ranks.world} processes" if ranks.world > 1 else ""
    reason = f"{choice.reason}{why}"
    journal.say(f"device  {choice.device}{what}, {precision} ({reason}){processes}")
    progress.say_data(trainer, sides)
    progress.say_model(trainer, cost)
    if options.model not in CLOSED_FORM:  # what takes seconds is fitted again
        restore(trainer, settled, ranks)
    known = {"train": config["train"] | {"epochs": options.epochs}, "split": sides}
    known |= {"caches": setup.fingerprints(split.cache), "device": choice.device}
    known |= {"threads": threads, "precision": precision, **began}
    journal.config(**known, **facts(trainer, config))
    return trainer


def make_model(options):
    """-> Model, or the Masked or Positioning of a run that pretrains"""
    if options.pretrains:
        from eeg.train import pretraining

        return pretraining.make_model(options)
    from eeg.train import targets

    return targets.make_model(options)


def begin(model, options, journal):
    """Let the model begin with the encoder that --init names, of a run or in a file; a run that has
    begun has it in its checkpoint. -> {"begun": what config.json says of it}, or {}"""
    from eeg.runs.run import Run
    from eeg.train import checkpoint
    from eeg.transfer import begin as transfer
    from eeg.transfer import published
    from eeg.transfer.options import in_file

    found = {}
    closed = options.model in CLOSED_FORM  # it has no checkpoint to resume from
    if closed or not checkpoint.begun(journal.folder / "checkpoints"):
        path = Path(options.init)
        source = published.Published(path) if in_file(options.init) else Run(path)
        how = published if in_file(options.init) else transfer
        found = {"begun": how.begin(model, source)}
        journal.say(f"init    {transfer.described(found['begun'], source.name)}")
    transfer.settle(model, options)
    return found


def make_trainer(options, model, split, journal, place, ranks, threads):
    """-> Trainer, or the Fitter of a model in closed form, which is used as one"""
    if options.model in CLOSED_FORM:
        from eeg.train.fitter import Fitter

        return Fitter(options, model, split, journal, ranks, threads)
    if options.pretrains:
        from eeg.train.pretraining import TRAINERS

        return TRAINERS[options.task](options, model, split, journal, place, ranks)
    from eeg.train.trainer import Trainer

    return Trainer(options, model, split, journal, place, ranks)


def resumed_options(config, args):
    """The options in config.json, with those of this command line that a resumed run reads."""
    now = {name: getattr(args, name) for name, about in ABOUT.items() if not about.kept}
    options = Options.from_config(config, **now)
    if args.cache != Path("cache") or not options.cache.is_dir():
        options.cache = args.cache
    if options.model in CLOSED_FORM:
        options.device = "cpu"
    elif args.resume and args.epochs:
        options.epochs = args.epochs
    return options


def restore(trainer, settled, ranks):
    """Resume from the newest checkpoint that is whole, if there is any."""
    from eeg.train import checkpoint

    folder, journal = settled.folder / "checkpoints", trainer.journal
    state, _, wrong = ranks.broadcast(checkpoint.load(folder) if ranks.main else None)
    for what in wrong:
        journal.say(f"warning: {what}")
    if state:
        checkpoint.restore(trainer, state)
        journal.say(f"resumed at epoch {trainer.epoch}, batch {trainer.batch}")
        journal.note(trainer.epoch, trainer.batch, "resumed", "; ".join(wrong))
    elif wrong:
        what = f"no checkpoint in {folder} can be used ({'; '.join(wrong)})"
        raise UserError(f"{what}; train another with: {settled.again}")


def facts(trainer, config):
    """What config.json says of a run once its data and model are known."""
    import numpy as np
    import torch

    from eeg.data.windows import INPUT

    cache, python = trainer.split.cache, sys.version.split()[0]
    source = {"sfreq": cache.sfreq, "window_samples": INPUT, "channels": list(cache.channels)}
    versions = {"eeg": config["versions"]["eeg"], "torch": torch.__version__}
    versions |= {"numpy": np.__version__, "python": python}
    return {
        "model": trainer.stepper.model.settings,
        "input": source,
        "part": trainer.part,
        "loss": trainer.targets.loss,
        "simulated": cache.simulated,
        "versions": versions,
    }
