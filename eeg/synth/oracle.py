"""What a reader would reach that sees the hidden sources without any background.

Closed-form regression, cross-validated over further subjects of the same world, of whom no file is
written. It bounds what a world allows, and is no score of any model.
"""

import functools

import numpy as np

from eeg.data.release import CONTRAST
from eeg.synth.events import scene
from eeg.synth.subjects import draw_subject, draw_traits, stream
from eeg.synth.trials import draw_hidden
from eeg.synth.worlds import WORLDS

SUBJECTS = {1: 80, 2: 600}  # for each challenge
FIRST_INDEX = 1_000_000  # no release has as many subjects
FOLDS = 5
SEED, RELEASE = 0, "R1"


@functools.cache
def oracle(world_name: str, snr: float) -> dict[str, float]:
    """-> {"challenge1": NRMSE, "challenge2": NRMSE}, the same for every release of a world."""
    snr = snr if WORLDS[world_name].signal else 0.0
    found = {"challenge1": _trials(world_name, snr), "challenge2": _subjects(world_name, snr)}
    return {
        name: round(cross_validated(features, y, groups), 4)
        for name, (features, y, groups) in found.items()
    }


def _subject(world, snr, index):
    place = SEED, RELEASE, index
    subject = draw_subject(RELEASE, index, SEED)
    return place, subject, draw_traits(subject, place, world, snr)


def _trials(world_name, snr):
    """Challenge 1: the moments and log amplitudes of what is locked to the response."""
    world, rows, times, groups = WORLDS[world_name], [], [], []
    for index in range(FIRST_INDEX, FIRST_INDEX + SUBJECTS[1]):
        place, subject, traits = _subject(world, snr, index)
        happened = scene(stream(*place, "events"), subject, CONTRAST, 1, 3)
        hidden = draw_hidden(stream(*place, "trials"), traits, world, happened)
        stimulus = np.array([trial.stimulus_s for trial in happened.trials])
        y = np.array([trial.response_s for trial in happened.trials]) - stimulus
        seen = [np.ones(len(y))]
        for name in world.carriers if snr else ():
            after = np.clip(hidden.moment_s[name] - stimulus, 0, 2.5)
            seen += [after, np.log(hidden.amplitude[name])]
        answered = np.isfinite(y)
        rows.append(np.array(seen).T[answered])
        times.append(y[answered])
        groups.append(np.full(answered.sum(), index))
    return np.concatenate(rows), np.concatenate(times), np.concatenate(groups)


def _subjects(world_name, snr):
    """Challenge 2: the traits that are linked to externalizing, with age and sex."""
    world, rows, labels = WORLDS[world_name], [], []
    for index in range(FIRST_INDEX, FIRST_INDEX + SUBJECTS[2]):
        _, subject, traits = _subject(world, snr, index)
        seen = [traits[name] for name in world.links] if snr else []
        rows.append([1, subject.age, subject.sex == "M", *seen])
        labels.append(subject.factors[3])
    return np.array(rows, float), np.array(labels), np.arange(len(labels))


def cross_validated(features: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float:
    """NRMSE of least squares, each fold of groups predicted from the others."""
    predicted = np.empty(len(y))
    fold = np.searchsorted(np.unique(groups), groups) % FOLDS
    for k in range(FOLDS):
        weights = np.linalg.lstsq(features[fold != k], y[fold != k], rcond=None)[0]
        predicted[fold == k] = features[fold == k] @ weights
    return float(np.sqrt(np.mean((predicted - y) ** 2)) / y.std())
