"""A search over train settings by successive halving, shared by any number of workers, on after any kill.

Every trial is drawn when the study begins. All of them train for a few epochs, the better part of them goes on for more, and so
forth; a trial is an ordinary run, and goes on by --resume. Which trials go on depends on their scores alone, and not on who was faster.

    <out>/<study>/study.json       the question: space, seed, every trial's settings, rungs. Written once
    <out>/<study>/trial_007.json   what came of a trial, one entry a rung, written by whoever holds
    <out>/<study>/trial_007.lock   a lock of the kernel's, held by worker and training alike: it goes when both are gone
    <out>/<study>_007/<stamp>/     its run
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eeg import UserError, cli
from eeg.files import locked, write_json
from eeg.runs import schema
from eeg.runs.run import STAMP, Run, readable

TRAIN = Path(__file__).resolve().parents[2] / "run" / "train.py"
HOPELESS = 3  # failed trials, and no other, after which no more are tried
WAIT = 1.0  # s between looks at what other workers do


@dataclass(frozen=True)
class Rules:
    """What a search needs to know of the options of run/train.py, by their names in Python."""

    ours: frozenset  # a study sets them itself, or they make no sense in it
    shared: frozenset  # they change what a score is of: all trials have the same
    usual_space: Callable  # (challenge, model or None) -> {option: values}


# ---------------------------------------------------------------------------------------------------- the question


def check_space(space, rules):
    """Raises UserError where this is not {"option": values} with values a list, {"range": [low, high]}, {"log": [low, high]}, {"int": [low, high]} or a constant."""
    if not isinstance(space, dict) or not space:
        raise UserError(
            'a space is a JSON object of options of run/train.py, such as {"lr": {"log": [1e-4, 1e-2]}, "batch-size": [32, 64]}'
        )
    for option, values in space.items():
        if _plain(option.split(".")[0]) in rules.ours:
            raise UserError(f"'{option}' in the space: a study sets that itself")
        if _plain(option) in rules.shared:
            raise UserError(
                f"'{option}' in the space: scores of trials that differ in it cannot be compared; name it after --"
            )
        if isinstance(values, dict):
            (kind, ends), *more = values.items() or [("nothing", None)]
            numbers = (
                isinstance(ends, list)
                and len(ends) == 2
                and all(type(end) in (int, float) for end in ends)
            )
            if (
                more
                or kind not in ("range", "log", "int")
                or not numbers
                or ends[0] > ends[1]
                or (kind == "log" and ends[0] <= 0)
            ):
                raise UserError(
                    f"'{option}' in the space is {json.dumps(values)}; expected a list, or one of range, log and int with [low, high], such as {{\"log\": [0.001, 0.1]}}"
                )
        elif values == []:
            raise UserError(f"'{option}' in the space has no value to choose from")


def draw(space, seed, number):
    """The settings of trial `number`: the same whatever the number of trials."""
    rng = np.random.default_rng([seed, number])
    settings = {}
    for option, values in space.items():
        if isinstance(values, list):
            settings[option] = values[int(rng.integers(len(values)))]
        elif isinstance(values, dict):
            ((kind, (low, high)),) = values.items()
            if kind == "int":
                settings[option] = int(rng.integers(low, high, endpoint=True))
            else:
                value = (
                    math.exp(rng.uniform(math.log(low), math.log(high)))
                    if kind == "log"
                    else rng.uniform(low, high)
                )
                settings[option] = float(f"{value:.3g}")  # legible in a command
        else:
            settings[option] = values
    return settings


def options(settings, fixed=()):
    """Settings, after options that all trials share, as run/train.py's arguments.

    true: the bare option; false, null: without it; a list: several values; "set.width": width=... after --set.
    """
    words = {option: list(values) for option, values in _parsed(fixed).items()}
    for option, value in settings.items():
        group, dot, name = option.partition(".")
        if dot:
            words.setdefault(group, []).append(
                f"{name}={value if isinstance(value, str) else json.dumps(value)}"
            )
        elif value is not None and value is not False:
            words[group] = (
                []
                if value is True
                else [str(each) for each in (value if isinstance(value, list) else [value])]
            )
    return [
        word
        for option, values in words.items()
        for word in (f"--{option.replace('_', '-')}", *values)
    ]


def _parsed(words):
    """["--lr", "0.1", "--set", "width=96"] -> {"lr": ["0.1"], "set": ["width=96"]}"""
    found = {}
    for word in words:
        if word.startswith("--"):
            option, equals, value = word[2:].partition("=")
            values = found.setdefault(option, [])
            if equals:
                values.append(value)
        elif not found:
            raise UserError(
                f"'{word}' after --: expected options of run/train.py, such as --model unet"
            )
        else:
            values.append(word)
    return found


def _plain(option):
    """The name that an option has in Python."""
    return option.replace("-", "_")


def _shared(space, fixed):
    """The options of a space that are fixed, too."""
    words = _parsed(fixed)
    names = {option.replace("_", "-") for option in words} - {"set", "augment"} | {
        f"{group}.{pair.partition('=')[0]}"
        for group in ("set", "augment")
        for pair in words.get(group, ())
    }
    return [option for option in space if option.replace("_", "-") in names]


def rungs(trials, epochs, count, eta):
    """-> [[trials, epochs], ...]: each rung keeps a part 1/eta of the one before, for eta times the epochs."""
    steps = []
    for k in range(count):
        step = [max(1, trials // eta**k), max(1, round(epochs / eta ** (count - 1 - k)))]
        if not steps or step[1] > steps[-1][1]:  # few epochs do not give many rungs
            steps.append(step)
    return steps


# ---------------------------------------------------------------------------------------------------- the study


DEFAULTS = {"trials": 27, "epochs": 27, "rungs": 3, "eta": 3, "seed": 0, "fixed": []}


@dataclass
class Study:
    folder: Path
    plan: dict  # study.json
    places: tuple = ()  # --cache and --data, as this worker was told
    train: Path = TRAIN

    @classmethod
    def open(cls, folder, wanted, rules, *more):
        """Begin a study, or join one that was begun with the same question. wanted: "challenge", and of "space" and DEFAULTS what was asked for; None is as good as absent."""
        folder.mkdir(parents=True, exist_ok=True)
        path, wanted = (
            folder / "study.json",
            {key: value for key, value in wanted.items() if value is not None},
        )
        with locked(folder / "study.lock"):
            if path.exists():
                plan = schema.read(path, schema=schema.STUDY)
                for key, value in wanted.items():
                    if value != plan[key]:
                        raise UserError(
                            f"{folder} was begun with {key} {json.dumps(plan[key])}, not {json.dumps(value)}; go on without that option, or begin another study with --name"
                        )
            else:
                plan = DEFAULTS | wanted
                if "space" not in plan:
                    model = _parsed(plan["fixed"]).get("model") or [None]
                    usual = rules.usual_space(plan["challenge"], model[-1])
                    plan["space"] = {
                        option: usual[option]
                        for option in usual
                        if option not in _shared(usual, plan["fixed"])
                    }
                check_space(plan["space"], rules)
                if both := _shared(plan["space"], plan["fixed"]):
                    raise UserError(
                        f"'{both[0]}' stands in the space and after --: leave it in one of them"
                    )
                if ours := [
                    option for option in _parsed(plan["fixed"]) if _plain(option) in rules.ours
                ]:
                    raise UserError(
                        f"--{ours[0]} after --: a study sets that itself; say it before --"
                    )
                plan["steps"] = rungs(plan["trials"], plan["epochs"], plan["rungs"], plan["eta"])
                plan["settings"] = [
                    draw(plan["space"], plan["seed"], number) for number in range(plan["trials"])
                ]
                write_json(path, plan)
        return cls(folder, plan, *more)

    def results(self, number):
        """[{"epochs", "value", "run", "failed"}, ...] of a trial, one a rung."""
        return schema.read(self.folder / f"trial_{number:03d}.json", [], schema.TRIAL)

    def standing(self):
        """-> (rung, trials of that rung that are not done, all trials' results). The rung is the number of rungs where all is done."""
        results = [self.results(number) for number in range(self.plan["trials"])]
        among = list(range(self.plan["trials"]))
        for rung, (keep, _) in enumerate(self.plan["steps"]):
            among = sorted(
                sorted(among, key=lambda number: (self._value(results[number], rung - 1), number))[
                    :keep
                ]
            )
            among = [
                number for number in among if rung == 0 or not results[number][rung - 1]["failed"]
            ]
            if ahead := [number for number in among if len(results[number]) <= rung]:
                return rung, ahead, results
        return len(self.plan["steps"]), [], results

    def _value(self, results, rung):
        value = results[rung]["value"] if 0 <= rung < len(results) else None
        return math.inf if value is None else value

    def work(self, say=print):
        """Train what is not trained, until nothing is left. say(line) is called for each trial."""
        waiting = False
        while True:
            rung, ahead, results = self.standing()
            if not ahead:
                return
            for number in ahead:
                with locked(self.folder / f"trial_{number:03d}.lock", wait=False) as lock:
                    if lock is not None and len(self.results(number)) <= rung:
                        self._train(number, rung, lock, say)
                        waiting = False
                        break
            else:  # others are at work on all of them
                if not waiting:
                    say(
                        f"rung {rung + 1}: waiting for {cli.counted(len(ahead), 'trial')} that other workers train"
                    )
                waiting = True
                time.sleep(WAIT)

    def _train(self, number, rung, lock, say):
        """Take one trial to the end of one rung. lock: the file descriptor that holds it, which the training holds, too: it may outlive this process."""
        epochs, settings, start = (
            self.plan["steps"][rung][1],
            self.plan["settings"][number],
            time.monotonic(),
        )
        run, line = self.run(number), ""
        done = lambda run: (
            run and run.finished and run.config.get("train", {}).get("epochs", 0) >= epochs
        )
        if not done(run):
            command = (
                ["--resume", str(run.folder), "--epochs", str(epochs)]
                if run
                else [
                    "--challenge",
                    str(self.plan["challenge"]),
                    "--epochs",
                    str(epochs),
                    "--name",
                    self._name(number),
                    "--seed",
                    str(self.plan["seed"]),
                    *options(settings, self.plan["fixed"]),
                ]
            )
            code, line = _call(
                [
                    sys.executable,
                    str(self.train),
                    *command,
                    "--out",
                    str(self.folder.parent),
                    *self.places,
                ],
                lock,
            )
            run = self.run(number)
            if code == 2:
                raise UserError(
                    f"run/train.py does not take the settings of trial {number} ({line.partition('error: ')[2] or line}); mend the space or the options after --, and begin a study of another --name"
                )
            if run and run.status == "stopped":
                raise UserError(f"{run.folder} was stopped; the same command goes on")
        value = run.state.get("best_nrmse") if done(run) else None
        failed = (
            ""
            if value is not None
            else (run and run.state.get("reason"))
            or line.removeprefix("error: ")
            or "it ended without a score"
        )
        if not run:
            raise UserError(f"trial {number} did not begin: {failed}")
        write_json(
            self.folder / f"trial_{number:03d}.json",
            [
                *self.results(number),
                {"epochs": epochs, "value": value, "run": str(run.folder), "failed": failed},
            ],
        )
        result = f"failed: {failed}" if failed else f"{value:.4f}"
        say(
            f"rung {rung + 1}/{len(self.plan['steps'])}, {epochs:3d} epochs  trial {number:3d}  {result}  {time.monotonic() - start:.0f} s  {' '.join(options(settings))}"
        )
        if (
            failed
            and not self.table()
            and sum(bool(self.results(other)) for other in range(self.plan["trials"])) >= HOPELESS
        ):
            raise UserError(
                f"the first {HOPELESS} trials all failed, this one because {failed}; mend the space or the options after --, and begin a study of another --name"
            )

    def run(self, number):
        """The Run of a trial, or None before it has one."""
        found = sorted((self.folder.parent / self._name(number)).glob(f"{STAMP}/config.json"))
        runs = readable([Run(path.parent) for path in found])
        return runs[-1] if runs else None

    def _name(self, number):
        return f"{self.folder.name}_{number:03d}"

    def table(self):
        """-> [(number, epochs, value, run folder)], best first: trials that came further before those that did not."""
        rows = []
        for number in range(self.plan["trials"]):
            if good := [result for result in self.results(number) if not result["failed"]]:
                rows.append((-len(good), good[-1]["value"], number, good[-1]))
        return [
            (number, last["epochs"], last["value"], last["run"])
            for _, _, number, last in sorted(rows, key=lambda row: row[:3])
        ]


def _call(command, lock):
    """-> (exit code, the last line it said on stderr). Waits for it whatever happens: asked to stop, it saves first."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape") as said:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            pass_fds=[lock],
        )
        try:
            code = child.wait()
        except BaseException as e:
            if not isinstance(e, KeyboardInterrupt):  # which the terminal has told it already
                child.terminate()
            child.wait()
            raise
        said.seek(0)
        return code, next((line for line in reversed(said.read().splitlines()) if line.strip()), "")
