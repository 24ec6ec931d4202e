"""Label-only scores against the same arithmetic by hand, on releases that are written here."""

import json

import numpy as np
import pytest

from eeg.audit.counts import audit_releases
from eeg.audit.floors import floors
from eeg.data.release import Release
from tests.conftest import EVENTS, write_recording

FAST_GAP, USUAL_GAP = 1.63, 2.4


def events(response_times, gap=USUAL_GAP, first=2.0):
    """Text of trials with these response times; one more trial start ends the last."""
    text, t = EVENTS, first
    for rt in response_times:
        text += f"{t:.3f}\tn/a\tcontrastTrial_start\t5\tn/a\n"
        text += f"{t + 2.8:.3f}\tn/a\tleft_target\t8\tn/a\n"
        text += f"{t + 2.8 + rt:.3f}\tn/a\tleft_buttonPress\t12\tsmiley_face\n"
        t += 2.8 + gap
    return text + f"{t:.3f}\tn/a\tcontrastTrial_start\t5\tn/a\n"


def write(folder, people, times, seconds=None):
    """people: {subject: (age, sex, ehq, externalizing)}; times: {(subject, run): (times, gap)}."""
    folder.mkdir(parents=True)
    head = "participant_id\tage\tsex\tehq_total\texternalizing\n"
    rows = ["\t".join(map(str, (f"sub-{name}", *row))) + "\n" for name, row in people.items()]
    (folder / "participants.tsv").write_text(head + "".join(rows))
    for (subject, run), (some, gap) in times.items():
        path = write_recording(folder, subject, events(some, gap), b"", run=run)
        about = {"RecordingDuration": (seconds or {}).get(subject, 200), "EEGChannelCount": 129}
        path.with_suffix(".json").write_text(json.dumps(about))


def found(*folders, tests=()):
    releases = [Release(f"R{i}", False, folder) for i, folder in enumerate(folders, 1)]
    return floors(audit_releases(releases, jobs=1), list(tests))


def nrmse(y, p):
    return np.sqrt(np.mean((np.subtract(y, p)) ** 2)) / np.std(y)


@pytest.fixture
def two(tmp_path):
    rng = np.random.default_rng(0)
    people = {f"NDAR{i:03d}": (6 + i, "MF"[i % 2], 50, round(0.2 * i - 1, 2)) for i in range(12)}
    own = {name: rng.uniform(0.5, 1.0) for name in people}
    times = {}
    for i, name in enumerate(people):
        gap = FAST_GAP if i % 4 == 3 else USUAL_GAP
        for run in (1, 2):
            some = (own[name] + rng.uniform(0.1, 0.6, 8)).round(3)
            times[name, run] = (some, gap)
    first = lambda mapping, keep: {k: v for k, v in mapping.items() if keep(str(k))}
    early = lambda key: any(f"NDAR{i:03d}" in key for i in range(7))
    write(tmp_path / "R1", first(people, early), first(times, early))
    late = lambda key: not early(key)
    lengths = {"NDAR008": 50, "NDAR009": 3.5}
    write(tmp_path / "R2", first(people, late), first(times, late), lengths)
    return tmp_path, people, times


def test_challenge_1_by_hand(two):
    folder, people, times = two
    one, other = found(folder / "R1", folder / "R2")
    assert (other.test, other.train) == ("R2", "R1")
    names = list(people)
    train = [(v, gap) for (s, _), (some, gap) in times.items() if s in names[:7] for v in some]
    lengths = {"NDAR008": 50, "NDAR009": 3.5}
    kept = []  # a window that leaves the recording is not scored
    for (s, _), (some, gap) in times.items():
        for i, v in enumerate(some):
            stimulus = 4.8 + i * (2.8 + gap)
            if s in names[7:] and round(stimulus * 100) + 250 <= 100 * lengths.get(s, 200):
                kept.append((s, v, gap))
    y = np.array([v for _, v, _ in kept])
    assert other.trials == len(y) and other.trial_subjects == len({s for s, _, _ in kept}) == 4
    mean = np.mean([v for v, _ in train])
    assert other.challenge1["mean"] == pytest.approx(nrmse(y, mean))
    by_gap = {gap: np.mean([v for v, g in train if g == gap]) for gap in (FAST_GAP, USUAL_GAP)}
    p = [by_gap[gap] for _, _, gap in kept]
    assert other.challenge1["fast"] == pytest.approx(nrmse(y, p))
    own = {s: np.mean([v for who, v, _ in kept if who == s]) for s, _, _ in kept}
    assert other.challenge1["own"] == pytest.approx(nrmse(y, [own[s] for s, _, _ in kept]))
    assert other.challenge1["own"] < other.challenge1["earlier"] < 1
    assert one.challenge1.keys() == other.challenge1.keys()


def test_challenge_2_counts_each_window(two):
    folder, people, _ = two
    other = found(folder / "R1", folder / "R2", tests=["R2"])[0]
    names = list(people)
    many = {name: 2 * ((200 - 4) // 2 + 1) for name in names[7:]}  # two runs, 4 s every 2 s
    many |= {"NDAR008": 2 * ((50 - 4) // 2 + 1), "NDAR009": 0}
    label = {name: row[3] for name, row in people.items()}
    y = np.repeat([label[name] for name in many], list(many.values()))
    mean = np.mean([label[name] for name in names[:7]])
    assert other.windows == len(y) and other.window_subjects == 4 and other.participant_count == 5
    assert other.challenge2["mean"] == pytest.approx(nrmse(y, mean))
    once = [label[name] for name in names[7:]]
    assert other.participants["mean"] == pytest.approx(nrmse(once, mean))
    # externalizing is linear in age here
    assert other.participants["people"] < 0.1 < other.participants["mean"]


def test_copies_train_nothing_and_are_scored(tmp_path):
    some = np.array([1.1, 1.25, 1.4, 0.9, 1.52])
    person = {"NDARAA": (9, "M", 1, 0.5), "NDARBB": (8, "F", 1, 0.1)}
    plain = {("NDARAA", 1): (some, USUAL_GAP), ("NDARBB", 1): (some + 0.33, USUAL_GAP)}
    copy = plain | {("NDARAA", 2): (some, USUAL_GAP)}
    write(tmp_path / "a", person, plain)
    write(tmp_path / "b", person, copy)
    test = {("NDARCC", 1): (some * 0.9, USUAL_GAP), ("NDARDD", 1): (some * 1.1, USUAL_GAP)}
    write(tmp_path / "t", {"NDARCC": (9, "M", 1, 0.5), "NDARDD": (7, "M", 1, 0.2)}, test)
    (once,), (twice,) = (found(tmp_path / n, tmp_path / "t", tests=["R2"]) for n in "ab")
    assert once.challenge1["mean"] == pytest.approx(twice.challenge1["mean"])
    assert found(tmp_path / "t", tmp_path / "b", tests=["R2"])[0].trials == 15


def test_one_release_is_scored_in_folds_of_subjects(two):
    folder, people, times = two
    (only,) = found(folder / "R1")
    assert "5" in only.train and only.trials == 7 * 16 and only.participant_count == 7
    assert only.challenge1["mean"] >= 1 and only.challenge1["own"] < only.challenge1["mean"]


def test_trials_of_unknown_length_are_scored(two):
    folder, _, _ = two
    for path in folder.glob("R*/sub-*/eeg/*_eeg.json"):
        path.unlink()
    one, other = found(folder / "R1", folder / "R2")
    assert (one.trials, other.trials) == (7 * 16, 5 * 16)
    assert other.windows == 0 and other.challenge2 == {} and other.participants


def test_too_little_is_not_scored(tmp_path):
    some = np.array([1.1, 1.2, 1.3])
    write(tmp_path / "a", {"NDARAA": (9, "M", 1, 0.5)}, {("NDARAA", 1): (some, USUAL_GAP)})
    write(tmp_path / "b", {}, {})
    (only,) = found(tmp_path / "a")
    assert only.challenge1 == only.challenge2 == only.participants == {}
    one, none = found(tmp_path / "a", tmp_path / "b")  # nothing to train on; nothing to test
    assert one.challenge1 == none.challenge1 == {} and none.trials == 0
