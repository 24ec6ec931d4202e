"""Which run is better, and whether any knows more than chance: runs side by side on the same test windows.

    python run/compare.py                                   all finished runs, challenge by challenge, on R6 and R7
    python run/compare.py c1_tcn c1_eegnex/20261121_101500  some: a name stands for all its finished runs
    python run/compare.py c1_tcn --seed 0 1 2               the runs of a name with these seeds, without folds of --cv
    python run/compare.py c1_tcn/20261121..20261123         those begun in these days
    python run/compare.py c1_tcn --ensemble average         the runs, and their average as one more
    python run/compare.py --promote                         the best by validation becomes the promoted run of its challenge

The best two are compared on the same subjects: what counts is whether 0 lies within the 95 % interval of the difference of their
NRMSE. With fewer than 10 subjects nothing is called better or worse. (The best of many runs is partly the luckiest on these
windows: on others expect a little less of it.)

--promote chooses by validation NRMSE, among runs validated on the same subjects. The test releases can only veto: a run that is
worse on them than the promoted one does not replace it. So they stay what they are for, windows on which nothing was chosen.
The promoted run lies in experiments/promoted_challenge_1/ (or 2), which every command takes as a RUN.
"""

from collections import Counter

from eeg import UserError, cli

COLUMNS = (
    "name",
    "model",
    "normalize",
    "features",
    "aux",
    "set",
    "target",
    "cache",
    "device",
    "cv",
    "loss",
)  # settings of a run that another column shows, or its model's
SWITCHES = {
    "balance": ("subjects drawn equally often", "windows drawn equally often"),
    "keep_copies": ("copies kept", "copies left out"),
    "keep_bad": ("bad subjects kept", "bad subjects left out"),
    "mini": ("mini releases", "full releases"),
}


def arguments():
    p = cli.parser(__doc__)
    cli.add_runs(p, "all finished runs; here a name stands for all of its finished runs")
    p.add_argument("--challenge", type=cli.challenge, metavar="{1,2}")
    cli.add_release(p, "test releases (default: what is cached of R6 and R7)")
    cli.add_mini(p)
    p.add_argument(
        "--ensemble",
        choices=("average", "weights", "stack"),
        help="add the runs as one: their average; non-negative weights; a ridge on their answers and time-head statistics. The last two are fitted on validation subjects, and refused where those would be scored",
    )
    p.add_argument(
        "--promote",
        action="store_true",
        help="make the best run by validation the promoted one of its challenge, unless it is worse than the promoted one on the test releases",
    )
    args = p.parse_args()
    cli.check_chosen(p, args)
    if args.promote and args.ensemble:
        p.error(
            "--promote takes a single run, an ensemble has no weights of its own: give --promote or --ensemble"
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
        runs = choose_runs(args.out, args.runs, args.seed, several=True)
        for run in runs:
            if args.challenge not in (None, run.challenge):
                raise UserError(
                    f"{run.name} is a run of challenge {run.challenge}, not {args.challenge}; leave --challenge {args.challenge} out, or name other runs"
                )
        return runs
    runs = [
        run
        for run in find_runs(args.out)
        if args.challenge in (None, run.challenge) and run.finished and run.scored
    ]
    return runs or [best_run(args.out, args.challenge or 1)]  # which says what there is instead


def compare(challenge, runs, args):
    """Print the table of one challenge and what follows from it."""
    from eeg.score.baselines import baselines
    from eeg.score.ensemble import combine_runs, wanted
    from eeg.score.finished import predict_run
    from eeg.score.metrics import nrmse
    from eeg.score.sides import check_fitting, check_side, flattered, scored_side, side
    from eeg.score.verdict import verdict

    cache, rows = scored_side(args.cache, challenge, args.release, args.mini)
    y, subjects, how = cache.y[rows], cache.metadata["subject"][rows], {"of": wanted(args.ensemble)}
    said, left_out = {}, []
    with cli.Progress("windows") as progress:
        for i, run in enumerate(runs):
            try:
                check_side(run, cache, rows)
                said[run] = predict_run(
                    run,
                    cache,
                    rows,
                    **how,
                    progress=lambda done, n, i=i: progress(i * n + done, len(runs) * n),
                )
            except UserError as e:
                left_out.append(e if run.name in str(e) else UserError(f"{run.name}: {e}"))
        if not said:
            raise left_out[0]
        runs, answers = list(said), {run.name: p[:, 0] for run, p in said.items()}
        if args.ensemble:
            check_fitting(args.ensemble, runs, cache, rows)
            try:
                p, words = combine_runs(args.ensemble, runs, list(said.values()), args.cache, **how)
                answers[f"ensemble: {words}"] = p
            except UserError as e:
                left_out.append(f"the ensemble: {e}")
        lines = {
            run.name: cells(run, answers[run.name], y, subjects, args.cache, differing)
            for run, differing in zip(runs, differences(runs))
        }

    order = sorted(answers, key=lambda name: nrmse(y, answers[name]))
    releases = list(dict.fromkeys(cache.release[rows].tolist()))
    print(
        f"challenge {challenge}, {' + '.join(releases)}{' mini' * args.mini}{' (simulated)' * cache.simulated}: {cli.counted(len(y), 'window')}, {cli.counted(len(set(subjects)), 'subject')}"
    )
    header = [
        "run",
        "model",
        "test NRMSE, 95 % interval",
        "valid NRMSE, 95 % interval",
        "parameters",
        "time",
        "device",
        "differs in",
    ]
    print_table(
        [
            header,
            *(lines.get(name) or [name, "", score(y, answers[name], subjects)] for name in order),
        ]
    )
    for e in left_out:
        print(f"  left out: {e}", flush=True)
    if note := flattered(runs, cache, rows):
        print(f"  note: {note}")

    best = order[0]
    judge = lambda name, p: verdict(best, answers[best], name, p, y, subjects)
    for name in order[1:]:
        if name == order[1] or name not in lines:  # the second, and the ensemble wherever it stands
            print(f"  {judge(name, answers[name])[1]}")
    try:
        train, chosen = side(args.cache, runs, "train")
    except UserError as e:  # runs may be compared where their training windows are not
        print(f"  nothing to say of what labels alone tell: {e}")
    else:
        labels_alone = baselines(
            challenge, train.metadata[chosen], train.y[chosen], cache.metadata[rows], y
        )
        for name in dict.fromkeys(
            [
                "the mean of the training labels",
                min(labels_alone, key=lambda name: nrmse(y, labels_alone[name])),
            ]
        ):
            print(f"  {judge(name, labels_alone[name])[1]}")
    if args.promote:
        promote_best(runs, answers, cache, rows, args.out)
    print(flush=True)


def cells(run, p, y, subjects, folder, differing):
    """A run's line of the table. Its validation windows are predicted again, for the interval; where they are not cached, training's own figure stands alone."""
    from eeg.score.finished import load_model, predict_validation
    from eeg.score.sides import side

    try:
        cache, rows = side(folder, [run], "valid")
        p_valid = predict_validation(run, cache, rows)
    except UserError:  # the windows, or a hybrid's features of them
        valid = f"{run.best[1]:.5f} (not cached)"
    else:
        valid = score(cache.y[rows], p_valid, cache.metadata["subject"][rows])
    parameters = sum(weight.numel() for weight in load_model(run.weights).parameters())
    minutes, seconds = divmod(round(sum(epoch["seconds"] for epoch in run.timing["epochs"])), 60)
    return [
        run.name,
        run.config["model"]["name"],
        score(y, p, subjects),
        valid,
        f"{parameters:,}",
        f"{minutes}:{seconds:02}",
        str(run.config.get("device", "")),
        differing,
    ]


def score(y, p, subjects):
    """NRMSE with its interval; where that is not defined (one subject), why."""
    from eeg.score.metrics import interval, nrmse

    value = f"{nrmse(y, p):.5f}"
    try:
        low, high = interval(y, p, subjects)
    except UserError as e:
        return f"{value} ({e})"
    return f"{value}  {low:.3f} .. {high:.3f}"


def differences(runs):
    """For each run, in words, its settings that others have otherwise; what more than half of the runs share goes without saying."""
    settings = [settings_of(run) for run in runs]
    known = dict.fromkeys(key for own in settings for key in own)
    strengths = [key for key in known if key[0] == "augment"]
    settings = [dict.fromkeys(strengths, 0) | own for own in settings]
    counts = {key: Counter(repr(own[key]) for own in settings if key in own) for key in known}
    rare = lambda key, value: 2 * counts[key][repr(value)] <= counts[key].total()
    return [
        ", ".join(in_words(key[-1], value) for key, value in own.items() if rare(key, value))
        for own in settings
    ]


def settings_of(run):
    """{key: value} of a run: ("train", option), ("augment", name), and ("model", its name, setting), which another model need not have."""
    model, train = run.config["model"], dict(run.config["train"])
    augment, fold = train.pop("augment", {}), train.get("fold")
    if fold:
        train.pop("valid", None)  # the fold says who validates
    found = {("train", key): value for key, value in train.items() if key not in COLUMNS}
    found |= {("augment", key): value for key, value in augment.items()}
    found |= {("model", model["name"], key): value for key, value in model.items() if key != "name"}
    found |= {("model", model["name"], "loss"): run.config.get("loss")}
    return found | {("run", "precision"): run.config.get("precision")}


def in_words(key, value):
    """A setting and its value: seed 1, fold 2 of 5, train R1 R2, no mask."""
    name = key.replace("_", " ")
    if key == "fold":
        return f"fold {value[0]} of {value[1]}" if value else "no fold"
    if key == "valid" and not value:
        return "valid a fifth of the training subjects"
    if key.startswith("max_") and value is None:
        return f"all {key[4:]}"
    if isinstance(value, bool):
        return SWITCHES.get(key, (name, f"no {name}"))[not value]
    if isinstance(value, (list, tuple)):
        return f"{name} {' '.join(map(str, value))}" if value else f"no {name}"
    if isinstance(value, float):
        value = f"{value:g}"
    return f"no {name}" if value in (None, 0, "0", "none") and key != "seed" else f"{name} {value}"


def print_table(rows):
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    for row in rows:
        print(
            ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths))).rstrip(),
            flush=True,
        )


def promote_best(runs, answers, cache, rows, out):
    """Promote the run with the lowest validation NRMSE, unless the promoted one has a lower one or is better on these windows."""
    from eeg.runs.choice import competing, left_out, validation
    from eeg.runs.run import Run
    from eeg.score.finished import promote, promoted_folder
    from eeg.score.metrics import nrmse

    runs, folder = [run for run in runs if run.best[0]], promoted_folder(out, cache.challenge)
    if not runs:
        print("  nothing is promoted: none of these runs has a validation NRMSE")
        return
    now = Run(folder) if folder.exists() else None
    among, others = competing(
        [now, *runs] if now else runs
    )  # first: of equals the promoted one stays
    if shown := [run for run in others if run is not now]:
        print(f"  {left_out(among, shown)}")
    if now in others:
        print(
            f"  the promoted run was validated on {validation(now)}, so its validation NRMSE is left out, too"
        )
    best = min(among, key=lambda run: run.best[1])
    if best is now:
        print(
            f"  the promoted run has the lowest validation NRMSE, {now.best[1]:.5f} on {validation(now)}; {folder}/ stays as it is"
        )
        return
    print(f"  lowest validation NRMSE: {best.name}, {best.best[1]:.5f} on {validation(best)}")
    if now and vetoed(best, answers[best.name], now, cache, rows):
        print(f"  {folder}/ stays as it is")
        return
    y, releases = cache.y[rows], list(dict.fromkeys(cache.release[rows].tolist()))
    note = {
        "valid_nrmse": best.best[1],
        "validated_on": validation(best),
        "releases": releases,
        "nrmse": nrmse(y, answers[best.name]),
    }
    print(f"  promoted {best.name} to {promote(best, out, note)}/")


def vetoed(run, p, now, cache, rows):
    """Whether a run is worse than the promoted one on the test windows, which is printed."""
    from eeg.score.finished import predict_run
    from eeg.score.sides import check_side
    from eeg.score.verdict import verdict

    check_side(now, cache, rows)
    q, y, subjects = (
        predict_run(now, cache, rows)[:, 0],
        cache.y[rows],
        cache.metadata["subject"][rows],
    )
    worse, _ = verdict("the promoted run", q, run.name, p, y, subjects)
    sentence = verdict(run.name, p, "the promoted run", q, y, subjects)[1]
    print(f"  the test releases {'veto it' if worse else 'do not veto it'}: {sentence}")
    return worse


if __name__ == "__main__":
    cli.run(main)
