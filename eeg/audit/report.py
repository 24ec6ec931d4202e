"""The table and the JSON of an audit."""

import numpy as np

from eeg import cli
from eeg.audit.counts import LABELS, Audit, correlations, response_quantiles
from eeg.audit.floors import NAMES, Floor
from eeg.audit.tables import RESTING
from eeg.data.release import CONTRAST

_LABEL = 42  # characters
_NUMBER = 9


def table(audits: list[Audit], whole: Audit | None, found: list[Floor]) -> str:
    """The audit as text: a column for each release, one for all of them, and an example."""
    columns = audits + [whole] * bool(whole)
    lines = []
    for section, labels in LABELS.items():
        lines += ["", _row(section, [each.name for each in columns], "example")]
        for key, label in labels.items():
            numbers = [f"{each.counts[key]:,}" for each in columns]
            lines.append(_row("  " + label, numbers, _example(audits, key)))
    lines += _quantiles(columns) + _lengths(columns) + _words(columns[-1])
    lines += _correlations(columns[-1]) + _floors(found) + _bad_files(columns[-1])
    return "\n".join(line.rstrip() for line in lines[1:])


def _row(label, cells, last=""):
    return f"{label:<{_LABEL}}" + "".join(f"{cell:>{_NUMBER}}" for cell in cells) + f"   {last}"


def _example(audits, key):
    """The first recording or participant that a key is true of, where it is not true of most."""
    for each in audits:
        names = each.where.get(key)
        if names and len(names) < len(each.contrast) / 2 + 1:
            return f"{each.name}/{names[0]}"
    return ""


def _quantiles(columns):
    """Response times."""
    found = [response_quantiles(each) for each in columns]
    names = next((list(each) for each in found if each), [])
    lines = ["", _row("response times (s)", [each.name for each in columns])] if names else []
    for name in names:
        cells = [f"{each[name]:.3f}" if each else "-" for each in found]
        lines.append(_row("  " + name, cells))
    return lines


def _lengths(columns):
    """How long recordings are."""
    lines = ["", _row("lengths (s)", [each.name for each in columns])]
    kinds = ("shortest", np.min), ("median", np.median), ("longest", np.max)
    for task, what in ((CONTRAST, "contrast change"), (RESTING, "resting state")):
        known = [each.durations(task) for each in columns]
        for kind, of in kinds:
            cells = [f"{of(some):,.1f}" if len(some) else "-" for some in known]
            lines.append(_row(f"  {what}, {kind}", cells))
    return lines


def _words(last):
    """Events that are no part of a trial."""
    lines = ["", _row("other events", ["events", "in files"])] if last.words["events"] else []
    for word, many in last.words["events"].most_common():
        lines.append(
            _row(f"  {word}"[:_LABEL], [f"{many:,}", f"{last.words['recordings'][word]:,}"])
        )
    return lines


def _correlations(last):
    names, r = correlations(last)
    short = [name.replace("mean response time", "mean RT").replace("_total", "") for name in names]
    lines = ["", "correlations between participants"]
    lines.append(" " * 22 + "".join(f"{name[:13]:>15}" for name in short))
    for name, row in zip(short, r):
        cells = "".join(f"{'-' if np.isnan(each) else f'{each:.2f}':>15}" for each in row)
        lines.append(f"  {name:<20}{cells}")
    return lines


def _floors(found):
    """NRMSE that labels alone reach."""
    lines = ["", "what labels alone score (NRMSE, no EEG; lower is better)"]
    for each in found:
        lines.append(f"  {each.test}, trained on {each.train}")
        parts = [
            ("challenge 1", each.challenge1, each.trials, "trial", each.trial_subjects),
            ("challenge 2", each.challenge2, each.windows, "window", each.window_subjects),
            ("each participant once", each.participants, each.participant_count, "label", None),
        ]
        for what, scores, many, unit, people in parts:
            of = f" of {cli.counted(people, 'subject')}" if people is not None else ""
            note = "" if scores else ": too few for a score"
            lines.append(f"    {what}, {cli.counted(many, unit)}{of}{note}")
            lines += [f"      {NAMES[key]:<40}{score:8.4f}" for key, score in scores.items()]
    return lines


def _bad_files(last):
    head = [f"{cli.counted(len(last.bad_files), 'unusable file')}:"]
    return last.bad_files and ["", *head] + [
        f"  {file}: {reason}" for file, reason in last.bad_files
    ]


def as_json(audits: list[Audit], whole: Audit | None, found: list[Floor]) -> dict:
    """The audit as JSON, with the names of all recordings and participants that are counted."""
    return {
        "releases": {each.name: _one(each) for each in audits},
        "all": _one(whole or audits[0]),
        "floors": [{key: _clean(value) for key, value in vars(each).items()} for each in found],
        "labels": {key: text for labels in LABELS.values() for key, text in labels.items()},
        "floor_labels": NAMES,
    }


def _one(audit):
    names, r = correlations(audit)
    lengths = {task: audit.durations(task) for task in (CONTRAST, RESTING)}
    return {
        "simulated": audit.simulated,
        "counts": {key: audit.counts[key] for labels in LABELS.values() for key in labels},
        "recordings_with": {key: len(names) for key, names in audit.where.items() if names},
        "where": {key: names for key, names in audit.where.items() if names},
        "response_times_s": response_quantiles(audit),
        "lengths_s": {
            task: {"min": some.min(), "median": float(np.median(some)), "max": some.max()}
            for task, some in lengths.items()
            if len(some)
        },
        "other_events": {
            word: {"events": many, "recordings": audit.words["recordings"][word]}
            for word, many in audit.words["events"].most_common()
        },
        "correlations": {
            one: {other: _clean(value) for other, value in zip(names, row)}
            for one, row in zip(names, r.tolist())
        },
        "bad_files": [{"file": file, "reason": reason} for file, reason in audit.bad_files],
    }


def _clean(value):
    """NaN, which JSON does not know, as None."""
    return None if isinstance(value, float) and np.isnan(value) else value
