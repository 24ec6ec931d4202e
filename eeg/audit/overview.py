"""The overview of a cache: labels, and for each recording its electrodes, line noise and events."""

from itertools import groupby
from pathlib import Path

import numpy as np

from eeg import cli
from eeg.audit.counts import read_subject
from eeg.audit.quality import (
    ELECTRODES,
    LINE_HZ,
    MOST_ORIGINALS,
    NOISY,
    Quality,
    contrast_name,
    measure,
    original_line_db,
)
from eeg.audit.tables import Facts, list_recordings
from eeg.data.cache import Cache
from eeg.data.plots import draw_averages, draw_counts, draw_labels, draw_scalp, summary
from eeg.data.release import CONTRAST, Release
from eeg.models.montage import CHANNELS

WORST = 14  # recordings that are named
_LAYOUT = (
    ("labels", "counts", "averages"),
    ("scalp", "electrodes", "electrodes"),
    ("line", "events", "events"),
    ("margin", "worst", "worst"),
)
_FLAGS = {  # key of counts.LABELS: (words, marker, colour)
    "fast": ("fast time line", "v", "C1"),
    "copied pairs": ("holds a copied block", "s", "C3"),
    "250 Hz": ("onsets on a 4 ms grid: 250 Hz", "|", "C4"),
    "off the 2 ms grid": ("onsets off the 2 ms grid", "x", "C2"),
    "after the end": ("events after the end", "P", "k"),
    "past the end": ("a window past the end", "D", "C5"),
    "no valid trial": ("no valid trial", "X", "C6"),
}


def plot_overview(cache: Cache, releases: list[Release], file: Path) -> list[str]:
    """Draw the overview into an image file. -> lines about the recordings with most bad electrodes.

    releases: those of the cache that are on disk; without them, nothing is said of trials.
    """
    from matplotlib.figure import Figure

    quality = measure(cache)
    facts = _facts(releases)
    known = [facts.get((release, *contrast_name(name))) for release, name in quality.names]
    lines = _worst(quality, known)
    fig = Figure(figsize=(17, 17), layout="constrained")
    read = cli.counted(quality.windows_read, "window")
    note = (
        f"electrodes and line noise from {read} of {cli.counted(len(quality.names), 'recording')}"
    )
    fig.suptitle(f"challenge {cache.challenge}, {summary(cache)}; {note}")
    axes = fig.subplot_mosaic(_LAYOUT)
    subjects = np.unique(cache.metadata["subject"])
    draw_labels(axes["labels"], cache, subjects)
    draw_counts(axes["counts"], cache, subjects)
    draw_averages(axes["averages"], cache)
    _scalp(axes["scalp"], quality)
    _electrodes(axes["electrodes"], quality)
    _line_noise(axes["line"], quality, cache.sfreq, line_noise_of_files(quality, releases))
    _events(axes["events"], list(facts.values()), [release for release, *_ in facts])
    _margins(axes["margin"], list(facts.values()), [release for release, *_ in facts])
    _names(axes["worst"], lines)
    fig.savefig(file, dpi=100)
    return lines


def _facts(releases):
    """{(release, subject, run): Facts} of the contrast-change recordings that have a signal."""
    found: dict[tuple, Facts] = {}
    for release in releases:
        contrast = [each for each in list_recordings(release.folder) if each.task == CONTRAST]
        for _, group in groupby(contrast, key=lambda each: each.subject):
            for facts in read_subject(list(group)):
                if facts.recorded.has_signal:
                    key = release.name, facts.recorded.subject, facts.recorded.run
                    found[key] = facts
    return found


def line_noise_of_files(quality: Quality, releases: list[Release]) -> dict[int, float]:
    """{number of the recording: dB of line noise in its file}, where the rate allows it."""
    found: dict[int, float] = {}
    for release in releases:  # each has one rate, as a rule, which may not be another's
        there = [i for i, (name, _) in enumerate(quality.names) if name == release.name]
        files = [release.folder / quality.names[i][1] for i in there]
        most = max(2, MOST_ORIGINALS // len(releases))
        found |= {there[i]: value for i, value in original_line_db(files, most).items()}
    return found


def _worst(quality, known):
    """["R1/sub-X...   30 flat, 1 noisy, 24 of 24 trials valid"], the worst first; [] if none is.

    Each is a line for --exclude.
    """
    many = quality.bad.sum(1)
    order = [i for i in np.argsort(-many, kind="stable")[:WORST] if many[i]]
    lines = []
    for i in order:
        release, name = quality.names[i]
        kinds = ("flat", quality.flat), ("noisy", quality.noisy), ("clipped", quality.clipped)
        parts = [f"{rows[i].sum()} {kind}" for kind, rows in kinds if rows[i].any()]
        if facts := known[i]:
            parts.append(f"{facts.counts['valid']} of {facts.counts['trials']} trials valid")
        lines.append(f"{release}/{Path(name).name.split('_eeg.')[0]}   {', '.join(parts)}")
    return lines


def _scalp(ax, quality):
    """How often each electrode is bad, on the scalp."""
    share = quality.bad.mean(0) * 100
    look = {"vlim": (0, max(5, share.max())), "cmap": "Reds", "extrapolate": "local"}
    draw_scalp(ax, share, CHANNELS[:ELECTRODES], "% of recordings", **look)
    worst = [i for i in np.argsort(-share)[:3] if share[i] > 0]
    named = ", ".join(f"{CHANNELS[i]} {share[i]:.0f} %" for i in worst)
    ax.set_title("flat, noisy or clipped" + f"\nmost often {named}" * bool(worst), fontsize=10)


def _by_release(ax, releases, height=0.99):
    """Mark where each release begins on an axis of recordings, if there are several."""
    starts = [i for i in range(len(releases)) if i == 0 or releases[i] != releases[i - 1]]
    for i in starts if len(starts) > 1 else []:
        ax.axvline(i - 0.5, color="0.7", lw=0.8)
        place = {"ha": "left", "va": "top", "fontsize": 8, "transform": ax.get_xaxis_transform()}
        ax.text(i - 0.3, height, releases[i], **place)


def _electrodes(ax, quality):
    """How many electrodes of each recording are bad, and how."""
    at, bottom = np.arange(len(quality.names)), np.zeros(len(quality.names))
    kinds = {
        "flat": (quality.flat, "0.3"),
        f"noisy ({NOISY} x the median)": (quality.noisy, "C1"),
        "clipped (held at an extreme)": (quality.clipped & ~quality.noisy, "C3"),
    }
    for label, (rows, color) in kinds.items():
        ax.bar(at, rows.sum(1), 1, bottom=bottom, color=color, label=f"{label}: {rows.sum():,}")
        bottom += rows.sum(1)
    _by_release(ax, [release for release, _ in quality.names])
    ax.set(xlabel="recording, in the order of the cache", ylabel=f"electrodes, of {ELECTRODES}")
    ax.set_xlim(-0.5, max(len(at), 10) - 0.5)
    ax.set_ylim(0, max(5, bottom.max() * 1.2))
    ax.set_title("bad electrodes of each recording")
    ax.legend(fontsize=8, ncols=3)


def _line_noise(ax, quality, sfreq, originals):
    """How much more power there is at the line frequency than beside it."""
    ax.plot(quality.line_db, ".", ms=4, label=f"cache, {quality.line_hz:g} Hz")
    if originals:
        label = f"{cli.counted(len(originals), 'file')} before filters, {LINE_HZ} Hz"
        ax.plot(list(originals), list(originals.values()), "x", ms=5, color="C3", label=label)
        ax.legend(fontsize=8)
    ax.axhline(0, color="0.6", lw=0.8)
    ax.margins(y=0.15)  # room for the names of releases
    _by_release(ax, [release for release, _ in quality.names])
    where = "power at the frequency above that beside it (dB)"
    ax.set(xlabel="recording", ylabel=where)
    title = f"line noise at {LINE_HZ} Hz"
    if quality.line_hz != LINE_HZ:
        title = (
            f"what is left of {LINE_HZ} Hz line noise: at {sfreq:g} Hz it folds to "
            f"{quality.line_hz:g} Hz;\nresampling has removed it where this is near 0"
        )
    ax.set_title(title, fontsize=10)


def _events(ax, facts, releases):
    """Trials of each recording on disk, and what is odd."""
    if not facts:
        ax.set_title("no events.tsv on disk: nothing is known of trials")
        ax.axis("off")
        return
    copied = np.array([each.counts["copied trials"] for each in facts])
    valid = np.array([each.counts["valid"] for each in facts])
    trials = np.array([each.counts["trials"] for each in facts])
    parts = (
        (valid - copied, "C0", "valid"),
        (copied, "C3", "a copy"),
        (trials - valid, "0.7", "not valid"),
    )
    at, bottom = np.arange(len(facts)), np.zeros(len(facts))
    for many, color, label in parts:
        ax.bar(at, many, 1, bottom=bottom, color=color, label=f"{label}: {many.sum():,}")
        bottom += many
    top = max(10, bottom.max())
    for n, (key, (words, marker, color)) in enumerate(_FLAGS.items()):
        odd = np.flatnonzero([each.counts[key] > 0 for each in facts])
        if len(odd):
            height = np.full(len(odd), top * (1.05 + 0.05 * n))
            ax.plot(odd, height, marker, color=color, ms=4, ls="", label=f"{words}: {len(odd)}")
    _by_release(ax, releases, height=0.87)  # below the legend
    ax.set(xlabel="contrast-change recording on disk", ylabel="trials")
    ax.set_xlim(-0.5, max(len(at), 10) - 0.5)
    ax.set_ylim(0, top * 1.75)
    ax.set_title("events: trials of each recording, and what is odd above them")
    ax.legend(fontsize=7, ncols=4, loc="upper left")


def _margins(ax, facts, releases):
    """How long each recording goes on after its last event."""
    margin = np.array([each.duration_s - each.last_onset_s for each in facts], float)
    known = np.isfinite(margin)
    if not known.any():
        ax.set_title("no length in any eeg.json: not compared with the last event")
        ax.axis("off")
        return
    ax.set_yscale("symlog", linthresh=1)  # first: limits are found on the scale that is set
    ax.plot(np.flatnonzero(known), margin[known], ".", ms=4)
    ax.axhline(0, color="C3", lw=0.8)
    _by_release(ax, releases)
    ax.set(xlabel="contrast-change recording on disk", ylabel="s, from the last event to the end")
    ended = int((margin < 0).sum())
    ax.set_title(f"length beyond the last event: negative in {ended}", fontsize=10)


def _names(ax, lines):
    """The recordings with most bad electrodes."""
    ax.axis("off")
    text = "\n".join(lines) if lines else "no electrode is flat, noisy or clipped"
    place = {"va": "top", "fontsize": 9, "family": "monospace", "transform": ax.transAxes}
    ax.text(0, 0.98, text, **place)
    ax.set_title(
        "recordings with most bad electrodes; run/cache.py --exclude leaves them out", loc="left"
    )
