"""Finished runs: their models, what they say of windows, and the one of each challenge that is promoted.

A promoted run lies in <out>/promoted_challenge_1/ (or 2): a run folder like any other, but one level up, so that lists of runs do
not count it twice. It holds the run's config, history and weights, and promoted.json, which says where it came from. Any
command takes it as a RUN: `python run/evaluate.py promoted_challenge_1`.
"""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import torch

import eeg.models
from eeg import UserError, hints
from eeg.files import publishing
from eeg.runs.run import Run
from eeg.score.predict import predict
from eeg.score.shrinkage import cross_fitted


def load_model(path):
    """-> Model in eval mode, of exported weights {"settings", "state"}. Nothing but tensors and plain values is read from the file."""
    try:
        saved = dict(torch.load(path, map_location="cpu", weights_only=True))
        settings, state = saved["settings"], saved["state"]
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        LookupError,
        ValueError,
        TypeError,
    ) as e:
        raise UserError(
            f"{path} cannot be read as weights ({_words(e)}); train another with: {_again(path)}"
        ) from None
    try:
        model = eeg.models.build(**settings)
        model.load_state_dict(state)
    except (RuntimeError, ValueError, TypeError) as e:
        raise UserError(
            f"the weights in {path} do not fit the model that this version of eeg builds from their settings ({_words(e)}); train another with: {_again(path)}"
        ) from None
    return model.eval()


def _again(path):
    """The command that trains another run like the one whose weights these are."""
    folder = Path(path).parent
    return (
        Run(folder).again()
        if (folder / "config.json").exists()
        else hints.command("train", "--challenge", 1)
    )


def _words(e):
    """The first words of a long message, in one line."""
    words = str(e).split() or [type(e).__name__]
    return " ".join(words[:25]) + " ..." * (len(words) > 25)


def predict_run(run, cache, rows, **how):
    """`predict` by a run's best epoch. Raises UserError where an answer is not a number."""
    return _predict(run, load_model(run.weights), cache, rows, **how)


def predict_validation(run, cache, rows):
    """(N,): answers to a run's validation windows as training scores them: challenge 2's are shrunk as fits other subjects."""
    model = load_model(run.weights)
    if run.challenge == 1:
        return _predict(run, model, cache, rows)[:, 0]
    model.shrink.fill_(1)
    p = _predict(run, model, cache, rows)[:, 0]
    return cross_fitted(p, cache.y[rows], cache.metadata["subject"][rows], float(model.center[0]))


def _predict(run, model, cache, rows, **how):
    p = predict(model, cache, rows, **how)
    if bad := int((~np.isfinite(p).all(1)).sum()):
        raise UserError(
            f"{run.name} answers NaN or infinity for {bad} of {len(p)} windows; its weights are of no use, train another with: {run.again()}"
        )
    return p


def promoted_folder(out, challenge):
    return Path(out) / f"promoted_challenge_{challenge}"


def promote(run, out, note):
    """Make a run the promoted one of its challenge, in one step. note: what promoted.json keeps beside the run's name."""
    place = promoted_folder(out, run.challenge)
    with publishing(place) as partial:
        partial.mkdir(parents=True)
        for path in (
            run.folder / "config.json",
            run.folder / "history.json",
            run.folder / "state.json",
            run.weights,
        ):
            shutil.copy2(path, partial)
        (partial / "promoted.json").write_text(
            json.dumps({"run": run.name} | note, indent=1) + "\n", encoding="utf-8"
        )
    return place
