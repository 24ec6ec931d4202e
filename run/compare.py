"""Compares runs on the same test windows: which is better, and whether any beats chance.

    python run/compare.py                                   all finished runs, on R6 and R7
    python run/compare.py c1_tcn c1_eegnex/20261121_101500  these; a name stands for all its runs
    python run/compare.py c1_tcn --seed 0 1 2               runs with these seeds, no folds of --cv
    python run/compare.py c1_tcn/20261121..20261123         those started on these days
    python run/compare.py c1_tcn --ensemble average         the runs, and their average as one more
    python run/compare.py --promote                         promotes the best run by validation

The best two are compared on the same subjects: what counts is whether the 95 % interval of the
difference of their NRMSE contains 0. With fewer than 10 subjects nothing is called better or worse.
The best of many runs is partly the luckiest on these windows: expect a little less of it on others.

--promote chooses by validation NRMSE, among runs validated on the same subjects. The test releases
can only veto: a run that is worse on them than the promoted one does not replace it. So nothing is
chosen on the test windows. The promoted run lies in experiments/promoted_challenge_1/ (or 2), which
every command takes as a RUN.
"""

from eeg import UserError, cli

HEADER = ["run", "model", "test NRMSE, 95 % interval", "valid NRMSE, 95 % interval"]
HEADER += ["parameters", "time", "device", "differs in"]


def arguments():
    p = cli.parser(__doc__)
    cli.add_runs(p, "all finished runs; here a name stands for all of its finished runs")
    p.add_argument(
        "--challenge", type=cli.challenge, metavar="{1,2}", help="compare runs of this challenge"
    )
    cli.add_release(p, "test releases (default: those of R6 and R7 that are cached)")
    cli.add_mini(p)
    p.add_argument(
        "--ensemble",
        choices=("average", "weights", "stack"),
        help="add the runs as one: their average, non-negative weights, or a ridge on their "
        "answers and time-head statistics. The last two are fitted on validation subjects, and "
        "refused where those would be scored",
    )
    p.add_argument(
        "--promote",
        action="store_true",
        help="promote the best run by validation in its challenge, unless it is worse than the "
        "promoted one on the test releases",
    )
    args = p.parse_args()
    cli.check_chosen(p, args)
    if args.promote and args.ensemble:
        p.error(
            "--promote takes a single run, an ensemble has no weights of its own: "
            "give --promote or --ensemble"
        )
    return args


def main():
    args = arguments()
    from eeg.machine.load import Load

    load = Load()
    import torch

    from eeg.machine.device import cpu_threads, keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(cpu_threads(busy=load.cores()))
    runs = chosen_runs(args)
    for challenge in sorted({run.challenge for run in runs}):
        compare(challenge, [run for run in runs if run.challenge == challenge], args)


def chosen_runs(args):
    from eeg.runs.choice import best_run, choose_runs
    from eeg.runs.run import find_runs

    if args.runs:
        return choose_runs(args.out, args.runs, args.seed, True, args.challenge)
    runs = [
        run
        for run in find_runs(args.out)
        if args.challenge in (None, run.challenge) and run.finished and run.scored
    ]
    return runs or [best_run(args.out, args.challenge or 1)]  # which says what there is instead


def compare(challenge, runs, args):
    """Print the table of one challenge and what follows from it."""
    from eeg.score.sides import flattered, scored_side, title

    cache, rows = scored_side(args.cache, challenge, args.release, args.mini)
    answers, left_out = predictions(runs, cache, rows, args)
    runs = [run for run in runs if run.name in answers]
    order = print_table(runs, answers, cache, rows, title(cache, rows), args.cache)
    for reason in left_out:
        print(f"  left out: {reason}", flush=True)
    if note := flattered(runs, cache, rows):
        print(f"  note: {note}")
    print_verdicts(order, runs, answers, cache, rows, args.cache)
    if args.promote:
        promote_best(runs, answers, cache, rows, args.out)
    print(flush=True)


def predictions(runs, cache, rows, args):
    """({name: answers (N,)} of runs and ensemble, why others are left out).

    Raises UserError where no run can be compared.
    """
    from eeg.score.ensemble import combine_runs, wanted
    from eeg.score.predict import part_of, predict_run
    from eeg.score.sides import check_fitting, check_side

    of, found, left_out = wanted(args.ensemble), {}, []
    with cli.Progress("windows") as progress:
        for i, run in enumerate(runs):
            part = part_of(progress, i, len(runs))
            try:
                check_side(run, cache, rows)
                found[run] = predict_run(run, cache, rows, of=of, progress=part)
            except UserError as e:
                left_out.append(e if run.name in str(e) else UserError(f"{run.name}: {e}"))
    if not found:
        raise left_out[0]
    answers = {run.name: p[:, 0] for run, p in found.items()}
    if args.ensemble:
        members = list(found)
        check_fitting(args.ensemble, members, cache, rows)
        try:
            p, words = combine_runs(args.ensemble, members, list(found.values()), args.cache, of=of)
            answers[f"ensemble: {words}"] = p
        except UserError as e:
            left_out.append(f"the ensemble: {e}")
    return answers, left_out


def print_table(runs, answers, cache, rows, title, folder):
    """Print what was compared, best first. -> the names in this order"""
    from eeg.runs.differences import differences
    from eeg.score.metrics import nrmse
    from eeg.score.scores import aligned, score

    y, subjects = cache.y[rows], cache.metadata["subject"][rows]
    order = sorted(answers, key=lambda name: nrmse(y, answers[name]))
    differing = {run.name: words for run, words in zip(runs, differences(runs))}
    named = {run.name: run for run in runs}
    lines = []
    for name in order:
        line = [name, "", str(score(y, answers[name], subjects))]
        if name in named:
            line = [*line, *about(named[name], folder), differing[name]]
            line[1] = named[name].config["model"]["name"]
        lines.append(line)
    print(title)
    print(aligned([HEADER, *lines]), flush=True)
    return order


def about(run, folder):
    """A run's validation score, parameters, training time and device.

    Its validation windows are predicted again, for the interval. Where they are not cached, the
    NRMSE of the training stands alone.
    """
    from eeg.score.predict import load_model, predict_validation
    from eeg.score.scores import score
    from eeg.score.sides import side

    try:
        cache, rows = side(folder, [run], "valid")
        p = predict_validation(run, cache, rows)
    except UserError:  # the windows, or a hybrid's features of them, are not there
        valid = f"{run.best[1]:.5f} (not cached)"
    else:
        valid = str(score(cache.y[rows], p, cache.metadata["subject"][rows]))
    parameters = sum(weight.numel() for weight in load_model(run.weights).parameters())
    minutes, seconds = divmod(round(sum(epoch["seconds"] for epoch in run.timing["epochs"])), 60)
    return [valid, f"{parameters:,}", f"{minutes}:{seconds:02}", str(run.config.get("device", ""))]


def print_verdicts(order, runs, answers, cache, rows, folder):
    """Print whether the best is better than the second, an ensemble, and labels alone."""
    from eeg.data.windows import TARGETS
    from eeg.score.baselines import TRAINING_MEAN, label_only
    from eeg.score.metrics import nrmse
    from eeg.score.scores import verdict

    y, metadata, best = cache.y[rows], cache.metadata[rows], order[0]
    names = {run.name for run in runs}
    others = {name: answers[name] for name in order[1:] if name == order[1] or name not in names}
    alone = label_only(folder, runs, TARGETS[cache.challenge], metadata, y)
    if alone:
        least = min(alone, key=lambda name: nrmse(y, alone[name]))
        others |= {name: alone[name] for name in (TRAINING_MEAN, least)}
    for name, p in others.items():
        print(f"  {verdict(best, answers[best], name, p, y, metadata['subject'])[1]}")


def promote_best(runs, answers, cache, rows, out):
    """Promote the run with the lowest validation NRMSE, unless the test windows veto it.

    The promoted run takes part, and wins where it is equal.
    """
    from eeg.runs.choice import competing, left_out, validation
    from eeg.runs.promoted import promote, promoted_folder
    from eeg.runs.run import Run
    from eeg.score.metrics import nrmse
    from eeg.score.sides import releases_of

    runs, folder = [run for run in runs if run.best[0]], promoted_folder(out, cache.challenge)
    if not runs:
        print("  nothing is promoted: none of these runs has a validation NRMSE")
        return
    now = Run(folder) if folder.exists() else None
    among, others = competing([now, *runs] if now else runs)
    if shown := [run for run in others if run is not now]:
        print(f"  {left_out(among, shown)}")
    if now in others:
        print(
            f"  the promoted run was validated on {validation(now)}, "
            "so its validation NRMSE is left out, too"
        )
    best = min(among, key=lambda run: run.best[1])
    words = f"{best.best[1]:.5f} on {validation(best)}"
    if best is now:
        print(f"  the promoted run has the lowest validation NRMSE, {words}; {folder}/ is kept")
        return
    print(f"  lowest validation NRMSE: {best.name}, {words}")
    if now and vetoed(best, answers[best.name], now, cache, rows):
        print(f"  {folder}/ is kept")
        return
    note = {
        "valid_nrmse": best.best[1],
        "validated_on": validation(best),
        "releases": releases_of(cache, rows),
        "nrmse": nrmse(cache.y[rows], answers[best.name]),
    }
    print(f"  promoted {best.name} to {promote(best, out, note)}/")


def vetoed(run, p, now, cache, rows):
    """Print whether a run is worse than the promoted one on the test windows. -> whether it is"""
    from eeg.score.predict import predict_run
    from eeg.score.scores import verdict
    from eeg.score.sides import check_side

    check_side(now, cache, rows)
    q, y = predict_run(now, cache, rows)[:, 0], cache.y[rows]
    subjects = cache.metadata["subject"][rows]
    worse, _ = verdict("the promoted run", q, run.name, p, y, subjects)
    sentence = verdict(run.name, p, "the promoted run", q, y, subjects)[1]
    print(f"  the test releases {'veto it' if worse else 'do not veto it'}: {sentence}")
    return worse


if __name__ == "__main__":
    cli.run(main)
