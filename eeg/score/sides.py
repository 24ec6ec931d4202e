"""Which windows a run was trained and validated on, and which it may be scored on."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from eeg import UserError, cli
from eeg.data.batches import aligned
from eeg.data.cache import Cache, cache_path, find_caches, rebuild
from eeg.data.release import CONTRAST
from eeg.data.windows import LENGTH, TARGETS
from eeg.runs.run import Run

TEST = ("R6", "R7")


class Side(NamedTuple):
    """Some windows of a cache, as training, validation or a test uses them."""

    cache: Cache
    rows: np.ndarray  # (n,) their numbers in the cache

    @property
    def y(self) -> np.ndarray:
        return self.cache.y[self.rows]

    @property
    def metadata(self) -> np.ndarray:
        return self.cache.metadata[self.rows]

    @property
    def subjects(self) -> np.ndarray:
        """(n,) whose window it is, as bytes."""
        return self.cache.metadata["subject"][self.rows]

    @property
    def names(self) -> set[str]:
        return {name.decode() for name in np.unique(self.subjects)}

    def seen_by(self, run) -> "Side":
        """The same windows as a run takes them."""
        return self._replace(cache=aligned(self.cache, run.align))

    @property
    def releases(self) -> list[str]:
        return list(dict.fromkeys(self.cache.release[self.rows].tolist()))


def cached_tests(folder: Path, challenge: int, mini: bool = False) -> list[str]:
    """The test releases that have a cache in `folder`."""
    return [name for name in TEST if cache_path(folder, challenge, name, mini).exists()]


def scored_side(folder: Path, challenge: int, releases=None, mini: bool = False) -> Side:
    """The windows that the competition would score.

    releases: theirs, by default those of R6 and R7 that are cached in `folder`.
    """
    releases = releases or cached_tests(folder, challenge, mini) or TEST
    cache = find_caches(folder, challenge, list(dict.fromkeys(releases)), mini)
    rows = np.flatnonzero(cache.metadata["task"] == CONTRAST.encode())
    if not len(rows):
        files, again = ", ".join(map(str, cache.paths)), rebuild(cache, tasks=(CONTRAST,))
        what = f"{files} has no window of {CONTRAST}, which the competition scores"
        raise UserError(f"{what}; rebuild it with: {again}")
    return Side(cache, rows)


def side(folder: Path, runs, which: str) -> Side:
    """The windows on the "train" or "valid" side of at least one of the runs.

    Copies are left out unless one of the runs was trained with them. The validation side leaves out
    subjects that another of the runs was trained on: what is fitted on them would trust that run
    too much.
    """
    releases = {release for run in runs for release in run.config["split"][which]["releases"]}
    releases = sorted(releases, key=lambda name: int(name[1:]))
    mini = bool(runs[0].config["train"].get("mini"))
    cache = find_caches(folder, runs[0].challenge, releases, mini)
    names = _together(runs, "train") if which == "train" else fitting_subjects(runs)
    if not names:
        why = f"another of these {len(runs)} runs was trained on each of their validation subjects"
        folds = "folds of a cross-validation leave none to fit an ensemble on"
        raise UserError(f"{why} ({folds}); average them with: --ensemble average")
    chosen = np.isin(cache.metadata["subject"], np.array(sorted(names), "S16"))
    if not any(run.config["train"].get("keep_copies") for run in runs):
        chosen &= ~cache.metadata["copy"]
    if not chosen.any():
        kind = "training subject" if which == "train" else "validation subject"
        people = f"the {cli.counted(len(names), kind)} of {runs[0].name}"
        files = ", ".join(map(str, cache.paths))
        raise UserError(f"{files} has no window of {people}; rebuild it with: {rebuild(cache)}")
    return Side(cache, np.flatnonzero(chosen))


def title(scored: Side, target: str | None = None) -> str:
    """One line about the windows that are scored. target: named where it is not the usual one."""
    cache = scored.cache
    about = f"challenge {cache.challenge}, " + (f"{target}, " if target else "")
    about += " + ".join(scored.releases)
    about += " mini" * bool(cache.attributes[0]["mini"]) + " (simulated)" * cache.simulated
    windows, people = len(scored.rows), len(scored.names)
    return f"{about}: {cli.counted(windows, 'window')}, {cli.counted(people, 'subject')}"


def subjects(run, which: str) -> set[str]:
    """The names of the subjects of a run's "train" or "valid" side."""
    return set(run.config["split"][which]["subjects"])


def _together(runs, which):
    return set.union(*(subjects(run, which) for run in runs))


def fitting_subjects(runs) -> set[str]:
    """The validation subjects that no run was trained on: ensembles are fitted on them."""
    return _together(runs, "valid") - _together(runs, "train")


def check_fitting(way: str, runs, scored: Side) -> None:
    """Raises UserError where an ensemble would be scored on subjects that it is fitted on."""
    seen = scored.names & fitting_subjects(runs)
    if seen and way != "average":
        fitted = f"--ensemble {way} is fitted on the validation subjects of its runs"
        among = f"{len(seen)} of the subjects it would be scored on are among them ({_few(seen)})"
        other = "score other releases with --release, or average the runs with: --ensemble average"
        raise UserError(f"{fitted}, and {among}; {other}")


def chosen_on(run, scored: Side) -> int:
    """How many subjects of these windows validated the run: its best epoch was chosen on them."""
    return len(scored.names & subjects(run, "valid"))


def flattered(runs, scored: Side) -> str:
    """A sentence that names the runs scored on their validation subjects, "" where none is."""
    found = [run for run in runs if chosen_on(run, scored)]
    if not found:
        return ""
    what = "epoch and shrinkage of {} were" if scored.cache.challenge == 2 else "epoch of {} was"
    names = ", ".join(run.name for run in found[:3])
    if len(found) > 3:
        names += f" and {cli.counted(len(found) - 3, 'other run')}"
    many, them = "some of these subjects", "them"
    if len(found) == 1:
        many, them = f"{chosen_on(found[0], scored)} of these {len(scored.names)} subjects", "it"
    return f"the {what.format(names)} chosen on {many}, which flatters {them}"


def seen_by_encoder(run, scored: Side) -> str:
    """A sentence where the encoder that a run began with has seen some of these subjects, else
    "". An encoder in a file, or of a run that is gone, does not say whom it has seen."""
    if "begun" not in run.config:
        return ""
    encoder = Run(Path(run.config["begun"]["run"]))
    if not (encoder.folder / "config.json").is_file() or "split" not in encoder.config:
        return ""
    seen = scored.names & (subjects(encoder, "train") | subjects(encoder, "valid"))
    how = "without labels" if encoder.pretrained else "with labels"
    many = f"{len(seen)} of these {len(scored.names)} subjects"
    what = f"the encoder of {run.name}, {encoder.name}, has seen {many}, {how}"
    return f"{what}: they are not new to it" * bool(seen)


def _few(names):
    return ", ".join(sorted(names)[:3]) + ", ..." * (len(names) > 3)


def check_side(run, scored: Side, also=()) -> None:
    """Raises UserError where a run cannot be scored on these windows.

    They must be of its challenge and kind, it must predict what is scored, and none of their
    subjects may be in its training. also: targets allowed though the competition does not score
    them.
    """
    cache, known = scored.cache, ("challenge", "target", "model", "train", "split", "input")
    if missing := [key for key in known if key not in run.config]:
        path = run.folder / "config.json"
        raise UserError(f"{path} lacks {', '.join(missing)}; train another with: {run.again()}")
    if not run.scored and run.config["target"] not in also:
        scores = f"challenge {run.challenge} is scored on {TARGETS[run.challenge]}"
        what = f"{run.name} predicts {run.config['target']}, {scores}"
        raise UserError(f"{what}; train one with: {run.again(target=None)}")
    if run.challenge != cache.challenge:
        own = f"{run.name} is a run of challenge {run.challenge}"
        again = rebuild(cache, challenge=run.challenge)
        other = f"{cache.paths[0]} a cache of challenge {cache.challenge}"
        raise UserError(f"{own}, {other}; rebuild it with: {again}")
    if difference := _difference(run, cache):
        raise UserError(f"{cache.paths[0]} {difference}; train another with: {run.again()}")
    if seen := subjects(run, "train") & scored.names:
        known = f"{len(seen)} of the subjects it would be scored on ({_few(seen)})"
        other = "name releases it has not seen with --release"
        raise UserError(f"{run.name} was trained on {known}; {other}")


def _difference(run, cache):
    """How a cache's windows differ from those the run was trained on, "" where they do not."""
    trained = run.config["input"]
    rate, channels = trained["sfreq"], trained["channels"]
    # challenge 2 stores 4 s, of which 2 s are cut
    samples = trained["window_samples"] if run.challenge == 1 else LENGTH[2]
    if cache.sfreq != rate:
        return f"is sampled at {cache.sfreq:g} Hz, {run.name} was trained at {rate:g} Hz"
    if cache.window_samples != samples:
        return f"has windows of {cache.window_samples} samples, {run.name} was trained on {samples}"
    if list(cache.channels) != list(channels):
        named = lambda names: f"{len(names)} channels ({', '.join(names[:3])}, ...)"
        return f"has {named(cache.channels)}, {run.name} was trained on {named(channels)}"
    return ""
