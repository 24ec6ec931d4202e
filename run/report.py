"""report.html in a run's folder: how it learned, how well it answers and for whom, what it looks at, what happened on the way.

    python run/report.py                             the best finished run of each challenge
    python run/report.py c1_tcn/20261121_101500      a run, by folder or by name under experiments/
    python run/report.py --release R6                answers to windows of these releases
    python run/report.py --quick                     without what the model looks at, which takes longest

One file that needs nothing else: it can be sent, and opened years later. Answers are those to the test releases (what is cached
of R6 and R7), else to the run's validation subjects, which it says.
"""

import time

from eeg import UserError, cli


def arguments():
    p = cli.parser(__doc__)
    cli.add_runs(p, "the best finished run of each challenge")
    cli.add_release(
        p,
        "whose windows are answered (default: what is cached of R6 and R7, else the validation side)",
    )
    cli.add_mini(p)
    p.add_argument(
        "--quick",
        action="store_true",
        help="leave out what the model looks at, which takes longest (about 20 s on two cores)",
    )
    args = p.parse_args()
    cli.check_chosen(p, args)
    return args


def main():
    args = arguments()
    from eeg.machine.load import Load
    from eeg.runs.choice import choose_runs

    load, runs = Load(), choose_runs(args.out, args.runs, args.seed) or best_runs(args.out)
    import torch

    from eeg.machine.device import cpu_threads, keep_freed_memory
    from eeg.score import report

    keep_freed_memory()
    torch.set_num_threads(cpu_threads(busy=load.cores()))
    for run in runs:
        start = time.perf_counter()
        path, done = report.write(run, args.cache, args.data, args.release, args.mini, args.quick)
        print(
            f"{run.name}: {done}\n{path}  {path.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - start:.0f} s",
            flush=True,
        )


def best_runs(out):
    """The best finished run of each challenge; the reason, where there is none of any."""
    from eeg.runs.choice import best_run

    runs, reasons = [], []
    for challenge in (1, 2):
        try:
            runs.append(best_run(out, challenge))
        except UserError as e:
            reasons.append(e)
    if not runs:
        raise reasons[0]
    return runs


if __name__ == "__main__":
    cli.run(main)
