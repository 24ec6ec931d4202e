"""Pretrain an encoder without labels: hide parts of windows, and learn to restore them.

    python run/pretrain.py --release R1 R2                    windows of run/cache.py --challenge 2
    python run/pretrain.py --release R1 --model conformer --mask 0.6
    python run/pretrain.py --release R1 --task positioning    are two windows near in time?
    python run/pretrain.py --resume                           the newest unfinished run
    python run/train.py --challenge 1 --init signal_transformer     then begin with its encoder
    python run/embed.py signal_transformer --release R1             or fit a ridge on what it sees

The windows of any tasks will do: run/cache.py --challenge 2 --tasks all cuts them. What is restored
is compared in the deviations of each hidden patch, so that a guess of its mean has an NRMSE of 1.
--task positioning (Banville et al. 2021) is cheaper: two windows of one recording are near (--near)
or far (--far) in time, and the encoder learns to tell. Chance has a log-loss of 0.693.
A run lies in experiments/<name>/<YYYYmmdd_HHMMSS>/, stops, resumes and is watched as one of
run/train.py; run/report.py shows windows that it has restored.
"""

from pathlib import Path

from eeg import cli
from eeg.train.options import add_arguments, from_arguments
from eeg.transfer.options import SIGNAL


def arguments():
    """The arguments, checked. options: those of each run of a new plan, or none."""
    p = cli.parser(__doc__)
    about = "resume a run (default: the newest unfinished one)"
    p.add_argument("--resume", nargs="?", const=True, type=Path, metavar="RUN", help=about)
    cli.add_tmux(p)
    groups = add_arguments(p, pretrains=True)
    cli.add_release(groups["data"], "releases to learn from (default: the cached training ones)")
    cli.add_mini(groups["data"])
    windows = "take the windows of this challenge's caches (default: 2)"
    groups["data"].add_argument(
        "--challenge", type=cli.challenge, default=2, metavar="{1,2}", help=windows
    )
    seeds = {"nargs": "+", "type": cli.whole, "default": [0], "metavar": "N"}
    about = "train one run for each seed (default: 0)"
    groups["training"].add_argument("--seed", **seeds, help=about)
    cli.add_device(groups["machine"])
    cli.add_out(groups["machine"])
    about = "the run's folder there (default: signal_transformer and the like)"
    groups["machine"].add_argument("--name", metavar="NAME", help=about)
    args = p.parse_args()
    args.may_begin = bool(args.release)
    try:
        given = {"target": SIGNAL, "train": args.release}
        args.options = [from_arguments(args, **given, seed=seed) for seed in args.seed]
    except ValueError as e:
        p.error(str(e))
    options = args.options[0]
    usual = "signal" if options.task == "masked" else "position"
    args.name = args.name or f"{usual}_{options.model}"
    if args.name.startswith(".") or "/" in args.name:
        p.error(f"--name {args.name}: expected the name of one folder under --out")
    return args


def main():
    args = arguments()
    if args.tmux:
        from eeg.runs.tmux import detach

        return print(detach(args.name, args.out))
    from eeg.train.session import train_all

    train_all(args)


if __name__ == "__main__":
    cli.run(main)
