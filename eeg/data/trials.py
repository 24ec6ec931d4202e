"""The trials of a contrast-change recording, as the competition's own builder makes them, and two
flags it does not make.

A trial starts at a contrastTrial_start and ends at the next; the last has no end and is dropped,
unless an end_experiment follows it. Its stimulus is the first target in it, its response the first
button press at or after the stimulus (in a trial without a stimulus: the first press), both
strictly before the trial's end.
"""

from pathlib import Path

import numpy as np

from eeg.data.release import BadRecording, read_tsv

TRIAL = np.dtype(
    [
        # seconds from the start of the recording
        ("start", "f8"),
        ("stop", "f8"),
        ("stimulus", "f8"),
        ("response", "f8"),
        ("rt_from_stimulus", "f8"),
        ("rt_from_trialstart", "f8"),
        ("correct", "i1"),  # 1 a smiley, 0 a sad face, -1 unknown
        ("side", "S5"),  # the hand that answered: left, right, or empty
        ("copy", "?"),
        ("fast", "?"),
    ]
)

_MISSING = ("n/a", "N/A", "NA", "na", "NaN", "nan", "")


def read_events(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(onsets (n) float64 seconds, NaN for n/a; values (n) str; feedback (n) str), by onset."""
    return events_of(read_tsv(path), path.name)


def events_of(table: dict[str, list[str]], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What read_events returns, from the table that lies in the file of this name."""
    for column in ("onset", "value"):
        if column not in table:
            columns = ", ".join(table)
            raise BadRecording(f"{name} has no column '{column}' (its columns: {columns})")
    try:
        numbers = ["nan" if text in _MISSING else text for text in table["onset"]]
        onsets = np.array([float(number) for number in numbers])
    except ValueError as e:
        text = str(e).split(": ")[-1]
        raise BadRecording(f"{name} has an onset that is no number: {text}") from None
    order = np.argsort(onsets, kind="stable")  # NaN last
    values = np.array(table["value"], dtype=object)
    feedback = np.array(table.get("feedback", [""] * len(values)), dtype=object)
    return onsets[order], values[order], feedback[order]


def build_trials(onsets: np.ndarray, values: np.ndarray, feedback: np.ndarray) -> np.ndarray:
    """The (n) TRIAL of one recording's events. Events without an onset are in no trial."""
    starts = onsets[values == "contrastTrial_start"]
    stops = np.append(starts, np.nan)[1:]
    ends = onsets[values == "end_experiment"]
    if len(starts) and len(ends) and ends[-1] > starts[-1]:
        stops[-1] = ends[-1]
    starts, stops = starts[~np.isnan(stops)], stops[~np.isnan(stops)]

    timed = ~np.isnan(onsets)
    targets = onsets[timed & np.isin(values, ["left_target", "right_target"])]
    pressed = np.flatnonzero(timed & np.isin(values, ["left_buttonPress", "right_buttonPress"]))

    trials = np.zeros(len(starts), TRIAL)
    trials["start"], trials["stop"] = starts, stops
    trials["stimulus"], _ = _first_from(targets, starts, stops)
    no_stimulus = np.isnan(trials["stimulus"])
    lower = np.where(no_stimulus, starts, trials["stimulus"])
    trials["response"], which = _first_from(onsets[pressed], lower, stops)
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
    """For each pair of bounds, the first of the sorted times with lower <= time < upper.

    -> (that time, its number); NaN and -1 where there is none
    """
    at = np.searchsorted(times, lower, side="left")
    inside = (at < len(times)) & ~np.isnan(lower)
    inside[inside] = times[at[inside]] < upper[inside]
    at = np.where(inside, at, -1)
    return np.append(times, np.nan)[at], at


def is_fast(trials: np.ndarray) -> bool:
    """Whether the next trial starts 1.63 s after the stimulus instead of 2.40 s."""
    gaps = (trials["stop"] - trials["stimulus"])[~np.isnan(trials["stimulus"])]
    return bool(len(gaps)) and bool(np.median(gaps) < 2.0)


def flag_copies(tables: list[np.ndarray]) -> None:
    """Set `copy` in a subject's trial tables, in order, where a block was recorded twice.

    A block that was copied into the next run repeats its trials with all times moved by one
    constant. The later trial is flagged where at least 4 trials of an earlier recording return with
    the same response time and the same offset.
    """
    for b, later in enumerate(tables):
        for earlier in tables[:b]:
            later["copy"] |= copied(earlier, later)


def copied(earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
    """(n) bool: which trials of the table `later` repeat a block of the table `earlier`."""
    tolerance = 0.005  # onsets are rounded to 2 ms in each file
    found = np.zeros(len(later), bool)
    apart = np.abs(earlier["rt_from_stimulus"][:, None] - later["rt_from_stimulus"])
    i, j = np.nonzero(apart < tolerance)  # NaN: not a pair
    offsets = later["stimulus"][j] - earlier["stimulus"][i]
    for offset in offsets:
        same = np.abs(offsets - offset) < tolerance
        if same.sum() >= 4:
            found[j[same]] = True
    return found
