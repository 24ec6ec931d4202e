"""Pictures of what is in a cache."""

from pathlib import Path

import numpy as np

from eeg import cli
from eeg.data.cache import Cache
from eeg.models.features import FEATURES
from eeg.models.montage import CHANNELS, GROUPS, START_S


def summary(cache: Cache) -> str:
    """The releases of a cache, and how many windows there are."""
    people = len(np.unique(cache.metadata["subject"]))
    kind = " (simulated)" if cache.simulated else ""
    many = f"{cli.counted(len(cache), 'window')} of {cli.counted(people, 'subject')}"
    return f"{' '.join(dict.fromkeys(cache.release))}{kind}: {many}"


def _figure(title, rows, columns, size):
    """A figure and its axes."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=size, layout="constrained")
    fig.suptitle(title)
    return fig, fig.subplots(rows, columns)


def _some(cache):
    """The numbers of up to 4,000 windows, spread over the cache."""
    return np.linspace(0, len(cache) - 1, min(len(cache), 4000)).astype(int)


def draw_labels(ax, cache, subjects):
    """Response times (challenge 1), or the factor by subject."""
    y, fast = cache.y, cache.metadata["fast"]
    if cache.challenge == 2:
        values = [y[cache.metadata["subject"] == s][0] for s in subjects]
        ax.hist(values, 20)
        ax.set(xlabel="externalizing", ylabel="subjects")
        ax.set_title(f"labels: mean {np.mean(values):.2f}, std {np.std(values):.2f} over subjects")
        return
    draw_response_times(ax, y[~fast], y[fast], "windows")


def draw_response_times(ax, usual, fast, counted: str) -> None:
    """Response times (s) on the usual and on the fast time line, and what of them is counted."""
    labels, every = ["usual time line", "fast time line"], np.concatenate([usual, fast])
    bins = np.arange(0, 2.55, 0.05)
    ax.hist([usual, fast], bins, stacked=True, color=["C0", "C1"], label=labels)
    ax.axvspan(0, START_S, color="0.9", zorder=0)
    place = {"ha": "center", "va": "top", "transform": ax.get_xaxis_transform()}
    ax.text(START_S / 2, 0.97, "before the\nwindow", fontsize=8, **place)
    ax.set(xlabel="response time from stimulus (s)", ylabel=counted)
    figures = f"mean {every.mean():.2f} s, std {every.std():.2f} s" if len(every) else "none"
    ax.set_title(f"response times: {figures}")
    ax.legend(fontsize=8)


def draw_scalp(ax, values, channels, label: str, **look) -> None:
    """A number of each electrode on the head, seen from above, nose up, with a colour bar."""
    import mne

    info = mne.create_info(list(channels), 100.0, "eeg")
    info.set_montage("GSN-HydroCel-129", on_missing="ignore", verbose="ERROR")
    placed = [i for i, channel in enumerate(info["chs"]) if np.isfinite(channel["loc"][:3]).all()]
    look = {"contours": 0, "sensors": "k.", "axes": ax, "show": False} | look
    image, _ = mne.viz.plot_topomap(values[placed], mne.pick_info(info, placed), **look)
    ax.figure.colorbar(image, ax=ax, shrink=0.75, label=label)


def draw_counts(ax, cache, subjects):
    """How many windows and copies each subject has."""
    own = [cache.metadata["subject"] == s for s in subjects]
    counts = np.array([one.sum() for one in own])
    copies = np.array([(one & cache.metadata["copy"]).sum() for one in own])
    order = np.argsort(-counts)
    ax.bar(range(len(order)), counts[order], 1, label="windows")
    ax.bar(range(len(order)), copies[order], 1, color="C3", label="copies among them")
    ax.set(xlabel="subject, by number of windows", ylabel="windows", title="windows by subject")
    ax.legend(fontsize=8)


def draw_averages(ax, cache):
    """Mean signals (challenge 1) or spectra at Pz, C3 and C4."""
    chosen = _some(cache)
    rows = [CHANNELS.index(name) for name in ("E62", "E36", "E104")]
    X = np.stack([cache[int(i)][rows] for i in chosen]).astype(np.float32)
    X -= X.mean(2, keepdims=True)
    if cache.challenge == 2:
        f = np.fft.rfftfreq(X.shape[2], 1 / cache.sfreq)
        power = (np.abs(np.fft.rfft(X * np.hanning(X.shape[2]), axis=2)) ** 2).mean(0)
        for row, name in enumerate(("Pz (E62)", "C3 (E36)", "C4 (E104)")):
            ax.semilogy(f[2:-1], power[row, 2:-1], label=name)
        ax.set(xlabel="Hz", ylabel="power (arbitrary)", title="mean spectra")
    else:
        t = START_S + (np.arange(X.shape[2]) - cache.margin_samples) / cache.sfreq
        side = cache.metadata["side"][chosen]
        ax.plot(t, X[:, 0].mean(0), "k", lw=2, label="Pz (E62)")
        for hand, style in ((b"left", "-"), (b"right", "--")):
            own = X[side == hand]
            for row, name, colour in ((1, "C3 (E36)", "C0"), (2, "C4 (E104)", "C1")):
                if len(own):
                    label = f"{name}, {hand.decode()} hand"
                    ax.plot(t, own[:, row].mean(0), colour + style, lw=1, label=label)
        ax.axvline(cache.y.mean(), color="0.6", lw=0.8)
        ax.set(xlabel="time from stimulus (s); grey: mean response", ylabel="uV")
        ax.set_title("grand averages")
    ax.legend(fontsize=7)


def plot_features(cache: Cache, file: Path) -> None:
    """Draw what the features of challenge 1 say about response times into an image file."""
    from scipy.stats import rankdata

    names, values, y = list(FEATURES), cache.features, cache.y
    enough = np.isfinite(values).sum(0) > len(y) // 2
    usable = np.flatnonzero(enough & (np.nan_to_num(np.nanstd(values, 0)) > 0))
    known = values[:, usable]
    rank = rankdata(np.where(np.isnan(known), np.nanmedian(known, 0), known), axis=0)
    r = np.corrcoef(np.column_stack([rankdata(y), rank]), rowvar=False)
    order = np.argsort(-np.abs(np.nan_to_num(r[0, 1:])))

    note = "correlations are Spearman's, over windows, subjects not separated"
    fig, axes = _figure(f"features, {summary(cache)}; {note}", 2, 3, (15, 8.5))
    top = order[:12][::-1]
    _strongest(axes[0, 0], [names[usable[i]] for i in top], r[0, 1 + top])
    best = usable[order[0]]
    _best(axes[0, 1], names[best], values[:, best], y, r[0, 1 + order[0]])
    chosen, X = _group_signals(cache)
    _lateralised(axes[0, 2], cache, chosen, X)
    _occipital_spectrum(axes[1, 0], cache, X["occipital"])
    _desynchronisation(axes[1, 1], cache, names)
    ax = axes[1, 2]
    image = ax.imshow(r[1:, 1:], cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    fig.colorbar(image, ax=ax, shrink=0.8)
    ax.set(xlabel="feature, in the order of --list", ylabel="feature")
    ax.set_title("correlations between features")
    fig.savefig(file, dpi=110)


def _strongest(ax, names, r):
    """The features with the highest correlation with response time."""
    ax.barh(range(len(r)), r, color=np.where(r > 0, "C3", "C0"))
    ax.set_yticks(range(len(r)), names, fontsize=8)
    ax.axvline(0, color="k", lw=0.8)
    ax.set(xlabel="correlation with response time", title="the twelve strongest features")


def _best(ax, name, values, y, r):
    """One feature against response time."""
    low, high = np.nanpercentile(values, (1, 99))
    shown = (values >= low) & (values <= high)
    ax.hexbin(values[shown], y[shown], gridsize=35, mincnt=1, cmap="viridis", bins="log")
    unit = FEATURES[name].split(",")[0].split(" ")[0]
    ax.set(xlabel=f"{name} ({unit})", ylabel="response time (s)")
    ax.set_title(f"the strongest: r = {r:+.2f} (middle 98 %)")


def _group_signals(cache):
    """Some windows: (their numbers, {group: (n, channels, T)})."""
    chosen, X = _some(cache), {}
    window = slice(cache.margin_samples, cache.margin_samples + cache.window_samples)
    for group in ("motor_left", "motor_right", "occipital"):
        own = [CHANNELS.index(name) for name in GROUPS[group]]
        X[group] = np.stack([cache[int(i)][own, window] for i in chosen]).astype(np.float32)
    return chosen, X


def _lateralised(ax, cache, chosen, X):
    """C3 less C4 around the response, by hand."""
    lateral = X["motor_left"].mean(1) - X["motor_right"].mean(1)
    lateral -= lateral.mean(1, keepdims=True)
    # aligned at the response, because the potential leads up to it
    t, press = START_S + np.arange(cache.window_samples) / cache.sfreq, cache.y[chosen]
    grid, side = np.arange(-1.0, 0.51, 0.02), cache.metadata["side"][chosen]
    for hand, colour in ((b"left", "C0"), (b"right", "C1")):
        rows = np.flatnonzero(side == hand)
        if not len(rows):
            continue
        own = [np.interp(grid, t - press[i], lateral[i], np.nan, np.nan) for i in rows]
        n = np.maximum(np.isfinite(own).sum(0), 1)
        mean = np.nansum(own, 0) / n
        error = np.sqrt(np.nansum((own - mean) ** 2, 0)) / n
        label = f"{hand.decode()} hand, {cli.counted(len(rows), 'window')}"
        ax.plot(grid, mean, colour, label=label)
        ax.fill_between(grid, mean - error, mean + error, color=colour, alpha=0.25)
    ax.axvline(0, color="0.6", lw=0.8)
    ax.set(xlabel="time from response (s)", ylabel="C3 - C4 groups (uV)")
    ax.set_title("lateralised potential (band: standard error)")
    ax.legend(fontsize=8)


def _occipital_spectrum(ax, cache, X):
    n = cache.window_samples
    f = np.fft.rfftfreq(n, 1 / cache.sfreq)
    tapered = (X - X.mean(2, keepdims=True)) * np.hanning(n + 1)[:-1]
    density = np.abs(np.fft.rfft(tapered)) ** 2 * 2 / (cache.sfreq * 0.375 * n)
    ax.semilogy(f[2:91], np.median(density.mean(1), 0)[2:91], "k", lw=1)
    for hertz in (20, 25):
        ax.axvline(hertz, color="C3", lw=0.6, ls=":")
    ax.set(xlabel="Hz (dotted: the flicker)", ylabel="uV$^2$/Hz")
    ax.set_title("occipital spectrum, median over windows")


def _desynchronisation(ax, cache, names):
    """Mu and beta power over the window, for fast and slow responses."""
    values, y = cache.features, cache.y
    middle = START_S + cache.window_samples / cache.sfreq * (np.arange(4) + 0.5) / 4
    fast = y <= np.median(y)
    for band, colour in (("mu", "C0"), ("beta", "C1")):
        columns = [names.index(f"{band}_{q}") for q in range(1, 5)]
        for half, own, style in (("fast half", fast, "-"), ("slow half", ~fast, "--")):
            if own.any():
                mean = np.nanmean(values[own][:, columns], 0)
                ax.plot(middle, mean, colour + style + "o", ms=3, label=f"{band}, {half}")
    ax.axhline(0, color="k", lw=0.8)
    ax.set(xlabel="time from stimulus (s)", ylabel="log10 of power over the window's")
    ax.set_title("motor desynchronisation")
    ax.legend(fontsize=8)
