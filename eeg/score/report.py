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
from eeg.score.sides import side

WHAT = {
    "rt_from_stimulus": ("response time", "s"),
    "rt_from_trialstart": ("response time from the trial's start", "s"),
    "externalizing": ("externalizing", "factor score"),
    "factors": ("externalizing", "factor score"),
    "signal": ("hidden parts of windows", "1"),
}
EXAMPLES = 6
BARS = f"95 % intervals by subject, where there are {FEW} subjects or more"
# The nearest places of the 10-20 system
PLACES = {"E36": "C3", "E104": "C4", "E62": "Pz", "E11": "Fz", "E24": "F3", "E124": "F4"}
PLACES |= {"E52": "P3", "E92": "P4", "E70": "O1", "E75": "Oz", "E83": "O2"}
SHOWN = ("E11", "E36", "E62", "E75")  # electrodes whose restored signals are drawn
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
METRICS = {"nrmse": "NRMSE", "auroc": "AUROC", "log_loss": "log-loss"}
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

    def add(section, parts):
        for title, content, *caption in parts:
            if isinstance(content, str):
                page.add_html(content, title, section=section)
            else:
                page.add_figure(content, title, caption="".join(caption), section=section)

    seen = None
    if not run.finished:
        done = f"it has not finished ({run.status})"
    elif run.pretrained:
        done = "pretrained without labels, it answers nothing"
    elif not run.scored:
        done = f"it predicts {run.config['target']}, which the competition does not score"
    else:
        model = load_model(run.weights)
        with cli.Progress("windows answered") as progress:
            seen = numbers.look_at(run, model, caches, data, releases, mini, progress)
        done = f"{_counts(seen)} ({seen.where})"
    add(None, _summary(run, seen) if seen else _summary_without_answers(run, done))
    add("Training", _training(run))
    if run.pretrained and run.finished and run.metric == "nrmse":
        add("Restored", _restored(run, caches))
    if seen:
        add("Answers", _answers(seen, model, *WHAT[run.config["target"]]))
        if seen.constant:
            done += "; the answers are a constant"
        elif quick:
            done += "; none of them occluded (--quick)"
        else:
            with cli.Progress("windows occluded") as progress:
                found = numbers.importance(model, seen.side, progress)
            add("What matters", _importance(seen, model, found))
            done += f", {found.windows} of them occluded"
    add("Settings", _settings(run))
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
    line = lambda cells, tag: "".join(f"<{tag}>{_escaped(cell)}</{tag}>" for cell in cells)
    lines = [line(titles, "th")] if titles else []
    lines += [line(row, "td") for row in rows]
    return f'<table class="eeg-table">{"".join(f"<tr>{each}</tr>" for each in lines)}</table>'


def _note(text):
    return f'<div class="eeg-note">{text}</div>'


def _counts(seen):
    people = cli.counted(len(seen.side.names), "subject")
    return f"{cli.counted(len(seen.y), 'window')} of {people}"


# Each of these makes parts of a section: (title, HTML or a figure, perhaps the figure's caption).


def _about(run, simulated, *more):
    """HTML: what the run is. more: rows of text."""
    rows = [
        ("challenge", str(run.challenge)),
        ("predicts", WHAT.get(run.config["target"], (run.config["target"],))[0]),
        ("model", run.config.get("model", {}).get("name", "?")),
        ("status", run.status),
    ]
    epoch, best = run.best
    if epoch:
        rows.append(("best epoch", f"{epoch}, validation {METRICS[run.metric]} {best:.4f}"))
    return (_note(SIMULATED) if simulated else "") + _table([*rows, *more])


def _summary_without_answers(run, reason):
    text = _about(run, run.config.get("simulated"))
    text += f"<p>No answers to windows are shown here: {_escaped(reason)}.</p>"
    if run.status not in ("running", "waiting", "finished"):
        text += f"<p>Resume with: <code>{_escaped(run.resume)}</code></p>"
    return [("Summary", text)]


def _summary(run, seen):
    """The NRMSE beside that of the training labels' mean, and other measures of the error."""
    y, p, mean, unit = seen.y, seen.p, seen.mean_of_training, WHAT[run.config["target"]][1]
    simulated = run.config.get("simulated") or seen.side.cache.simulated
    text = _about(run, simulated, ("scored on", f"{_counts(seen)}: {seen.where}"))
    rows = [("RMSE", f"{rmse(y, p):.4f} {unit}"), ("MAE", f"{mae(y, p):.4f} {unit}")]
    rows.append(("R2", f"{r2(y, p):.4f}"))
    if seen.constant:
        text += _note(
            f"<b>The answers are a constant.</b> Every window is answered {p.mean():.3f} {unit}, "
            "whatever the EEG: the model predicts nothing."
        )
    else:  # a constant has no correlation
        rows.append(("correlation", f"{pearson(y, p):.4f}"))
    own = score(y, p, seen.side.subjects)
    interval = f" ({html.escape(own.reason)})"
    if own.interval:
        low, high = own.interval
        interval = f", 95&nbsp;% interval {low:.3f} to {high:.3f} (by subject)"
    text += (
        f"<p><b>NRMSE {nrmse(y, p):.4f}</b>{interval}. Lower is better: "
        f"0 is perfect prediction, the mean of the training labels ({mean:.3f} {unit}) "
        f"scores {nrmse(y, np.full(len(y), mean)):.4f} on these windows.</p>"
    )
    yield "Summary", text + _table(rows)
    if seen.factors is not None:
        titles, *cells = factor_rows(*factor_scores(seen.side, seen.factors))
        yield "All four factors", _table(cells, titles)


def _training(run):
    epochs, events, timing = run.history["epochs"], run.history["events"], run.timing
    if epochs:
        caption = "Dotted orange lines mark events, see Events." * bool(events)
        mean = "the mean of " + ("each patch" if run.pretrained else "the training labels")
        mean = "chance" if run.metric == "log_loss" else mean
        yield "Learning curves", plots.learning(epochs, run.metric, events, mean), caption
    else:
        yield "Learning curves", "<p>No epoch has ended yet.</p>"
    if timing["epochs"]:
        yield "Speed and memory", plots.course(timing["epochs"], timing["events"] + events)
    rows = []
    for event in events + timing["events"]:
        place = f"batch {event.get('batch', '?')}"
        if "when" in event:
            place = time.strftime("%Y-%m-%d %H:%M", time.localtime(event["when"]))
        rows.append((f"epoch {event.get('epoch', '?')}, {place}", event["kind"], event["text"]))
    nothing = "<p>Nothing went wrong, and it was never stopped.</p>"
    yield "Events", _table(rows) if rows else nothing


def _restored(run, caches):
    """Some windows of a pretrained encoder: what was hidden, and what was restored of it."""
    both = numbers.restored(run, caches)
    names = side(caches, [run], "valid").cache.channels
    shown = [names.index(name) for name in SHOWN if name in names] or list(range(4))
    for number in range(len(both[0])):
        own = (part[number][:, :, shown].reshape(-1, len(shown)) for part in both)
        fig = plots.restored(*own, [PLACES.get(names[i], names[i]) for i in shown])
        caption = "Orange: restored where it was hidden from the encoder. "
        caption += "Each patch is in its own standard deviations."
        yield f"Validation window {number + 1}", fig, caption


def _settings(run):
    config = run.config

    def table(values):
        text = lambda value: value if isinstance(value, str) else json.dumps(value)
        return _table([(key, text(value)) for key, value in values.items()])

    text = table(config.get("train", {}))
    if config.get("command"):
        command = shlex.join(["python", *config["command"]])
        text = f"<p><code>{_escaped(command)}</code></p>" + text
    yield "Training settings", text
    yield "Model settings", table(config.get("model", {}))
    sides = [
        (name, " ".join(one["releases"]), f"{one['windows']:,}", f"{len(one['subjects']):,}")
        for name, one in config.get("split", {}).items()
    ]
    if sides:  # missing where a run ended before it opened its caches
        yield "Data", _table(sides, ("side", "releases", "windows", "subjects"))
    device = {name: config.get(name, "?") for name in ("device", "precision")}
    yield "Device and versions", table(device | config.get("versions", {}))


def _answers(seen, model, what, unit):
    y, p, subjects = seen.y, seen.p, seen.side.subjects
    caption = cli.counted(len(y), "window") + "; darker: more of them" * (len(y) > plots.MANY)
    yield "Predicted against true", plots.against(y, p, what, unit), caption
    if not seen.constant:
        which = numbers.bins_of(p, 10)
        answered, labels = (numbers.bin_means(which, each, subjects) for each in (p, y))
        caption = "The mean label of the windows that get about the same answer. "
        caption += "Above the dashed line the model answers too low, below too high."
        yield "Calibration", plots.calibration(answered[0], labels, what, unit), caption
    if seen.chances is not None:
        moments = model.moments.numpy().astype(float)
        fig = plots.coverage(numbers.LEVELS, numbers.coverage(seen.chances, moments, y))
        caption = "Below the dashed line it is too sure, above not sure enough."
        yield "How sure is the time head?", fig, caption
        order = np.argsort(np.abs(p - y), kind="stable")
        few = order[np.linspace(0, len(order) - 1, min(EXAMPLES, len(order))).astype(int)]
        fig = plots.examples(moments, seen.chances[few], y[few], p[few])
        caption = "Windows from the smallest to the largest error, evenly spaced in rank."
        yield "The time head's distribution", fig, caption
    which = numbers.bins_of(y, 10)
    means = lambda values: numbers.bin_means(which, values, subjects)
    error = tuple(np.sqrt(np.maximum(each, 0)) for each in means((p - y) ** 2))
    shown = means(y)[0], means(p - y), error, np.bincount(which)
    caption = "Answers drawn to the mean are too high on the left and too low on the right."
    yield f"Error by {what}", plots.by_label(*shown, what, unit, y.std()), caption
    yield from _subjects(seen, what, unit)


def _subjects(seen, what, unit):
    """The error of each subject, sorted, and by age where ages are known."""
    y, p, subjects = seen.y, seen.p, seen.side.subjects
    names, counts, squares, *means = numbers.subject_means(subjects, (p - y) ** 2, y, p)
    rmse = np.sqrt(squares)
    worst = ", ".join(f"{names[i].decode()} {rmse[i]:.2f}" for i in np.argsort(-squares)[:3])
    caption = f"{cli.counted(len(names), 'subject')}; highest RMSE ({unit}): {worst}."
    fig = plots.by_subject(rmse, counts, *means, what, unit, y.std())
    yield "Error by subject", fig, caption
    if seen.ages is None:
        text = "<p>The ages are in the releases' participants.tsv, which were not found; "
        yield "Error by age", text + "name their folder with <code>--data DIR</code>.</p>"
        return
    ages = numbers.subject_means(subjects, seen.ages)[2]
    known = np.isfinite(ages)
    groups = numbers.bins_of(ages[known], max(1, min(8, known.sum() // 10)))
    shown = (each[known] for each in (ages, rmse, *means))
    lines = f"; lines: means of {groups.max() + 1} groups by age" if groups.max() else ""
    caption = f"{cli.counted(known.sum(), 'subject')}, one dot each{lines}."
    yield "Error by age", plots.by_age(*shown, groups, what, unit), caption


def _importance(seen, model, found):
    cache = seen.side.cache
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
    yield "Electrodes", fig, caption
    stimulus = cache.challenge == 1
    samples = np.arange(len(found.times) + 1) * numbers.STEP + (OFFSET if stimulus else 0)
    xlabel = "time from the stimulus (s)" if stimulus else "time in the window (s)"
    fig = plots.times(samples / cache.sfreq, found.times, *found.times_ends, xlabel)
    length = f"{1000 * numbers.STEP / cache.sfreq:.0f} ms"
    caption = f"{rise}, when {length} of all electrodes are replaced by their mean over the window"
    yield "Times", fig, f"{caption}; {BARS}."
