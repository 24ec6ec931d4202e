"""Label-only baselines: by hand, trial by trial; causal; and near what is known of real events."""

import re

import numpy as np
import pytest

from eeg.data.release import Release
from eeg.data.trials import build_trials, flag_copies, read_events
from eeg.data.windows import METADATA
from eeg.score.baselines import (
    STRENGTHS,
    age_and_sex,
    baselines,
    earlier_trials,
    fast_flag,
    fit_ridge,
)
from eeg.score.metrics import nrmse


def trials(rng, subjects, per_run=(4, 3), own=0.3):
    """Metadata and response times of subjects with their own speed, not ordered in time."""
    rows, y = [], []
    for s in range(subjects):
        speed = rng.normal(1.6, own)
        for run, n in enumerate(per_run, 1):
            m = np.zeros(n, METADATA[1])
            m["subject"], m["run"], m["start"] = (
                f"NDAR{s:03d}".encode(),
                run,
                520 * np.arange(n) + 7 * (3 - run),
            )
            rows.append(m)
            y.append(rng.normal(speed, 0.3, n))
    order = rng.permutation(subjects * sum(per_run))
    return np.concatenate(rows)[order], np.concatenate(y)[order]


def test_earlier_trials_by_hand():
    rng = np.random.default_rng(0)
    (train, y_train), (test, y_test) = trials(rng, 40), trials(rng, 3)
    predicted = earlier_trials(train, y_train, test, y_test)

    def slowly(rows, y, weight):
        out = np.empty(len(y))
        for i, row in enumerate(rows):
            before = (rows["subject"] == row["subject"]) & (
                (rows["run"] < row["run"])
                | ((rows["run"] == row["run"]) & (rows["start"] < row["start"]))
            )
            out[i] = y_train.mean() + (y[before] - y_train.mean()).sum() / (before.sum() + weight)
        return out

    weights = np.geomspace(0.05, 50, 400)
    best = weights[np.argmin([((slowly(train, y_train, w) - y_train) ** 2).sum() for w in weights])]
    np.testing.assert_allclose(predicted, slowly(test, y_test, best), atol=2e-3)
    assert best == pytest.approx(1, abs=0.7)  # noise and subjects vary alike
    assert nrmse(y_test, predicted) < 0.97


def test_earlier_trials_know_nothing_of_later_ones():
    rng = np.random.default_rng(1)
    (train, y_train), (test, y_test) = trials(rng, 20), trials(rng, 2)
    predicted = earlier_trials(train, y_train, test, y_test)
    # the first of a second run
    i = int(np.flatnonzero((test["run"] == 2) & (test["start"] < 500))[0])
    changed = y_test.copy()
    changed[i] += 1
    moved = earlier_trials(train, y_train, test, changed) != predicted
    later = (
        (test["subject"] == test["subject"][i])
        & (test["run"] == 2)
        & (test["start"] > test["start"][i])
    )
    np.testing.assert_array_equal(moved, later)
    first = (test["run"] == 1) & (test["start"] < 500)
    np.testing.assert_array_equal(predicted[first], y_train.mean())


def test_the_fast_flag_alone():
    train, y_train = trials(np.random.default_rng(2), 6)
    train["fast"] = train["subject"] == b"NDAR001"
    predicted = fast_flag(train, y_train, train)
    assert predicted[train["fast"]] == pytest.approx(y_train[train["fast"]].mean())
    assert predicted[~train["fast"]] == pytest.approx(y_train[~train["fast"]].mean())
    slow = ~train["fast"]
    np.testing.assert_allclose(
        fast_flag(train[slow], y_train[slow], train),
        predicted[slow][0] * slow + y_train[slow].mean() * ~slow,
    )


def people(rng, n):
    rows = np.zeros(n, METADATA[2])
    rows["subject"], rows["age"], rows["sex"] = (
        [f"NDAR{i:04d}".encode() for i in range(n)],
        rng.uniform(5, 22, n),
        rng.choice([b"M", b"F"], n),
    )
    return rows, 0.2 * (rows["sex"] == b"M") - 0.06 * (rows["age"] - 10) + rng.normal(0, 0.3, n)


def test_age_and_sex():
    rng = np.random.default_rng(3)
    (train, y_train), (test, y_test) = people(rng, 300), people(rng, 100)
    unknown = test.copy()
    unknown["age"], unknown["sex"] = np.nan, b""
    assert nrmse(y_test, age_and_sex(train, y_train, test)) == pytest.approx(
        0.3 / np.hypot(0.31, 0.3), abs=0.1
    )
    np.testing.assert_allclose(age_and_sex(train, y_train, unknown), y_train.mean(), atol=1e-9)


def test_ridge_is_least_squares_with_much_data_and_the_mean_with_nothing_to_see():
    rng = np.random.default_rng(4)
    x = rng.normal(3, [1, 20, 0], (500, 3))  # the third never varies
    y = x @ [0.5, 0.1, 1] + rng.normal(0, 0.1, 500)
    expected = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(fit_ridge(x, y, np.arange(500) // 5)(x), x @ expected, atol=5e-3)
    noise = rng.normal(size=(500, 30))
    assert np.std(fit_ridge(noise, y, np.arange(500) // 5)(noise)) < 0.35 * np.std(y)


def test_ridge_folds_hold_subjects_together():
    """Columns that name the subject explain nothing of others: the strongest ridge must win."""
    rng = np.random.default_rng(5)
    who = np.repeat(np.arange(30), 20)
    level = rng.normal(size=30)
    x, y = np.eye(30)[who], level[who] + rng.normal(0, 0.1, 600)
    assert np.std(fit_ridge(x, y, who)(x)) < 0.02 < 0.8 < np.std(fit_ridge(x, y, np.arange(600))(x))
    assert STRENGTHS[0] == max(STRENGTHS)
    # one subject
    assert fit_ridge(x[:20], y[:20], who[:20])(x[20:22]) == pytest.approx(y[:20].mean())


def test_which_a_challenge_has():
    (train, y), (rows, factor) = (
        trials(np.random.default_rng(6), 5),
        people(np.random.default_rng(6), 9),
    )
    assert [name.split(": ")[-1] for name in baselines(1, train, y, train, y)] == [
        "the mean of the training labels",
        "the fast time line alone",
        "the subject's earlier trials",
    ]
    assert [name.split(": ")[-1] for name in baselines(2, rows, factor, rows, factor)] == [
        "the mean of the training labels",
        "age and sex",
    ]


def test_response_times_of_real_events(hbn):
    """Whole releases give 1.000, 0.965 to 0.968, 0.905 to 0.912.

    Here are 25 subjects, each predicted from four fifths of the others.
    """
    rows, y = [], []
    for subject in sorted(hbn.glob("R*/sub-*")):
        events = sorted((subject / "eeg").glob("*contrastChange*_events.tsv"))
        tables = [build_trials(*read_events(path)) for path in events]
        flag_copies(tables)
        for path, table in zip(events, tables):
            table = table[~np.isnan(table["rt_from_stimulus"])]
            m = np.zeros(len(table), METADATA[1])
            m["subject"], m["run"], m["start"] = (
                subject.name[4:].encode(),
                int(re.search(r"run-(\d+)", path.name)[1]),
                np.round(100 * table["stimulus"]),
            )
            m["copy"], m["fast"] = table["copy"], table["fast"]
            rows.append(m)
            y.append(table["rt_from_stimulus"])
    rows, y = np.concatenate(rows), np.concatenate(y)
    names, which = np.unique(rows["subject"], return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(names))[which] % 5
    predicted = {}
    for i in range(5):
        train, test = (fold != i) & ~rows["copy"], fold == i
        for name, p in baselines(1, rows[train], y[train], rows[test], y[test]).items():
            predicted.setdefault(name, np.empty(len(y)))[test] = p
    mean, fast, earlier = (nrmse(y, p) for p in predicted.values())
    assert len(y) > 1500 and len(names) >= 20
    assert 1 <= mean < 1.03 and 0.93 < fast < 1 and 0.87 < earlier < 0.95


def test_externalizing_of_real_participants(hbn):
    """Whole releases, a participant a row (by windows, with handedness: 0.964 to 0.975)."""
    people = {}
    for name in ("R1", "R2", "R3", "R4", "R10", "R11"):
        known = [
            (subject, row)
            for subject, row in Release(name, False, hbn / name).participants().items()
            if np.isfinite(row["externalizing"])
        ]
        people[name] = np.zeros(len(known), METADATA[2])
        people[name]["subject"] = [subject.encode() for subject, _ in known]
        for column in ("age", "sex", "externalizing"):
            people[name][column] = [row[column] for _, row in known]
    train, test = (
        np.concatenate([people[name] for name in names])
        for names in (("R1", "R2", "R3", "R4"), ("R10", "R11"))
    )
    mean, ridge = (
        nrmse(test["externalizing"], p)
        for p in baselines(2, train, train["externalizing"], test, test["externalizing"]).values()
    )
    assert 1 <= mean < 1.02 and 0.94 < ridge < 0.98
