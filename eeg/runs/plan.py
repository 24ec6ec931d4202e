"""The plan of a command that trains several runs in turn, one for each seed or fold."""

import statistics
from pathlib import Path

from eeg.files import write_json, writing
from eeg.runs.journal import claim
from eeg.runs.run import Run, readable


def claim_plan(out: Path, name: str, configs: list[dict]) -> list[Path]:
    """Make the folders of new runs with config.json, so that they can be resumed after a kill."""
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
    """Print the scores of all runs of this one's plan, their mean and spread, and write the same
    beside the runs. Does nothing for a single run, or before all have finished."""
    runs = planned(Run(folder))
    scored = [run for run in runs if run.finished and run.state.get("best_nrmse") is not None]
    if len(runs) < 2 or len(scored) < len(runs):
        return
    what = "1 - AUROC" if runs[0].config["target"] == "correct" else "NRMSE"
    simulated = " (simulated data)" if runs[0].config.get("simulated") else ""
    print(f"\n{len(runs)} runs: validation {what}{simulated}")
    found, values = [], [run.state["best_nrmse"] for run in runs]
    for run, value in zip(runs, values):
        epoch, (fold, seed) = run.best[0], (run.config["train"][key] for key in ("fold", "seed"))
        row = {"run": run.name, "fold": fold, "seed": seed, "best_epoch": epoch, "value": value}
        found.append(row)
        part = f"fold {fold[0]} of {fold[1]}" if fold else f"seed {seed}"
        print(f"  {run.name:<40} {part:<14} {value:.4f}  epoch {epoch}")
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    print(f"  mean {mean:.4f}, standard deviation {deviation:.4f}")
    path = runs[0].folder.with_name(f"{runs[0].folder.name}_summary.json")
    with writing(path, "--out DIR"):
        write_json(path, {"what": what, "runs": found, "mean": mean, "deviation": deviation})
    print(f"summary {path}")
