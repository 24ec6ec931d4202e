"""Row `foundation`: its table against hand-worked numbers, and what it measures again."""

import json

import numpy as np
import pytest

from eeg import UserError
from eeg.bench.foundation import cells as row
from eeg.bench.foundation.plan import Cell, Plan
from eeg.bench.foundation.table import described, interval
from eeg.files import locked

SUBJECTS = [f"S{i:02}" for i in range(12) for _ in range(5)]


def about(plan, error, seed=0, **changed):
    """A cell whose answers err by `error` standard deviations."""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal(60)
    noise = rng.standard_normal(60)
    noise *= error * y.std() / np.sqrt(np.square(noise).mean())
    known = {"fingerprint": row.fingerprint(plan), "subjects": SUBJECTS, "y": y.tolist()}
    return known | {"answers": (y + noise).tolist(), "nrmse": error, "best_epoch": 3} | changed


def found(plan, errors):
    """{cell: what was measured}: errors[size, start], the same for each seed."""
    return {
        cell: about(plan, errors[cell.size, cell.start], cell.seed)
        if (cell.size, cell.start) in errors
        else None
        for cell in plan.cells()
    }


@pytest.mark.parametrize("pretrained, met", [(0.76, True), (0.77, False)])
def test_the_goal_is_five_percent_with_the_fewest_subjects(pretrained, met):
    plan = Plan(worlds=("rhythms",), sizes=(12, 6), seeds=(0, 1))
    errors = {(6, "scratch"): 0.8, (6, "pretrained"): pretrained}
    errors |= {(12, "scratch"): 0.5, (12, "pretrained"): 0.6}
    text, good = described(plan, found(plan, errors))
    assert good == met
    lines = [line for line in text.splitlines() if line.startswith("| rhythms")]
    assert [line.split("|")[1].strip() for line in lines] == ["rhythms, 6", "rhythms, 12"]
    cells = [cell.strip() for cell in lines[0].split("|")[2:6]]
    gain = -100 * (1 - pretrained / 0.8)
    assert cells == ["2", "0.800", f"{pretrained:.3f}", f"{gain:+.1f} %"]
    assert "+20.0 %" in lines[1]  # worse is a rise
    assert "no score on real EEG" in text or "is a score on real EEG" in text


def test_a_size_without_both_starts_is_not_shown():
    plan = Plan(worlds=("rhythms",), sizes=(6, 12), seeds=(0,))
    text, good = described(plan, found(plan, {(6, "scratch"): 0.8, (12, "scratch"): 0.8}))
    assert "| rhythms" not in text and "not measured yet" in text and good
    assert "2 of 4 cells are measured" in text


def test_the_interval_counts_subjects_not_windows():
    """Each subject's windows repeated: the same interval; each a subject of its own: a narrower."""
    plan = Plan()
    pair = [about(plan, 0.9), about(plan, 0.6)]
    names = ("y", "answers", "subjects")
    twice = [one | {name: list(np.repeat(one[name], 2)) for name in names} for one in pair]
    np.testing.assert_allclose(interval([twice]), interval([pair]), rtol=1e-9)
    low, high = interval([pair])
    assert low < -0.3 < high


def test_only_what_is_missing_is_measured(tmp_path, monkeypatch, capsys):
    given = {"worlds": ("rhythms",), "sizes": (6,), "seeds": (0, 1), "out": tmp_path, "hours": 1.0}
    plan = Plan(**given)
    done, old = Cell("rhythms", 6, 0, "scratch"), Cell("rhythms", 6, 1, "pretrained")
    for cell, more in ((done, {}), (old, {"fingerprint": ["other settings"]})):
        (tmp_path / cell.file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / cell.file).write_text(json.dumps(about(plan, 0.8, **more)))
    asked = []
    monkeypatch.setattr(row.Work, "prepare", lambda self, folder, world: asked.append(world))
    monkeypatch.setattr(row.Work, "measure_one", lambda self, world, cell: asked.append(cell))
    row.foundation(given)
    cells = [each for each in asked if isinstance(each, Cell)]
    assert set(cells) == set(plan.cells()) - {done} and len(cells) == 3
    assert "1 of 4 cells are measured" in capsys.readouterr().out
    with locked(tmp_path / "lock"), pytest.raises(UserError, match="another call is measuring"):
        row.foundation(given)
    assert row.foundation(given | {"hours": 0.0})
