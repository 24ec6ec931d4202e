"""A run's report.html: how it learned, how well it answers and for whom, what it looks at, events.

One self-contained file, made with MNE's Report. Its numbers come from report_numbers.py, its
figures from plots.py. Intervals are 95 %, by subject, because the windows of a subject resemble
each other. With fewer than 10 subjects none is shown.
"""

import html
import json
import shlex
import time
from pathlib import Path

import mne
import numpy as np

from eeg import cli
from eeg.data.windows import OFFSET
from eeg.files import publishing, writing
from eeg.score import plots
from eeg.score import report_numbers as numbers
from eeg.score.metrics import FEW, mae, nrmse, pearson, r2, rmse
from eeg.score.predict import load_model
from eeg.score.scores import factor_rows, factor_scores, score

WHAT = {
    "rt_from_stimulus": ("response time", "s"),
    "rt_from_trialstart": ("response time from the trial's start", "s"),
    "externalizing": ("externalizing", "factor score"),
    "factors": ("externalizing", "factor score"),
}
EXAMPLES = 6
BARS = f"95 % intervals by subject, where there are {FEW} subjects or more"
# The nearest places of the 10-20 system
PLACES = {"E36": "C3", "E104": "C4", "E62": "Pz", "E11": "Fz", "E24": "F3", "E124": "F4"}
PLACES |= {"E52": "P3", "E92": "P4", "E70": "O1", "E75": "Oz", "E83": "O2"}
CSS = """
#content img { max-width: min(100%, 620px); height: auto; }
#content .figure-caption {
  text-align: left !important; max-width: 600px; margin: auto; font-size: .9rem;
}
/* tags sort recordings in other reports; there is nothing to sort here */
#content .badge, #filter-by-tags-dropdown-menu { display: none; }
.section > .accordion-collapse > .accordion-body { columns: 26rem 2; column-gap: .8rem; }
.section .accordion-item {
  break-inside: avoid; margin-bottom: .8rem; border-top: 1px solid rgba(0, 0, 0, .125) !important;
}
.eeg-note {
  padding: .6rem .9rem; margin: 0 0 .8rem; border-left: 4px solid #cf6f2e; background: #fdf3ea;
}
.eeg-table { margin-bottom: .6rem; font-size: .95rem; }
.eeg-table td, .eeg-table th {
  padding: .15rem 1rem .15rem 0; vertical-align: top; overflow-wrap: anywhere; min-width: 4.5rem;
}
#content code {
  color: inherit; background: #f1f3f5; padding: .1rem .3rem; overflow-wrap: anywhere;
}
/* MNE's page keeps its table of contents beside the text on the smallest screen */
@media (max-width: 767px) {
  #toc { display: none; }
  #content { width: 100%; margin-left: 0; padding: 0; }
  #top-bar .navbar-brand { white-space: normal; }
  #top-bar .fs-3 { font-size: 1rem !important; overflow-wrap: anywhere; }
  #top-bar img { width: 50px; }
  .accordion-body { padding: .6rem .5rem; }
}
"""
SIMULATED = """<b>Simulated data.</b> No person was recorded: signals, events and labels come from
a program. The figures show that the program works, not how well the model does on real EEG."""


def write(
    run, caches: Path, data: Path, releases=None, mini: bool = False, quick: bool = False
) -> tuple[Path, str]:
    """Write report.html into the run's folder. -> (its path, what was done in a few words).

    It shows no answers of a run that has not finished or predicts what the competition does not
    score. quick: occlude nothing.
    """
    title = _legible(run.name) + " (simulated data)" * bool(run.config.get("simulated"))
    page = mne.Report(title=title, image_format="png", verbose="ERROR")
    page.add_custom_css(CSS)
    if not run.finished:
        done = f"it has not finished ({run.status})"
    elif not run.scored:
        done = f"it predicts {run.config['target']}, which the competition does not score"
    if run.finished and run.scored:
        done = _with_answers(page, run, caches, data, releases, mini, quick)
    else:
        _summary_without_answers(page, run, done)
        _training(page, run)
    _settings(page, run)
    path = run.folder / "report.html"
    with writing(path, "--out DIR"), publishing(path, ending=".html") as unfinished:
        page.save(unfinished, open_browser=False, overwrite=True, verbose="ERROR")
    return path, done


def _with_answers(page, run, caches, data, releases, mini, quick):
    """All sections of a finished run. -> what was done in a few words."""
    model = load_model(run.weights)
    with cli.Progress("windows answered") as progress:
        seen = numbers.look_at(run, model, caches, data, releases, mini, progress)
    _summary(page, run, seen)
    _training(page, run)
    _answers(page, run, seen, model)
    done = f"{_counts(seen)} ({seen.where})"
    if seen.constant:
        return f"{done}; the answers are a constant"
    if quick:
        return f"{done}; none of them occluded (--quick)"
    return f"{done}, {_importance(page, seen, model)} of them occluded"


# ------------------------------------------------------------------------------- pieces of a page


def _legible(text):
    """Text that a page can hold: a path may have bytes that are no character where this runs."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _escaped(text):
    return html.escape(_legible(text))


def _table(rows, titles=()):
    """HTML of rows of text."""
    line = lambda cells, tag: "".join(f"<{tag}>{_escaped(cell)}</{tag}>" for cell in cells)
    lines = [line(titles, "th")] if titles else []
    lines += [line(row, "td") for row in rows]
    return f'<table class="eeg-table">{"".join(f"<tr>{each}</tr>" for each in lines)}</table>'


def _note(text):
    return f'<div class="eeg-note">{text}</div>'


def _counts(seen):
    people = cli.counted(len(seen.side.names), "subject")
    return f"{cli.counted(len(seen.y), 'window')} of {people}"


# ---------------------------------------------------------------------------------------- summary


def _about(run):
    """Rows of text: what the run is."""
    rows = [
        ("challenge", str(run.challenge)),
        ("predicts", WHAT.get(run.config["target"], (run.config["target"],))[0]),
        ("model", run.config.get("model", {}).get("name", "?")),
        ("status", run.status),
    ]
    epoch, best = run.best
    if epoch:
        rows.append(("best epoch", f"{epoch}, validation {run.metric.upper()} {best:.4f}"))
    return rows


def _summary_without_answers(page, run, reason):
    text = (_note(SIMULATED) if run.config.get("simulated") else "") + _table(_about(run))
    text += f"<p>No answers to windows are shown here: {_escaped(reason)}.</p>"
    if run.status not in ("running", "waiting", "finished"):
        text += f"<p>Resume with: <code>{_escaped(run.resume)}</code></p>"
    page.add_html(text, "Summary")


def _summary(page, run, seen):
    simulated = run.config.get("simulated") or seen.side.cache.simulated
    rows = [*_about(run), ("scored on", f"{_counts(seen)}: {seen.where}")]
    text = (_note(SIMULATED) if simulated else "") + _table(rows)
    page.add_html(text + _scores(seen, WHAT[run.config["target"]][1]), "Summary")
    if seen.factors is not None:
        titles, *cells = factor_rows(*factor_scores(seen.side, seen.factors))
        page.add_html(_table(cells, titles), "All four factors")


def _scores(seen, unit):
    """HTML: the NRMSE beside that of the training labels' mean, and other measures of the error."""
    y, p, mean = seen.y, seen.p, seen.mean_of_training
    rows = [("RMSE", f"{rmse(y, p):.4f} {unit}"), ("MAE", f"{mae(y, p):.4f} {unit}")]
    rows.append(("R2", f"{r2(y, p):.4f}"))
    text = ""
    if seen.constant:
        text = _note(
            f"<b>The answers are a constant.</b> Every window is answered {p.mean():.3f} {unit}, "
            "whatever the EEG: the model predicts nothing."
        )
    else:  # a constant has no correlation
        rows.append(("correlation", f"{pearson(y, p):.4f}"))
    text += (
        f"<p><b>NRMSE {nrmse(y, p):.4f}</b>{_interval(seen)}. Lower is better: "
        f"0 is perfect prediction, the mean of the training labels ({mean:.3f} {unit}) "
        f"scores {nrmse(y, np.full(len(y), mean)):.4f} on these windows.</p>"
    )
    return text + _table(rows)


def _interval(seen):
    own = score(seen.y, seen.p, seen.side.subjects)
    if own.interval is None:
        return f" ({html.escape(own.reason)})"
    low, high = own.interval
    return f", 95&nbsp;% interval {low:.3f} to {high:.3f} (by subject)"


# --------------------------------------------------------------------------------------- training


def _training(page, run):
    section, history, timing = "Training", run.history, run.timing
    if history["epochs"]:
        fig = plots.learning(history["epochs"], run.metric, history["events"])
        caption = "Dotted orange lines mark events, see Events." if history["events"] else ""
        page.add_figure(fig, "Learning curves", caption=caption, section=section)
    else:
        page.add_html("<p>No epoch has ended yet.</p>", "Learning curves", section=section)
    if timing["epochs"]:
        fig = plots.course(timing["epochs"], timing["events"] + history["events"])
        page.add_figure(fig, "Speed and memory", section=section)
    rows = []
    for event in history["events"] + timing["events"]:
        place = f"batch {event.get('batch', '?')}"
        if "when" in event:
            place = time.strftime("%Y-%m-%d %H:%M", time.localtime(event["when"]))
        rows.append((f"epoch {event.get('epoch', '?')}, {place}", event["kind"], event["text"]))
    events = _table(rows) if rows else "<p>Nothing went wrong, and it was never stopped.</p>"
    page.add_html(events, "Events", section=section)


def _settings(page, run):
    config, section = run.config, "Settings"

    def table(values):
        text = lambda value: value if isinstance(value, str) else json.dumps(value)
        return _table([(key, text(value)) for key, value in values.items()])

    text = table(config.get("train", {}))
    if config.get("command"):
        command = shlex.join(["python", *config["command"]])
        text = f"<p><code>{_escaped(command)}</code></p>" + text
    page.add_html(text, "Training settings", section=section)
    page.add_html(table(config.get("model", {})), "Model settings", section=section)
    sides = [
        (name, " ".join(one["releases"]), f"{one['windows']:,}", f"{len(one['subjects']):,}")
        for name, one in config.get("split", {}).items()
    ]
    if sides:  # missing where a run ended before it opened its caches
        titles = ("side", "releases", "windows", "subjects")
        page.add_html(_table(sides, titles), "Data", section=section)
    device = {name: config.get(name, "?") for name in ("device", "precision")}
    versions = table(device | config.get("versions", {}))
    page.add_html(versions, "Device and versions", section=section)


# ---------------------------------------------------------------------------------------- answers


def _answers(page, run, seen, model):
    words = WHAT[run.config["target"]]  # what is predicted, and its unit
    caption = cli.counted(len(seen.y), "window")
    caption += "; darker: more of them" * (len(seen.y) > plots.MANY)
    fig = plots.against(seen.y, seen.p, *words)
    page.add_figure(fig, "Predicted against true", caption=caption, section="Answers")
    if not seen.constant:
        _calibration(page, seen, *words)
    if seen.chances is not None:
        _time_head(page, seen, model.moments.numpy().astype(float))
    _error_by_label(page, seen, *words)
    _error_by_subject(page, seen, *words)


def _calibration(page, seen, what, unit):
    which, subjects = numbers.bins_of(seen.p, 10), seen.side.subjects
    answered = numbers.bin_means(which, seen.p, subjects)[0]
    labels = numbers.bin_means(which, seen.y, subjects)
    caption = (
        "The mean label of the windows that get about the same answer. Above the dashed line "
        "the model answers too low, below too high."
    )
    fig = plots.calibration(answered, labels, what, unit)
    page.add_figure(fig, "Calibration", caption=caption, section="Answers")


def _time_head(page, seen, moments):
    """How sure the time head is, and its distributions of a few windows."""
    y, p, section = seen.y, seen.p, "Answers"
    fig = plots.coverage(numbers.LEVELS, numbers.coverage(seen.chances, moments, y))
    caption = "Below the dashed line it is too sure, above not sure enough."
    page.add_figure(fig, "How sure is the time head?", caption=caption, section=section)
    order = np.argsort(np.abs(p - y), kind="stable")
    few = order[np.linspace(0, len(order) - 1, min(EXAMPLES, len(order))).astype(int)]
    fig = plots.examples(moments, seen.chances[few], y[few], p[few])
    caption = "Windows from the smallest to the largest error, evenly spaced in rank."
    page.add_figure(fig, "The time head's distribution", caption=caption, section=section)


def _error_by_label(page, seen, what, unit):
    error, which, subjects = seen.p - seen.y, numbers.bins_of(seen.y, 10), seen.side.subjects
    centres = numbers.bin_means(which, seen.y, subjects)[0]
    bias = numbers.bin_means(which, error, subjects)
    squares = numbers.bin_means(which, error**2, subjects)
    rmse = tuple(np.sqrt(np.maximum(each, 0)) for each in squares)
    fig = plots.by_label(centres, bias, rmse, np.bincount(which), what, unit, seen.y.std())
    caption = "Answers drawn to the mean are too high on the left and too low on the right."
    page.add_figure(fig, f"Error by {what}", caption=caption, section="Answers")


def _error_by_subject(page, seen, what, unit):
    """The error of each subject, sorted, and by age where ages are known."""
    squares, section = (seen.p - seen.y) ** 2, "Answers"
    means = numbers.subject_means(seen.side.subjects, squares, seen.y, seen.p)
    names, counts, squares, mean_y, mean_p = means
    rmse = np.sqrt(squares)
    worst = ", ".join(f"{names[i].decode()} {rmse[i]:.2f}" for i in np.argsort(-squares)[:3])
    caption = f"{cli.counted(len(names), 'subject')}; highest RMSE ({unit}): {worst}."
    fig = plots.by_subject(rmse, counts, mean_y, mean_p, what, unit, seen.y.std())
    page.add_figure(fig, "Error by subject", caption=caption, section=section)
    if seen.ages is None:
        text = "<p>The ages are in the releases' participants.tsv, which were not found; "
        text += "name their folder with <code>--data DIR</code>.</p>"
        page.add_html(text, "Error by age", section=section)
        return
    ages = numbers.subject_means(seen.side.subjects, seen.ages)[2]
    known = np.isfinite(ages)
    groups = numbers.bins_of(ages[known], max(1, min(8, known.sum() // 10)))
    fig = plots.by_age(ages[known], rmse[known], mean_y[known], mean_p[known], groups, what, unit)
    lines = f"; lines: means of {groups.max() + 1} groups by age" if groups.max() else ""
    caption = f"{cli.counted(known.sum(), 'subject')}, one dot each{lines}."
    page.add_figure(fig, "Error by age", caption=caption, section=section)


def _importance(page, seen, model):
    """Add what matters to the answers. -> how many windows were occluded."""
    with cli.Progress("windows occluded") as progress:
        found = numbers.importance(model, seen.side, progress)
    cache, section = seen.side.cache, "What matters"
    rise = f"Rise of the NRMSE over {cli.counted(found.windows, 'window')}, drawn at random"
    caption = (
        f"{rise}, when one electrode is replaced by its mean over the window; "
        f"below, the {len(found.top)} highest with {BARS}. A signal that neighbouring electrodes "
        "share does not show."
    )
    if model.features == "file":
        caption += " The features of each window are not changed."
    names = {channel: f"{channel} ({place})" for channel, place in PLACES.items()}
    fig = plots.scalp(found.channels, cache.channels, names, found.top, *found.top_ends)
    page.add_figure(fig, "Electrodes", caption=caption, section=section)

    stimulus = cache.challenge == 1
    samples = np.arange(len(found.times) + 1) * numbers.STEP + (OFFSET if stimulus else 0)
    xlabel = "time from the stimulus (s)" if stimulus else "time in the window (s)"
    fig = plots.times(samples / cache.sfreq, found.times, *found.times_ends, xlabel)
    caption = (
        f"{rise}, when {1000 * numbers.STEP / cache.sfreq:.0f} ms of all electrodes are replaced "
        f"by their mean over the window; {BARS}."
    )
    page.add_figure(fig, "Times", caption=caption, section=section)
    return found.windows
