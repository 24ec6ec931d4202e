"""The counts of an audit again, read literally: row by row, with csv and json alone.

Nothing of the project is used here. Two places agree only if both have understood the tables.
"""

import csv
import json
import math
from collections import Counter

TARGETS, PRESSES = ("left_target", "right_target"), ("left_buttonPress", "right_buttonPress")


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f, delimiter="\t"))


def trials_of(events):
    """[{"start", "stop", "stimulus", "response", "feedback", "inside"}] of (onset, row) pairs."""
    starts = [t for t, row in events if row["value"] == "contrastTrial_start"]
    ends = [t for t, row in events if row["value"] == "end_experiment" and t > starts[-1]]
    trials = []
    for start, stop in zip(starts, starts[1:] + ends[-1:]):
        inside = [(t, row) for t, row in events if start <= t < stop]
        stimulus = next((t for t, row in inside if row["value"] in TARGETS), None)
        lower = start if stimulus is None else stimulus
        answer = next(
            ((t, row) for t, row in inside if row["value"] in PRESSES and t >= lower), (None, {})
        )
        trials.append(
            {
                "start": start,
                "stop": stop,
                "stimulus": stimulus,
                "response": answer[0],
                "feedback": answer[1].get("feedback"),
                "inside": inside,
                "valid": stimulus is not None and answer[0] is not None,
            }
        )
    return trials


def count_recording(path):
    """(Counter of one events.tsv, its trials)."""
    rows = rows_of(path)
    events = sorted(((float(row["onset"]), row) for row in rows), key=lambda pair: pair[0])
    values = [row["value"] for _, row in events]
    run = path.name.split("_run-")[1].split("_")[0]
    trials = trials_of(events)
    valid = [trial for trial in trials if trial["valid"]]
    markers = [v for v in values if v.startswith("contrastChangeB") and v.endswith("_start")]
    n = Counter(recordings=1, trials=len(trials), valid=len(valid))
    n["no stimulus"] = sum(t["stimulus"] is None for t in trials)
    n["no response"] = len(trials) - len(valid) - n["no stimulus"]
    n["no valid trial"] = not valid
    n["RT 0"] = sum(t["response"] == t["stimulus"] for t in valid)
    n["non_target"] = sum(t["feedback"] == "non_target" for t in valid)
    n["long"] = sum(t["stop"] - t["start"] > 20 for t in trials)
    for trial in valid:
        presses = [r["value"] for t, r in trial["inside"] if t >= trial["stimulus"]]
        presses = [value for value in presses if value in PRESSES]
        n["several presses"] += len(presses) > 1
        n["both buttons"] += len(set(presses)) > 1
    for trial in trials:
        if trial["stimulus"] is not None:
            early = [r for t, r in trial["inside"] if t < trial["stimulus"]]
            n["early press"] += any(r["value"] in PRESSES for r in early)
    gaps = sorted(t["stop"] - t["stimulus"] for t in trials if t["stimulus"] is not None)
    if gaps:
        n["fast"] = (gaps[len(gaps) // 2] + gaps[(len(gaps) - 1) // 2]) / 2 < 2
    n["marker of another run"] = any(m != f"contrastChangeB{run}_start" for m in markers)
    n["block started twice"] = len(set(markers)) < len(markers)
    n["no feedback column"] = "feedback" not in rows[0]
    n["few trial starts"] = values.count("contrastTrial_start") < 24
    n["stray target"] = any(t == 0 and r["value"] in TARGETS for t, r in events)
    n["stray start"] = any(t == 0 and r["value"] == "contrastTrial_start" for t, r in events)
    n["equal onsets"] = sum(one[0] == other[0] for one, other in zip(events, events[1:]))
    n["no 9999"] = "9999" not in values
    n["fractional samples"] = sum(float(row.get("sample", 0)) % 1 > 0 for row in rows)
    n["durations"] = sum(row["duration"] != "n/a" for row in rows)
    n["250 Hz"] = all(round(t * 1000) % 4 == 0 for t, r in events if r["value"] != "boundary")
    return n, trials


def copied_trials(earlier, later):
    """The numbers of the valid trials of `later` that return from `earlier`, at least four."""
    pairs = [
        (j, b["stimulus"] - a["stimulus"])
        for a in earlier
        for j, b in enumerate(later)
        if a["valid"] and b["valid"]
        if abs((a["response"] - a["stimulus"]) - (b["response"] - b["stimulus"])) < 0.005
    ]
    found = set()
    for _, offset in pairs:
        same = [j for j, other in pairs if abs(other - offset) < 0.005]
        found |= set(same) if len(same) >= 4 else set()
    return found


def count_release(folder):
    """(Counter of a release, its response times)."""
    total, times = Counter(), []
    fast = set()
    for subject in sorted(folder.glob("sub-*")):
        before = []
        for path in sorted(subject.glob("eeg/*contrastChangeDetection*_events.tsv")):
            n, trials = count_recording(path)
            copies = [copied_trials(earlier, trials) for earlier in before]
            n["copied pairs"] = sum(bool(some) for some in copies)
            n["copied trials"] = len(set().union(*copies))
            before.append(trials)
            about = json.loads(
                path.with_name(path.name.replace("events.tsv", "eeg.json")).read_text()
            )
            n["no channel count"] = "EEGChannelCount" not in about
            length = round(about["RecordingDuration"] * 100)
            n["past the end"] = sum(
                t["valid"] and round(t["stimulus"] * 100) + 250 > length for t in trials
            )
            total.update(n)  # which keeps what is 0
            times += [t["response"] - t["stimulus"] for t in trials if t["valid"]]
            fast |= {subject.name} if n["fast"] else set()
    total["fast subjects"] = len(fast)
    total.update(count_people(folder))
    return total, times


def count_people(folder):
    people = rows_of(folder / "participants.tsv")
    factors = ("p_factor", "attention", "internalizing", "externalizing")
    recorded = {path.parts[-3] for path in folder.glob("sub-*/eeg/*contrastChange*_events.tsv")}
    vectors = Counter(tuple(row[name] for name in factors) for row in people)
    n = Counter(participants=len(people), recorded=len(recorded))
    for row in people:
        unknown = row["externalizing"] == "n/a"
        n["no factors"] += unknown
        n["no factors, recorded"] += unknown and row["participant_id"] in recorded
        n["no recording"] += row["participant_id"] not in recorded
        n["shared factors"] += not unknown and vectors[tuple(row[f] for f in factors)] > 1
        n["no ehq"] += row["ehq_total"] == "n/a"
        n["no age"] += math.isnan(float(row["age"].replace("n/a", "nan")))
        n["no sex"] += row["sex"] not in ("M", "F")
        for run in "123":
            name = f"{row['participant_id']}/eeg/{row['participant_id']}"
            name += f"_task-contrastChangeDetection_run-{run}_events.tsv"
            said, there = row[f"contrastChangeDetection_{run}"], (folder / name).exists()
            n["said, no file"] += said != "unavailable" and not there
            n["available, no file"] += said == "available" and not there
            n["caution, no file"] += said == "caution" and not there
            n["unavailable, a file"] += said == "unavailable" and there
    return n
