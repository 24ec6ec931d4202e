"""The figures of a report. Each takes numbers from report_numbers.py and returns a Figure.

They are small and have large type: on a phone each is scaled to the width of the screen.
"""

import functools

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from eeg import cli
from eeg.data.plots import draw_scalp
from eeg.models.montage import SFREQ

MANY = 2500  # windows, above which cells are drawn and not dots
BLUE, ORANGE, GREY, DARK = "#3b6ea5", "#cf6f2e", "#9aa0a6", "#30343a"
STYLE = {
    "figure.dpi": 150,
    "font.size": 10.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    **dict.fromkeys(("axes.labelcolor", "text.color", "xtick.color", "ytick.color"), DARK),
    "axes.grid": True,
    "grid.color": "#e9ebee",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.6,
    "axes.prop_cycle": matplotlib.cycler(color=[BLUE, ORANGE, DARK, GREY]),
}


def drawn(rows=1, width=6.0, height=3.6, legend="best", **layout):
    """Turns make(axes, ...) into a function that returns a Figure in the report's style.

    rows: of axes, 0 where make takes the Figure itself. width, height: inches. legend: where it is.
    """

    def decorate(make):
        @functools.wraps(make)
        def figure(*numbers):
            with matplotlib.rc_context(STYLE):
                fig = Figure(figsize=(width, height), layout="constrained")
                axes = fig.subplots(rows, squeeze=False, **layout)[:, 0] if rows else []
                make(axes if rows > 1 else axes[0] if rows else fig, *numbers)
                for ax in axes:
                    if not ax.get_legend() and ax.get_legend_handles_labels()[1]:
                        ax.legend(loc=legend)
            return fig

        return figure

    return decorate


def _intervals(ax, x, value, low, high, fmt="none", **look):
    """95 % intervals around the values, which are not drawn themselves unless fmt says so."""
    ends = [np.maximum(0, value - low), np.maximum(0, high - value)]
    ax.errorbar(x, value, ends, fmt=fmt, elinewidth=1, capsize=2, **look)


def _band(ax, x, mean, low, high, label=None):
    """Means as dots on a line, with their 95 % intervals."""
    _intervals(ax, x, mean, low, high, "o-", label=label, color=BLUE, ms=4, lw=1.2)


def _bars(ax, x, value, low, high, width=0.8):
    """Bars of the increase in NRMSE, with their 95 % intervals."""
    ax.bar(x, value, width, color=BLUE)
    _intervals(ax, x, value, low, high, ecolor=DARK)
    ax.axhline(0, color=DARK, lw=0.8)
    ax.set_ylabel("increase in NRMSE")
    ax.grid(axis="x", visible=False)


def _perfect(ax, ends, label="perfect prediction"):
    """The line on which both axes say the same."""
    ax.plot(ends, ends, color=DARK, lw=0.9, ls="--", label=label)


def _beyond(values, share=0.04):
    """(low, high): limits of an axis on which no mark of these values is cut."""
    low, high = np.min(values), np.max(values)
    room = share * (high - low) or 1.0
    return low - room, high + room


def _epochs(axes, number, events):
    """Prepares axes over the epochs `number`. Upright lines mark events."""
    for ax in axes:
        for event in events:
            ax.axvline(event["epoch"], color=ORANGE, lw=0.8, ls=":")
        ax.set_xlim(min(number) - 0.3, max(number) + 0.3)
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


@drawn(3, height=7.2)
def learning(axes, epochs, metric, events, mean):
    """The curves of history.json: its epochs and events. mean: what the mean predictor answers."""
    top, middle, low = axes
    number = [entry["epoch"] for entry in epochs]
    curve = lambda side, name: [entry.get(side, {}).get(name, np.nan) for entry in epochs]
    _epochs(axes, number, events)
    dots = {"marker": "o" if len(number) < 40 else None, "ms": 3}
    label = "training (during the epoch, augmented)"
    top.plot(number, curve("train", metric), color=GREY, label=label, **dots)
    valid = np.array(curve("valid", metric), float)
    top.plot(number, valid, color=BLUE, label="validation", **dots)
    if np.isfinite(valid).any():
        best = (np.nanargmax if metric == "auroc" else np.nanargmin)(valid)
        label = f"best: epoch {number[best]}, {valid[best]:.4f}"
        top.plot(number[best], valid[best], "o", ms=9, mfc="none", mec=BLUE, label=label)
    chance, label = 0.5, "chance"
    if metric != "auroc":
        chance = epochs[-1].get("valid", {}).get("mean_predictor") or 1.0
        label = mean
    top.axhline(chance, color=DARK, lw=0.8, ls="--", label=label)
    top.set_ylabel(metric.upper())
    middle.plot(number, curve("train", "loss"), color=GREY, **dots)
    middle.set_ylabel("training loss")
    low.plot(number, [entry.get("lr", np.nan) for entry in epochs], color=DARK, **dots)
    scale = "log" if all(entry.get("lr", 0) > 0 for entry in epochs) else "linear"
    low.set(ylabel="learning rate\nat the end", xlabel="epoch", yscale=scale)


@drawn(2, height=5)
def course(axes, epochs, events):
    """Speed and memory of each epoch, from timing.json."""
    top, low = axes
    number = [entry["epoch"] for entry in epochs]
    _epochs(axes, number, events)
    for device in dict.fromkeys(entry.get("device", "") for entry in epochs):
        own = [entry for entry in epochs if entry.get("device", "") == device]
        speed = [entry.get("windows_per_second", np.nan) for entry in own]
        top.plot([entry["epoch"] for entry in own], speed, "o-", ms=3, label=device or "?")
    top.set(ylabel="windows per second", ylim=(0, None))
    top.legend(title="device", loc="lower left")
    memory = [entry.get("memory", np.nan) / 1e9 for entry in epochs]
    low.plot(number, memory, "o-", ms=3, color=DARK)
    highest = max(entry.get("memory", 0) / 1e9 for entry in epochs)
    low.set(xlabel="epoch", ylabel="peak of the process's\nown memory (GB)")
    low.set(ylim=(0, 1.1 * highest or 1))


@drawn(0, height=5)
def restored(fig, signal, guess, names):
    """The signal and the guess at what was hidden of it, NaN elsewhere (samples, electrodes)."""
    rows = fig.subplots(len(names), sharex=True)
    seconds = np.arange(len(signal)) / SFREQ
    for ax, name, truth, said in zip(rows, names, signal.T, guess.T):
        ax.plot(seconds, truth, color=DARK, lw=0.9, label="signal")
        ax.plot(seconds, said, color=ORANGE, label="restored")
        ax.set(ylabel=name, xlim=(0, seconds[-1]))
    rows[0].legend(loc="upper right", ncols=2)
    rows[-1].set_xlabel("time in the window (s)")


@drawn(1, 5.6, 5.2, "upper left")
def against(ax, y, p, what, unit):
    """Predicted against true, each window."""
    low, high = _beyond(np.concatenate([y, p]))
    if len(y) > MANY:
        cells = {"gridsize": 45, "extent": (low, high, low, high), "mincnt": 1, "bins": "log"}
        ax.hexbin(y, p, cmap="Blues", linewidths=0, **cells)
    else:
        ax.plot(y, p, ".", color=BLUE, ms=5, alpha=0.45, mew=0)
    _perfect(ax, [low, high])
    ax.axhline(y.mean(), color=ORANGE, lw=0.9, label="the mean of these labels")
    ax.set(xlabel=f"true {what} ({unit})", ylabel=f"predicted {what} ({unit})")
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")


@drawn(2, height=7.2)
def by_label(axes, x, bias, rmse, counts, what, unit, std):
    """Error in bins of the label; bias and rmse are (mean, low, high) of each bin."""
    top, low = axes
    _band(top, x, *bias)
    top.axhline(0, color=DARK, lw=0.8)
    top.set_ylabel(f"predicted minus true,\nmean ({unit})")
    _band(low, x, *rmse)
    low.axhline(std, color=ORANGE, lw=0.9, label="std of all labels: the mean predictor's RMSE")
    bins = f"{cli.counted(len(x), 'bin')} of {min(counts):,} to {max(counts):,} windows"
    low.set(ylabel=f"RMSE ({unit})", xlabel=f"true {what} ({unit}), {bins}", ylim=(0, None))


@drawn(2, height=7.2, legend="upper left")
def by_subject(axes, rmse, counts, mean_y, mean_p, what, unit, std):
    """RMSE of each subject, sorted; mean answer of each against its mean label."""
    top, low = axes
    top.bar(np.arange(1, len(rmse) + 1), np.sort(rmse), 0.8 if len(rmse) < 80 else 1, color=BLUE)
    top.axhline(std, color=ORANGE, lw=0.9, label="std of all labels")
    ends = {"xlim": (0, len(rmse) + 1), "ylim": (0, 1.2 * max(std, rmse.max()))}
    top.set(xlabel="subject, from best to worst", ylabel=f"RMSE ({unit})", **ends)
    top.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    top.grid(axis="x", visible=False)
    _perfect(low, _beyond(np.concatenate([mean_y, mean_p])))
    low.scatter(mean_y, mean_p, 6 + 60 * counts / counts.max(), color=BLUE, alpha=0.6, linewidths=0)
    xlabel = f"a subject's mean {what} ({unit}); size: windows"
    low.set(xlabel=xlabel, ylabel=f"mean answer ({unit})")


@drawn(2, height=7.2)
def by_age(axes, ages, rmse, mean_y, mean_p, groups, what, unit):
    """Each subject's RMSE, mean label and mean answer over age, with means of several groups."""
    top, low = axes
    means = lambda values: [values[groups == group].mean() for group in range(groups.max() + 1)]

    def draw(ax, values, colour, name=None):
        label = None if groups.max() else name
        ax.plot(ages, values, "o", color=colour, ms=4.5, alpha=0.6, mew=0, label=label)
        if groups.max():
            ax.plot(means(ages), means(values), color=colour, label=name)

    draw(top, rmse, BLUE)
    draw(low, mean_y, GREY, "true")
    draw(low, mean_p, BLUE, "predicted")
    top.set(ylabel=f"RMSE of a subject ({unit})", ylim=(0, 1.1 * rmse.max()))
    low.set(xlabel="age (years)", ylabel=f"a subject's mean\n{what} ({unit})")


@drawn()
def calibration(ax, p, y, what, unit):
    """Mean label where the model answers about p (bins,). y: (mean, low, high), NaN without one."""
    _perfect(ax, [np.nanmin([p, *y]), np.nanmax([p, *y])], "perfect calibration")
    label = cli.counted(len(p), "bin")
    if np.isfinite(y[1]).any():
        label += ", 95 % interval by subject"
    _band(ax, p, *y, label=label)
    ax.set(xlabel=f"predicted {what} ({unit})", ylabel=f"mean true {what} ({unit})")


@drawn(1, 5.2, 4.8, "upper left")
def coverage(ax, levels, shares):
    """How often the label lies in the central interval that should contain it with each level."""
    _perfect(ax, [0, 100], "perfect calibration")
    ax.plot(100 * levels, 100 * shares, "o-", color=BLUE, ms=4, label="time head")
    ax.set(xlim=(-3, 103), ylim=(-3, 103), aspect="equal")
    ax.set_xlabel("central interval of the time head's distribution (%)")
    ax.set_ylabel("windows whose response lies in it (%)")


@drawn(0)
def examples(fig, moments, chances, y, p):
    """The time head's distribution of a few windows, (n, S), with the response and the answer."""
    fig.set_size_inches(6, 1.25 * len(y) + 0.6)
    axes = fig.subplots(len(y), 1, sharex=True, squeeze=False)[:, 0]
    low, high = _beyond(np.concatenate([y, moments]))
    for ax, density, true, answer in zip(axes, chances / (moments[1] - moments[0]), y, p):
        ax.fill_between(moments, density, color=BLUE, alpha=0.35, lw=0)
        ax.axvline(true, color=ORANGE, label="response")
        ax.axvline(answer, color=DARK, lw=1.2, ls="--", label="answer")
        ax.set(ylim=(0, 1.08 * density.max()), xlim=(low, high))
        ax.grid(axis="y", visible=False)
        ax.set_title(f"error {abs(answer - true):.2f} s", loc="right", fontsize=9)
    axes[len(axes) // 2].set_ylabel("probability per second")
    axes[-1].set_xlabel("time from the stimulus (s)")
    axes[0].legend(loc="upper left", ncols=2)


@drawn(2, height=7.2, height_ratios=(1.4, 1))
def scalp(axes, increase, channels, names, top, low, high):
    """The increase of each electrode, seen from above, nose up; the `top` ones with intervals."""
    head, bars = axes
    limit = max(np.abs(increase).max(), 1e-9)
    look = {"vlim": (-limit, limit), "cmap": "RdBu_r", "extrapolate": "head"}
    draw_scalp(head, increase, channels, "increase in NRMSE", **look)
    _bars(bars, np.arange(len(top)), increase[top], low, high)
    labels = [names.get(channels[i], channels[i]) for i in top]
    bars.set_xticks(np.arange(len(top)), labels, rotation=45, ha="right")


@drawn()
def times(ax, edges, increase, low, high, xlabel):
    """Increase for each stretch of time between edges (s)."""
    _bars(ax, (edges[:-1] + edges[1:]) / 2, increase, low, high, 0.9 * np.diff(edges))
    ax.set(xlabel=xlabel, xlim=(edges[0], edges[-1]))
