"""The table of row `foundation`: a pretrained encoder beside random weights."""

import numpy as np

from eeg.bench.foundation.plan import LESS, STARTS, TEST_SUBJECTS, Cell, Plan
from eeg.bench.measure import verdict
from eeg.score.metrics import interval_difference


def described(plan: Plan, found: dict[Cell, dict | None]) -> tuple[str, bool]:
    """-> (the table with its sentence as markdown, whether the goal is met as far as measured)"""
    heading = ["world, labelled subjects", "seeds", "from scratch", "pretrained", "relative"]
    lines, gains = [[*heading, "difference (95 %)"]], {}
    lines.append(["---"] * len(lines[0]))
    for world in plan.worlds:
        for size in sorted(plan.sizes):
            pairs = [
                [found[Cell(world, size, seed, start)] for start in STARTS] for seed in plan.seeds
            ]
            pairs = [pair for pair in pairs if all(pair)]
            if not pairs:
                continue
            scratch, pretrained = np.mean([[one["nrmse"] for one in pair] for pair in pairs], 0)
            gains[world, size] = 1 - pretrained / scratch
            low, high = interval(pairs)
            own = [f"{world}, {size}", str(len(pairs)), f"{scratch:.3f}", f"{pretrained:.3f}"]
            difference = f"{pretrained - scratch:+.3f} ({low:+.3f} to {high:+.3f})"
            lines.append([*own, f"{-100 * gains[world, size]:+.1f} %", difference])
    widths = [max(map(len, column)) for column in zip(*lines)]
    table = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in lines]
    fewest = {world: gain for (world, size), gain in gains.items() if size == min(plan.sizes)}
    met = all(gain >= LESS for gain in fewest.values())
    text = "\n".join(f"| {line} |" for line in table)
    goal = f"a pretrained encoder lowers the NRMSE by {LESS:.0%} with {min(plan.sizes)} subjects"
    said = verdict(met) if fewest else "not measured yet"
    measured = sum(about is not None for about in found.values())
    return (
        f"**NRMSE on simulated subjects, challenge 1, by labelled subjects**\n\n{text}\n\n"
        f"- {goal}: {said}\n\n{measured} of {len(found)} cells are measured. NRMSEs are means over "
        f"seeds, each with labelled subjects of its own; the interval is over the {TEST_SUBJECTS} "
        "test subjects. Nothing here is a score on real EEG.",
        met,
    )


def interval(pairs: list[list[dict]]) -> tuple[float, float]:
    """(low, high): 95 % of pretrained less scratch, by subject, over the answers of all seeds."""
    together = lambda start, name: np.concatenate([pair[start][name] for pair in pairs])
    y, subjects = together(0, "y"), together(0, "subjects")
    return interval_difference(y, together(1, "answers"), together(0, "answers"), subjects)
