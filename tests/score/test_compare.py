"""run/compare.py: the table, the sentences below it, and what --promote takes."""

import json
import re

import numpy as np
import pytest

from eeg import UserError
from eeg.data.features import add
from tests.score.conftest import by_hand, copied, subject_names, write_fold, write_run


def test_the_better_of_two(script, caches, tmp_path):
    near = write_run(tmp_path, "c1_tcn/1", center=1.5)
    far = write_run(tmp_path, "c1_tcn/2", center=4.0, seed=1)
    far.config["train"]["lr"] = 0.5
    (far.folder / "config.json").write_text(json.dumps(far.config))
    printed = script("compare", "--out", tmp_path)
    y = by_hand(near, caches, ["R6", "R7"])[0]
    nrmse = lambda center: np.sqrt(np.mean((y - center) ** 2)) / y.std()
    lines = printed.splitlines()
    assert lines[0].startswith(f"challenge 1, R6 + R7: {len(y)} windows, 12 subjects")
    assert lines[2].split()[:3] == ["c1_tcn/1", "tcn", f"{nrmse(1.5):.5f}"]
    assert lines[3].split()[:3] == ["c1_tcn/2", "tcn", f"{nrmse(4.0):.5f}"]
    assert lines[2].endswith("cpu     lr 0.001, seed 0")
    assert lines[3].endswith("lr 0.5, seed 1")
    assert "  2:04  " in lines[2]
    parameters = 129 * 15 + 129 * 8 + 8  # filters and mixing alone
    assert int(re.search(r" ([\d,]+) +2:04 ", lines[2])[1].replace(",", "")) > parameters
    assert (
        f"better: c1_tcn/1 than c1_tcn/2, by {nrmse(4.0) - nrmse(1.5):.5f} NRMSE, 95 % interval"
        in printed
    )
    assert re.search(
        "(better|worse): c1_tcn/1 than the mean of the training labels"
        "|not distinguishable: c1_tcn/1 and the mean of the training labels",
        printed,
    )
    assert re.search("c1_tcn/1 (than|and) label-only: the subject's earlier trials", printed)


def test_identical_runs_are_not_distinguishable(script, tmp_path):
    for i in (1, 2):
        write_run(tmp_path, f"c2_tcn/{i}", 2, seed=5)
    printed = script("compare", "--out", tmp_path, "c2_tcn")
    assert "not distinguishable: c2_tcn/1 and c2_tcn/2 predict the same" in printed
    assert "better: c2_tcn/1 than c2_tcn/2" not in printed


def test_an_ensemble_stands_in_the_table(script, caches, tmp_path):
    """One run answers too much, one too little: their average beats both beyond doubt.

    It is judged where it is not among the best, too.
    """
    write_run(tmp_path, "c1_tcn/1", center=0.5)
    run = write_run(tmp_path, "c1_tcn/2", center=2.7)
    y = by_hand(run, caches, ["R6", "R7"])[0]
    printed = script("compare", "--out", tmp_path, "c1_tcn", "--ensemble", "average")
    assert (
        f"ensemble: average of 2         {np.sqrt(np.mean((y - 1.6) ** 2)) / y.std():.5f}"
        in printed
    )
    assert re.search(r"better: ensemble: average of 2 than c1_tcn/[12], by", printed)
    write_run(tmp_path, "c1_tcn/3", center=1.5)
    write_run(tmp_path, "c1_tcn/4", center=1.6)
    # of 0.5, 2.7, 1.5, 1.6: third, and judged all the same
    printed = script("compare", "--out", tmp_path, "c1_tcn", "--ensemble", "average")
    assert re.search(
        "c1_tcn/[34] and ensemble: average of 4|c1_tcn/[34] than ensemble: average of 4", printed
    )
    assert "ensemble: ridge on 52 numbers" in script(
        "compare", "--out", tmp_path, "c1_tcn", "--ensemble", "stack"
    )


def told(out):
    """-> promoted.json of challenge 1."""
    return json.loads((out / "promoted_challenge_1" / "promoted.json").read_text())


def test_validation_promotes_and_not_the_test_releases(script, tmp_path):
    """The lower validation NRMSE is promoted, though another run is better on R6 and R7."""
    write_run(tmp_path, "c1_lucky/1", center=1.63, nrmse=0.95)
    write_run(tmp_path, "c1_tcn/1", center=1.6, seed=2, nrmse=0.9)
    printed = script("compare", "--out", tmp_path, "--promote")
    # the table is by the test releases
    assert printed.index("c1_lucky/1") < printed.index("c1_tcn/1")
    assert "lowest validation NRMSE: c1_tcn/1, 0.90000 on 4 subjects of R5\n" in printed
    assert f"promoted c1_tcn/1 to {tmp_path}/promoted_challenge_1/" in printed
    kept = told(tmp_path)
    assert (kept["run"], kept["valid_nrmse"], kept["validated_on"], kept["releases"]) == (
        "c1_tcn/1",
        0.9,
        "4 subjects of R5",
        ["R6", "R7"],
    )
    printed = script("compare", "--out", tmp_path, "--promote")
    assert (
        "the promoted run has the lowest validation NRMSE, 0.90000 on 4 subjects of R5; "
        f"{tmp_path}/promoted_challenge_1/ is kept" in printed
    )


def test_the_test_releases_can_veto(script, tmp_path):
    write_run(tmp_path, "c1_good/1", center=1.6, nrmse=0.95)
    script("compare", "--out", tmp_path, "--promote")
    write_run(tmp_path, "c1_odd/1", center=4.0, seed=2, nrmse=0.5)
    printed = script("compare", "--out", tmp_path, "--promote")
    assert "the test releases veto it: worse: c1_odd/1 than the promoted run, by" in printed
    assert "is kept" in printed
    assert told(tmp_path)["run"] == "c1_good/1"
    write_run(tmp_path, "c1_near/1", center=1.63, seed=3, nrmse=0.4)
    printed = script("compare", "--out", tmp_path, "--promote")
    assert (
        "the test releases do not veto it: not distinguishable: c1_near/1 and the promoted run"
        in printed
    )
    assert told(tmp_path)["run"] == "c1_near/1"
    assert "promoted_challenge_1, epoch 2" in script(
        "evaluate", "--out", tmp_path, "promoted_challenge_1"
    )


def test_what_is_validated_on_other_subjects_is_not_promoted(script, tmp_path):
    write_run(tmp_path, "c1_tcn/1", center=1.5, nrmse=0.9)
    write_fold(tmp_path, 0.3, center=1.6, seed=2)
    printed = script("compare", "--out", tmp_path, "--promote")
    assert (
        "left out of the choice: 1 run not validated on 4 subjects of R5 (c1_cv: one of 5 folds)"
        in printed
    )
    assert told(tmp_path)["run"] == "c1_tcn/1"
    # alone it does not compete with the promoted one either
    printed = script("compare", "--out", tmp_path, "c1_cv", "--promote")
    assert "is kept" in printed and told(tmp_path)["run"] == "c1_tcn/1"


def test_what_validation_cannot_compare_with_the_promoted_run_needs_no_veto(script, tmp_path):
    write_fold(tmp_path, 0.3, center=1.6)
    assert "promoted c1_cv/1" in script("compare", "--out", tmp_path, "--promote")
    write_run(tmp_path, "c1_tcn/1", center=1.59, seed=2, nrmse=0.9)
    printed = script("compare", "--out", tmp_path, "c1_tcn", "--promote")
    assert (
        "the promoted run was validated on one of 5 folds, "
        "so its validation NRMSE is left out, too\n" in printed
    )
    assert told(tmp_path)["run"] == "c1_tcn/1"


def test_what_cannot_be_compared_is_named_with_its_reason(script, tmp_path):
    write_run(tmp_path, "c1_tcn/1")
    write_run(
        tmp_path, "c1_seen/1", sides={"train": subject_names("R6"), "valid": subject_names("R5")}
    )
    write_run(tmp_path, "c1_nan/1", center=float("nan"))
    write_run(tmp_path, "c1_live/1", state={"status": "stopped"})
    printed = script("compare", "--out", tmp_path)
    assert "left out: c1_seen/1 was trained on 8 of the subjects" in printed
    assert "left out: c1_nan/1 answers NaN" in printed
    assert "c1_live" not in printed and "  c1_tcn/1  tcn" in printed
    printed = script("compare", "--out", tmp_path, "c1_tcn", "c1_seen")  # though it was named
    assert "left out: c1_seen/1 was trained on 8 of the subjects" in printed
    assert "  c1_tcn/1  tcn" in printed
    with pytest.raises(UserError, match="c1_seen/1 was trained on 8"):
        script("compare", "--out", tmp_path, "c1_seen")


def test_validation_windows_that_are_not_cached(script, tmp_path):
    write_run(
        tmp_path,
        "c1_tcn/1",
        nrmse=0.77,
        sides={"train": subject_names("R1"), "valid": ["NDARR9000XX"]},
    )
    assert "0.77000 (not cached)" in script("compare", "--out", tmp_path)


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ([], "no finished run of challenge 1"),
        (["--challenge", "2"], "no finished run of challenge 2"),
        (["c9"], "no run c9"),
        (["c1_stopped"], "c1_stopped/1 has not finished"),
        (["c2_tcn", "--challenge", "1"], "c2_tcn/1 is a run of challenge 2, not 1"),
    ],
)
def test_mistakes(script, tmp_path, arguments, reason):
    if arguments and arguments[0] in ("c1_stopped", "c2_tcn"):
        write_run(tmp_path, "c1_stopped/1", state={"status": "stopped"})
        write_run(tmp_path, "c2_tcn/1", 2)
    with pytest.raises(UserError, match=reason):
        script("compare", "--out", tmp_path, *arguments)


def test_an_ensemble_cannot_be_promoted(script, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        script("compare", "--out", tmp_path, "--promote", "--ensemble", "average")
    assert "an ensemble has no weights of its own" in capsys.readouterr().err


def test_a_hybrid_without_its_features_is_left_out(script, caches, tmp_path):
    """The caches of these tests have no features, and the other runs are compared.

    The same where only its validation windows lack them.
    """
    write_run(tmp_path, "c1_tcn/1")
    write_run(tmp_path, "c1_hybrid/1", network="hybrid")
    for words in ([], ["c1_tcn", "c1_hybrid"]):
        printed = script("compare", "--out", tmp_path, *words)
        assert "left out: c1_hybrid/1: this model takes the features of each window" in printed
        assert "run/features.py --release R6 R7" in printed and "  c1_tcn/1  tcn" in printed
    folder = copied(caches, tmp_path / "cache", 1, ("R1", "R5", "R6"))
    add(folder / "challenge1_R6_windows.h5")
    for words in ([], ["--ensemble", "stack"]):
        printed = script("compare", "--out", tmp_path, "--cache", folder, *words)
        assert "  c1_hybrid/1  hybrid " in printed and "0.90000 (not cached)" in printed
    assert "left out: the ensemble: this model takes the features" in printed


def differing(script, out, *words):
    """{run: what stands in the last column} of a table."""
    lines = script("compare", "--out", out, *words).splitlines()
    at = next(line.index("differs in") for line in lines if "differs in" in line)
    return {
        line.split()[0]: line[at:] for line in lines if line.startswith("  c1_") and " cpu" in line
    }


def test_differences_are_named_in_words(script, tmp_path):
    usual = {
        "fold": None,
        "cv": 0,
        "train": ["R1"],
        "valid": ["R5"],
        "augment": {"noise": 0.05, "mask": 0.1},
        "balance": False,
        "max_recordings": None,
        "set": {"width": 8},
    }
    write_run(tmp_path, "c1_tcn/1", train=usual)
    write_run(tmp_path, "c1_tcn/2", seed=1, train=usual)
    write_run(tmp_path, "c1_tcn/3", train=usual | {"fold": [2, 5], "cv": 5, "valid": []})
    write_run(
        tmp_path,
        "c1_tcn/4",
        train=usual | {"lr": 3e-4, "augment": {"noise": 0.05}, "balance": True},
    )
    write_run(
        tmp_path,
        "c1_tcn/5",
        train=usual
        | {"train": ["R1", "R2"], "max_recordings": 3, "augment": {"noise": 0.2, "mask": 0.1}},
    )
    write_run(tmp_path, "c1_cnn/1", network="cnn", train=usual | {"set": {}})
    assert differing(script, tmp_path) == {
        "c1_tcn/1": "",
        "c1_cnn/1": "",
        "c1_tcn/2": "seed 1",
        "c1_tcn/3": "fold 2 of 5",
        "c1_tcn/4": "no mask, lr 0.0003, subjects drawn equally often",
        "c1_tcn/5": "noise 0.2, train R1 R2, max recordings 3",
    }
    assert differing(script, tmp_path, "c1_tcn/1", "c1_tcn/2") == {
        "c1_tcn/1": "seed 0",
        "c1_tcn/2": "seed 1",
    }
    assert differing(script, tmp_path, "c1_tcn", "--seed", 1) == {"c1_tcn/2": ""}
    assert differing(script, tmp_path, "c1_tcn/3..4") == {
        "c1_tcn/3": "mask 0.1, lr 0.001, fold 2 of 5, windows drawn equally often",
        "c1_tcn/4": "no mask, lr 0.0003, no fold, subjects drawn equally often",
    }
