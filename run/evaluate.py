"""NRMSE of finished runs on test releases, with 95 % intervals by subject, beside what labels alone can tell.

    python run/evaluate.py                                    the best finished run of each challenge on R6 and R7
    python run/evaluate.py --challenge 1 --release R6         one challenge, one release
    python run/evaluate.py c1_tcn/20261121_101500             a run, by folder or by name under experiments/
    python run/evaluate.py c1_tcn --ensemble average          all runs of a name, averaged
    python run/evaluate.py c1_tcn --shift 0.05 --mirror       averaged over views of each window
    python run/evaluate.py --json scores.json

All windows are scored, copies and fast time line too, as the competition does; of challenge 2's 4 s windows, the same 2 s.
"""

import time
from pathlib import Path

from eeg import UserError, cli


def arguments():
    p = cli.parser(__doc__)
    p.add_argument("runs", nargs="*", metavar="RUN", help="a run's folder, its name under --out, or a name with several (default: the best finished run of each challenge, by validation)")
    p.add_argument("--challenge", type=int, choices=(1, 2))
    p.add_argument("--release", nargs="+", type=cli.release, metavar="R", help="test releases (default: what is cached of R6 and R7)")
    p.add_argument("--mini", action="store_true", help="the mini releases (20 subjects)")
    p.add_argument("--out", type=Path, default=Path("experiments"), metavar="DIR", help="where runs live (default: experiments/)")
    p.add_argument("--ensemble", choices=("average", "weights", "stack"), help="score the named runs as one: their average; non-negative weights; a ridge on their answers and time-head statistics. The last two are fitted on validation subjects")
    p.add_argument("--shift", type=cli.seconds, default=0.0, metavar="S", help="average over views of each window this much earlier and later, too (challenge 1: the cache needs a margin)")
    p.add_argument("--mirror", action="store_true", help="average over each window and its mirror image")
    p.add_argument("--subject-mean", action="store_true", help="answer each window with the mean over all windows of its subject: more than the competition's server shows a model, so off by default")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the scores there, too")
    args = p.parse_args()
    if args.ensemble and not args.runs:
        p.error("--ensemble combines the runs you name: python run/evaluate.py c1_tcn --ensemble average")
    return args


def main():
    args = arguments()
    import json

    from eeg.score.metrics import LEADERBOARD, overall
    from eeg.score.runs import find_runs

    runs = find_runs(args.out, args.runs, args.challenge)
    scores = {}
    for challenge in (1, 2):
        chosen = [run for run in runs if run.challenge == challenge]
        if chosen:
            scores[f"challenge{challenge}"] = evaluate(challenge, chosen if args.runs else chosen[:1], args)
        elif not args.runs and not args.challenge:
            print(f"challenge {challenge}: no finished run in {args.out}/; train one with: python run/train.py --challenge {challenge}\n")
    if len(scores) == 2:
        one, two = (score["nrmse"] for score in scores.values())
        scores["overall"] = overall(one, two)
        simulated = any(score["simulated"] for score in list(scores.values())[:2])
        print(f"overall  0.3 x {one:.5f} + 0.7 x {two:.5f} = {scores['overall']:.5f}   the final leaderboard's best{' (real data)' if simulated else ''}: {LEADERBOARD['overall']}")
    if args.json:
        args.json.write_text(json.dumps(scores, indent=1) + "\n")
        print(f"scores   {args.json}")


def evaluate(challenge, runs, args):
    """Print the table of one challenge. -> what --json says of it."""
    from eeg.score.baselines import baselines
    from eeg.score.ensemble import combine, subject_mean, wanted
    from eeg.score.metrics import LEADERBOARD, bootstrap, nrmse
    from eeg.score.predict import predict
    from eeg.score.runs import check_fits, check_unseen, side, test_side

    cache, rows = test_side(args.cache, challenge, args.release, args.mini)
    for run in runs:
        check_fits(run, cache)
        check_unseen(run, cache, rows)
    y, metadata, release = cache.y[rows], cache.metadata[rows], cache.release[rows]
    subjects, models = metadata["subject"], [run.model() for run in runs]
    views = {"shift": args.shift, "mirror": args.mirror}

    start = time.perf_counter()
    with cli.Progress("windows") as progress:
        found = [predict(model, cache, rows, wanted(model, args.ensemble), **views, progress=progress) for model in models]
    seconds = time.perf_counter() - start
    named = {f"{run}, epoch {run.epoch}" + ("" if run.finished else " (not finished)"): p[:, 0] for run, p in zip(runs, found)}
    if args.ensemble:
        valid, labels, people = None, None, None
        if args.ensemble != "average":
            known, chosen = side(args.cache, runs, "valid")
            labels, people = known.y[chosen], known.metadata["subject"][chosen]
            valid = [predict(model, known, chosen, wanted(model, args.ensemble), **views) for model in models]
        p, how = combine(args.ensemble, found, valid, labels, people)
        named = {f"ensemble: {how}": p} | named
    if args.subject_mean:
        named = {f"{name}, mean of each subject": subject_mean(p, subjects) for name, p in named.items()}
    name, p = next(iter(named.items()))

    releases = list(dict.fromkeys(release))
    title = f"challenge {challenge}, {' + '.join(releases)}{' mini' if args.mini else ''}{' (simulated)' if cache.simulated else ''}: {len(y):,} windows, {len(set(subjects))} subjects"
    print(f"{title:<72} NRMSE    95 % interval (by subject)")
    table = []

    def line(name, y, p, subjects):
        entry = {"name": name}
        try:
            entry["nrmse"] = nrmse(y, p)
            entry["low"], entry["high"] = bootstrap(y, p, subjects)
            print(f"  {name:<70} {entry['nrmse']:.5f}  {entry['low']:.3f} .. {entry['high']:.3f}")
        except UserError as e:  # one subject, or labels that do not vary: the reason stands where the figure would
            print(f"  {name:<70} {format(entry['nrmse'], '.5f') if 'nrmse' in entry else ''}  {e}")
        table.append(entry)

    for name_, each in named.items():
        line(name_, y, each, subjects)
    try:
        train, chosen = side(args.cache, runs, "train")
    except UserError as e:
        print(f"  no label-only baselines: {e}")
    else:
        for name_, each in baselines(challenge, train.metadata[chosen], train.y[chosen], metadata, y).items():
            line(name_, y, each, subjects)
    print(f"  {'the final leaderboard`s best'.replace('`', chr(39)) + (', on real data' if cache.simulated else ''):<70} {LEADERBOARD[challenge]}")
    print(f"  of {name}:")
    parts = {"without fast time line and copies": ~metadata["fast"] & ~metadata["copy"], "without fast time line": ~metadata["fast"], "without copies": ~metadata["copy"]}
    parts |= {each: release == each for each in releases if len(releases) > 1}
    for part, inside in parts.items():
        if not inside.all():
            line(f"  {part}, {inside.sum():,} windows", y[inside], p[inside], subjects[inside])
    print(f"  {len(models) * len(y):,} windows predicted in {seconds:.1f} s, peak memory {progress.peak / 1e6:.0f} MB\n", flush=True)
    return {"nrmse": nrmse(y, p), "run": name, "releases": releases, "windows": len(y), "subjects": len(set(subjects)), "simulated": cache.simulated, "table": table}


if __name__ == "__main__":
    cli.run(main)
