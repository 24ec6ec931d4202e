"""The figure of row `quality`: scores of each recipe and world, and curves of each default run."""

import itertools
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eeg.bench.quality_table import TITLES, Found, Standing
from eeg.bench.recipes import RECIPES
from eeg.files import publishing
from eeg.score.plots import BLUE, DARK, GREY, ORANGE, STYLE

WIDTH, LINE, CURVES = 13.0, 0.085, 1.9  # inches: of the figure; high, a recipe and a row of curves
GAP = 2.5  # recipes that would fit between two rows
SIZES = (BLUE, ORANGE, DARK)  # colours of the smallest number of subjects, the next, the others
FIRST = {"start-kit": (DARK, "s"), "ridge": (ORANGE, "D"), "default": (BLUE, "o")}
OTHERS = itertools.cycle(zip(matplotlib.colormaps["Set2"].colors, "^v<>Pph"))
LOOKS = FIRST | dict(zip((name for name in RECIPES if name not in FIRST), OTHERS))
Rows = dict[int, list[Standing]]  # by challenge


def save(path: Path, rows: Rows, measured: Found) -> None:
    """Draws into a PNG. rows: of the challenges that have any."""
    defaults = {cell: about for cell, about in measured.items() if cell.recipe == "default"}
    scores = 1.8 + LINE * max(sum(heights(own)) for own in rows.values())
    curves = CURVES * len({cell.challenge for cell in defaults})
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, scores + curves), layout="constrained")
        fig.suptitle("Simulated data: what each recipe reaches. No score on real EEG.")
        shares = [scores, curves] if defaults else [scores]
        parts = fig.subfigures(len(shares), 1, squeeze=False, height_ratios=shares)[:, 0]
        panels = parts[0].subplots(1, len(rows), squeeze=False)[0]
        for ax, (challenge, own) in zip(panels, rows.items()):
            draw_scores(ax, own)
            ax.set_title(TITLES[challenge])
        _legend(parts[0], rows)
        if defaults:
            draw_curves(parts[1], defaults)
        with publishing(path, ending=path.suffix) as new:
            fig.savefig(new)


def heights(rows: list[Standing]) -> list[float]:
    """Of each row, in recipes."""
    return [len(row.recipes) + GAP for row in rows]


def draw_scores(ax, rows: list[Standing]) -> None:
    """A row a world and size; a dot a recipe, with its interval."""
    ends = list(itertools.accumulate(heights(rows)))
    middles = [end - height / 2 for end, height in zip(ends, heights(rows))]
    for row, end, height, middle in zip(rows, ends, heights(rows), middles):
        edges = [end - height + 0.4, end - 0.4]
        ax.plot([row.mean.nrmse] * 2, edges, color=GREY, lw=1.2)
        if row.label_only:
            ax.plot([row.label_only.nrmse] * 2, edges, color=GREY, lw=1.2, ls=":")
        if row.oracle is not None:
            ax.plot([row.oracle] * 2, edges, color=DARK, lw=2.2)
        shown = [name for name in RECIPES if name in row.recipes]
        for k, name in enumerate(shown):
            score, (colour, marker) = row.recipes[name], LOOKS[name]
            at = middle + k - (len(shown) - 1) / 2
            ax.errorbar(score.nrmse, at, xerr=score.half, color=colour, fmt=marker, ms=5, lw=1.2)
    ax.set_yticks(middles, [row.name for row in rows])
    ax.set_ylim(ends[-1], 0)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("NRMSE, 95 % interval over simulated test subjects")


def _legend(part, rows):
    known = {name for own in rows.values() for row in own for name in row.recipes}
    handles = [
        Line2D([], [], color=LOOKS[name][0], marker=LOOKS[name][1], ms=5, lw=1.2, label=name)
        for name in RECIPES
        if name in known
    ]
    lines = (("the mean", GREY, "-"), ("labels alone", GREY, ":"), ("oracle", DARK, "-"))
    handles += [Line2D([], [], color=colour, ls=ls, label=name) for name, colour, ls in lines]
    part.legend(handles=handles, loc="outside lower center", ncols=-(-len(handles) // 2))


def draw_curves(part, defaults: Found) -> None:
    """A panel a challenge and world: training and validation of each run, its best epoch a dot."""
    worlds = list(dict.fromkeys(cell.world for cell in defaults))
    challenges = sorted({cell.challenge for cell in defaults})
    sizes = sorted({cell.size for cell in defaults})
    panels = part.subplots(len(challenges), len(worlds), squeeze=False, sharey="row")
    for cell, about in defaults.items():
        ax = panels[challenges.index(cell.challenge), worlds.index(cell.world)]
        colour = SIZES[min(sizes.index(cell.size), len(SIZES) - 1)]
        for side, ls in (("train", "--"), ("valid", "-")):
            curve = about["curves"][side]
            ax.plot(range(1, len(curve) + 1), curve, ls, color=colour, lw=1)
        best = about["best_epoch"]
        ax.plot(best, about["curves"]["valid"][best - 1], "o", color=colour, ms=4)
    for challenge, line in zip(challenges, panels):
        line[0].set_ylabel(f"challenge {challenge}")
        for ax, world in zip(line, worlds):
            ax.set_title(world, fontsize=9)
            ax.tick_params(labelsize=8)
    words = "The default's NRMSE by epoch: training dashed, validation solid, the kept epoch a dot"
    many = [f"{size} subjects" for size in sizes]
    part.suptitle(words, fontsize=10)
    handles = [Line2D([], [], color=colour, label=name) for colour, name in zip(SIZES, many)]
    part.legend(handles=handles, loc="outside lower center", ncols=len(handles))
