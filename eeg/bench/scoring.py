"""Rows: predictions and intervals."""

import time
from pathlib import Path

import h5py
import numpy as np
import torch

from eeg import models
from eeg.bench import coverage as intervals
from eeg.bench import simulated
from eeg.bench.measure import in_turn, report, report_limit
from eeg.bench.peers import Peer
from eeg.data.build import Settings, build
from eeg.data.cache import Cache
from eeg.data.release import find_release
from eeg.machine.device import keep_freed_memory
from eeg.models.eegnex import from_braindecode
from eeg.score.metrics import FEW
from eeg.score.predict import Question, predict


def evaluate(rounds):
    """Predicting 10,000 windows with tcn; scoring a release with EEGNeX as the start kit does."""
    keep_freed_memory()
    cache, tcn = simulated.cache_with_margins(), models.build("tcn")
    start = time.perf_counter()
    predict(tcn, cache, np.arange(10000) % len(cache))
    good = report_limit("10,000 windows, tcn", [time.perf_counter() - start], 20)
    return _evaluate_eegnex(rounds) and good


def _evaluate_eegnex(rounds):
    simulated.release("R1", 20)
    kit = dict(root=str(simulated.DATA), challenge=1)
    with Peer() as peer:
        lost = peer("kit_windows", **kit)["lost"]
        # once: it takes long enough to need no median
        theirs = [peer("kit_windows", **kit, lost=lost, score=True)["seconds"]]
        weights = torch.load(peer.folder / "network.pt", weights_only=True)
        answers = np.array(peer.array("answers"))
    release = find_release("R1", simulated.DATA)
    cache = Cache(build(release, Settings(1), simulated.FOLDER).path)
    with h5py.File(cache.paths[0], "r") as f:
        names = np.array([Path(name.decode()).name for name in f["recordings"][()]])
    rows = np.flatnonzero(~np.isin(names[cache.metadata["recording"]], lost))
    model = models.build("eegnex")
    from_braindecode(model.network, weights)
    # volts, and no normalisation, as in the kit
    volts = Question(lambda model, x, features: model.network(x * 1e-6))
    ours = lambda: predict(model, cache, rows, volts)[:, 0]
    same = np.allclose(ours(), answers, rtol=1e-3, atol=1e-5)
    (mine,) = in_turn(rounds, ours)
    return report("evaluate, EEGNeX", mine, theirs, same=same, note=f"{len(rows):,} windows")


def coverage(rounds):
    """How often 95 % intervals of an NRMSE, and of the difference of two, hold the truth."""
    sets = f"{intervals.REPETITIONS:,} simulated test sets each"
    print(f"coverage of the 95 % intervals, {sets}; * not within 93 .. 97 %")
    print(f"{'subjects':<52}" + "".join(f"{subjects:>8}" for subjects in intervals.SUBJECTS))
    good = True
    for name, population in intervals.POPULATIONS.items():
        true = intervals.truth(population)
        shares = [intervals.coverage(population, n, true=true) for n in intervals.SUBJECTS]
        titles = (f"{name}: {true[0]:.3f}", f"  its difference from {true[1]:.3f}")
        for title, own in zip(titles, zip(*shares)):
            cells = [f"{100 * share:.1f}{' ' if 0.93 <= share <= 0.97 else '*'}" for share in own]
            print(f"{title:<52}" + "".join(f"{cell:>8}" for cell in cells), flush=True)
            good &= all(share >= 0.93 for share, n in zip(own, intervals.SUBJECTS) if n >= FEW)
    print(f"with fewer than {FEW} subjects no interval is shown anywhere else")
    return good
