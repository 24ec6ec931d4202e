"""Train a model; stop it, kill it, lose the card: it goes on where it was.

    python run/train.py --challenge 1
    python run/train.py --challenge 1 --tmux                   in a session of its own, which outlives this terminal
    python run/train.py --resume                               the newest run that has not finished
    python run/train.py --resume experiments/c1_tcn/20261121_101500
    python run/train.py --challenge 1 --cv 5                   one run a fold, by subject
    python run/train.py --challenge 1 --seed 0 1 2 3 4         one run a seed, for an ensemble
    python run/train.py --challenge 2 --target factors --aux age sex
    python run/train.py --challenge 1 --model unet --set width=64 --optimizer sam --loss huber
    torchrun --nproc-per-node 2 run/train.py --challenge 1     several processes, one run

A run lies in experiments/<name>/<YYYYmmdd_HHMMSS>/. Watch it with: python run/monitor.py --follow
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

from eeg import UserError, cli, hints
from eeg.data.augment import AUGMENTATIONS

# option: its default in challenge 1, in challenge 2
DEFAULTS = {
    "target": ("rt_from_stimulus", "externalizing"),
    "model": ("tcn", "tcn"),
    "normalize": ("channel", "channel"),
    "aux": ((), ("age", "sex")),
    "epochs": (100, 30),
    "batch_size": (64, 64),
    "lr": (3e-3, 1e-3),
    "weight_decay": (1e-2, 5e-2),
    "ema": (0.99, 0.99),
    "augment": ({"noise": 0.05, "mask": 0.1}, {"noise": 0.05, "mask": 0.1, "dropout": 0.1}),
}
MEASURED = 64  # windows at most, of the batch on which precisions are measured
ABOUT_THIS_TIME = (
    "data",
    "cache",
    "out",
    "resume",
    "tmux",
    "list_models",
    "device",
    "threads",
    "max_memory",
    "checkpoint_minutes",
)  # may differ when a run is resumed


def arguments(words=None):
    p = cli.parser(__doc__)

    def say(option, text):
        one, two = DEFAULTS[option]
        show = lambda value: (
            " ".join(f"{k}={v}" for k, v in value.items())
            if isinstance(value, dict)
            else " ".join(map(str, value))
            if isinstance(value, tuple) and value
            else str(value)
            if value != ()
            else "none"
        )
        return (
            f"{text} (default: {show(one)}"
            + ("" if one == two else f"; challenge 2: {show(two)}")
            + ")"
        )

    p.add_argument("--challenge", type=cli.challenge, metavar="{1,2}")
    p.add_argument(
        "--target",
        choices=("rt_from_stimulus", "rt_from_trialstart", "correct", "externalizing", "factors"),
        help=say(
            "target",
            "what is learned: a response time, hit against error, the factor, all four factors",
        ),
    )
    p.add_argument(
        "--resume",
        nargs="?",
        const=True,
        type=Path,
        metavar="RUN",
        help="go on with a run (default: the newest that has not finished; with --challenge a new one if there is none); of the other options it heeds --epochs, --device, --threads, --max-memory and --checkpoint-minutes",
    )
    p.add_argument(
        "--tmux",
        action="store_true",
        help="do the same in a detached tmux session, and say how to attach",
    )
    p.add_argument(
        "--list-models",
        action="store_true",
        help="print every model with its parameters and cost, and end",
    )

    g = p.add_argument_group("model")
    g.add_argument("--model", help=say("model", "one of --list-models"))
    g.add_argument(
        "--set",
        nargs="+",
        type=setting,
        default=[],
        metavar="NAME=VALUE",
        help="settings of the model: width=96 depth=5 head=number",
    )
    g.add_argument(
        "--normalize",
        choices=("channel", "window", "robust", "none"),
        help=say(
            "normalize",
            "each electrode's mean and deviation, one deviation for all, median and MAD, nothing",
        ),
    )
    g.add_argument(
        "--features",
        choices=("none", "file", "layer"),
        help="of hybrid: from the cache, or computed in the model (default: file)",
    )
    g.add_argument(
        "--aux",
        nargs="*",
        choices=("age", "sex"),
        help=say("aux", "what else to learn, of challenge 2"),
    )

    g = p.add_argument_group("data")
    g.add_argument(
        "--train",
        nargs="+",
        type=cli.release,
        metavar="R",
        help="releases (default: what is cached of R1 R2 R3 R4 R8 R9 R10 R11)",
    )
    g.add_argument(
        "--valid",
        nargs="+",
        type=cli.release,
        metavar="R",
        help="releases (default: R5 if cached, else 20 %% of the training subjects)",
    )
    cli.add_mini(g)
    g.add_argument(
        "--cv",
        type=cli.positive,
        default=0,
        metavar="K",
        help="K folds by subject over the training releases, one run each",
    )
    g.add_argument(
        "--max-recordings",
        type=cli.positive,
        metavar="N",
        help="only the first N recordings of each release, for a trial run",
    )
    g.add_argument(
        "--max-subjects",
        type=cli.positive,
        metavar="N",
        help="only the first N subjects of each release, for a trial run",
    )
    g.add_argument(
        "--keep-copies",
        action="store_true",
        help="use the blocks that were copied from another run, too",
    )
    g.add_argument("--keep-bad", action="store_true", help="use the subjects known to be bad, too")
    g.add_argument("--balance", action="store_true", help="draw subjects equally often")
    g.add_argument(
        "--augment",
        nargs="*",
        type=setting,
        metavar="NAME=VALUE",
        help=say("augment", f"strengths of {', '.join(AUGMENTATIONS)}; nothing after it: none"),
    )

    g = p.add_argument_group("training")
    g.add_argument("--epochs", type=cli.positive, metavar="N", help=say("epochs", "at most"))
    g.add_argument(
        "--batch-size",
        type=cli.positive,
        metavar="N",
        help=say("batch_size", "windows a step, of all processes together"),
    )
    g.add_argument("--lr", type=cli.at_least_0, metavar="X", help=say("lr", "learning rate"))
    g.add_argument(
        "--weight-decay", type=cli.at_least_0, metavar="X", help=say("weight_decay", "of AdamW")
    )
    g.add_argument(
        "--l1",
        type=cli.at_least_0,
        default=0.0,
        metavar="X",
        help="strength of an L1 penalty on the weights (default: 0)",
    )
    g.add_argument(
        "--loss",
        choices=("mse", "huber", "mae", "focal", "time"),
        help="(default: time for models with a time head, else mse; cross-entropy for --target correct)",
    )
    g.add_argument(
        "--optimizer",
        choices=("adamw", "sam"),
        default="adamw",
        help="sam looks for flat minima, at twice the cost (default: adamw)",
    )
    g.add_argument(
        "--rho",
        type=cli.at_least_0,
        default=0.05,
        metavar="X",
        help="how far sam looks (default: 0.05)",
    )
    g.add_argument(
        "--clip",
        type=cli.at_least_0,
        default=1.0,
        metavar="X",
        help="largest norm of a gradient, 0 for none (default: 1)",
    )
    g.add_argument(
        "--schedule",
        choices=("cosine", "onecycle", "plateau", "constant"),
        default="cosine",
        help="course of the learning rate (default: cosine)",
    )
    g.add_argument(
        "--warmup",
        type=cli.at_least_0,
        default=1.0,
        metavar="N",
        help="epochs in which it rises, or part of one (default: 1)",
    )
    g.add_argument(
        "--ema",
        type=cli.share,
        metavar="X",
        help=say("ema", "decay of the averaged weights that are validated and kept, 0 for none"),
    )
    g.add_argument(
        "--patience",
        type=cli.positive,
        default=15,
        metavar="N",
        help="stop after N epochs that were not better (default: 15)",
    )
    g.add_argument(
        "--seed",
        nargs="+",
        type=cli.whole,
        default=[0],
        metavar="N",
        help="one run each (default: 0)",
    )

    g = p.add_argument_group("machine")
    cli.add_device(g)
    g.add_argument(
        "--threads",
        type=cli.positive,
        metavar="N",
        help="of the CPU, for each process (default: a resumed run's number, on which the last digits of its results depend; else $OMP_NUM_THREADS; else one for each core that other programs leave free)",
    )
    g.add_argument(
        "--amp",
        choices=("auto", "off", "fp16", "bf16"),
        default="auto",
        help="mixed precision (default: auto: what the device can do, if it is faster)",
    )
    g.add_argument(
        "--max-memory",
        type=cli.percent,
        default=80.0,
        metavar="P",
        help="percent of the machine's memory, or of its control group's, at which to save and stop (default: 80)",
    )
    g.add_argument(
        "--checkpoint-minutes",
        type=cli.at_least_0,
        default=5.0,
        metavar="M",
        help="besides each epoch's end (default: 5)",
    )
    cli.add_out(g)
    g.add_argument(
        "--name", metavar="NAME", help="the run's folder there (default: c1_tcn and the like)"
    )

    args = p.parse_args(words)
    if args.list_models:
        return args
    if not args.challenge and not args.resume:
        p.error("--challenge 1 or --challenge 2 is needed, or --resume")
    args.given_epochs = args.epochs if args.resume else None
    if args.challenge:
        for option, values in DEFAULTS.items():
            if getattr(args, option) is None:
                setattr(args, option, values[args.challenge - 1])
        if (
            args.target
            not in (
                ("rt_from_stimulus", "rt_from_trialstart", "correct"),
                ("externalizing", "factors"),
            )[args.challenge - 1]
        ):
            p.error(f"--target {args.target} is not of challenge {args.challenge}")
        args.set, args.augment = dict(args.set), dict(args.augment)
        check_model(p, args)
        if unknown := [name for name in args.augment if name not in AUGMENTATIONS]:
            p.error(f"--augment {unknown[0]}: the augmentations are {', '.join(AUGMENTATIONS)}")
        if args.aux and args.challenge == 1:
            p.error("--aux is of challenge 2: a cache of challenge 1 has neither age nor sex")
        if len(args.seed) > 1 and args.cv:
            p.error("--cv with several seeds: name one seed")
        if args.cv == 1:
            p.error("--cv 1: at least 2 folds")
        if bad := [seed for seed in args.seed if not 0 <= seed < 2**32]:
            p.error(f"--seed {bad[0]}: a seed lies from 0 to {2**32 - 1}")
        if not all(isinstance(value, (int, float)) for value in args.augment.values()):
            p.error("--augment: a strength is a number, as in --augment scale=0.2 mix=0.4")
        if args.name and (args.name.startswith(".") or "/" in args.name):
            p.error(f"--name {args.name}: it names one folder under --out")
        args.name = args.name or f"c{args.challenge}_{args.model}" + (
            f"_{args.target}" if args.target != DEFAULTS["target"][args.challenge - 1] else ""
        )
    return args


def check_model(p, args):
    """A mistake in --model or --set is a bad argument, and known before torch is there."""
    from eeg.models.settings import SETTINGS, check

    try:
        check(args.model, args.set)
    except ValueError as e:
        p.error(f"--model: {e}" if args.model not in SETTINGS else f"--set {e}")


def setting(text):
    """argparse type: NAME=VALUE -> (name, value), the value read as JSON where it is."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def main():
    args = arguments()
    if args.list_models:
        return list_models()
    if args.tmux:
        return in_tmux(args)
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
            for folder in plan:  # a mistake ended it before it had begun: nothing is lost, and --resume need not meet it
                shutil.rmtree(folder)
        raise
    finally:
        ranks.stop()
    ranks.leave()


# ---------------------------------------------------------------------------------------------------- which runs


def find_plan(args, ranks):
    """The folders of the runs to train, one after the other: new ones, or those of a plan that are not finished. -> ([Path], whether they are new)"""
    from eeg.runs import choice

    if args.resume or ranks.restarted:
        if isinstance(args.resume, Path):
            meant = choice.named(args.out, str(args.resume))
            run = ([run for run in meant if not run.finished] or meant)[-1]
        else:
            run = choice.newest_unfinished(
                args.out, args.challenge, args.name, new=bool(args.challenge)
            )
        if run:
            if run.status == "running":
                raise UserError(
                    f"{run.folder} is running (process {run.state.get('pid')} on {run.state.get('host')}); watch it with: {run.watch}"
                )
            epochs = run.config.get("train", {}).get("epochs", 0)
            if run.finished and not (args.given_epochs and args.given_epochs > epochs):
                raise UserError(
                    f"{run.folder} has finished its {cli.counted(epochs, 'epoch')}; for more say --epochs N, or score it with: {hints.command('evaluate', run.folder)}"
                )
            return [run.folder] + [
                other.folder
                for other in planned(run)
                if other.folder != run.folder and not other.finished
            ], False
    return claim_all(args), True


def planned(run):
    """The runs of a run's plan that are still there and can be read. -> [Run]"""
    from eeg.runs.run import readable

    folders = [run.folder.parent / stamp for stamp in run.config.get("plan", [])]
    return readable([type(run)(folder) for folder in folders if folder.is_dir()])


def claim_all(args):
    """Make the run folders of a new plan, so that a kill at any later moment leaves something to resume. -> [Path]"""
    import eeg
    from eeg.data.release import choose_releases
    from eeg.files import write_json
    from eeg.runs.journal import claim

    args.train, args.valid = choose_releases(
        args.cache, args.challenge, args.train, args.valid, args.mini, args.cv
    )
    options = {
        name: value
        for name, value in vars(args).items()
        if name not in ABOUT_THIS_TIME and name not in ("challenge", "name", "seed", "given_epochs")
    } | {"cache": str(args.cache.absolute())}
    about = {
        "challenge": args.challenge,
        "target": args.target,
        "name": args.name,
        "model": {"name": args.model},
        "command": sys.argv,
        "versions": {"eeg": eeg.__version__},
    }
    shares = [{"fold": [k + 1, args.cv], "seed": args.seed[0]} for k in range(args.cv)] or [
        {"fold": None, "seed": seed} for seed in args.seed
    ]
    configs = [about | {"train": options | share} for share in shares]
    folders = [claim(args.out, args.name, config) for config in configs]
    for folder, config in zip(folders, configs):
        write_json(folder / "config.json", config | {"plan": [each.name for each in folders]})
    return folders


# ---------------------------------------------------------------------------------------------------- one run


def train(folder, args, ranks):
    """Train the run of this folder from where it is to its end. -> "finished" or "stopped"."""
    from eeg.runs.journal import Journal
    from eeg.runs.run import Run

    journal, trainer = Journal(folder, quiet=not ranks.main), None
    journal.state(force=True)
    try:
        trainer = prepare(folder, args, ranks, journal)
        return trainer.run()
    except (Exception, KeyboardInterrupt, SystemExit) as e:
        asked = not isinstance(
            e, Exception
        )  # Ctrl-C and SIGTERM: before there was anything to save, or a second time
        if trainer is None and journal.before.get("status") == "finished":
            journal.state(**journal.before)  # it was to do more epochs, and is as good as it was
        else:
            journal.state(
                "stopped" if asked else "failed",
                reason=""
                if asked
                else str(e)
                if isinstance(e, UserError)
                else f"{type(e).__name__}: {e}",
            )
        if not asked:
            raise
        journal.say(f"stopped, as it was at the last checkpoint; resume with: {Run(folder).resume}")
        return "stopped"
    finally:
        journal.close()


def prepare(folder, args, ranks, journal):
    """Device, data, model, and what a checkpoint says. -> Trainer"""
    from eeg.machine.load import Load
    from eeg.runs import schema
    from eeg.runs.run import Run

    config, load = schema.read(folder / "config.json"), Load()
    if missing := lacking(config):
        raise UserError(
            f"{folder}/config.json says nothing of {', '.join(missing)}, so this run cannot be resumed; train another with: {Run(folder).again()}"
        )
    usual = {option: values[config["challenge"] - 1] for option, values in DEFAULTS.items()}
    options = SimpleNamespace(
        **vars(args)
        | usual
        | config["train"]
        | {name: getattr(args, name) for name in ("device", "max_memory", "checkpoint_minutes")}
    )
    options.cache = (
        Path(options.cache)
        if args.cache == Path("cache") and Path(options.cache).is_dir()
        else args.cache
    )
    options.epochs, options.part = args.given_epochs or options.epochs, config.get("part")

    import numpy as np
    import torch

    from eeg.data.split import split as split_windows
    from eeg.machine.device import forget as forget_verdicts
    from eeg.machine.device import keep_freed_memory, settle_threads
    from eeg.models.model import multiply_adds
    from eeg.train import checkpoint
    from eeg.train.trainer import Trainer, make_model

    if (
        config.get("device", "cpu") != "cpu"
        and journal.before.get("status") == "running"
        and ranks.main
    ):
        forget_verdicts(
            options.cache
        )  # the card passed its checks, and may all the same be what ended the run
    choice = choose_device(options, ranks)
    device = choice.device
    ranks.use(device)
    keep_freed_memory()
    busy = (
        load.cores() if ranks.here == 1 else 0.0
    )  # of several processes, each would take the others for strangers
    plan = [run.config for run in planned(Run(folder))]
    threads, about_threads = choose_threads(args.threads, config, plan, ranks.here, busy)
    settle_threads(threads)

    split = split_windows(
        options.cache,
        config["challenge"],
        options.train,
        options.valid,
        options.mini,
        options.fold,
        options.keep_copies,
        options.keep_bad,
        options.max_recordings,
        options.max_subjects,
    )
    torch.manual_seed(options.seed)
    model = make_model(options, config["challenge"])
    known, settings = config.get("model", {}), json.loads(json.dumps(model.settings))
    begun = len(known) > 1  # before, a run knows its model's name alone
    if other := sorted(
        name for name in known | settings if begun and known.get(name) != settings.get(name)
    ):
        raise UserError(
            f"{folder}/config.json contradicts itself: its settings under train give a model of another {other[0]} than stands under model; train another with: {Run(folder).again()}"
        )
    cost = multiply_adds(model)  # here, as long as it lies on the CPU
    sides = {side: split.describe(side) for side in ("train", "valid")}
    caches = fingerprints(split.cache)
    check_windows(folder, config, plan, split.cache, sides, caches)
    if ranks.main:
        precision = choose_precision(
            options,
            choice,
            model,
            min(MEASURED, options.batch_size, len(split.train)),
            [config, *plan],
            threads,
            busy,
        )
    precision, about_precision = ranks.broadcast(precision if ranks.main else None)
    trainer = Trainer(options, model, split, device, precision, journal, ranks)

    what = f", {about_threads}" if device == "cpu" else f" {choice.name}"
    journal.say(
        f"device  {device}{what}, {precision} ({choice.reason}{about_precision})"
        + (f", {ranks.world} processes" if ranks.world > 1 else "")
    )
    journal.say(
        f"data    train {words(sides['train'])}; valid {words(sides['valid'])}{' (simulated)' if split.cache.simulated else ''}"
        + (
            f"; predicting the mean scores {trainer.mean_predictor:.3f}"
            if trainer.mean_predictor
            else ""
        )
    )
    if split.dropped:
        journal.say(
            "        left out "
            + ", ".join(left_out(reason, n) for reason, n in split.dropped.items())
        )
    if trainer.batches.direct:
        journal.say(
            f"        {len(split.train) * split.cache[0].nbytes / 1e9:,.0f} GB of windows to train on, more than memory can keep: read from the disk in each epoch, past the system's cache of files"
        )
    journal.say(
        f"model   {options.model}, {sum(p.numel() for p in model.parameters()):,} parameters, {cost / 1e6:.0f} M multiply-adds a window, loss {trainer.loss}"
    )

    state, _, wrong = ranks.broadcast(
        checkpoint.load(folder / "checkpoints") if ranks.main else None
    )
    for what in wrong:
        journal.say(f"warning: {what}")
    if state:
        trainer.restore(state)
        journal.say(f"resumed at epoch {trainer.epoch}, batch {trainer.batch}")
        journal.note(trainer.epoch, trainer.batch, "resumed", "; ".join(wrong))
    elif wrong:
        raise UserError(
            f"no checkpoint in {folder}/checkpoints can be used ({'; '.join(wrong)}); train another with: {Run(folder).again()}"
        )
    versions = {
        "eeg": config["versions"]["eeg"],
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
    }
    source = {
        "sfreq": split.cache.sfreq,
        "window_samples": 200,
        "channels": list(split.cache.channels),
    }
    journal.config(
        train=config["train"] | {"epochs": options.epochs},
        model=model.settings,
        split=sides,
        caches=caches,
        input=source,
        device=device,
        threads=threads,
        precision=precision,
        part=trainer.part,
        loss=trainer.loss,
        simulated=split.cache.simulated,
        versions=versions,
    )
    return trainer


def lacking(config):
    """What a config.json must say, and does not, for its run to be resumed."""
    needed = ("train", "valid", "fold", "seed")
    options = config.get("train", {})
    return [name for name in ("train", "versions") if name not in config] + [
        name for name in needed if name not in options
    ]


def fingerprints(cache):
    """{release: what its cache was made from and how, as a digest}"""
    return {
        str(attributes["release"]): str(attributes["fingerprint"])
        for attributes in cache.attributes
    }


def check_windows(folder, config, plan, cache, sides, caches):
    """Raises UserError where a run that has begun would go on with other windows than it, or another of its plan, had. Older runs know names and numbers of theirs alone."""
    known = next((each["caches"] for each in (config, *plan) if "caches" in each), caches)
    changed = [
        str(path)
        for path, release in zip(cache.paths, caches)
        if known.get(release) != caches[release]
    ]
    if not changed and config.get("split", sides) == sides:
        return
    from eeg.runs.run import Run

    what = (
        f"{' and '.join(changed)} {'has' if len(changed) == 1 else 'have'} been rebuilt from other files or with other settings"
        if changed
        else "the windows have changed"
    )
    raise UserError(
        f"{what} since {folder} began; resume it with the caches it began with, in another --cache DIR, or train a new one with: {Run(folder).again()}"
    )


def choose_device(options, ranks):
    """-> Choice. Of several processes each has the card of its number, if the first finds that there are any: checks of the same card must not meet."""
    from eeg.machine.device import choose

    choice = ranks.broadcast(choose(options.device, options.cache) if ranks.main else None)
    return (
        choose(f"cuda:{ranks.local}", options.cache)
        if ranks.world > 1 and choice.device.startswith("cuda")
        else choice
    )


def choose_threads(asked, config, plan, processes, busy):
    """-> (threads to compute with, the same in words for the device line).

    A run keeps its number, and the runs of a plan share it: sums of another number of parts differ in their last digits.
    plan: the configs of those runs; busy: cores that other programs keep at work, see eeg.machine.load.
    """
    from eeg.machine.device import cpu_cores, cpu_threads, threads_of_environment

    cores, why = cpu_cores(), ""
    known = next((each["threads"] for each in (config, *plan) if "threads" in each), None)
    if asked:
        count = asked
    elif known:
        count = min(known, max(1, cores // processes))
        if count > max(1, cores - busy + 0.5):
            why = f" as before, while other programs keep {busy:.1f} of {cores} cores busy: --threads 1 may be faster"
    else:
        count = cpu_threads(processes, busy=busy)
        if not threads_of_environment(processes) and count < cpu_threads(processes):
            why = f", for other programs keep {busy:.1f} of {cores} cores busy: --threads {cores} takes all"
    return count, f"{cli.counted(count, 'thread')}{why}"


def choose_precision(options, choice, model, windows, known, threads, busy):
    """The precision of --amp: what the device can do and is faster on this very model. -> (its name, why it is that in words, or "")

    It is measured once and remembered; known: configs, of this run and of its plan, that may say it already. On a CPU that other
    programs keep busy nothing is measured, for it would come out differently each time: that run, and its plan, are float32.
    """
    from eeg.machine import amp
    from eeg.machine.device import cpu_cores

    if settled := next(
        (
            config["precision"]
            for config in known
            if config.get("device") == choice.device and "precision" in config
        ),
        None,
    ):
        return settled, ""
    if options.amp not in ("auto", "off", *choice.precisions):
        raise UserError(
            f"--amp {options.amp} cannot be used: {choice.name} can do {', '.join(choice.precisions)}; see: {hints.command('check', cache=options.cache)}"
        )
    if options.amp != "auto" or len(choice.precisions) == 1:
        return "fp32" if options.amp in ("auto", "off") else options.amp, ""
    key = json.dumps([choice.name, threads, windows])
    return amp.choose(
        model,
        choice.device,
        choice.precisions,
        windows,
        options.cache / "precision.json",
        key,
        busy,
        cpu_cores(),
    )


def left_out(reason, windows):
    """copies, bad subjects, a target that is unknown -> in words, with their number"""
    if reason == "copies":
        return cli.counted(windows, "copied window")
    return (
        f"{cli.counted(windows, 'window')} of {reason}"
        if reason == "bad subjects"
        else f"{cli.counted(windows, 'window')} with {reason}"
    )


def words(side):
    return f"{' '.join(side['releases'])}: {cli.counted(side['windows'], 'window')}, {cli.counted(len(side['subjects']), 'subject')}"


# ---------------------------------------------------------------------------------------------------- the rest


def summarise(folder):
    """One line a run of this one's plan, if it has several, their mean and spread; the same as JSON beside the runs."""
    import statistics

    from eeg.files import write_json, writing
    from eeg.runs.run import Run

    runs = planned(Run(folder))
    if len(runs) < 2 or not all(
        run.finished and run.state.get("best_nrmse") is not None for run in runs
    ):
        return
    found = [
        {
            "run": run.name,
            "fold": run.config["train"]["fold"],
            "seed": run.config["train"]["seed"],
            "best_epoch": run.best[0],
            "value": run.state["best_nrmse"],
        }
        for run in runs
    ]
    what = "1 - AUROC" if runs[0].config["target"] == "correct" else "NRMSE"
    simulated = " (simulated data)" if runs[0].config.get("simulated") else ""
    print(f"\n{len(runs)} runs: validation {what}{simulated}")
    for each in found:
        part = (
            f"fold {each['fold'][0]} of {each['fold'][1]}"
            if each["fold"]
            else f"seed {each['seed']}"
        )
        print(f"  {each['run']:<40} {part:<14} {each['value']:.4f}  epoch {each['best_epoch']}")
    values = [each["value"] for each in found]
    print(
        f"  mean {statistics.mean(values):.4f}, standard deviation {statistics.stdev(values):.4f}"
    )
    path = runs[0].folder.with_name(f"{runs[0].folder.name}_summary.json")
    with writing(path, "--out DIR"):
        write_json(
            path,
            {
                "what": what,
                "runs": found,
                "mean": statistics.mean(values),
                "deviation": statistics.stdev(values),
            },
        )
    print(f"summary {path}")


def in_tmux(args):
    """Start this very command, without --tmux, in a detached session."""
    from eeg.runs.tmux import start

    command = [
        sys.executable,
        os.path.abspath(sys.argv[0]),
        *(word for word in sys.argv[1:] if word != "--tmux"),
    ]
    print(start(args.name or "train", command, args.out))


def list_models():
    from eeg.models import MODELS, build
    from eeg.models.model import multiply_adds

    print(f"{'':<13}{'parameters':>12}{'M multiply-adds a window':>28}")
    for name, (_, _, about) in MODELS.items():
        model = build(name)
        print(
            f"{name:<13}{sum(p.numel() for p in model.parameters()):>12,}{multiply_adds(model) / 1e6:>28.1f}   {about}"
        )


if __name__ == "__main__":
    cli.run(main)
