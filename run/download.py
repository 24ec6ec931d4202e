"""Download a release of HBN-EEG from its public bucket, anonymously.

Each file is verified before it appears under its name. The same command resumes a download that was
stopped, and fetches only what is missing or has changed.

    python run/download.py --release R1 --mini            the 20-subject release
    python run/download.py --release R1 --subjects 30     its first 30 subjects
    python run/download.py --release R1 R2 --dry-run      what would be fetched
    python run/download.py --release R5 --verify          compare every file with its checksum
    python run/download.py --release R1 --source openneuro  the 500 Hz originals
"""

import time

from eeg import UserError, cli, hints
from eeg.data.release import CONTRAST, TASKS
from eeg.files import amount


def arguments():
    p = cli.parser(__doc__)
    cli.add_release(p, required=True)
    cli.add_mini(p)
    help = "the first N subjects by name that have a recording of the tasks (default: all)"
    p.add_argument("--subjects", type=cli.positive, metavar="N", help=help)
    help = f"fetch recordings of these tasks, or 'all' (default: {CONTRAST})"
    p.add_argument("--tasks", nargs="+", default=[CONTRAST], metavar="TASK", help=help)
    help = "list what would be fetched; fetch nothing"
    p.add_argument("--dry-run", action="store_true", help=help)
    help = "compare files that are there with their checksums, and fetch those that differ"
    p.add_argument("--verify", action="store_true", help=help)
    cli.add_bucket(p)
    args = p.parse_args()
    args.tasks = TASKS if args.tasks == ["all"] else tuple(dict.fromkeys(args.tasks))
    if unknown := [task for task in args.tasks if task not in TASKS]:
        p.error(f"--tasks {unknown[0]}: the tasks are {', '.join(TASKS)}, all")
    return args


def main():
    args = arguments()

    from eeg.bucket.patience import Patience
    from eeg.bucket.source import find_source

    names = list(dict.fromkeys(args.release))
    sources = [find_source(name, args.mini, args.source) for name in names]
    patience = Patience(args.timeout, limit_s=args.time_limit and args.time_limit * 60)
    for name, source in zip(names, sources):
        download(name, source, patience, args)


def download(name, source, patience, args):
    """One release: what is to be fetched, then fetch it."""
    from eeg.bucket.choice import choose, concerns, described
    from eeg.bucket.download import Download
    from eeg.bucket.listing import list_objects
    from eeg.bucket.server import Server

    server = Server(source.bucket, args.endpoint, patience)
    objects, refused = list_objects(server, source.prefix)
    choice = choose(objects, args.tasks, args.subjects)
    label, folder = f"{name}{' mini' * args.mini}", args.data / source.folder
    size = f"{cli.counted(len(choice.objects), 'file')}, {amount(choice.bytes)}"
    print(f"{label}: {described(choice)}, {size} in {source.url}", flush=True)
    work = Download(server, choice.objects, folder, args.verify)
    if args.dry_run:
        show(work)
    else:
        work.check_room()
        start = time.monotonic()
        with cli.Progress("B") as progress:
            report = work.run(args.connections, progress)
        describe(report, folder, time.monotonic() - start)
    if refused:
        asked = [each for each in refused if concerns(each, args.tasks)]
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        what = f"the bucket has a key that is refused: {(asked or refused)[0]}{more}"
        if asked:
            raise UserError(what)
        print(f"warning   {what}; no file that was asked for is concerned")


def show(work):
    """What a download would do."""
    fits = {one.path for one in work.sizes_fit()}
    fetched = [one for one in work.todo if one.path not in fits]
    for one in fetched:
        print(f"  {amount(one.size):>12}  {one.path}")
    print(f"there     {cli.counted(work.report.there, 'file')}")
    if fits:
        print(f"verified  {cli.counted(len(fits), 'file')} would be compared with their checksums")
    size = amount(sum(one.size for one in fetched))
    print(f"to fetch  {cli.counted(len(fetched), 'file')}, {size} (a dry run: nothing was fetched)")


def describe(report, folder, seconds):
    """The closing lines. Raises UserError where files are missing."""
    if report.there:
        print(f"there     {cli.counted(report.there, 'file')}")
    if report.replaced:
        many, first = cli.counted(len(report.replaced), "file"), report.replaced[0]
        print(f"replaced  {many} with other content than the bucket's, as {first}")
    if report.received:
        rate = f"{amount(report.received / max(seconds, 1e-3))}/s"
        took = f"{amount(report.received)} in {cli.clock(seconds)} ({rate})"
        print(f"fetched   {cli.counted(report.fetched, 'file')}, {took}")
    if report.by_size:
        many = cli.counted(report.by_size, "file")
        print(f"by size   {many} verified by size alone: the server sends no checksum")
    if not report.failed and not report.missing:
        print(folder)
        return
    again = f"fetch the rest with: {hints.this('download')}"
    if report.failed:
        many = cli.counted(len(report.failed), "file")
        raise UserError(f"{many} could not be fetched: {report.failed[0]}; {again}")
    many = cli.counted(report.missing, "file")
    raise UserError(f"the time limit was reached with {many} still to be fetched; {again}")


if __name__ == "__main__":
    cli.run(main)
