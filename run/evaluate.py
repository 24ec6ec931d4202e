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
    cli.add_runs(
        p,
        "the best finished run of each challenge, by validation; with --ensemble a name stands for all of its finished runs",
    )
    p.add_argument("--challenge", type=cli.challenge, metavar="{1,2}")
    cli.add_release(p, "test releases (default: what is cached of R6 and R7)")
    cli.add_mini(p)
    p.add_argument(
        "--ensemble",
        choices=("average", "weights", "stack"),
        help="score the named runs as one: their average; non-negative weights; a ridge on their answers and time-head statistics. The last two are fitted on validation subjects, and refused where those would be scored",
    )
    p.add_argument(
        "--shift",
        type=cli.seconds,
        default=0.0,
        metavar="S",
        help="average over views of each window this much earlier and later, too (challenge 1: the cache needs a margin)",
    )
    p.add_argument(
        "--mirror", action="store_true", help="average over each window and its mirror image"
    )
    p.add_argument(
        "--subject-mean",
        action="store_true",
        help="answer each window with the mean over all windows of its subject: more than the competition's server shows a model, so off by default",
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="write the scores there, too")
    args = p.parse_args()
    cli.check_chosen(p, args)
    if args.ensemble and not args.runs:
        p.error("--ensemble combines the runs you name, as in: c1_tcn --ensemble average")
    return args


def main():
    args = arguments()
    from eeg.files import check_writable, write_whole, writing
    from eeg.machine.load import Load

    load = Load()
    if args.json:
        check_writable(args.json, "--json FILE")
    import json

    import torch

    from eeg.data.windows import TARGETS
    from eeg.machine.device import cpu_threads, keep_freed_memory
    from eeg.score.metrics import LEADERBOARD, overall

    keep_freed_memory()
    torch.set_num_threads(cpu_threads(busy=load.cores()))
    runs, scores = chosen_runs(args), {}
    for challenge, target in sorted({(run.challenge, learned(run)) for run in runs}):
        own = [run for run in runs if (run.challenge, learned(run)) == (challenge, target)]
        name = f"challenge{challenge}" + (f"_{target}" if target != TARGETS[challenge] else "")
        scores[name] = evaluate(challenge, target, own, args)
    if {"challenge1", "challenge2"} <= scores.keys():
        both = [scores["challenge1"], scores["challenge2"]]
        one, two = (score["nrmse"] for score in both)
        real = ", on real data" * any(score["simulated"] for score in both)
        scores["overall"] = overall(one, two)
        print(
            f"overall: 0.3 x {one:.5f} + 0.7 x {two:.5f} = {scores['overall']:.5f} (the final leaderboard's best{real}: {LEADERBOARD['overall']})"
        )
    if args.json:
        text = json.dumps(scores, indent=1) + "\n"
        with writing(args.json, "--json FILE", len(text)):
            write_whole(args.json, text)
        print(f"scores   {args.json}")


def chosen_runs(args):
    """The runs to score. Without names the best finished one of each challenge; one of them may be missing, which is said."""
    from eeg.runs.choice import best_run, choose_runs

    if args.runs:
        runs = choose_runs(args.out, args.runs, args.seed, several=bool(args.ensemble))
        for run in runs:
            if args.challenge not in (None, run.challenge):
                raise UserError(
                    f"{run.name} is a run of challenge {run.challenge}, not {args.challenge}; leave --challenge {args.challenge} out, or name another run"
                )
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


def learned(run):
    """What a run's first answer is: what the competition scores, or another target."""
    from eeg.data.windows import TARGETS

    return TARGETS[run.challenge] if run.scored else run.config["target"]


def evaluate(challenge, target, runs, args):
    """Print the table of one challenge, or of another target of its runs. -> what --json says of it."""
    import numpy as np

    from eeg.data.split import labels
    from eeg.data.windows import TARGETS
    from eeg.score.ensemble import combine_runs, subject_mean, wanted
    from eeg.score.finished import predict_run
    from eeg.score.metrics import LEADERBOARD, auroc, interval, nrmse
    from eeg.score.sides import check_fitting, check_side, chosen_on, flattered, scored_side

    cache, rows = scored_side(args.cache, challenge, args.release, args.mini)
    for run in runs:
        check_side(run, cache, rows, also=(target,))
    metric, competes = auroc if target == "correct" else nrmse, target == TARGETS[challenge]
    if args.ensemble not in (None, "average") and not competes:
        raise UserError(
            f"--ensemble {args.ensemble} is fitted to what the competition scores, {runs[0].name} predicts {target}; average such runs with: --ensemble average"
        )
    if args.ensemble:
        check_fitting(args.ensemble, runs, cache, rows)
    rows = rows[np.isfinite(labels(cache, target)[rows, 0])]
    y, metadata, release = labels(cache, target)[rows, 0], cache.metadata[rows], cache.release[rows]
    subjects = metadata["subject"]
    how = {"of": wanted(args.ensemble), "shift": args.shift, "mirror": args.mirror}

    start = time.perf_counter()
    with cli.Progress("windows") as progress:
        found = [
            predict_run(
                run,
                cache,
                rows,
                **how,
                progress=lambda done, n, i=i: progress(i * n + done, len(runs) * n),
            )
            for i, run in enumerate(runs)
        ]
    seconds = time.perf_counter() - start
    scored = {f"{run.name}, epoch {run.best[0]}": p[:, 0] for run, p in zip(runs, found)}
    if args.ensemble:
        p, words = combine_runs(args.ensemble, runs, found, args.cache, **how)
        scored = {f"ensemble: {words}": p} | scored
    if args.subject_mean:
        scored = {
            f"{name}, mean of each subject": subject_mean(p, subjects) for name, p in scored.items()
        }
    name, p = next(iter(scored.items()))

    table = []

    def line(name, y, p, subjects):
        """Print and keep one line. Where a figure is not defined (one subject, labels that do not vary), its reason stands in its place."""
        entry, text = {"name": name.strip(), "windows": len(y)}, ""
        try:
            entry[metric.__name__] = metric(y, p)
            text = f"{entry[metric.__name__]:.5f}  "
            entry["low"], entry["high"] = interval(y, p, subjects, metric)
            text += f"{entry['low']:.3f} .. {entry['high']:.3f}"
        except UserError as e:
            text += str(e)
        print(f"  {name:<70} {text}", flush=True)
        table.append(entry)

    releases = list(dict.fromkeys(release.tolist()))
    what = "" if competes else f" {target},"
    title = f"challenge {challenge},{what} {' + '.join(releases)}{' mini' * args.mini}{' (simulated)' * cache.simulated}: {cli.counted(len(y), 'window')}, {cli.counted(len(set(subjects)), 'subject')}"
    print(f"{title:<72} {metric.__name__.upper()}    95 % interval (by subject)")
    for each, q in scored.items():
        line(each, y, q, subjects)
    by_run = [bool(chosen_on(run, cache, rows)) for run in runs]
    for entry, chosen in zip(table, [any(by_run), *by_run] if args.ensemble else by_run):
        entry["chosen_on_these_subjects"] = chosen
    for each, q in label_only(target, runs, args.cache, metadata, y).items():
        line(each, y, q, subjects)
    if competes:
        print(
            f"  {'the final leaderboard' + chr(39) + 's best' + ', on real data' * cache.simulated:<70} {LEADERBOARD[challenge]}"
        )
    if note := flattered(runs, cache, rows):
        print(f"  note: {note}")
    print(f"  of {name}:")
    parts = {
        "without fast time line and copies": ~metadata["fast"] & ~metadata["copy"],
        "without fast time line": ~metadata["fast"],
        "without copies": ~metadata["copy"],
    }
    parts |= {each: release == each for each in releases if len(releases) > 1}
    for part, inside in parts.items():
        if not inside.all():
            line(
                f"  {part}: {cli.counted(inside.sum(), 'window')}",
                y[inside],
                p[inside],
                subjects[inside],
            )
    print(
        f"  {cli.counted(len(runs) * len(y), 'window')} in {seconds:.1f} s, peak memory {progress.peak / 1e6:.0f} MB\n",
        flush=True,
    )
    about = {
        metric.__name__: metric(y, p),
        "target": target,
        "run": name,
        "releases": releases,
        "windows": len(y),
        "subjects": len(set(subjects)),
        "simulated": cache.simulated,
    }
    about |= {"chosen_on_these_subjects": table[0]["chosen_on_these_subjects"], "table": table}
    if factors := print_factors(runs, found, cache, rows, args):
        about["factors"] = factors
    return about


def label_only(target, runs, folder, metadata, y):
    """{name: predictions} of what training labels alone tell; none, which is said, where the training windows are not cached."""
    import numpy as np

    from eeg.data.split import labels
    from eeg.score.baselines import baselines
    from eeg.score.sides import side

    try:
        train, rows = side(folder, runs, "train")
    except UserError as e:  # a run may be scored where its training windows are not
        print(f"  label-only baselines unavailable: {e}")
        return {}
    y_train = labels(train, target)[:, 0]
    rows = rows[np.isfinite(y_train[rows])]
    return baselines(runs[0].challenge, train.metadata[rows], y_train[rows], metadata, y)


def print_factors(runs, found, cache, rows, args):
    """Print how well each factor is predicted by the runs that learned all four. -> {run: scores}"""
    from eeg.score.factors import factor_rows, factor_scores

    told = {}
    for run, p in zip(runs, found):
        if run.config["target"] != "factors" or args.ensemble == "stack":
            continue
        scores, mean = factor_scores(cache, rows, p)
        told[run.name] = scores | {"mean_pearson": mean}
        print(f"  all four factors, {run.name}:")
        for cells in factor_rows(scores, mean):
            print(
                "    "
                + "  ".join(
                    cell.ljust(width) for cell, width in zip(cells, (15, 8, 16, 8, 0))
                ).rstrip(),
                flush=True,
            )
        print()
    return told


if __name__ == "__main__":
    cli.run(main)
