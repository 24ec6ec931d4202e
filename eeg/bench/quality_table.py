"""The table of row `quality`: each recipe beside the mean, labels alone and the oracle."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from eeg.bench.measure import verdict
from eeg.bench.recipes import KNOWN_WORLDS, RECIPES, SILENT, Cell, Plan
from eeg.files import write_whole, writing
from eeg.score.baselines import TRAINING_MEAN

TITLES = {1: "challenge 1, response time", 2: "challenge 2, externalizing"}
BELOW_KIT = 0.04  # challenge 1: by how much the default is to beat the start kit's recipe
ABOVE_BEST = 0.1  # challenge 2: how far the default may lie above the better of ridge and network
ALLOWED = 0.005  # what counts as no worse, than the mean and than the start kit's recipe
EARLY = 0.2  # share of the epochs in which the best one must not lie
Row = tuple[str, int]  # world, number of training subjects
Found = dict[Cell, dict]


@dataclass(frozen=True)
class Score:
    """An NRMSE and half of its 95 % interval over subjects, averaged over seeds."""

    nrmse: float
    half: float | None = None
    seeds: int = 1

    def __str__(self):
        return f"{self.nrmse:.3f}" + ("" if self.half is None else f" ± {self.half:.3f}")


@dataclass(frozen=True)
class Standing:
    """A row of the table: what each recipe reaches, and what to compare it with."""

    world: str
    size: int
    recipes: dict[str, Score]
    mean: Score
    label_only: Score | None
    oracle: float | None

    @property
    def best(self) -> str:
        return min(self.recipes, key=lambda name: self.recipes[name].nrmse)

    def behind(self, recipe: str) -> float:
        """How far a recipe lies above the best of the row."""
        return self.recipes[recipe].nrmse - self.recipes[self.best].nrmse

    @property
    def name(self) -> str:
        return f"{self.world}, {self.size}"


def publish(plan: Plan, found: Found) -> bool:
    """Prints the table, writes it and the figure. -> whether the goals are met, as far as cells are
    there"""
    from eeg.bench import quality_plot  # which needs this file

    text, met = described(plan, found)
    measured = {cell: about for cell, about in found.items() if "failed" not in about}
    rows = {challenge: standings(measured, challenge) for challenge in plan.challenges}
    table, figure = plan.out / "quality.md", plan.out / "quality.png"
    print(f"\n{text}\n")
    with writing(plan.out, "--out DIR"):
        write_whole(table, text + "\n")
        if measured:
            drawn = {challenge: own for challenge, own in rows.items() if own}
            quality_plot.save(figure, drawn, measured)
    print(f"table   {table}")
    if measured:
        print(f"figure  {figure}")
    return met


def described(plan: Plan, found: Found) -> tuple[str, bool]:
    """-> (the table with its sentences as text, which is markdown too; whether goals are met)"""
    measured = {cell: about for cell, about in found.items() if "failed" not in about}
    failed = {cell: about for cell, about in found.items() if "failed" in about}
    parts, met = [], not failed
    for challenge in plan.challenges:
        title = f"NRMSE on simulated subjects, {TITLES[challenge]}"
        rows = standings(measured, challenge)
        if not rows:
            parts.append(f"**{title}**: nothing is measured yet")
            continue
        goals = [goal(rows, measured) for goal in GOALS[challenge]]
        parts += [
            f"**{title}**",
            as_table(rows, len(plan.seeds)),
            "\n".join(line for line, _ in goals),
        ]
        met &= all(good for _, good in goals)
    parts.append(state_of(plan, measured))
    if failed:
        lines = [f"- FAILED: {cell}: {about['failed']}" for cell, about in failed.items()]
        parts.append("\n".join(lines))
    return "\n\n".join(parts), met


def state_of(plan: Plan, measured: Found) -> str:
    """What the figures are, and how many of them are there."""
    return (
        f"{len(measured):,} of {len(plan.cells()):,} cells are measured. Rows are a simulated "
        "world and the number of training subjects; ± is half of the 95 % interval over the test "
        "subjects. Both are averaged over seeds, in brackets how many where not all are measured; "
        "bold is the best of the row. Nothing here is a score on real EEG."
    )


# --------------------------------------------------------------------------- arithmetic


def averaged(cells: list[dict]) -> Score:
    """The Score of what was measured with several seeds; dicts with "nrmse", "low", "high"."""
    halves = [(one["high"] - one["low"]) / 2 for one in cells if one.get("high") is not None]
    half = statistics.fmean(halves) if len(halves) == len(cells) else None
    return Score(statistics.fmean(one["nrmse"] for one in cells), half, len(cells))


def standings(measured: Found, challenge: int) -> list[Standing]:
    """The rows of a challenge, by size and world."""
    rows: dict[Row, dict[str, list[dict]]] = {}
    for cell, about in measured.items():
        if cell.challenge == challenge:
            recipes = rows.setdefault((cell.world, cell.size), {})
            recipes.setdefault(cell.recipe, []).append(about)
    place = lambda row: (row[1], KNOWN_WORLDS.index(row[0]))
    return [_standing(*row, rows[row]) for row in sorted(rows, key=place)]


def _standing(world, size, by_recipe):
    one = next(iter(by_recipe.values()))[0]  # every cell of the row has the same lines
    mean = [line for line in one["baselines"] if line["name"] == TRAINING_MEAN]
    others = [line for line in one["baselines"] if line["name"] != TRAINING_MEAN]
    label_only = min(others, key=lambda line: line["nrmse"], default=None)
    return Standing(
        world,
        size,
        {name: averaged([about["test"] for about in cells]) for name, cells in by_recipe.items()},
        averaged(mean),
        averaged([label_only]) if label_only else None,
        one["oracle"],
    )


def worst(rows: list[Standing], recipe: str) -> tuple[float, str] | None:
    """(how far a recipe lies above the best of the row where that is most, the name of that row);
    None where it has no rival."""
    rivals = [row for row in rows if recipe in row.recipes and len(row.recipes) > 1]
    return max(((row.behind(recipe), row.name) for row in rivals), default=None)


# --------------------------------------------------------------------------- the table as text


def as_table(rows: list[Standing], seeds: int) -> str:
    """Aligned columns, which markdown understands. seeds: how many are asked for."""
    recipes = [name for name in RECIPES if any(name in row.recipes for row in rows)]
    heading = ["world, subjects", "mean", "labels alone", *recipes, "oracle"]
    lines = [heading, ["---"] * len(heading)]
    for row in rows:
        own = [_marked(row, name, seeds) for name in recipes]
        oracle = "-" if row.oracle is None else f"{row.oracle:.3f}"
        lines.append([row.name, str(row.mean), str(row.label_only or "-"), *own, oracle])
    gaps = [worst(rows, name) for name in recipes]
    cells = [f"{gap[0]:.3f} ({gap[1]})" if gap else "-" for gap in gaps]
    lines.append(["worst world: distance to the best of the row", "", "", *cells, ""])
    widths = [max(map(len, column)) for column in zip(*lines)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths)] for line in lines]
    padded[1] = ["-" * width for width in widths]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def _marked(row, recipe, seeds):
    if recipe not in row.recipes:
        return ""
    score = str(row.recipes[recipe])
    if row.recipes[recipe].seeds < seeds:
        score += f" ({row.recipes[recipe].seeds})"
    return f"**{score}**" if recipe == row.best and len(row.recipes) > 1 else score


# --------------------------------------------------------------------------- goals

Goal = Callable[[list[Standing], Found], tuple[str, bool]]


def sentence(words: str, wrong: list[str], asked: int) -> tuple[str, bool]:
    """(a goal with its verdict and the rows that miss it, whether it is met)"""
    if not asked:
        return f"- {words}: not measured yet", True
    where = f" in {len(wrong)} of {asked}: {'; '.join(wrong)}" if wrong else f" in all {asked}"
    return f"- {words}: {verdict(not wrong)}{where}", not wrong


def among_the_best(rows, measured):
    """The default is best, or within one interval of the best, in every row."""
    asked = [row for row in rows if "default" in row.recipes and len(row.recipes) > 1]
    wrong = [
        f"{row.name} ({row.behind('default'):+.3f} to {row.best})"
        for row in asked
        if row.behind("default") > (row.recipes[row.best].half or 0)
    ]
    return sentence("the default is best or within one interval of the best", wrong, len(asked))


def below_start_kit(rows, measured):
    asked = [row for row in rows if {"default", "start-kit"} <= set(row.recipes)]
    asked = [row for row in asked if row.world not in SILENT]
    gain = lambda row: row.recipes["start-kit"].nrmse - row.recipes["default"].nrmse
    wrong = [f"{row.name} ({gain(row):.3f})" for row in asked if gain(row) < BELOW_KIT]
    words = f"the default is at least {BELOW_KIT} below the start kit's recipe"
    return sentence(words, wrong, len(asked))


def near_ridge_and_network(rows, measured):
    asked, wrong = 0, []
    for row in rows:
        if {"default", "ridge", "tcn"} <= set(row.recipes):
            asked += 1
            rival = min(row.recipes["ridge"].nrmse, row.recipes["tcn"].nrmse)
            if (gap := row.recipes["default"].nrmse - rival) > ABOVE_BEST:
                wrong.append(f"{row.name} ({gap:+.3f})")
    words = f"the default lies at most {ABOVE_BEST} above the better of ridge and tcn alone"
    return sentence(words, wrong, asked)


def never_above_the_mean(rows, measured):
    asked = [row for row in rows if "default" in row.recipes]
    gap = lambda row: row.recipes["default"].nrmse - row.mean.nrmse
    wrong = [f"{row.name} ({gap(row):+.3f})" for row in asked if gap(row) > ALLOWED]
    return sentence(f"the default lies at most {ALLOWED} above the mean", wrong, len(asked))


def best_epoch_not_early(challenge) -> Goal:
    def goal(rows, measured):
        asked = [cell for cell in measured if cell.recipe == "default"]
        asked = [cell for cell in asked if cell.challenge == challenge]
        wrong = []
        for cell in asked:
            best, epochs = (measured[cell][name] for name in ("best_epoch", "epochs"))
            if best <= EARLY * epochs:
                wrong.append(f"{cell.world}, {cell.size}, seed {cell.seed} ({best} of {epochs})")
        words = f"the default's best epoch is not among the first {EARLY:.0%}"
        return sentence(words, wrong, len(asked))

    return goal


def network_as_good_as_in_the_kit(rows, measured):
    asked = [row for row in rows if {"eegnex", "start-kit"} <= set(row.recipes)]
    gap = lambda row: row.recipes["eegnex"].nrmse - row.recipes["start-kit"].nrmse
    wrong = [f"{row.name} ({gap(row):+.3f})" for row in asked if gap(row) > ALLOWED]
    words = "eegnex with our defaults is no worse than with the start kit's recipe"
    return sentence(words, wrong, len(asked))


EVERYWHERE = (among_the_best, never_above_the_mean)
GOALS = {
    1: (*EVERYWHERE, below_start_kit, network_as_good_as_in_the_kit, best_epoch_not_early(1)),
    2: (
        *EVERYWHERE,
        near_ridge_and_network,
        network_as_good_as_in_the_kit,
        best_epoch_not_early(2),
    ),
}
