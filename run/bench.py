"""Side by side with what a user would otherwise use: one row a measurement.

    make bench                         makes the peers' environment, then runs all rows
    python run/bench.py cache decode   some rows
    python run/bench.py coverage       how often the 95 % intervals by subject hold the truth: minutes, so only by name

Ours and the peer's run in turn; results are compared before a time counts. A ratio is peer / ours (larger is better),
of the medians, with the range over the rounds. "x floor" is our time over that of the machine's own limit, measured in
the same run. All data is simulated.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from eeg import UserError, cli

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "build" / "peers" / "bin" / "python"
DATA = ROOT / "build" / "bench"


# ---------------------------------------------------------------------------------------------------- measuring


def in_turn(rounds, *works):
    """Run each work once to warm up, then all in turn, `rounds` times. Each returns its seconds or None to be timed. -> a list of times for each."""
    times = [[] for _ in works]
    for i in range(rounds + 1):
        for work, own in zip(works, times):
            start = time.perf_counter()
            seconds = work()
            own.append(time.perf_counter() - start if seconds is None else seconds)
    return [own[1:] for own in times]


def duration(times):
    """A median with its range, in a unit that fits."""
    median = statistics.median(times)
    unit, scale = next(
        (u, s) for u, s in (("s", 1), ("ms", 1e3), ("us", 1e6)) if median * s >= 1 or u == "us"
    )
    return f"{median * scale:.3g} {unit} ({min(times) * scale:.3g}..{max(times) * scale:.3g})"


def megabytes(sizes):
    return f"{statistics.median(sizes) / 1e6:.3g} MB"


def row(
    name, ours, theirs=None, goal=None, floor=None, least=True, same=True, note="", show=duration
):
    """Print one row. -> whether it is as it should be: equal results, and the goal met. least: the goal is a least ratio, else a greatest."""
    ratio = statistics.median(theirs) / statistics.median(ours) if theirs else None
    met = goal is None or (ratio >= goal if least else 1 / ratio <= goal)
    parts = [f"{name:<30}", f"{show(ours):<26}", f"{show(theirs) if theirs else '-':<26}"]
    parts.append(
        "-      " if ratio is None else f"{ratio:5.1f}x " if least else f"{1 / ratio:5.2f}  "
    )
    parts.append(
        ""
        if goal is None
        else f"goal {goal:g}x {'met' if met else 'NOT MET'}"
        if least
        else f"goal <= {goal:g} {'met' if met else 'NOT MET'}"
    )
    if floor:
        parts.append(f" {statistics.median(ours) / floor:.1f} x floor")
    print(
        "".join(parts) + ("" if same else "  DIFFERENT RESULTS") + (f"  {note}" if note else ""),
        flush=True,
    )
    return met and same


def copy_seconds(size):
    """The floor of anything that makes `size` bytes: copying as many, one thread, from memory to memory."""
    import numpy as np

    source, target = np.ones(max(size, 1), np.uint8), np.zeros(max(size, 1), np.uint8)
    times = in_turn(5, lambda: np.copyto(target, source))[0]
    return statistics.median(times)


class Peer:
    """A child process in the peers' environment (or another) that does what it is asked: JSON lines in and out, arrays in a folder."""

    def __init__(self, python=PEERS):
        if not Path(python).exists():
            raise UserError(
                f"the peers' environment is missing ({PEERS.relative_to(ROOT)}); make it with: make peers"
            )
        self.folder = Path(tempfile.mkdtemp(prefix="bench"))
        # what a chatty library prints must not get between the answers: they go through a file descriptor of their own
        read, write = os.pipe()
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [python, __file__, "--peer", str(write), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[write],
            env=environment,
            text=True,
        )
        os.close(write)
        self._answers = os.fdopen(read)

    def __call__(self, what, **arguments):
        """Ask for a piece of work. -> its answer, a dict with `seconds`."""
        self._process.stdin.write(json.dumps([what, arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._answers.readline()
        if not answer:
            raise UserError(f"the peer ended while it did '{what}' (its own words are above)")
        return json.loads(answer)

    def array(self, name):
        import numpy as np

        return np.load(self.folder / f"{name}.npy", mmap_mode="r")

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def training(net, x, y):
    """-> a training step of a network, as a function."""
    import torch

    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3)

    def step():
        optimiser.zero_grad()
        torch.nn.functional.mse_loss(net(x), y).backward()
        optimiser.step()

    return step


def answering(net, *inputs):
    """-> an answer of a network, as a function."""
    import torch

    net.eval()

    def answer():
        with torch.inference_mode():
            net(*inputs)

    return answer


def measured(work, times=1, memory=False):
    """The median time of a work, warmed up, or, with memory, the bytes of its own that the process takes at most while it does it thrice. -> {"seconds" or "bytes"}."""
    if memory:
        before = peak = cli.anonymous_memory()
        done = threading.Event()

        def watch():
            nonlocal peak
            while not done.wait(0.0005):
                peak = max(peak, cli.anonymous_memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        for _ in range(3):
            work()
        done.set()
        watcher.join()
        return {"bytes": peak - before}
    return {"seconds": statistics.median(in_turn(times, work)[0])}


# ---------------------------------------------------------------------------------------------------- the peers' side


def kit_windows(root, challenge, out, lost=None, score=False):
    """The start kit's pipeline, as its local scoring has it, on release R1 under `root`: every window through its loader, in its order.

    Runs in the peers' environment. Without `lost` it saves what it made, and finds the recordings that the kit gives up
    as a whole because their last window runs past the end; with it, it leaves those out and is timed. score: EEGNeX answers
    each window, one at a time as the kit does it; its weights and answers are saved.
    """
    import math

    import numpy as np
    import pandas as pd
    import torch
    from braindecode.datasets.base import BaseConcatDataset
    from braindecode.preprocessing import (
        Preprocessor,
        create_fixed_length_windows,
        create_windows_from_events,
        preprocess,
    )
    from eegdash import EEGChallengeDataset
    from eegdash.hbn.windows import (
        add_aux_anchors,
        add_extras_columns,
        annotate_trials_with_target,
        keep_only_recordings_with,
    )

    start = time.perf_counter()
    data = EEGChallengeDataset(
        "R1", root, mini=False, query={"task": "contrastChangeDetection"}, download=False
    )
    if challenge == 1:
        target = dict(
            target_field="rt_from_stimulus",
            epoch_length=2.0,
            require_stimulus=True,
            require_response=True,
        )
        preprocess(
            data,
            [
                Preprocessor(annotate_trials_with_target, apply_on_array=False, **target),
                Preprocessor(add_aux_anchors, apply_on_array=False),
            ],
            n_jobs=1,
        )
        data = keep_only_recordings_with("stimulus_anchor", data)
        window = dict(
            mapping={"stimulus_anchor": 0},
            trial_start_offset_samples=50,
            trial_stop_offset_samples=250,
            window_size_samples=200,
            window_stride_samples=100,
            preload=True,
        )
        name = lambda d: Path(d.raw.filenames[0]).name
        if lost is None:
            lost, save = [], True
            for d in data.datasets:
                try:
                    create_windows_from_events(BaseConcatDataset([d]), **window)
                except ValueError as e:
                    assert "trial_stop_offset_samples" in str(e), e
                    lost.append(name(d))
        else:
            save = False
        data = BaseConcatDataset([d for d in data.datasets if name(d) not in lost])
        windows = add_extras_columns(
            create_windows_from_events(data, **window), data, desc="stimulus_anchor"
        )
    else:
        save, lost = lost is None, []
        people = pd.read_csv(
            next(Path(root).glob("EEG2025r1/participants.tsv")), sep="\t"
        ).set_index("participant_id")["externalizing"]
        for d in data.datasets:  # offline, EEGDash does not read the factors
            d.set_description(
                {"externalizing": people.get(f"sub-{d.description['subject']}", math.nan)},
                overwrite=True,
            )
        data = BaseConcatDataset(
            [
                d
                for d in data.datasets
                if d.raw.n_times >= 400 and not math.isnan(d.description["externalizing"])
            ]
        )
        windows = create_fixed_length_windows(
            data, window_size_samples=400, window_stride_samples=200, drop_last_window=True
        )
    X = np.empty((len(windows), 129, 200 * challenge), np.float32)
    y, answers = np.empty(len(windows)), np.empty(len(windows))
    if score:
        from braindecode.models import EEGNeX

        torch.manual_seed(0)
        network = EEGNeX(n_chans=129, n_times=200, n_outputs=1).eval()
        torch.save(network.state_dict(), Path(out, "network.pt"))
        start = time.perf_counter()
    with torch.inference_mode():
        for i, (x, target, *_) in enumerate(torch.utils.data.DataLoader(windows, batch_size=1)):
            X[i], y[i] = x[0], target.ravel()[0]
            if score:
                answers[i] = network(x.float())[0, 0]
    seconds = time.perf_counter() - start
    if score:
        np.save(Path(out, "answers.npy"), answers)
    if save:
        if challenge == 2:
            y = np.concatenate(
                [np.full(len(d), float(d.description["externalizing"])) for d in windows.datasets]
            )
        starts = np.concatenate(
            [d.metadata["i_start_in_trial"].to_numpy() for d in windows.datasets]
        )
        names = [Path(d.raw.filenames[0]).name for d in windows.datasets for _ in range(len(d))]
        for key, array in dict(X=X, y=y, starts=starts, names=np.array(names)).items():
            np.save(Path(out, f"{key}.npy"), array)
    return {"seconds": seconds, "windows": len(X), "lost": lost}


def kit_trials(files, out):
    """The public trial builder on events files. -> one list of rows a file."""
    import pandas as pd
    from eegdash.hbn.windows import build_trial_table

    columns = [
        "trial_start_onset",
        "stimulus_onset",
        "response_onset",
        "rt_from_stimulus",
        "rt_from_trialstart",
        "correct",
        "response_type",
    ]
    tables = [build_trial_table(pd.read_csv(file, sep="\t")) for file in files]
    return {
        "tables": [
            t[columns].astype(object).where(t[columns].notna(), None).values.tolist()
            if len(t)
            else []
            for t in tables
        ]
    }


def mne_features(file, out, save=False):
    """The features that mne-features shares with ours, of windows (N, C, T) in a .npy file."""
    import numpy as np
    from mne_features.feature_extraction import extract_features

    X = np.load(file)
    names = ["hjorth_mobility", "hjorth_complexity", "line_length", "pow_freq_bands"]
    settings = {
        "pow_freq_bands__freq_bands": {
            "delta": (0.5, 4),
            "theta": (4, 8),
            "alpha": (8, 13),
            "beta": (13, 30),
            "gamma": (30, 45),
        },
        "pow_freq_bands__normalize": False,
        "pow_freq_bands__psd_method": "fft",
    }
    start = time.perf_counter()
    values = extract_features(X, 100.0, names, settings)
    seconds = time.perf_counter() - start
    if save:
        np.save(Path(out, "features.npy"), values)
    return {"seconds": seconds}


def eegnex(batch, train, out, first=False, memory=False):
    """braindecode's EEGNeX at 129 x 200 -> 1, a training step or an answer. first: save weights, data and results, without dropout. memory: what it takes at most."""
    import torch
    from braindecode.models import EEGNeX

    torch.manual_seed(0)
    net, x, y = (
        EEGNeX(n_chans=129, n_times=200, n_outputs=1),
        torch.randn(batch, 129, 200),
        torch.randn(batch, 1),
    )
    if not first:
        return measured(
            training(net, x, y) if train else answering(net, x), 1 if batch > 1 else 20, memory
        )
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    loss = torch.nn.functional.mse_loss(net(x), y)
    loss.backward()
    saved = dict(
        before=before,
        x=x,
        y=y,
        loss=loss.detach(),
        after=net.state_dict(),
        grads={name: p.grad for name, p in net.named_parameters()},
        answer=net.eval()(x).detach(),
    )
    torch.save(saved, Path(out, "eegnex.pt"))
    return {}


def own_eegnex(batch, out):
    """The memory that ours takes, in a process as fresh as the peer's."""
    import torch

    from eeg.machine.device import keep_freed_memory
    from eeg.models.eegnex import EEGNeX

    keep_freed_memory()
    return measured(
        training(EEGNeX(), torch.randn(batch, 129, 200), torch.randn(batch, 1)), memory=True
    )


def step_of_plain_tcn(batch, out):
    import torch

    return measured(training(plain_tcn(), torch.randn(batch, 129, 200), torch.randn(batch, 200)), 5)


def versions(out):
    """The versions of the peers and of what they stand on."""
    from importlib.metadata import version

    return {
        name: version(name)
        for name in ("torch", "braindecode", "eegdash", "mne-features", "mne", "numpy", "pandas")
    }


def stand_in_for_torchaudio():
    """torchaudio has no CPU build that fits this torch; braindecode imports these names, and what is measured here calls none of them."""
    import types

    for module, names in {
        "torchaudio": (),
        "torchaudio.functional": ("fftconvolve", "filtfilt", "lfilter"),
        "torchaudio.transforms": ("Resample", "Spectrogram", "MelSpectrogram"),
    }.items():
        sys.modules[module] = types.ModuleType(module)
        for name in names:
            setattr(sys.modules[module], name, object)
    sys.modules["torchaudio"].functional = sys.modules["torchaudio.functional"]


def serve_peer(answers, out):
    """The loop of the child process: `--peer`."""
    import warnings

    stand_in_for_torchaudio()
    warnings.simplefilter("ignore")
    import logging

    logging.disable(logging.WARNING)
    work = {
        "versions": versions,
        "windows": kit_windows,
        "trials": kit_trials,
        "features": mne_features,
        "eegnex": eegnex,
        "own eegnex": own_eegnex,
        "plain tcn": step_of_plain_tcn,
    }
    with os.fdopen(answers, "w") as stream:
        for line in sys.stdin:
            what, arguments = json.loads(line)
            print(json.dumps(work[what](out=out, **arguments)), file=stream, flush=True)


# ---------------------------------------------------------------------------------------------------- the rows


def simulated(release, subjects):
    """A simulated release for the rows that need files. -> its folder."""
    subprocess.run(
        [
            sys.executable,
            ROOT / "run" / "synth.py",
            "--release",
            release,
            "--subjects",
            str(subjects),
            "--data",
            DATA / "data",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    kit_name = DATA / "data" / f"EEG2025r{release[1:]}"
    if not kit_name.is_symlink():
        kit_name.symlink_to(f"{release}_L100_bdf")
    return DATA / "data" / f"{release}_L100_bdf"


def same_windows(peer, path, lost):
    """Whether our cache holds the kit's windows: the same, in the same order, the same y, X to 1e-6. -> (equal, what differs)."""
    import h5py
    import numpy as np

    from eeg.data.cache import Cache

    cache = Cache(path)
    with h5py.File(path, "r") as f:
        names = np.array([Path(name.decode()).name for name in f["recordings"][()]])
    ours = names[cache.metadata["recording"]]
    kept = np.flatnonzero(
        ~np.isin(ours, lost)
    )  # a recording that the kit gives up, we keep but for one window
    if len(kept) != len(peer.array("y")):
        return False, f"{len(kept)} windows, the kit {len(peer.array('y'))}"
    if (ours[kept] != peer.array("names")).any() or (
        cache.metadata["start"][kept] != peer.array("starts")
    ).any():
        return False, "other windows or another order"
    if not np.allclose(cache.y[kept], peer.array("y"), rtol=1e-6, atol=0):
        return False, "other labels"
    theirs = peer.array("X")
    for i, k in enumerate(kept):
        if not np.allclose(cache[int(k)], theirs[i].astype(np.float64) * 1e6, rtol=1e-6, atol=0):
            return False, f"window {k} differs"
    return True, ""


def bench_cache(rounds, goals={1: 25, 2: 12}):
    """run/cache.py against the start kit's pipeline: both with everything imported, and both as whole processes."""
    from eeg.data.cache import Settings, build
    from eeg.data.release import find_release

    folder = simulated("R1", 20)
    peer = Peer()
    good = True
    for challenge, goal in goals.items():
        path = DATA / f"challenge{challenge}_R1_windows.h5"

        def build_here():
            path.unlink(missing_ok=True)
            os.sync()  # the last round's file is not to be written during this one
            start = time.perf_counter()
            build(find_release("R1", DATA / "data"), Settings(challenge), DATA)
            return time.perf_counter() - start

        def command():
            path.unlink(missing_ok=True)
            os.sync()
            start = time.perf_counter()
            subprocess.run(
                [
                    sys.executable,
                    ROOT / "run" / "cache.py",
                    "--release",
                    "R1",
                    "--challenge",
                    str(challenge),
                    "--data",
                    DATA / "data",
                    "--cache",
                    DATA,
                ],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            return time.perf_counter() - start

        def kit(peer=peer):
            return peer(
                "windows", root=str(folder.parent), challenge=challenge, lost=answer["lost"]
            )["seconds"]

        def kit_process():
            own = Peer()
            kit(own)
            own.close()

        command()
        answer = peer("windows", root=str(folder.parent), challenge=challenge)
        same, why = same_windows(peer, path, answer["lost"])
        floor = copy_seconds(path.stat().st_size)
        here, theirs, process, whole = in_turn(rounds, build_here, kit, command, kit_process)
        note = f"{answer['windows']:,} windows {why}"
        good &= row(
            f"cache {challenge}, imports done", here, theirs, goal, floor, same=same, note=note
        )
        good &= row(
            f"cache {challenge}, whole process",
            process,
            whole,
            goal,
            floor,
            same=same,
            note=f"against the kit without its imports {statistics.median(theirs) / statistics.median(process):.1f}x",
        )
    peer.close()
    return good


def bench_decode(rounds):
    """From a file's bytes to float32 windows of 4 s, against a plain copy of the same bytes out of the file. One thread each, files open."""
    import numpy as np
    from eeg._native import Bdf

    files = sorted(simulated("R1", 20).glob("sub-*/eeg/*.bdf"))[:10]
    readers, plain = (
        [Bdf(str(file)) for file in files],
        [open(file, "rb", buffering=0) for file in files],
    )
    channels, starts = (
        np.arange(129, dtype=np.int32),
        [np.arange(0, bdf.n_times - 399, 400) for bdf in readers],
    )
    outs = [np.zeros((len(s), 129, 400), np.float32) for s in starts]
    buffers = [np.zeros(file.stat().st_size, np.uint8) for file in files]

    def copy():
        for file, buffer in zip(plain, buffers):
            os.preadv(file.fileno(), [buffer], 0)

    ours, theirs = in_turn(
        rounds,
        lambda: [bdf.read(s, channels, out) for bdf, s, out in zip(readers, starts, outs)] and None,
        copy,
    )
    return row(
        "decode 24 bit, against copy",
        ours,
        theirs,
        goal=2,
        least=False,
        note=f"makes {sum(o.nbytes for o in outs) / 1e9 / statistics.median(ours):.1f} GB/s",
    )


def bench_linear(rounds):
    """Time and anonymous memory of run/cache.py at 10 and at 100 recordings."""
    simulated("R2", 36)
    seconds, peaks = {}, {}
    for n in (10, 100):
        command = [
            sys.executable,
            ROOT / "run" / "cache.py",
            "--release",
            "R2",
            "--challenge",
            "2",
            "--max-recordings",
            str(n),
            "--data",
            DATA / "data",
            "--cache",
            DATA,
        ]

        def ours():
            (DATA / "challenge2_R2_windows.h5").unlink(missing_ok=True)
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            peak = 0
            while process.poll() is None:
                try:
                    peak = max(
                        peak,
                        *(
                            int(line.split()[1])
                            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
                            if line.startswith("RssAnon")
                        ),
                    )
                except (OSError, TypeError):  # it has just ended
                    pass
                time.sleep(0.002)
            peaks[n] = peak / 1e3
            return time.perf_counter() - start

        seconds[n] = in_turn(rounds, ours)[0]
    ten, hundred = (statistics.median(seconds[n]) for n in (10, 100))
    good = True
    for n in (10, 100):
        good &= (
            row(
                f"{n} recordings, challenge 2",
                seconds[n],
                note=f"peak {peaks[n]:.0f} MB of its own memory, goal < 400 {'met' if peaks[n] < 400 else 'NOT MET'}",
            )
            and peaks[n] < 400
        )
    print(
        f"  100 recordings take {hundred / ten:.1f} times as long as 10 ({'at most' if hundred / ten <= 12 else 'MORE THAN'} linear)"
    )
    return good


def training_cache():
    """A simulated cache with margins, for the rows that read batches."""
    folder = simulated("R1", 20)
    subprocess.run(
        [
            sys.executable,
            ROOT / "run" / "cache.py",
            "--release",
            "R1",
            "--margin",
            "0.25",
            "--data",
            folder.parent,
            "--cache",
            DATA / "margin",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    from eeg.data.cache import Cache

    return Cache(DATA / "margin" / "challenge1_R1_windows.h5")


def bench_gather(rounds):
    """All windows of a mapped cache in random batches of 64, against copying them in order. One thread each."""
    import numpy as np
    from eeg._native import Augment, gather

    cache = training_cache()
    X, n = cache.parts[0], len(cache) // 64 * 64
    order = np.random.default_rng(0).permutation(len(cache))[:n].astype(np.int64)
    out, shift, mix, zero = (
        np.empty((64, *X.shape[1:]), np.float32),
        np.zeros(64, np.int32),
        np.zeros(64, np.float32),
        np.zeros(64, np.int32),
    )
    mirror = np.arange(X.shape[1], dtype=np.int32)

    def ours(zscore=False):
        for i in range(0, n, 64):
            gather(
                [X],
                zero,
                order[i : i + 64],
                zero,
                order[i : i + 64],
                mirror,
                out,
                shift,
                mix,
                zscore,
                Augment(),
                1,
            )

    def copy():
        for i in range(0, n, 64):
            np.copyto(out, X[i : i + 64])

    ours()
    same = (out == X[order[n - 64 :]]).all()
    mine, scored, theirs = in_turn(rounds, ours, lambda: ours(True), copy)
    good = row(
        "gather, random windows",
        mine,
        theirs,
        goal=1 / 0.6,
        least=False,
        same=same,
        note=f"{n * X[0].nbytes / 1e9 / statistics.median(mine):.1f} GB/s",
    )
    return row("gather and z-score", scored, theirs, least=False) and good


def bench_augment(rounds):
    """Every augmentation at once on batches of 64, fused into the gather, against the same, gather and all, written with torch operations. All cores each."""
    import numpy as np
    import torch
    from eeg._native import Augment, gather

    from eeg.data.augment import mirrored

    cache = training_cache()
    X, mirror = cache.parts[0], mirrored(cache.channels)
    B, C, T, margin = 64, X.shape[1], cache.window_samples, cache.margin_samples
    rows = np.random.default_rng(0).permutation(len(cache))[:B].astype(np.int64)
    out, shift, mix, zero = (
        np.empty((B, C, T), np.float32),
        np.zeros(B, np.int32),
        np.zeros(B, np.float32),
        np.zeros(B, np.int32),
    )
    everything = Augment(
        seed=1,
        epoch=1,
        shift=margin,
        scale=0.2,
        dropout=0.1,
        noise=0.01,
        mask=0.1,
        mirror=0.5,
        mix=0.2,
    )
    other, steps = torch.from_numpy(mirror).long(), torch.arange(T)
    beta = torch.distributions.Beta(0.2, 0.2)

    def ours():
        gather([X], zero, rows, zero + margin, rows, mirror, out, shift, mix, False, everything, 0)

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

    ours()
    a, b = np.abs(out).mean(), float(np.mean([theirs()[0].abs().mean() for _ in range(5)]))
    same = (
        abs(a / b - 1) < 0.1 and abs((out == 0).all(2).mean() - 0.1) < 0.03
    )  # other draws of the same distribution
    mine, peer = in_turn(max(rounds, 15), ours, lambda: theirs() and None)
    return row("augment, everything on", mine, peer, 10, copy_seconds(out.nbytes), same=same)


def bench_features(rounds):
    """Neuroscience features: all of them of 41,071 windows, and those that mne-features has too, by both. All cores for ours, one process for theirs."""
    import numpy as np

    from eeg import _native
    from eeg.data.features import compute
    from eeg.models.montage import LAGS

    cache = training_cache()
    X = np.ascontiguousarray(
        cache.parts[0][:, :, cache.margin_samples : cache.margin_samples + cache.window_samples]
    )
    total, lagged = 41071, np.empty((512, len(LAGS), 4), np.float32)

    def whole(work):
        done = 0
        while done < total:
            chunk = X[done % (len(X) - 512) :][: min(512, total - done)]
            work(chunk)
            done += len(chunk)

    def only_lagged(chunk):
        _native.lagged_correlations(
            chunk, 0, 200, np.array(LAGS, np.int32), lagged[: len(chunk)], 0
        )

    everything, late = in_turn(1, lambda: whole(compute), lambda: whole(only_lagged))
    rest = [a - b for a, b in zip(everything, late)]
    good = (
        row(
            "41,071 windows, not lagged",
            rest,
            note=f"goal < 10 s {'met' if rest[0] < 10 else 'NOT MET'}",
        )
        and rest[0] < 10
    )
    good &= (
        row(
            "41,071 windows, lagged",
            late,
            note=f"goal < 20 s {'met' if late[0] < 20 else 'NOT MET'}",
        )
        and late[0] < 20
    )

    # Like with like: the 8 features that both have, of every channel. The peer takes its float64, ours what a cache holds.
    peer = Peer()
    few = X[:256]
    n, file = few.shape[1], str(peer.folder / "x.npy")
    np.save(file, few.astype(np.float64))
    peer("features", file=file, save=True)
    theirs = peer.array("features").reshape(len(few), -1)
    ours = np.empty((len(few), n, 10), np.float32)
    share = lambda: _native.channel_features(few, 0, few.shape[2], ours, 0)
    share()
    own = np.concatenate(
        [ours[:, :, 6], ours[:, :, 7], ours[:, :, 8], ours[:, :, :5].reshape(len(few), -1)], 1
    )
    known = np.isfinite(own)  # a flat channel is NaN here, and a warning and 0 / 0 there
    same = np.allclose(own[known], theirs[known], rtol=1e-5) and known.mean() > 0.9
    mine, yours = in_turn(rounds, share, lambda: peer("features", file=file)["seconds"])
    peer.close()
    good &= row(
        f"{len(few)} windows, mne-features",
        mine,
        yours,
        60,
        same=same,
        note=f"the 8 features both have, of {n} channels",
    )
    return good


def bench_depthwise(rounds):
    """DepthwiseConv1d against torch's conv1d(groups=channels): forward, input and weight gradient. All cores each."""
    import torch
    from torch.nn import functional as F

    from eeg.models.layers import DepthwiseConv1d

    torch.manual_seed(0)
    good = True
    for B, C, T, K, dilation in (
        (64, 129, 200, 15, 1),
        (64, 160, 200, 15, 8),
        (64, 160, 200, 7, 4),
    ):
        layer = DepthwiseConv1d(C, K, dilation, bias=False)
        x, up = torch.randn(B, T, C, requires_grad=True), torch.randn(B, T, C)
        first, up_first = (
            x.detach().transpose(1, 2).contiguous().requires_grad_(),
            up.transpose(1, 2).contiguous(),
        )  # torch's own layout

        def ours():
            y = layer(x)
            return y.detach(), *torch.autograd.grad(y, (x, layer.weight), up)

        def theirs():
            y = F.conv1d(
                first, layer.weight, padding=K // 2 * dilation, dilation=dilation, groups=C
            )
            return y.detach(), *torch.autograd.grad(y, (first, layer.weight), up_first)

        (y, gx, gw), (y1, gx1, gw1) = ours(), theirs()
        same = all(
            (a - b).abs().max() <= 1e-5 * b.abs().max()
            for a, b in ((y, y1.transpose(1, 2)), (gx, gx1.transpose(1, 2)), (gw, gw1))
        )
        mine, peer = in_turn(max(rounds, 15), lambda: ours() and None, lambda: theirs() and None)
        good &= row(
            f"depthwise {C} x {K}, dilation {dilation}",
            mine,
            peer,
            5 if C == 129 else None,
            copy_seconds(5 * x.nbytes) / 2,
            same=same,
        )
    return good


def bench_eegnex(rounds):
    """EEGNeX against braindecode's, both at their default settings with AdamW. Ours keeps freed memory, as the trainer does."""
    import copy

    import torch

    from eeg.machine.device import keep_freed_memory
    from eeg.models.eegnex import EEGNeX, from_braindecode

    keep_freed_memory()
    peer, own = Peer(), Peer(sys.executable)
    torch.manual_seed(0)
    net, x, y = EEGNeX(), torch.randn(128, 129, 200), torch.randn(128, 1)
    folded = net.folded()
    good = True

    def close(ours, theirs, tolerance):
        return bool((ours - theirs).norm() <= tolerance * theirs.norm())

    for name, batch, train, goal in (
        ("EEGNeX step, batch 128", 128, True, 120),
        ("EEGNeX folded, batch 128", 128, False, 200),
        ("EEGNeX folded, batch 1", 1, False, 20),
    ):
        peer("eegnex", batch=batch, train=train, first=True)
        theirs = torch.load(peer.folder / "eegnex.pt", weights_only=True)
        twin = from_braindecode(EEGNeX(drop_prob=0.0), theirs["before"])
        loss = torch.nn.functional.mse_loss(twin(theirs["x"]), theirs["y"])
        loss.backward()
        wanted = dict(
            from_braindecode(
                copy.deepcopy(twin), theirs["after"] | theirs["grads"]
            ).named_parameters()
        )
        same = close(loss, theirs["loss"], 1e-5) and all(
            close(p.grad, wanted[key], 1e-4)
            for key, p in twin.named_parameters()
            if not key.startswith("bn2")
        )  # those are 0 but for rounding
        same &= close(twin.folded()(theirs["x"]), theirs["answer"], 1e-5)
        work = training(net, x, y) if train else answering(folded, x[:batch])
        ours, yours = in_turn(
            rounds,
            lambda: measured(work, 20)["seconds"],
            lambda: peer("eegnex", batch=batch, train=train)["seconds"],
        )
        good &= row(name, ours, yours, goal, same=same)
    takes = [
        [own("own eegnex", batch=128)["bytes"]],
        [peer("eegnex", batch=128, train=True, memory=True)["bytes"]],
    ]
    peer.close(), own.close()
    return row("EEGNeX step, memory it takes", *takes, goal=5, show=megabytes) and good


def plain_tcn():
    """The network of eeg/models/tcn.py as one would write it with torch's own layers: (B, 129, 200) -> (B, 200)."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Plain(nn.Module):
        def __init__(self, C=129, W=160, K=15):
            super().__init__()
            self.filter, self.mix, self.norm = (
                nn.Conv1d(C, C, K, padding=K // 2, groups=C, bias=False),
                nn.Conv1d(C, W, 1, bias=False),
                nn.BatchNorm1d(W),
            )
            separable = lambda d: (
                nn.Conv1d(W, W, K, padding=K // 2 * d, dilation=d, groups=W, bias=False),
                nn.Conv1d(W, W, 1, bias=False),
                nn.BatchNorm1d(W),
                nn.ReLU(),
                nn.Dropout1d(0.1),
            )
            self.blocks = nn.ModuleList(nn.Sequential(*separable(2**i)) for i in range(4))
            self.squeeze, self.excite, self.last = (
                nn.Linear(W, W // 8),
                nn.Linear(W // 8, W),
                nn.Conv1d(W, 1, 1),
            )

        def forward(self, x):
            x = F.relu(self.norm(self.mix(self.filter(x))))
            for block in self.blocks:
                x = x + block(x)
            gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(2)))))
            return self.last(x * gate[:, :, None]).squeeze(1)

    return Plain()


def same_tcn(batch, seed=0):
    """Our tcn and the plain one with its weights, without dropout, on a batch. -> the greatest relative difference of their scores and gradients.

    Shifts of +6 and -6 before each ReLU: a value within rounding of 0 would have a gradient in one and none in the other.
    """
    import torch

    from eeg.models.tcn import TCN

    torch.manual_seed(seed)
    ours, plain = TCN(dropout=0.0), plain_tcn()
    x, up = torch.randn(batch, 129, 200), torch.randn(batch, 200)
    with torch.no_grad():
        for key, p in ours.named_parameters():
            if key.endswith(("norm.bias", "squeeze.bias")):
                p.fill_(6.0)[::2] *= -1
        for p, q in zip(ours.parameters(), plain.parameters(), strict=True):
            q.copy_(p.view_as(q))
        for block in plain.blocks:
            block[-1].p = 0.0
    results = []
    for net in (ours, plain):
        scores = net(x)
        (scores * up).sum().backward()
        results.append([scores.detach(), *(p.grad for p in net.parameters())])
    return max(float((a - b.view_as(a)).norm() / b.norm()) for a, b in zip(*results))


def bench_tcn(rounds):
    """A training step of tcn against the same network in nn.Conv1d, AdamW each. Ours keeps freed memory, as the trainer does; the other runs in a process of its own, as torch is."""
    import torch

    from eeg.machine.device import keep_freed_memory
    from eeg.models.tcn import TCN

    keep_freed_memory()
    difference = same_tcn(64)
    ours, peer = training(TCN(), torch.randn(64, 129, 200), torch.randn(64, 200)), Peer()
    mine, theirs = in_turn(
        rounds,
        lambda: measured(ours, 10)["seconds"],
        lambda: peer("plain tcn", batch=64)["seconds"],
    )
    peer.close()
    return row(
        "tcn step, batch 64",
        mine,
        theirs,
        4,
        same=difference < 1e-4,
        note=f"gradients differ by {difference:.0e}",
    )


def plain_epochs(cache, epochs):
    """Training tcn as one would write it with torch alone: h5py windows through a DataLoader with two workers, nn.Conv1d, AdamW, the same loss. -> seconds of each epoch after the first."""
    import h5py
    import torch

    from eeg.train.losses import loss

    class Windows(torch.utils.data.Dataset):
        def __init__(self):
            self.file, self.y = None, torch.from_numpy(cache.y).float()

        def __len__(self):
            return len(self.y)

        def __getitem__(self, i):
            self.file = self.file or h5py.File(
                cache.paths[0], "r", locking=False
            )  # each worker its own
            x = torch.from_numpy(self.file["X"][i, :, 25:225])
            return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True).clamp_min(1e-3), self.y[i]

    class Head:
        head, n_outputs, aux, moments = "time", 1, (), 0.5 + torch.arange(200) / 100

        def answer(self, raw):
            return (raw.softmax(1) @ self.moments)[:, None]

    net, times = plain_tcn(), []
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1e-2)
    batches = torch.utils.data.DataLoader(
        Windows(), 64, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True
    )
    for _ in range(epochs + 1):
        start = time.perf_counter()
        for x, y in batches:
            optimizer.zero_grad()
            loss("time", Head(), net(x), y[:, None]).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        times.append(time.perf_counter() - start)
    return times[1:]


def bench_train(rounds):
    """run/train.py's epochs of tcn, augmentation, averaged weights and validation included, against plain torch without them; and from the command to the first batch."""
    cache = training_cache()
    out = DATA / "experiments"
    shutil.rmtree(out, ignore_errors=True)
    command = [
        sys.executable,
        "-u",
        ROOT / "run" / "train.py",
        "--challenge",
        "1",
        "--cache",
        cache.paths[0].parent,
        "--out",
        out,
        "--patience",
        "1000",
        "--keep-copies",
        "--epochs",
    ]
    subprocess.run(
        [*command, "1"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # which measures the precisions
    shutil.rmtree(out)
    start = time.perf_counter()
    process = subprocess.Popen([*command, str(rounds + 1)], stdout=subprocess.PIPE, text=True)
    first = None
    while process.poll() is None and first is None:
        states = [json.loads(path.read_text()) for path in out.glob("*/*/state.json")]
        if any(state.get("batch") for state in states):
            first = time.perf_counter() - start
        time.sleep(0.01)
    process.communicate()
    if process.returncode or first is None:
        raise UserError(f"run/train.py ended with exit code {process.returncode}")
    (timing,) = (json.loads(path.read_text())["epochs"] for path in out.glob("*/*/timing.json"))
    (config,) = (json.loads(path.read_text()) for path in out.glob("*/*/config.json"))
    mine = [1 / entry["windows_per_second"] for entry in timing[1:]]
    theirs = [
        seconds / (len(cache) // 64 * 64) for seconds in plain_epochs(cache, max(1, rounds // 2))
    ]
    good = row(
        "train tcn, a window",
        mine,
        theirs,
        4,
        note=f"{config['precision']}, {1 / statistics.median(mine):,.0f} windows/s, validation included",
    )
    share, memory = (
        min(entry["model_share"] for entry in timing),
        max(entry["memory"] for entry in timing),
    )
    kept = [
        ("to the first batch, goal < 5 s", first < 5, f"{first:.1f} s"),
        ("of an epoch in the model, goal >= 90 %", share >= 0.9, f"{100 * share:.1f} %"),
        ("of its own memory, goal < 1500 MB", memory < 1.5e9, f"{memory / 1e6:.0f} MB"),
    ]
    for what, met, figure in kept:
        print(f"  {figure} {what} {'met' if met else 'NOT MET'}")
    return good and all(met for _, met, _ in kept)


def cache_of_zeros(source, size):
    """A cache of about `size` bytes in a file that takes next to none: the windows of `source` again and again, all samples 0. -> its folder."""
    import h5py
    import numpy as np

    path = DATA / f"zeros_{size >> 20}" / source.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(source) as old, h5py.File(path, "w", libver="v110", locking=False) as new:
        windows = np.arange(size // old["X"][0].nbytes) % len(old["X"])
        new.attrs.update(old.attrs)
        for name, rows in (("y", windows), ("metadata", windows), ("recordings", slice(None))):
            new[name] = old[name][()][rows]
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        (
            layout.set_layout(h5py.h5d.CONTIGUOUS),
            layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY),
            layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER),
        )
        h5py.h5d.create(
            new.id,
            b"X",
            h5py.h5t.py_create(old["X"].dtype),
            h5py.h5s.create_simple((len(windows), *old["X"].shape[1:])),
            layout,
        )
    return path.parent


def trained_for(seconds, folder, settle=3):
    """Have run/train.py train from the caches of a folder for some seconds after it has settled. -> (seconds a window, bytes of its own at most)."""
    out = folder / "experiments"
    shutil.rmtree(out, ignore_errors=True)
    process = subprocess.Popen(
        [
            sys.executable,
            ROOT / "run" / "train.py",
            "--challenge",
            "1",
            "--cache",
            folder,
            "--out",
            out,
            "--keep-copies",
            "--amp",
            "off",
        ],
        stdout=subprocess.DEVNULL,
    )
    seen = []
    while process.poll() is None and (
        not seen or seen[-1]["updated"] - seen[0]["updated"] < settle + seconds
    ):
        time.sleep(0.05)
        for path in out.glob("*/*/state.json"):
            state = json.loads(path.read_text())
            if state.get("batch") and (not seen or state["updated"] > seen[-1]["updated"]):
                seen.append(state)
    process.terminate()
    if process.wait():
        raise UserError(f"run/train.py ended with exit code {process.returncode}")
    if not seen or seen[-1]["epoch"] != 1:
        raise UserError(
            f"an epoch of the cache in {folder} is shorter than the {settle + seconds} s that were to be measured"
        )
    first = next(state for state in seen if state["updated"] >= seen[0]["updated"] + settle)
    return (seen[-1]["updated"] - first["updated"]) / (
        64 * (seen[-1]["batch"] - first["batch"])
    ), max(state["memory"] for state in seen)


def bench_large(rounds, seconds=20):
    """run/train.py with a cache half again as large as the memory, against one of a fifth of it that lies in the page cache. It shall be no slower; 0.95 is what two runs of the same may differ by."""
    from eeg.machine.memory import limit_bytes

    source, memory = training_cache().paths[0], limit_bytes()
    small, large = cache_of_zeros(source, memory // 5), cache_of_zeros(source, memory * 3 // 2)
    taken = []

    def train(folder):
        if folder == small:
            subprocess.run(["cat", folder / source.name], check=True, stdout=subprocess.DEVNULL)
        each, most = trained_for(seconds, folder)
        taken.append(most)
        return each

    mine, theirs = in_turn(rounds, lambda: train(large), lambda: train(small))
    good = row(
        "train from a cache > memory",
        mine,
        theirs,
        0.95,
        note=f"{os.stat(large / source.name).st_size / 1e9:.0f} GB, {1 / statistics.median(mine):,.0f} windows/s; its peer: the same from {os.stat(small / source.name).st_size / 1e9:.0f} GB in the page cache",
    )
    print(
        f"  {max(taken) / 1e6:.0f} MB of its own memory at most, goal < 1500 MB {'met' if max(taken) < 1.5e9 else 'NOT MET'}"
    )
    return good and max(taken) < 1.5e9


def bench_latency(rounds, steps=60):
    """Every model at every precision: time of 1 and of 128 windows, size, what an answer and NRMSE change.

    NRMSE is that of windows of other subjects after a short training on simulated windows: a model that says the mean whatever it sees loses nothing by any rounding.
    """
    import numpy as np
    import torch

    from eeg.data.features import compute
    from eeg.models import MODELS, build, defaults
    from eeg.models.precision import LIMITS, at_precision, change, passes, size

    cache = training_cache()
    X = np.ascontiguousarray(
        cache.parts[0][:, :, cache.margin_samples : cache.margin_samples + cache.window_samples],
        np.float32,
    )
    names = np.unique(cache.metadata["subject"])
    test = np.isin(cache.metadata["subject"], names[: len(names) // 4])
    x, y, known = (
        torch.from_numpy(X),
        torch.from_numpy(cache.y).float()[:, None],
        torch.from_numpy(compute(X)),
    )
    median = known[~test].nanmedian(0).values
    mad = (known[~test] - median).abs().nanmedian(0).values.clamp(min=1e-6)
    print(
        f"{'':<13}{'precision':<12}{'batch 1':<26}{'batch 128':<26}{'size':<10}{'answer moves':<14}NRMSE ({steps} steps of training, {test.sum()} windows of other subjects)"
    )
    good = True
    for name in MODELS:
        torch.manual_seed(0)
        model = build(
            name, **({"head": "time"} if "head" in defaults(name) else {})
        )  # what learns a response time soonest
        model.center.fill_(y[~test].mean()), model.scale.fill_(y[~test].std())
        if model.features != "none":
            model.median.copy_(median), model.mad.copy_(mad)
        inputs = lambda rows: (x[rows], known[rows]) if model.features == "file" else (x[rows],)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for rows in torch.from_numpy(
            np.random.default_rng(0).choice(np.flatnonzero(~test), (steps, 64))
        ):
            optimiser.zero_grad()
            torch.nn.functional.mse_loss(model(*inputs(rows)), y[rows]).backward()
            optimiser.step()
        model.eval()
        rest = torch.from_numpy(np.flatnonzero(test))
        one, many = inputs(rest[:1]), inputs(rest[:128])
        for precision in (None, *LIMITS):
            form = model if precision is None else at_precision(model, precision)
            times = 1 if precision == "fp16" else rounds  # many processors compute it slowly
            single, whole = (
                in_turn(max(times, 3), answering(form, *one))[0],
                in_turn(times, answering(form, *many))[0],
            )
            figures = change(
                model, form, x[rest], y[rest], known[rest] if model.features == "file" else None
            )
            fate = (
                f"{figures['before']:.4f}"
                if precision is None
                else f"{figures['nrmse']:+.5f}"
                + ("" if passes(precision, figures) else "  REFUSED")
            )
            late = statistics.median(single) >= 0.015
            print(
                f"{name if precision is None else '':<13}{precision or 'as trained':<12}{duration(single):<26}{duration(whole):<26}{size(form) / 1e3:<7.0f}kB {figures['answer']:<14.1e}{fate}{'  NOT under 15 ms' if late else ''}",
                flush=True,
            )
            good &= not late or precision == "fp16"
    return good


def bench_evaluate(rounds):
    """Predicting whole releases: 10,000 windows by tcn, and the windows of a release by EEGNeX against the start kit's loop, which takes one window at a time. Windows are made before."""
    import h5py
    import numpy as np
    import torch

    from eeg.data.cache import Cache, Settings, build
    from eeg.data.release import find_release
    from eeg.machine.device import keep_freed_memory
    from eeg.models import build as build_model
    from eeg.models.eegnex import from_braindecode
    from eeg.score.predict import predict

    keep_freed_memory()
    cache, tcn = training_cache(), build_model("tcn")
    start = time.perf_counter()
    predict(tcn, cache, np.arange(10000) % len(cache))
    seconds = [time.perf_counter() - start]
    good = (
        row(
            "10,000 windows, tcn",
            seconds,
            note=f"goal < 20 s {'met' if seconds[0] < 20 else 'NOT MET'}",
        )
        and seconds[0] < 20
    )

    folder, peer = simulated("R1", 20), Peer()
    lost = peer("windows", root=str(folder.parent), challenge=1)["lost"]
    kit = [
        peer("windows", root=str(folder.parent), challenge=1, lost=lost, score=True)["seconds"]
    ]  # once: it takes long enough to need no median
    cache = Cache(build(find_release("R1", DATA / "data"), Settings(1), DATA).path)
    with h5py.File(cache.paths[0], "r") as f:
        names = np.array([Path(name.decode()).name for name in f["recordings"][()]])
    rows = np.flatnonzero(~np.isin(names[cache.metadata["recording"]], lost))
    model = build_model("eegnex")
    from_braindecode(model.network, torch.load(peer.folder / "network.pt", weights_only=True))
    volts = lambda model, x, features: model.network(
        x * 1e-6
    )  # as the kit has them; it does not normalise
    same = np.allclose(
        predict(model, cache, rows, volts)[:, 0], peer.array("answers"), rtol=1e-3, atol=1e-5
    )

    def ours():
        predict(model, cache, rows, volts)

    mine = in_turn(rounds, ours)[0]
    peer.close()
    return row("evaluate, EEGNeX", mine, kit, same=same, note=f"{len(rows):,} windows") and good


def bench_coverage(rounds):
    """How often the 95 % intervals of the NRMSE, and of the difference of two, hold the truth, by the number of subjects."""
    from eeg.bench.coverage import POPULATIONS, REPETITIONS, SUBJECTS, coverage, truth
    from eeg.score.metrics import FEW

    print(
        f"coverage of the 95 % intervals, {REPETITIONS:,} simulated test sets each; * not within 93 .. 97 %"
    )
    print(f"{'subjects':<52}" + "".join(f"{subjects:>8}" for subjects in SUBJECTS))
    good = True
    for name, population in POPULATIONS.items():
        true = truth(population)
        shares = [coverage(population, subjects, true=true) for subjects in SUBJECTS]
        titles = (f"{name}: {true[0]:.3f}", f"  its difference from {true[1]:.3f}")
        for title, own in zip(titles, zip(*shares)):
            cells = [f"{100 * share:.1f}{' ' if 0.93 <= share <= 0.97 else '*'}" for share in own]
            print(f"{title:<52}" + "".join(f"{cell:>8}" for cell in cells), flush=True)
            good &= all(share >= 0.93 for share, subjects in zip(own, SUBJECTS) if subjects >= FEW)
    print(f"with fewer than {FEW} subjects no interval is shown anywhere else")
    return good


ROWS = {
    "cache": bench_cache,
    "decode": bench_decode,
    "linear": bench_linear,
    "gather": bench_gather,
    "augment": bench_augment,
    "features": bench_features,
    "depthwise": bench_depthwise,
    "eegnex": bench_eegnex,
    "tcn": bench_tcn,
    "train": bench_train,
    "large": bench_large,
    "latency": bench_latency,
    "evaluate": bench_evaluate,
    "coverage": bench_coverage,
}


def main():
    if sys.argv[1:2] == ["--peer"]:
        return serve_peer(int(sys.argv[2]), sys.argv[3])
    p = cli.parser(__doc__)
    p.add_argument(
        "rows",
        nargs="*",
        metavar="NAME",
        help=f"rows to run: {', '.join(ROWS)} (default: all but coverage)",
    )
    p.add_argument(
        "--rounds",
        type=cli.positive,
        default=5,
        metavar="N",
        help="how often each is timed (default 5)",
    )
    args = p.parse_args()
    if unknown := [name for name in args.rows if name not in ROWS]:
        p.error(f"no row '{unknown[0]}'; the rows are {', '.join(ROWS)}")
    rows = args.rows or [name for name in ROWS if name != "coverage"]
    if rows != ["coverage"]:
        print(f"{'simulated data':<30}{'ours: median (range)':<26}{'peer':<26}ratio")
    good = [ROWS[name](args.rounds) for name in rows]
    return 0 if all(good) else 1


if __name__ == "__main__":
    cli.run(main)
