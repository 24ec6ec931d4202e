"""Show active runs, how far along and how good they are, which runs died and how to resume them.

    python run/monitor.py                 all runs under experiments/
    python run/monitor.py --follow        again every 2 s until Ctrl-C; in a log, only changes
    python run/monitor.py c1_tcn          the runs of a name, and the faults each recovered from
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
    help = "a run folder, name/stamp under --out, or a name: all runs of it (default: every run)"
    p.add_argument("runs", nargs="*", metavar="RUN", help=help)
    p.add_argument("--follow", action="store_true", help="repeat until Ctrl-C")
    help = "seconds between looks, with --follow (default: 2)"
    p.add_argument("--every", type=cli.positive, default=2, metavar="S", help=help)
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
    start = hints.command("train", "--challenge", 1, out=args.out)
    lines = table(looks) if looks else [f"no run in {args.out}/ yet; train one with: {start}"]
    for one in looks if args.runs else []:
        if one.status != "unreadable" and (recovered := events(one.run)):
            lines += [f"\n{one.run.name}", *recovered]
    print(*lines, *gpu.lines(), sep="\n")


def look_at(args):
    """Read the runs again. -> [Look]"""
    named = [run for text in args.runs for run in meant(args.out, text)]
    return [look(run) for run in (named if args.runs else all_runs(args.out))]


def redraw(args, gpu):
    """Redraw the table in the same place; of a long one, show the end."""
    drawn = 0
    while True:
        looks = look_at(args)
        width, height = shutil.get_terminal_size()
        title, *lines = table(looks, width - 1)
        lines += gpu.lines()
        hidden = max(0, len(lines) + 3 - height)
        heading = f"{time.strftime('%H:%M:%S')}  {counts(looks)}"
        if hidden:
            heading += f"; {cli.counted(hidden, 'line')} above"
        # Up to the first line drawn last time, and clear from there: no line may wrap.
        up = f"\x1b[{drawn}A" if drawn else ""
        lines = [line[: width - 1] for line in (heading, title, *lines[hidden:])]
        print(f"{up}\r\x1b[J{lines[0]}", *lines[1:], sep="\n", flush=True)
        drawn = len(lines)
        time.sleep(args.every)


def note_changes(args, gpu):
    """Print lines for a log: first all runs, then those whose status or epoch changed."""
    known = None
    while True:
        looks = look_at(args)
        now = {one.run.folder: (one.status, one.cells.get("validation")) for one in looks}
        changed = [one for one in looks if (known or {}).get(one.run.folder) != now[one.run.folder]]
        if changed or known is None:
            lines = [line for one in changed for line in sentence(one)]
            heading = f"{cli.moment()}  {counts(looks)}"
            print(heading, *lines, *gpu.lines(), sep="\n", flush=True)
        known = now
        time.sleep(args.every)


if __name__ == "__main__":
    cli.run(main)
