"""Cut the windows of a release into cache/challenge1_R1_windows.h5.

That is an HDF5 file whose X can be memory-mapped.

    python run/cache.py --release R1                      challenge 1: 129 x 200 at each stimulus
    python run/cache.py --release R1 R2 --challenge 2     challenge 2: 129 x 400 every 2 s
    python run/cache.py --release R5 --mini --plot c.png  the 20-subject release, with a picture
    python run/cache.py --release R1 --margin 0.25        0.25 s more on both sides, for shifts
    python run/cache.py --release R1 --exclude bad.tsv    without the recordings on this list
    python run/cache.py --release R1 --stream             from the public bucket, not from disk
    python run/cache.py --release R1 --notch 50 --bandpass 0.5 45   of 500 Hz recordings
"""

import time

from eeg import UserError, cli, hints
from eeg.data.release import TASKS, Exclusions, cache_path, find_release, read_exclusions
from eeg.files import amount, check_writable
from eeg.raw.preprocessing import Preprocessing

WHOLE_BYTES = 1e9  # a table is less: where more is fetched whole, it is worth a note


def arguments():
    p = cli.parser(__doc__)
    cli.add_release(p, required=True)
    cli.add_mini(p)
    cli.add_challenge(p, default=1)
    contrast = "contrastChangeDetection"
    help = f"cut windows from these tasks, or 'all' (challenge 2; default: {contrast})"
    p.add_argument("--tasks", nargs="+", default=[contrast], metavar="TASK", help=help)
    help = "store samples so; float16 halves the file, clips beyond 65,504 uV and says how often"
    p.add_argument("--dtype", choices=("float32", "float16"), default="float32", help=help)
    help = "store S more seconds on both sides of each window, for time shifts (default: 0)"
    p.add_argument("--margin", type=cli.seconds, default=0.0, metavar="S", help=help)
    help = "use the first N recordings only"
    p.add_argument("--max-recordings", type=cli.positive, metavar="N", help=help)
    cli.add_exclude(p)
    cli.add_jobs(p)
    cli.add_filters(p)
    help = "none keeps that of the recording (Cz); average is over all electrodes"
    p.add_argument("--reference", choices=("none", "average"), default="none", help=help)
    help = "interpolate the electrodes that channels.tsv calls bad"
    p.add_argument("--interpolate-bad", action="store_true", help=help)
    help = "build even if the cache is up to date or has other settings"
    p.add_argument("--force", action="store_true", help=help)
    help = "exit 1 if any recording was skipped because of a fault"
    p.add_argument("--strict", action="store_true", help=help)
    cli.add_plot(p, "draw labels, grand averages, and electrodes and events of each recording")
    help = "fetch what the windows need from the public bucket: no release on disk"
    p.add_argument("--stream", action="store_true", help=help)
    cli.add_bucket(p)
    args = p.parse_args()
    cli.check_bucket(p, args)
    if args.plot and args.stream:
        p.error("--plot looks at whole recordings, which --stream does not fetch: leave out one")
    if args.challenge == 1 and args.tasks != [contrast]:
        p.error(f"--tasks goes with --challenge 2: challenge 1 is cut from {contrast} alone")
    cli.check_filters(p, args)
    return p, args


def main():
    p, args = arguments()
    if args.plot:
        check_writable(args.plot, "--plot FILE")
    tasks = TASKS if args.tasks == ["all"] else tuple(dict.fromkeys(args.tasks))
    if unknown := [task for task in tasks if task not in TASKS]:
        p.error(f"--tasks {unknown[0]}: the tasks are {', '.join(TASKS)}, all")
    names = dict.fromkeys(args.release)
    releases = [] if args.stream else [find_release(name, args.data, args.mini) for name in names]

    from eeg.data.build import Settings

    steps = Preprocessing(tuple(args.bandpass), args.notch, args.reference, args.interpolate_bad)
    settings = Settings(args.challenge, tasks, args.dtype, args.margin, args.max_recordings)
    settings.preprocessing = steps
    settings.exclude = read_exclusions(args.exclude) if args.exclude else Exclusions()
    if args.stream:
        reports = [stream(name, settings, args) for name in names]
    else:
        reports = [make(release, release.folder, settings, args) for release in releases]
    note_unmatched(settings.exclude, reports, names)
    if args.plot and all(report.windows for report in reports):
        from eeg.audit.overview import plot_overview
        from eeg.data.cache import Cache

        worst = plot_overview(Cache([report.path for report in reports]), releases, args.plot)
        for number, line in enumerate(worst[:5]):
            print(f"{'' if number else 'worst':<10}{line}")
        print(f"picture   {args.plot}")
    usual = "no valid trial", "factor (n/a"  # of recordings that have no fault
    reasons = [reason for report in reports for _, reason in report.skipped]
    faults = [reason for reason in reasons if not any(words in reason for words in usual)]
    return int(bool(args.strict and faults) or not all(report.windows for report in reports))


def note_unmatched(exclude, reports, names):
    """Name what is on the list and in none of the releases."""
    recordings = [recording for report in reports for recording, _ in report.excluded]
    if missing := exclude.unmatched(recordings):
        some = ", ".join(missing[:3]) + ", ..." * (len(missing) > 3)
        lines = f"{len(missing):,} of {cli.counted(len(exclude.entries), 'line')}"
        print(f"note      {lines} in {exclude.path} name no recording of {' '.join(names)}: {some}")


def make(release, place, settings, args):
    """Build one cache. place: where the release lies, in words."""
    from eeg.data.build import build

    start = time.perf_counter()
    announce(release, place, settings)
    with cli.Progress("recordings") as progress:
        report = build(release, settings, args.cache, args.jobs, args.force, progress)
    describe(report, settings, time.perf_counter() - start, progress.peak)
    return report


def stream(name, settings, args):
    """Build one cache from the bucket."""
    from eeg.bucket.choice import choose
    from eeg.bucket.listing import list_objects
    from eeg.bucket.patience import GaveUp, Patience, TimeIsUp
    from eeg.bucket.server import Server
    from eeg.bucket.source import find_source
    from eeg.bucket.stream import Stream, StreamedRelease, interruptible

    source = find_source(name, args.mini, args.source)
    patience = Patience(args.timeout, limit_s=args.time_limit and args.time_limit * 60)
    server = Server(source.bucket, args.endpoint, patience)
    choice = choose(list_objects(server, source.prefix)[0], settings.tasks)
    cache = cache_path(args.cache, settings.challenge, name, args.mini)
    fetched = Stream(server, choice, cache.with_name(f"{cache.name}.stream"), source.folder)
    more = ("--source", args.source) if args.source != cli.SOURCES[0] else ()
    more += ("--endpoint", args.endpoint) if args.endpoint else ()
    how = fetched, args.data, args.connections, more
    release = StreamedRelease(name, args.mini, fetched.folder, *how)
    try:
        with interruptible(server), fetched.held():
            if fetched.whole_bytes > WHOLE_BYTES:
                of = f"{amount(fetched.whole_bytes)} of {amount(choice.bytes)}"
                why = "only BDF files can be read in parts"
                print(f"note      {of} are fetched whole, to {fetched.work}/: {why}", flush=True)
            fetched.prepare(args.connections)
            report = make(release, source.url, settings, args)
            fetched.remove()
    except (GaveUp, TimeIsUp) as e:
        again = hints.this("cache")
        raise UserError(f"{e}; what has come is kept, continue with: {again}") from None
    share = f"{100 * server.received / choice.bytes:.0f} %"
    of = f"a download is {amount(choice.bytes)}"
    print(f"fetched   {amount(server.received)}, {share}: {of}")
    return report


def announce(release, place, settings):
    count = len(settings.recordings(release))
    if not count and settings.exclude.path and release.recordings(settings.tasks):
        raise UserError(f"{settings.exclude.path} excludes every recording of {release.label}")
    if not count:
        none = f"{place} has no recording of {', '.join(settings.tasks)}"
        raise UserError(f"{none} (looked for sub-*/eeg/sub-*_task-*_eeg.bdf, .set, .edf and .vhdr)")
    kind = "contrast-change recording" if settings.challenge == 1 else "recording"
    people = cli.counted(len(release.participants()), "participant")
    what = f"{people}, {cli.counted(count, kind)} in {place}"
    print(f"{release.label}: {what}{' (simulated)' * release.simulated}", flush=True)


def describe(report, settings, seconds, peak):
    """The closing lines: what was kept, dropped, flagged and skipped, by reason."""
    from eeg.data.windows import LENGTH, SFREQ

    windows, size = cli.counted(report.windows, "window"), f"{report.bytes / 1e6:,.0f} MB"
    if not report.built:
        without = cli.counted(len(report.excluded), "recording") + " excluded"
        size += f", {without}" * bool(report.excluded)
        print(f"{report.path} is up to date: {windows}, {size} (--force rebuilds it)")
        return
    if report.reason:
        print(f"rebuilt   {report.reason}")
    if signals := report.signals:
        many, memory = cli.counted(signals.made, "recording"), signals.peak_bytes / 1e6
        how = f"{settings.preprocessing.filters}, 100 Hz; at most {memory:,.0f} MB a process"
        before = f"; {signals.found:,} by an interrupted build" * bool(signals.found)
        print(f"filtered  {many} ({how}){before}")
    if report.windows:
        subjects = cli.counted(report.subjects, "subject")
        samples = LENGTH[settings.challenge] + 2 * round(settings.margin_s * SFREQ)
        print(f"kept      {windows} of {subjects} (129 x {samples} {settings.dtype}, {size})")
    if report.dropped:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in report.dropped.most_common())
        print(f"dropped   {cli.counted(sum(report.dropped.values()), 'trial')}: {reasons}")
    copies, fast = report.flagged["copy"], report.flagged["fast"]
    flagged = [cli.counted(copies, "copied window")] * bool(copies)
    flagged += [f"{fast:,} on the fast time line"] * bool(fast)
    if flagged:
        print(f"flagged   {', '.join(flagged)}")
    if report.clipped:
        many = cli.counted(report.clipped, "sample")
        print(f"clipped   {many} beyond the 65,504 uV that float16 holds")
    if report.excluded:
        many = cli.counted(len(report.excluded), "recording")
        print(f"excluded  {many}, by {settings.exclude.path}:")
        for recording, reason in report.excluded:
            print(f"          {recording}: {reason}")
    if report.warned:
        print(f"warning   {cli.counted(len(report.warned), 'recording')}:")
        for recording, warning in report.warned:
            print(f"          {recording}: {warning}")
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
