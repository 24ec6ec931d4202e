"""Side by side with what a user would otherwise use: one row a measurement.

    make bench                         installs the peers in build/peers, then runs all rows
    python run/bench.py cache decode   some rows
    python run/bench.py coverage       how often the 95 % intervals by subject hold the truth;
                                       takes minutes and runs only by name

Ours and the peer's run in turn. Results are compared before a time counts. A ratio is peer / ours
(larger is better), of the medians, with the range over the rounds. "x floor" is our time over that
of the machine's own limit, measured in the same run. All data is simulated.
"""

from eeg import cli
from eeg.bench import data, models, scoring, training  # noqa: F401  (they fill ROWS)
from eeg.bench.measure import HEADING, ONLY_BY_NAME, ROWS


def main():
    p = cli.parser(__doc__)
    names = ", ".join(ROWS)
    help = f"rows to run: {names} (default: all but {', '.join(ONLY_BY_NAME)})"
    p.add_argument("rows", nargs="*", metavar="NAME", help=help)
    help = "time each row N times (default: 5)"
    p.add_argument("--rounds", type=cli.positive, default=5, metavar="N", help=help)
    args = p.parse_args()
    if unknown := [name for name in args.rows if name not in ROWS]:
        p.error(f"no row '{unknown[0]}'; the rows are {names}")
    rows = args.rows or [name for name in ROWS if name not in ONLY_BY_NAME]
    if not set(rows) <= ONLY_BY_NAME:
        print(HEADING)
    return int(not all([ROWS[name](args.rounds) for name in rows]))


if __name__ == "__main__":
    cli.run(main)
