"""The runs that one command trains, one after the other: a run for each seed, or for each fold."""

import statistics
from pathlib import Path

from eeg.files import write_json, writing
from eeg.runs.journal import claim
from eeg.runs.run import Run, readable


def claim_plan(out: Path, name: str, configs: list[dict]) -> list[Path]:
    """Make the folders of new runs, each with its config.json: a kill at any later moment leaves
    something to resume."""
    folders = [claim(out, name, config) for config in configs]
    stamps = [folder.name for folder in folders]
    for folder, config in zip(folders, configs):
        write_json(folder / "config.json", config | {"plan": stamps})
    return folders


def planned(run: Run) -> list[Run]:
    """The runs of a run's plan that are still there and can be read."""
    folders = [run.folder.parent / stamp for stamp in run.config.get("plan", [])]
    return readable([Run(folder) for folder in folders if folder.is_dir()])


def summarise(folder: Path) -> None:
    """Print a line a run of this one's plan, their mean and spread, and write the same beside the
    runs. Only once all of several runs have finished."""
    runs = planned(Run(folder))
    scored = [run for run in runs if run.finished and run.state.get("best_nrmse") is not None]
    if len(runs) < 2 or len(scored) < len(runs):
        return
    found = [
        {
            "run": run.name,
            "fold": run.config["train"]["fold"],
            "seed": run.config["train"]["seed"],
            "best_epoch": run.best[0],
            "value": run.state["best_nrmse"],
        }
        for run in runs
    ]
    what = "1 - AUROC" if runs[0].config["target"] == "correct" else "NRMSE"
    simulated = " (simulated data)" if runs[0].config.get("simulated") else ""
    print(f"\n{len(runs)} runs: validation {what}{simulated}")
    for each in found:
        fold = each["fold"]
        part = f"fold {fold[0]} of {fold[1]}" if fold else f"seed {each['seed']}"
        print(f"  {each['run']:<40} {part:<14} {each['value']:.4f}  epoch {each['best_epoch']}")
    values = [each["value"] for each in found]
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    print(f"  mean {mean:.4f}, standard deviation {deviation:.4f}")
    path = runs[0].folder.with_name(f"{runs[0].folder.name}_summary.json")
    with writing(path, "--out DIR"):
        write_json(path, {"what": what, "runs": found, "mean": mean, "deviation": deviation})
    print(f"summary {path}")
