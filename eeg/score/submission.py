"""submission.zip, and the check that it runs.

    submission.py                     eeg/score/server.py
    models.py  layers.py  model.py    eeg/models/__init__.py and the modules the networks need
    weights_challenge_1.pt  _2.pt     {"members": [{"settings", "state"}, ...], averaged,
                                      "smooth_in_order": count}, or {"constant": value}

All files are at the top: the server looks into no folder. Unpacked alone and loaded by a fresh
interpreter, the submission must give the same answers as the runs.
"""

import ast
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import eeg.models
import eeg.score.server
from eeg import UserError, cli, hints
from eeg.data.release import choose_releases
from eeg.data.split import split
from eeg.data.windows import TARGETS
from eeg.files import writing
from eeg.machine.load import Load
from eeg.score.predict import load_model

WEIGHTS = {1: "weights_challenge_1.pt", 2: "weights_challenge_2.pt"}
FOLDER = "public."  # modules of eeg.models that are in a folder of it, and not in the zip
# Answers may differ by rounding, this much in standard deviations of the training labels
TOLERANCE = 1e-4
# Perhaps installed here, and hidden from the check
ABSENT = ("eeg", "h5py", "mne", "scipy", "matplotlib", "tqdm")
ABSENT += ("braindecode", "eegdash", "sklearn", "pandas")


@dataclass
class Entry:
    """What answers one challenge: models, by the names of their runs, or a constant.

    smooth_in_order: how many answers are averaged, a window's own and those to the windows that
    the server sent before it.
    """

    models: dict
    constant: float = 0.0
    smooth_in_order: int = 1

    def __call__(self, x):
        """x (B, C, T), in the server's order from the first -> (B, 1), by the runs' own models."""
        if not self.models:
            return torch.full((len(x), 1), self.constant)
        answers = torch.stack([model(x)[:, :1] for model in self.models.values()]).mean(0)
        before = [max(0, end - self.smooth_in_order) for end in range(1, len(x) + 1)]
        return torch.stack([answers[first : i + 1].mean(0) for i, first in enumerate(before)])


def entry(runs, smooth_in_order: int = 1) -> Entry:
    """The Entry of these finished runs. Raises UserError where one cannot be submitted."""
    return Entry({run.name: _model(run) for run in runs}, smooth_in_order=smooth_in_order)


def _model(run):
    """The run's model, which must answer from windows alone, as the server gives them.

    In challenge 1 stored features are those of the same window: computed in the model they are
    equal, to rounding. In challenge 2 they are of 4 s, and the server gives 2 s.
    """
    model = load_model(run.weights)
    if model.features == "file" and run.challenge == 2:
        takes = f"{run.name} takes features of stored windows of 4 s, and the server gives 2 s"
        again = run.again(features="layer")
        raise UserError(f"{takes}; train one that computes them with: {again}")
    if not run.scored:
        was = f"{run.name} was trained for {run.config['target']}"
        raise UserError(f"{was}; the competition asks for {TARGETS[run.challenge]}")
    if run.align != "none":
        was = f"{run.name} aligns each subject by all of its windows (--align {run.align})"
        why = "the server shows single windows of unknown subjects"
        raise UserError(f"{was}, and {why}; train one with: {run.again(align=None)}")
    channels, samples = model.settings["n_chans"], model.settings["n_times"]
    if (channels, samples) != (129, 200):
        taken = f"{run.name} takes windows of {channels} channels x {samples} samples"
        raise UserError(f"{taken}; the server gives 129 x 200")
    if model.features != "file":
        return model
    computing = eeg.models.build(**model.settings | {"features": "layer"})
    computing.load_state_dict(model.state_dict())
    return computing.eval()


def doubts(run) -> list[str]:
    """Why this run should not be submitted, in sentences."""
    found, (_, nrmse) = [], run.best
    if run.config.get("simulated"):
        found.append(f"{run.name} was trained on simulated data and knows nothing about real EEG")
    if not nrmse < run.mean_predictor:
        poor = (
            f"{run.name} does not beat the mean of its training labels on its validation subjects"
        )
        found.append(f"{poor} (NRMSE {nrmse:.5f}, the mean {run.mean_predictor:.5f})")
    return found


def constant_entry(folder: Path, challenge: int) -> tuple[Entry, str, bool]:
    """(Entry, whose labels in a few words, whether they are simulated).

    It answers with the mean of the training labels cached in `folder`.
    """
    sides = split(folder, challenge, *choose_releases(folder, challenge, None, None, False, None))
    cache, rows = sides.cache, sides.train
    releases = " ".join(sides.describe("train")["releases"]) + " (simulated)" * cache.simulated
    whose = f"{cli.counted(len(rows), 'training label')} of {releases}"
    return Entry({}, float(cache.y[rows].mean())), whose, cache.simulated


def write_zip(path: Path, entries: dict) -> None:
    """entries: {1: Entry, 2: Entry}. Raises UserError where the file cannot be written."""
    content = io.BytesIO()
    settings = [model.settings for each in entries.values() for model in each.models.values()]
    encoders = [each["encoder"] for each in settings if each.get("encoder")]
    names = {each["name"] for each in (*settings, *encoders)}
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(eeg.score.server.__file__, "submission.py")
        for module in sorted(_needed(names)):
            flat = "models" if module == "__init__" else module.removeprefix(FOLDER)
            archive.write(_source(module), f"{flat}.py")
        for challenge, each in entries.items():
            weights, models = io.BytesIO(), each.models.values()
            members = [{"settings": m.settings, "state": m.state_dict()} for m in models]
            smooth = {"smooth_in_order": each.smooth_in_order}
            content_of = {"members": members} | smooth if members else {"constant": each.constant}
            torch.save(content_of, weights)
            archive.writestr(WEIGHTS[challenge], weights.getvalue())
    with writing(path, "--zip FILE", len(content.getvalue())):
        Path(path).write_bytes(content.getvalue())


def _needed(names):
    """The modules of eeg.models that these networks need: theirs, and what those import from it."""
    found = ["__init__", *(eeg.models.MODELS[name][0] for name in names)] if names else []
    for module in found:  # which grows meanwhile
        for node in ast.walk(ast.parse(_source(module).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level and node.module:
                beside = module.startswith(FOLDER) and node.level == 1
                name = FOLDER * beside + node.module
                found += [name] * (name not in found)
    return set(found)


def _source(module):
    return Path(eeg.models.__file__).parent / f"{module.replace('.', '/')}.py"


@dataclass
class Checked:
    """What a fresh interpreter made of a submission."""

    files: int
    seconds: dict  # {challenge: median a window, given one at a time}
    memory_bytes: int
    busy: float  # cores that other programs used meanwhile
    differences: dict  # {challenge: the largest from the runs' answers, in std of training labels}


def check(path: Path, entries: dict | None = None) -> Checked:
    """Run a submission as the server would, and compare its answers with those of `entries`.

    Raises UserError where it is not what the server expects, does not run or answers differently.
    """
    files, x = _check_layout(path), example_windows()
    answers, facts, busy = _run_alone(path, x)
    differences = {}
    for challenge in (1, 2):
        found = [answers[f"{which}_{challenge}"] for which in ("alone", "batch")]
        for p, n in zip(found, (1, len(x) - 1)):
            unfinite, what = int((~np.isfinite(p)).sum()), f"an array {p.shape}"
            if unfinite or p.shape != (n, 1):
                what = f"{unfinite} numbers that are not finite" if unfinite else what
                answered = f"{path} answers {n} windows of challenge {challenge} with {what}"
                raise UserError(f"{answered}, expected finite numbers ({n}, 1)")
        if entries:
            differences[challenge] = _difference(path, np.concatenate(found), entries[challenge], x)
    seconds = {challenge: facts["seconds"][str(challenge)] for challenge in (1, 2)}
    return Checked(len(files), seconds, facts["memory"], busy, differences)


def _difference(path, found, entry, x):
    """The largest difference from the entry's answers. Raises UserError beyond TOLERANCE."""
    with torch.inference_mode():
        expected = entry(torch.from_numpy(x)).numpy()
    # the standard deviation of the training labels
    scale = min((float(model.scale[0]) for model in entry.models.values()), default=1.0)
    difference = float(np.abs(found - expected).max()) / scale
    if difference > TOLERANCE:
        by = f"by up to {difference:.2g} standard deviations of the labels"
        what = f"{path} answers differently from {' + '.join(entry.models)}: {by}"
        raise UserError(f"{what}, where {TOLERANCE:g} are allowed")
    return difference


def _check_layout(path):
    """The names in the zip. Raises UserError where it is nested, incomplete or damaged."""
    help = f"make one with: {hints.command('submit', '--zip', path)}"
    try:
        with zipfile.ZipFile(path) as archive:
            names, broken = archive.namelist(), archive.testzip()
    except FileNotFoundError:
        raise UserError(f"there is no {path}; {help}") from None
    except zipfile.BadZipFile:
        raise UserError(f"{path} is not a zip file; {help}") from None
    if broken:
        raise UserError(f"{path} is damaged ({broken}); {help}")
    if nested := [name for name in names if "/" in name or "\\" in name]:
        found = f"{path} is nested ({nested[0]}): the server looks for submission.py at the top"
        raise UserError(f"{found} of the zip; zip the files and not their folder, or {help}")
    if missing := [name for name in ("submission.py", *WEIGHTS.values()) if name not in names]:
        raise UserError(f"{path} lacks {' and '.join(missing)}; {help}")
    return names


def example_windows() -> np.ndarray:
    """(65, 129, 200) float32, volts: noise that wanders like an EEG of tens of microvolts.

    Cz is zero, and in one window an electrode fell off.
    """
    rng, shape = np.random.default_rng(0), (65, 129, 200)
    x = 4e-6 * np.cumsum(rng.standard_normal(shape), 2) + 1e-5 * rng.standard_normal(shape)
    x[:, 128] = 0
    x[3, 7] += 0.3 * rng.standard_normal(200)
    return x.astype(np.float32)


# The check's program, for an interpreter that sees neither this project nor what it depends on.
# Arguments: the unpacked folder, files of windows and answers, modules that are absent.
_ALONE = """
import json, resource, sys, time
folder, windows, answers, absent = sys.argv[1:]
sys.modules.update(dict.fromkeys(absent.split(",")))
import numpy as np
import torch
sys.path.insert(0, folder)
from submission import Submission
x, found, seconds = torch.from_numpy(np.load(windows)), {}, {}
submission = Submission(100, torch.device("cpu"))
with torch.inference_mode():
    for challenge in (1, 2):
        model = getattr(submission, f"get_model_challenge_{challenge}")()
        assert not model.training, f"the model of challenge {challenge} is not in eval mode"
        found[f"alone_{challenge}"] = model.forward(x[:1]).numpy()
        found[f"batch_{challenge}"] = model.forward(x[1:]).numpy()
        ends = [time.perf_counter()]
        for i in range(10):
            model.forward(x[i : i + 1])
            ends.append(time.perf_counter())
        seconds[challenge] = float(np.median(np.diff(ends)))
np.savez(answers, **found)
memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": seconds, "memory": memory}))
"""


def _run_alone(path, x):
    """({name: answers}, {"seconds", "memory"}, cores that others used) of the unpacked zip."""
    temporary, place = tempfile.TemporaryDirectory, tempfile.gettempdir()
    space = writing(place, "the variable TMPDIR", 2 * x.nbytes)
    with space, temporary() as unpacked, temporary() as elsewhere:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(unpacked)
        files = [f"{elsewhere}/windows.npy", f"{elsewhere}/answers.npz"]
        np.save(files[0], x)
        command = [sys.executable, "-I", "-c", _ALONE, unpacked, *files, ",".join(ABSENT)]
        load, text = Load(), {"encoding": "utf-8", "errors": "replace"}
        done = subprocess.run(command, cwd=elsewhere, capture_output=True, **text)
        busy = load.cores()
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
            what = f"{path}, unpacked and loaded by a fresh interpreter, fails"
            raise UserError(f"{what}: {said[-1]}")
        with np.load(files[1]) as answers:
            return dict(answers), json.loads(done.stdout.splitlines()[-1]), busy
