"""Score finished runs on test releases: NRMSE, its 95 % interval by subject, label-only baselines.

    python run/evaluate.py                                best run of each challenge, on R6 and R7
    python run/evaluate.py --challenge 1 --release R6     one challenge, one release
    python run/evaluate.py c1_tcn/20261121_101500         a run, by folder or by name
    python run/evaluate.py promoted_challenge_1           the promoted run (run/compare.py)
    python run/evaluate.py c1_tcn --ensemble average      all finished runs of a name, averaged
    python run/evaluate.py c1_tcn --seed 0 1 2 --ensemble average      those with these seeds
    python run/evaluate.py c1_tcn/20261121..20261123      those started on these days, one by one
    python run/evaluate.py c1_tcn --shift 0.05 --mirror   averaged over views of each window
    python run/evaluate.py --json scores.json

All windows are scored, copies and the fast time line included, as in the competition. Challenge 2
scores 2 s of each 4 s window, the same 2 s as the competition.
"""

import json
import time
from pathlib import Path

from eeg import UserError, cli
from eeg.files import check_writable, write_whole, writing
from eeg.machine.load import Load
from eeg.runs.choice import best_runs, choose_runs


def arguments():
    p = cli.parser(__doc__)
    best = "the best finished run of each challenge, by validation"
    cli.add_runs(p, f"{best}; with --ensemble a name stands for all of its finished runs")
    cli.add_scoring(p)
    views = "also answer each window shifted this much earlier and later, and take the mean"
    help = f"{views} (in challenge 1 the cache needs a margin)"
    p.add_argument("--shift", type=cli.seconds, default=0.0, metavar="S", help=help)
    help = "also answer the mirror image of each window, and take the mean"
    p.add_argument("--mirror", action="store_true", help=help)
    off = "(default: off, because the competition's server does not show a model all of them)"
    help = f"answer each window with the mean over all windows of its subject {off}"
    p.add_argument("--subject-mean", action="store_true", help=help)
    p.add_argument("--json", type=Path, metavar="FILE", help="also write the scores to this file")
    args = p.parse_args()
    cli.check_chosen(p, args)
    if args.ensemble and not args.runs:
        p.error("--ensemble combines the runs you name, as in: c1_tcn --ensemble average")
    return args


def main():
    args, load = arguments(), Load()
    if args.json:
        check_writable(args.json, "--json FILE")
    from eeg.data.windows import TARGETS
    from eeg.machine.device import use_free_cores

    use_free_cores(load)
    kinds, scores = {}, {}
    for run in chosen_runs(args):
        target = TARGETS[run.challenge] if run.scored else run.config["target"]
        kinds.setdefault((run.challenge, target), []).append(run)
    for (challenge, target), runs in sorted(kinds.items()):
        name = f"challenge{challenge}" + (f"_{target}" if target != TARGETS[challenge] else "")
        scores[name] = evaluate(target, runs, args)
    if {"challenge1", "challenge2"} <= scores.keys():
        scores["overall"] = print_overall(scores["challenge1"], scores["challenge2"])
    if args.json:
        text = json.dumps(scores, indent=1) + "\n"
        with writing(args.json, "--json FILE", len(text)):
            write_whole(args.json, text)
        print(f"scores   {args.json}")


def chosen_runs(args):
    """The runs to score: the named ones, or the best of each challenge. A missing one is noted."""
    if args.runs:
        several = bool(args.ensemble)
        return choose_runs(args.out, args.runs, args.seed, several, args.challenge)
    runs, missing = best_runs(args.out, [args.challenge] if args.challenge else (1, 2))
    for reason in missing.values():
        if not runs:
            raise reason
        print(f"not scored: {reason}\n")
    return list(runs.values())


def evaluate(target, runs, args):
    """Print the table of runs of one challenge and target. -> what --json says about it."""
    from eeg.score import ensemble, predict, sides

    table, found = Table(scored_windows(target, runs, args), target), []
    question = ensemble.asked(args.ensemble, args.shift, args.mirror)
    start = time.perf_counter()
    with cli.Progress("windows") as progress:
        for i, run in enumerate(runs):
            part = predict.part_of(progress, i, len(runs))
            found.append(predict.predict_run(run, table.side, question, part))
    seconds = time.perf_counter() - start

    heading = sides.title(table.side, None if table.competes else target)
    print(f"{heading:<72} {table.figure.upper()}    95 % interval (by subject)")
    answers = named_answers(runs, found, question, table.side, args)
    print_runs(table, answers, runs, args)
    name, p = next(iter(answers.items()))
    print_parts(table, name, p)
    windows = cli.counted(len(runs) * len(table.y), "window")
    print(f"  {windows} in {seconds:.1f} s, peak memory {progress.peak / 1e6:.0f} MB\n", flush=True)
    factors = {} if args.ensemble == "stack" else print_factors(table.side, runs, found)
    return table.about(name, p) | ({"factors": factors} if factors else {})


def scored_windows(target, runs, args):
    """The Side of the windows to score. Raises UserError where the runs do not allow it."""
    from eeg.data.windows import TARGETS
    from eeg.score.sides import check_fitting, check_side, scored_side

    challenge = runs[0].challenge
    scored = scored_side(args.cache, challenge, args.release, args.mini)
    for run in runs:
        check_side(run, scored, also=(target,))
    if args.ensemble not in (None, "average") and target != TARGETS[challenge]:
        fitted = f"--ensemble {args.ensemble} is fitted to what the competition scores"
        instead = "average such runs with: --ensemble average"
        raise UserError(f"{fitted}, {runs[0].name} predicts {target}; {instead}")
    if args.ensemble:
        check_fitting(args.ensemble, runs, scored)
    return scored


class Table:
    """Prints the scores of the windows that have a label, line by line, and keeps them for --json.

    y (N,): the labels. figure: "nrmse" or "auroc".
    """

    def __init__(self, scored, target):
        import numpy as np

        from eeg.data.split import labels
        from eeg.data.windows import TARGETS
        from eeg.score.metrics import auroc, nrmse

        y = labels(scored.cache, target)[scored.rows, 0]
        self.y, known = y[np.isfinite(y)], scored.rows[np.isfinite(y)]
        self.side, self.target, self.entries = scored._replace(rows=known), target, []
        self.competes = target == TARGETS[scored.cache.challenge]
        self.oracle = scored.cache.oracle if self.competes else None
        self.metric = auroc if target == "correct" else nrmse
        self.figure = self.metric.__name__

    def line(self, name, p, inside=slice(None)):
        """Print and keep one line. A reason takes the place of a score that is not defined."""
        from eeg.score.scores import score

        y = self.y[inside]
        found = score(y, p[inside], self.side.subjects[inside], self.metric)
        print(f"  {name:<70} {found}", flush=True)
        entry = {"name": name.strip(), "windows": len(y)}
        if found.value is not None:
            entry[self.figure] = found.value
        if found.interval:
            entry["low"], entry["high"] = found.interval
        self.entries.append(entry)

    def oracle_line(self):
        """Print how far the first line is from what its simulated world allows."""
        first = self.entries[0].get(self.figure)
        if self.oracle is not None:
            away = f"  the first line is {first - self.oracle:.3f} away" if first else ""
            what = "the simulated world's oracle, which sees the hidden sources"
            print(f"  {what:<70} {self.oracle:.5f}{away}", flush=True)

    def about(self, name, p):
        """What --json says: the score of the first line, and all lines."""
        side, chosen = self.side, "chosen_on_these_subjects"
        found = {self.figure: self.metric(self.y, p), "target": self.target, "run": name}
        found |= {"releases": side.releases, "windows": len(self.y), "subjects": len(side.names)}
        if self.oracle is not None:
            found |= {"oracle": self.oracle}
        found |= {"simulated": side.cache.simulated, chosen: self.entries[0][chosen]}
        return found | {"table": self.entries}


def named_answers(runs, found, question, scored, args):
    """{name: answers (N,)}, the ensemble first."""
    from eeg.score.ensemble import combine_runs, subject_mean

    answers = {f"{run.name}, epoch {run.best[0]}": p[:, 0] for run, p in zip(runs, found)}
    if args.ensemble:
        p, words = combine_runs(args.ensemble, runs, found, args.cache, question)
        answers = {f"ensemble: {words}": p} | answers
    if not args.subject_mean:
        return answers
    mean = lambda p: subject_mean(p, scored.subjects)
    return {f"{name}, mean of each subject": mean(p) for name, p in answers.items()}


def print_runs(table, answers, runs, args):
    """Print the runs, label-only baselines, the leaderboard's best, and what flatters a run."""
    from eeg.score import baselines, metrics, sides

    for name, p in answers.items():
        table.line(name, p)
    chosen = [bool(sides.chosen_on(run, table.side)) for run in runs]
    for entry, flag in zip(table.entries, [any(chosen), *chosen] if args.ensemble else chosen):
        entry["chosen_on_these_subjects"] = flag
    known = table.side.metadata, table.y
    for name, p in baselines.label_only(args.cache, runs, table.target, *known).items():
        table.line(name, p)
    if table.competes:
        best = "the final leaderboard's best" + ", on real data" * table.side.cache.simulated
        print(f"  {best:<70} {metrics.LEADERBOARD[table.side.cache.challenge]}")
    table.oracle_line()
    if note := sides.flattered(runs, table.side):
        print(f"  note: {note}")
    for note in filter(None, (sides.seen_by_encoder(run, table.side) for run in runs)):
        print(f"  note: {note}")
    if names := [run.name for run in runs if run.align != "none"]:
        how = "each subject by all of its windows (--align), as a submission cannot"
        print(f"  note: {', '.join(names)} {'aligns' if len(names) == 1 else 'align'} {how}")


def print_parts(table, name, p):
    """Print the scores of the first line on parts of the windows."""
    slow, own = ~table.side.metadata["fast"], ~table.side.metadata["copy"]
    parts = {"without fast time line and copies": slow & own}
    parts |= {"without fast time line": slow, "without copies": own}
    of_window = table.side.cache.release[table.side.rows]
    parts |= {release: of_window == release for release in table.side.releases}
    parts = {part: inside for part, inside in parts.items() if not inside.all()}
    if parts:
        print(f"  parts of {name}:")
    for part, inside in parts.items():
        table.line(f"  {part}: {cli.counted(inside.sum(), 'window')}", p, inside)


def print_factors(scored, runs, found):
    """Print the scores of each factor for runs that learned all four. -> {run: scores}"""
    from eeg.score.scores import aligned, factor_rows, factor_scores

    by_run = {}
    for run, p in zip(runs, found):
        if run.config["target"] == "factors":
            scores, mean = factor_scores(scored, p)
            by_run[run.name] = scores | {"mean_pearson": mean}
            print(f"  all four factors, {run.name}:")
            print(aligned(factor_rows(scores, mean), "    ") + "\n", flush=True)
    return by_run


def print_overall(challenge1, challenge2):
    """Print the competition's final score. -> it"""
    from eeg.score.metrics import LEADERBOARD, overall

    one, two = challenge1["nrmse"], challenge2["nrmse"]
    both = overall(one, two)
    real = ", on real data" * (challenge1["simulated"] or challenge2["simulated"])
    best = f"the final leaderboard's best{real}: {LEADERBOARD['overall']}"
    print(f"overall: 0.3 x {one:.5f} + 0.7 x {two:.5f} = {both:.5f} ({best})")
    return both


if __name__ == "__main__":
    cli.run(main)
