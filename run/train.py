"""Train a model. A run that is stopped, is killed or loses its card resumes where it was.

    python run/train.py --challenge 1
    python run/train.py --challenge 1 --tmux               in tmux, outlives the terminal
    python run/train.py --resume                           the newest unfinished run
    python run/train.py --resume experiments/c1_tcn/20261121_101500
    python run/train.py --challenge 1 --cv 5               one run for each fold, by subject
    python run/train.py --challenge 1 --seed 0 1 2 3 4     one run for each seed, for an ensemble
    python run/train.py --challenge 2 --target factors --aux age sex
    python run/train.py --challenge 1 --model ridge        fitted in closed form, in seconds
    python run/train.py --challenge 1 --init signal_transformer    after run/pretrain.py
    python run/train.py --challenge 2 --init LUNA_base.safetensors --freeze 8   published weights
    python run/train.py --challenge 1 --model ridge --on embeddings --init signal_transformer
    python run/train.py --challenge 1 --model unet --set width=64 --optimizer sam --loss huber
    torchrun --nproc-per-node 2 run/train.py --challenge 1     several processes, one run

A run lies in experiments/<name>/<YYYYmmdd_HHMMSS>/. Watch it with: python run/monitor.py --follow
"""

from dataclasses import replace
from pathlib import Path

from eeg import cli
from eeg.models import CLOSED_FORM
from eeg.train.options import TARGETS, add_arguments, from_arguments
from eeg.transfer.options import BEGIN, in_file

# what a ridge may see of a window
KINDS = ("features", "transition", "potentials", "covariance", "embeddings")


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
    about = (
        "what a ridge sees of a window (default: all but transition, and embeddings, which --init "
        "makes)"
    )
    kinds = {"nargs": "+", "choices": ("all", *KINDS), "metavar": "KIND"}
    groups["model"].add_argument("--on", **kinds, help=f"{', '.join(KINDS)}: {about}")
    cli.add_mini(groups["data"])
    seeds = {"nargs": "+", "type": cli.whole, "default": [0], "metavar": "N"}
    about = "train one run for each seed (default: 0)"
    groups["training"].add_argument("--seed", **seeds, help=about)
    cli.add_device(groups["machine"])
    cli.add_out(groups["machine"])
    about = "the run's folder there (default: c1_tcn and the like)"
    groups["machine"].add_argument("--name", metavar="NAME", help=about)
    args = p.parse_args(words)
    args.options, args.may_begin = [], bool(args.challenge)
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
    if args.on:
        args.set = [*(args.set or []), ("on", "+".join(args.on))]
    if args.init:
        inherit(args)
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


def inherit(args):
    """Take over from the run, or the file, that --init names what its encoder needs, where it is
    not given."""
    if in_file(args.init):
        return inherit_published(args)
    from eeg.runs.choice import choose_runs

    run = choose_runs(args.out, [args.init], encoders=True)[-1]
    args.init = str(run.folder.resolve())
    train = run.config["train"]
    if args.model in CLOSED_FORM:
        from eeg.ridge.embeddings import encoder_settings

        args.set = [*(args.set or []), ("encoder", encoder_settings(run))]
        return
    args.model = args.model or train["model"]
    args.normalize = args.normalize or train["normalize"]
    args.align = args.align or run.align
    args.set = list((train["set"] | dict(args.set or [])).items())
    if args.model not in BEGIN:
        raise ValueError(f"--init: {args.model} has no encoder; {', '.join(BEGIN)} have one")


def inherit_published(args):
    """The same of a file of published weights, which are of one network alone."""
    from eeg.transfer.published import Published

    weights = Published(Path(args.init))
    args.init = str(weights.path.resolve())
    if args.model in CLOSED_FORM:
        args.set = [*(args.set or []), ("encoder", weights.encoder())]
        return
    if args.model not in (None, weights.model):
        raise ValueError(f"--model {args.model}: {args.init} has weights of {weights.model}")
    args.model = weights.model
    args.set = list((weights.settings | dict(args.set or [])).items())


def main():
    args = arguments()
    if args.list_models:
        return list_models()
    if args.tmux:
        from eeg.runs.tmux import detach

        return print(detach(args.name or "train", args.out))
    from eeg.train.session import train_all

    train_all(args)


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
