"""Measure this project beside what a user would otherwise use, one row per measurement.

    make bench                         installs the peers in build/peers, then runs all rows
    python run/bench.py cache decode   some rows
    python run/bench.py coverage       how often the 95 % intervals by subject hold the truth;
                                       takes minutes, runs only when named
    python run/bench.py quality        how good each recipe is on simulated worlds; takes a
                                       night, resumes where it stopped, runs only when named
    python run/bench.py foundation     what a pretrained encoder is worth with few labelled
                                       subjects; takes hours and resumes like quality

Ours and the peer run in turn, and a time counts only if their results agree. A ratio is the peer's
median time divided by ours (larger is better); ranges are over the rounds. "x floor" is our time
divided by the machine's own limit, measured in the same run. All data is simulated.
"""

import importlib

from eeg import cli
from eeg.bench import ONLY_BY_NAME, ROWS
from eeg.bench.recipes import add_quality, asked, asked_of_foundation


def main():
    p = cli.parser(__doc__)
    names = ", ".join(ROWS)
    help = f"rows to run: {names} (default: all but {', '.join(sorted(ONLY_BY_NAME))})"
    p.add_argument("rows", nargs="*", metavar="NAME", help=help)
    help = "time each row N times (default: 5)"
    p.add_argument("--rounds", type=cli.positive, default=5, metavar="N", help=help)
    add_quality(p)
    args = p.parse_args()
    if unknown := [name for name in args.rows if name not in ROWS]:
        p.error(f"no row '{unknown[0]}'; the rows are {names}")
    plans = {"quality": asked(p, args), "foundation": asked_of_foundation(p, args)}
    rows = args.rows or [name for name in ROWS if name not in ONLY_BY_NAME]
    # after the arguments: --help answers at once
    from eeg.bench.measure import HEADING

    if not set(rows) <= ONLY_BY_NAME:
        print(HEADING)
    files = {name: importlib.import_module(f"eeg.bench.{ROWS[name]}") for name in rows}
    works = {name: getattr(files[name], name) for name in rows}
    good = [work(plans.get(name, args.rounds)) for name, work in works.items()]
    return int(not all(good))


if __name__ == "__main__":
    cli.run(main)
