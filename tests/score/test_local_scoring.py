"""The start kit's own scoring, run as it is on a submission.zip, against this project's predictions and metric.

It needs the peers' environment (`make bench` makes it) and the file: EEG_LOCAL_SCORING=.../local_scoring.py, from the competition's start kit.
"""

import os
import pickle
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import eeg.models
from eeg.data.cache import Cache, Settings, build
from eeg.data.release import find_release
from eeg.data.synth import draw_subject, simulate_release
from eeg.score.metrics import nrmse
from eeg.score.predict import predict
from eeg.score.submission import Entry, write_zip

PEERS = Path(__file__).resolve().parents[2] / "build" / "peers" / "bin" / "python"

# What the file needs to run here: a data set that is on the disk, names of torchaudio, which braindecode imports and nothing
# here calls, in every process that joblib starts; and, for a fork that calls submission.py otherwise, its name.
LAUNCH = """
import runpy, sys
import eegdash
import pandas as pd
script, zip_, data, out = sys.argv[1:]
people = pd.read_csv(f"{data}/EEG2025r5/participants.tsv", sep="\\t", index_col="participant_id")["externalizing"]
download = eegdash.EEGChallengeDataset

def on_disk(*arguments, **settings):
    if "description_fields" in settings:
        settings["description_fields"] = ["subject", *settings["description_fields"]]
    found = download(*arguments, **settings, download=False)
    for recording in found.datasets:  # offline, the factors come as text
        recording.set_description({"externalizing": people[f"sub-{recording.description['subject']}"]}, overwrite=True)
    return found

eegdash.EEGChallengeDataset = on_disk
sys.argv = [script, "--submission-zip", zip_, "--data-dir", data, "--output-dir", out]
runpy.run_path(script, run_name="__main__")
"""
BESIDE = {
    "torchaudio/__init__.py": "from torchaudio import functional, transforms\n",
    "torchaudio/functional.py": "fftconvolve = filtfilt = lfilter = None\n",
    "torchaudio/transforms.py": "Resample = Spectrogram = MelSpectrogram = object\n",
    "submission_longdang.py": "from submission import Submission\n",
}


@pytest.fixture
def script():
    path = Path(os.environ.get("EEG_LOCAL_SCORING", ""))
    if not path.is_file():
        pytest.skip("no local_scoring.py: name the start kit's with EEG_LOCAL_SCORING")
    if not PEERS.exists():
        pytest.skip("no peers' environment (build/peers): `make bench` makes it")
    return path.resolve()


def test_the_start_kits_scoring_equals_ours(script, tmp_path):
    folder, _ = simulate_release(tmp_path, "R5", 8)
    for subject in (draw_subject("R5", i, 0) for i in range(8)):
        if subject.oddity == "past the end":  # which stops the start kit's windowing; R5 has no such recording
            shutil.rmtree(folder / f"sub-{subject.name}")
    folder.rename(tmp_path / "EEG2025r5")  # the name under which it is looked for
    torch.manual_seed(0)
    entries = {
        1: Entry({"a": eeg.models.build("tcn", width=16).eval(), "b": eeg.models.build("unet").eval()}),
        2: Entry({"c": eeg.models.build("tcn", width=16, head="number").eval()}),
    }
    write_zip(tmp_path / "submission.zip", entries)
    beside = tmp_path / "beside"
    for name, text in BESIDE.items():
        (beside / name).parent.mkdir(parents=True, exist_ok=True)
        (beside / name).write_text(text)
    command = [PEERS, "-c", LAUNCH, script, tmp_path / "submission.zip", tmp_path, tmp_path / "out"]
    done = subprocess.run(command, cwd=beside, env=os.environ | {"PYTHONPATH": str(beside)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("NRMSE:")]
    answers = pickle.loads((tmp_path / "out" / "predictions.pickle").read_bytes())

    for challenge, entry in entries.items():
        cache = Cache(build(find_release("R5", tmp_path), Settings(challenge), tmp_path / "cache").path)
        ours = np.mean([predict(model, cache)[:, 0] for model in entry.models.values()], 0)
        order = lambda y, p: np.lexsort((p.round(4), y.round(4)))  # they list recordings in an order of their own
        y, p = (answers[f"challenge_{challenge}"][name].astype(float) for name in ("y_trues", "y_preds"))
        assert len(y) == len(cache) > 100
        np.testing.assert_allclose(y[order(y, p)], cache.y[order(cache.y, ours)], atol=1e-5)
        np.testing.assert_allclose(np.sort(p), np.sort(ours), atol=1e-5)
        print(f"challenge {challenge}: {len(y)} windows, theirs {theirs[challenge - 1]}, ours {nrmse(cache.y, ours):.6f}")
        assert abs(nrmse(y, p) - nrmse(cache.y, ours)) < 1e-5 and abs(theirs[challenge - 1] - nrmse(cache.y, ours)) < 1e-4
