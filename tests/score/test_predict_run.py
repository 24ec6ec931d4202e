"""Finished runs: weights that fit and weights that do not, and their predictions."""

import numpy as np
import pytest
import torch

from eeg import UserError
from eeg.score.predict import load_model, predict, predict_run, predict_validation
from eeg.score.sides import scored_side, side
from tests.score.conftest import by_hand, write_run


def test_predictions_are_the_models_own(caches, tmp_path):
    run = write_run(tmp_path, "a/1")
    _, p, _ = by_hand(run, caches, ["R6", "R7"])
    assert np.std(p) > 0
    np.testing.assert_allclose(predict_run(run, scored_side(caches, 1))[:, 0], p, rtol=1e-5)
    assert not load_model(run.weights).training


def damaged(run, change):
    saved = torch.load(run.weights, weights_only=True)
    change(saved)
    torch.save(saved, run.weights)
    return run.weights


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda saved: saved["settings"].update(width=16), "do not fit the model .* size mismatch"),
        (lambda saved: saved["settings"].update(name="resnet"), "there is no model 'resnet'"),
        (lambda saved: saved["settings"].update(hidden=3), "tcn has no setting 'hidden'"),
        (lambda saved: saved["state"].pop("center"), "Missing key"),
        (lambda saved: saved.pop("settings"), "cannot be read as weights .*settings"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, change, reason):
    with pytest.raises(UserError, match=reason) as raised:
        load_model(damaged(write_run(tmp_path, "a/1"), change))
    assert "train" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600


class Dangerous:
    def __reduce__(self):
        return print, ("ran",)


@pytest.mark.parametrize("content", [b"", b"PK not a zip", b"\x80\x02."])
def test_files_that_are_no_weights(tmp_path, content):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(UserError, match="w.pt cannot be read as weights"):
        load_model(tmp_path / "w.pt")


def test_nothing_in_a_weights_file_is_run(tmp_path, capsys):
    torch.save({"settings": Dangerous(), "state": {}}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_model(tmp_path / "w.pt")
    torch.save(torch.zeros(3), tmp_path / "w.pt")
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_model(tmp_path / "w.pt")
    assert "ran" not in capsys.readouterr().out


def test_answers_that_are_no_numbers(caches, tmp_path):
    run = write_run(tmp_path, "a/1", center=float("nan"))
    with pytest.raises(UserError, match=r"a/1 answers NaN or infinity for (\d+) of \1 windows"):
        predict_run(run, scored_side(caches, 1))


def test_validation_answers_of_challenge_2_are_shrunk_as_fits_other_subjects(caches, tmp_path):
    run = write_run(tmp_path, "c2_tcn/1", 2, seed=3)
    model = load_model(run.weights)
    # what was fitted on all of them plays no part
    model.center[:], model.scale[:], model.shrink[:] = (0.3, 2.0, 0.0)
    torch.save({"settings": model.settings, "state": model.state_dict()}, run.weights)
    valid = side(caches, [run], "valid")
    y, subjects = valid.y, valid.subjects
    model.shrink[:] = 1
    full = predict(model, *valid)[:, 0] - 0.3
    names = np.unique(subjects)  # four, of 19 windows each
    expected = np.empty(len(y))
    for fitted, scored in (names[::2], names[1::2]), (names[1::2], names[::2]):
        fitted, scored = np.isin(subjects, fitted), np.isin(subjects, scored)
        strength = np.clip((full[fitted] @ (y[fitted] - 0.3)) / (full[fitted] @ full[fitted]), 0, 1)
        expected[scored] = 0.3 + strength * full[scored]
    np.testing.assert_allclose(predict_validation(run, valid), expected, rtol=1e-6)
    one = write_run(tmp_path, "c1_tcn/1")
    windows = side(caches, [one], "valid")
    np.testing.assert_array_equal(predict_validation(one, windows), predict_run(one, windows)[:, 0])
