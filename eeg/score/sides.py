"""Which windows a run was trained and validated on, and which it may be scored on."""

import numpy as np

from eeg import UserError, cli
from eeg.data.cache import cache_path, find_caches
from eeg.data.rebuild import CONTRAST, rebuild
from eeg.data.windows import LENGTH, TARGETS

TEST = ("R6", "R7")


def scored_side(folder, challenge, releases=None, mini=False):
    """-> (Cache, rows (n,)) of the windows the competition would score: of the releases named, or of R6 and R7 what is cached. folder: where caches lie."""
    if not releases:
        releases = [
            name for name in TEST if cache_path(folder, challenge, name, mini).exists()
        ] or TEST
    cache = find_caches(folder, challenge, list(dict.fromkeys(releases)), mini)
    rows = np.flatnonzero(cache.metadata["task"] == CONTRAST.encode())
    if not len(rows):
        raise UserError(
            f"{_files(cache)} has no window of {CONTRAST}, which the competition scores; rebuild it with: {rebuild(cache, tasks=(CONTRAST,))}"
        )
    return cache, rows


def side(folder, runs, side):
    """-> (Cache, rows (n,)) of the windows that were the "train" or "valid" side of one of the runs, without copies unless one was trained with them.

    Of the validation side, subjects that another of the runs was trained on are left out: what is fitted on them would trust that run too much.
    """
    releases = sorted(
        {release for run in runs for release in run.config["split"][side]["releases"]},
        key=lambda name: int(name[1:]),
    )
    cache = find_caches(
        folder, runs[0].challenge, releases, bool(runs[0].config["train"].get("mini"))
    )
    names = (
        set.union(*(subjects(run, "train") for run in runs))
        if side == "train"
        else fitting_subjects(runs)
    )
    chosen = np.isin(cache.metadata["subject"], np.array(sorted(names), "S16"))
    if not any(run.config["train"].get("keep_copies") for run in runs):
        chosen &= ~cache.metadata["copy"]
    if not names:
        raise UserError(
            f"no validation subject is left that none of these {len(runs)} runs was trained on (folds of a cross-validation leave none), so nothing can be fitted on their answers; average them with: --ensemble average"
        )
    if not chosen.any():
        raise UserError(
            f"{_files(cache)} has no window of the {cli.counted(len(names), ('training' if side == 'train' else 'validation') + ' subject')} of {runs[0].name}; rebuild it with: {rebuild(cache)}"
        )
    return cache, np.flatnonzero(chosen)


def subjects(run, side):
    """The names of the subjects of a run's "train" or "valid" side, a set."""
    return set(run.config["split"][side]["subjects"])


def fitting_subjects(runs):
    """The validation subjects that none of the runs was trained on: what combines the runs is fitted on them."""
    sides = {side: set.union(*(subjects(run, side) for run in runs)) for side in ("train", "valid")}
    return sides["valid"] - sides["train"]


def check_fitting(way, runs, cache, rows):
    """Raises UserError where an ensemble would be scored on subjects that it is fitted on."""
    seen = _named(cache, rows) & fitting_subjects(runs)
    if seen and way != "average":
        raise UserError(
            f"--ensemble {way} is fitted on the validation subjects of its runs, and {len(seen)} of the subjects it would be scored on "
            f"are among them ({_few(seen)}); score other releases with --release, or average the runs with: --ensemble average"
        )


def chosen_on(run, cache, rows):
    """How many subjects of these windows validated the run: its best epoch was chosen on them."""
    return len(_named(cache, rows) & subjects(run, "valid"))


def flattered(runs, cache, rows):
    """A sentence that names the runs which are scored on their validation subjects, "" where none is."""
    found = [run for run in runs if chosen_on(run, cache, rows)]
    if not found:
        return ""
    what, was = ("epoch and shrinkage", "were") if cache.challenge == 2 else ("epoch", "was")
    names = ", ".join(run.name for run in found[:3])
    if len(found) > 3:
        names += f" and {cli.counted(len(found) - 3, 'other run')}"
    many = (
        f"{chosen_on(found[0], cache, rows)} of these {len(_named(cache, rows))} subjects"
        if len(found) == 1
        else "some of these subjects"
    )
    return f"the {what} of {names} {was} chosen on {many}, which flatters {'it' if len(found) == 1 else 'them'}"


def _named(cache, rows):
    return {name.decode() for name in np.unique(cache.metadata["subject"][rows])}


def _few(names):
    return ", ".join(sorted(names)[:3]) + ", ..." * (len(names) > 3)


def check_side(run, cache, rows, also=()):
    """Raises UserError where a run cannot be scored on these windows: another challenge or target, windows of another kind, or subjects it was trained on.

    also: targets that are allowed though the competition does not score them.
    """
    if missing := [
        key
        for key in ("challenge", "target", "model", "train", "split", "input")
        if key not in run.config
    ]:
        raise UserError(
            f"{run.folder / 'config.json'} says nothing of {', '.join(missing)}; train another with: {run.again()}"
        )
    if not run.scored and run.config["target"] not in also:
        raise UserError(
            f"{run.name} predicts {run.config['target']}, challenge {run.challenge} is scored on {TARGETS[run.challenge]}; train one with: {run.again(target=None)}"
        )
    path, again = cache.paths[0], f"train another with: {run.again()}"
    if run.challenge != cache.challenge:
        raise UserError(
            f"{run.name} is a run of challenge {run.challenge}, {path} a cache of challenge {cache.challenge}; rebuild it with: {rebuild(cache, challenge=run.challenge)}"
        )
    trained = run.config["input"]
    samples = (
        trained["window_samples"] if run.challenge == 1 else LENGTH[2]
    )  # challenge 2 stores 4 s, of which 2 s are cut
    if cache.sfreq != trained["sfreq"]:
        raise UserError(
            f"{path} is sampled at {cache.sfreq:g} Hz, {run.name} was trained at {trained['sfreq']:g} Hz; {again}"
        )
    if cache.window_samples != samples:
        raise UserError(
            f"{path} has windows of {cache.window_samples} samples, {run.name} was trained on {samples}; {again}"
        )
    if list(cache.channels) != list(trained["channels"]):
        was, found = (
            f"{len(names)} channels ({', '.join(names[:3])}, ...)"
            for names in (trained["channels"], cache.channels)
        )
        raise UserError(f"{path} has {found}, {run.name} was trained on {was}; {again}")
    if seen := subjects(run, "train") & _named(cache, rows):
        raise UserError(
            f"{run.name} was trained on {len(seen)} of the subjects it would be scored on ({_few(seen)}); name releases it has not seen with --release"
        )


def _files(cache):
    return ", ".join(map(str, cache.paths))
