"""A night's work: caches, features, a network with and without neuroscience features, which is better, and a submission.

    python run/overnight.py --release R1 R2 R3 R4 --tmux                in a session of its own
    python run/overnight.py --release R1 R2 --challenge 1               one challenge, in half the time
    python run/overnight.py --release R1 --epochs 20 --batch-size 64    what is not known here goes to run/train.py

For each challenge it trains cnn and hybrid, which is cnn joined by the features and nothing else, compares them on R6 and R7, and
promotes the one that is better by validation, unless R6 and R7 veto it. A submission answers both challenges, so both are the default; with one of them, the best run of the
other that is there takes part. R5, on which runs are validated, and R6 and R7 take part where they are on disk.

Started again with the same releases it resumes: what is up to date and what is trained is kept.
"""

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from eeg import UserError, cli, hints

HERE = Path(__file__).resolve().parent
MODELS = {"cnn": "without features", "hybrid": "with features"}
DECIDED = (
    "--model",
    "--features",
    "--name",
    "--train",
    "--valid",
    "--target",
    "--cv",
    "--resume",
    "--list-models",
)  # here, and not by the user


def arguments():
    p = cli.parser(__doc__)
    cli.add_release(p, "releases to train on", required=True)
    cli.add_mini(p)
    p.add_argument(
        "--challenge",
        nargs="+",
        type=cli.challenge,
        default=[1, 2],
        metavar="{1,2}",
        help="(default: both)",
    )
    cli.add_out(p)
    p.add_argument(
        "--zip",
        type=Path,
        default=Path("submission.zip"),
        metavar="FILE",
        help="the submission (default: submission.zip)",
    )
    p.add_argument(
        "--anyway",
        action="store_true",
        help="submit models trained on simulated data, or no better than the mean of the training labels",
    )
    p.add_argument(
        "--tmux",
        action="store_true",
        help="do the same in a detached tmux session, and say how to attach",
    )
    args, args.further = p.parse_known_args()
    args.release, args.challenge = list(dict.fromkeys(args.release)), sorted(set(args.challenge))
    check_further(p, args)
    return args


def check_further(p, args):
    """A mistake among the options for run/train.py shows now, not in the middle of the night."""
    from train import arguments as of_training

    if decided := [word for word in args.further if word.split("=")[0] in DECIDED]:
        p.error(
            f"{decided[0]} is not yours to choose here: the night trains {' and '.join(MODELS)} on --release"
        )
    for challenge in args.challenge:
        of_training(["--challenge", str(challenge), *args.further])


def main():
    args = arguments()
    if simulated := [name for name in on_disk(args.release, args) if is_simulated(name, args)]:
        if not args.anyway:
            raise UserError(
                f"{', '.join(simulated)} is simulated, and a submission trained on it is worth nothing; for a trial run of the night add --anyway"
            )
    if args.tmux:
        from eeg.runs.tmux import start

        print(
            start(
                "overnight",
                [
                    sys.executable,
                    HERE / "overnight.py",
                    *(word for word in sys.argv[1:] if word != "--tmux"),
                ],
                args.out,
            )
        )
        return
    began = time.monotonic()
    for number, (what, command) in enumerate(stages(args), 1):
        print(f"\n[{number}] {what}: {shlex.join(command)}", flush=True)
        start, (code, stopped) = time.monotonic(), run(command)
        if stopped:
            print(f"stopped in stage {number}, {what}; the same command resumes there")
            return
        if code:
            raise UserError(
                f"stage {number}, {what}, ended with exit code {code}, its reason stands above; when that is solved, the same command resumes there"
            )
        print(f"[{number}] {what}: {(time.monotonic() - start) / 60:.1f} min", flush=True)
    print(f"\nthe night's work is done, in {(time.monotonic() - began) / 60:.1f} min", flush=True)


def stages(args):
    """What is to be done, each asked for when the one before has ended: (what, command)."""
    valid, test = on_disk(["R5"], args), on_disk(["R6", "R7"], args)
    valid, test = ([name for name in names if name not in args.release] for names in (valid, test))
    everything = [*args.release, *valid, *test]
    for challenge in args.challenge:
        common = shared_options(args, challenge)
        yield f"caches of challenge {challenge}", script("cache", "--release", *everything, *common)
        if (
            challenge == 1
        ):  # where the hybrid takes them from; in challenge 2 a window is cut at random, and its features are computed
            yield "features", script("features", "--release", *everything, *common)
        names = {model: run_name(challenge, model, args) for model in MODELS}
        for model, name in names.items():
            if not trained(name, args):
                sides = ["--train", *args.release, *(["--valid", *valid] if valid else [])]
                features = ["--features", "layer"] if (challenge, model) == (2, "hybrid") else []
                out = ["--out", str(args.out), "--resume"]
                yield (
                    f"{model}, {MODELS[model]}",
                    script(
                        "train",
                        "--model",
                        model,
                        *features,
                        "--name",
                        name,
                        *sides,
                        *common,
                        *out,
                        *args.further,
                    ),
                )
                if not trained(name, args):
                    raise UserError(
                        f"{model} has stopped before its end, its reason stands above; the same command resumes it"
                    )
            print(f"{model} is trained: {args.out / name}", flush=True)
        if test:
            yield (
                f"comparison of challenge {challenge}",
                script("compare", *names.values(), "--promote", *common, "--out", str(args.out)),
            )
        else:
            print(
                f"no comparison: neither R6 nor R7 is on disk; get one, or simulate one with: {hints.command('synth', '--release', 'R6')}",
                flush=True,
            )
    yield from submission(args)


def submission(args):
    """The stage that writes the zip. What is missing for it is said."""
    runs = {challenge: best(challenge, args) for challenge in (1, 2)}
    places = [
        "--data",
        str(args.data),
        "--cache",
        str(args.cache),
        "--out",
        str(args.out),
        "--zip",
        str(args.zip),
        *["--anyway"] * args.anyway,
    ]
    named = [str(run) for run in runs.values() if run]
    if missing := [challenge for challenge, run in runs.items() if not run]:
        more = [] if args.zip == Path("submission.zip") else ["--zip", args.zip]
        command = hints.command(
            "submit", *named, *more, *["--anyway"] * args.anyway, "--constant", missing[0]
        )
        print(
            f"no submission: it answers both challenges, and there is no finished run of challenge {missing[0]}; let a constant stand in with: {command}",
            flush=True,
        )
        return
    yield "submission", script("submit", *named, *places)


def best(challenge, args):
    """The folder of the promoted run; where there is none, of the better one of the night's runs, or of all runs, by validation. None where nothing has finished."""
    from eeg.runs.choice import best_run, choose_runs
    from eeg.score.finished import promoted_folder

    promoted = promoted_folder(args.out, challenge)
    if promoted.exists():
        return promoted
    try:
        if challenge in args.challenge:
            runs = choose_runs(
                args.out, [run_name(challenge, model, args) for model in MODELS], several=True
            )
            return min(runs, key=lambda run: run.best[1]).folder
        return best_run(args.out, challenge).folder
    except UserError:
        return None


def run_name(challenge, model, args):
    return f"overnight_c{challenge}_{'_'.join(args.release)}{'_mini' * args.mini}_{model}"


def shared_options(args, challenge):
    return [
        "--challenge",
        str(challenge),
        "--data",
        str(args.data),
        "--cache",
        str(args.cache),
        *["--mini"] * args.mini,
    ]


def on_disk(releases, args):
    from eeg.data.release import folder_names

    return [
        name
        for name in releases
        if any((args.data / folder).is_dir() for folder in folder_names(name, args.mini))
    ]


def is_simulated(name, args):
    from eeg.data.release import find_release

    return find_release(name, args.data, args.mini).simulated


def trained(name, args):
    """Whether the runs of this name, one a seed, have finished."""
    from eeg.runs.run import find_runs

    runs = [run for run in find_runs(args.out) if run.folder.parent.name == name]
    return bool(runs) and all(run.finished for run in runs)


def script(name, *words):
    return [sys.executable, str(HERE / f"{name}.py"), *words]


def run(command):
    """-> (exit code, whether somebody has asked to stop). A stage that is asked to stop saves what it has; this waits for it."""
    asked, child = [], None

    def on_signal(number, frame):
        asked.append(number)
        if child and number != signal.SIGINT:  # which the terminal sends to both
            child.send_signal(number)

    handlers = {
        number: signal.signal(number, on_signal)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        child = subprocess.Popen(command)
        return child.wait(), bool(asked)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    cli.run(main)
