"""What `run/bench.py quality` measures: recipes, worlds, and the order in which it takes them.

Imports nothing heavy: the arguments are checked with it.
"""

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from eeg import cli
from eeg.models import SETTINGS, check
from eeg.synth.worlds import WORLDS
from eeg.train.options import Options, add_arguments, from_arguments

# The start kit trains EEGNeX with AdamW, mean squared error, one cosine and nothing else.
START_KIT = (
    "--model eegnex --members 1 --blend none --normalize none --augment --loss mse --lr 1e-3 "
    "--weight-decay 1e-5 --batch-size 128 --schedule cosine --warmup 0 --clip 0 --ema 0 --aux"
)
NETWORKS = tuple(name for name in SETTINGS if name != "ridge")
# Every network, this one too, has its epoch chosen and its answers shrunk on validation subjects.
RECIPES = {  # name -> words of run/train.py
    "start-kit": START_KIT,
    "ridge": "--model ridge",
    "default": "",
    **{name: f"--model {name} --members 1 --blend none" for name in NETWORKS},
}
THIN = ("default", "ridge", "start-kit")  # the recipes that are measured first

SHUFFLED = "shuffled"  # the real world, its labels permuted between subjects
CHOOSING = tuple(name for name, world in WORLDS.items() if name != "easy" and not world.held_out)
USUAL_WORLDS = (*CHOOSING, SHUFFLED)
SILENT = ("null", SHUFFLED)  # worlds in which the EEG says nothing
KNOWN_WORLDS = (*WORLDS, SHUFFLED)
OUT = Path("build") / "bench" / "quality"
# of Options: where a run lies and which of its kind it is, not how it is trained
OF_THE_CELL = ("cache", "seed", "train", "valid", "mini", "fold")


@dataclass(frozen=True)
class Cell:
    """One training, and its score on other subjects of the same world."""

    world: str
    challenge: int
    size: int  # subjects to train on, a fifth of whom validate
    seed: int
    recipe: str

    def __str__(self):
        place = f"{self.world}, challenge {self.challenge}, {self.size} subjects"
        return f"{place}, seed {self.seed}, {self.recipe}"

    @property
    def file(self) -> Path:
        name = f"challenge{self.challenge}_{self.size}_seed{self.seed}_{self.recipe}.json"
        return Path("cells") / self.world / name

    def options(self) -> Options:
        return resolved(self.recipe, self.challenge, self.seed)


@dataclass(frozen=True)
class Plan:
    """What one call is asked to measure. hours: after which no further cell begins."""

    worlds: tuple[str, ...] = USUAL_WORLDS
    recipes: tuple[str, ...] = tuple(RECIPES)
    sizes: tuple[int, ...] = (30, 100, 300)
    seeds: tuple[int, ...] = (0, 1, 2)
    challenges: tuple[int, ...] = (1, 2)
    hours: float = 8.0
    jobs: int = 1
    out: Path = OUT

    def cells(self) -> list[Cell]:
        """Every cell, in the order of measurement: the thin table first.

        Then what differs from it in one way: further seeds, other recipes, larger sizes; then what
        differs in two ways, then in three.
        """
        sizes = sorted(self.sizes)

        def place(cell):
            further = cell.seed != self.seeds[0]
            other = cell.recipe not in THIN
            larger = sizes.index(cell.size)
            phase = (further + other + (larger > 0), larger, other, further)
            world, seed = self.worlds.index(cell.world), self.seeds.index(cell.seed)
            return (*phase, world, cell.challenge, seed, self.recipes.index(cell.recipe))

        every = [
            Cell(world, challenge, size, seed, recipe)
            for world in self.worlds
            for challenge in self.challenges
            for size in sizes
            for seed in self.seeds
            for recipe in self.recipes
        ]
        return sorted(every, key=place)


def resolved(recipe: str, challenge: int, seed: int = 0) -> Options:
    """The options of run/train.py for a recipe, with every default."""
    p = argparse.ArgumentParser()
    p.add_argument("--challenge", type=int)
    add_arguments(p)
    args = p.parse_args([*RECIPES[recipe].split(), "--challenge", str(challenge)])
    return from_arguments(args, seed=seed)


def fingerprint(recipe: str, challenge: int, data: str) -> str:
    """What changes with an option of the recipe, given or default, and with the simulated data.

    data: the fingerprint of that. A change in the code of a model does not show.
    """
    options = resolved(recipe, challenge)
    kept = {name: value for name, value in options.kept().items() if name not in OF_THE_CELL}
    kept["set"] = check(options.model, options.set)
    text = json.dumps([kept, data], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --------------------------------------------------------------------------- the command line


def add_quality(p: cli.Parser) -> None:
    """The arguments of the row."""
    usual = Plan()
    group = p.add_argument_group("quality, which takes hours and resumes where it stopped")
    worlds = f"(default: {' '.join(usual.worlds)})"
    group.add_argument("--worlds", nargs="+", metavar="NAME", help=f"worlds {worlds}")
    recipes = f"(default: all of {' '.join(RECIPES)})"
    group.add_argument("--recipes", nargs="+", metavar="NAME", help=f"recipes {recipes}")
    sizes = "numbers of training subjects (default: 30 100 300)"
    group.add_argument("--sizes", nargs="+", type=cli.positive, metavar="N", help=sizes)
    seeds = "seeds of the training (default: 0 1 2)"
    group.add_argument("--seeds", nargs="+", type=cli.whole, metavar="N", help=seeds)
    help = "measure this challenge alone"
    group.add_argument("--challenge", type=cli.challenge, metavar="{1,2}", help=help)
    help = "begin nothing after H hours; 0 only prints the table (default: 8)"
    group.add_argument("--hours", type=cli.at_least_0, metavar="H", help=help)
    help = "trainings at once, each in one thread (default: 1)"
    group.add_argument("--jobs", type=cli.positive, metavar="N", help=help)
    help = f"folder of what was measured, the table and the figure (default: {OUT})"
    group.add_argument("--out", type=Path, metavar="DIR", help=help)


GIVEN = "worlds recipes sizes seeds challenge hours jobs out".split()


def asked(p: cli.Parser, args: argparse.Namespace) -> Plan | None:
    """The plan of a command line; None where `quality` does not run. Ends with the parser's error
    where an argument is wrong."""
    given = {name: getattr(args, name) for name in GIVEN if getattr(args, name) is not None}
    if "quality" not in args.rows:
        if given and "foundation" not in args.rows:
            p.error(f"--{next(iter(given))} belongs to the row quality, which was not named")
        return None
    for what, known in (("worlds", KNOWN_WORLDS), ("recipes", RECIPES)):
        if unknown := [name for name in given.get(what, ()) if name not in known]:
            p.error(f"--{what} {unknown[0]}: the {what} are {', '.join(known)}")
    if wrong := [seed for seed in given.get("seeds", ()) if not 0 <= seed < 2**32]:
        p.error(f"--seeds {wrong[0]}: a seed lies from 0 to {2**32 - 1}")
    if few := [size for size in given.get("sizes", ()) if not 5 <= size <= 5000]:
        p.error(f"--sizes {few[0]}: expected 5 to 5000 subjects, a fifth of whom validate")
    if "challenge" in given:
        given["challenges"] = [given.pop("challenge")]
    lists = {name: tuple(dict.fromkeys(value)) for name, value in given.items() if _is_list(value)}
    return Plan(**given | lists)


def _is_list(value):
    return isinstance(value, list)


def asked_of_foundation(p: cli.Parser, args: argparse.Namespace) -> dict:
    """The fields of a Plan of the row foundation that a command line gives. Ends with the parser's
    error where one is wrong."""
    names = "worlds sizes seeds hours out".split()
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if "foundation" in args.rows:
        if unknown := [name for name in given.get("worlds", ()) if name not in WORLDS]:
            p.error(f"--worlds {unknown[0]}: the worlds are {', '.join(WORLDS)}")
        if wrong := [seed for seed in given.get("seeds", ()) if seed not in range(5)]:
            p.error(f"--seeds {wrong[0]}: expected 0 to 4, each with a release of its own")
    return {name: tuple(value) if _is_list(value) else value for name, value in given.items()}
