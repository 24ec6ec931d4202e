"""Simulate a release in the real layout, to work without data. No person was recorded.

The same arguments give the same bytes.

    python run/synth.py --release R1 [--subjects 20] [--seed 0]
    python run/synth.py --release R1 --world easy                 learned in a minute
    python run/synth.py --release R5 --subjects 10 --tasks contrastChangeDetection RestingState
    python run/synth.py --release R1 --raw500                     EEGLAB files at 500 Hz, unfiltered
    python run/synth.py --plot synth.png [--beside FILE.set]      draws what the signals are like
"""

import textwrap
import time
from pathlib import Path

from eeg import cli


def parser():
    from eeg.synth.worlds import WORLDS  # quick to import

    worlds = "\n".join(map(shown, WORLDS.values()))
    p = cli.parser(f"{__doc__}\nworlds, which differ in what carries the labels:\n{worlds}")
    p.add_argument("--release", type=cli.release, metavar="R", help="R1 ... R12")
    p.add_argument("--mini", action="store_true", help="write it as the mini release")
    p.add_argument("--subjects", type=cli.positive, default=20, metavar="N",
                   help="simulate N subjects (default: 20)")  # fmt: skip
    p.add_argument("--runs", type=cli.positive, default=3, metavar="N",
                   help="contrast-change runs of each subject (default: 3)")  # fmt: skip
    p.add_argument("--seed", type=cli.whole, default=0, metavar="N",
                   help="the same seed gives the same bytes (default: 0)")  # fmt: skip
    p.add_argument("--world", choices=tuple(WORLDS), default="real", metavar="NAME",
                   help="what carries the labels, see above (default: real)")  # fmt: skip
    p.add_argument("--snr", type=cli.at_least_0, default=1.0, metavar="X",
                   help="scale everything that depends on a label (default: 1)")  # fmt: skip
    p.add_argument("--tasks", nargs="+", default=["contrastChangeDetection"], metavar="TASK",
                   help="tasks, or 'all' (default: contrastChangeDetection)")  # fmt: skip
    p.add_argument("--raw500", action="store_true",
                   help="as the originals: EEGLAB files at 500 Hz, with the mains")  # fmt: skip
    cli.add_jobs(p)
    p.add_argument("--force", action="store_true",
                   help="replace a release simulated with other settings")  # fmt: skip
    cli.add_plot(p, "draw the world's signals at Pz, and write no release")
    p.add_argument("--beside", type=Path, metavar="FILE.set",
                   help="with --plot, also draw a real EEGLAB recording")  # fmt: skip
    return p


def shown(world):
    """A world in a few lines of --help."""
    text = world.sentence + " [for final checks only]" * world.held_out
    name = f"  {world.name:<11} "
    return textwrap.fill(text, 100, initial_indent=name, subsequent_indent=" " * len(name))


def main():
    p = parser()
    args = p.parse_args()
    from eeg.data.release import TASKS

    tasks = TASKS if args.tasks == ["all"] else tuple(dict.fromkeys(args.tasks))
    if unknown := [task for task in tasks if task not in TASKS]:
        p.error(f"--tasks {unknown[0]}: the tasks are {', '.join(TASKS)}, all")
    if not 0 <= args.seed < 2**64:
        p.error(f"--seed {args.seed}: a seed is a whole number from 0 to less than 2**64")
    if args.subjects > 5000 or args.runs > 3:
        p.error("at most 5000 subjects of 3 runs")
    if (args.release is None) == (args.plot is None):
        p.error("name a release to write with --release, or a figure with --plot")
    if args.raw500 and (args.mini or args.plot):
        p.error("--raw500 goes with --release alone: there are no mini releases at 500 Hz")
    if args.beside and not args.plot:
        p.error("--beside shows a recording in the figure of --plot")
    if args.plot:
        return plot(args)

    from eeg.synth.release import described, simulate_release

    start = time.perf_counter()
    with cli.Progress("subjects") as progress:
        folder, made = simulate_release(
            args.data,
            args.release,
            args.subjects,
            seed=args.seed,
            world=args.world,
            snr=args.snr,
            tasks=tasks,
            runs=args.runs,
            mini=args.mini,
            raw=args.raw500,
            jobs=args.jobs,
            force=args.force,
            progress=progress,
        )
    if made is None:
        print(f"{folder} is there already, simulated with these settings")
    else:
        print(
            f"{folder}  simulated: {cli.counted(args.subjects, 'subject')}, "
            f"{cli.counted(made['recordings'], 'recording')}, "
            f"{cli.counted(made['trials'], 'trial')}, "
            f"{made['bytes'] / 1e6:,.0f} MB, {time.perf_counter() - start:.1f} s"
        )
    best = described(folder)["oracle"]
    print(
        f"world {args.world}: a reader that sees the hidden sources without background would reach "
        f"NRMSE {best['challenge1']:.2f} (challenge 1) and {best['challenge2']:.2f} (challenge 2)"
    )


def plot(args):
    from eeg import files
    from eeg.synth.plot import draw

    files.check_writable(args.plot, "--plot FILE")
    draw(args.plot, args.world, args.snr, args.seed, args.beside)
    print(f"{args.plot}  drawn from simulated recordings of world {args.world}")


if __name__ == "__main__":
    cli.run(main)
