"""Compute features of cached windows and add them to the cache, as `neuro_features`.

Features that are up to date are kept.

    python run/features.py --release R1                      challenge 1
    python run/features.py --release R1 R2 --challenge 2
    python run/features.py --release R1 --plot features.png  also draws them
    python run/features.py --release R1 --groups transition  adds another group to those there
    python run/features.py --list                            what each feature is, and its unit
"""

import time

from eeg import cli
from eeg.files import check_writable
from eeg.models.features import FEATURE_GROUPS, NEUROSCIENCE, definitions, feature_groups


def arguments():
    p = cli.parser(__doc__)
    cli.add_release(p)
    cli.add_mini(p)
    cli.add_challenge(p, default=1)
    help = (
        "features of these groups: neuroscience (103 features) and transition (23, about how "
        "channels follow from themselves some samples earlier; slower) (default: neuroscience)"
    )
    groups = {"nargs": "+", "choices": tuple(FEATURE_GROUPS), "default": [NEUROSCIENCE]}
    p.add_argument("--groups", metavar="GROUP", help=help, **groups)
    help = "compute them even if the cache has up-to-date features"
    p.add_argument("--force", action="store_true", help=help)
    cli.add_jobs(p)
    cli.add_plot(p, "draw features against response times, responding hands, spectra (challenge 1)")
    help = "print the name and definition of each feature, then exit"
    p.add_argument("--list", action="store_true", help=help)
    args = p.parse_args()
    if not args.list and not args.release:
        p.error("--release is needed: name R1 ... R12, or ask for --list")
    if args.plot and args.challenge != 1:
        p.error("--plot shows response times and hands, which challenge 1 has")
    if args.plot and NEUROSCIENCE not in args.groups:
        p.error(f"--plot draws the group {NEUROSCIENCE}, which --groups leaves out")
    return args


def main():
    args = arguments()
    if args.plot:
        check_writable(args.plot, "--plot FILE")
    if args.list:
        for group, features in FEATURE_GROUPS.items():
            print(f"{group} ({len(features)}):")
            for name, definition in features.items():
                print(f"{name:24s}{definition}")
        return
    from eeg.data.cache import find_caches
    from eeg.data.features import add

    groups = feature_groups("+".join(args.groups))
    cache = find_caches(args.cache, args.challenge, dict.fromkeys(args.release), args.mini)
    for path in cache.paths:
        start = time.perf_counter()
        with cli.Progress("windows") as progress:
            report = add(path, args.force, args.jobs, progress, groups=groups)
        windows = cli.counted(report.windows, "window")
        if not report.computed:
            print(f"{path} has up-to-date features of {windows} (--force computes them again)")
            continue
        print(f"features  {len(definitions(groups))} of {windows}")
        if report.missing:
            print("NaN       in how many windows a feature could not be computed:")
            for name, n in sorted(report.missing.items(), key=lambda item: -item[1]):
                print(f"          {name:24s}{n:9,}  {100 * n / report.windows:5.1f} %")
        took, peak = time.perf_counter() - start, progress.peak / 1e6
        print(f"{path}  {took:.1f} s, peak memory {peak:.0f} MB", flush=True)
    if args.plot:
        from eeg.data.plots import plot_features

        plot_features(cache, args.plot)
        print(f"picture   {args.plot}")


if __name__ == "__main__":
    cli.run(main)
