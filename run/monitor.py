"""Show what is running, how far it is and how good; what died, and how to resume it.

    python run/monitor.py                 all runs under experiments/
    python run/monitor.py --follow        again every 2 s until Ctrl-C; in a log, a line a change
    python run/monitor.py c1_tcn          the runs of a name, and what each got over
    python run/monitor.py --out tuning    runs that live elsewhere

best: lowest NRMSE (for the target `correct`: highest AUROC) on validation windows; at: its epoch.
recovered: how often the run got over a fault (out of memory, a device error, a failed save) or was
resumed.
"""

import shutil
import sys
import time

from eeg import cli, hints
from eeg.runs.choice import meant
from eeg.runs.monitor import Gpu, counts, events, look, sentence, table
from eeg.runs.run import all_runs


def arguments():
    p = cli.parser(__doc__)
    p.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="a run folder, name/stamp under --out, or a name: all runs of it (default: every run)",
    )
    p.add_argument("--follow", action="store_true", help="repeat until Ctrl-C")
    p.add_argument(
        "--every",
        type=cli.positive,
        default=2,
        metavar="S",
        help="with --follow: seconds between looks (default: 2)",
    )
    cli.add_out(p)
    return p.parse_args()


def main():
    args = arguments()
    gpu = Gpu()
    if args.follow:
        try:
            redraw(args, gpu) if sys.stdout.isatty() else note_changes(args, gpu)
        except KeyboardInterrupt:
            print()
            return
    looks = look_at(args)
    print(
        "\n".join(table(looks))
        if looks
        else f"no run in {args.out}/ yet; train one with: "
        + hints.command("train", "--challenge", 1, out=args.out)
    )
    for one in looks if args.runs else []:
        if one.status != "unreadable" and (lines := events(one.run)):
            print(f"\n{one.run.name}", *lines, sep="\n")
    for line in gpu.lines():
        print(line)


def look_at(args):
    """Read the runs again. -> [Look]"""
    runs = (
        [run for text in args.runs for run in meant(args.out, text)]
        if args.runs
        else all_runs(args.out)
    )
    return [look(run) for run in runs]


def redraw(args, gpu):
    """The table again and again in the same place; of a long one, the end."""
    drawn = 0
    while True:
        looks = look_at(args)
        width, height = shutil.get_terminal_size()
        title, *lines = table(looks, width - 1)
        lines += gpu.lines()
        hidden = max(0, len(lines) + 3 - height)
        lines = [
            f"{time.strftime('%H:%M:%S')}  {counts(looks)}"
            + (f"; {cli.counted(hidden, 'line')} above" if hidden else ""),
            title,
            *lines[hidden:],
        ]
        # Up to the first line drawn last time, and clear from there. A line that wrapped would put
        # this out of step.
        sys.stdout.write(
            (f"\x1b[{drawn}A" if drawn else "")
            + "\r\x1b[J"
            + "".join(line[: width - 1] + "\n" for line in lines)
        )
        sys.stdout.flush()
        drawn = len(lines)
        time.sleep(args.every)


def note_changes(args, gpu):
    """For a log: all runs at first, then those whose status or epoch changed."""
    known = None
    while True:
        looks = look_at(args)
        now = {one.run.folder: (one.status, one.cells.get("validation")) for one in looks}
        changed = [
            one
            for one in looks
            if known is None or known.get(one.run.folder) != now[one.run.folder]
        ]
        if changed or known is None:
            print(
                f"{cli.moment()}  {counts(looks)}",
                *(line for one in changed for line in sentence(one)),
                *gpu.lines(),
                sep="\n",
                flush=True,
            )
        known = now
        time.sleep(args.every)


if __name__ == "__main__":
    cli.run(main)
