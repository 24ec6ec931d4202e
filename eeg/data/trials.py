"""The trials of a contrast-change recording, as the competition's own builder makes them, and two
flags it does not make.

A trial starts at a contrastTrial_start and ends at the next; the last has no end and is dropped,
unless an end_experiment follows it. Its stimulus is the first target in it, its response the first
button press at or after the stimulus (in a trial without a stimulus: the first press), both
strictly before the trial's end.
"""

import numpy as np

from eeg.data.release import BadRecording, read_tsv

TRIAL = np.dtype(
    [
        ("start", "f8"),
        ("stop", "f8"),
        ("stimulus", "f8"),
        ("response", "f8"),  # seconds from the start of the recording
        ("rt_from_stimulus", "f8"),
        ("rt_from_trialstart", "f8"),
        ("correct", "i1"),  # 1 a smiley, 0 a sad face, -1 unknown
        ("side", "S5"),  # the hand that answered: left, right, or empty
        ("copy", "?"),
        ("fast", "?"),
    ]
)

_MISSING = ("n/a", "N/A", "NA", "na", "NaN", "nan", "")


def read_events(path):
    """(onsets (n) float64 seconds with NaN where the file has n/a, values (n) str, feedback (n)
    str), in order of onset.
    """
    table = read_tsv(path)
    for column in ("onset", "value"):
        if column not in table:
            raise BadRecording(
                f"{path.name} has no column '{column}' (its columns: {', '.join(table)})"
            )
    try:
        onsets = np.array(
            [float("nan") if text in _MISSING else float(text) for text in table["onset"]]
        )
    except ValueError as e:
        raise BadRecording(
            f"{path.name} has an onset that is no number: {str(e).split(': ')[-1]}"
        ) from None
    order = np.argsort(onsets, kind="stable")  # NaN last
    values = np.array(table["value"], dtype=object)
    feedback = np.array(table.get("feedback", [""] * len(values)), dtype=object)
    return onsets[order], values[order], feedback[order]


def build_trials(onsets, values, feedback):
    """The trial table (n) of TRIAL from the events of one recording. Events without an onset are in
    no trial.
    """
    starts = onsets[values == "contrastTrial_start"]
    stops = np.append(starts, np.nan)[1:]
    ends = onsets[values == "end_experiment"]
    if len(starts) and len(ends) and ends[-1] > starts[-1]:
        stops[-1] = ends[-1]
    starts, stops = starts[~np.isnan(stops)], stops[~np.isnan(stops)]

    timed = ~np.isnan(onsets)
    targets = onsets[timed & ((values == "left_target") | (values == "right_target"))]
    pressed = np.flatnonzero(
        timed & ((values == "left_buttonPress") | (values == "right_buttonPress"))
    )
    presses = onsets[pressed]

    trials = np.zeros(len(starts), TRIAL)
    trials["start"], trials["stop"] = starts, stops
    trials["stimulus"], _ = _first_from(targets, starts, stops)
    has_stimulus = ~np.isnan(trials["stimulus"])
    trials["response"], which = _first_from(
        presses, np.where(has_stimulus, trials["stimulus"], starts), stops
    )
    trials["rt_from_stimulus"] = trials["response"] - trials["stimulus"]
    trials["rt_from_trialstart"] = trials["response"] - trials["start"]
    trials["correct"] = -1
    for i in np.flatnonzero(which >= 0):
        event = pressed[which[i]]
        trials["side"][i] = b"left" if values[event] == "left_buttonPress" else b"right"
        trials["correct"][i] = {"smiley_face": 1, "sad_face": 0}.get(feedback[event], -1)
    trials["fast"] = is_fast(trials)
    return trials


def _first_from(times, lower, upper):
    """For each pair of bounds the first of the sorted times with lower <= time < upper, and its
    number; NaN and -1 where there is none.
    """
    at = np.searchsorted(times, lower, side="left")
    inside = (at < len(times)) & ~np.isnan(lower)
    inside[inside] = times[at[inside]] < upper[inside]
    return np.where(inside, np.append(times, np.nan)[np.where(inside, at, -1)], np.nan), np.where(
        inside, at, -1
    )


def is_fast(trials):
    """Whether the recording runs on the fast time line: the next trial starts 1.63 s after the
    stimulus instead of 2.40 s.
    """
    gaps = (trials["stop"] - trials["stimulus"])[~np.isnan(trials["stimulus"])]
    return bool(len(gaps)) and bool(np.median(gaps) < 2.0)


def flag_copies(tables):
    """Set `copy` in the trial tables of one subject's recordings, in order, where a block was
    recorded twice.

    A block that was copied into the next run repeats its trials with all times moved by one
    constant. The later trial is flagged where at least 4 trials of an earlier recording return with
    the same response time and the same offset.
    """
    tolerance = 0.005  # onsets are rounded to 2 ms in each file
    for b, later in enumerate(tables):
        for earlier in tables[:b]:
            pairs = (
                np.abs(earlier["rt_from_stimulus"][:, None] - later["rt_from_stimulus"]) < tolerance
            )  # NaN: not a pair
            i, j = np.nonzero(pairs)
            offsets = later["stimulus"][j] - earlier["stimulus"][i]
            for offset in offsets:
                same = np.abs(offsets - offset) < tolerance
                if same.sum() >= 4:
                    later["copy"][j[same]] = True
