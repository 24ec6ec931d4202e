"""Which runs a command works on: those that RUN arguments mean, the best of a challenge, the one to
resume.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from eeg import UserError, cli, hints
from eeg.data.release import VALID
from eeg.runs.run import STAMP, Run, all_runs, find_runs, readable

RANGE = re.compile(r"(.*[^/.])/([\d_]*)\.\.([\d_]*)")  # name/FROM..TO, stamps or their beginnings
SHOWN = 4  # kinds of validation that a line names


def best_run(out: Path, challenge: int, say: Callable[[str], object] = print) -> Run:
    """The finished run of a challenge with the lowest validation NRMSE.

    Only runs that were trained for what the competition scores and validated on the same subjects
    compete, see `competing`; say(line) is told which others there are.
    """
    runs = [run for run in find_runs(out) if run.challenge == challenge]
    fit = [run for run in runs if run.finished and run.scored and run.best[0]]
    if fit:
        among, others = competing(fit)
        if others:
            say(left_out(among, others))
        return min(among, key=lambda run: run.best[1])
    active = ("running", "waiting")
    if ended := [run for run in runs if not run.finished and run.status not in active]:
        newest = max(ended, key=lambda run: run.updated)
        help = f"{len(runs)} not finished; resume with: {newest.resume}"
    elif runs:
        see = hints.command("monitor", out=out)
        help = f"{len(runs)} of other targets or still running; see: {see}"
    else:
        help = f"train one with: {hints.command('train', '--challenge', challenge, out=out)}"
    raise UserError(f"no finished run of challenge {challenge} in {out}/; {help}")


def best_runs(
    out: Path, challenges: Sequence[int] = (1, 2)
) -> tuple[dict[int, Run], dict[int, UserError]]:
    """{challenge: its best run}, and {challenge: why it has none}."""
    runs, missing = {}, {}
    for challenge in challenges:
        try:
            runs[challenge] = best_run(out, challenge)
        except UserError as e:
            missing[challenge] = e
    return runs, missing


def competing(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Those of a challenge's runs that were validated alike, whose scores can be compared; the
    others.

    Of several such groups the one with the usual validation: all of R5, else the most subjects.
    Folds and runs on a part of the recordings come last.
    """
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        subjects = frozenset(_valid(run)["subjects"])
        groups.setdefault((subjects, *_unusual(run)), []).append(run)

    def rank(group):
        subjects, fold, *rest = group
        whole_r5 = _valid(groups[group][0])["releases"] == [VALID]
        return fold is None, sum(map(bool, rest)) == 0, whole_r5, len(subjects), len(groups[group])

    first = max(groups, key=rank)
    return groups[first], [run for group, own in groups.items() if group != first for run in own]


def left_out(among: Sequence[Run], others: Sequence[Run]) -> str:
    """A line: how many runs do not compete, and which validation each name's runs have."""
    names: dict[str, dict[str, None]] = {}
    for run in others:
        names.setdefault(validation(run), {})[run.folder.parent.name] = None
    shown = [f"{', '.join(own)}: {words}" for words, own in names.items()]
    if len(shown) > SHOWN:
        shown[SHOWN:] = [f"and {len(shown) - SHOWN} more"]
    return (
        f"left out of the choice: {cli.counted(len(others), 'run')} not validated on "
        f"{validation(among[0])} ({'; '.join(shown)})"
    )


def _valid(run):
    """The validation side in config.json, which that of an old run may lack."""
    return run.config.get("split", {}).get("valid", {"releases": [], "subjects": []})


def _unusual(run):
    """(fold, ...): options that change which windows validate, None or False by default."""
    options = run.config.get("train", {})
    fold = options.get("fold")
    others = ("max_recordings", "max_subjects", "mini", "keep_copies", "keep_bad")
    return tuple(fold) if fold else None, *(options.get(name) or None for name in others)


def validation(run: Run) -> str:
    """What a run is validated on, in words."""
    valid, (fold, recordings, subjects, *rest) = _valid(run), _unusual(run)
    if fold:
        return f"one of {fold[1]} folds"
    subjects_seen = cli.counted(len(valid["subjects"]), "subject")
    words = f"{subjects_seen} of {' '.join(valid['releases']) or 'unknown releases'}"
    limits = [
        f"--max-recordings {recordings}" * bool(recordings),
        f"--max-subjects {subjects}" * bool(subjects),
    ]
    limits += [
        f"--{name}" for name, given in zip(("mini", "keep-copies", "keep-bad"), rest) if given
    ]
    given = " ".join(filter(None, limits))
    return f"{words} with {given}" if given else words


def named(out: Path, text: str) -> list[Run]:
    """The runs that a RUN argument means and that can be read, oldest first.

    A single one that cannot be read is an error.
    """
    runs = meant(out, text)
    return (readable(runs) if len(runs) > 1 else runs) or runs[-1:]


def meant(out: Path, text: str) -> list[Run]:
    """The runs that a RUN argument means, oldest first.

    It is a run folder, name/stamp under `out`, a name, which may have several, or a range.
    """
    for folder in (Path(text), Path(out) / text):
        if (folder / "config.json").exists():
            return [Run(folder)]
        runs = [Run(path.parent) for path in sorted(folder.glob(f"{STAMP}/config.json"))]
        if runs:
            return runs
    if found := RANGE.fullmatch(text):
        name, first, last = found.groups()
        return _between(meant(out, name), name, first, last)
    names = sorted({run.folder.parent.name for run in all_runs(out)})
    if names:
        help = f"there are {', '.join(names)}; see: {hints.command('monitor', out=out)}"
    else:
        help = f"train one with: {hints.command('train', '--challenge', 1, out=out)}"
    raise UserError(
        f"no run {text}: neither a run folder nor a name or name/stamp in {out}/; {help}"
    )


def _between(runs, name, first, last):
    """Those of a name's runs begun from `first` to `last`, stamps or their beginnings."""
    stamps = [run.folder.name for run in runs]
    inside = [first <= stamp and (not last or stamp[: len(last)] <= last) for stamp in stamps]
    if not any(inside):
        raise UserError(f"no run {name}/{first}..{last}: those of {name} are {', '.join(stamps)}")
    return [run for run, taken in zip(runs, inside) if taken]


def choose_runs(
    out: Path,
    texts: Sequence[str],
    seeds: Sequence[int] | None = None,
    several: bool = False,
    challenge: int | None = None,
) -> list[Run]:
    """The runs that RUN arguments mean, each once.

    A name stands for its newest finished run, with `several` for all that have finished. A range of
    stamps stands for all of its finished runs, as a name does with `seeds`, which keep the runs
    trained with one of them that are no folds. Raises UserError where one is not of `challenge`.
    """
    chosen: dict[Path, Run] = {}
    for text in texts:
        runs = named(out, text)
        # of none that has finished the newest: asked for its weights, it says what is wrong
        finished = [run for run in runs if run.finished] or runs[-1:]
        if not (several or seeds or RANGE.fullmatch(text)):
            finished = finished[-1:]
        chosen |= {run.folder.resolve(): run for run in finished}
    runs = _with_seeds(list(chosen.values()), seeds) if seeds else list(chosen.values())
    for run in runs:
        if challenge not in (None, run.challenge):
            raise UserError(
                f"{run.name} is a run of challenge {run.challenge}, not {challenge}; "
                f"leave --challenge {challenge} out, or name other runs"
            )
    return runs


def _with_seeds(runs, seeds):
    """Those of the runs trained with one of the seeds, without folds of a cross-validation."""
    whole = [run for run in runs if not run.config.get("train", {}).get("fold")]
    known = {run.config.get("train", {}).get("seed") for run in whole}
    if missing := [seed for seed in seeds if seed not in known]:
        names = list(dict.fromkeys(run.folder.parent.name for run in runs))
        there = ", ".join(map(str, sorted(known - {None}))) or "none"
        see = hints.command("monitor", *names, out=runs[0].folder.parents[1])
        raise UserError(
            f"no finished run of {', '.join(names)} has seed {missing[0]} "
            f"(seeds, without folds of a cross-validation: {there}); see: {see}"
        )
    return [run for run in whole if run.config.get("train", {}).get("seed") in seeds]


def newest_unfinished(
    out: Path, challenge: int | None = None, name: str | None = None, new: bool = False
) -> Run | None:
    """The run to resume: the one updated last among those that were stopped, died or failed.

    challenge, name: only of these. new: None, and no error, where there is none and none is
    running.
    """
    runs = [
        run
        for run in find_runs(out)
        if challenge in (None, run.challenge) and name in (None, run.folder.parent.name)
    ]
    waiting = [run for run in runs if run.status in ("stopped", "died", "failed")]
    if waiting:
        return max(waiting, key=lambda run: run.updated)
    running = [run.name for run in runs if run.status == "running"]
    if new and not running:
        return None
    if running:
        help = f"{', '.join(running)} still running; see: {hints.command('monitor', out=out)}"
    else:
        start = hints.command("train", "--challenge", challenge or 1, out=out)
        help = f"start one with: {start}"
    raise UserError(f"no unfinished run in {out}/ to resume; {help}")
