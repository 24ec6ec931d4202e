"""Write report.html into a run's folder: how it learned, how well it answers, what it looks at.

    python run/report.py                             the best finished run of each challenge
    python run/report.py c1_tcn/20261121_101500      a run, by folder or by name under experiments/
    python run/report.py --release R6                answers to windows of these releases
    python run/report.py --quick                     skips what the model looks at, the slow part

The file is self-contained: it can be sent to others and opened years later. It shows the answers
to the test releases (R6 and R7, or the one that is cached), otherwise to the run's validation
subjects, and says which.
"""

import time

from eeg import cli
from eeg.machine.load import Load
from eeg.runs.choice import best_runs, choose_runs


def arguments():
    p = cli.parser(__doc__)
    cli.add_runs(p, "the best finished run of each challenge")
    default = "R6 and R7, or the one that is cached, otherwise the validation side"
    cli.add_release(p, f"releases to answer (default: {default})")
    cli.add_mini(p)
    help = "skip what the model looks at, the slowest part (about 20 s on two cores)"
    p.add_argument("--quick", action="store_true", help=help)
    args = p.parse_args()
    cli.check_chosen(p, args)
    return args


def main():
    args, load = arguments(), Load()
    runs = choose_runs(args.out, args.runs, args.seed, encoders=True)
    if not args.runs:
        best, missing = best_runs(args.out)
        if not best:
            raise missing[1]
        runs = list(best.values())
    from eeg.machine.device import use_free_cores
    from eeg.score import report

    use_free_cores(load)
    for run in runs:
        start = time.perf_counter()
        path, done = report.write(run, args.cache, args.data, args.release, args.mini, args.quick)
        seconds, size = time.perf_counter() - start, path.stat().st_size / 1e6
        print(f"{run.name}: {done}\n{path}  {size:.1f} MB, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    cli.run(main)
