"""What a user would otherwise use: the start kit, EEGDash, braindecode, mne-features.

They live in an environment of their own (`make peers`). A Peer is a child process in it,
`python -m eeg.bench.peers`, which does the work named in WORK.
"""

import json
import logging
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
import types
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from eeg import UserError
from eeg.bench.measure import ROOT, inference, median_seconds, peak_bytes, training_step
from eeg.models.montage import BANDS

PEERS = ROOT / "build" / "peers" / "bin" / "python"


class Peer:
    """A child process in the peers' environment, or with another `python`, that speaks JSON."""

    def __init__(self, python: Path | str = PEERS):
        if not Path(python).exists():
            folder = PEERS.relative_to(ROOT)
            raise UserError(f"the peers' environment is missing ({folder}); run: make peers")
        self.folder = Path(tempfile.mkdtemp(prefix="bench"))
        command = [python, "-m", "eeg.bench.peers", str(self.folder)]
        how = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        here = os.environ | {"PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(command, env=here, **how)

    def __call__(self, work: str, **arguments) -> dict:
        """Asks for one of WORK. -> its answer; `seconds` is the time it took, where it is timed."""
        self._process.stdin.write(json.dumps([work, arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise UserError(f"the peer ended during '{work}'; its own message is above")
        return json.loads(answer)

    def array(self, name: str):
        """An array that it has saved."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)


# --------------------------------------------------------------------------------- the start kit


def kit_windows(root, challenge, out, lost=None, score=False):
    """Sends every window of release R1 through the start kit's pipeline, as its local scoring does.

    Without `lost` it saves the windows, and finds the recordings that the kit drops whole because
    their last window reaches past their end; with it, it leaves these out. score: EEGNeX answers
    the windows one at a time, as in the kit; weights and answers are saved, and only this is timed.
    """
    from eegdash import EEGChallengeDataset

    start = time.perf_counter()
    query = {"task": "contrastChangeDetection"}
    data = EEGChallengeDataset("R1", root, mini=False, query=query, download=False)
    save = lost is None
    if challenge == 1:
        windows, lost = _kit_trials(data, lost)
    else:
        windows, lost = _kit_crops(data, root), []
    X = np.empty((len(windows), 129, 200 * challenge), np.float32)
    y, answers = np.empty(len(windows)), np.empty(len(windows))
    if score:
        network = _kit_network(out)
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
        _save_windows(windows, X, y, challenge, out)
    return {"seconds": seconds, "windows": len(X), "lost": lost}


def _file_name(recording):
    return Path(recording.raw.filenames[0]).name


def _kit_trials(data, lost):
    """The kit's windows of challenge 1. -> (windows, names of the recordings left out)."""
    from braindecode.datasets.base import BaseConcatDataset
    from braindecode.preprocessing import Preprocessor, create_windows_from_events, preprocess
    from eegdash.hbn import windows as hbn

    target = dict(target_field="rt_from_stimulus", epoch_length=2.0)
    target |= dict(require_stimulus=True, require_response=True)
    steps = [
        Preprocessor(hbn.annotate_trials_with_target, apply_on_array=False, **target),
        Preprocessor(hbn.add_aux_anchors, apply_on_array=False),
    ]
    preprocess(data, steps, n_jobs=1)
    data = hbn.keep_only_recordings_with("stimulus_anchor", data)
    window = dict(mapping={"stimulus_anchor": 0}, preload=True)
    window |= dict(trial_start_offset_samples=50, trial_stop_offset_samples=250)
    window |= dict(window_size_samples=200, window_stride_samples=100)
    if lost is None:
        lost = []
        for recording in data.datasets:
            try:
                create_windows_from_events(BaseConcatDataset([recording]), **window)
            except ValueError as e:
                assert "trial_stop_offset_samples" in str(e), e
                lost.append(_file_name(recording))
    data = BaseConcatDataset([d for d in data.datasets if _file_name(d) not in lost])
    windows = create_windows_from_events(data, **window)
    return hbn.add_extras_columns(windows, data, desc="stimulus_anchor"), lost


def _kit_crops(data, root):
    """The kit's 4 s windows of challenge 2."""
    import pandas as pd
    from braindecode.datasets.base import BaseConcatDataset
    from braindecode.preprocessing import create_fixed_length_windows

    participants = next(Path(root).glob("EEG2025r1/participants.tsv"))
    labels = pd.read_csv(participants, sep="\t", index_col="participant_id")["externalizing"]
    for recording in data.datasets:  # offline, EEGDash does not read the factors
        label = labels.get(f"sub-{recording.description['subject']}", math.nan)
        recording.set_description({"externalizing": label}, overwrite=True)
    known = lambda d: d.raw.n_times >= 400 and not math.isnan(d.description["externalizing"])
    data = BaseConcatDataset([d for d in data.datasets if known(d)])
    window = dict(window_size_samples=400, window_stride_samples=200, drop_last_window=True)
    return create_fixed_length_windows(data, **window)


def _kit_network(out):
    from braindecode.models import EEGNeX

    torch.manual_seed(0)
    network = EEGNeX(n_chans=129, n_times=200, n_outputs=1).eval()
    torch.save(network.state_dict(), Path(out, "network.pt"))
    return network


def _save_windows(windows, X, y, challenge, out):
    if challenge == 2:
        labels = [np.full(len(d), float(d.description["externalizing"])) for d in windows.datasets]
        y = np.concatenate(labels)
    starts = [d.metadata["i_start_in_trial"].to_numpy() for d in windows.datasets]
    names = [_file_name(d) for d in windows.datasets for _ in range(len(d))]
    arrays = dict(X=X, y=y, starts=np.concatenate(starts), names=np.array(names))
    for key, array in arrays.items():
        np.save(Path(out, f"{key}.npy"), array)


def kit_trials(files, out):
    """The trials that the public builder finds in events files. -> a list of rows for each file."""
    import pandas as pd
    from eegdash.hbn.windows import build_trial_table

    columns = ["trial_start_onset", "stimulus_onset", "response_onset", "rt_from_stimulus"]
    columns += ["rt_from_trialstart", "correct", "response_type"]

    def rows(file):
        table = build_trial_table(pd.read_csv(file, sep="\t"))
        if not len(table):
            return []
        table = table[columns]
        return table.astype(object).where(table.notna(), None).values.tolist()

    return {"tables": [rows(file) for file in files]}


# ------------------------------------------------------------------------- features and networks


def mne_features(file, out, save=False):
    """The features that mne-features shares with ours, of windows (N, C, T) in a .npy file."""
    from mne_features.feature_extraction import extract_features

    X = np.load(file)
    names = ["hjorth_mobility", "hjorth_complexity", "line_length", "pow_freq_bands"]
    bands = dict(freq_bands=BANDS, normalize=False, psd_method="fft")
    settings = {f"pow_freq_bands__{name}": value for name, value in bands.items()}
    start = time.perf_counter()
    values = extract_features(X, 100.0, names, settings)
    seconds = time.perf_counter() - start
    if save:
        np.save(Path(out, "features.npy"), values)
    return {"seconds": seconds}


def _braindecode_eegnex(batch):
    """braindecode's EEGNeX at 129 x 200 -> 1, and a batch for it."""
    from braindecode.models import EEGNeX

    torch.manual_seed(0)
    network = EEGNeX(n_chans=129, n_times=200, n_outputs=1)
    return network, torch.randn(batch, 129, 200), torch.randn(batch, 1)


def eegnex(batch, train, out):
    """The time of a training step, or of an answer, of braindecode's EEGNeX."""
    network, x, y = _braindecode_eegnex(batch)
    work = training_step(network, x, y) if train else inference(network, x)
    return {"seconds": median_seconds(work, 1 if batch > 1 else 20)}


def training_memory(batch, own, out):
    """The memory that a training step of EEGNeX takes: our own, or braindecode's."""
    network, x, y = _own_eegnex(batch) if own else _braindecode_eegnex(batch)
    return {"bytes": peak_bytes(training_step(network, x, y))}


def eegnex_results(batch, out):
    """Saves weights, data and results of braindecode's EEGNeX, computed without dropout."""
    network, x, y = _braindecode_eegnex(batch)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    loss = torch.nn.functional.mse_loss(network(x), y)
    loss.backward()
    saved = dict(before=before, x=x, y=y, loss=loss.detach(), after=network.state_dict())
    saved["grads"] = {name: p.grad for name, p in network.named_parameters()}
    saved["answer"] = network.eval()(x).detach()
    torch.save(saved, Path(out, "eegnex.pt"))
    return {}


def _own_eegnex(batch):
    from eeg.machine.device import keep_freed_memory
    from eeg.models.eegnex import EEGNeX

    keep_freed_memory()
    return EEGNeX(), torch.randn(batch, 129, 200), torch.randn(batch, 1)


def plain_tcn_step(batch, out):
    """The time of a training step of plain_tcn."""
    from eeg.bench.plain import plain_tcn

    step = training_step(plain_tcn(), torch.randn(batch, 129, 200), torch.randn(batch, 200))
    return {"seconds": median_seconds(step, 5)}


# ------------------------------------------------------------------------------ the child process


def versions(out):
    """The versions of the peers and of what they stand on."""
    names = ("torch", "braindecode", "eegdash", "mne-features", "mne", "numpy", "pandas")
    return {name: version(name) for name in names}


WORKS = (kit_windows, kit_trials, mne_features, eegnex, eegnex_results, training_memory)
WORK = {work.__name__: work for work in (*WORKS, plain_tcn_step, versions)}


def stand_in_for_torchaudio() -> None:
    """Defines what braindecode imports, but does not call, from torchaudio: it has no CPU build."""
    for module, names in {
        "torchaudio": (),
        "torchaudio.functional": ("fftconvolve", "filtfilt", "lfilter"),
        "torchaudio.transforms": ("Resample", "Spectrogram", "MelSpectrogram"),
    }.items():
        sys.modules[module] = types.ModuleType(module)
        for name in names:
            setattr(sys.modules[module], name, object)
    sys.modules["torchaudio"].functional = sys.modules["torchaudio.functional"]


def serve(out: str) -> None:
    """The loop of the child process, which saves arrays in the folder `out`."""
    stand_in_for_torchaudio()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries print too
    for line in sys.stdin:
        work, arguments = json.loads(line)
        print(json.dumps(WORK[work](out=out, **arguments)), file=answers)


if __name__ == "__main__":
    serve(sys.argv[1])
