"""submission.zip for the competition's server, checked: unpacked alone, run by a fresh interpreter, compared with the runs.

python run/submit.py                                      the best finished run of each challenge
python run/submit.py c1_tcn/20261121_101500               this one, and the best of the other challenge
python run/submit.py c1_tcn/20261121..20261123 c1_unet    several of a challenge are averaged
python run/submit.py c1_tcn --seed 0 1 2                  those trained with these seeds
python run/submit.py --constant 2                         the mean of the training labels stands in for challenge 2
python run/submit.py --check submission.zip               the check alone, of a zip that is there
"""

from pathlib import Path

from eeg import UserError, cli, hints

OTHER_WINDOWS = 10_000  # of which the time is told


def arguments():
    p = cli.parser(__doc__)
    cli.add_runs(p, "the best finished run of each challenge, by validation")
    p.add_argument(
        "--zip",
        type=Path,
        default=Path("submission.zip"),
        metavar="FILE",
        help="what to write (default: submission.zip)",
    )
    p.add_argument(
        "--constant",
        type=cli.challenge,
        metavar="{1,2}",
        action="append",
        default=[],
        help="answer this challenge with the mean of its cached training labels",
    )
    p.add_argument(
        "--anyway",
        action="store_true",
        help="submit a model that does not beat the mean of its training labels on its validation subjects, or that was trained on simulated data",
    )
    p.add_argument("--check", type=Path, metavar="FILE", help="write nothing: check this zip")
    args = p.parse_args()
    cli.check_chosen(p, args)
    if args.check and (args.runs or args.constant):
        p.error("--check looks at a zip that is there: it takes neither RUN nor --constant")
    if args.zip.suffix != ".zip" or args.zip.is_dir():
        p.error(f"--zip {args.zip}: name a .zip file")
    return args


def main():
    args = arguments()
    from eeg.files import check_writable, publishing
    from eeg.score.submission import check, constant_entry, doubts, entry, write_zip

    if args.check:
        tell(check(args.check), args.check)
        return
    check_writable(args.zip, "--zip FILE")
    runs = choose(args)
    entries, reasons = {}, []
    for challenge, chosen in runs.items():
        if chosen:
            entries[challenge] = entry(chosen)
            describe(challenge, chosen, entries[challenge])
            reasons += [reason for run in chosen for reason in doubts(run)]
        else:
            entries[challenge], whose, simulated = constant_entry(args.cache, challenge)
            print(
                f"challenge {challenge}  no model: every window is answered {entries[challenge].constant:.4f}, the mean of {whose}",
                flush=True,
            )
            reasons += [
                f"the constant of challenge {challenge} is the mean of simulated labels"
            ] * simulated
    if reasons and not args.anyway:
        raise UserError(
            f"{args.zip} is not written: {'; '.join(reasons)}; to write it all the same, add --anyway"
        )
    for reason in reasons:
        print(f"warning: {reason}", flush=True)
    with publishing(args.zip) as partial:
        write_zip(partial, entries)
        checked = check(partial, entries)
    tell(checked, args.zip)


def describe(challenge, runs, entry):
    """Print what each model is, and what it scores on its validation subjects beside the mean of its training labels."""
    for run, model in zip(runs, entry.models.values()):
        epoch, nrmse = run.best
        simulated = " (simulated)" * bool(run.config.get("simulated"))
        parameters = sum(p.numel() for p in model.parameters())
        print(
            f"challenge {challenge}  {run.name}, epoch {epoch}: {model.settings['name']}, {cli.counted(parameters, 'parameter')}"
        )
        print(
            f"             validation NRMSE {nrmse:.5f}, the mean of its training labels {run.mean_predictor:.5f}{simulated}",
            flush=True,
        )
    if len(runs) > 1:
        print(f"             the average of these {len(runs)}")


def choose(args):
    """-> {1: runs, 2: runs}, none where a constant stands in. What was not named is the best finished run."""
    from eeg.runs.choice import best_run, choose_runs

    chosen = choose_runs(args.out, args.runs, args.seed)
    runs, missing = {}, []
    for challenge in (1, 2):
        runs[challenge] = [run for run in chosen if run.challenge == challenge]
        if challenge in args.constant:
            if runs[challenge]:
                raise UserError(
                    f"{runs[challenge][0].name} is a run of challenge {challenge}, and --constant {challenge} was asked for: name one of them"
                )
        elif not runs[challenge]:
            try:
                runs[challenge] = [best_run(args.out, challenge)]
            except UserError as e:
                missing.append((challenge, e))
    if len(missing) == 2:
        raise UserError(f"there is nothing to submit: {missing[0][1]}")
    for challenge, reason in missing:
        raise UserError(
            f"a submission answers both challenges, and there is none for challenge {challenge}: {reason}; or let a constant stand in with: {hints.this('submit', '--constant', challenge)}"
        )
    return runs


def tell(checked, path):
    from eeg.machine.device import cpu_cores
    from eeg.machine.load import is_busy

    print(
        "checked      unpacked alone, in a fresh interpreter: batches of 1 and 64 windows in volts"
        + (
            f"; answers differ from the runs' by at most {max(checked.differences.values()):.1g} standard deviations"
            if checked.differences
            else ""
        )
    )
    seconds = sum(checked.seconds.values())
    parts = " + ".join(f"{1e3 * s:.1f}" for s in checked.seconds.values())
    print(f"size         {checked.size / 1e6:.2f} MB, {cli.counted(checked.files, 'file')}")
    print(
        f"server       {parts} ms for a window of each challenge, one at a time on this CPU: {OTHER_WINDOWS * seconds / 60:.1f} minutes for {OTHER_WINDOWS:,} of each; peak memory {checked.memory / 1e6:.0f} MB"
    )
    if is_busy(checked.busy, cores := cpu_cores()):
        print(
            f"             measured while other programs kept {checked.busy:.1f} of {cores} cores busy: on a machine of its own it takes less time"
        )
    print("             (the rules say one GPU with 20 GB; of a time limit they say nothing)")
    print(path)


if __name__ == "__main__":
    cli.run(main)
