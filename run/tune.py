"""Search for training settings by successive halving: train many trials for a few epochs, the best
third for three times as long, and so on.

    python run/tune.py --challenge 1
    python run/tune.py --challenge 1 --space space.json --trials 27 --epochs 27
    python run/tune.py --challenge 2 --name tune_unet -- --model unet --train R1 R2

Options of run/train.py after -- apply to all trials. The same command resumes a search that was
stopped or killed. Start it several times at once, on one machine or on several that share --out,
and the processes share the work. A trial is an ordinary run in experiments/<name>_<number>/.

A space is a JSON object that gives options of run/train.py the values they may take:
    {"lr": {"log": [1e-4, 1e-2]}, "weight-decay": {"range": [0, 0.1]}, "batch-size": [32, 64],
     "set.width": {"int": [64, 256]}, "balance": [true, false]}
"""

import json
import sys
from pathlib import Path

from eeg import UserError, cli, hints

SHOWN = 10  # trials in the table


def arguments():
    p = cli.parser(__doc__)
    cli.add_challenge(p, required=True)
    help = "what to vary (default: lr, weight-decay, batch-size, ema, dropout of the model)"
    p.add_argument("--space", type=Path, metavar="FILE", help=help)

    def add_count(option, help):
        p.add_argument(option, type=cli.positive, metavar="N", help=help)

    add_count("--trials", "draw N settings (default: 27)")
    add_count("--epochs", "train the last round to epoch N (default: 27)")
    add_count("--rungs", "train in N rounds, each with fewer trials (default: 3)")
    add_count("--eta", "keep one trial in N and train it for N times the epochs (default: 3)")
    help = "seed of the draws and of each trial (default: 0)"
    p.add_argument("--seed", type=cli.whole, metavar="N", help=help)
    cli.add_out(p)
    help = "folder of the study under --out (default: tune_c1 or tune_c2)"
    p.add_argument("--name", metavar="NAME", help=help)
    words, fixed = sys.argv[1:], None
    if "--" in words:
        cut = words.index("--")
        words, fixed = words[:cut], words[cut + 1 :]
    args = p.parse_args(words)
    args.fixed, args.name = fixed, args.name or f"tune_c{args.challenge}"
    if args.eta == 1:
        p.error("--eta 1: expected at least 2, or no trial is left behind")
    return args


def main():
    args = arguments()
    study = open_study(args)
    steps = [f"{cli.counted(n, 'trial')} to epoch {epochs}" for n, epochs in study.plan["steps"]]
    print(f"study   {study.folder}: {', then '.join(steps)}", flush=True)
    study.work(lambda line: print(line, flush=True))
    table = study.table()
    if not table:
        trials = cli.counted(study.plan["trials"], "trial")
        raise UserError(f"{trials} of {study.folder} failed; see why in its trial_*.json")
    show(study, table)
    suggest(study, table[0], args.challenge)


def open_study(args):
    from eeg.runs.study import Study
    from eeg.train.options import search_rules

    asked = ("challenge", "trials", "epochs", "rungs", "eta", "seed", "fixed")
    wanted = {name: getattr(args, name) for name in asked} | {"space": read_space(args.space)}
    places = ("--cache", str(args.cache), "--data", str(args.data))
    return Study.open(args.out / args.name, wanted, search_rules(), places)


def read_space(path):
    if path is None:
        return None
    try:
        return json.loads(path.read_bytes())
    except ValueError as e:
        see = hints.command("tune", "--help")
        raise UserError(f"{path} is not JSON ({e}); see: {see}") from None


def show(study, table):
    """Print the best trials."""
    from eeg.runs.space import as_arguments

    simulated = study.run(table[0][0]).config.get("simulated")
    print(f"\n{'trial':>5}  {'epochs':>6}  {'valid':>7}  settings", end="")
    print(" (simulated data)" if simulated else "")
    for number, epochs, value, _ in table[:SHOWN]:
        settings = " ".join(as_arguments(study.plan["settings"][number]))
        print(f"{number:5d}  {epochs:6d}  {value:7.4f}  {settings}")
    if len(table) > SHOWN:
        print(f"       and {len(table) - SHOWN} more")


def suggest(study, best, challenge):
    """Print the command that scores the best trial, and the one that trains with its settings."""
    from eeg.runs.space import as_arguments

    number, _, value, folder = best
    flattered = f"chosen by its score on validation windows: {value:.4f} flatters it"
    others = f"score it on others with: {hints.command('evaluate', folder)}"
    print(f"\nbest    {folder}, {flattered}; {others}")
    words = as_arguments(study.plan["settings"][number], study.plan["fixed"])
    print(f"train   {hints.command('train', '--challenge', challenge, *words)}")


if __name__ == "__main__":
    cli.run(main)
