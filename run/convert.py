"""Convert a raw release to the competition's 100 Hz BDF layout: everything else is fast then.

    python run/convert.py --release R1                    data/cmi_bids_R1 -> data/R1_L100_bdf
    python run/convert.py --release R1 --out-data DIR     ... -> DIR/R1_L100_bdf
    python run/convert.py --release R1 --notch 50         where the mains have 50 Hz

Reads EEGLAB .set, EDF, BrainVision and BDF at 100 Hz or more. Run it again to continue, or after
more recordings have come.
"""

import time
from pathlib import Path

from eeg import UserError, cli, files
from eeg.data.release import TASKS, find_release, folder_names
from eeg.raw.preprocessing import Preprocessing


def arguments():
    p = cli.parser(__doc__)
    cli.add_release(p, required=True)
    help = "folder of the new releases (default: that of the raw ones)"
    p.add_argument("--out-data", type=Path, metavar="DIR", help=help)
    help = "convert these tasks alone (default: all)"
    p.add_argument("--tasks", nargs="+", default=["all"], metavar="TASK", help=help)
    cli.add_filters(p)
    cli.add_jobs(p)
    args = p.parse_args()
    cli.check_filters(p, args)
    return p, args


def main():
    p, args = arguments()
    tasks = TASKS if args.tasks == ["all"] else tuple(dict.fromkeys(args.tasks))
    if unknown := [task for task in tasks if task not in TASKS]:
        p.error(f"--tasks {unknown[0]}: the tasks are {', '.join(TASKS)}, all")
    names = list(dict.fromkeys(args.release))
    releases = [find_release(name, args.data, raw=True) for name in names]

    from eeg.raw.convert import convert

    settings = Preprocessing(tuple(args.bandpass), args.notch)
    for release in releases:
        signals = [recording.signal for recording in release.recordings(tasks)]
        if not signals:
            raise UserError(f"{release.folder} has no recording of {', '.join(tasks)}")
        target = (args.out_data or args.data) / folder_names(release.name, False)[0]
        count, start = cli.counted(len(signals), "recording"), time.perf_counter()
        print(f"{release.name}: {count} in {release.folder}{' (simulated)' * release.simulated}")
        with cli.Progress("recordings") as progress:
            report = convert(release.folder, signals, target, settings, args.jobs, progress)
        describe(report, settings, release.folder, time.perf_counter() - start)
        if not (report.made or report.found):
            raise UserError(f"no recording of {release.folder} can be converted")


def describe(report, settings, source, seconds):
    """The closing lines: what was converted, found and skipped, by reason."""
    if report.made:
        memory = f"at most {report.peak_bytes / 1e6:,.0f} MB a process"
        written = f"{files.amount(report.bytes)}, {memory}"
        print(f"converted {cli.counted(report.made, 'recording')} ({settings.filters}): {written}")
    if report.found:
        print(f"found     {cli.counted(report.found, 'recording')} converted before")
    if report.skipped:
        print(f"skipped   {cli.counted(len(report.skipped), 'recording')}:")
        for signal, reason in sorted(report.skipped):
            print(f"          {signal.relative_to(source)}: {reason}")
    if report.made or report.found:
        print(f"{report.folder}  {seconds:.1f} s")


if __name__ == "__main__":
    cli.run(main)
