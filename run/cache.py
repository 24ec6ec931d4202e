"""Cuts the windows of a release into cache/challenge1_R1_windows.h5.

That is an HDF5 file whose X can be memory-mapped.

    python run/cache.py --release R1                      challenge 1: 129 x 200 at each stimulus
    python run/cache.py --release R1 R2 --challenge 2     challenge 2: 129 x 400 every 2 s
    python run/cache.py --release R5 --mini --plot c.png  the 20-subject release, with a picture
    python run/cache.py --release R1 --margin 0.25        0.25 s more on both sides, for shifts
"""

import time

from eeg import UserError, cli


def arguments():
    p = cli.parser(__doc__)
    cli.add_release(p, required=True)
    cli.add_mini(p)
    p.add_argument("--challenge", type=cli.challenge, metavar="{1,2}", default=1)
    p.add_argument(
        "--tasks",
        nargs="+",
        default=["contrastChangeDetection"],
        metavar="TASK",
        help="challenge 2: the tasks to cut windows from, or 'all' "
        "(default: contrastChangeDetection, which the competition scores)",
    )
    p.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="float16 halves the file; beyond 65,504 uV it clips, and says how often",
    )
    p.add_argument(
        "--margin",
        type=cli.seconds,
        default=0.0,
        metavar="S",
        help="extra seconds on both sides of each window, for time-shift augmentation (default 0)",
    )
    p.add_argument(
        "--max-recordings", type=cli.positive, metavar="N", help="only the first N recordings"
    )
    cli.add_jobs(p)
    p.add_argument(
        "--force",
        action="store_true",
        help="build even if the cache is up to date, or of other settings",
    )
    p.add_argument(
        "--strict",
        action="store_true",
        help="exit 1 if any recording had to be skipped for a fault",
    )
    cli.add_plot(
        p, "draw what is in the cache: response times, subjects, grand averages, bad channels"
    )
    args = p.parse_args()
    if args.challenge == 1 and args.tasks != ["contrastChangeDetection"]:
        p.error(
            "--tasks goes with --challenge 2: challenge 1 is cut from contrastChangeDetection alone"
        )
    if args.plot and args.plot.suffix.lower() not in (".png", ".pdf", ".svg"):
        p.error(f"--plot {args.plot}: name a .png, .pdf or .svg file")
    return p, args


def main():
    p, args = arguments()
    from eeg.files import check_writable

    if args.plot:
        check_writable(args.plot, "--plot FILE")
    from eeg.data.release import TASKS, find_release

    tasks = TASKS if args.tasks == ["all"] else tuple(dict.fromkeys(args.tasks))
    if unknown := [task for task in tasks if task not in TASKS]:
        p.error(f"--tasks {unknown[0]}: the tasks are {', '.join(TASKS)}, all")
    releases = [find_release(name, args.data, args.mini) for name in dict.fromkeys(args.release)]

    from eeg.data.build import Settings, build

    failed = False
    reports = []
    for release in releases:
        start = time.perf_counter()
        settings = Settings(args.challenge, tasks, args.dtype, args.margin, args.max_recordings)
        count = len(release.recordings(tasks)[: args.max_recordings])
        if not count:
            raise UserError(
                f"{release.folder} has no recording of {', '.join(tasks)} (looked for "
                "sub-*/eeg/sub-*_task-*_eeg.bdf, .set and .edf)"
            )
        what = cli.counted(
            count, "contrast-change recording" if args.challenge == 1 else "recording"
        )
        people = len(release.participants())
        print(
            f"{release.label}: {cli.counted(people, 'participant')}, {what} in {release.folder}"
            + (" (simulated)" if release.simulated else ""),
            flush=True,
        )
        with cli.Progress("recordings") as progress:
            report = build(release, settings, args.cache, args.jobs, args.force, progress)
        describe(report, settings, time.perf_counter() - start, progress.peak)
        failed |= (
            not report.windows or args.strict and any(fault(reason) for _, reason in report.skipped)
        )
        reports.append(report)
    if args.plot and all(report.windows for report in reports):
        from eeg.data.cache import Cache
        from eeg.data.plots import plot_cache

        plot_cache(Cache([report.path for report in reports]), args.plot)
        print(f"picture   {args.plot}")
    return int(failed)


def fault(reason):
    """Whether a recording was skipped because something is wrong with it, and not because it has
    nothing to give.
    """
    return "no valid trial" not in reason and "factor (n/a" not in reason


def describe(report, settings, seconds, peak):
    """The closing lines: what was kept, dropped, flagged and skipped, by reason."""
    if not report.built:
        print(
            f"{report.path} is up to date: {cli.counted(report.windows, 'window')}, "
            f"{report.bytes / 1e6:,.0f} MB (--force rebuilds it)"
        )
        return
    if report.reason:
        print(f"rebuilt   {report.reason}")
    if report.windows:
        from eeg.data.windows import LENGTH, SFREQ

        samples = LENGTH[settings.challenge] + 2 * round(settings.margin_s * SFREQ)
        print(
            f"kept      {cli.counted(report.windows, 'window')} of "
            f"{cli.counted(report.subjects, 'subject')} (129 x {samples} {settings.dtype}, "
            f"{report.bytes / 1e6:,.0f} MB)"
        )
    if report.dropped:
        print(
            f"dropped   {cli.counted(sum(report.dropped.values()), 'trial')}: "
            + ", ".join(f"{n:,} {reason}" for reason, n in report.dropped.most_common())
        )
    if report.flagged:
        print(
            "flagged   "
            + ", ".join(
                cli.counted(n, "copied window")
                if flag == "copy"
                else f"{n:,} on the fast time line"
                for flag, n in report.flagged.items()
            )
        )
    if report.clipped:
        print(
            f"clipped   {cli.counted(report.clipped, 'sample')} beyond the 65,504 uV that float16 "
            "holds"
        )
    if report.skipped:
        print(f"skipped   {cli.counted(len(report.skipped), 'recording')}:")
        for recording, reason in sorted(report.skipped, key=lambda pair: str(pair[0])):
            print(f"          {recording}: {reason}")
    if report.windows:
        print(f"{report.path}  {seconds:.1f} s, peak memory {peak / 1e6:.0f} MB")
    else:
        print("nothing was kept: no cache was written")


if __name__ == "__main__":
    cli.run(main)
