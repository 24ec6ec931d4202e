"""NRMSE of finished runs on test releases, with 95 % intervals by subject, beside what labels alone can tell.

    python run/evaluate.py                                    the best finished run of each challenge on R6 and R7
    python run/evaluate.py --challenge 1 --release R6         one challenge, one release
    python run/evaluate.py c1_tcn/20261121_101500             a run, by folder or by name under experiments/
    python run/evaluate.py promoted_challenge_1               the run that run/compare.py --promote put there
    python run/evaluate.py c1_tcn --ensemble average          all finished runs of a name, averaged
    python run/evaluate.py c1_tcn --seed 0 1 2 --ensemble average      of those trained with these seeds
    python run/evaluate.py c1_tcn/20261121..20261123          those begun in these days, each by itself
    python run/evaluate.py c1_tcn --shift 0.05 --mirror       averaged over views of each window
    python run/evaluate.py --json scores.json

All windows are scored, copies and fast time line too, as the competition does; of challenge 2's 4 s windows, the same 2 s.
"""

import time
from pathlib import Path

from eeg import UserError, cli


def arguments():
    p = cli.parser(__doc__)
    cli.choose_runs(p, "the best finished run of each challenge, by validation; with --ensemble a name stands for all of its finished runs")
    p.add_argument("--challenge", type=cli.challenge, metavar="{1,2}")
    p.add_argument("--release", nargs="+", type=cli.release, metavar="R", help="test releases (default: what is cached of R6 and R7)")
    p.add_argument("--mini", action="store_true", help="the mini releases (20 subjects)")
    p.add_argument("--ensemble", choices=("average", "weights", "stack"), help="score the named runs as one: their average; non-negative weights; a ridge on their answers and time-head statistics. The last two are fitted on validation subjects")
    p.add_argument("--shift", type=cli.seconds, default=0.0, metavar="S", help="average over views of each window this much earlier and later, too (challenge 1: the cache needs a margin)")
    p.add_argument("--mirror", action="store_true", help="average over each window and its mirror image")
    p.add_argument("--subject-mean", action="store_true", help="answer each window with the mean over all windows of its subject: more than the competition's server shows a model, so off by default")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the scores there, too")
    args = p.parse_args()
    cli.check_chosen(p, args)
    if args.ensemble and not args.runs:
        p.error("--ensemble combines the runs you name: python run/evaluate.py c1_tcn --ensemble average")
    return args


def main():
    args = arguments()
    from eeg.train.load import Load

    load = Load()
    import json

    import torch

    from eeg.score.metrics import LEADERBOARD, overall
    from eeg.train.device import cpu_threads, keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(cpu_threads(busy=load.cores()))
    runs, scores = chosen_runs(args), {}
    for challenge in (1, 2):
        if own := [run for run in runs if run.challenge == challenge]:
            scores[f"challenge{challenge}"] = evaluate(challenge, own, args)
    if len(scores) == 2:
        one, two = (score["nrmse"] for score in scores.values())
        real = ", on real data" * any(score["simulated"] for score in scores.values())
        scores["overall"] = overall(one, two)
        print(f"overall: 0.3 x {one:.5f} + 0.7 x {two:.5f} = {scores['overall']:.5f} (the final leaderboard's best{real}: {LEADERBOARD['overall']})")
    if args.json:
        args.json.write_text(json.dumps(scores, indent=1) + "\n")
        print(f"scores   {args.json}")


def chosen_runs(args):
    """The runs to score. Without names the best finished one of each challenge; one of them may be missing, which is said."""
    from eeg.train.runs import best_run, choose_runs

    if args.runs:
        runs = choose_runs(args.out, args.runs, args.seed, several=bool(args.ensemble))
        for run in runs:
            if args.challenge not in (None, run.challenge):
                raise UserError(f"{run.name} is a run of challenge {run.challenge}, not {args.challenge}; leave --challenge {args.challenge} out, or name another run")
        return runs
    runs, missing = [], []
    for challenge in [args.challenge] if args.challenge else (1, 2):
        try:
            runs.append(best_run(args.out, challenge))
        except UserError as e:
            missing.append(e)
    if not runs:
        raise missing[0]
    for e in missing:
        print(f"not scored: {e}\n")
    return runs


def evaluate(challenge, runs, args):
    """Print the table of one challenge. -> what --json says of it."""
    from eeg.score.baselines import baselines
    from eeg.score.ensemble import combine_runs, subject_mean, wanted
    from eeg.score.finished import predict_run
    from eeg.score.metrics import LEADERBOARD, bootstrap, nrmse
    from eeg.score.sides import check_side, side, scored_side

    cache, rows = scored_side(args.cache, challenge, args.release, args.mini)
    for run in runs:
        check_side(run, cache, rows)
    y, metadata, release = cache.y[rows], cache.metadata[rows], cache.release[rows]
    subjects = metadata["subject"]
    how = {"of": wanted(args.ensemble), "shift": args.shift, "mirror": args.mirror}

    start = time.perf_counter()
    with cli.Progress("windows") as progress:
        found = [predict_run(run, cache, rows, **how, progress=lambda done, n, i=i: progress(i * n + done, len(runs) * n)) for i, run in enumerate(runs)]
    seconds = time.perf_counter() - start
    scored = {f"{run.name}, epoch {run.best[0]}": p[:, 0] for run, p in zip(runs, found)}
    if args.ensemble:
        p, words = combine_runs(args.ensemble, runs, found, args.cache, **how)
        scored = {f"ensemble: {words}": p} | scored
    if args.subject_mean:
        scored = {f"{name}, mean of each subject": subject_mean(p, subjects) for name, p in scored.items()}
    name, p = next(iter(scored.items()))

    table = []

    def line(name, y, p, subjects):
        """Print and keep one line. Where a figure is not defined (one subject, labels that do not vary), its reason stands in its place."""
        entry, text = {"name": name.strip(), "windows": len(y)}, ""
        try:
            entry["nrmse"] = nrmse(y, p)
            text = f"{entry['nrmse']:.5f}  "
            entry["low"], entry["high"] = bootstrap(y, p, subjects)
            text += f"{entry['low']:.3f} .. {entry['high']:.3f}"
        except UserError as e:
            text += str(e)
        print(f"  {name:<70} {text}", flush=True)
        table.append(entry)

    releases = list(dict.fromkeys(release.tolist()))
    title = f"challenge {challenge}, {' + '.join(releases)}{' mini' * args.mini}{' (simulated)' * cache.simulated}: {cli.counted(len(y), 'window')}, {cli.counted(len(set(subjects)), 'subject')}"
    print(f"{title:<72} NRMSE    95 % interval (by subject)")
    for each, q in scored.items():
        line(each, y, q, subjects)
    try:
        train, chosen = side(args.cache, runs, "train")
    except UserError as e:  # a run may be scored where its training windows are not
        print(f"  nothing that is learned from training labels: {e}")
    else:
        for each, q in baselines(challenge, train.metadata[chosen], train.y[chosen], metadata, y).items():
            line(each, y, q, subjects)
    print(f"  {'the final leaderboard' + chr(39) + 's best' + ', on real data' * cache.simulated:<70} {LEADERBOARD[challenge]}")
    print(f"  of {name}:")
    parts = {"without fast time line and copies": ~metadata["fast"] & ~metadata["copy"], "without fast time line": ~metadata["fast"], "without copies": ~metadata["copy"]}
    parts |= {each: release == each for each in releases if len(releases) > 1}
    for part, inside in parts.items():
        if not inside.all():
            line(f"  {part}: {cli.counted(inside.sum(), 'window')}", y[inside], p[inside], subjects[inside])
    print(f"  {cli.counted(len(runs) * len(y), 'window')} in {seconds:.1f} s, peak memory {progress.peak / 1e6:.0f} MB\n", flush=True)
    return {"nrmse": nrmse(y, p), "run": name, "releases": releases, "windows": len(y), "subjects": len(set(subjects)), "simulated": cache.simulated, "table": table}


if __name__ == "__main__":
    cli.run(main)
