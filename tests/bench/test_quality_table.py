"""The table of `run/bench.py quality`, on made-up cells, against arithmetic by hand."""

import dataclasses

import pytest

from eeg.bench import quality_table
from eeg.bench.recipes import THIN, Cell, Plan
from tests.bench.made_up import cell_about

PLAN = Plan(worlds=("real", "null"), recipes=THIN, sizes=(30,), seeds=(0, 1), challenges=(1,))


def found_of(numbers, challenge=1, size=30, **about):
    """{(world, recipe): NRMSE of each seed} -> what publish takes."""
    return {
        Cell(world, challenge, size, seed, recipe): cell_about(nrmse, **about)
        for (world, recipe), seeds in numbers.items()
        for seed, nrmse in enumerate(seeds)
    }


def columns(text, first):
    """The cells of the line of the table whose first column this is."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first}")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def line_of(text, words):
    (line,) = [line for line in text.splitlines() if words in line]
    return line


def test_scores_and_halves_of_their_intervals_are_averaged_over_seeds():
    one = {"nrmse": 0.8, "low": 0.7, "high": 0.92}
    two = {"nrmse": 0.9, "low": 0.87, "high": 0.93}
    score = quality_table.averaged([one, two])
    assert score.nrmse == pytest.approx(0.85)
    assert score.half == pytest.approx((0.11 + 0.03) / 2)
    assert (str(score), score.seeds) == ("0.850 ± 0.070", 2)


def test_a_seed_without_an_interval_leaves_none():
    score = quality_table.averaged([{"nrmse": 0.8, "low": 0.7, "high": 0.9}, {"nrmse": 0.9}])
    assert (str(score), score.half) == ("0.850", None)


def test_the_table_marks_the_best_and_ends_with_the_worst_world():
    numbers = {
        ("real", "default"): [0.80, 0.84],  # 0.82
        ("real", "ridge"): [0.90, 0.92],  # 0.91, 0.09 behind
        ("real", "start-kit"): [0.86],  # 0.04 behind
        ("null", "default"): [1.01],  # 0.01 behind
        ("null", "ridge"): [1.0],
    }
    text, _ = quality_table.described(PLAN, found_of(numbers))
    mean, label_only = "1.000", "0.950"
    own = ["0.860 ± 0.050 (1)", "0.910 ± 0.050", "**0.820 ± 0.050**"]  # (1): of two seeds
    assert columns(text, "real, 30") == [mean, label_only, *own, "0.500"]
    own = ["", "**1.000 ± 0.050 (1)**", "1.010 ± 0.050 (1)"]
    assert columns(text, "null, 30") == [mean, label_only, *own, "0.500"]
    gaps = ["0.040 (real, 30)", "0.090 (real, 30)", "0.010 (null, 30)"]
    assert columns(text, "worst world")[2:5] == gaps
    assert "simulated" in text and "7 of 12 cells" in text
    lengths = {len(line) for line in text.splitlines() if line.startswith("|")}
    assert len(lengths) == 1  # aligned


def test_rows_go_by_size_and_then_by_world():
    later = found_of({("real", "ridge"): [0.9]}, size=100)
    first = found_of({("shuffled", "ridge"): [0.9], ("null", "ridge"): [0.9]})
    rows = quality_table.standings(later | first, 1)
    assert [row.name for row in rows] == ["null, 30", "shuffled, 30", "real, 100"]
    assert quality_table.standings(later | first, 2) == []


def test_a_world_without_an_oracle_and_a_recipe_without_a_rival():
    text, met = quality_table.described(PLAN, found_of({("null", "ridge"): [1.0]}, oracle=None))
    assert columns(text, "null, 30")[2:] == ["1.000 ± 0.050 (1)", "-"]
    assert columns(text, "worst world")[2:] == ["-", ""]
    assert met and "not measured yet" in line_of(text, "the default is best")


@pytest.mark.parametrize(
    "numbers, words, met",
    [
        ({"default": 0.80, "start-kit": 0.85}, "below the start kit's recipe", True),
        ({"default": 0.82, "start-kit": 0.85}, "below the start kit's recipe", False),
        ({"default": 1.004}, "above the mean", True),
        ({"default": 1.006}, "above the mean", False),
        ({"default": 0.86, "ridge": 0.82}, "within one interval of the best", True),
        ({"default": 0.88, "ridge": 0.82}, "within one interval of the best", False),
        ({"eegnex": 0.853, "start-kit": 0.85}, "eegnex with our defaults is no worse", True),
        ({"eegnex": 0.86, "start-kit": 0.85}, "eegnex with our defaults is no worse", False),
    ],
)
def test_a_goal_of_challenge_1(numbers, words, met):
    found = found_of({("real", recipe): [nrmse] for recipe, nrmse in numbers.items()})
    text, good = quality_table.described(PLAN, found)
    line = line_of(text, words)
    assert (": met in all 1" in line) == met
    assert ("NOT MET in 1 of 1: real, 30" in line) == (not met)
    assert good or not met


@pytest.mark.parametrize("default, met", [(0.59, True), (0.61, False)])
def test_challenge_2_lies_near_the_better_of_ridge_and_network(default, met):
    numbers = {("real", "default"): [default], ("real", "ridge"): [0.5], ("real", "tcn"): [0.9]}
    plan = dataclasses.replace(PLAN, challenges=(2,))
    text, good = quality_table.described(plan, found_of(numbers, challenge=2, half=0.2))
    assert ("NOT MET" in line_of(text, "the better of ridge and tcn")) == (not met)
    assert good == met


@pytest.mark.parametrize("best_epoch, met", [(2, False), (3, True)])
def test_an_early_best_epoch_is_named_with_its_seed(best_epoch, met):
    found = found_of({("real", "default"): [0.8, 0.8]}, best_epoch=best_epoch)
    line = line_of(quality_table.described(PLAN, found)[0], "best epoch")
    assert ("real, 30, seed 1 (2 of 10)" in line) == (not met)


def test_nothing_to_learn_asks_for_no_gain_on_the_start_kit():
    found = found_of({("null", "default"): [1.0], ("null", "start-kit"): [1.0]})
    line = line_of(quality_table.described(PLAN, found)[0], "below the start kit's recipe")
    assert line.endswith("not measured yet")


def test_a_failed_training_is_named_and_no_goal_is_met():
    found = found_of({("real", "ridge"): [0.9]})
    found[Cell("real", 1, 30, 0, "default")] = {"failed": "run/train.py: no room"}
    text, met = quality_table.described(PLAN, found)
    assert not met
    words = "FAILED: real, challenge 1, 30 subjects, seed 0, default: run/train.py: no room"
    assert words in text


def test_the_table_and_the_figure_are_written(tmp_path, capsys):
    plan = dataclasses.replace(PLAN, challenges=(1, 2), out=tmp_path)
    numbers = {("real", "default"): [0.8, 0.82], ("null", "ridge"): [1.0]}
    assert quality_table.publish(plan, found_of(numbers))
    printed = capsys.readouterr().out
    assert (tmp_path / "quality.md").read_text().strip() in printed
    assert "challenge 2, externalizing**: nothing is measured yet" in printed
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["quality.md", "quality.png"]
