"""A run's report.html: how it learned, how well it answers and for whom, what it looks at, what happened on the way.

One self-contained file, made with MNE's Report; the figures are drawn in figures.py. Intervals are 95 %, by
subject: the windows of a subject resemble each other. Of fewer than 10 subjects none is shown.

What matters is found by occlusion: an electrode, or a stretch of time, is replaced by its mean over the window, and the rise of
the NRMSE is what the model had from it. What one electrode says, its neighbours often say too: a low rise does not mean that
there is nothing to see.
"""

import html
import json
import shlex
import time
from dataclasses import dataclass

import mne
import numpy as np
import scipy.stats
import torch

from eeg import UserError, cli
from eeg.data.cache import cache_path
from eeg.data.release import find_release
from eeg.data.windows import OFFSET
from eeg.files import publishing, writing
from eeg.score import plots as figures
from eeg.score.factors import factor_rows, factor_scores
from eeg.score.finished import load_model
from eeg.score.metrics import (
    FEW,
    interval,
    interval_difference,
    mae,
    nrmse,
    pearson,
    r2,
    rmse,
    student,
)
from eeg.score.predict import all_answers, answers, predict
from eeg.score.sides import TEST, check_side, flattered, scored_side, side

WHAT = {
    "rt_from_stimulus": ("response time", "s"),
    "rt_from_trialstart": ("response time from the trial's start", "s"),
    "externalizing": ("externalizing", "factor score"),
    "factors": ("externalizing", "factor score"),
}
STEP = 10  # samples of a stretch of time that is occluded: 100 ms
LEAST, MOST, BLOCK = 64, 500, 16  # windows that are occluded: at least, at most, at a time
PATIENCE = 20  # s that occlusion may take, as far as the first block tells
FLAT = 1e-3  # answers that vary less than this share of the labels' deviation are called a constant
TOP = 10  # electrodes that are named
EXAMPLES = 6
BARS = f"95 % intervals by subject, of {FEW} subjects or more"
LEVELS = np.arange(0.1, 1.0, 0.1)
PLACES = {
    "E36": "C3",
    "E104": "C4",
    "E62": "Pz",
    "E11": "Fz",
    "E24": "F3",
    "E124": "F4",
    "E52": "P3",
    "E92": "P4",
    "E70": "O1",
    "E75": "Oz",
    "E83": "O2",
}  # of the 10-20 system, nearest


# ---------------------------------------------------------------------------------------------------- numbers


@dataclass
class Windows:
    """What a run answers about windows it was not trained on. y, p (N,); times (N, S): chances of the moments, None without a time head."""

    cache: object
    rows: np.ndarray
    where: str  # which windows these are, in words
    y: np.ndarray
    p: np.ndarray
    times: np.ndarray | None
    ages: np.ndarray | None  # (N,) years, NaN where unknown; None where no file says them

    mean_of_training: float  # of the labels the run was trained on
    factors: np.ndarray | None = None  # (N, 4) answers, of a run that learned all four factors

    @property
    def subjects(self):
        return self.cache.metadata["subject"][self.rows]

    @property
    def constant(self):
        """Whether every window gets the same answer."""
        return self.p.std() < FLAT * self.y.std()


def look_at(run, model, cache_folder, data, releases=None, mini=False, progress=None):
    """-> Windows of the test releases, where they are cached, else of the run's validation subjects."""
    if releases or any(
        cache_path(cache_folder, run.challenge, name, mini).exists() for name in TEST
    ):
        cache, rows = scored_side(cache_folder, run.challenge, releases, mini)
        where = f"{' + '.join(dict.fromkeys(cache.release))}{' mini' if mini else ''}"
    else:
        cache, rows = side(cache_folder, [run], "valid")
        where = f"validation subjects of {' + '.join(dict.fromkeys(cache.release[rows]))}, for {' and '.join(TEST)} are not cached"
    check_side(run, cache, rows)
    if note := flattered([run], cache, rows):
        where = f"{where}; {note}"
    found = predict(
        model, cache, rows, with_chances if model.head == "time" else all_answers, progress=progress
    )
    chances = found[:, 1:] if model.head == "time" else None
    ages = _ages(cache, rows, data)
    factors = found if run.config["target"] == "factors" else None
    return Windows(
        cache,
        rows,
        where,
        cache.y[rows],
        found[:, 0],
        chances,
        ages,
        float(model.center[0]),
        factors,
    )


def with_chances(model, x, features):
    """(B, 1 + S): the answer, and the chance of each moment."""
    raw = model.raw(x, features)
    return torch.cat([model.answer(raw)[:, :1], raw.softmax(1)], 1)


def _ages(cache, rows, data):
    """(N,) years: challenge 2's caches have them, of challenge 1 the releases' participants.tsv, where it lies."""
    if cache.challenge == 2:
        return cache.metadata["age"][rows]
    ages = np.full(len(rows), np.nan)
    for release, attributes in dict(
        zip([a["release"] for a in cache.attributes], cache.attributes)
    ).items():
        try:
            people = find_release(str(release), data, bool(attributes["mini"])).participants()
        except UserError:  # the cache is here, the release is not: it is not needed
            continue
        for name in np.unique(cache.metadata["subject"][rows][cache.release[rows] == release]):
            ages[(cache.metadata["subject"][rows] == name) & (cache.release[rows] == release)] = (
                people.get(name.decode(), {}).get("age", np.nan)
            )
    return ages if np.isfinite(ages).any() else None


def bins_of(x, count):
    """(N,) the bin, from 0, of each x: as many in each as possible; equal x are in one bin, which may leave fewer of them."""
    which = np.ceil(scipy.stats.rankdata(x) / len(x) * count).astype(int)
    return np.unique(which, return_inverse=True)[1]


def bin_means(which, values, subjects):
    """-> (mean, low, high) of the values in each bin, by subject; low and high are NaN where a bin has fewer than FEW subjects."""
    names, who = np.unique(subjects, return_inverse=True)
    cells = (which.max() + 1, len(names))
    sums, counts = np.zeros(cells), np.zeros(cells)
    np.add.at(sums, (which, who), values)
    np.add.at(counts, (which, who), 1)
    mean = sums.sum(1) / counts.sum(1)
    intervals = np.full((len(mean), 2), np.nan)
    for i in np.flatnonzero((counts > 0).sum(1) >= FEW):
        inside = counts[i] > 0
        without = (sums[i].sum() - sums[i, inside]) / (counts[i].sum() - counts[i, inside])
        intervals[i] = student(mean[i], without)
    return mean, *intervals.T


def subject_means(subjects, *values):
    """-> (names, counts, then the mean of each of the values over each subject's windows)."""
    names, who, counts = np.unique(subjects, return_inverse=True, return_counts=True)
    return names, counts, *(np.bincount(who, each) / counts for each in values)


def coverage(times, moments, y, levels=LEVELS):
    """(levels,): share of the labels that lie in the central interval which should hold each share of the chances. A label outside the window lies in none."""
    step = moments[1] - moments[0]
    edges = np.append(moments, moments[-1] + step) - step / 2
    below = np.concatenate(
        [np.zeros((len(times), 1)), times.cumsum(1)], 1
    )  # chance of less than each edge
    place = np.array([np.interp(label, edges, chances) for label, chances in zip(y, below)])
    return np.array([(np.abs(place - 0.5) <= level / 2).mean() for level in levels])


def occluded(model, x, features, step=STEP):
    """(B, 1 + C + T / step): the answer to the windows, then with each electrode, then with each stretch of `step` samples replaced by its mean over the window."""
    mean = x.mean(2, keepdim=True)
    columns = [answers(model, x, features)]
    for part in [(slice(None), c) for c in range(x.shape[1])] + [
        (slice(None), slice(None), slice(t, t + step)) for t in range(0, x.shape[2], step)
    ]:
        kept = x[part].clone()
        x[part] = mean.expand_as(x)[part]
        columns.append(answers(model, x, features))
        x[part] = kept
    return torch.cat(columns, 1)


@dataclass
class Importance:
    """The rise of the NRMSE without each electrode (C,) and each stretch of time; top: electrodes, highest rise first, with their intervals, and those of the stretches."""

    windows: int
    channels: np.ndarray
    times: np.ndarray
    top: np.ndarray
    top_low: np.ndarray
    top_high: np.ndarray
    times_low: np.ndarray
    times_high: np.ndarray


def importance(model, cache, rows, patience=PATIENCE, top=TOP, progress=None):
    """-> Importance, from LEAST to MOST of the windows `rows`, drawn at random, as many as can be done in about `patience` s."""
    chosen = np.random.default_rng(0).permutation(rows)[:MOST]
    start, found = time.perf_counter(), []
    while sum(map(len, found)) < len(chosen):
        first = sum(map(len, found))
        found.append(predict(model, cache, chosen[first : first + BLOCK], occluded))
        if first == 0:
            blocks = int(patience / max(time.perf_counter() - start, 1e-9))
            chosen = chosen[: max(LEAST, BLOCK * blocks)]
        if progress:
            progress(sum(map(len, found)), len(chosen))
    found = np.concatenate(found)
    y, subjects = cache.y[chosen], cache.metadata["subject"][chosen]
    whole = found[:, 0]
    rise = np.array([nrmse(y, column) for column in found[:, 1:].T]) - nrmse(y, whole)
    n = len(cache.channels)
    best = np.argsort(-rise[:n])[:top]

    def around(column):
        try:
            return interval_difference(y, found[:, 1 + column], whole, subjects)
        except UserError:  # too few subjects
            return np.nan, np.nan

    low, high = np.array([around(c) for c in best]).T
    times_low, times_high = np.array([around(c) for c in range(n, len(rise))]).T
    return Importance(len(chosen), rise[:n], rise[n:], best, low, high, times_low, times_high)


# ---------------------------------------------------------------------------------------------------- the page

CSS = """
#content img { max-width: min(100%, 620px); height: auto; }
#content .figure-caption { text-align: left !important; max-width: 600px; margin: auto; font-size: .9rem; }
#content .badge, #filter-by-tags-dropdown-menu { display: none; }  /* tags sort recordings in other reports; there is nothing to sort here */
.section > .accordion-collapse > .accordion-body { columns: 26rem 2; column-gap: .8rem; }
.section .accordion-item { break-inside: avoid; margin-bottom: .8rem; border-top: 1px solid rgba(0, 0, 0, .125) !important; }
.eeg-note { padding: .6rem .9rem; margin: 0 0 .8rem; border-left: 4px solid #cf6f2e; background: #fdf3ea; }
.eeg-table { margin-bottom: .6rem; font-size: .95rem; }
.eeg-table td, .eeg-table th { padding: .15rem 1rem .15rem 0; vertical-align: top; overflow-wrap: anywhere; min-width: 4.5rem; }
#content code { color: inherit; background: #f1f3f5; padding: .1rem .3rem; overflow-wrap: anywhere; }
@media (max-width: 767px) {  /* MNE's page keeps its table of contents beside the text on the smallest screen */
  #toc { display: none; }
  #content { width: 100%; margin-left: 0; padding: 0; }
  #top-bar .navbar-brand { white-space: normal; }
  #top-bar .fs-3 { font-size: 1rem !important; overflow-wrap: anywhere; }
  #top-bar img { width: 50px; }
  .accordion-body { padding: .6rem .5rem; }
}
"""
SIMULATED = "<b>Simulated data.</b> No person was recorded: signals, events and labels come from a program. The figures show that the program works, not how well the model does on real EEG."


def write(run, cache_folder, data, releases=None, mini=False, quick=False):
    """Write report.html into the run's folder. -> (its path, what was done in a few words).

    Of a run that has not finished, or predicts what the competition does not score, there are no answers in it. quick: nothing is occluded.
    """
    page = mne.Report(
        title=f"{_legible(run.name)}{' (simulated data)' if run.config.get('simulated') else ''}",
        image_format="png",
        verbose="ERROR",
    )
    page.add_custom_css(CSS)
    if run.finished and run.scored:
        model = load_model(run.weights)
        with cli.Progress("windows answered") as progress:
            seen = look_at(run, model, cache_folder, data, releases, mini, progress)
        done = f"{cli.counted(len(seen.y), 'window')} of {cli.counted(len(np.unique(seen.subjects)), 'subject')} ({seen.where})"
        _summary(page, run, seen)
        _training(page, run)
        _answers(page, run, seen, model)
        if seen.constant:
            done += "; the answers are a constant"
        elif quick:
            done += "; none of them occluded (--quick)"
        else:
            done += f", {_importance(page, seen, model)} of them occluded"
    else:
        done = (
            f"it has not finished ({run.status})"
            if not run.finished
            else f"it predicts {run.config['target']}, which the competition does not score"
        )
        _summary(page, run, None, done)
        _training(page, run)
    _settings(page, run)
    path = run.folder / "report.html"
    with writing(path, "--out DIR"), publishing(path, ending=".html") as unfinished:
        page.save(unfinished, open_browser=False, overwrite=True, verbose="ERROR")
    return path, done


def _legible(text):
    """Text that a page can hold: a path may have bytes that are no character where this runs."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _escaped(text):
    return html.escape(_legible(text))


def _table(rows, titles=()):
    """HTML of rows of text."""
    line = lambda cells, tag: (
        "<tr>" + "".join(f"<{tag}>{_escaped(cell)}</{tag}>" for cell in cells) + "</tr>"
    )
    return f'<table class="eeg-table">{line(titles, "th") if titles else ""}{"".join(line(row, "td") for row in rows)}</table>'


def _note(text):
    return f'<div class="eeg-note">{text}</div>'


def _summary(page, run, seen, why=None):
    text = (
        _note(SIMULATED) if run.config.get("simulated") or (seen and seen.cache.simulated) else ""
    )
    epoch, best = run.best
    what, unit = WHAT.get(run.config["target"], (run.config["target"], ""))
    rows = [
        ("challenge", str(run.challenge)),
        ("predicts", what),
        ("model", run.config.get("model", {}).get("name", "?")),
        ("status", run.status),
    ]
    if epoch:
        rows.append(("best epoch", f"{epoch}, validation {run.metric.upper()} {best:.4f}"))
    if seen is None:
        text += _table(rows) + f"<p>No answers to windows are shown here: {_escaped(why)}.</p>"
        if run.status not in ("running", "waiting", "finished"):
            text += f"<p>Go on with: <code>{_escaped(run.resume)}</code></p>"
        page.add_html(text, "Summary")
        return
    rows.append(
        (
            "scored on",
            f"{cli.counted(len(seen.y), 'window')} of {cli.counted(len(np.unique(seen.subjects)), 'subject')}: {seen.where}",
        )
    )
    page.add_html(text + _table(rows) + _scores(seen, unit), "Summary")
    if seen.factors is not None:
        titles, *cells = factor_rows(*factor_scores(seen.cache, seen.rows, seen.factors))
        page.add_html(_table(cells, titles), "All four factors")


def _scores(seen, unit):
    """HTML: the NRMSE, beside what the mean of the training labels scores, and other measures of the error."""
    y, p, mean = seen.y, seen.p, seen.mean_of_training
    own = nrmse(y, np.full(len(y), mean))
    text = f"<p><b>NRMSE {nrmse(y, p):.4f}</b>{_interval(seen)}. Lower is better: 0 is perfect prediction, the mean of the training labels ({mean:.3f} {unit}) scores {own:.4f} on these windows.</p>"
    if seen.constant:
        text = (
            _note(
                f"<b>The answers are a constant.</b> Every window is answered {p.mean():.3f} {unit}, whatever the EEG: the model predicts nothing."
            )
            + text
        )
    rows = [
        ("RMSE", f"{rmse(y, p):.4f} {unit}"),
        ("MAE", f"{mae(y, p):.4f} {unit}"),
        ("R2", f"{r2(y, p):.4f}"),
    ]
    if not seen.constant:  # of which there is no correlation
        rows.append(("correlation", f"{pearson(y, p):.4f}"))
    return text + _table(rows)


def _interval(seen):
    try:
        low, high = interval(seen.y, seen.p, seen.subjects)
    except UserError as e:
        return f" ({html.escape(str(e))})"
    return f", 95&nbsp;% interval {low:.3f} to {high:.3f} (by subject)"


def _figure(page, fig, title, caption, section):
    page.add_figure(fig, title, caption=caption, image_format="png", section=section)


def _training(page, run):
    section, history, timing = "Training", run.history, run.timing
    if history["epochs"]:
        caption = (
            "Dotted orange lines: something was got over, see Events." if history["events"] else ""
        )
        _figure(
            page,
            figures.learning(
                history["epochs"], run.metric, history["events"], panels=3, size=(6, 7.2)
            ),
            "Learning curves",
            caption,
            section,
        )
    else:
        page.add_html("<p>No epoch has ended yet.</p>", "Learning curves", section=section)
    if timing["epochs"]:
        _figure(
            page,
            figures.course(
                timing["epochs"], timing["events"] + history["events"], panels=2, size=(6, 5)
            ),
            "Speed and memory",
            "",
            section,
        )
    rows = [
        (f"epoch {event['epoch']}, batch {event.get('batch', '?')}", event["kind"], event["text"])
        for event in history["events"]
    ]
    rows += [
        (
            f"epoch {event.get('epoch', '?')}, {time.strftime('%Y-%m-%d %H:%M', time.localtime(event['when']))}",
            event["kind"],
            event["text"],
        )
        for event in timing["events"]
    ]
    page.add_html(
        _table(rows) if rows else "<p>Nothing went wrong, and it was never stopped.</p>",
        "Events",
        section=section,
    )


def _answers(page, run, seen, model):
    what, unit = WHAT[run.config["target"]]
    y, p, section, std = seen.y, seen.p, "Answers", seen.y.std()
    _figure(
        page,
        figures.against(y, p, what, unit, size=(5.6, 5.2)),
        "Predicted against true",
        f"{cli.counted(len(y), 'window')}" + ("; darker: more of them" if len(y) > 2500 else ""),
        section,
    )
    if not seen.constant:
        which = bins_of(p, 10)
        _figure(
            page,
            figures.calibration(
                bin_means(which, p, seen.subjects)[0],
                bin_means(which, y, seen.subjects),
                what,
                unit,
            ),
            "Calibration",
            "Where the model answers so, what is the mean label? Above the dashed line it answers too low, below too high.",
            section,
        )
    if seen.times is not None:
        moments = model.moments.numpy().astype(float)
        _figure(
            page,
            figures.coverage(LEVELS, coverage(seen.times, moments, y), size=(5.2, 4.8)),
            "How sure is the time head?",
            "Below the dashed line it is too sure of itself, above too little.",
            section,
        )
        order = np.argsort(np.abs(p - y), kind="stable")
        chosen = order[np.linspace(0, len(order) - 1, min(EXAMPLES, len(order))).astype(int)]
        _figure(
            page,
            figures.examples(moments, seen.times[chosen], y[chosen], p[chosen]),
            "The time head's distribution",
            "Windows from the best to the worst answered, evenly spaced in rank.",
            section,
        )
    which = bins_of(y, 10)
    counts = np.bincount(which)
    rmse = tuple(
        np.sqrt(np.maximum(each, 0)) for each in bin_means(which, (p - y) ** 2, seen.subjects)
    )
    centres = bin_means(which, y, seen.subjects)[0]
    _figure(
        page,
        figures.by_label(
            centres, bin_means(which, p - y, seen.subjects), rmse, counts, what, unit, std, panels=2
        ),
        f"Error by {what}",
        "Answers drawn to the mean are too high on the left and too low on the right.",
        section,
    )
    names, counts, squares, mean_y, mean_p = subject_means(seen.subjects, (p - y) ** 2, y, p)
    worst = ", ".join(
        f"{names[i].decode()} {np.sqrt(squares[i]):.2f}" for i in np.argsort(-squares)[:3]
    )
    _figure(
        page,
        figures.by_subject(np.sqrt(squares), counts, mean_y, mean_p, what, unit, std, panels=2),
        "Error by subject",
        f"{cli.counted(len(names), 'subject')}; highest RMSE ({unit}): {worst}.",
        section,
    )
    if seen.ages is None:
        page.add_html(
            "<p>The ages are in the releases' participants.tsv, which are not there; name their place with <code>--data DIR</code>.</p>",
            "Error by age",
            section=section,
        )
        return
    ages = subject_means(seen.subjects, seen.ages)[2]
    known = np.isfinite(ages)
    groups = bins_of(ages[known], max(1, min(8, known.sum() // 10)))
    caption = f"{cli.counted(known.sum(), 'subject')}, one dot each" + (
        f"; lines: means of {groups.max() + 1} groups by age." if groups.max() else "."
    )
    _figure(
        page,
        figures.by_age(
            ages[known],
            np.sqrt(squares[known]),
            mean_y[known],
            mean_p[known],
            groups,
            what,
            unit,
            panels=2,
        ),
        "Error by age",
        caption,
        section,
    )


def _importance(page, seen, model):
    """-> how many windows were occluded."""
    with cli.Progress("windows occluded") as progress:
        found = importance(model, seen.cache, seen.rows, progress=progress)
    section, channels = "What matters", seen.cache.channels
    caption = f"Rise of the NRMSE over {cli.counted(found.windows, 'window')}, drawn at random, where one electrode is replaced by its mean over the window; below, the {len(found.top)} highest with {BARS}. What neighbours say too does not show."
    if model.features == "file":
        caption += " The features of each window are left as they are."
    names = {channel: f"{channel} ({place})" for channel, place in PLACES.items()}
    _figure(
        page,
        figures.scalp(found.channels, channels, names, found.top, found.top_low, found.top_high),
        "Electrodes",
        caption,
        section,
    )
    start = OFFSET if seen.cache.challenge == 1 else 0
    edges = (start + np.arange(len(found.times) + 1) * STEP) / seen.cache.sfreq
    xlabel = "time from the stimulus (s)" if seen.cache.challenge == 1 else "time in the window (s)"
    _figure(
        page,
        figures.times(edges, found.times, found.times_low, found.times_high, xlabel),
        "Times",
        f"Rise of the NRMSE over {cli.counted(found.windows, 'window')}, drawn at random, where {1000 * STEP / seen.cache.sfreq:.0f} ms of all electrodes are replaced by their mean over the window; {BARS}.",
        section,
    )
    return found.windows


def _settings(page, run):
    config, section = run.config, "Settings"
    flat = lambda values: [
        (key, value if isinstance(value, str) else json.dumps(value))
        for key, value in values.items()
    ]
    command = (
        f"<p><code>{_escaped(shlex.join(['python', *config['command']]))}</code></p>"
        if config.get("command")
        else ""
    )
    page.add_html(
        command + _table(flat(config.get("train", {}))), "Of the training", section=section
    )
    page.add_html(_table(flat(config.get("model", {}))), "Of the model", section=section)
    sides = [
        (name, " ".join(one["releases"]), f"{one['windows']:,}", f"{len(one['subjects']):,}")
        for name, one in config.get("split", {}).items()
    ]
    if sides:  # of a run that ended before it had opened its caches nothing is known
        page.add_html(
            _table(sides, ("side", "releases", "windows", "subjects")), "Data", section=section
        )
    page.add_html(
        _table(
            flat(
                {"device": config.get("device", "?"), "precision": config.get("precision", "?")}
                | config.get("versions", {})
            )
        ),
        "Device and versions",
        section=section,
    )
