"""Targets the competition does not score, and the four factors: evaluate and report, by hand."""

import json
import re

import h5py
import numpy as np
import pytest
import torch
from scipy import stats

import eeg.models
from eeg import UserError
from eeg.data.cache import cache_path
from eeg.data.split import EXTERNALIZING_FIRST
from eeg.score import report
from eeg.score.metrics import LEAST_FREEDOM, interval
from eeg.score.predict import Question, all_answers, predict_run
from eeg.score.sides import scored_side
from tests.score.conftest import by_hand, copied, write_run


def change(path, name, values):
    with h5py.File(path, "r+") as f:
        metadata = f["metadata"][()]
        metadata[name] = values(metadata)
        f["metadata"][()] = metadata


def evaluated(script, out, folder, *words):
    printed = script(
        "evaluate", "--cache", folder, "--out", out, "--json", out / "scores.json", *words
    )
    return json.loads((out / "scores.json").read_text()), printed


@pytest.fixture
def hits(caches, tmp_path):
    """Caches of challenge 1 in which a third of the responses are errors, and some are neither."""
    folder = copied(caches, tmp_path / "cache", 1)
    for release in ("R1", "R5", "R6", "R7"):
        change(
            cache_path(folder, 1, release),
            "correct",
            lambda rows: np.resize([1, 1, 0, 1, -1, 0, 1], len(rows)),
        )
    return folder


def test_hit_against_error_is_scored_by_its_auroc(script, hits, tmp_path):
    run = write_run(tmp_path, "c1_correct/1", head="number", target="correct")
    _, p, metadata = by_hand(run, hits, ["R6", "R7"])
    known = metadata["correct"] >= 0
    hit, error = p[metadata["correct"] == 1], p[metadata["correct"] == 0]
    expected = stats.mannwhitneyu(hit, error).statistic / (len(hit) * len(error))
    found, printed = evaluated(script, tmp_path, hits, "c1_correct")
    score = found["challenge1_correct"]
    assert score["auroc"] == pytest.approx(expected) and abs(expected - 0.5) > 1e-3
    assert score["windows"] == known.sum() < len(known) and score["target"] == "correct"
    assert f"challenge 1, correct, R6 + R7: {known.sum()} windows, 12 subjects" in printed
    assert f"{expected:.5f}" in printed
    chance = next(
        entry for entry in score["table"] if entry["name"] == "the mean of the training labels"
    )
    assert chance["auroc"] == 0.5 and "AUROC" in printed and "leaderboard" not in printed
    both, _ = evaluated(
        script, tmp_path, hits, "c1_correct", write_run(tmp_path, "c1_tcn/1").folder
    )
    assert set(both) == {"challenge1", "challenge1_correct"} and "nrmse" in both["challenge1"]


def by_pairs(hit, p):
    return stats.mannwhitneyu(p[hit == 1], p[hit == 0]).statistic / (
        (hit == 1).sum() * (hit == 0).sum()
    )


def test_the_auroc_has_an_interval_by_subject(script, hits, tmp_path):
    """As wide as Student's t times the jackknife error over subjects; none for few subjects."""
    run = write_run(tmp_path, "c1_correct/1", head="number", target="correct")
    found, printed = evaluated(script, tmp_path, hits, "c1_correct", "--release", "R7")
    assert "low" not in found["challenge1_correct"]["table"][0]
    assert "too few subjects to say" in printed
    change(
        cache_path(hits, 1, "R6"),
        "subject",
        lambda rows: np.array([b"NDARSIX%03d" % i for i in range(len(rows))]),
    )
    found, _ = evaluated(script, tmp_path, hits, "c1_correct", "--release", "R6")
    entry = found["challenge1_correct"]["table"][0]
    _, p, metadata = by_hand(run, hits, ["R6"])
    known = metadata["correct"] >= 0
    p, hit = p[known], metadata["correct"][known]
    n = len(p)
    assert n >= 10
    whole, without = (
        by_pairs(hit, p),
        np.array([by_pairs(np.delete(hit, i), np.delete(p, i)) for i in range(n)]),
    )
    error = np.sqrt((n - 1) * without.var())
    halves = stats.t.ppf(0.975, [n - 1, LEAST_FREEDOM]) * error
    assert entry["auroc"] == pytest.approx(whole)
    for bound, edge in (("low", 0), ("high", 1)):
        half = abs(entry[bound] - whole)
        assert entry[bound] == edge or halves[0] * 0.999 <= half <= halves[1] * 1.001
    assert entry["low"] < whole < entry["high"] and (entry["low"], entry["high"]) != (0, 1)


def test_what_is_fitted_to_response_times_is_not_for_hits(script, hits, tmp_path):
    for i in (1, 2):
        write_run(tmp_path, f"c1_correct/{i}", seed=i, head="number", target="correct")
    with pytest.raises(
        UserError,
        match="--ensemble stack is fitted to what the competition scores, "
        "c1_correct/1 predicts correct",
    ):
        evaluated(script, tmp_path, hits, "c1_correct", "--ensemble", "stack")
    found, _ = evaluated(script, tmp_path, hits, "c1_correct", "--ensemble", "average")
    assert found["challenge1_correct"]["run"] == "ensemble: average of 2"


@pytest.fixture
def four(caches, tmp_path):
    """(a run of all four factors, caches in which they vary and one subject lacks one)."""
    folder = copied(caches, tmp_path / "cache", 2)
    for release in ("R6", "R7"):
        for k, name in enumerate(("p_factor", "attention")):
            change(
                cache_path(folder, 2, release),
                name,
                lambda rows: np.sin(
                    k + np.unique(rows["subject"], return_inverse=True)[1] + len(rows)
                ),
            )
    change(
        cache_path(folder, 2, "R6"),
        "attention",
        lambda rows: np.where(rows["subject"] == rows["subject"][0], np.nan, rows["attention"]),
    )
    run = write_run(tmp_path, "c2_factors/1", 2, target="factors")
    torch.manual_seed(3)
    model = eeg.models.build("tcn", width=8, depth=1, head="number", n_outputs=4)
    model.scale[:] = 0.5
    torch.save({"settings": model.settings, "state": model.state_dict()}, run.weights)
    return run, folder


def factors_by_hand(run, folder):
    """{factor: (windows, NRMSE, r)}, from the project's own predictions."""
    scored = scored_side(folder, 2)
    p = predict_run(run, scored, Question(all_answers))
    found = {}
    for k, name in enumerate(EXTERNALIZING_FIRST):
        y = scored.metadata[name]
        known = ~np.isnan(y)
        r = np.corrcoef(y[known], p[known, k])[0, 1] if np.ptp(y[known]) else None
        found[name] = (
            known.sum(),
            np.sqrt(np.mean((y[known] - p[known, k]) ** 2)) / (y[known].std() or 1),
            r,
        )
    return found


def by_subject(run, folder, name):
    """(labels, mean answers, subjects) of those with a known factor, one by one."""
    scored = scored_side(folder, 2)
    p = predict_run(run, scored, Question(all_answers))[:, EXTERNALIZING_FIRST.index(name)]
    found = []
    for subject in np.unique(scored.subjects):
        own = scored.subjects == subject
        (y,) = np.unique(scored.metadata[name][own])
        if not np.isnan(y):
            found.append((y, np.mean(p[own].astype(float)), subject))
    return tuple(map(np.array, zip(*found)))


def test_each_factor_has_its_nrmse_and_correlation(script, four, tmp_path):
    run, folder = four
    expected = factors_by_hand(run, folder)
    found, printed = evaluated(script, tmp_path, folder, "c2_factors")
    told = found["challenge2"]["factors"]["c2_factors/1"]
    assert expected["attention"][0] < expected["p_factor"][0]
    for name in ("externalizing", "p_factor", "attention"):
        windows, nrmse, r = expected[name]
        assert told[name]["windows"] == windows
        assert told[name]["nrmse"] == pytest.approx(nrmse)
        assert told[name]["pearson"] == pytest.approx(r)
        assert re.search(rf"{name} +{nrmse:.5f} .* {r:.5f}", printed)
        y, p, subjects = by_subject(run, folder, name)
        own = told[name]["by_subject"]
        assert own["subjects"] == len(y) == (11 if name == "attention" else 12)
        assert own["nrmse"] == pytest.approx(np.sqrt(np.mean((y - p) ** 2)) / y.std())
        assert own["pearson"] == pytest.approx(stats.pearsonr(y, p)[0])
        assert own["nrmse_interval"] == pytest.approx(interval(y, p, subjects))
        numbers = f"{own['nrmse']:.5f} .* {own['pearson']:.5f}"
        assert re.search(rf"{name}, by subject +{numbers}", printed)
    # of all the same
    assert "pearson" not in told["internalizing"]
    assert "do not vary" in told["internalizing"]["reason"]
    mean = np.mean([expected[name][2] for name in ("externalizing", "p_factor", "attention")])
    assert told["mean_pearson"] == pytest.approx(mean) and re.search(f"mean +{mean:.5f}", printed)
    assert found["challenge2"]["nrmse"] == pytest.approx(expected["externalizing"][1])


def test_each_factor_stands_in_the_report(four, tmp_path):
    run, folder = four
    path, _ = report.write(run, folder, tmp_path, quick=True)
    text = " ".join(re.sub(r"<[^>]*>", " ", path.read_text()).split())
    for name, (_, nrmse, r) in factors_by_hand(run, folder).items():
        if r is not None:
            assert re.search(rf"{name} {nrmse:.5f} .*? {r:.5f}", text)
    assert "All four factors" in text
