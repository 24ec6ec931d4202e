"""What `run/bench.py foundation` measures. Imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path

UNLABELLED, TEST = "R1", "R6"
LABELLED = ("R2", "R3", "R4", "R8", "R9")  # of seed 0, 1, ...
UNLABELLED_SUBJECTS, TEST_SUBJECTS = 60, 24
NETWORK = "--model transformer --set patch=10 width=64 inner=128 --normalize channel"
PRETRAIN = f"{NETWORK} --epochs 12 --span 1"
TUNE = f"{NETWORK} --blend none --members 1 --epochs 25 --lr 1e-3 --batch-size 32 --patience 25"
STARTS = {"scratch": "", "pretrained": ""}  # further words of run/train.py
LESS = 0.05  # by how much of it a pretrained encoder is to lower the NRMSE with fewest subjects


@dataclass(frozen=True)
class Cell:
    world: str
    size: int  # labelled subjects, a fifth of whom validate
    seed: int
    start: str

    def __str__(self):
        return f"{self.world}, {self.size} subjects, seed {self.seed}, {self.start}"

    @property
    def file(self) -> Path:
        return Path("cells") / self.world / f"{self.size}_seed{self.seed}_{self.start}.json"


@dataclass(frozen=True)
class Plan:
    """What one call is asked to measure. hours: after which no further cell begins."""

    worlds: tuple[str, ...] = ("potentials", "rhythms", "network")
    sizes: tuple[int, ...] = (6, 12, 24, 48)
    seeds: tuple[int, ...] = (0, 1, 2)
    hours: float = 8.0
    jobs: int = 1
    out: Path = Path("build") / "bench" / "foundation"
    challenges: tuple[int, ...] = (1,)

    def cells(self) -> list[Cell]:
        """World by world; in each the smallest sizes first, and both starts of a seed together."""
        return [
            Cell(world, size, seed, start)
            for world in self.worlds
            for size in sorted(self.sizes)
            for seed in self.seeds
            for start in STARTS
        ]
