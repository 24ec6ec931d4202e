"""Searches train settings by successive halving. Any number of workers share a study, and it can be
resumed after any kill.

Every trial is drawn when the study begins. All trials train for a few epochs, the best of them for
more, and so on. A trial is an ordinary run, and --resume trains it further. Which trials are kept
depends on their scores alone, not on which was faster.

    <study>/study.json       the question: space, seed, every trial's settings, rungs; written once
    <study>/trial_007.json   what came of a trial, one entry a rung, written by who holds its lock
    <study>/trial_007.lock   locked by worker and training alike, free when both are gone
    <study>_007/<stamp>/     its run
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

from eeg import UserError, cli
from eeg.files import locked, write_json
from eeg.runs import schema, space
from eeg.runs.run import STAMP, Run, readable

TRAIN = Path(__file__).resolve().parents[2] / "run" / "train.py"
HOPELESS = 3  # failed trials, and no other, after which no more are tried
WAIT_S = 1.0  # between looks at what other workers do
BAD_ARGUMENTS = 2  # the exit code for them
DEFAULTS = {"trials": 27, "epochs": 27, "rungs": 3, "eta": 3, "seed": 0, "fixed": []}
START_AGAIN = "correct the space or the options after --, and begin a study of another --name"


@dataclass
class Study:
    folder: Path
    plan: dict  # study.json
    places: tuple = ()  # --cache and --data, as this worker was told
    train: Path = TRAIN

    @classmethod
    def open(cls, folder: Path, wanted: dict, rules: space.Rules, *more) -> "Study":
        """Begin a study, or join one that was begun with the same question.

        wanted: "challenge", and what was asked for of "space" and DEFAULTS; None counts as absent.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "study.json"
        wanted = {key: value for key, value in wanted.items() if value is not None}
        with locked(folder / "study.lock"):
            if path.exists():
                plan = schema.read(path, schema=schema.STUDY)
                _check_same(folder, plan, wanted)
            else:
                plan = make_plan(wanted, rules)
                write_json(path, plan)
        return cls(folder, plan, *more)

    def results(self, number: int) -> list[dict]:
        """[{"epochs", "value", "run", "failed"}, ...] of a trial, one a rung."""
        return schema.read(self._results(number), [], schema.TRIAL)

    def _results(self, number):
        return self.folder / f"trial_{number:03d}.json"

    def standing(self) -> tuple[int, list[int]]:
        """-> (rung, its trials that are not done); (number of rungs, []) where all is done."""
        results = [self.results(number) for number in range(self.plan["trials"])]
        among = list(range(self.plan["trials"]))
        for rung, (keep, _) in enumerate(self.plan["steps"]):
            if rung:
                last = {number: results[number][rung - 1] for number in among}
                best = sorted(among, key=lambda number: (_value(last[number]), number))
                among = [number for number in sorted(best[:keep]) if not last[number]["failed"]]
            if ahead := [number for number in among if len(results[number]) <= rung]:
                return rung, ahead
        return len(self.plan["steps"]), []

    def work(self, say: Callable = print) -> None:
        """Train what is not trained, until nothing is left. say(line) is called for each trial."""
        waiting = False
        while True:
            rung, ahead = self.standing()
            if not ahead:
                return
            if self._train_one(ahead, rung, say):
                waiting = False
                continue
            if not waiting:
                trials = cli.counted(len(ahead), "trial")
                say(f"rung {rung + 1}: waiting for {trials} that other workers train")
            waiting = True
            time.sleep(WAIT_S)

    def _train_one(self, ahead, rung, say):
        """Train the first of these trials that no other worker holds. -> whether there was one"""
        for number in ahead:
            with locked(self.folder / f"trial_{number:03d}.lock", wait=False) as lock:
                if lock is not None and len(self.results(number)) <= rung:
                    self._train(number, rung, lock, say)
                    return True
        return False

    def _train(self, number, rung, lock, say):
        """Train one trial to the end of one rung, and write down what came of it. lock: the file
        descriptor that holds the trial; the training holds it too, as it may outlive this process.
        """
        epochs, start = self.plan["steps"][rung][1], time.monotonic()
        run, error = self.run(number), ""
        if not _has_trained(run, epochs):
            error = self._call(number, run, epochs, lock)
            run = self.run(number)
        if run and run.status == "stopped":
            raise UserError(f"{run.folder} was stopped; the same command resumes it")
        value = run.state.get("best_nrmse") if _has_trained(run, epochs) else None
        failed = ""
        if value is None:
            reason = run.state.get("reason") if run else ""
            failed = reason or error or "it ended without a score"
        if not run:
            raise UserError(f"trial {number} did not begin: {failed}")
        result = {"epochs": epochs, "value": value, "run": str(run.folder), "failed": failed}
        write_json(self._results(number), [*self.results(number), result])
        shown = f"failed: {failed}" if failed else f"{value:.4f}"
        settings = " ".join(space.as_arguments(self.plan["settings"][number]))
        place = f"rung {rung + 1}/{len(self.plan['steps'])}, {epochs:3d} epochs  trial {number:3d}"
        say(f"{place}  {shown}  {time.monotonic() - start:.0f} s  {settings}")
        if failed:
            self._check_hope(failed)

    def _call(self, number, run, epochs, lock):
        """Have run/train.py train a trial to this epoch. -> its error, or an empty text"""
        if run:
            words = ["--resume", run.folder, "--epochs", epochs]
        else:
            words = ["--challenge", self.plan["challenge"], "--epochs", epochs]
            words += ["--name", self._name(number), "--seed", self.plan["seed"]]
            words += space.as_arguments(self.plan["settings"][number], self.plan["fixed"])
        command = [sys.executable, self.train, *words, "--out", self.folder.parent, *self.places]
        code, line = _call(list(map(str, command)), lock)
        error = line.removeprefix("error: ")
        if code == BAD_ARGUMENTS:
            what = f"run/train.py does not take the settings of trial {number}"
            raise UserError(f"{what} ({error}); {START_AGAIN}")
        return error

    def _check_hope(self, why):
        """Raises UserError where the first trials have all failed."""
        tried = sum(bool(self.results(number)) for number in range(self.plan["trials"]))
        if tried >= HOPELESS and not self.table():
            what = f"the first {HOPELESS} trials all failed, this one because {why}"
            raise UserError(f"{what}; {START_AGAIN}")

    def run(self, number: int) -> Run | None:
        """The Run of a trial, or None before it has one."""
        found = sorted((self.folder.parent / self._name(number)).glob(f"{STAMP}/config.json"))
        runs = readable([Run(path.parent) for path in found])
        return runs[-1] if runs else None

    def _name(self, number):
        return f"{self.folder.name}_{number:03d}"

    def table(self) -> list[tuple]:
        """-> [(number, epochs, value, run folder)], the furthest trials first, then by value."""
        rows = []
        for number in range(self.plan["trials"]):
            if good := [result for result in self.results(number) if not result["failed"]]:
                last = good[-1]
                row = number, last["epochs"], last["value"], last["run"]
                rows.append((-len(good), last["value"], row))
        return [row for *_, row in sorted(rows)]


def make_plan(wanted: dict, rules: space.Rules) -> dict:
    """What study.json holds. Raises UserError where space or fixed options cannot be searched."""
    plan = DEFAULTS | wanted
    fixed = plan["fixed"]
    if "space" not in plan:
        model = space.parsed(fixed).get("model", [None])[-1]
        usual = rules.usual_space(plan["challenge"], model)
        taken = space.also_fixed(usual, fixed)
        plan["space"] = {option: usual[option] for option in usual if option not in taken}
    space.check_space(plan["space"], rules)
    if both := space.also_fixed(plan["space"], fixed):
        raise UserError(f"'{both[0]}' stands in the space and after --: leave it in one of them")
    for option in space.parsed(fixed):
        if space.python_name(option) in rules.ours:
            raise UserError(f"--{option} after --: a study sets that itself; say it before --")
    plan["steps"] = space.rungs(plan["trials"], plan["epochs"], plan["rungs"], plan["eta"])
    numbers = range(plan["trials"])
    plan["settings"] = [space.draw(plan["space"], plan["seed"], number) for number in numbers]
    return plan


def _check_same(folder, plan, wanted):
    for key, value in wanted.items():
        if value != plan[key]:
            what = f"{folder} was begun with {key} {json.dumps(plan[key])}, not {json.dumps(value)}"
            raise UserError(f"{what}; leave that option out, or begin another study with --name")


def _has_trained(run, epochs):
    return run and run.finished and run.config.get("train", {}).get("epochs", 0) >= epochs


def _value(result):
    return math.inf if result["value"] is None else result["value"]


def _call(command, lock):
    """-> (exit code, last line on stderr). Always waits: asked to stop, training saves."""
    nowhere = subprocess.DEVNULL
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape") as said:
        streams = {"stdin": nowhere, "stdout": nowhere, "stderr": said}
        child = subprocess.Popen(command, **streams, pass_fds=[lock])
        try:
            code = child.wait()
        except BaseException as e:
            if not isinstance(e, KeyboardInterrupt):  # the terminal has sent that to the child too
                child.terminate()
            child.wait()
            raise
        said.seek(0)
        lines = [line for line in said.read().splitlines() if line.strip()]
        return code, lines[-1] if lines else ""
