"""Runs on disk: experiments/<name>/<YYYYmmdd_HHMMSS>/, found and read. Nothing heavy is imported: a list of runs is there at once.

A run says how it is in state.json, which it rewrites every few seconds. A process that was killed cannot say so: it is told from
a running one by its process, or by its silence.
"""

import math
import os
import re
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from eeg import UserError, hints
from eeg.data.release import VALID
from eeg.data.windows import TARGETS
from eeg.runs import schema

STAMP = "[!.]*"  # of run folders; one that begins with a dot is still being made
RANGE = re.compile(
    r"(.*[^/.])/([\d_]*)\.\.([\d_]*)"
)  # name/FROM..TO, of stamps or their beginnings
SHOWN = 4  # kinds of validation that a line names
SILENCE = 600  # s without a word after which a run on another machine has died


@dataclass(frozen=True)
class Run:
    """One run folder. Its files are read when they are asked for, once."""

    folder: Path

    @cached_property
    def config(self):
        return schema.read(self.folder / "config.json")

    @cached_property
    def history(self):
        """{"epochs": [...], "events": [...]}, both empty before the first epoch ends."""
        return schema.read(self.folder / "history.json", {"epochs": [], "events": []})

    @cached_property
    def timing(self):
        """What is not the same each time: {"epochs": [{"epoch", "seconds", "windows_per_second", "memory", ...}], "events": [{"when", "kind", "text", ...}]}."""
        return schema.read(self.folder / "timing.json", {"epochs": [], "events": []})

    @cached_property
    def state(self):
        """What the run said last, {} before its first word."""
        return schema.read(self.folder / "state.json", {})

    @property
    def name(self):
        """name/stamp, as it lies under --out."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def challenge(self):
        return self.config["challenge"]

    @property
    def scored(self):
        """Whether its first answer is what the competition scores: "factors" are challenge 2's four, externalizing first."""
        return self.config["target"] in (TARGETS[self.challenge], "factors")

    @property
    def updated(self):
        """Unix time of its last word."""
        return float(self.state.get("updated") or (self.folder / "config.json").stat().st_mtime)

    @cached_property
    def status(self):
        """running, waiting (its turn comes), finished, stopped (it can go on), failed, or died: it says that it runs, and does not."""
        said = self.state.get("status", "running")
        if said not in ("running", "waiting"):
            return said
        here = self.state.get("host") == socket.gethostname()
        spoken = (
            said == "waiting" or time.time() - self.updated < SILENCE
        )  # else the process's number was given to another
        if spoken and (not here or _alive(self.state.get("pid"))):
            return said
        return "died" if said == "running" else "stopped"

    @property
    def metric(self):
        """What its epochs are judged by: the auroc (more is better) where the target is a class, else the nrmse (less is)."""
        return "auroc" if self.config["target"] == "correct" else "nrmse"

    @property
    def curve(self):
        """[(epoch, metric on the validation windows)], without epochs in which it is no number."""
        found = [
            (entry["epoch"], entry.get("valid", {}).get(self.metric))
            for entry in self.history["epochs"]
        ]
        return [
            (epoch, value) for epoch, value in found if value is not None and math.isfinite(value)
        ]

    @property
    def best(self):
        """(epoch, metric) of the best epoch on the validation windows; (0, nan) before there is one."""
        sign = -1 if self.metric == "auroc" else 1
        return min(self.curve, key=lambda point: sign * point[1], default=(0, float("nan")))

    @property
    def mean_predictor(self):
        """The NRMSE of the mean of the training labels on the validation windows; no constant scores less than 1."""
        figures = [entry.get("valid", {}).get("mean_predictor") for entry in self.history["epochs"]]
        return next((value for value in figures if value is not None), 1.0)

    @property
    def recoveries(self):
        """{kind: times} of what the run got over: errors of the device and of memory, failed saves, resumptions."""
        return Counter(
            event["kind"]
            for event in self.history["events"] + self.timing["events"]
            if event["kind"] != "stopped"
        )

    @property
    def resume(self):
        """The command that goes on with it."""
        kept, said = self.config.get("train", {}).get("cache"), hints.given.get("cache")
        known = (
            kept and said and os.path.abspath(kept) == os.path.abspath(said)
        )  # it looks there by itself
        return hints.command(
            "train",
            "--resume",
            self.folder,
            cache=hints.default("cache") if known else None,
            out=hints.default("out"),
        )

    @property
    def watch(self):
        """The command that shows it as it trains."""
        return hints.command("monitor", "--follow", out=self.folder.parents[1])

    def again(self, **changed):
        """The command that trains another run like it. changed: options that are to be otherwise, None for their default."""
        options = {"challenge": [self.challenge]} | _options(self.config.get("command", [])[1:])
        if "command" not in self.config and "model" in self.config:
            options["model"] = [self.config["model"]["name"]]
        train = self.config.get("train", {})
        if "seed" in train and not train.get("fold"):
            options["seed"] = [train["seed"]]  # of several, this run's own
        options |= {
            name: value if isinstance(value, list) else [value] for name, value in changed.items()
        }
        kept = {
            name: values
            for name, values in options.items()
            if name not in NOT_AGAIN and values != [None]
        }
        words = [word for name, values in kept.items() for word in (f"--{name}", *values)]
        return hints.command("train", *words, out=self.folder.parents[1])

    @property
    def finished(self):
        return self.status == "finished" and self._weights.exists()

    @property
    def _weights(self):
        return self.folder / f"weights_challenge_{self.challenge}.pt"

    @property
    def weights(self):
        """The file of its best epoch's weights, {"settings", "state"}. Raises UserError where training has not come to its end."""
        if self.finished:
            return self._weights
        if self.status == "running":
            raise UserError(
                f"{self.folder} is still running (epoch {self.state.get('epoch', 0)} of {self.state.get('epochs', '?')}); see: {self.watch}"
            )
        raise UserError(
            f"{self.folder} has not finished (it {_PAST.get(self.status, self.status)}); go on with: {self.resume}"
        )


NOT_AGAIN = (
    "data",
    "cache",
    "out",
    "resume",
    "tmux",
)  # options of a run that are about its place and time


def _options(words):
    """["--lr", "0.1", "--set", "width=96"] -> {"lr": ["0.1"], "set": ["width=96"]}"""
    found = {}
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name] = [value] if equals else []
        elif found:
            found[list(found)[-1]].append(word)
    return found


_PAST = {
    "waiting": "waits for its turn",
    "stopped": "was stopped",
    "failed": "failed",
    "died": "died",
    "finished": "lost its weights file",
}


def readable(runs):
    """Those of the runs whose files can be read; of the others it is said, once, what is wrong with them."""
    kept = []
    for run in runs:
        try:
            run.config, run.state, run.history, run.timing
        except UserError as e:
            _say_once(f"left out: {e}")
        else:
            kept.append(run)
    return kept


@cache
def _say_once(line):
    print(line, file=sys.stderr, flush=True)


def find_runs(out):
    """Every run under out that can be read, oldest first."""
    return readable(all_runs(out))


def all_runs(out):
    """Every run under out, oldest first, whether it can be read or not."""
    return [
        Run(path.parent)
        for path in sorted(
            Path(out).glob(f"*/{STAMP}/config.json"), key=lambda path: (path.parent.name, path)
        )
    ]


def best_run(out, challenge, say=print):
    """The finished run of a challenge with the lowest validation NRMSE, among those trained for what the competition scores.

    Only runs that are validated on the same subjects compete, see `competing`; say(line) is told which others there are.
    """
    runs = [run for run in find_runs(out) if run.challenge == challenge]
    fit = [run for run in runs if run.finished and run.scored and run.best[0]]
    if fit:
        among, others = competing(fit)
        if others:
            say(left_out(among, others))
        return min(among, key=lambda run: run.best[1])
    if waiting := [
        run for run in runs if not run.finished and run.status not in ("running", "waiting")
    ]:
        help = f"{len(runs)} not finished; go on with: {max(waiting, key=lambda run: run.updated).resume}"
    elif runs:
        help = f"{len(runs)} of other targets or still running; see: {hints.command('monitor', out=out)}"
    else:
        help = f"train one with: {hints.command('train', '--challenge', challenge, out=out)}"
    raise UserError(f"no finished run of challenge {challenge} in {out}/; {help}")


def competing(runs):
    """-> (those of one challenge's runs that were validated alike, so that their scores can be compared; the others).

    Of several such groups it is the one with the usual validation: all of R5 where it validates; else the most subjects.
    Folds and runs on a part of the recordings come last.
    """
    groups = {}
    for run in runs:
        subjects = frozenset(_valid(run)["subjects"])
        groups.setdefault((subjects, *_unusual(run)), []).append(run)

    def rank(group):
        subjects, fold, *rest = group
        whole_r5 = _valid(groups[group][0])["releases"] == [VALID]
        return fold is None, sum(map(bool, rest)) == 0, whole_r5, len(subjects), len(groups[group])

    first = max(groups, key=rank)
    return groups[first], [run for group, own in groups.items() if group != first for run in own]


def left_out(among, others):
    """A line: how many runs do not compete, and which validation each name's runs have."""
    names = {}
    for run in others:
        names.setdefault(validation(run), {})[run.folder.parent.name] = None
    shown = [f"{', '.join(own)}: {words}" for words, own in names.items()]
    if len(shown) > SHOWN:
        shown[SHOWN:] = [f"and {len(shown) - SHOWN} more"]
    runs = "1 run" if len(others) == 1 else f"{len(others)} runs"
    return f"left out of the choice: {runs} not validated on {validation(among[0])} ({'; '.join(shown)})"


def _valid(run):
    """The validation side in config.json; that of a run of long ago may be missing."""
    return run.config.get("split", {}).get("valid", {"releases": [], "subjects": []})


def _unusual(run):
    """(fold, ...): options of training that change which windows validate, each None or False where it is as usual."""
    options = run.config.get("train", {})
    fold = options.get("fold")
    others = ("max_recordings", "max_subjects", "mini", "keep_copies", "keep_bad")
    return tuple(fold) if fold else None, *(options.get(name) or None for name in others)


def validation(run):
    """What a run is validated on, in words."""
    valid, (fold, recordings, subjects, *rest) = _valid(run), _unusual(run)
    if fold:
        return f"one of {fold[1]} folds"
    many = len(valid["subjects"])
    words = (
        f"{many} subject{'s' * (many != 1)} of {' '.join(valid['releases']) or 'unknown releases'}"
    )
    limits = [
        f"--max-recordings {recordings}" * bool(recordings),
        f"--max-subjects {subjects}" * bool(subjects),
    ]
    limits += [
        f"--{name}" for name, given in zip(("mini", "keep-copies", "keep-bad"), rest) if given
    ]
    given = " ".join(filter(None, limits))
    return f"{words} with {given}" if given else words


def named(out, text):
    """The runs that a RUN argument means and that can be read, oldest first. A single one that cannot is an error."""
    runs = meant(out, text)
    return (readable(runs) if len(runs) > 1 else runs) or runs[-1:]


def meant(out, text):
    """The runs that a RUN argument means, oldest first: a run folder, name/stamp under out, or a name, which may have several."""
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
    see, train = (
        hints.command("monitor", out=out),
        hints.command("train", "--challenge", 1, out=out),
    )
    help = f"there are {', '.join(names)}; see: {see}" if names else f"train one with: {train}"
    raise UserError(
        f"no run {text}: neither a run folder nor a name or name/stamp in {out}/; {help}"
    )


def _between(runs, name, first, last):
    """Those of a name's runs that were begun from `first` to `last`, stamps or their beginnings."""
    stamps = [run.folder.name for run in runs]
    inside = [first <= stamp and (not last or stamp[: len(last)] <= last) for stamp in stamps]
    if not any(inside):
        raise UserError(f"no run {name}/{first}..{last}: those of {name} are {', '.join(stamps)}")
    return [run for run, taken in zip(runs, inside) if taken]


def choose_runs(out, texts, seeds=None, several=False):
    """The runs that RUN arguments mean, each once: -> [Run].

    A name stands for its newest finished run, with `several` for all that have finished. A range of stamps stands for all
    of its finished runs, as a name does with `seeds`, which keep the runs trained with one of them that are no folds.
    """
    chosen = {}
    for text in texts:
        runs = named(out, text)
        finished = [run for run in runs if run.finished] or runs[
            -1:
        ]  # whose weights say what is wrong
        if not (several or seeds or RANGE.fullmatch(text)):
            finished = finished[-1:]
        chosen |= {run.folder.resolve(): run for run in finished}
    return _with_seeds(list(chosen.values()), seeds) if seeds else list(chosen.values())


def _with_seeds(runs, seeds):
    """Those of the runs that were trained with one of the seeds, folds of a cross-validation left out."""
    whole = [run for run in runs if not run.config.get("train", {}).get("fold")]
    known = {run.config.get("train", {}).get("seed") for run in whole}
    if missing := [seed for seed in seeds if seed not in known]:
        names = list(dict.fromkeys(run.folder.parent.name for run in runs))
        there = ", ".join(map(str, sorted(known - {None}))) or "none"
        raise UserError(
            f"no finished run of {', '.join(names)} has seed {missing[0]} (seeds, without folds of a cross-validation: {there}); see: {hints.command('monitor', *names, out=runs[0].folder.parents[1])}"
        )
    return [run for run in whole if run.config.get("train", {}).get("seed") in seeds]


def newest_unfinished(out, challenge=None, name=None, new=False):
    """The Run to resume: of those that were stopped, died or failed, of this challenge and name if one is given, the one that spoke last.
    new: None, and no error, where there is none and none is running."""
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
    see, start = (
        hints.command("monitor", out=out),
        hints.command("train", "--challenge", challenge or 1, out=out),
    )
    help = (
        f"{', '.join(running)} still running; see: {see}" if running else f"start one with: {start}"
    )
    raise UserError(f"no unfinished run in {out}/ to resume; {help}")


def _alive(pid):
    if not Path("/proc/self").exists():  # macOS
        try:
            os.kill(pid, 0)
        except OSError as e:
            return isinstance(e, PermissionError)
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in b"ZX"  # a killed process that nobody has asked after yet
