"""Write submission.zip for the competition's server, and check it.

    python run/submit.py                              the best finished run of each challenge
    python run/submit.py c1_tcn/20261121_101500       this run, and the best of the other challenge
    python run/submit.py c1_tcn/20261121..20261123 c1_unet    the average of several runs
    python run/submit.py c1_tcn --seed 0 1 2          the average of those trained with these seeds
    python run/submit.py --constant 2                 the mean of the labels for challenge 2
    python run/submit.py --smooth-in-order 20         averages challenge 2's answers, see the help
    python run/submit.py --check submission.zip       checks a zip and writes nothing

To check it, the zip is unpacked into an empty folder and run by a fresh interpreter, and its
answers are compared with the runs' own.
"""

from pathlib import Path

from eeg import UserError, cli, hints
from eeg.files import check_writable, publishing
from eeg.machine.load import is_busy
from eeg.runs.choice import best_runs, choose_runs

SERVER_WINDOWS = 10_000  # of each challenge, for which the time is estimated


def arguments():
    p = cli.parser(__doc__)
    cli.add_runs(p, "the best finished run of each challenge, by validation")
    default, help = Path("submission.zip"), "file to write (default: submission.zip)"
    p.add_argument("--zip", type=Path, default=default, metavar="FILE", help=help)
    help = "answer this challenge with the mean of its cached training labels"
    several = {"action": "append", "default": []}
    p.add_argument("--constant", type=cli.challenge, metavar="{1,2}", help=help, **several)
    help = (
        "in challenge 2, answer with the mean of the answers to this window and to the N - 1 "
        "windows that the server sent before it: this uses the order of the windows, in which "
        "those of one subject may follow each other, and nothing in the EEG (default: 1, off)"
    )
    p.add_argument("--smooth-in-order", type=cli.positive, default=1, metavar="N", help=help)
    poor = "does not beat the mean of its training labels on its validation subjects"
    help = f"submit even a model that {poor}, or that was trained on simulated data"
    p.add_argument("--anyway", action="store_true", help=help)
    p.add_argument("--check", type=Path, metavar="FILE", help="check this zip and write nothing")
    args = p.parse_args()
    cli.check_chosen(p, args)
    if args.check and (args.runs or args.constant):
        p.error("--check reads an existing zip: it takes neither RUN nor --constant")
    if args.smooth_in_order > 1 and (args.check or 2 in args.constant):
        p.error(
            "--smooth-in-order averages what a model answers in challenge 2: name no constant "
            "for it, and no zip to --check"
        )
    if args.zip.suffix != ".zip" or args.zip.is_dir():
        p.error(f"--zip {args.zip}: name a .zip file")
    return args


def main():
    args = arguments()
    from eeg.score.submission import check, write_zip

    if args.check:
        return print_check(check(args.check), args.check)
    check_writable(args.zip, "--zip FILE")
    entries, reasons = make_entries(choose(args), args.cache, args.smooth_in_order)
    if reasons and not args.anyway:
        why = "; ".join(reasons)
        raise UserError(f"{args.zip} is not written: {why}; to write it all the same, add --anyway")
    for reason in reasons:
        print(f"warning: {reason}", flush=True)
    with publishing(args.zip) as partial:  # it gets its name when it has been checked
        write_zip(partial, entries)
        checked = check(partial, entries)
    print_check(checked, args.zip)


def choose(args):
    """{1: runs, 2: runs}, none where a constant stands in. The default is the best finished run."""
    chosen = choose_runs(args.out, args.runs, args.seed)
    runs = {c: [run for run in chosen if run.challenge == c] for c in (1, 2)}
    for challenge in args.constant:
        if runs[challenge]:
            which = f"{runs[challenge][0].name} is a run of challenge {challenge}"
            raise UserError(f"{which}, and --constant {challenge} was asked for: name one of them")
    unanswered = [c for c in (1, 2) if not runs[c] and c not in args.constant]
    best, missing = best_runs(args.out, unanswered)
    if len(missing) == 2:
        raise UserError(f"there is nothing to submit: {missing[1]}")
    for challenge, reason in missing.items():
        lacks = f"a submission answers both challenges, and there is none for challenge {challenge}"
        constant = hints.this("submit", "--constant", challenge)
        raise UserError(f"{lacks}: {reason}; or let a constant stand in with: {constant}")
    return runs | {challenge: [run] for challenge, run in best.items()}


def make_entries(runs, cache_folder, smooth_in_order):
    """({1: Entry, 2: Entry}, reasons against submitting them). Prints what they are."""
    from eeg.score.submission import constant_entry, doubts, entry

    entries, reasons = {}, []
    for challenge, chosen in runs.items():
        if chosen:
            entries[challenge] = entry(chosen, smooth_in_order if challenge == 2 else 1)
            print_models(challenge, chosen, entries[challenge])
            reasons += [reason for run in chosen for reason in doubts(run)]
            continue
        entries[challenge], whose, simulated = constant_entry(cache_folder, challenge)
        answer = f"every window is answered {entries[challenge].constant:.4f}, the mean of {whose}"
        print(f"challenge {challenge}  no model: {answer}", flush=True)
        if simulated:
            reasons.append(f"the constant of challenge {challenge} is the mean of simulated labels")
    return entries, reasons


def print_models(challenge, runs, entry):
    """Print each model and its validation score beside that of the mean of its training labels."""
    for run, model in zip(runs, entry.models.values()):
        epoch, nrmse = run.best
        simulated = " (simulated)" * bool(run.config.get("simulated"))
        parameters = cli.counted(sum(p.numel() for p in model.parameters()), "parameter")
        name = f"challenge {challenge}  {run.name}, epoch {epoch}"
        print(f"{name}: {model.settings['name']}, {parameters}")
        mean = f"the mean of its training labels {run.mean_predictor:.5f}{simulated}"
        print(f"             validation NRMSE {nrmse:.5f}, {mean}", flush=True)
    if len(runs) > 1:
        print(f"             the average of these {len(runs)}")
    if (count := entry.smooth_in_order) > 1:
        print(f"             the mean over {count} windows, as the server orders them; the scores")
        print("             above, and those of run/evaluate.py, are without it")


def print_check(checked, path):
    from eeg.machine.device import cpu_cores

    line = "unpacked alone, in a fresh interpreter: batches of 1 and 64 windows in volts"
    if checked.differences:
        most = max(checked.differences.values())
        line += f"; answers differ from the runs' by at most {most:.1g} standard deviations"
    print(f"checked      {line}")
    print(f"size         {path.stat().st_size / 1e6:.2f} MB, {cli.counted(checked.files, 'file')}")
    each = " + ".join(f"{1e3 * seconds:.1f}" for seconds in checked.seconds.values())
    minutes = SERVER_WINDOWS * sum(checked.seconds.values()) / 60
    alone = f"{each} ms for a window of each challenge, one at a time on this CPU"
    whole = f"{minutes:.1f} minutes for {SERVER_WINDOWS:,} of each"
    print(f"server       {alone}: {whole}; peak memory {checked.memory_bytes / 1e6:.0f} MB")
    if is_busy(checked.busy, cores := cpu_cores()):
        kept = f"other programs kept {checked.busy:.1f} of {cores} cores busy"
        print(f"             measured while {kept}: an idle machine takes less time")
    print("             (the rules name one GPU with 20 GB and no time limit)")
    print(path)


if __name__ == "__main__":
    cli.run(main)
