"""Runs on disk, as training leaves them: which there are, what they were trained on, and their models.

A run is a folder <out>/<name>/<time>/ with config.json, state.json, history.json, checkpoints/best.pt and, when it has
finished, weights_challenge_N.pt.
"""

import json
import pickle
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

import eeg.models
from eeg import UserError
from eeg.data.cache import CONTRAST, cache_path, find_caches, rebuild
from eeg.data.windows import LENGTH, TARGETS

TEST = ("R6", "R7")


@dataclass(frozen=True, eq=False)
class Run:
    folder: Path
    config: dict
    state: dict

    def __str__(self):
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def challenge(self):
        return int(self.config["challenge"])

    @property
    def finished(self):
        return self.state.get("status") == "finished" and self.exported.exists()

    @property
    def exported(self):
        return self.folder / f"weights_challenge_{self.challenge}.pt"

    @property
    def weights(self):
        """The file with its best epoch's weights: of a run that has not finished, the best so far."""
        return self.exported if self.finished else self.folder / "checkpoints" / "best.pt"

    @property
    def valid_nrmse(self):
        """NRMSE of its best epoch on its validation subjects, as training saw it; infinite before the first."""
        found = self.state.get("best_nrmse")
        return float("inf") if found is None else found

    @property
    def epoch(self):
        """The number of its best epoch, from 1."""
        return self.state.get("best_epoch")

    @cached_property
    def history(self):
        return _read(self.folder / "history.json")

    def model(self):
        return load_model(self.weights)

    def subjects(self, side):
        """The names of the subjects of its "train" or "valid" side."""
        return set(self.config["split"][side]["subjects"])


def side(folder, runs, side):
    """-> (Cache, rows (n,)) of the windows that were the "train" or "valid" side of one of the runs, without copies unless they were trained with them.

    folder: where caches lie. Of the validation side, subjects that another of the runs was trained on are left out.
    """
    releases = sorted({release for run in runs for release in run.config["split"][side]["releases"]}, key=lambda name: int(name[1:]))
    cache = find_caches(folder, runs[0].challenge, releases, bool(runs[0].config["train"].get("mini")))
    names = set.union(*(run.subjects(side) for run in runs))
    if side == "valid":
        names -= set.union(*(run.subjects("train") for run in runs))
    chosen = np.isin(cache.metadata["subject"], np.array(sorted(names), "S16"))
    if not any(run.config["train"].get("keep_copies") for run in runs):
        chosen &= ~cache.metadata["copy"]
    if not chosen.any():
        what = "no validation subject that none of these runs was trained on" if len(runs) > 1 else f"no window of a subject that {runs[0]} names as its {side} side"
        raise UserError(f"{', '.join(map(str, cache.paths))}: {what}" + ("; combine them with: --ensemble average" if len(runs) > 1 else ""))
    return cache, np.flatnonzero(chosen)


def test_side(folder, challenge, releases=None, mini=False):
    """-> (Cache, rows (n,)) of the windows the competition would score: of the releases named, or of R6 and R7 what is cached."""
    if not releases:
        releases = [name for name in TEST if cache_path(folder, challenge, name, mini).exists()] or TEST
    cache = find_caches(folder, challenge, releases, mini)
    rows = np.flatnonzero(cache.metadata["task"] == CONTRAST.encode())
    if not len(rows):
        raise UserError(f"{', '.join(map(str, cache.paths))} has no window of {CONTRAST}, which the competition scores; {rebuild(cache.attributes[0])}")
    return cache, rows


def check_unseen(run, cache, rows):
    """Raises UserError where the run was trained on one of the subjects."""
    seen = run.subjects("train") & {name.decode() for name in np.unique(cache.metadata["subject"][rows])}
    if seen:
        raise UserError(f"{run} was trained on {len(seen)} of the subjects it would be scored on ({', '.join(sorted(seen)[:3])}{', ...' if len(seen) > 3 else ''}); name releases it has not seen with --release")


def check_fits(run, cache):
    """Raises UserError where the run's model was not trained on windows like those of the cache."""
    trained, path = run.config["input"], cache.paths[0]
    if run.challenge != cache.challenge:
        raise UserError(f"{run} is a run of challenge {run.challenge}, {path} a cache of challenge {cache.challenge}; build another with: python run/cache.py --challenge {run.challenge}")
    if cache.target != TARGETS[run.challenge]:
        raise UserError(f"{path} holds {cache.target}, expected {TARGETS[run.challenge]}; {rebuild(cache.attributes[0])}")
    found = {"a sampling rate of": (cache.sfreq, trained["sfreq"]), "channels": (list(cache.channels), list(trained["channels"]))}
    found["windows of"] = (cache.window, LENGTH[2] if run.challenge == 2 else trained["window_samples"])
    for what, (is_, was) in found.items():
        if is_ != was:
            if what == "channels":
                is_, was = (f"{len(names)} ({', '.join(names[:3])}, ...)" for names in (is_, was))
            unit = {"a sampling rate of": " Hz", "windows of": " samples"}.get(what, "")
            raise UserError(f"{path} has {what} {is_}{unit}, {run} was trained on {was}{unit}; {rebuild(cache.attributes[0])}")


def load_model(path):
    """-> Model in eval mode, from exported weights or a best.pt. Nothing but tensors and plain values is read from the file."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        settings, state = saved["settings"], saved["state"] if "state" in saved else saved["model"]
    except FileNotFoundError:
        raise UserError(f"there are no weights {path} (yet); go on with: python run/train.py --resume {path.parent.parent if path.parent.name == 'checkpoints' else path.parent}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as e:
        raise UserError(f"{path} cannot be read as weights ({_first_line(e)}); train them anew with: python run/train.py") from None
    try:
        model = eeg.models.build(**settings)
        model.load_state_dict(state)
    except (RuntimeError, ValueError, TypeError) as e:
        raise UserError(f"the weights in {path} do not fit the model that this version of eeg builds from their settings ({_first_line(e)}); train anew with: python run/train.py") from None
    return model.eval()


def _first_line(e):
    return " ".join(" ".join(str(e).split()).split()[:25]) or type(e).__name__


def _read(path):
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path.parent} is not a run: it has no {path.name}; runs are made with: python run/train.py") from None
    except ValueError as e:
        raise UserError(f"{path} is no JSON ({e}); the run cannot be read") from None


def read_run(folder):
    folder = Path(folder).resolve()
    config = _read(folder / "config.json")
    if missing := [key for key in ("challenge", "target", "model", "train", "split", "input") if key not in config]:
        raise UserError(f"{folder / 'config.json'} says nothing of {', '.join(missing)}; the run cannot be read, train anew with: python run/train.py")
    return Run(folder, config, _read(folder / "state.json"))


def find_runs(out, names=(), challenge=None):
    """The runs that are named, by folder or by what they are called under `out` (a name may hold several); without names, all finished ones.

    Best validation first. Raises UserError where there is none.
    """
    if not names:
        runs = [read_run(state.parent) for state in sorted(Path(out).glob("*/*/state.json"))]
        runs = [run for run in runs if run.finished and run.config["target"] == TARGETS[run.challenge] and challenge in (None, run.challenge)]
        if not runs:
            unfinished = len(list(Path(out).glob("*/*/state.json")))
            which = f"of challenge {challenge} " if challenge else ""
            raise UserError(
                f"no finished run {which}in {out}/ ({f'{unfinished} that have not finished, or predict something else' if unfinished else 'it has no run at all'}); "
                f"train one with: python run/train.py --challenge {challenge or 1}"
            )
        return sorted(runs, key=lambda run: run.valid_nrmse)
    runs = []
    for name in dict.fromkeys(names):
        folder = next((path for path in (Path(name), Path(out) / name) if path.is_dir()), None)
        if folder is None:
            raise UserError(f"there is no run {name} (looked for {name}/ and {Path(out) / name}/); python run/monitor.py lists runs")
        inside = [folder] if (folder / "config.json").exists() else [path.parent for path in sorted(folder.glob("*/config.json"))]
        if not inside:
            raise UserError(f"{folder}/ holds no run (no config.json in it or in a folder of it); python run/monitor.py lists runs")
        runs += [read_run(path) for path in inside]
    for run in runs:
        if challenge not in (None, run.challenge):
            raise UserError(f"{run} is a run of challenge {run.challenge}, not {challenge}; leave --challenge {challenge} out, or name another run")
        if run.config["target"] != TARGETS[run.challenge]:
            raise UserError(f"{run} predicts {run.config['target']}, challenge {run.challenge} is scored on {TARGETS[run.challenge]}; train one with: python run/train.py --challenge {run.challenge}")
    return sorted({run.folder: run for run in runs}.values(), key=lambda run: run.valid_nrmse)
