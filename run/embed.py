"""Embed the windows of caches: what a run's encoder makes of them is added to the cache, once.

    python run/embed.py signal_transformer --release R1 R5       windows of challenge 1
    python run/embed.py signal_transformer --release R1 --challenge 2
    python run/train.py --challenge 1 --model ridge --on embeddings --init signal_transformer
    python run/train.py --challenge 1 --model ridge --on features embeddings --init ...

RUN is a run of run/pretrain.py, or one of run/train.py with a model that has an encoder and
--members 1, or a file of published weights (.safetensors, or a state dict of torch). A window's
embedding is the mean of its tokens in each quarter of the window; windows of challenge 2 have two,
as they are cut at their start and 1 s later. Embeddings that are up to date are kept; those of
another run are replaced.
"""

import time
from pathlib import Path

from eeg import cli
from eeg.machine.load import Load
from eeg.transfer.options import in_file


def arguments():
    p = cli.parser(__doc__)
    help = "a run's folder; name/stamp under --out; a name, for its newest finished run; a file"
    usual = "signal_transformer"
    p.add_argument(
        "run", nargs="?", default=usual, metavar="RUN", help=f"{help} (default: {usual})"
    )
    cli.add_release(p, required=True)
    cli.add_mini(p)
    cli.add_challenge(p, default=1)
    help = "compute them even if the cache has up-to-date embeddings"
    p.add_argument("--force", action="store_true", help=help)
    cli.add_out(p)
    return p.parse_args()


def encoder(args):
    """-> (its name, its Embedding)"""
    if in_file(args.run):
        from eeg.transfer.published import Published

        weights = Published(Path(args.run))
        return weights.name, weights.embedding()
    from eeg.ridge.embeddings import embedding_of
    from eeg.runs.choice import choose_runs

    run = choose_runs(args.out, [args.run], encoders=True)[-1]
    return run.name, embedding_of(run)


def main():
    args, load = arguments(), Load()
    from eeg.data.cache import find_caches
    from eeg.machine.device import use_free_cores
    from eeg.ridge import embeddings

    name, embedding = encoder(args)
    use_free_cores(load)
    cache = find_caches(args.cache, args.challenge, dict.fromkeys(args.release), args.mini)
    for path, windows in zip(cache.paths, map(len, cache.parts)):
        start = time.perf_counter()
        with cli.Progress("windows") as progress:
            made = embeddings.add(path, embedding, name, args.force, progress)
        count = cli.counted(windows, "window")
        if not made:
            print(f"{path} has up-to-date embeddings of {count} (--force computes them again)")
            continue
        took = time.perf_counter() - start
        print(f"embedded  {count} by {name}: {embedding.size} numbers each")
        rate = len(embeddings.crops_of(cache)) * windows / took
        peak = progress.peak / 1e6
        print(f"{path}  {took:.1f} s, {rate:,.0f} win/s, peak memory {peak:.0f} MB", flush=True)


if __name__ == "__main__":
    cli.run(main)
