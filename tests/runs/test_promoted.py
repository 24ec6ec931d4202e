"""Promotion: in one step, and of a run that is whole."""

import json

import pytest

from eeg import UserError
from eeg.runs.choice import choose_runs
from eeg.runs.promoted import promote, promoted_folder
from eeg.runs.run import find_runs
from tests.score.conftest import write_run


def test_promote(tmp_path):
    first, second = write_run(tmp_path, "a/1", seed=1), write_run(tmp_path, "a/2", seed=2)
    for run in (first, second):
        folder = promote(run, tmp_path, {"nrmse": 0.9})
        assert folder == promoted_folder(tmp_path, 1) and json.loads(
            (folder / "promoted.json").read_text()
        ) == {"run": run.name, "nrmse": 0.9}
        now = choose_runs(tmp_path, ["promoted_challenge_1"])[0]
        assert (
            now.finished
            and now.weights.read_bytes() == run.weights.read_bytes()
            and now.config == run.config
            and now.best == run.best
        )
    assert [run.name for run in find_runs(tmp_path)] == ["a/1", "a/2"]  # it is not counted twice
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "promoted_challenge_1"]
    second.weights.unlink()
    with pytest.raises(UserError, match="lost its weights file"):
        promote(second, tmp_path, {})
    assert (
        choose_runs(tmp_path, ["promoted_challenge_1"])[0].finished
        and len(list(tmp_path.iterdir())) == 2
    )
