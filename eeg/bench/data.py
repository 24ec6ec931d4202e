"""Rows: from a release on disk to batches and features."""

import os
import statistics
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np
import torch

from eeg import _native
from eeg._native import Bdf
from eeg.bench import simulated
from eeg.bench.measure import (
    in_turn,
    report,
    report_limit,
    run_script,
    script,
    times_floor,
    verdict,
)
from eeg.bench.peers import Peer
from eeg.data.augment import mirrored
from eeg.data.build import Settings, build
from eeg.data.cache import Cache
from eeg.data.features import compute
from eeg.data.release import find_release
from eeg.models.montage import LAGS


def same_windows(peer: Peer, path: Path, lost: list[str]) -> tuple[bool, str]:
    """Compares our cache with the kit's windows. -> (equal, what differs)"""
    cache = Cache(path)
    with h5py.File(path, "r") as f:
        names = np.array([Path(name.decode()).name for name in f["recordings"][()]])
    ours = names[cache.metadata["recording"]]
    # where the kit drops a whole recording, ours lacks only one window
    kept = np.flatnonzero(~np.isin(ours, lost))
    if len(kept) != len(peer.array("y")):
        return False, f"{len(kept)} windows, the kit {len(peer.array('y'))}"
    same_start = cache.metadata["start"][kept] == peer.array("starts")
    if not (same_start & (ours[kept] == peer.array("names"))).all():
        return False, "other windows or another order"
    if not np.allclose(cache.y[kept], peer.array("y"), rtol=1e-6, atol=0):
        return False, "other labels"
    theirs = peer.array("X")
    for i, k in enumerate(kept):
        if not np.allclose(cache[int(k)], theirs[i].astype(np.float64) * 1e6, rtol=1e-6, atol=0):
            return False, f"window {k} differs"
    return True, ""


def cache(rounds):
    """run/cache.py against the start kit's pipeline, without imports and as whole processes."""
    simulated.release("R1", 20)
    with Peer() as peer:
        goals = {1: 25, 2: 12}
        return all([_cache(peer, challenge, goal, rounds) for challenge, goal in goals.items()])


def _cache(peer, challenge, goal, rounds):
    path = simulated.FOLDER / f"challenge{challenge}_R1_windows.h5"
    kit = dict(root=str(simulated.DATA), challenge=challenge)

    def without_path(work):
        """The seconds of a work that writes a new cache, with none still being written."""
        path.unlink(missing_ok=True)
        os.sync()
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def build_here():
        build(find_release("R1", simulated.DATA), Settings(challenge), simulated.FOLDER)

    def command():
        places = ("--data", simulated.DATA, "--cache", simulated.FOLDER)
        run_script("cache", "--release", "R1", "--challenge", challenge, *places)

    def kit_process():
        with Peer() as own:
            own("kit_windows", **kit, lost=lost)

    without_path(command)
    answer = peer("kit_windows", **kit)
    lost = answer["lost"]
    same, difference = same_windows(peer, path, lost)
    size = path.stat().st_size
    imported = lambda: without_path(build_here)
    kit_imported = lambda: peer("kit_windows", **kit, lost=lost)["seconds"]
    whole_process = lambda: without_path(command)
    works = (imported, kit_imported, whole_process, kit_process)
    here, theirs, process, whole = in_turn(rounds, *works)
    note = f"{times_floor(here, size)}, {answer['windows']:,} windows {difference}"
    title = f"cache {challenge}, imports done"
    good = report(title, here, theirs, goal, same=same, note=note)
    ratio = statistics.median(theirs) / statistics.median(process)
    note = f"{times_floor(process, size)}, {ratio:.1f}x the kit without its imports"
    title = f"cache {challenge}, whole process"
    return report(title, process, whole, goal, same=same, note=note) and good


def decode(rounds):
    """Decoding open files to windows of 4 s, against a copy of the bytes. One thread."""
    return all([_decode(rounds, dtype, goal) for dtype, goal in (("f4", 2), ("f2", 2.3))])


def _decode(rounds, dtype, goal):
    files = sorted(simulated.release("R1", 20).glob("sub-*/eeg/*.bdf"))[:10]
    readers = [Bdf(str(file)) for file in files]
    plain = [open(file, "rb", buffering=0) for file in files]
    channels = np.arange(129, dtype=np.int32)
    starts = [np.arange(0, bdf.n_times - 399, 400) for bdf in readers]
    kept = "f4" if dtype == "f4" else "u2"  # the native side takes a float16 by its bits
    outs = [np.zeros((len(s), 129, 400), kept) for s in starts]
    buffers = [np.zeros(file.stat().st_size, np.uint8) for file in files]

    def read():
        for bdf, start, out in zip(readers, starts, outs):
            bdf.read(start, channels, out)

    def copy():
        for file, buffer in zip(plain, buffers):
            os.preadv(file.fileno(), [buffer], 0)

    ours, theirs = in_turn(rounds, read, copy)
    rate = sum(out.nbytes for out in outs) / 1e9 / statistics.median(ours)
    name = f"decode {np.dtype(dtype).name}, against copy"
    return report(name, ours, theirs, goal, at_most=True, note=f"makes {rate:.1f} GB/s")


def linear(rounds):
    """Time and memory of run/cache.py at 10 and at 100 recordings."""
    simulated.release("R2", 36)
    seconds, good = {}, True
    for n in (10, 100):
        seconds[n], peak_mb = _build_recordings(n, rounds)
        note = f"peak {peak_mb:.0f} MB of its own memory, goal < 400 {verdict(peak_mb < 400)}"
        report(f"{n} recordings, challenge 2", seconds[n], note=note)
        good &= peak_mb < 400
    ratio = statistics.median(seconds[100]) / statistics.median(seconds[10])
    growth = "at most" if ratio <= 12 else "MORE THAN"
    print(f"  100 recordings take {ratio:.1f} times as long as 10 ({growth} linear)")
    return good


def _build_recordings(n, rounds):
    """run/cache.py on n recordings. -> (seconds of each round, peak memory of the last in MB)."""
    places = ("--data", simulated.DATA, "--cache", simulated.FOLDER)
    options = ("--release", "R2", "--challenge", 2, "--max-recordings", n)
    peak_kb = 0

    def work():
        nonlocal peak_kb
        (simulated.FOLDER / "challenge2_R2_windows.h5").unlink(missing_ok=True)
        peak_kb = 0
        process = subprocess.Popen(script("cache", *options, *places), stdout=subprocess.DEVNULL)
        while process.poll() is None:
            peak_kb = max(peak_kb, _anonymous_kb(process.pid))
            time.sleep(0.002)

    (seconds,) = in_turn(rounds, work)
    return seconds, peak_kb / 1e3


def _anonymous_kb(pid):
    """The process's own memory in KiB; 0 where it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def gather(rounds):
    """Windows of a mapped cache in random batches of 64, against a copy in order. One thread."""
    cache = simulated.cache_with_margins()
    X, n = cache.parts[0], len(cache) // 64 * 64
    order = np.random.default_rng(0).permutation(len(cache))[:n].astype(np.int64)
    out = np.empty((64, *X.shape[1:]), np.float32)
    shift, mix, zero = np.zeros(64, np.int32), np.zeros(64, np.float32), np.zeros(64, np.int32)
    mirror, plain = np.arange(X.shape[1], dtype=np.int32), _native.Augment()

    def ours(zscore=False):
        for i in range(0, n, 64):
            rows = order[i : i + 64]
            _native.gather([X], zero, rows, zero, rows, mirror, out, shift, mix, zscore, plain, 1)

    def copy():
        for i in range(0, n, 64):
            np.copyto(out, X[i : i + 64])

    ours()
    same = (out == X[order[n - 64 :]]).all()
    mine, scored, theirs = in_turn(rounds, ours, lambda: ours(True), copy)
    note = f"{n * X[0].nbytes / 1e9 / statistics.median(mine):.1f} GB/s"
    name = "gather, random windows"
    good = report(name, mine, theirs, 1 / 0.6, at_most=True, same=same, note=note)
    return report("gather and z-score", scored, theirs, 1.8, at_most=True) and good


def augment(rounds):
    """Gathering batches of 64 with every augmentation, against torch operations. All cores."""
    cache = simulated.cache_with_margins()
    X, mirror = cache.parts[0], mirrored(cache.channels)
    B, C, T, margin = 64, X.shape[1], cache.window_samples, cache.margin_samples
    rows = np.random.default_rng(0).permutation(len(cache))[:B].astype(np.int64)
    out = np.empty((B, C, T), np.float32)
    shift, mix, zero = np.zeros(B, np.int32), np.zeros(B, np.float32), np.zeros(B, np.int32)
    settings = dict(scale=0.2, dropout=0.1, noise=0.01, mask=0.1, mirror=0.5, mix=0.2)
    everything = _native.Augment(seed=1, epoch=1, shift=margin, **settings)
    other, steps = torch.from_numpy(mirror).long(), torch.arange(T)
    beta = torch.distributions.Beta(0.2, 0.2)

    def ours():
        start = zero + margin
        _native.gather([X], zero, rows, start, rows, mirror, out, shift, mix, False, everything, 0)

    def scored():
        start = zero + margin
        _native.gather([X], zero, rows, start, rows, mirror, out, shift, mix, True, everything, 0)

    def theirs():
        moved = margin + torch.randint(-margin, margin + 1, (B, 1, 1)) + steps
        x = torch.from_numpy(X[rows]).gather(2, moved.expand(B, C, T))
        x = torch.where(torch.rand(B, 1, 1) < 0.5, x[:, other], x)
        x = x * (0.8 + 0.4 * torch.rand(B, 1, 1))
        x = x + 0.01 * x.std(2, keepdim=True) * torch.randn_like(x)
        x = x * (torch.rand(B, C, 1) >= 0.1)
        length = (0.1 * T * torch.rand(B, 1, 1)).round()
        begin = (torch.rand(B, 1, 1) * (T - length + 1)).floor()
        x = x.masked_fill((steps >= begin) & (steps < begin + length), 0)
        return x, beta.sample((B,))

    def theirs_scored():
        x = theirs()[0]
        return (x - x.mean(2, keepdim=True)) / x.std(2, keepdim=True).clamp_min(1e-6)

    ours()
    # the two draw other numbers from the same distribution
    a, b = np.abs(out).mean(), float(np.mean([theirs()[0].abs().mean() for _ in range(5)]))
    same = abs(a / b - 1) < 0.1 and abs((out == 0).all(2).mean() - 0.1) < 0.03
    mine, peer = in_turn(max(rounds, 15), ours, theirs)
    note = times_floor(mine, out.nbytes)
    good = report("augment, everything on", mine, peer, 10, same=same, note=note)
    mine, peer = in_turn(max(rounds, 15), scored, theirs_scored)
    note = times_floor(mine, out.nbytes)
    return report("augment and z-score", mine, peer, 18, note=note) and good


def features(rounds):
    """All features of 41,071 windows on all cores; those that mne-features has too, against it."""
    cache = simulated.cache_with_margins()
    X = simulated.without_margins(cache)
    total, lagged = 41071, np.empty((512, len(LAGS), 4), np.float32)

    def whole(work):
        done = 0
        while done < total:
            chunk = X[done % (len(X) - 512) :][: min(512, total - done)]
            work(chunk)
            done += len(chunk)

    def only_lagged(chunk):
        lags = np.array(LAGS, np.int32)
        _native.lagged_correlations(chunk, 0, 200, lags, lagged[: len(chunk)], 0)

    everything, late = in_turn(1, lambda: whole(compute), lambda: whole(only_lagged))
    rest = [a - b for a, b in zip(everything, late)]
    good = report_limit("41,071 windows, not lagged", rest, 10)
    good &= report_limit("41,071 windows, lagged", late, 20)
    return _shared_features(cache.parts[0][:256], rounds) and good


def _shared_features(windows, rounds):
    """The 8 features of a channel that mne-features has too, which takes float64."""
    count, channels = windows.shape[:2]
    ours = np.empty((count, channels, 10), np.float32)
    work = lambda: _native.channel_features(windows, 0, windows.shape[2], ours, 0)
    with Peer() as peer:
        file = str(peer.folder / "x.npy")
        np.save(file, windows.astype(np.float64))
        peer("mne_features", file=file, save=True)
        theirs = peer.array("features").reshape(count, -1)
        work()
        own = np.hstack([*np.moveaxis(ours[:, :, 6:9], 2, 0), ours[:, :, :5].reshape(count, -1)])
        known = np.isfinite(own)  # a flat channel is NaN here, 0 / 0 there
        same = np.allclose(own[known], theirs[known], rtol=1e-5) and known.mean() > 0.9
        mine, yours = in_turn(rounds, work, lambda: peer("mne_features", file=file)["seconds"])
    note = f"the 8 features both have, of {channels} channels"
    return report(f"{count} windows, mne-features", mine, yours, 60, same=same, note=note)
