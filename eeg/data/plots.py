"""Pictures of what is in a cache, for the eye that would otherwise not look."""

import numpy as np

from eeg import cli
from eeg.models.features import FEATURES
from eeg.models.montage import CHANNELS, GROUPS


def plot_cache(cache, file):
    """Response times, windows a subject, grand averages at Pz, C3 and C4 (challenge 1), bad
    channels on the scalp -> an image file.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    meta, subjects = cache.metadata, np.unique(cache.metadata["subject"])
    fig, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    kind = " (simulated)" if cache.simulated else ""
    fig.suptitle(
        f"challenge {cache.challenge}, {' '.join(dict.fromkeys(cache.release))}{kind}: "
        f"{cli.counted(len(cache), 'window')} of {cli.counted(len(subjects), 'subject')}"
    )

    _labels(axes[0, 0], cache, subjects)
    ax = axes[0, 1]
    counts, copies = (
        np.array([(own & chosen).sum() for own in (meta["subject"] == s for s in subjects)])
        for chosen in (True, meta["copy"])
    )
    counts, copies = counts[np.argsort(-counts)], copies[np.argsort(-counts)]
    ax.bar(range(len(counts)), counts, 1, label="windows")
    ax.bar(range(len(copies)), copies, 1, color="C3", label="of them copies")
    ax.set(xlabel="subject, by number of windows", ylabel="windows", title="windows a subject")
    ax.legend(fontsize=8)

    _averages(cache, axes[1, 0])
    _bad_channels(cache, axes[1, 1])
    fig.savefig(file, dpi=110)
    plt.close(fig)


def _labels(ax, cache, subjects):
    """Response times (challenge 1), or the factor by subject."""
    meta = cache.metadata
    if cache.challenge == 1:
        ax.hist(
            [cache.y[~meta["fast"]], cache.y[meta["fast"]]],
            np.arange(0, 2.55, 0.05),
            stacked=True,
            color=["C0", "C1"],
            label=["usual time line", "fast time line"],
        )
        ax.axvspan(0, 0.5, color="0.9", zorder=0)
        ax.text(
            0.25,
            0.97,
            "before the\nwindow",
            ha="center",
            va="top",
            transform=ax.get_xaxis_transform(),
            fontsize=8,
        )
        ax.set(
            xlabel="response time from stimulus (s)",
            ylabel="windows",
            title=f"response times: mean {cache.y.mean():.2f} s, std {cache.y.std():.2f} s",
        )
        ax.legend(fontsize=8)
    else:
        values = [cache.y[meta["subject"] == s][0] for s in subjects]
        ax.hist(values, 20)
        ax.set(
            xlabel="externalizing",
            ylabel="subjects",
            title=f"labels: mean {np.mean(values):.2f}, std {np.std(values):.2f} over subjects",
        )


def _averages(cache, ax):
    """Means over up to 4,000 windows, spread over the cache, without their own mean."""
    chosen = np.linspace(0, len(cache) - 1, min(len(cache), 4000)).astype(int)
    rows = [CHANNELS.index(name) for name in ("E62", "E36", "E104")]
    X = np.stack([cache[int(i)][rows] for i in chosen]).astype(np.float32)
    X -= X.mean(2, keepdims=True)
    if cache.challenge == 1:
        t = 0.5 + (np.arange(X.shape[2]) - cache.margin_samples) / cache.sfreq
        side = cache.metadata["side"][chosen]
        ax.plot(t, X[:, 0].mean(0), "k", lw=2, label="Pz (E62)")
        for hand, style in ((b"left", "-"), (b"right", "--")):
            for row, name, colour in ((1, "C3 (E36)", "C0"), (2, "C4 (E104)", "C1")):
                if (side == hand).any():
                    ax.plot(
                        t,
                        X[side == hand, row].mean(0),
                        colour + style,
                        lw=1,
                        label=f"{name}, {hand.decode()} hand",
                    )
        ax.axvline(cache.y.mean(), color="0.6", lw=0.8)
        ax.set(
            xlabel="time from stimulus (s); grey: mean response",
            ylabel="uV",
            title="grand averages",
        )
    else:
        f = np.fft.rfftfreq(X.shape[2], 1 / cache.sfreq)
        power = (np.abs(np.fft.rfft(X * np.hanning(X.shape[2]), axis=2)) ** 2).mean(0)
        for row, name in enumerate(("Pz (E62)", "C3 (E36)", "C4 (E104)")):
            ax.semilogy(f[2:-1], power[row, 2:-1], label=name)
        ax.set(xlabel="Hz", ylabel="power (arbitrary)", title="mean spectra")
    ax.legend(fontsize=7)


def bad_channels(cache, windows=4):
    """(recordings, 129) bool: flat, or five times as large as the recording's median channel, in
    `windows` windows of each.
    """
    keys = np.char.add(cache.release.astype(str), cache.metadata["recording"].astype(str))
    bad = []
    for key in dict.fromkeys(keys):
        rows = np.flatnonzero(keys == key)
        rows = rows[np.linspace(0, len(rows) - 1, min(windows, len(rows))).astype(int)]
        spread = np.median([cache[int(i)].astype(np.float32).std(1) for i in rows], 0)
        bad.append((spread < 1e-3) | (spread > 5 * np.median(spread)))
    return np.array(bad)


def _bad_channels(cache, ax):
    import mne

    share = bad_channels(cache)[:, :128].mean(0) * 100  # Cz, the reference, is flat by construction
    info = mne.create_info(list(CHANNELS[:128]), cache.sfreq, "eeg").set_montage(
        "GSN-HydroCel-129", on_missing="ignore"
    )
    image, _ = mne.viz.plot_topomap(
        share,
        info,
        axes=ax,
        show=False,
        cmap="Reds",
        vlim=(0, max(5, share.max())),
        contours=0,
        sensors="k.",
        extrapolate="local",
    )
    ax.figure.colorbar(image, ax=ax, shrink=0.7, label="% of recordings")
    worst = np.argsort(-share)[:3]
    named = ", ".join(f"{CHANNELS[i]} {share[i]:.0f} %" for i in worst if share[i] > 0)
    ax.set_title(
        "bad channels (flat, or 5 x the median)" + (f"\nmost often {named}" if named else ""),
        fontsize=10,
    )


def plot_features(cache, file):
    """Challenge 1: the features that go best with response time, C3 - C4 by hand, spectra by
    response time, how features go together.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import scipy.stats

    names, values, y = list(FEATURES), cache.features, cache.y
    usable = np.flatnonzero(
        (np.isfinite(values).sum(0) > len(y) // 2) & (np.nan_to_num(np.nanstd(values, 0)) > 0)
    )
    rank = scipy.stats.rankdata(
        np.where(
            np.isnan(values[:, usable]), np.nanmedian(values[:, usable], 0), values[:, usable]
        ),
        axis=0,
    )
    r = np.corrcoef(np.column_stack([scipy.stats.rankdata(y), rank]), rowvar=False)
    order = np.argsort(-np.abs(np.nan_to_num(r[0, 1:])))

    fig, axes = plt.subplots(2, 3, figsize=(15, 8.5), layout="constrained")
    kind = " (simulated)" if cache.simulated else ""
    people = len(np.unique(cache.metadata["subject"]))
    fig.suptitle(
        f"features, {' '.join(dict.fromkeys(cache.release))}{kind}: "
        f"{cli.counted(len(cache), 'window')} of {cli.counted(people, 'subject')}; correlations "
        "are Spearman's, over windows, subjects not separated"
    )

    top = order[:12][::-1]
    _strongest(axes[0, 0], [names[usable[i]] for i in top], r[0, 1 + top])
    best = usable[order[0]]
    _best(axes[0, 1], names[best], values[:, best], y, r[0, 1 + order[0]])
    chosen, X = _group_signals(cache)
    _lateralised(axes[0, 2], cache, chosen, X)
    _occipital_spectrum(axes[1, 0], cache, X["occipital"])
    _desynchronisation(axes[1, 1], cache, names)
    image = axes[1, 2].imshow(r[1:, 1:], cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    fig.colorbar(image, ax=axes[1, 2], shrink=0.8)
    axes[1, 2].set(
        xlabel="feature, in the order of --list", ylabel="feature", title="how features go together"
    )
    fig.savefig(file, dpi=110)
    plt.close(fig)


def _strongest(ax, names, r):
    """The features that go best with response time, and how."""
    ax.barh(range(len(r)), r, color=np.where(r > 0, "C3", "C0"))
    ax.set_yticks(range(len(r)), names, fontsize=8)
    ax.axvline(0, color="k", lw=0.8)
    ax.set(
        xlabel="correlation with response time", title="the twelve features that go best with it"
    )


def _best(ax, name, values, y, r):
    """One feature against response time."""
    low, high = np.nanpercentile(values, (1, 99))
    shown = (values >= low) & (values <= high)
    ax.hexbin(values[shown], y[shown], gridsize=35, mincnt=1, cmap="viridis", bins="log")
    unit = FEATURES[name].split(",")[0].split(" ")[0]
    ax.set(
        xlabel=f"{name} ({unit})",
        ylabel="response time (s)",
        title=f"the first of them: r = {r:+.2f} (middle 98 %)",
    )


def _group_signals(cache):
    """Up to 4,000 windows, spread over the cache: (their rows, {group: (n, channels, T)})."""
    chosen = np.linspace(0, len(cache) - 1, min(len(cache), 4000)).astype(int)
    rows = {
        group: [CHANNELS.index(name) for name in GROUPS[group]]
        for group in ("motor_left", "motor_right", "occipital")
    }
    window = slice(cache.margin_samples, cache.margin_samples + cache.window_samples)
    X = {
        group: np.stack([cache[int(i)][own, window] for i in chosen]).astype(np.float32)
        for group, own in rows.items()
    }
    return chosen, X


def _lateralised(ax, cache, chosen, X):
    """C3 less C4 around the response, by hand."""
    y = cache.y
    lateral = X["motor_left"].mean(1) - X["motor_right"].mean(1)
    lateral -= lateral.mean(1, keepdims=True)
    # from the response, for that is what it leads up to: each window is put where its press is at 0
    t, press = 0.5 + np.arange(cache.window_samples) / cache.sfreq, y[chosen]
    grid, side = np.arange(-1.0, 0.51, 0.02), cache.metadata["side"][chosen]
    for hand, colour in ((b"left", "C0"), (b"right", "C1")):
        own = [
            np.interp(grid, t - press[i], lateral[i], np.nan, np.nan)
            for i in np.flatnonzero(side == hand)
        ]
        if own:
            own = np.array(own)
            n = np.maximum(np.isfinite(own).sum(0), 1)
            mean, error = (
                np.nansum(own, 0) / n,
                np.sqrt(np.nansum((own - np.nansum(own, 0) / n) ** 2, 0)) / n,
            )
            ax.plot(
                grid, mean, colour, label=f"{hand.decode()} hand, {cli.counted(len(own), 'window')}"
            )
            ax.fill_between(grid, mean - error, mean + error, color=colour, alpha=0.25)
    ax.axvline(0, color="0.6", lw=0.8)
    ax.set(
        xlabel="time from response (s)",
        ylabel="C3 - C4 groups (uV)",
        title="lateralised potential (band: standard error)",
    )
    ax.legend(fontsize=8)


def _occipital_spectrum(ax, cache, X):
    f = np.fft.rfftfreq(cache.window_samples, 1 / cache.sfreq)
    seen = X - X.mean(2, keepdims=True)
    power = np.median(
        (
            np.abs(np.fft.rfft(seen * np.hanning(cache.window_samples + 1)[:-1])) ** 2
            * 2
            / (cache.sfreq * 0.375 * cache.window_samples)
        ).mean(1),
        0,
        keepdims=False,
    )
    ax.semilogy(f[2:91], power[2:91], "k", lw=1)
    for hertz in (20, 25):
        ax.axvline(hertz, color="C3", lw=0.6, ls=":")
    ax.set(
        xlabel="Hz (dotted: the flicker)",
        ylabel="uV$^2$/Hz",
        title="occipital spectrum, median over windows",
    )


def _desynchronisation(ax, cache, names):
    """Mu and beta power over the window, for fast and slow responses."""
    values, y = cache.features, cache.y
    for band, colour in (("mu", "C0"), ("beta", "C1")):
        columns = [names.index(f"{band}_{q}") for q in range(1, 5)]
        for label, own, style in (
            ("fast half", y <= np.median(y), "-"),
            ("slow half", y > np.median(y), "--"),
        ):
            if own.any():
                middle = 0.5 + cache.window_samples / cache.sfreq * (np.arange(4) + 0.5) / 4
                ax.plot(
                    middle,
                    np.nanmean(values[own][:, columns], 0),
                    colour + style + "o",
                    ms=3,
                    label=f"{band}, {label}",
                )
    ax.axhline(0, color="k", lw=0.8)
    ax.set(
        xlabel="time from stimulus (s)",
        ylabel="log10 of power over the window's",
        title="motor desynchronisation",
    )
    ax.legend(fontsize=8)
