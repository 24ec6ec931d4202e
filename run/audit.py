"""Report what the events and labels of releases say, and what labels alone score.

It reads events.tsv, participants.tsv and the tables beside them, and needs no signal.

    python run/audit.py --release R1                           one release
    python run/audit.py --release R1 R2 R5 --json audit.json   several, and all numbers in a file
    python run/audit.py --release R1 R2 R6 R7 --test R6 R7     label-only scores, trained on R1, R2

A release is looked for under its published names, then in a folder R1. With several releases, each
is predicted from the labels of the others; --test names releases that form one test set.
"""

import json
from pathlib import Path

from eeg import cli
from eeg.data.release import find_release
from eeg.files import check_writable, write_whole, writing


def arguments():
    p = cli.parser(__doc__)
    cli.add_release(p, required=True)
    cli.add_mini(p)
    help = "score label-only predictions on these of the releases (default: on each in turn)"
    p.add_argument("--test", nargs="+", type=cli.release, default=[], metavar="R", help=help)
    help = "write all numbers to this file, with the names of what is counted"
    p.add_argument("--json", type=Path, metavar="FILE", help=help)
    cli.add_plot(p, "draw response times, trials, irregularities, labels and label-only scores")
    help = "processes that read tables (default: one for each core)"
    p.add_argument("--jobs", type=cli.positive, metavar="N", help=help)
    args = p.parse_args()
    args.release, args.test = list(dict.fromkeys(args.release)), list(dict.fromkeys(args.test))
    if others := [name for name in args.test if name not in args.release]:
        p.error(f"--test {others[0]} is not among --release {' '.join(args.release)}")
    if args.test and len(args.test) == len(args.release):
        p.error("--test names all releases; leave one out, for label-only scores to be trained on")
    return args


def main():
    args = arguments()
    for path, option in ((args.json, "--json FILE"), (args.plot, "--plot FILE")):
        if path:
            check_writable(path, option)
    releases = [find_release(name, args.data, args.mini, other=name) for name in args.release]

    from eeg.audit.counts import audit_releases, together
    from eeg.audit.floors import floors
    from eeg.audit.report import as_json, table

    for release in releases:
        print(f"{release.label}: {release.folder}{' (simulated)' * release.simulated}", flush=True)
    audits = audit_releases(releases, args.jobs)
    whole = together(audits) if len(audits) > 1 else None
    scores = floors(audits, args.test)
    print(f"\n{table(audits, whole, scores)}")
    if args.json:
        text = json.dumps(as_json(audits, whole, scores), indent=1) + "\n"
        with writing(args.json, "--json FILE", len(text)):
            write_whole(args.json, text)
        print(f"\nnumbers   {args.json}")
    if args.plot:
        from eeg.audit.plot import plot_audit

        plot_audit(audits, whole or audits[0], scores, args.plot)
        print(f"\npicture   {args.plot}")


if __name__ == "__main__":
    cli.run(main)
