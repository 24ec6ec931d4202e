"""Compare runs on the same test windows: which is better, and whether by more than chance.

    python run/compare.py                                   all finished runs, on R6 and R7
    python run/compare.py c1_tcn c1_eegnex/20261121_101500  these (a name stands for all its runs)
    python run/compare.py c1_tcn --seed 0 1 2               runs with these seeds, no folds of --cv
    python run/compare.py c1_tcn/20261121..20261123         those started on these days
    python run/compare.py c1_tcn --ensemble average         the runs, and their average
    python run/compare.py --promote                         promotes the run that validates best

The best two are compared on the same subjects. One is called better if the 95 % interval of the
difference between their NRMSE excludes 0; with fewer than 10 subjects neither is. The best of many
runs is partly the luckiest on these windows: expect a little less of it on others.

--promote chooses by validation NRMSE among runs validated on the same subjects. The test releases
can only veto: a run that is worse on them than the promoted one does not replace it, so nothing is
chosen on the test windows. The promoted run is copied to experiments/promoted_challenge_1/ (or 2),
which every command accepts as a RUN.
"""

from eeg import UserError, cli
from eeg.machine.load import Load
from eeg.runs.choice import best_run, choose_runs, competing, left_out, validation
from eeg.runs.differences import differences
from eeg.runs.promoted import promote, promoted_folder
from eeg.runs.run import Run, find_runs

HEADER = ["run", "model", "test NRMSE, 95 % interval", "valid NRMSE, 95 % interval"]
HEADER += ["parameters", "time", "device", "differs in"]


def arguments():
    p = cli.parser(__doc__)
    cli.add_runs(p, "all finished runs; in this command a name stands for all of its finished runs")
    cli.add_scoring(p)
    unless = "unless it is worse than the promoted one on the test releases"
    help = f"promote the run that validates best in each challenge, {unless}"
    p.add_argument("--promote", action="store_true", help=help)
    args = p.parse_args()
    cli.check_chosen(p, args)
    if args.promote and args.ensemble:
        why = "--promote takes a single run, an ensemble has no weights of its own"
        p.error(f"{why}: give --promote or --ensemble")
    return args


def main():
    args, load = arguments(), Load()
    from eeg.machine.device import use_free_cores

    use_free_cores(load)
    runs = chosen_runs(args)
    for challenge in sorted({run.challenge for run in runs}):
        compare(challenge, [run for run in runs if run.challenge == challenge], args)


def chosen_runs(args):
    if args.runs:
        return choose_runs(args.out, args.runs, args.seed, True, args.challenge)
    scored = [run for run in find_runs(args.out) if run.finished and run.scored]
    runs = [run for run in scored if args.challenge in (None, run.challenge)]
    return runs or [best_run(args.out, args.challenge or 1)]  # which says what there is instead


def compare(challenge, runs, args):
    """Print the table of one challenge and what follows from it."""
    from eeg.score.sides import flattered, scored_side, title

    scored = scored_side(args.cache, challenge, args.release, args.mini)
    answers, reasons = predictions(runs, scored, args)
    runs = [run for run in runs if run.name in answers]
    print(title(scored))
    order = print_table(runs, answers, scored, args.cache)
    for reason in reasons:
        print(f"  left out: {reason}", flush=True)
    if note := flattered(runs, scored):
        print(f"  note: {note}")
    print_verdicts(order, runs, answers, scored, args.cache)
    if args.promote:
        promote_best(runs, answers, scored, args.out)
    print(flush=True)


def predictions(runs, scored, args):
    """({name: answers (N,)} of runs and ensemble, why others are left out).

    Raises UserError where no run can be compared.
    """
    from eeg.score import ensemble, predict, sides

    question, found, reasons = ensemble.asked(args.ensemble), {}, []
    with cli.Progress("windows") as progress:
        for i, run in enumerate(runs):
            try:
                sides.check_side(run, scored)
                part = predict.part_of(progress, i, len(runs))
                found[run] = predict.predict_run(run, scored, question, part)
            except UserError as e:
                reasons.append(e if run.name in str(e) else UserError(f"{run.name}: {e}"))
    if not found:
        raise reasons[0]
    answers = {run.name: p[:, 0] for run, p in found.items()}
    if args.ensemble:
        sides.check_fitting(args.ensemble, found, scored)
        try:
            members = list(found), list(found.values()), args.cache
            p, words = ensemble.combine_runs(args.ensemble, *members, question)
            answers[f"ensemble: {words}"] = p
        except UserError as e:
            reasons.append(f"the ensemble: {e}")
    return answers, reasons


def print_table(runs, answers, scored, folder):
    """Print what was compared, best first. -> the names in this order"""
    from eeg.score import metrics, scores

    order = sorted(answers, key=lambda name: metrics.nrmse(scored.y, answers[name]))
    of = lambda name: str(scores.score(scored.y, answers[name], scored.subjects))
    lines = {name: [name, "", of(name)] for name in order}
    for run, differing in zip(runs, differences(runs)):
        lines[run.name][1] = run.config["model"]["name"]
        lines[run.name] += [*about(run, folder), differing]
    print(scores.aligned([HEADER, *lines.values()]), flush=True)
    return order


def about(run, folder):
    """A run's validation score, parameters, training time and device.

    Its validation windows are predicted again, for the interval. Where they are not cached, the
    NRMSE of the training stands alone.
    """
    from eeg.score import predict, scores, sides

    try:
        known = sides.side(folder, [run], "valid")
        valid = str(scores.score(known.y, predict.predict_validation(run, known), known.subjects))
    except UserError:  # the windows, or a hybrid's features of them, are not there
        valid = f"{run.best[1]:.5f} (not cached)"
    parameters = sum(weight.numel() for weight in predict.load_model(run.weights).parameters())
    minutes, seconds = divmod(round(sum(epoch["seconds"] for epoch in run.timing["epochs"])), 60)
    return [valid, f"{parameters:,}", f"{minutes}:{seconds:02}", str(run.config.get("device", ""))]


def print_verdicts(order, runs, answers, scored, folder):
    """Print whether the best is better than the second, an ensemble, and labels alone."""
    from eeg.data.windows import TARGETS
    from eeg.score import baselines, metrics, scores

    y, best, names = scored.y, order[0], {run.name for run in runs}
    others = {name: answers[name] for name in order[1:] if name == order[1] or name not in names}
    alone = baselines.label_only(folder, runs, TARGETS[scored.cache.challenge], scored.metadata, y)
    if alone:
        least = min(alone, key=lambda name: metrics.nrmse(y, alone[name]))
        others |= {name: alone[name] for name in (baselines.TRAINING_MEAN, least)}
    for name, p in others.items():
        print(f"  {scores.verdict(best, answers[best], name, p, y, scored.subjects)[1]}")


def promote_best(runs, answers, scored, out):
    """Promote the run with the lowest validation NRMSE, unless the test windows veto it.

    The promoted run takes part, and wins where it is equal.
    """
    from eeg.score.metrics import nrmse

    runs = [run for run in runs if run.best[0]]
    folder = promoted_folder(out, scored.cache.challenge)
    if not runs:
        print("  nothing is promoted: none of these runs has a validation NRMSE")
        return
    now = Run(folder) if folder.exists() else None
    among, others = competing([now, *runs] if now else runs)
    if shown := [run for run in others if run is not now]:
        print(f"  {left_out(among, shown)}")
    if now in others:
        was = f"the promoted run was validated on {validation(now)}"
        print(f"  {was}, so its validation NRMSE is left out, too")
    best = min(among, key=lambda run: run.best[1])
    words = f"{best.best[1]:.5f} on {validation(best)}"
    if best is now:
        print(f"  the promoted run has the lowest validation NRMSE, {words}; {folder}/ is kept")
        return
    print(f"  lowest validation NRMSE: {best.name}, {words}")
    if now and vetoed(best, answers[best.name], now, scored):
        print(f"  {folder}/ is kept")
        return
    note = {"valid_nrmse": best.best[1], "validated_on": validation(best)}
    note |= {"releases": scored.releases, "nrmse": nrmse(scored.y, answers[best.name])}
    print(f"  promoted {best.name} to {promote(best, out, note)}/")


def vetoed(run, p, now, scored):
    """Print whether a run is worse than the promoted one on the test windows. -> whether it is"""
    from eeg.score import predict, scores, sides

    sides.check_side(now, scored)
    q, windows = predict.predict_run(now, scored)[:, 0], (scored.y, scored.subjects)
    worse, _ = scores.verdict("the promoted run", q, run.name, p, *windows)
    _, sentence = scores.verdict(run.name, p, "the promoted run", q, *windows)
    print(f"  the test releases {'veto it' if worse else 'do not veto it'}: {sentence}")
    return worse


if __name__ == "__main__":
    cli.run(main)
