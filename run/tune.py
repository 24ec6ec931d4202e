"""Find train settings by successive halving: many trials for a few epochs, the best third for three times as many, and so forth.

    python run/tune.py --challenge 1
    python run/tune.py --challenge 1 --space space.json --trials 27 --epochs 27
    python run/tune.py --challenge 2 --name tune_unet -- --model unet --train R1 R2     after --: options of run/train.py that all trials share

Stopped or killed, the same command goes on. Run it several times at once, on one machine or on several that share --out, and they
share the work. A trial is an ordinary run in experiments/<name>_<number>/.

A space is a JSON object, options of run/train.py and what they may be:
    {"lr": {"log": [1e-4, 1e-2]}, "weight-decay": {"range": [0, 0.1]}, "batch-size": [32, 64], "set.width": {"int": [64, 256]}, "balance": [true, false]}
"""

import sys
from pathlib import Path

from eeg import UserError, cli, hints

SHOWN = 10  # trials in the table


def arguments():
    p = cli.parser(__doc__)
    p.add_argument("--challenge", type=cli.challenge, metavar="{1,2}", required=True)
    p.add_argument(
        "--space",
        type=Path,
        metavar="FILE",
        help="what to search (default: lr, weight-decay, batch-size, ema, and the dropout of the model)",
    )
    p.add_argument("--trials", type=cli.positive, metavar="N", help="settings drawn (default: 27)")
    p.add_argument(
        "--epochs", type=cli.positive, metavar="N", help="epochs of the last rung (default: 27)"
    )
    p.add_argument("--rungs", type=cli.positive, metavar="N", help="(default: 3)")
    p.add_argument(
        "--eta",
        type=cli.positive,
        metavar="N",
        help="one trial in N goes on, for N times the epochs (default: 3)",
    )
    p.add_argument(
        "--seed", type=cli.whole, metavar="N", help="of the draw and of every trial (default: 0)"
    )
    cli.add_out(p)
    p.add_argument(
        "--name", metavar="NAME", help="the study's folder there (default: tune_c1 and the like)"
    )
    words = sys.argv[1:]
    ours, fixed = (
        (words[: words.index("--")], words[words.index("--") + 1 :])
        if "--" in words
        else (words, None)
    )
    args = p.parse_args(ours)
    args.fixed, args.name = fixed, args.name or f"tune_c{args.challenge}"
    if args.eta == 1:
        p.error("--eta 1: at least 2, or no trial is left behind")
    return args


def main():
    args = arguments()
    from eeg.runs.study import Study, options
    from eeg.train.options import search_rules

    wanted = {
        name: getattr(args, name)
        for name in ("challenge", "trials", "epochs", "rungs", "eta", "seed", "fixed")
    }
    study = Study.open(
        args.out / args.name,
        wanted | {"space": read_space(args.space)},
        search_rules(),
        ("--cache", str(args.cache), "--data", str(args.data)),
    )
    print(
        f"study   {study.folder}: "
        + ", then ".join(
            f"{cli.counted(trials, 'trial')} to epoch {epochs}"
            for trials, epochs in study.plan["steps"]
        ),
        flush=True,
    )
    study.work(lambda line: print(line, flush=True))

    table = study.table()
    if not table:
        raise UserError(
            f"{cli.counted(study.plan['trials'], 'trial')} of {study.folder} failed; their reasons stand in its trial_*.json"
        )
    simulated = " (simulated data)" * bool(study.run(table[0][0]).config.get("simulated"))
    print(f"\n{'trial':>5}  {'epochs':>6}  {'valid':>7}  settings{simulated}")
    for number, epochs, value, _ in table[:SHOWN]:
        print(
            f"{number:5d}  {epochs:6d}  {value:7.4f}  {' '.join(options(study.plan['settings'][number]))}"
        )
    if len(table) > SHOWN:
        print(f"       and {len(table) - SHOWN} more")
    number, epochs, value, folder = table[0]
    command = hints.command(
        "train",
        "--challenge",
        args.challenge,
        *options(study.plan["settings"][number], study.plan["fixed"]),
    )
    print(
        f"\nbest    {folder}, chosen by its score on validation windows: {value:.4f} flatters it; score it on others with: {hints.command('evaluate', folder)}"
    )
    print(f"train   {command}")


def read_space(path):
    import json

    if path is None:
        return None
    try:
        return json.loads(path.read_bytes())
    except ValueError as e:
        raise UserError(
            f"{path} is not JSON ({e}); see: {hints.command('tune', '--help')}"
        ) from None


if __name__ == "__main__":
    cli.run(main)
