"""The figure of an audit."""

from pathlib import Path

import numpy as np

from eeg import cli
from eeg.audit.counts import Audit, correlations
from eeg.audit.floors import NAMES, Floor
from eeg.data.plots import draw_response_times
from eeg.score.metrics import FEW

_BARS = {  # key of counts.LABELS: a shorter label; all are counted by recording
    "early press": "press before a stimulus",
    "several presses": "several presses",
    "copied pairs": "holds a copied block",
    "marker of another run": "another run's marker",
    "fast": "fast time line",
    "250 Hz": "upsampled from 250 Hz",
    "long": "a trial longer than 20 s",
    "stray target": "target at onset 0",
    "equal onsets": "events at one onset",
    "no 9999": "no 9999 event",
    "block started twice": "block started twice",
    "no valid trial": "no valid trial",
    "few trial starts": "fewer than 24 trial starts",
    "past the end": "window past the end",
    "bad events.tsv": "unusable events.tsv",
}


def plot_audit(audits: list[Audit], whole: Audit, found: list[Floor], file: Path) -> None:
    """Draw response times, trials, irregularities, labels and label-only scores."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(16, 9.5), layout="constrained")
    kind = " (simulated)" if whole.simulated else ""
    many = cli.counted(len(whole.contrast), "contrast-change recording")
    people = cli.counted(len(whole.people.names), "participant")
    names = " ".join(each.name for each in audits)
    fig.suptitle(f"{names}{kind}: {many}, {people}; events and labels, no EEG")
    axes = fig.subplots(2, 3)
    _response_times(axes[0, 0], whole)
    _trials(axes[0, 1], audits)
    _irregularities(axes[0, 2], whole)
    _labels(axes[1, 0], whole)
    _correlations(axes[1, 1], whole)
    _floors(axes[1, 2], found)
    fig.savefig(file, dpi=110)


def _response_times(ax, whole):
    """Response times on both time lines."""
    tables = [facts.trials for facts in whole.contrast if facts.has_trials and len(facts.trials)]
    usual, fast = ([each for each in tables if each["fast"][0] == kind] for kind in (False, True))
    times = [
        np.concatenate([each["rt_from_stimulus"] for each in some] or [[]])
        for some in (usual, fast)
    ]
    times = [each[np.isfinite(each)] for each in times]
    draw_response_times(ax, *times, "valid trials")


def _trials(ax, audits):
    """What becomes of the trials of each release."""
    kinds = {
        "valid, once": [each.counts["valid"] - each.counts["copied trials"] for each in audits],
        "valid, a copy": [each.counts["copied trials"] for each in audits],
        "no response": [each.counts["no response"] for each in audits],
        "no stimulus": [each.counts["no stimulus"] for each in audits],
    }
    bottom = np.zeros(len(audits))
    for (label, many), color in zip(kinds.items(), ("C0", "C3", "0.6", "0.3")):
        ax.bar(range(len(audits)), many, bottom=bottom, color=color, label=label)
        bottom += many
    ax.set_xticks(range(len(audits)), [each.name for each in audits])
    ax.set(ylabel="trials", title="trials by release")
    ax.legend(fontsize=8)


def _irregularities(ax, whole):
    """The share of recordings in which something is odd."""
    many = {
        label: sum(facts.counts[key] > 0 for facts in whole.contrast)
        for key, label in _BARS.items()
    }
    total = max(1, len(whole.contrast))
    share = np.array(list(many.values())) * 100 / total
    ax.barh(range(len(many)), share, color="C0")
    ax.set_yticks(range(len(many)), many, fontsize=8)
    ax.invert_yaxis()
    for i, count in enumerate(many.values()):
        ax.text(share[i], i, f" {count:,}", va="center", fontsize=8)
    ax.set(xlabel="% of recordings", xlim=(0, max(share.max(initial=0) * 1.15, 1)))
    ax.set_title("irregularities, by recording")


def _labels(ax, whole):
    """Age and externalizing, with those whose four factors are another's, too."""
    age, y = whole.people.column("age"), whole.people.column("externalizing")
    shared = np.isin(whole.people.names, [w.split("/")[-1] for w in whole.where["shared factors"]])
    ax.plot(age[~shared], y[~shared], ".", ms=3, color="C0")
    label = f"same four factors as another: {shared.sum()}"
    ax.plot(age[shared], y[shared], "x", ms=5, color="C3", label=label)
    known = np.isfinite(y).sum()
    title = f"labels of {cli.counted(int(known), 'participant')}"
    ax.set(xlabel="age (years)", ylabel="externalizing", title=title)
    ax.legend(fontsize=8)


def _correlations(ax, whole):
    """How the numbers of participants hang together."""
    names, r = correlations(whole)
    image = ax.imshow(r, cmap="RdBu_r", vmin=-0.5, vmax=0.5)
    for i, j in np.ndindex(*r.shape):
        if i != j and np.isfinite(r[i, j]):
            ax.text(j, i, f"{r[i, j]:.2f}", ha="center", va="center", fontsize=7)
    short = [name.replace("_total", "").replace("mean response time", "mean RT") for name in names]
    ax.set_xticks(range(len(short)), short, rotation=40, ha="right", fontsize=8)
    ax.set_yticks(range(len(short)), short, fontsize=8)
    ax.figure.colorbar(image, ax=ax, shrink=0.8)
    ax.set_title("correlations between participants")


def _floors(ax, found):
    """NRMSE that labels alone reach on each test set."""
    rows = [(1, key) for key in NAMES if key != "people"] + [(2, "mean"), (2, "people")]
    enough = [each for each in found if min(each.trial_subjects, each.window_subjects) >= FEW]
    note = f"; {len(found) - len(enough)} test sets have fewer than {FEW} subjects"
    note, found = (note, enough) if 0 < len(enough) < len(found) else ("", found)
    for n, floor in enumerate(found):
        scores = [(floor.challenge1, floor.challenge2)[c - 1].get(key, np.nan) for c, key in rows]
        at = np.arange(len(rows)) + (n - (len(found) - 1) / 2) * 0.06
        ax.plot(scores, at, "o", ms=5, label=floor.test)
    ax.set_yticks(range(len(rows)), [f"{c}: {NAMES[key]}" for c, key in rows], fontsize=8)
    ax.invert_yaxis()
    ax.axvline(1, color="0.6", lw=0.8)
    ax.set(xlabel=f"NRMSE{note}", title="what labels alone score, by challenge")
    beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)}  # points may lie anywhere inside
    ax.legend(fontsize=7, title="test", title_fontsize=7, **beside)
