"""A simulated release in the real layout, for work without data: no person was recorded.

python run/synth.py --release R1 [--subjects 20] [--seed 0]
python run/synth.py --release R5 --subjects 10 --tasks contrastChangeDetection RestingState
"""

import time

from eeg import cli


def main():
    p = cli.parser(__doc__)
    p.add_argument("--release", required=True, type=cli.release, metavar="R", help="R1 ... R12")
    p.add_argument("--mini", action="store_true", help="under the mini release's folder name")
    p.add_argument("--subjects", type=cli.positive, default=20, metavar="N")
    p.add_argument(
        "--runs",
        type=cli.positive,
        default=3,
        metavar="N",
        help="contrast-change runs a subject (default 3)",
    )
    p.add_argument(
        "--seed", type=cli.whole, default=0, help="the same seed gives the same bytes (default 0)"
    )
    p.add_argument(
        "--snr", type=cli.at_least_0, default=1.0, help="scales what the trials evoke (default 1)"
    )
    p.add_argument(
        "--tasks",
        nargs="+",
        default=["contrastChangeDetection"],
        metavar="TASK",
        help="or 'all' (default: contrastChangeDetection)",
    )
    cli.add_jobs(p)
    p.add_argument(
        "--force", action="store_true", help="replace a release simulated with other settings"
    )
    args = p.parse_args()
    from eeg.data.release import TASKS

    tasks = TASKS if args.tasks == ["all"] else tuple(dict.fromkeys(args.tasks))
    if unknown := [task for task in tasks if task not in TASKS]:
        p.error(f"--tasks {unknown[0]}: the tasks are {', '.join(TASKS)}, all")
    if args.seed < 0:
        p.error(f"--seed {args.seed}: a seed is a whole number of at least 0")
    if args.subjects > 5000 or args.runs > 3:
        p.error("at most 5000 subjects of 3 runs")

    from eeg.data.synth import simulate_release

    start = time.perf_counter()
    with cli.Progress("subjects") as progress:
        folder, made = simulate_release(
            args.data,
            args.release,
            args.subjects,
            args.seed,
            args.snr,
            tasks,
            args.runs,
            args.mini,
            args.jobs,
            args.force,
            progress,
        )
    if made is None:
        print(f"{folder} is there already, simulated with these settings")
        return
    print(
        f"{folder}  simulated: {cli.counted(args.subjects, 'subject')}, "
        f"{cli.counted(made['recordings'], 'recording')}, {cli.counted(made['trials'], 'trial')}, "
        f"{made['bytes'] / 1e6:,.0f} MB, {time.perf_counter() - start:.1f} s"
    )


if __name__ == "__main__":
    cli.run(main)
