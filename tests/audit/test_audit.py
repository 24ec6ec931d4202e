"""run/audit.py against a literal reading of the same tables, real ones and spoilt ones."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from eeg.audit.counts import LABELS, audit_releases, correlations, response_quantiles, together
from eeg.data.release import Release, find_release
from tests.audit.literal import count_release
from tests.conftest import EVENTS, ROOT, trial_events, write_participants, write_recording

KEYS = [key for labels in LABELS.values() for key in labels]


def audited(*folders):
    releases = [Release(f"R{i}", False, folder) for i, folder in enumerate(folders, 1)]
    return audit_releases(releases, jobs=1)


def run_audit(data, *more):
    command = [sys.executable, ROOT / "run" / "audit.py", "--data", data, *more]
    settings = {"capture_output": True, "text": True, "env": os.environ | {"PYTHONPATH": str(ROOT)}}
    return subprocess.run(list(map(str, command)), **settings)


@pytest.fixture(scope="module")
def real(hbn):
    """{release: Audit} of the real tables."""
    names = sorted(path.name for path in hbn.glob("R*"))
    releases = [find_release(name, hbn, other=name) for name in names]
    return dict(zip(names, audit_releases(releases, jobs=2)))


def test_counts_of_the_real_tables_are_those_of_a_literal_reading(hbn, real):
    for name, audit in real.items():
        wanted, times = count_release(hbn / name)
        shared = audit.counts["shared factors"]  # here among all releases, there in one
        assert shared >= wanted.pop("shared factors", 0)
        found = {key: audit.counts[key] for key in wanted}
        assert len(wanted) > 35 and found == dict(wanted), name
        np.testing.assert_allclose(np.sort(audit.response_times), np.sort(times), atol=1e-9)


def test_what_is_known_to_be_odd_in_the_real_tables_is_found(real):
    """The examples that the page about the real data names."""
    known = {
        "copied pairs": "R1/NDARAM704GKZ/3",
        "fast": "R1/NDARCN669XPR/2",
        "marker of another run": "R1/NDARAM704GKZ/2",
        "block started twice": "R11/NDARAK772VFJ/1",
        "no valid trial": "R4/NDARRL315KV3/2",
        "no feedback column": "R11/NDARRK694GD5/1",
        "RT 0": "R2/NDARAM675UR8/2",
        "several presses": "R1/NDARAG143ARJ/1",
        "early press": "R1/NDARAC904DMU/1",
        "stray target": "R1/NDARGX001CB1/2",
        "stray start": "R1/NDAREN519BLJ/2",
        "long": "R1/NDARWA622HHZ/1",
        "equal onsets": "R1/NDARBK082PDD/1",
        "no 9999": "R1/NDARGL800LDW/1",
        "short resting": "R11/NDARLD243KRE RestingState",
        "two resting starts": "R1/NDARLF616PBU RestingState",
        "channels n/a (resting)": "R10/NDARYK713TGJ RestingState",
        "available, no file": "R1/NDARBX121UM9/1",
        "no factors": "R1/NDARGB441VVD",
        "floor": "R1/NDARDV088AA3",
    }
    for key, where in known.items():
        release, name = where.split("/", 1)
        assert name in real[release].where[key], key
    past_the_end = {"R1": "NDARNR773DL4/3", "R2": "NDARPH844KP2/3", "R4": "NDARRE445RHR/1"}
    assert {name: audit.where.get("past the end") for name, audit in real.items()} == {
        name: [past_the_end[name]] if name in past_the_end else None for name in real
    }
    assert all(
        audit.counts["no channel count"] == 0 for name, audit in real.items() if name != "R3"
    )
    assert real["R3"].counts["no channel count"] == 6
    assert not any(audit.counts["in two releases"] for audit in real.values())


def test_participants_of_the_real_tables(real):
    whole = together(list(real.values()))
    assert whole.counts["participants"] == 1757
    names, r = correlations(whole)
    assert r[names.index("age"), names.index("externalizing")] == pytest.approx(-0.24, abs=0.01)
    ages = whole.people.column("age")
    assert (ages.min(), ages.max()) == (pytest.approx(5, abs=0.05), pytest.approx(22, abs=0.3))


def test_counts_of_a_release_with_what_is_odd(odd_release):
    (audit,) = audited(odd_release)
    n = audit.counts
    assert (n["participants"], n["recordings"], n["recorded"]) == (11, 19, 11)
    assert audit.where["copied pairs"] == ["NDARAA101AAA/3"] and n["copied trials"] == 7
    assert audit.where["fast"] == ["NDARAB102AAA/2", "NDARAB102AAA/3"] and n["fast subjects"] == 1
    assert audit.where["block started twice"] == ["NDARAC103AAA/1"]
    assert audit.where["no feedback column"] == ["NDARAE105AAA/2"]
    assert audit.where["RT 0"] == ["NDARAF106AAA/1"] == audit.where["non_target"]
    assert audit.where["stray target"] == ["NDARAH108AAA/1"]
    assert audit.where["stray start"] == ["NDARAH108AAA/2"]
    assert audit.where["other channels"] == ["NDARAK110AAA/1"]
    assert audit.where["no factors, recorded"] == ["NDARAL111AAA"]
    assert n["fractional samples"] > 0 and n["no channel count"] > 0 and n["no signal"] == 0


@pytest.fixture
def folder(tmp_path):
    """A release of three subjects of which nothing is odd; tests spoil it."""
    folder = tmp_path / "R1"
    write_participants(folder, ["NDARAA001AAA", "NDARBB002BBB", "NDARCC003CCC"])
    for i, name in enumerate(("NDARAA001AAA", "NDARBB002BBB", "NDARCC003CCC")):
        write_recording(folder, name, trial_events(rt=1.1 + 0.2 * i), b"no signal is opened")
    return folder


def test_a_plain_release_has_nothing_odd(folder):
    (audit,) = audited(folder)
    usual = {"participants": 3, "recordings": 3, "recorded": 3, "trials": 18, "valid": 18}
    usual |= {"few trial starts": 3, "no 9999": 3, "no ehq": 3, "shared factors": 3, "floor": 3}
    assert {key: audit.counts[key] for key in KEYS if audit.counts[key]} == usual
    assert audit.words["events"] == {"break cnt": 3} and audit.bad_files == []
    expected = [1.1 + 0.2 * i + 0.01 * k for i in range(3) for k in range(6)]
    quantiles = response_quantiles(audit)
    assert quantiles["mean"] == pytest.approx(np.mean(expected))
    assert quantiles["std"] == pytest.approx(np.std(expected))
    assert quantiles["25 %"] == pytest.approx(np.quantile(expected, 0.25))
    assert (quantiles["min"], quantiles["max"]) == pytest.approx((1.1, 1.55))


BAD = {
    "empty": b"",
    "header alone": b"onset\tduration\tvalue\n",
    "latin-1": EVENTS.encode() + "1\tn/a\tcaf\xe9\t1\tn/a\n".encode("latin-1"),
    "no value column": b"onset\tduration\n1\tn/a\n",
    "a short row": EVENTS.encode() + b"1\tn/a\tcontrastTri",
    "no number": EVENTS.encode() + b"one\tn/a\tleft_target\t8\tn/a\n",
    "zeros": bytes(1000),
    "binary": bytes(range(256)) * 8,
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_events_are_named_and_the_rest_is_counted(folder, kind):
    path = next(folder.glob("sub-NDARBB002BBB/eeg/*_events.tsv"))
    path.write_bytes(BAD[kind])
    (audit,) = audited(folder)
    if kind == "header alone":  # which is a table without events
        assert audit.counts["bad events.tsv"] == 0
        assert audit.where["no valid trial"] == ["NDARBB002BBB/1"]
    else:
        assert audit.where["bad events.tsv"] == ["NDARBB002BBB/1"]
        assert [file for file, _ in audit.bad_files] == [path.name]
    assert (audit.counts["recordings"], audit.counts["valid"]) == (3, 12)


def test_missing_events_and_folders_in_their_place(folder):
    next(folder.glob("sub-NDARAA001AAA/eeg/*_events.tsv")).unlink()
    path = next(folder.glob("sub-NDARBB002BBB/eeg/*_events.tsv"))
    path.unlink()
    path.mkdir()
    (audit,) = audited(folder)
    assert audit.where["bad events.tsv"] == ["NDARAA001AAA/1", "NDARBB002BBB/1"]
    reasons = [reason for _, reason in audit.bad_files]
    assert "there is no" in reasons[0] and "directory" in reasons[1]
    assert audit.counts["valid"] == 6


def test_onsets_that_are_no_times_are_counted(folder):
    path = next(folder.glob("sub-NDARAA001AAA/eeg/*_events.tsv"))
    more = "".join(f"{onset}\tn/a\tleft_target\t8\tn/a\n" for onset in ("n/a", "nan", "inf", "-3"))
    path.write_text(trial_events() + more)
    (audit,) = audited(folder)
    assert audit.counts["untimed events"] == 3 and audit.counts["negative onsets"] == 1
    assert audit.counts["valid"] == 18


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"a": "\xe9"}', b'{"RecordingDuration": "x"}']
)
def test_bad_json_is_counted(folder, content):
    for events in folder.glob("sub-*/eeg/*_events.tsv"):
        path = events.with_name(events.name.replace("events.tsv", "eeg.json"))
        path.write_bytes(content)
    (audit,) = audited(folder)
    readable = content.startswith(b'{"R')
    assert audit.counts["bad eeg.json"] == (0 if readable else 3)
    assert audit.counts["no length"] == (3 if readable else 0)
    assert audit.counts["valid"] == 18


@pytest.mark.parametrize(
    "content", [None, b"", b"age\n7\n", "participant_id\nsub-\xe9".encode("latin-1")]
)
def test_a_bad_participants_table_is_named(folder, content):
    path = folder / "participants.tsv"
    path.unlink() if content is None else path.write_bytes(content)
    (audit,) = audited(folder)
    assert [file for file, _ in audit.bad_files] == ["participants.tsv"]
    assert audit.counts["valid"] == 18 and audit.counts["unknown subjects"] == 3


def test_participants_against_files(tmp_path):
    folder = tmp_path / "R1"
    names = ["NDARAA001AAA", "NDARBB002BBB", "NDARCC003CCC"]
    for name in names[:2]:
        write_recording(folder, name, trial_events(), b"")
    write_recording(folder, "NDARZZ009ZZZ", trial_events(), b"", run=2)
    task = "contrastChangeDetection"
    head = f"participant_id\tage\tsex\texternalizing\t{task}_1\t{task}_2\tThePresent\n"
    rows = ["sub-NDARAA001AAA\t9\tM\t0.1\tavailable\tavailable\tavailable"]
    rows += ["sub-NDARBB002BBB\tn/a\tn/a\tn/a\tunavailable\tcaution\tavailable"]
    rows += ["sub-NDARCC003CCC\t10\tF\t0.3\tunavailable\tn/a\tavailable"] * 2
    (folder / "participants.tsv").write_text(head + "\n".join(rows) + "\n")
    (audit,) = audited(folder)
    assert audit.where["available, no file"] == ["NDARAA001AAA/2"]
    assert audit.where["caution, no file"] == ["NDARBB002BBB/2"]
    assert audit.where["unavailable, a file"] == ["NDARBB002BBB/1"]
    assert audit.where["said, no file"] == ["NDARAA001AAA/2", "NDARBB002BBB/2"]
    assert audit.counts["said, no file (other tasks)"] == 0  # there is no file of that task
    write_recording(folder, "NDARAA001AAA", None, b"", run=0, task="ThePresent")
    (audit,) = audited(folder)
    others = ["NDARBB002BBB ThePresent", "NDARCC003CCC ThePresent"]
    assert audit.where["said, no file (other tasks)"] == others
    assert audit.where["no recording"] == ["NDARCC003CCC"] == audit.where["repeated"]
    assert audit.where["no age"] == ["NDARBB002BBB"] == audit.where["no sex"]
    assert audit.where["unknown subjects"] == ["NDARZZ009ZZZ"]


def test_participants_of_two_releases_and_shared_factors(tmp_path):
    for name, subjects in (("R1", ["NDARAA001AAA"]), ("R2", ["NDARAA001AAA", "NDARBB002BBB"])):
        write_participants(tmp_path / name, subjects)
    one, two = audited(tmp_path / "R1", tmp_path / "R2")
    assert two.where["in two releases"] == ["NDARAA001AAA (R1)"]
    assert not one.counts["in two releases"]
    assert (one.counts["shared factors"], two.counts["shared factors"]) == (1, 2)
    whole = together([one, two])
    assert whole.counts["shared factors"] == 3 and len(whole.people.names) == 3


def test_lengths_decide_what_is_past_the_end(folder):
    """The last stimulus of trial_events is at 30.8 s: its window ends at 33.3 s."""
    for name, length in (("AA001AAA", 33.3), ("BB002BBB", 33.29), ("CC003CCC", 20)):
        path = next(folder.glob(f"sub-NDAR{name}/eeg/*_events.tsv"))
        about = json.dumps({"RecordingDuration": length, "EEGChannelCount": 129})
        path.with_name(path.name.replace("events.tsv", "eeg.json")).write_text(about)
    (audit,) = audited(folder)
    assert audit.where["past the end"] == ["NDARBB002BBB/1", "NDARCC003CCC/1"]
    assert audit.where["after the end"] == ["NDARCC003CCC/1"]


def test_the_command_writes_all_of_it(odd_release, tmp_path):
    numbers, picture = tmp_path / "audit.json", tmp_path / "audit.png"
    done = run_audit(odd_release.parent, "--release", "R1", "--json", numbers, "--plot", picture)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(numbers.read_text())
    assert found["releases"]["R1"]["counts"]["recordings"] == 19
    assert found["releases"]["R1"]["simulated"] and "(simulated)" in done.stdout
    assert "contrast-change recordings" in done.stdout and "challenge 1" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_mistakes_end_in_a_sentence(odd_release, tmp_path):
    done = run_audit(odd_release.parent, "--release", "R1", "R2")
    assert done.returncode == 1 and "no release R2" in done.stderr and ", R2)" in done.stderr
    done = run_audit(odd_release.parent, "--release", "R1", "--test", "R2")
    assert done.returncode == 2 and "--test R2" in done.stderr
    done = run_audit(odd_release.parent, "--release", "R1", "--json", tmp_path / "no" / "a.json")
    assert done.returncode == 1 and "there is no folder" in done.stderr
    (tmp_path / "R3").mkdir()
    done = run_audit(tmp_path, "--release", "R3")
    assert done.returncode == 1 and f"{tmp_path / 'R3'} holds no release" in done.stderr


def test_mini_releases_and_a_test_set(tmp_path):
    for name, subject in (("R1_mini_L100_bdf", "NDARAA001AAA"), ("EEG2025r2mini", "NDARBB002BBB")):
        write_participants(tmp_path / name, [subject])
        write_recording(tmp_path / name, subject, trial_events(), b"")
    done = run_audit(tmp_path, "--mini", "--release", "R1", "R2", "--test", "R2", "--jobs", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "R2, trained on R1" in done.stdout and "R1, trained on" not in done.stdout


def test_trials_of_more_than_20_s(folder):
    start = "{}\tn/a\tcontrastTrial_start\t5\tn/a\n"
    for name, onsets in (("AA001AAA", (1, 21, 50)), ("BB002BBB", (1, 21.002, 24))):
        path = next(folder.glob(f"sub-NDAR{name}/eeg/*_events.tsv"))
        path.write_text(EVENTS + "".join(map(start.format, onsets)))
    (audit,) = audited(folder)
    assert audit.counts["long"] == 2 and audit.counts["long and valid"] == 0
    assert audit.where["long"] == ["NDARAA001AAA/1", "NDARBB002BBB/1"]


def test_few_trial_starts_are_fewer_than_24(folder):
    for name, trials in (("AA001AAA", 23), ("BB002BBB", 22)):  # and the start that ends the last
        path = next(folder.glob(f"sub-NDAR{name}/eeg/*_events.tsv"))
        path.write_text(trial_events(trials))
    (audit,) = audited(folder)
    assert audit.where["few trial starts"] == ["NDARBB002BBB/1", "NDARCC003CCC/1"]
