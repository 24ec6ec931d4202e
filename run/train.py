"""Train a model. A run that is stopped, is killed or loses its card resumes where it was.

    python run/train.py --challenge 1
    python run/train.py --challenge 1 --tmux               in tmux, outlives the terminal
    python run/train.py --resume                           the newest unfinished run
    python run/train.py --resume experiments/c1_tcn/20261121_101500
    python run/train.py --challenge 1 --cv 5               one run for each fold, by subject
    python run/train.py --challenge 1 --seed 0 1 2 3 4     one run for each seed, for an ensemble
    python run/train.py --challenge 2 --target factors --aux age sex
    python run/train.py --challenge 1 --model ridge        fitted in closed form, in seconds
    python run/train.py --challenge 1 --model unet --set width=64 --optimizer sam --loss huber
    torchrun --nproc-per-node 2 run/train.py --challenge 1     several processes, one run

A run lies in experiments/<name>/<YYYYmmdd_HHMMSS>/. Watch it with: python run/monitor.py --follow
"""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from eeg import UserError, cli, hints
from eeg.models import CLOSED_FORM
from eeg.train.options import ABOUT, TARGETS, Options, add_arguments, from_arguments


def arguments(words=None):
    """The arguments, checked. options: those of each run of a new plan, or none."""
    p = cli.parser(__doc__)
    cli.add_challenge(p)
    about = (
        "resume a run (default: the newest unfinished one; with --challenge a new run if there is "
        "none); of the other options it reads --epochs, --device, --threads, --max-memory and "
        "--checkpoint-minutes"
    )
    p.add_argument("--resume", nargs="?", const=True, type=Path, metavar="RUN", help=about)
    cli.add_tmux(p)
    about = "list the models, their parameters and cost"
    p.add_argument("--list-models", action="store_true", help=about)
    groups = add_arguments(p)
    cli.add_mini(groups["data"])
    seeds = {"nargs": "+", "type": cli.whole, "default": [0], "metavar": "N"}
    about = "train one run for each seed (default: 0)"
    groups["training"].add_argument("--seed", **seeds, help=about)
    cli.add_device(groups["machine"])
    cli.add_out(groups["machine"])
    about = "the run's folder there (default: c1_tcn and the like)"
    groups["machine"].add_argument("--name", metavar="NAME", help=about)
    args = p.parse_args(words)
    args.options = []
    if not args.challenge and not args.resume and not args.list_models:
        p.error("--challenge 1 or --challenge 2 is needed, or --resume")
    if args.challenge and not args.list_models:
        try:
            args.options = of_each_run(args)
        except ValueError as e:
            p.error(str(e))
    return args


def of_each_run(args):
    """The options of each run of a new plan, one a seed or fold; the plan's name goes into args.
    Raises ValueError."""
    found = [from_arguments(args, seed=seed) for seed in args.seed]
    options = found[0]
    if len(found) > 1 and args.cv:
        raise ValueError("--cv with several seeds: name one seed")
    if args.name and (args.name.startswith(".") or "/" in args.name):
        raise ValueError(f"--name {args.name}: expected the name of one folder under --out")
    if not args.name:
        args.name = f"c{args.challenge}_{options.model}"
        if options.target != TARGETS[args.challenge][0]:
            args.name += f"_{options.target}"
    if args.cv:
        return [replace(options, fold=(k + 1, args.cv)) for k in range(args.cv)]
    return found


def main():
    args = arguments()
    if args.list_models:
        return list_models()
    if args.tmux:
        from eeg.runs.tmux import detach

        return print(detach(args.name or "train", args.out))
    from eeg.runs.plan import summarise
    from eeg.train.parallel import Ranks

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


# ---------------------------------------------------------------------------- which runs


def find_plan(args, ranks):
    """The folders of the runs to train, one after the other. -> ([Path], whether they are new)"""
    run = run_to_resume(args) if args.resume or ranks.restarted else None
    if not run:
        return new_plan(args), True
    from eeg.runs.plan import planned

    others = [other.folder for other in planned(run) if not other.finished]
    return [run.folder, *(folder for folder in others if folder != run.folder)], False


def run_to_resume(args):
    """-> Run, or None to begin a new one. Raises UserError where it cannot be resumed."""
    from eeg.runs import choice

    if isinstance(args.resume, Path):
        meant = choice.named(args.out, str(args.resume))
        run = ([run for run in meant if not run.finished] or meant)[-1]
    else:
        may_begin = bool(args.challenge)
        run = choice.newest_unfinished(args.out, args.challenge, args.name, new=may_begin)
    if not run:
        return None
    if run.status == "running":
        process = f"process {run.state.get('pid')} on {run.state.get('host')}"
        raise UserError(f"{run.folder} is running ({process}); watch it with: {run.watch}")
    epochs = run.config.get("train", {}).get("epochs", 0)
    if run.finished and run.config.get("model", {}).get("name") in CLOSED_FORM:
        score = hints.command("evaluate", run.folder)
        raise UserError(f"{run.folder} has finished; score it with: {score}")
    if run.finished and not (args.epochs and args.epochs > epochs):
        score = hints.command("evaluate", run.folder)
        done = f"{run.folder} has finished its {cli.counted(epochs, 'epoch')}"
        raise UserError(f"{done}; for more say --epochs N, or score it with: {score}")
    return run


def new_plan(args):
    """Make the folders of new runs. -> [Path]"""
    import eeg
    from eeg.data.release import choose_releases
    from eeg.runs.plan import claim_plan

    first, challenge = args.options[0], args.challenge
    asked = first.train, first.valid, first.mini, first.cv
    train, valid = choose_releases(args.cache, challenge, *asked)
    about = {"challenge": challenge, "target": first.target, "name": args.name}
    about |= {"model": {"name": first.model}, "command": sys.argv}
    about |= {"versions": {"eeg": eeg.__version__}}
    kept = [replace(options, train=train, valid=valid).kept() for options in args.options]
    return claim_plan(args.out, args.name, [about | {"train": each} for each in kept])


# ---------------------------------------------------------------------------- one run


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
    from eeg.machine import device
    from eeg.models.model import multiply_adds
    from eeg.runs.run import Run
    from eeg.train import progress, setup
    from eeg.train.optim import Place
    from eeg.train.targets import make_model

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
    setup.check_model(settled, model)
    setup.check_windows(settled, split.cache, sides)
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
    journal.config(**known, threads=threads, precision=precision, **facts(trainer, config))
    return trainer


def make_trainer(options, model, split, journal, place, ranks, threads):
    """-> Trainer, or the Fitter of a model in closed form, which is used as one"""
    if options.model in CLOSED_FORM:
        from eeg.train.fitter import Fitter

        return Fitter(options, model, split, journal, ranks, threads)
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


# ---------------------------------------------------------------------------- the rest


def list_models():
    from eeg.models import MODELS, build
    from eeg.models.model import multiply_adds

    print(f"{'':<13}{'parameters':>12}{'M multiply-adds a window':>28}")
    for name, (_, _, about) in MODELS.items():
        model = build(name)
        parameters = sum(p.numel() for p in model.parameters())
        print(f"{name:<13}{parameters:>12,}{multiply_adds(model) / 1e6:>28.1f}   {about}")


if __name__ == "__main__":
    cli.run(main)
