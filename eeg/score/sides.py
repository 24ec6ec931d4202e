"""Which windows a run was trained and validated on, and which it may be scored on."""

from pathlib import Path

import numpy as np

from eeg import UserError, cli
from eeg.data.cache import cache_path, find_caches, rebuild
from eeg.data.release import CONTRAST
from eeg.data.windows import LENGTH, TARGETS

TEST = ("R6", "R7")


def cached_tests(folder: Path, challenge: int, mini: bool = False) -> list[str]:
    """The test releases that have a cache in `folder`."""
    return [name for name in TEST if cache_path(folder, challenge, name, mini).exists()]


def scored_side(folder: Path, challenge: int, releases=None, mini: bool = False) -> tuple:
    """(Cache, rows (n,)) of the windows the competition would score.

    releases: their releases, by default those of R6 and R7 that are cached in `folder`.
    """
    releases = releases or cached_tests(folder, challenge, mini) or TEST
    cache = find_caches(folder, challenge, list(dict.fromkeys(releases)), mini)
    rows = np.flatnonzero(cache.metadata["task"] == CONTRAST.encode())
    if not len(rows):
        raise UserError(
            f"{_files(cache)} has no window of {CONTRAST}, which the competition scores; "
            f"rebuild it with: {rebuild(cache, tasks=(CONTRAST,))}"
        )
    return cache, rows


def side(folder: Path, runs, side: str) -> tuple:
    """(Cache, rows (n,)) of the windows on the "train" or "valid" side of one of the runs.

    Copies are left out unless one of the runs was trained with them. Of the validation side,
    subjects that another of the runs was trained on are left out: what is fitted on them would
    trust that run too much.
    """
    releases = {release for run in runs for release in run.config["split"][side]["releases"]}
    releases = sorted(releases, key=lambda name: int(name[1:]))
    mini = bool(runs[0].config["train"].get("mini"))
    cache = find_caches(folder, runs[0].challenge, releases, mini)
    names = _together(runs, "train") if side == "train" else fitting_subjects(runs)
    chosen = np.isin(cache.metadata["subject"], np.array(sorted(names), "S16"))
    if not any(run.config["train"].get("keep_copies") for run in runs):
        chosen &= ~cache.metadata["copy"]
    if not names:
        raise UserError(
            f"each validation subject of these {len(runs)} runs was in the training of another "
            "(folds of a cross-validation leave none), so nothing can be fitted on their answers; "
            "average them with: --ensemble average"
        )
    if not chosen.any():
        what = ("training" if side == "train" else "validation") + " subject"
        raise UserError(
            f"{_files(cache)} has no window of the {cli.counted(len(names), what)} of "
            f"{runs[0].name}; rebuild it with: {rebuild(cache)}"
        )
    return cache, np.flatnonzero(chosen)


def releases_of(cache, rows) -> list[str]:
    """The releases of these windows, in their order."""
    return list(dict.fromkeys(cache.release[rows].tolist()))


def title(cache, rows, target: str | None = None) -> str:
    """One line about the windows that are scored. target: named where it is not the usual one."""
    about = f"challenge {cache.challenge}, " + (f"{target}, " if target else "")
    about += " + ".join(releases_of(cache, rows))
    about += " mini" * bool(cache.attributes[0]["mini"]) + " (simulated)" * cache.simulated
    subjects = len(np.unique(cache.metadata["subject"][rows]))
    return f"{about}: {cli.counted(len(rows), 'window')}, {cli.counted(subjects, 'subject')}"


def subjects(run, side: str) -> set[str]:
    """The names of the subjects of a run's "train" or "valid" side."""
    return set(run.config["split"][side]["subjects"])


def _together(runs, side):
    return set.union(*(subjects(run, side) for run in runs))


def fitting_subjects(runs) -> set[str]:
    """The validation subjects that no run was trained on: ensembles are fitted on them."""
    return _together(runs, "valid") - _together(runs, "train")


def check_fitting(way: str, runs, cache, rows) -> None:
    """Raises UserError where an ensemble would be scored on subjects that it is fitted on."""
    seen = _named(cache, rows) & fitting_subjects(runs)
    if seen and way != "average":
        raise UserError(
            f"--ensemble {way} is fitted on the validation subjects of its runs, and {len(seen)} "
            f"of the subjects it would be scored on are among them ({_few(seen)}); score other "
            "releases with --release, or average the runs with: --ensemble average"
        )


def chosen_on(run, cache, rows) -> int:
    """How many subjects of these windows validated the run: its best epoch was chosen on them."""
    return len(_named(cache, rows) & subjects(run, "valid"))


def flattered(runs, cache, rows) -> str:
    """A sentence that names the runs scored on their validation subjects, "" where none is."""
    found = [run for run in runs if chosen_on(run, cache, rows)]
    if not found:
        return ""
    what, was = ("epoch and shrinkage", "were") if cache.challenge == 2 else ("epoch", "was")
    names = ", ".join(run.name for run in found[:3])
    if len(found) > 3:
        names += f" and {cli.counted(len(found) - 3, 'other run')}"
    if len(found) > 1:
        return f"the {what} of {names} {was} chosen on some of these subjects, which flatters them"
    many = f"{chosen_on(found[0], cache, rows)} of these {len(_named(cache, rows))} subjects"
    return f"the {what} of {names} {was} chosen on {many}, which flatters it"


def _named(cache, rows):
    return {name.decode() for name in np.unique(cache.metadata["subject"][rows])}


def _few(names):
    return ", ".join(sorted(names)[:3]) + ", ..." * (len(names) > 3)


def _files(cache):
    return ", ".join(map(str, cache.paths))


def check_side(run, cache, rows, also=()) -> None:
    """Raises UserError where a run cannot be scored on these windows.

    That is where it is of another challenge or target, where the windows are of another kind, or
    where it was trained on their subjects. also: targets that are allowed though the competition
    does not score them.
    """
    keys = ("challenge", "target", "model", "train", "split", "input")
    if missing := [key for key in keys if key not in run.config]:
        raise UserError(
            f"{run.folder / 'config.json'} lacks {', '.join(missing)}; "
            f"train another with: {run.again()}"
        )
    if not run.scored and run.config["target"] not in also:
        raise UserError(
            f"{run.name} predicts {run.config['target']}, challenge {run.challenge} is scored on "
            f"{TARGETS[run.challenge]}; train one with: {run.again(target=None)}"
        )
    if run.challenge != cache.challenge:
        raise UserError(
            f"{run.name} is a run of challenge {run.challenge}, {cache.paths[0]} a cache of "
            f"challenge {cache.challenge}; "
            f"rebuild it with: {rebuild(cache, challenge=run.challenge)}"
        )
    if difference := _difference(run, cache):
        raise UserError(f"{cache.paths[0]} {difference}; train another with: {run.again()}")
    if seen := subjects(run, "train") & _named(cache, rows):
        raise UserError(
            f"{run.name} was trained on {len(seen)} of the subjects it would be scored on "
            f"({_few(seen)}); name releases it has not seen with --release"
        )


def _difference(run, cache):
    """How a cache's windows differ from those the run was trained on, "" where they do not."""
    trained = run.config["input"]
    if cache.sfreq != trained["sfreq"]:
        return (
            f"is sampled at {cache.sfreq:g} Hz, {run.name} was trained at {trained['sfreq']:g} Hz"
        )
    # challenge 2 stores 4 s, of which 2 s are cut
    samples = trained["window_samples"] if run.challenge == 1 else LENGTH[2]
    if cache.window_samples != samples:
        return f"has windows of {cache.window_samples} samples, {run.name} was trained on {samples}"
    if list(cache.channels) != list(trained["channels"]):
        was, found = (
            f"{len(names)} channels ({', '.join(names[:3])}, ...)"
            for names in (trained["channels"], cache.channels)
        )
        return f"has {found}, {run.name} was trained on {was}"
    return ""
