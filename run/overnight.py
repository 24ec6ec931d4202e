"""A night's work, one stage after another: caches, features, a baseline (tcn), the hybrid, and which of the two is better.

    python run/overnight.py --release R1 R2 R3 R4 --tmux                in a session of its own
    python run/overnight.py --release R1 --epochs 20 --batch-size 64    what is not known here goes to run/train.py

R5, on which runs are validated, and R6 and R7, on which they are compared, take part where they are on disk. Started again
with the same releases it goes on where it was: what is up to date is kept, so is a run that has finished, and one that has not is resumed.
"""

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from eeg import UserError, cli

HERE = Path(__file__).resolve().parent
MODELS = ("tcn", "hybrid")


def arguments():
    p = cli.parser(__doc__)
    p.add_argument("--release", nargs="+", required=True, type=cli.release, metavar="R", help="releases to train on")
    p.add_argument("--mini", action="store_true", help="the mini releases (20 subjects)")
    p.add_argument("--challenge", type=cli.challenge, metavar="{1,2}", default=1)
    p.add_argument("--out", type=Path, default=Path("experiments"), metavar="DIR", help="where runs live (default: experiments/)")
    p.add_argument("--tmux", action="store_true", help="do the same in a detached tmux session, and say how to attach")
    args, args.further = p.parse_known_args()
    args.release = list(dict.fromkeys(args.release))
    return args


def main():
    args = arguments()
    if args.tmux:
        from eeg.train.tmux import start

        print(start("overnight", [sys.executable, HERE / "overnight.py", *(word for word in sys.argv[1:] if word != "--tmux")], args.out))
        return
    for number, (what, command) in enumerate(stages(args), 1):
        print(f"\n[{number}] {what}: {shlex.join(command)}", flush=True)
        start, (code, stopped) = time.monotonic(), run(command)
        if stopped:
            print(f"stopped in stage {number}, {what}; the same command goes on from there")
            return
        if code:
            raise UserError(f"stage {number}, {what}, ended with exit code {code}, its reason stands above; when it is put right the same command goes on from there")
        print(f"[{number}] {what}: {(time.monotonic() - start) / 60:.1f} min", flush=True)


def stages(args):
    """What is to be done, each asked for when the one before has ended: (what, command)."""
    valid, test = on_disk(["R5"], args), on_disk(["R6", "R7"], args)
    everything = list(dict.fromkeys([*args.release, *valid, *test]))
    common = ["--challenge", str(args.challenge), "--data", str(args.data), "--cache", str(args.cache), *(["--mini"] if args.mini else [])]
    yield "caches", script("cache", "--release", *everything, *common)
    yield "features", script("features", "--release", *everything, *common)
    names = {model: f"overnight_c{args.challenge}_{'_'.join(args.release)}{'_mini' if args.mini else ''}_{model}" for model in MODELS}
    for model, name in names.items():
        if not trained(name, args):
            sides = ["--train", *args.release, *(["--valid", *valid] if valid else [])]
            yield model, script("train", "--model", model, "--name", name, *sides, *common, "--out", str(args.out), "--resume", *args.further)
            if not trained(name, args):
                raise UserError(f"{model} has stopped before its end, its reason stands above; the same command goes on with it")
        print(f"{model} is trained: {args.out / name}", flush=True)
    if test:
        yield "comparison", script("compare", *names.values(), *common, "--out", str(args.out))
    else:
        print("no comparison: neither R6 nor R7 is on disk; get one with: python run/download.py --release R6")


def on_disk(releases, args):
    from eeg.data.release import folder_names

    return [name for name in releases if name not in args.release and any((args.data / folder).is_dir() for folder in folder_names(name, args.mini))]


def trained(name, args):
    from eeg.train.runs import find_runs

    return any(run.finished for run in find_runs(args.out) if run.folder.parent.name == name)


def script(name, *words):
    return [sys.executable, str(HERE / f"{name}.py"), *words]


def run(command):
    """-> (exit code, whether somebody has asked to stop). A stage that is asked to stop saves what it has; this waits for it."""
    asked, child = [], None

    def on_signal(number, frame):
        asked.append(number)
        if child and number != signal.SIGINT:  # which the terminal sends to both
            child.send_signal(number)

    handlers = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        child = subprocess.Popen(command)
        return child.wait(), bool(asked)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    cli.run(main)
