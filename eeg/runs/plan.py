"""The plan of a command that trains several runs in turn, one for each seed or fold: which runs
there are, or which one is resumed."""

import statistics
import sys
from dataclasses import replace
from pathlib import Path

import eeg
from eeg import UserError, cli, hints
from eeg.files import write_json, writing
from eeg.models import CLOSED_FORM
from eeg.runs import choice
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
    what = {"auroc": "1 - AUROC", "log_loss": "log-loss"}.get(runs[0].metric, "NRMSE")
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


# which runs a command line means


def find_plan(args, ranks):
    """The folders of the runs to train, one after the other. -> ([Path], whether they are new)"""
    run = run_to_resume(args) if args.resume or ranks.restarted else None
    if not run:
        return new_plan(args), True
    others = [other.folder for other in planned(run) if not other.finished]
    return [run.folder, *(folder for folder in others if folder != run.folder)], False


def run_to_resume(args):
    """-> Run, or None to begin a new one. Raises UserError where it cannot be resumed."""
    if isinstance(args.resume, Path):
        meant = choice.named(args.out, str(args.resume))
        run = ([run for run in meant if not run.finished] or meant)[-1]
    else:
        run = choice.newest_unfinished(args.out, args.challenge, args.name, new=args.may_begin)
    if not run:
        return None
    if run.status == "running":
        process = f"process {run.state.get('pid')} on {run.state.get('host')}"
        raise UserError(f"{run.folder} is running ({process}); watch it with: {run.watch}")
    epochs = run.config.get("train", {}).get("epochs", 0)
    if run.finished and run.config.get("model", {}).get("name") in CLOSED_FORM:
        score = hints.command("evaluate", run.folder)
        raise UserError(f"{run.folder} has finished; score it with: {score}")
    if run.finished and not (args.epochs and args.epochs > epochs):
        use = f"score it with: {hints.command('evaluate', run.folder)}"
        if run.pretrained:
            use = f"use it with: {hints.command('train', '--challenge', 1, '--init', run.folder)}"
        done = f"{run.folder} has finished its {cli.counted(epochs, 'epoch')}"
        raise UserError(f"{done}; for more say --epochs N, or {use}")
    return run


def new_plan(args):
    """Make the folders of new runs. -> [Path]"""
    from eeg.data.release import choose_releases

    first, challenge = args.options[0], args.challenge
    asked = first.train, first.valid, first.mini, first.cv
    train, valid = choose_releases(args.cache, challenge, *asked)
    about = {"challenge": challenge, "target": first.target, "name": args.name}
    about |= {"model": {"name": first.model}, "command": sys.argv}
    about |= {"versions": {"eeg": eeg.__version__}}
    kept = [replace(options, train=train, valid=valid).kept() for options in args.options]
    return claim_plan(args.out, args.name, [about | {"train": each} for each in kept])
