"""Do a night's work: caches, features, training with and without features, and a submission.

    python run/overnight.py --release R1 R2 R3 R4 --tmux                in its own tmux session
    python run/overnight.py --release R1 R2 --challenge 1               one challenge, half the time
    python run/overnight.py --release R1 --epochs 20 --batch-size 64    passes options to train.py

For each challenge it trains cnn and hybrid, which is cnn plus the neuroscience features. It
compares the two on R6 and R7 and promotes the one that validates better, unless it is worse on R6
and R7 than the one promoted before. A submission answers both challenges, so both are trained by
default; with only one, the best existing run of the other is submitted with it. R5 (for
validation), R6 and R7 are used if they are on disk.

Started again with the same releases, it resumes; complete caches and runs are kept.
"""

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from eeg import UserError, cli, hints
from eeg.data.release import find_release, folder_names
from eeg.runs.choice import best_run, choose_runs
from eeg.runs.promoted import promoted_folder
from eeg.runs.run import find_runs
from eeg.runs.tmux import detach

HERE = Path(__file__).resolve().parent
MODELS = {"cnn": "without features", "hybrid": "with features"}
# Options of run/train.py that are set here, not by the user
DECIDED = "--model --features --name --train --valid --target --cv --resume --list-models".split()


def arguments():
    p = cli.parser(__doc__)
    cli.add_release(p, "releases to train on", required=True)
    cli.add_mini(p)
    numbers = {"nargs": "+", "type": cli.challenge, "metavar": "{1,2}", "default": [1, 2]}
    p.add_argument("--challenge", help="challenges to train for (default: both)", **numbers)
    cli.add_exclude(p)
    cli.add_out(p)
    help = "file to write (default: submission.zip)"
    p.add_argument("--zip", type=Path, default=Path("submission.zip"), metavar="FILE", help=help)
    poor = "models trained on simulated data, or no better than the mean of the training labels"
    p.add_argument("--anyway", action="store_true", help=f"submit even {poor}")
    cli.add_tmux(p)
    args, args.further = p.parse_known_args()
    args.release, args.challenge = list(dict.fromkeys(args.release)), sorted(set(args.challenge))
    check_further(p, args)
    return args


def check_further(p, args):
    """Find mistakes in the options for run/train.py now, not in the middle of the night."""
    from train import arguments as train_arguments

    if decided := [word for word in args.further if word.split("=")[0] in DECIDED]:
        what = f"trains {' and '.join(MODELS)} on the releases of --release"
        p.error(f"{decided[0]} cannot be chosen here: run/overnight.py {what}")
    for challenge in args.challenge:
        train_arguments(["--challenge", str(challenge), *args.further])


def main():
    args = arguments()
    found = [find_release(name, args.data, args.mini) for name in on_disk(args.release, args)]
    simulated = [release.name for release in found if release.simulated]
    if simulated and not args.anyway:
        worthless = "a submission trained on it is worth nothing; for a trial run add --anyway"
        raise UserError(f"{', '.join(simulated)} is simulated, and {worthless}")
    if args.tmux:
        return print(detach("overnight", args.out))
    began = time.monotonic()
    for number, (what, command) in enumerate(stages(args), 1):
        print(f"\n[{number}] {what}: {shlex.join(command)}", flush=True)
        start, (code, stopped) = time.monotonic(), run(command)
        if stopped:
            return print(f"stopped in stage {number}, {what}; the same command resumes there")
        if code:
            failed = f"stage {number}, {what}, ended with exit code {code}, its reason stands above"
            raise UserError(f"{failed}; when that is solved, the same command resumes there")
        print(f"[{number}] {what}: {(time.monotonic() - start) / 60:.1f} min", flush=True)
    print(f"\nall stages are done, in {(time.monotonic() - began) / 60:.1f} min", flush=True)


def stages(args):
    """Yields (what, command) of each stage, when the one before has ended."""
    others = [name for name in on_disk(["R5", "R6", "R7"], args) if name not in args.release]
    valid, test = [n for n in others if n == "R5"], [n for n in others if n != "R5"]
    releases = ["--release", *args.release, *others]
    for challenge in args.challenge:
        common = shared_options(args, challenge)
        without = ["--exclude", str(args.exclude)] if args.exclude else []
        yield f"caches of challenge {challenge}", script("cache", *releases, *common, *without)
        # In challenge 2 a window is cut at random, so the hybrid computes its features
        if challenge == 1:
            yield "features", script("features", *releases, *common)
        names = {model: run_name(challenge, model, args) for model in MODELS}
        for model, name in names.items():
            yield from training(challenge, model, name, valid, args)
        if test:
            words = [*names.values(), "--promote", *common, "--out", str(args.out)]
            yield f"comparison of challenge {challenge}", script("compare", *words)
        else:
            simulate = hints.command("synth", "--release", "R6")
            missing = "neither R6 nor R7 is on disk; get one, or simulate one with"
            print(f"no comparison: {missing}: {simulate}", flush=True)
    yield from submission(args)


def training(challenge, model, name, valid, args):
    """The stage that trains a model, where it is not trained yet."""
    if not trained(name, args):
        features = ["--features", "layer"] if (challenge, model) == (2, "hybrid") else []
        words = ["--model", model, *features, "--name", name, "--train", *args.release]
        words += ["--valid", *valid] if valid else []
        words += [*shared_options(args, challenge), "--out", str(args.out), "--resume"]
        yield f"{model}, {MODELS[model]}", script("train", *words, *args.further)
        if not trained(name, args):
            stopped = f"{model} has stopped before its end, its reason stands above"
            raise UserError(f"{stopped}; the same command resumes it")
    print(f"{model} is trained: {args.out / name}", flush=True)


def submission(args):
    """The stage that writes the zip. Prints what is missing for it."""
    runs = {challenge: best(challenge, args) for challenge in (1, 2)}
    named = [str(run) for run in runs.values() if run]
    anyway = ["--anyway"] * args.anyway
    if missing := [challenge for challenge, run in runs.items() if not run]:
        words = [] if args.zip == Path("submission.zip") else ["--zip", args.zip]
        words += [*anyway, "--constant", missing[0]]
        why = f"it answers both challenges, and there is no finished run of challenge {missing[0]}"
        constant = hints.command("submit", *named, *words)
        print(f"no submission: {why}; let a constant stand in with: {constant}", flush=True)
        return
    places = ["--data", args.data, "--cache", args.cache, "--out", args.out, "--zip", args.zip]
    yield "submission", script("submit", *named, *map(str, places), *anyway)


def best(challenge, args):
    """The folder of the run to submit, None where nothing has finished: the promoted run, else the
    best by validation of this command's runs, or of all runs if it does not train the challenge."""
    promoted = promoted_folder(args.out, challenge)
    if promoted.exists():
        return promoted
    try:
        if challenge in args.challenge:
            names = [run_name(challenge, model, args) for model in MODELS]
            runs = choose_runs(args.out, names, several=True)
            return min(runs, key=lambda run: run.best[1]).folder
        return best_run(args.out, challenge).folder
    except UserError:
        return None


def run_name(challenge, model, args):
    return f"overnight_c{challenge}_{'_'.join(args.release)}{'_mini' * args.mini}_{model}"


def shared_options(args, challenge):
    words = ["--challenge", challenge, "--data", args.data, "--cache", args.cache]
    return [*map(str, words), *["--mini"] * args.mini]


def on_disk(releases, args):
    there = lambda name: [f for f in folder_names(name, args.mini) if (args.data / f).is_dir()]
    return [name for name in releases if there(name)]


def trained(name, args):
    """Whether the runs of this name, one a seed, have finished."""
    runs = [run for run in find_runs(args.out) if run.folder.parent.name == name]
    return bool(runs) and all(run.finished for run in runs)


def script(name, *words):
    return [sys.executable, str(HERE / f"{name}.py"), *words]


def run(command):
    """-> (exit code, whether a stop was asked for). Waits until a stopped stage has saved."""
    asked, child = [], None

    def on_signal(number, frame):
        asked.append(number)
        if child and number != signal.SIGINT:  # which the terminal sends to both
            child.send_signal(number)

    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    handlers = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        child = subprocess.Popen(command)
        return child.wait(), bool(asked)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    cli.run(main)
