"""The counts of one release, and of several together."""

import os
import signal
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

import numpy as np

from eeg import UserError
from eeg.audit import people as participants
from eeg.audit.people import NUMBERS, People
from eeg.audit.tables import RESTING, Facts, Recorded, list_recordings, read_facts
from eeg.data.release import CONTRAST, Release
from eeg.data.trials import copied
from eeg.data.windows import SFREQ, cut_trials

# key: what is counted. Each key that names an item of a recording counts the items.
LABELS = {
    "recordings": {
        "participants": "participants",
        "recordings": "contrast-change recordings",
        "recorded": "participants with one",
        "resting": "resting-state recordings",
        "no signal": "recordings without a signal file",
    },
    "trials": {
        "trials": "trials",
        "valid": "valid trials",
        "no response": "trials without a response",
        "no stimulus": "trials without a stimulus",
        "past the end": "valid windows past the end",
        "RT before the window": "responses before the window opens",
    },
    "blocks": {
        "copied pairs": "blocks copied into a later run",
        "copied trials": "duplicated valid trials",
        "fast": "recordings on the fast time line",
        "fast subjects": "their subjects",
        "marker of another run": "recordings with another run's marker",
        "block started twice": "recordings with a block started twice",
        "no valid trial": "recordings without a valid trial",
        "no feedback column": "recordings without a feedback column",
        "few trial starts": "recordings with < 24 trial starts",
    },
    "responses": {
        "RT 0": "response times of exactly 0",
        "non_target": "first response non_target",
        "several presses": "valid trials with several presses",
        "both buttons": "... of both buttons",
        "early press": "trials with a press before the stimulus",
        "early press and valid": "... valid ones",
    },
    "events": {
        "stray target": "recordings with a target at onset 0",
        "stray start": "recordings with a trial start at 0",
        "long": "trials longer than 20 s",
        "long and valid": "... valid ones",
        "equal onsets": "pairs of events at one onset",
        "with equal onsets": "... recordings with such pairs",
        "no 9999": "recordings without a 9999 event",
        "fractional samples": "events at a fractional sample",
        "durations": "events with a duration",
        "untimed events": "events without an onset",
        "negative onsets": "events before the recording",
        "after the end": "recordings with events after their end",
        "off the 2 ms grid": "recordings with onsets off the 2 ms grid",
        "250 Hz": "recordings upsampled from 250 Hz",
    },
    "other files": {
        "no length": "no RecordingDuration in the JSON",
        "no length (resting)": "... of a resting state",
        "no channel count": "no EEGChannelCount in the JSON",
        "no channel count (resting)": "... of a resting state",
        "channels n/a": "channels.tsv with type and units n/a",
        "channels n/a (resting)": "... of a resting state",
        "other channels": "recordings not of 129 channels",
        "other channels (resting)": "... of a resting state",
        "short resting": "resting states shorter than 4 s",
        "two resting starts": "resting states started twice",
        "bad events.tsv": "events.tsv unusable or missing",
        "bad eeg.json": "eeg.json unreadable",
        "bad channels.tsv": "channels.tsv unreadable",
    },
    "participants.tsv": {
        "said, no file": "runs said to be there, without a file",
        "available, no file": "... available",
        "caution, no file": "... under caution",
        "unavailable, a file": "runs unavailable, with a file",
        "said, no file (other tasks)": "other tasks said to be there, no file",
        "unavailable, a file (other tasks)": "other tasks unavailable, with a file",
        "no recording": "participants without a recording",
        "no factors": "participants without factors",
        "no factors, recorded": "... who have recordings",
        "shared factors": "participants with another's four factors",
        "floor": "... with the most common ones",
        "no ehq": "participants without ehq_total",
        "no age": "participants without age",
        "no sex": "participants without sex",
        "repeated": "participants named twice",
        "unknown subjects": "subjects missing from participants.tsv",
        "in two releases": "participants of an earlier release",
    },
}
CHUNK = 8  # subjects that a process reads at a time
QUANTILES = (1, 5, 25, 50, 75, 95, 99)


@dataclass
class Audit:
    """What is known of one release, or of several together."""

    name: str
    simulated: bool
    people: People
    facts: list[Facts]  # of contrast-change and resting-state recordings
    counts: Counter = field(default_factory=Counter)
    where: dict[str, list[str]] = field(default_factory=dict)  # key -> recordings or participants
    words: dict[str, Counter] = field(default_factory=dict)  # "recordings", "events" -> word -> n
    bad_files: list = field(default_factory=list)  # (file name, reason)

    @property
    def contrast(self) -> list[Facts]:
        return [facts for facts in self.facts if facts.recorded.task == CONTRAST]

    @property
    def response_times(self) -> np.ndarray:
        """(n,) s, of all valid trials."""
        tables = [facts.trials["rt_from_stimulus"] for facts in self.contrast if facts.has_trials]
        found = np.concatenate(tables) if tables else np.empty(0)
        return found[np.isfinite(found)]

    def durations(self, task: str) -> np.ndarray:
        """(n,) s, of the recordings of a task whose length is known."""
        found = [facts.duration_s for facts in self.facts if facts.recorded.task == task]
        return np.array([each for each in found if np.isfinite(each)])


def read_subject(recordings: list[Recorded]) -> list[Facts]:
    """The facts of one subject's recordings, with copies flagged between them."""
    found = [read_facts(recorded) for recorded in recordings]
    known = [facts for facts in found if facts.has_trials]
    for b, later in enumerate(known):
        for earlier in known[:b]:
            same = copied(earlier.trials, later.trials)
            later.counts["copied pairs"] += bool(same.any())
            later.trials["copy"] |= same
        later.counts["copied trials"] = int(later.trials["copy"].sum())
        if np.isfinite(later.duration_s):
            _, dropped = cut_trials(later.trials, round(later.duration_s * SFREQ))
            later.counts["past the end"] = dropped["past the end of the recording"]
            last = later.last_onset_s
            later.counts["after the end"] = int(last > later.duration_s + 1e-6)
    return found


def audit_releases(releases: list[Release], jobs: int | None = None) -> list[Audit]:
    """The audit of each release, read by several processes. Raises UserError if one is none."""
    jobs = jobs or len(os.sched_getaffinity(0))
    ignore = signal.SIGINT, signal.SIG_IGN  # Ctrl-C is for the process that waits for them
    with ExitStack() as held:
        mapped = map
        if jobs > 1:
            pool = ProcessPoolExecutor(jobs, initializer=signal.signal, initargs=ignore)
            mapped = partial(held.enter_context(pool).map, chunksize=CHUNK)
        audits = [_audit(release, mapped) for release in releases]
    _compare_releases(audits)
    _find_shared_factors(audits)
    return audits


def _find_shared_factors(audits):
    """Participants with the same four factors as another one, of whichever release."""
    vectors = np.concatenate([each.people.factors for each in audits])
    known = np.isfinite(vectors).all(1)
    found, which, many = np.unique(vectors, axis=0, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    many = np.where(known, many[which], 0) if len(many) else many
    most = which == which[many.argmax()] if many.max(initial=0) > 1 else np.zeros(len(many), bool)
    first = 0
    for each in audits:
        own = slice(first, first + len(each.people.names))
        first = own.stop
        for key, rows in (("shared factors", many[own] > 1), ("floor", most[own])):
            each.where[key] = [each.people.names[i] for i in np.flatnonzero(rows)]
            each.counts[key] = len(each.where[key])


def _compare_releases(audits):
    """Participants that an earlier release has, too."""
    seen: dict[str, str] = {}
    for audit in audits:
        both = [name for name in audit.people.names if name in seen]
        audit.where["in two releases"] = [f"{name} ({seen[name]})" for name in both]
        audit.counts["in two releases"] = len(both)
        seen = dict.fromkeys(audit.people.names, audit.name) | seen


def _audit(release, mapped):
    """mapped: map, here or in other processes."""
    recordings = list_recordings(release.folder)
    people = participants.read_people(release)
    if not recordings and people.bad_files:
        raise UserError(
            f"{release.folder} holds no release: it has no sub-*/eeg/sub-*_events.tsv, and "
            f"{people.bad_files[0][1]}"
        )
    wanted = [each for each in recordings if each.task in (CONTRAST, RESTING)]
    groups = [list(group) for _, group in groupby(wanted, key=lambda each: each.subject)]
    facts = [facts for some in mapped(read_subject, groups) for facts in some]
    audit = Audit(release.name, release.simulated, people, facts)
    audit.where = participants.compare(audit.people, recordings)
    audit.counts.update({key: len(names) for key, names in audit.where.items()})
    for one in facts:
        for key, count in one.counts.items():
            if count:
                audit.counts[key] += int(count)
                audit.where.setdefault(key, []).append(str(one.recorded))
    _count_recordings(audit)
    words = [one.words for one in audit.contrast]
    audit.words = {
        "events": sum(words, Counter()),
        "recordings": Counter(word for some in words for word in some),
    }
    audit.bad_files = audit.people.bad_files + [bad for one in facts for bad in one.bad_files]
    return audit


def _count_recordings(audit):
    counts, contrast = audit.counts, audit.contrast
    fast = [each.recorded.subject for each in contrast if each.counts["fast"]]
    silent = [each.recorded for each in contrast if not each.recorded.has_signal]
    counts["participants"] = len(audit.people.names)
    counts["recordings"] = len(contrast)
    counts["recorded"] = len({each.recorded.subject for each in contrast})
    counts["resting"] = len(audit.facts) - len(contrast)
    counts["fast subjects"] = len(set(fast))
    counts["no signal"] = len(silent)
    audit.where["no signal"] = [str(each) for each in silent]


def together(audits: list[Audit]) -> Audit:
    """Several releases as one, whose names of recordings begin with the release."""
    names = [name for each in audits for name in each.people.names]
    numbers = np.concatenate([each.people.numbers for each in audits])
    whole = Audit(
        "all",
        any(each.simulated for each in audits),
        People(names, numbers),
        [facts for each in audits for facts in each.facts],
        sum((each.counts for each in audits), Counter()),
    )
    for each in audits:
        for key, found in each.where.items():
            whole.where.setdefault(key, []).extend(f"{each.name}/{name}" for name in found)
        for kind, words in each.words.items():
            whole.words[kind] = whole.words.get(kind, Counter()) + words
        whole.bad_files += [(f"{each.name}: {file}", reason) for file, reason in each.bad_files]
    return whole


def response_quantiles(audit: Audit) -> dict[str, float]:
    """{"mean", "std", "min", "1 %", ... "max"} of the response times, s; {} if there are none."""
    times = audit.response_times
    if not len(times):
        return {}
    found = {"mean": times.mean(), "std": times.std(), "min": times.min()}
    found |= {f"{q} %": value for q, value in zip(QUANTILES, np.percentile(times, QUANTILES))}
    return {name: float(value) for name, value in (found | {"max": times.max()}).items()}


def correlations(audit: Audit) -> tuple[list[str], np.ndarray]:
    """(names (k), (k, k)): of participants' numbers and their mean response time, NaN if unknown.

    Each pair by the participants of whom both are known.
    """
    own: dict[str, list] = {}
    for facts in audit.contrast:
        if facts.has_trials:
            times = facts.trials["rt_from_stimulus"][~facts.trials["copy"]]
            own.setdefault(facts.recorded.subject, []).append(times[np.isfinite(times)])
    means = {name: np.concatenate(some) for name, some in own.items()}
    speed = [
        means[name].mean() if len(means.get(name, ())) else np.nan for name in audit.people.names
    ]
    columns = np.column_stack([audit.people.numbers, np.array(speed, float)])
    found = np.full((columns.shape[1],) * 2, np.nan)
    for i, j in np.ndindex(*found.shape):
        both = np.isfinite(columns[:, i]) & np.isfinite(columns[:, j])
        pair = columns[both][:, [i, j]]
        if len(pair) > 2 and (pair.std(0) > 0).all():
            found[i, j] = np.corrcoef(pair.T)[0, 1]
    return [*NUMBERS, "mean response time"], found
