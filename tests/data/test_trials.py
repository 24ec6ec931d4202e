"""Trials against an independent, literal reading of the competition's rules, on hand-worked cases
and on all real event files."""

import math

import mne
import numpy as np
import pytest

from eeg.data.release import BadRecording
from eeg.data.trials import build_trials, flag_copies, is_fast, read_events
from eeg.data.windows import cut_trials, fixed_windows, sample_of
from tests.conftest import EVENTS, trial_events


def literal_trials(path):
    """The trial builder in words, row by row: what the vectorised one must equal."""
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    names, rows = rows[0], rows[1:]
    events = [dict(zip(names, row)) for row in rows]
    events = sorted((e for e in events if e["onset"] != "n/a"), key=lambda e: float(e["onset"]))
    starts = [float(e["onset"]) for e in events if e["value"] == "contrastTrial_start"]
    ends = [float(e["onset"]) for e in events if e["value"] == "end_experiment"]
    stops = starts[1:] + [end for end in ends[-1:] if end > starts[-1]]
    trials = []
    for start, stop in zip(starts, stops):
        inside = [(float(e["onset"]), e) for e in events if start <= float(e["onset"]) < stop]
        stimulus = next(
            (t for t, e in inside if e["value"] in ("left_target", "right_target")), math.nan
        )
        lower = start if math.isnan(stimulus) else stimulus
        response = next(
            (
                (t, e)
                for t, e in inside
                if e["value"] in ("left_buttonPress", "right_buttonPress") and t >= lower
            ),
            None,
        )
        feedback = response and response[1].get("feedback")
        trials.append(
            (
                start,
                stop,
                stimulus,
                response[0] if response else math.nan,
                {"smiley_face": 1, "sad_face": 0}.get(feedback, -1),
                response[1]["value"][:-12] if response else "",
            )
        )
    return trials


def equal_to_the_rules(files):
    for path in files:
        ours, rules = build_trials(*read_events(path)), literal_trials(path)
        assert len(ours) == len(rules), path
        for t, (start, stop, stimulus, response, correct, side) in zip(ours, rules):
            np.testing.assert_equal(
                [t["start"], t["stop"], t["stimulus"], t["response"]],
                [start, stop, stimulus, response],
            )
            np.testing.assert_equal(t["rt_from_stimulus"], response - stimulus)
            assert (t["correct"], t["side"].decode()) == (correct, side)


def test_equal_to_the_rules_on_odd_files(odd_release):
    files = sorted(odd_release.glob("sub-*/eeg/*_events.tsv"))
    assert len(files) == 19
    equal_to_the_rules(files)


def test_equal_to_the_rules_on_all_real_files(hbn):
    files = sorted(hbn.glob("R*/sub-*/eeg/*contrastChangeDetection*_events.tsv"))
    assert len(files) > 50
    equal_to_the_rules(files)


def table(tmp_path, *rows):
    path = tmp_path / "events.tsv"
    path.write_text(
        EVENTS
        + "".join(
            "\t".join(map(str, (onset, "n/a", value, 0, feedback))) + "\n"
            for onset, value, feedback in rows
        )
    )
    return build_trials(*read_events(path))


START, LEFT, PRESS, OTHER = (
    "contrastTrial_start",
    "left_target",
    "left_buttonPress",
    "right_buttonPress",
)


def test_hand_worked_trials(tmp_path):
    t = table(
        tmp_path,
        (0, START, "n/a"),
        (1, PRESS, "non_target"),
        (2, LEFT, "n/a"),
        (3.5, OTHER, "sad_face"),
        (3.6, PRESS, "smiley_face"),  # early press, two presses
        (5, START, "n/a"),
        (6, PRESS, "x"),  # no stimulus
        (10, START, "n/a"),
        (12, LEFT, "n/a"),  # no response
        (15, START, "n/a"),
        (17, PRESS, "smiley_face"),
        (17, LEFT, "n/a"),  # the press stands before the stimulus, at the same time
        (20, START, "n/a"),
        (21, LEFT, "n/a"),
        (22, PRESS, "smiley_face"),  # the last: dropped
    )
    np.testing.assert_allclose(t["rt_from_stimulus"], [1.5, np.nan, np.nan, 0])
    np.testing.assert_allclose(t["rt_from_trialstart"], [3.5, 1, np.nan, 2])
    assert t["correct"].tolist() == [0, -1, -1, 1] and t["side"].tolist() == [
        b"right",
        b"left",
        b"",
        b"left",
    ]


def test_an_end_of_the_experiment_ends_the_last_trial(tmp_path):
    rows = [(0, START, "n/a"), (5, START, "n/a"), (6, LEFT, "n/a"), (7, PRESS, "smiley_face")]
    assert len(table(tmp_path, *rows)) == 1
    assert table(tmp_path, *rows, (9, "end_experiment", "n/a"))["rt_from_stimulus"].tolist()[1] == 1
    assert len(table(tmp_path, *rows, (4, "end_experiment", "n/a"))) == 1


def test_events_without_an_onset_are_in_no_trial(tmp_path):
    t = table(
        tmp_path,
        (0, START, "n/a"),
        ("n/a", LEFT, "n/a"),
        (2, LEFT, "n/a"),
        ("n/a", PRESS, "n/a"),
        (3, PRESS, "n/a"),
        (5, START, "n/a"),
        ("n/a", START, "n/a"),
    )
    assert t["rt_from_stimulus"].tolist() == [1]


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "is empty"),
        ("onset\tduration\n1\t2\n", "no column 'value'"),
        ("value\tduration\nx\t2\n", "no column 'onset'"),
        (EVENTS + "soon\tn/a\tcontrastTrial_start\t5\tn/a\n", "no number: 'soon'"),
        (EVENTS + "1\tn/a\n", "2 columns in row 1 and 5"),
    ],
)
def test_bad_events_say_what_is_wrong(tmp_path, text, reason):
    path = tmp_path / "events.tsv"
    path.write_text(text)
    with pytest.raises(BadRecording, match=reason):
        read_events(path)
    with pytest.raises(BadRecording, match="there is no"):
        read_events(tmp_path / "absent.tsv")


def test_binary_events(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_bytes(b"\xff\xfe\x00\x81onset")
    with pytest.raises(BadRecording, match="not text"):
        read_events(path)


def test_no_trials_at_all(tmp_path):
    assert len(table(tmp_path)) == 0 and len(table(tmp_path, (1, START, "n/a"))) == 0
    assert not is_fast(table(tmp_path))


def flags(release, subject):
    """[(copied, valid trials)] and [whether it is fast] of a subject's recordings."""
    tables = [
        build_trials(*read_events(p))
        for p in sorted((release / f"sub-{subject}" / "eeg").glob("*contrast*_events.tsv"))
    ]
    flag_copies(tables)
    valid = [t[~np.isnan(t["rt_from_stimulus"])] for t in tables]
    return [(int(t["copy"].sum()), len(t)) for t in valid], [is_fast(t) for t in tables]


def test_copied_blocks_and_fast_time_lines_of_odd_subjects(odd_release):
    assert flags(odd_release, "NDARAA101AAA") == ([(0, 7), (0, 14), (7, 7)], [False, False, False])
    assert flags(odd_release, "NDARAB102AAA") == ([(0, 7), (0, 7), (0, 7)], [False, True, True])
    assert flags(odd_release, "NDARAH108AAA") == ([(0, 7), (0, 7), (0, 8)], [False, False, False])


def test_copied_blocks_and_fast_time_lines_of_real_subjects(hbn):
    assert flags(hbn / "R1", "NDARAM704GKZ") == (
        [(0, 22), (0, 48), (24, 24)],
        [False, False, False],
    )  # the second block of run 2 is run 3
    assert flags(hbn / "R1", "NDARAG143ARJ")[0] == [(0, 18), (0, 18), (0, 24)]
    assert flags(hbn / "R1", "NDARCN669XPR")[1] == [False, True, True]


def test_copy_needs_the_same_times_and_not_only_the_same_response_times(tmp_path):
    (tmp_path / "events.tsv").write_text(trial_events(8))
    first = build_trials(*read_events(tmp_path / "events.tsv"))
    moved, stretched = first.copy(), first.copy()
    for name in ("start", "stop", "stimulus", "response"):
        moved[name] += 100.002
        stretched[name] += 100 + 0.1 * np.arange(len(first))
    flag_copies([first, moved, stretched])
    assert not first["copy"].any() and moved["copy"].all() and not stretched["copy"].any()


def test_samples_are_those_that_mne_takes():
    onsets = np.sort(
        np.concatenate(
            [
                np.random.default_rng(0).uniform(0, 390, 3000),
                np.arange(0, 390, 0.865),
                [0.005, 1.005, 2.675, 100.0000004],
            ]
        )
    )
    raw = mne.io.RawArray(np.zeros((1, 40000)), mne.create_info(1, 100.0, "eeg"), verbose="error")
    raw.set_meas_date(1e9).set_annotations(
        mne.Annotations(onsets, 0, "x", orig_time=raw.info["meas_date"])
    )
    assert (mne.events_from_annotations(raw, verbose="error")[0][:, 0] == sample_of(onsets)).all()


def test_stimulus_windows_leave_nothing_out_and_say_why(tmp_path):
    (tmp_path / "events.tsv").write_text(trial_events(6))
    trials = build_trials(*read_events(tmp_path / "events.tsv"))
    trials["response"][1], trials["stimulus"][2] = np.nan, np.nan
    last = int(round((2 + 2.8 + 5 * 5.2) * 100)) + 250
    windows, dropped = cut_trials(trials, last)
    assert windows.labels.tolist() == trials["rt_from_stimulus"][[0, 3, 4, 5]].tolist()
    assert windows.starts.tolist() == [530, 2090, 2610, 3130]
    assert dropped == {"no response": 1, "no stimulus": 1}
    windows, dropped = cut_trials(trials, last - 1)
    assert windows.starts.tolist() == [530, 2090, 2610]
    assert dropped["past the end of the recording"] == 1


@pytest.mark.parametrize(
    "n_times, starts",
    [(399, []), (400, [0]), (599, [0]), (600, [0, 200]), (1001, [0, 200, 400, 600])],
)
def test_fixed_windows(n_times, starts):
    assert fixed_windows(n_times).tolist() == starts
