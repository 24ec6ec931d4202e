"""What labels alone score, without any EEG: a model that scores no better learned nothing from it.

Trials and participants of some releases train, those of another are scored as the competition
scores windows. Copies and bad subjects are left out of training and scored.
"""

from dataclasses import dataclass

import numpy as np

from eeg.audit.counts import Audit
from eeg.audit.people import NUMBERS
from eeg.data.split import BAD, subject_folds
from eeg.data.windows import METADATA, SFREQ, cut_trials, fixed_windows
from eeg.models.montage import CHANNELS
from eeg.score.baselines import earlier_trials, fast_flag, fit_ridge
from eeg.score.metrics import nrmse

FOLDS = 5
NAMES = {
    "mean": "mean of the training labels",
    "fast": "the fast time line alone",
    "earlier": "the subject's earlier trials",
    "ridge": "ridge on age, sex, time line, trials",
    "own": "each subject's own mean, an oracle",
    "people": "ridge on age, sex and handedness",
}


@dataclass
class Trials:
    """The valid trials of challenge 1, one row each."""

    metadata: np.ndarray  # (n,) METADATA[1]
    y: np.ndarray  # (n,) s
    people: np.ndarray  # (n, 2) age, sex

    def __getitem__(self, rows):
        return Trials(self.metadata[rows], self.y[rows], self.people[rows])


@dataclass
class Labels:
    """The participants of challenge 2 whose externalizing factor is known."""

    subjects: np.ndarray  # (n,)
    y: np.ndarray  # (n,)
    people: np.ndarray  # (n, 3) age, sex, ehq_total
    windows: np.ndarray  # (n,) int, of the contrast-change recordings that are scored

    def __getitem__(self, rows):
        return Labels(self.subjects[rows], self.y[rows], self.people[rows], self.windows[rows])


@dataclass
class Floor:
    """Label-only scores on one test set."""

    test: str
    train: str
    challenge1: dict[str, float]  # key of NAMES -> NRMSE
    challenge2: dict[str, float]  # over windows, as the competition scores
    participants: dict[str, float]  # the same, each participant once, recorded or not
    trials: int
    trial_subjects: int
    windows: int
    window_subjects: int
    participant_count: int


def floors(audits: list[Audit], tests: list[str]) -> list[Floor]:
    """The floors on each release, trained on the others.

    tests: releases that are one test set instead. A single release is scored in folds by subject.
    """
    trials = [trials_of(audit) for audit in audits]
    labels = [labels_of(audit) for audit in audits]
    names = [audit.name for audit in audits]
    if len(audits) == 1:
        folds = _folds(trials[0].metadata["subject"]), _folds(labels[0].subjects)
        count = f"the other folds of {FOLDS} by subject"
        return [_floor(names[0], count, (trials[0], folds[0]), (labels[0], folds[1]))]
    groups = [[names.index(name) for name in tests]] if tests else [[i] for i in range(len(names))]
    found = []
    for group in groups:
        rest = [i for i in range(len(names)) if i not in group]
        sides = [_sides(each, group) for each in (trials, labels)]
        test, train = (" ".join(names[i] for i in some) for some in (group, rest))
        found.append(_floor(test, train, *sides))
    return found


def _sides(parts, group):
    """(all parts as one, [(n,) bool: the rows that are tested])."""
    kind = type(parts[0])
    columns = zip(*(vars(part).values() for part in parts))
    tested = [np.full(len(part.y), i in group) for i, part in enumerate(parts)]
    return kind(*(np.concatenate(column) for column in columns)), [np.concatenate(tested)]


def _folds(subjects):
    """[(n,) bool: the rows of each fold]; one that tests nothing where there are too few."""
    count = min(FOLDS, len(np.unique(subjects)))
    if count < 2:
        return []
    fold = subject_folds(subjects, count)
    return [fold == i for i in range(count)]


def _floor(test, train, trials, labels):
    """trials, labels: what is known, and the masks of the rows that are tested in turn."""
    one, tested = _predict(_trial_predictions, *trials)
    two, people = _predict(_label_predictions, *labels)
    scored, labelled = trials[0][tested], labels[0][people]
    return Floor(
        test,
        train,
        _scores(scored.y, one, np.ones(len(scored.y), int)),
        _scores(labelled.y, two, labelled.windows),
        _scores(labelled.y, two, np.ones(len(labelled.y), int)),
        len(scored.y),
        len(np.unique(scored.metadata["subject"])),
        int(labelled.windows.sum()),
        int((labelled.windows > 0).sum()),
        len(labelled.y),
    )


def _predict(predict, known, masks):
    """({key of NAMES: (m,) predictions}, (n,) bool: the m rows that were tested)."""
    tested = np.zeros(len(known.y), bool)
    p: dict[str, np.ndarray] = {}
    for test in masks:
        train = known[~test & ~np.isin(_subjects(known), _BAD)]
        if isinstance(train, Trials):
            train = train[~train.metadata["copy"]]
        if len(train.y) and test.any():
            tested |= test
            for key, values in predict(train, known[test]).items():
                p.setdefault(key, np.full(len(known.y), np.nan))[test] = values
    return {key: values[tested] for key, values in p.items()}, tested


def _scores(y, p, many):
    """{key of NAMES: NRMSE}, each row counted so many times; {} where it is not defined."""
    y = np.repeat(y, many)
    if not len(y) or np.ptp(y) == 0:
        return {}
    return {key: float(nrmse(y, np.repeat(values, many))) for key, values in p.items()}


_BAD = np.array([name.encode() for name in sorted(BAD)])


def _subjects(known):
    return known.metadata["subject"] if isinstance(known, Trials) else known.subjects


def _trial_predictions(train, test):
    """{key of NAMES: (n,)} response times of the test trials."""
    p = {
        "mean": np.full(len(test.y), train.y.mean()),
        "fast": fast_flag(train.metadata, train.y, test.metadata),
        "earlier": earlier_trials(train.metadata, train.y, test.metadata, test.y),
    }
    before = earlier_trials(train.metadata, train.y, train.metadata, train.y)
    columns = lambda part, before: np.column_stack([part.people, part.metadata["fast"], before])
    ridge = fit_ridge(columns(train, before), train.y, train.metadata["subject"])
    p["ridge"] = ridge(columns(test, p["earlier"]))
    _, which = np.unique(test.metadata["subject"], return_inverse=True)
    p["own"] = (np.bincount(which, test.y) / np.bincount(which))[which]
    return p


def _label_predictions(train, test):
    """{key of NAMES: (n,)} externalizing of the test participants."""
    ridge = fit_ridge(train.people, train.y, train.subjects)
    return {"mean": np.full(len(test.y), train.y.mean()), "people": ridge(test.people)}


def trials_of(audit: Audit) -> Trials:
    """The trials of challenge 1 that the competition scores."""
    rows, y = [np.zeros(0, METADATA[1])], [np.zeros(0)]
    for facts in audit.contrast:
        if facts.has_trials and facts.channels in (None, len(CHANNELS)):
            windows, _ = cut_trials(facts.trials, _n_times(facts))
            windows.rows["subject"] = facts.recorded.subject.encode()
            windows.rows["run"], windows.rows["start"] = facts.recorded.run, windows.starts
            rows.append(windows.rows)
            y.append(windows.labels)
    metadata = np.concatenate(rows)
    place = {name.encode(): i for i, name in enumerate(audit.people.names)}
    numbers = np.append(audit.people.numbers[:, :2], [[np.nan, np.nan]], 0)  # the last: nobody's
    found, which = np.unique(metadata["subject"], return_inverse=True)
    own = np.array([place.get(name, len(place)) for name in found], int)
    return Trials(metadata, np.concatenate(y), numbers[own][which])


def _n_times(facts):
    """Samples at 100 Hz; where the length is unknown, enough for any window."""
    return round(facts.duration_s * SFREQ) if np.isfinite(facts.duration_s) else 1 << 40


def labels_of(audit: Audit) -> Labels:
    """The participants with a known factor, and how many windows of each are scored.

    A recording of unknown length has no window.
    """
    people, windows = audit.people, dict.fromkeys(audit.people.names, 0)
    for facts in audit.contrast:
        name = facts.recorded.subject
        known = np.isfinite(facts.duration_s) and facts.channels in (None, len(CHANNELS))
        if name in windows and known:
            windows[name] += len(fixed_windows(_n_times(facts)))
    y = people.column("externalizing")
    rows = np.flatnonzero(np.isfinite(y))
    subjects = np.array([name.encode() for name in people.names], "S16")[rows]
    many = np.array([windows[people.names[i]] for i in rows], int)
    columns = [NUMBERS.index(name) for name in ("age", "sex", "ehq_total")]
    return Labels(subjects, y[rows], people.numbers[rows][:, columns], many)
