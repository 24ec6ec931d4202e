"""The start kit's own scoring against this project's predictions and metric.

What it said once is stored in tests/fixtures; it is also run, unchanged, on a submission.zip.

That needs the peers' environment (`make peers` makes it) and the competition's file:
EEG_LOCAL_SCORING=.../local_scoring.py.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import eeg.models
from eeg.bench.peers import PEERS
from eeg.data.build import Settings, build
from eeg.data.cache import Cache
from eeg.data.release import find_release
from eeg.score.metrics import nrmse
from eeg.score.predict import predict
from eeg.score.submission import Entry, write_zip
from eeg.synth.release import simulate_release
from eeg.synth.subjects import draw_subject
from tests.fixtures import make
from tests.fixtures.start_kit import local_scoring
from tests.fixtures.submission import Submission


@pytest.fixture
def script():
    path = Path(os.environ.get("EEG_LOCAL_SCORING", ""))
    if not path.is_file():
        pytest.skip(
            "no local_scoring.py (name the start kit's with EEG_LOCAL_SCORING); "
            "what it said is in tests/fixtures"
        )
    if not PEERS.exists():
        pytest.skip("no peers' environment (build/peers; `make peers` makes it)")
    return path.resolve()


def same_scoring(cache, ours, y, p, printed):
    """The start kit's labels, predictions and NRMSE are ours, in another order of recordings."""
    order = lambda y, p: np.lexsort((p.round(4), y.round(4)))
    assert len(y) == len(cache)
    np.testing.assert_allclose(y[order(y, p)], cache.y[order(cache.y, ours)], atol=1e-5)
    np.testing.assert_allclose(np.sort(p), np.sort(ours), atol=1e-5)
    assert abs(nrmse(y, p) - nrmse(cache.y, ours)) < 1e-5
    assert abs(printed - nrmse(cache.y, ours)) < 1e-4


def test_scores_equal_those_that_the_start_kit_printed(tmp_path):
    """tests/fixtures/submission.py on a release written by tests, and the start kit's numbers."""
    stored = np.load(make.HERE / "scoring.npz")
    assert make.digest(make.write_scored_release(tmp_path), "**/*") == stored["release"], (
        "run: python tests/fixtures/make.py --local-scoring FILE"
    )
    assert make.digest(make.HERE, "submission.py") == stored["submission"]
    models = (
        Submission(100, "cpu").get_model_challenge_1(),
        Submission(100, "cpu").get_model_challenge_2(),
    )
    for challenge, model in enumerate(models, 1):
        cache = Cache(
            build(find_release("R5", tmp_path), Settings(challenge), tmp_path / "cache").path
        )
        y, p = (stored[f"{challenge}_{name}"].astype(float) for name in "yp")
        same_scoring(cache, predict(model, cache)[:, 0], y, p, stored["printed"][challenge - 1])


def test_the_start_kits_scoring_equals_ours(script, tmp_path):
    folder, _ = simulate_release(tmp_path, "R5", 8)
    for subject in (draw_subject("R5", i, 0) for i in range(8)):
        if (
            subject.oddity == "past the end"
        ):  # which stops the start kit's windowing; R5 has no such recording
            shutil.rmtree(folder / f"sub-{subject.name}")
    folder.rename(tmp_path / "EEG2025r5")  # the name under which it is looked for
    torch.manual_seed(0)
    entries = {
        1: Entry(
            {"a": eeg.models.build("tcn", width=16).eval(), "b": eeg.models.build("unet").eval()}
        ),
        2: Entry({"c": eeg.models.build("tcn", width=16, head="number").eval()}),
    }
    write_zip(tmp_path / "submission.zip", entries)
    theirs, answers = local_scoring(script, tmp_path / "submission.zip", tmp_path, tmp_path)

    for challenge, entry in entries.items():
        cache = Cache(
            build(find_release("R5", tmp_path), Settings(challenge), tmp_path / "cache").path
        )
        ours = np.mean([predict(model, cache)[:, 0] for model in entry.models.values()], 0)
        y, p = (
            answers[f"challenge_{challenge}"][name].astype(float) for name in ("y_trues", "y_preds")
        )
        assert len(cache) > 100
        same_scoring(cache, ours, y, p, theirs[challenge - 1])
        print(
            f"challenge {challenge}: {len(y)} windows, theirs {theirs[challenge - 1]}, "
            f"ours {nrmse(cache.y, ours):.6f}"
        )
