"""Chooses the runs a command works on: those RUN arguments mean, the best, the one to resume."""

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

    Only runs trained for what the competition scores and validated on the same subjects compete
    (see `competing`). say(line) is told which others there are.
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
        help = f"{len(runs)} of other targets or still running; {_see(out)}"
    else:
        help = _train_one(out, challenge)
    raise UserError(f"no finished run of challenge {challenge} in {out}/; {help}")


def _see(out, *names):
    return f"see: {hints.command('monitor', *names, out=out)}"


def _train_one(out, challenge=1):
    return f"train one with: {hints.command('train', '--challenge', challenge, out=out)}"


def _pretrain_one(out):
    return f"pretrain one with: {hints.command('pretrain', '--release', 'R1', out=out)}"


Missing = dict[int, UserError]  # {challenge: why it has no best run}


def best_runs(out: Path, challenges: Sequence[int] = (1, 2)) -> tuple[dict[int, Run], Missing]:
    """-> ({challenge: its best run}, Missing)"""
    runs, missing = {}, {}
    for challenge in challenges:
        try:
            runs[challenge] = best_run(out, challenge)
        except UserError as e:
            missing[challenge] = e
    return runs, missing


def competing(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """-> (runs of a challenge that were validated alike and so can be compared; the others)

    Of several such groups it takes the one with the usual validation: all of R5, else the most
    subjects. Folds and runs on a part of the recordings come last.
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
    what = f"{cli.counted(len(others), 'run')} not validated on {validation(among[0])}"
    return f"left out of the choice: {what} ({'; '.join(shown)})"


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
    limits = [f"--max-recordings {recordings}"] if recordings else []
    limits += [f"--max-subjects {subjects}"] if subjects else []
    flags = zip(("--mini", "--keep-copies", "--keep-bad"), rest)
    limits += [flag for flag, given in flags if given]
    return f"{words} with {' '.join(limits)}" if limits else words


def named(out: Path, text: str, encoders: bool = False) -> list[Run]:
    """The readable runs that a RUN argument means, oldest first; a single one is not checked."""
    runs = meant(out, text, encoders)
    return (readable(runs) if len(runs) > 1 else runs) or runs[-1:]


def meant(out: Path, text: str, encoders: bool = False) -> list[Run]:
    """The runs that a RUN argument means, oldest first. encoders: pretrained ones are looked for.

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
        return _between(meant(out, name, encoders), name, first, last)
    names = sorted({run.folder.parent.name for run in all_runs(out)})
    make_one = _pretrain_one(out) if encoders else _train_one(out)
    help = f"there are {', '.join(names)}; {_see(out)}" if names else make_one
    what = f"no run {text}: neither a run folder nor a name or name/stamp in {out}/"
    raise UserError(f"{what}; {help}")


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
    encoders: bool = False,
) -> list[Run]:
    """The runs that RUN arguments mean, each once. encoders: pretrained ones will do.

    A name stands for its newest finished run; with `several` or `seeds`, for all finished ones, as
    a range of stamps does. seeds: keep the runs trained with one of them, without folds. Raises
    UserError where a run is not of `challenge`.
    """
    chosen: dict[Path, Run] = {}
    for text in texts:
        runs = named(out, text, encoders)
        # of none that has finished the newest: asked for its weights, it says what is wrong
        finished = [run for run in runs if run.finished] or runs[-1:]
        if not (several or seeds or RANGE.fullmatch(text)):
            finished = finished[-1:]
        chosen |= {run.folder.resolve(): run for run in finished}
    runs = _with_seeds(list(chosen.values()), seeds) if seeds else list(chosen.values())
    for run in runs:
        if run.pretrained and not encoders:
            use = hints.command("train", "--challenge", 1, "--init", run.folder)
            what = f"{run.name} is pretrained and answers nothing yet"
            raise UserError(f"{what}; train a model that begins with it: {use}")
        if challenge not in (None, run.challenge):
            what = f"{run.name} is a run of challenge {run.challenge}, not {challenge}"
            raise UserError(f"{what}; leave --challenge {challenge} out, or name other runs")
    return runs


def _with_seeds(runs, seeds):
    """Those of the runs trained with one of the seeds, without folds of a cross-validation."""
    whole = [run for run in runs if not run.config.get("train", {}).get("fold")]
    known = {run.config.get("train", {}).get("seed") for run in whole}
    if missing := [seed for seed in seeds if seed not in known]:
        names = list(dict.fromkeys(run.folder.parent.name for run in runs))
        there = ", ".join(map(str, sorted(known - {None}))) or "none"
        raise UserError(
            f"no finished run of {', '.join(names)} has seed {missing[0]} (seeds, without folds of "
            f"a cross-validation: {there}); {_see(runs[0].folder.parents[1], *names)}"
        )
    return [run for run in whole if run.config.get("train", {}).get("seed") in seeds]


def newest_unfinished(
    out: Path, challenge: int | None = None, name: str | None = None, new: bool = False
) -> Run | None:
    """The run to resume: the one updated last among those that were stopped, died or failed.

    challenge, name: look only among these. new: where there is none, and none is running, answer
    None instead of raising UserError.
    """
    runs = [run for run in find_runs(out) if challenge in (None, run.challenge)]
    runs = [run for run in runs if name in (None, run.folder.parent.name)]
    waiting = [run for run in runs if run.status in ("stopped", "died", "failed")]
    if waiting:
        return max(waiting, key=lambda run: run.updated)
    running = [run.name for run in runs if run.status == "running"]
    if running:
        help = f"{', '.join(running)} still running; {_see(out)}"
    elif new:
        return None
    else:
        help = _train_one(out, challenge or 1)
    raise UserError(f"no unfinished run in {out}/ to resume; {help}")
