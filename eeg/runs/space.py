"""What a search draws from. A space is {"option": values}, with the options of run/train.py.

values: a list, {"range": [low, high]}, {"log": [low, high]}, {"int": [low, high]}, or a constant.
"set.width" is the setting `width` of --set.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from eeg import UserError
from eeg.runs.run import split_options

OF_PAIRS = {"set", "augment"}  # options that take NAME=VALUE


@dataclass(frozen=True)
class Rules:
    """What a search needs to know of the options of run/train.py, by their names in Python."""

    ours: frozenset  # a study sets them itself, or they make no sense in it
    shared: frozenset  # they change what a score is of: all trials have the same
    usual_space: Callable  # (challenge, model or None) -> space


def python_name(option: str) -> str:
    """weight-decay, set.width -> weight_decay, set"""
    return option.partition(".")[0].replace("-", "_")


def check_space(space: dict, rules: Rules) -> None:
    """Raises UserError where this is no space, or holds what a search cannot vary."""
    if not isinstance(space, dict) or not space:
        example = '{"lr": {"log": [1e-4, 1e-2]}, "batch-size": [32, 64]}'
        raise UserError(f"a space is a JSON object of options of run/train.py, such as {example}")
    for option, values in space.items():
        if python_name(option) in rules.ours:
            raise UserError(f"'{option}' in the space: a study sets that itself")
        if python_name(option) in rules.shared:
            why = "scores of trials that differ in it cannot be compared; name it after --"
            raise UserError(f"'{option}' in the space: {why}")
        if values == []:
            raise UserError(f"'{option}' in the space has no value to choose from")
        if isinstance(values, dict) and not _is_interval(values):
            kinds = 'range, log and int with [low, high], such as {"log": [0.001, 0.1]}'
            found = f"'{option}' in the space is {json.dumps(values)}"
            raise UserError(f"{found}; expected a list, or one of {kinds}")


def _is_interval(values):
    """Whether this is {kind: [low, high]}."""
    if len(values) != 1:
        return False
    ((kind, ends),) = values.items()
    if kind not in ("range", "log", "int") or not isinstance(ends, list) or len(ends) != 2:
        return False
    if not all(type(end) in (int, float) for end in ends) or ends[0] > ends[1]:
        return False
    return kind != "log" or ends[0] > 0


def draw(space: dict, seed: int, number: int) -> dict:
    """The settings of trial `number`: the same however many trials there are."""
    rng = np.random.default_rng([seed, number])
    return {option: _draw_one(values, rng) for option, values in space.items()}


def _draw_one(values, rng):
    if isinstance(values, list):
        return values[int(rng.integers(len(values)))]
    if not isinstance(values, dict):
        return values
    ((kind, (low, high)),) = values.items()
    if kind == "int":
        return int(rng.integers(low, high, endpoint=True))
    if kind == "log":
        value = math.exp(rng.uniform(math.log(low), math.log(high)))
    else:
        value = rng.uniform(low, high)
    return float(f"{value:.3g}")  # legible in a command


def as_arguments(settings: dict, fixed: Sequence[str] = ()) -> list[str]:
    """Settings, after options that all trials share, as arguments of run/train.py: true is the bare
    option, false and null leave it out, "set.width" is width=... after --set."""
    words = parsed(fixed)
    for option, value in settings.items():
        group, dot, name = option.partition(".")
        if dot:
            shown = value if isinstance(value, str) else json.dumps(value)
            words.setdefault(group, []).append(f"{name}={shown}")
        elif value is True:
            words[group] = []
        elif value is not None and value is not False:
            words[group] = [str(each) for each in (value if isinstance(value, list) else [value])]
    found = []
    for option, values in words.items():
        found += [f"--{option.replace('_', '-')}", *values]
    return found


def parsed(words: Sequence[str]) -> dict[str, list[str]]:
    """["--lr", "0.1", "--set", "width=96"] -> {"lr": ["0.1"], "set": ["width=96"]}"""
    if words and not words[0].startswith("--"):
        expected = "expected options of run/train.py, such as --model unet"
        raise UserError(f"'{words[0]}' after --: {expected}")
    found: dict[str, list[str]] = {}
    for option, values in split_options(words):
        found.setdefault(option, []).extend(values)
    return found


def also_fixed(space: dict, fixed: list[str]) -> list[str]:
    """The options of a space that are fixed, too."""
    words = parsed(fixed)
    names = {option.replace("_", "-") for option in words} - OF_PAIRS
    for group in OF_PAIRS:
        names |= {f"{group}.{pair.partition('=')[0]}" for pair in words.get(group, ())}
    return [option for option in space if option.replace("_", "-") in names]


def rungs(trials: int, epochs: int, count: int, eta: int) -> list[list[int]]:
    """-> [[trials, epochs], ...]: each rung keeps 1/eta of the trials for eta times the epochs."""
    steps: list = []
    for rung in range(count):
        step = [max(1, trials // eta**rung), max(1, round(epochs / eta ** (count - 1 - rung)))]
        if not steps or step[1] > steps[-1][1]:  # few epochs do not give many rungs
            steps.append(step)
    return steps
