"""Ensembles against NumPy and SciPy written out, and what may be fitted on whom."""

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from eeg import UserError
from eeg.score.ensemble import asked, combine, combine_runs, subject_mean
from eeg.score.metrics import nrmse
from eeg.score.predict import predict_run
from eeg.score.sides import scored_side, side
from tests.score.conftest import subject_names, write_run


@pytest.fixture
def members():
    """Three members of which one is noise: (valid, y, subjects, test, y_test)."""
    rng = np.random.default_rng(0)
    y, y_test = rng.normal(1.6, 0.4, 300), rng.normal(1.6, 0.4, 200)
    noise = (0.2, 0.4, 3.0)
    of = lambda y: [
        np.stack([y + rng.normal(0.1, s, len(y)), np.full(len(y), 7.0)], 1) for s in noise
    ]
    return of(y), y, np.arange(300) // 10, of(y_test), y_test


def test_average(members):
    p, words = combine("average", members[3])
    np.testing.assert_allclose(
        p, (members[3][0][:, 0] + members[3][1][:, 0] + members[3][2][:, 0]) / 3
    )
    assert words == "average of 3"
    np.testing.assert_array_equal(combine("average", members[3][:1])[0], members[3][0][:, 0])


def test_weights_are_non_negative_least_squares(members):
    valid, y, subjects, test, y_test = members
    p, words = combine("weights", test, valid, y, subjects)
    known = np.stack([v[:, 0] for v in valid], 1)
    found = lsq_linear(known - known.mean(0), y - y.mean(), (0, np.inf))
    np.testing.assert_allclose(
        p, y.mean() + (np.stack([t[:, 0] for t in test], 1) - known.mean(0)) @ found.x, atol=1e-4
    )
    assert words.split()[1] == f"{found.x[0]:.2f}" and found.x[0] > 2 * found.x[1]
    assert (
        nrmse(y_test, p) < nrmse(y_test, test[0][:, 0]) < nrmse(y_test, combine("average", test)[0])
    )
    against = [-v for v in valid]
    # who only misleads, gets no weight
    np.testing.assert_allclose(combine("weights", test, against, y, subjects)[0], y.mean())


def test_stack_uses_all_columns():
    """The answer is useless, a statistic beside it says everything."""
    rng = np.random.default_rng(1)
    y, y_test = rng.normal(1.6, 0.4, 400), rng.normal(1.6, 0.4, 100)
    of = lambda y: [np.stack([rng.normal(size=len(y)), 3 * y - 2], 1)]
    p, words = combine("stack", of(y_test), of(y), y, np.arange(400) // 20)
    np.testing.assert_allclose(p, y_test, atol=0.02)
    assert words == "ridge on 2 numbers"


def test_what_is_fitted_is_fitted_on_validation_windows(caches, tmp_path):
    runs = [write_run(tmp_path, f"a/{i}", seed=i) for i in range(2)] + [
        write_run(tmp_path, "a/n", head="number")
    ]
    scored, known = scored_side(caches, 1), side(caches, runs, "valid")
    assert known.names == set(subject_names("R5"))
    for way in ("average", "weights", "stack"):
        found = [predict_run(run, scored, asked(way)) for run in runs]
        assert [p.shape[1] for p in found] == ([13, 13, 1] if way == "stack" else [1, 1, 1])
        p, words = combine_runs(way, runs, found, caches, asked(way))
        valid = [predict_run(run, known, asked(way)) for run in runs]
        expected, _ = combine(way, found, valid, known.y, known.subjects)
        np.testing.assert_array_equal(p, expected)
        assert p.shape == (len(scored.rows),) and np.isfinite(p).all()


def test_folds_of_a_cross_validation_are_averaged_or_refused(caches, tmp_path):
    names = subject_names("R1")
    runs = [
        write_run(
            tmp_path,
            f"cv/{i}",
            seed=i,
            sides={"train": names[:i] + names[i + 1 :], "valid": [names[i]]},
        )
        for i in range(5)
    ]
    found = [predict_run(run, scored_side(caches, 1)) for run in runs]
    assert combine_runs("average", runs, found, caches, asked("average"))[1] == "average of 5"
    with pytest.raises(UserError, match="--ensemble average"):
        combine_runs("weights", runs, found, caches, asked("weights"))


@pytest.mark.parametrize("name", ["evaluate", "compare"])
@pytest.mark.parametrize("way", ["weights", "stack"])
def test_an_ensemble_is_not_scored_where_it_is_fitted(script, tmp_path, name, way):
    for i in range(2):
        write_run(tmp_path, f"c1_tcn/{i}", seed=i)
    arguments = (name, "--out", tmp_path, "c1_tcn", "--ensemble")
    reason = (
        f"--ensemble {way} is fitted on the validation subjects of its runs, "
        "and 4 of .*NDARR5000XX.*--release.*--ensemble average"
    )
    for releases in (["R5"], ["R5", "R6"]):
        with pytest.raises(UserError, match=reason):
            script(*arguments, way, "--release", *releases)
    assert f"ensemble: {'ridge' if way == 'stack' else 'weights'}" in script(
        *arguments, way, "--release", "R6"
    )
    assert "ensemble: average of 2" in script(*arguments, "average", "--release", "R5")


def test_subject_mean():
    np.testing.assert_allclose(
        subject_mean(np.array([1.0, 2, 3, 4, 8]), np.array([b"b", b"a", b"b", b"a", b"c"])),
        [2, 3, 2, 3, 8],
    )
