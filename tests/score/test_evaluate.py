"""run/evaluate.py: its figures against h5py, torch and NumPy alone, and every mistake."""

import json
import os
import random
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

import eeg.models
from eeg import UserError
from eeg.data.cache import cache_path
from tests.score.conftest import ROOT, by_hand, copied, subject_names, write_fold, write_run


def by_definition(y, p):
    return np.sqrt(np.mean((y - p) ** 2)) / np.sqrt(np.mean((y - y.mean()) ** 2))


def scores(script, out, *arguments):
    printed = script("evaluate", "--out", out, "--json", out / "scores.json", *arguments)
    return json.loads((out / "scores.json").read_text()), printed


def figure(score, name):
    return next(entry for entry in score["table"] if entry["name"] == name)


def test_without_arguments_the_best_of_each_challenge(script, caches, tmp_path):
    best = write_run(tmp_path, "c1_tcn/20260101_000000", seed=1, nrmse=0.8)
    write_run(tmp_path, "c1_tcn/20260102_000000", seed=2, nrmse=0.85)
    two = write_run(tmp_path, "c2_tcn/20260101_000000", 2, seed=3)
    found, printed = scores(script, tmp_path)
    y, p, metadata = by_hand(best, caches, ["R6", "R7"])
    one = found["challenge1"]
    assert one["nrmse"] == pytest.approx(by_definition(y, p), rel=1e-5)
    assert one["run"] == "c1_tcn/20260101_000000, epoch 2"
    assert one["releases"] == ["R6", "R7"]
    assert (one["windows"], one["subjects"]) == (len(y), 12)
    assert not one["simulated"]
    with h5py.File(cache_path(caches, 1, "R1"), "r") as f:
        known, trained = f["y"][()], f["metadata"][()]
    assert figure(one, "the mean of the training labels")["nrmse"] == pytest.approx(
        by_definition(y, known[~trained["copy"]].mean())
    )
    for release in ("R6", "R7"):
        own = np.char.startswith(metadata["subject"].astype(str), f"NDAR{release}")
        assert figure(one, f"{release}: {own.sum()} windows")["nrmse"] == pytest.approx(
            by_definition(y[own], p[own]), rel=1e-5
        )
    assert (
        figure(one, "label-only: the subject's earlier trials")["nrmse"]
        < figure(one, "the mean of the training labels")["nrmse"]
    )

    y, p = [], []
    saved = torch.load(two.weights, weights_only=True)
    model = eeg.models.build(**saved["settings"]).eval()
    model.load_state_dict(saved["state"])
    for release in ("R6", "R7"):
        with h5py.File(cache_path(caches, 2, release), "r") as f:
            for recording in np.unique(f["metadata"]["recording"]):
                draw = random.Random(42)
                for i in np.flatnonzero(f["metadata"]["recording"] == recording):
                    begin = draw.randint(0, 200)
                    with torch.no_grad():
                        p.append(
                            model(torch.from_numpy(f["X"][i][None, :, begin : begin + 200])).item()
                        )
                    y.append(f["y"][i])
    assert found["challenge2"]["nrmse"] == pytest.approx(
        by_definition(np.array(y), np.array(p)), rel=1e-5
    )
    assert figure(found["challenge2"], "label-only: age and sex")["nrmse"] > 0
    assert found["overall"] == pytest.approx(
        0.3 * found["challenge1"]["nrmse"] + 0.7 * found["challenge2"]["nrmse"]
    )
    for text in ("0.88668", "0.97843", "0.96381", f"= {found['overall']:.5f}", "95 % interval"):
        assert text in printed
    assert "on real data" not in printed  # these are not marked as simulated


def test_flagged_windows_are_scored_and_reported_apart(script, caches, tmp_path, monkeypatch):
    folder = copied(caches, tmp_path / "cache", 1, ("R1", "R5", "R6"))
    with h5py.File(folder / "challenge1_R6_windows.h5", "r+") as f:
        metadata = f["metadata"][()]
        metadata["fast"][:3], metadata["copy"][2:6] = True, True
        f["metadata"][()] = metadata
        f.attrs["simulated"] = True
    run = write_run(tmp_path / "out", "c1_tcn/1")
    found, printed = scores(script, tmp_path / "out", "--cache", folder, "--challenge", 1)
    y, p, metadata = by_hand(run, folder, ["R6"])
    one, n = found["challenge1"], len(y)
    assert one["nrmse"] == pytest.approx(by_definition(y, p), rel=1e-5) and one["windows"] == n
    for name, inside in (
        ("without fast time line and copies", slice(6, None)),
        ("without fast time line", slice(3, None)),
        ("without copies", [0, 1, *range(6, n)]),
    ):
        entry = figure(one, f"{name}: {len(y[inside])} windows")
        assert entry["nrmse"] == pytest.approx(by_definition(y[inside], p[inside]), rel=1e-5)
    assert "R6 (simulated)" in printed and "best, on real data" in printed


def test_the_distance_to_the_oracle_of_a_simulated_world(script, caches, tmp_path):
    folder, oracles = copied(caches, tmp_path / "cache", 2), (("R6", 0.4674), ("R7", 0.4674))
    run = write_run(tmp_path / "out", "c2_tcn/1", 2, seed=3)
    arguments = tmp_path / "out", "--cache", folder, "--challenge", 2
    before, printed = scores(script, *arguments)
    assert "oracle" not in printed and "oracle" not in before["challenge2"]
    for release, value in oracles:
        with h5py.File(cache_path(folder, 2, release), "r+") as f:
            f.attrs["oracle_nrmse"] = value
    found, printed = scores(script, *arguments)
    assert found["challenge2"]["oracle"] == 0.4674
    line = next(line for line in printed.splitlines() if "oracle" in line)
    away = found["challenge2"]["nrmse"] - 0.4674
    assert line.endswith(f" 0.46740  the first line is {away:.3f} away") and "simulated" in line
    with h5py.File(cache_path(folder, 2, "R7"), "r+") as f:
        f.attrs["oracle_nrmse"] = 0.6  # another world: no one figure bounds both
    assert "oracle" not in scores(script, *arguments, run.name)[1]


def test_a_fold_is_not_the_best_run(script, tmp_path):
    write_run(tmp_path, "c1_tcn/1", nrmse=0.9)
    write_fold(tmp_path, 0.4)
    found, printed = scores(script, tmp_path)
    assert found["challenge1"]["run"] == "c1_tcn/1, epoch 2"
    assert (
        "left out of the choice: 1 run not validated on 4 subjects of R5 (c1_cv: one of 5 folds)\n"
        in printed
    )


def test_a_run_scored_on_its_validation_subjects_says_so(script, tmp_path):
    write_run(tmp_path, "c1_tcn/1")
    write_run(tmp_path, "c1_tcn/2", seed=2)
    write_run(tmp_path, "c2_tcn/1", 2)
    found, printed = scores(script, tmp_path, "--release", "R5", "R7")
    for challenge, what in (
        (1, "epoch of c1_tcn/1 was"),
        (2, "epoch and shrinkage of c2_tcn/1 were"),
    ):
        assert f"note: the {what} chosen on 4 of these 8 subjects, which flatters it\n" in printed
        one = found[f"challenge{challenge}"]
        assert one["chosen_on_these_subjects"] is True
        assert one["table"][0]["chosen_on_these_subjects"] is True
    found, printed = scores(script, tmp_path, "c1_tcn", "--ensemble", "average", "--release", "R5")
    assert (
        "note: the epoch of c1_tcn/1, c1_tcn/2 was chosen on some of these subjects, "
        "which flatters them\n" in printed
    )
    assert [entry.get("chosen_on_these_subjects") for entry in found["challenge1"]["table"]][
        :4
    ] == [True, True, True, None]
    found, printed = scores(script, tmp_path)
    assert "note:" not in printed and found["challenge2"]["chosen_on_these_subjects"] is False


def test_an_encoder_that_has_seen_the_subjects_is_named(script, tmp_path):
    """No error: it may have seen them without labels."""
    seen = subject_names("R6")[:5]
    sides = {"train": subject_names("R1"), "valid": subject_names("R5") + seen}
    about = {"sha256": "", "matched": [], "new": [], "not_used": []}
    notes = []
    for number, (target, known) in enumerate((("signal", sides), ("factors", sides), (None, None))):
        more = {"target": target, "challenge": 2} if target else {}
        encoder = write_run(tmp_path, f"encoder/{number}", sides=known, **more)
        begun = about | {"run": str(encoder.folder)}
        run = write_run(tmp_path, f"tuned/{number}", begun=begun)
        printed = script("evaluate", run.folder, "--release", "R6", "R7")
        notes.append([line for line in printed.splitlines() if "note: the encoder" in line])
    said = "has seen 5 of these 12 subjects, with{} labels: they are not new to it"
    for number, how in enumerate(("out", "")):
        what = f"  note: the encoder of tuned/{number}, encoder/{number}, "
        assert notes[number] == [what + said.format(how)]
    assert notes[2] == []
    gone = write_run(tmp_path, "tuned/gone", begun=about | {"run": str(tmp_path / "gone")})
    assert "note: the encoder" not in script("evaluate", gone.folder, "--release", "R6")


def test_one_challenge_is_scored_where_the_other_has_no_run(script, tmp_path):
    write_run(tmp_path, "c2_tcn/1", 2)
    found, printed = scores(script, tmp_path)
    assert list(found) == ["challenge2"] and "not scored: no finished run of challenge 1" in printed
    found, printed = scores(script, tmp_path, "--challenge", 2, "--release", "R7")
    assert "not scored" not in printed and found["challenge2"]["releases"] == ["R7"]


def test_runs_by_name_and_ensembles(script, caches, tmp_path):
    runs = [write_run(tmp_path, f"c1_tcn/{i}", seed=i) for i in range(3)]
    write_run(tmp_path, "c1_tcn/3", seed=3, state={"status": "stopped"})
    p = [by_hand(run, caches, ["R6", "R7"])[1] for run in runs]
    y = by_hand(runs[0], caches, ["R6", "R7"])[0]
    found, _ = scores(script, tmp_path, "c1_tcn")
    assert found["challenge1"]["run"] == "c1_tcn/2, epoch 2"
    assert found["challenge1"]["nrmse"] == pytest.approx(by_definition(y, p[2]), rel=1e-5)
    found, _ = scores(script, tmp_path, "c1_tcn/0", tmp_path / "c1_tcn" / "1")
    assert found["challenge1"]["nrmse"] == pytest.approx(by_definition(y, p[0]), rel=1e-5)
    assert figure(found["challenge1"], "c1_tcn/1, epoch 2")["nrmse"] == pytest.approx(
        by_definition(y, p[1]), rel=1e-5
    )
    found, printed = scores(script, tmp_path, "c1_tcn", "--ensemble", "average")
    assert found["challenge1"]["run"] == "ensemble: average of 3"
    assert found["challenge1"]["nrmse"] == pytest.approx(by_definition(y, np.mean(p, 0)), rel=1e-5)
    for words in (["c1_tcn", "--seed", "0", "2"], ["c1_tcn/2..", "c1_tcn/0"]):
        found, _ = scores(script, tmp_path, *words, "--ensemble", "average")
        assert found["challenge1"]["nrmse"] == pytest.approx(
            by_definition(y, (p[0] + p[2]) / 2), rel=1e-5
        )
        found, _ = scores(script, tmp_path, *words)  # each by itself
        assert {"c1_tcn/0, epoch 2", "c1_tcn/2, epoch 2"} <= {
            entry["name"] for entry in found["challenge1"]["table"]
        }
    for way in ("weights", "stack"):
        assert scores(script, tmp_path, "c1_tcn", "--ensemble", way)[0]["challenge1"]["nrmse"] < 2
    found, printed = scores(
        script, tmp_path, "c1_tcn", "--subject-mean", "--mirror", "--shift", 0.1
    )
    assert "mean of each subject" in found["challenge1"]["run"]


def test_one_subject_has_no_interval_and_one_label_no_score(script, tmp_path, caches):
    folder = copied(caches, tmp_path / "cache", 2, ("R1", "R5", "R7"))
    with h5py.File(folder / "challenge2_R7_windows.h5", "r+") as f:
        f["y"][()] = 0.3
    write_run(tmp_path / "out", "c2_tcn/1", 2)
    with pytest.raises(UserError, match="labels are 0.3: nrmse is not defined"):
        scores(script, tmp_path / "out", "--cache", folder, "--release", "R7")
    with h5py.File(folder / "challenge2_R7_windows.h5", "r+") as f:
        f["y"][0] = 0.4
        f["metadata"][()] = np.repeat(f["metadata"][:1], len(f["y"]))
    _, printed = scores(script, tmp_path / "out", "--cache", folder, "--release", "R7")
    assert "too few subjects to say (1)" in printed


def test_labels_alone_need_the_training_cache(script, tmp_path, caches):
    folder = copied(caches, tmp_path / "cache", 1, ("R6",))
    write_run(tmp_path / "out", "c1_tcn/1")
    found, printed = scores(script, tmp_path / "out", "--cache", folder)
    assert "label-only baselines unavailable: no cache of R1" in printed
    assert len(found["challenge1"]["table"]) == 1


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ([], "no finished run of challenge 1 .* python run/train.py --challenge 1"),
        (
            ["--challenge", "2"],
            "no finished run of challenge 2 .* python run/train.py --challenge 2",
        ),
        (["c3"], "no run c3: .* there are c1_other, c1_stopped, c2_tcn"),
        (["c2_tcn", "--challenge", "1"], "c2_tcn/1 is a run of challenge 2, not 1"),
        (
            ["c1_stopped"],
            "c1_stopped/1 has not finished .it was stopped.; "
            "resume with: python run/train.py --resume",
        ),
        (["c1_other"], "labels are 1: auroc is not defined where they do not vary"),
        (["c2_tcn", "--release", "R8"], "no cache of R8 for challenge 2"),
        (["c2_tcn", "--release", "R1"], "c2_tcn/1 was trained on 5 of the subjects"),
        (["c2_tcn", "--mini"], "looked for challenge2_R6_mini_windows.h5"),
    ],
)
def test_mistakes(script, tmp_path, arguments, reason):
    if arguments and arguments != ["--challenge", "2"]:
        write_run(tmp_path, "c2_tcn/1", 2)
        write_run(tmp_path, "c1_other/1", target="correct")
        write_run(tmp_path, "c1_stopped/1", state={"status": "stopped"})
    with pytest.raises(UserError, match=reason):
        script("evaluate", "--out", tmp_path, *arguments)


def test_shift_beyond_the_margin(script, tmp_path):
    write_run(tmp_path, "c1_tcn/1")
    with pytest.raises(
        UserError, match="R6_windows.h5 has 0.1 s around its windows; .*--margin 0.2"
    ):
        script("evaluate", "--out", tmp_path, "--challenge", 1, "--shift", 0.2)


def test_as_a_command(tmp_path):
    call = lambda *arguments: subprocess.run(
        [sys.executable, ROOT / "run" / "evaluate.py", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    nothing = call()
    assert nothing.returncode == 1
    assert nothing.stderr.startswith("error: no finished run of challenge 1 in experiments/")
    assert len(nothing.stderr.splitlines()) == 1
    assert call("--ensemble", "average").returncode == 2
