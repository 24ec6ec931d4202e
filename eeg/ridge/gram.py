"""Ridge regression from sums of products, in float64: exact, whatever the number of windows.

Numbers of one kind share a strength. A strength is what is added to the diagonal of the
correlations of the numbers, for each number of that kind; infinity leaves the kind out.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

# strengths to choose from; at the last one, numbers of this kind are as good as not used
STRENGTHS = tuple(10 ** (exponent / 2) for exponent in range(-8, 5)) + (math.inf,)


class Sums:
    """The sum over windows of w a a', where a is 1, the numbers and the labels of a window."""

    def __init__(self, size: int, outputs: int):
        self.size = size
        self.total = torch.zeros(1 + size + outputs, 1 + size + outputs, dtype=torch.float64)
        self.of_subject: dict[int, torch.Tensor] = {}  # the sum of a

    def add(
        self,
        z: torch.Tensor,
        y: torch.Tensor,
        weight: torch.Tensor,
        subjects: np.ndarray | None = None,
    ) -> None:
        """z (B, size), y (B, outputs), weight (B,). subjects (B,): their numbers, which only
        `generalised` asks for."""
        a = torch.cat([torch.ones(len(z), 1, dtype=torch.float64), z.double(), y.double()], 1)
        self.total += a.mT @ (a * weight.double()[:, None])
        for subject in () if subjects is None else np.unique(subjects):
            own = a[torch.from_numpy(subjects == subject)].sum(0)
            self.of_subject[subject] = self.of_subject.get(subject, 0) + own

    def join(self, others: "Sums") -> None:
        """Add the sums over windows of other subjects."""
        self.total += others.total
        self.of_subject |= others.of_subject

    def generalised(self, alike: float) -> "Sums":
        """Those of generalised least squares, where what a fit leaves of the labels of one
        subject's windows, all of weight 1, correlates by `alike`."""
        found = Sums(self.size, self.total.shape[0] - 1 - self.size)
        sums = torch.stack(list(self.of_subject.values()))
        less = alike / (1 - alike + sums[:, :1] * alike)
        found.total = self.total - sums.mT @ (less * sums)
        return found

    @property
    def weight(self) -> float:
        return float(self.total[0, 0])

    def error(self, weight: torch.Tensor, bias: torch.Tensor) -> float:
        """The mean squared error of z @ weight' + bias, over windows as weighted and labels."""
        left = torch.cat([-bias[:, None], -weight, torch.eye(len(bias), dtype=torch.float64)], 1)
        return float(((left @ self.total) * left).sum(1).mean() / self.weight)


class Correlations:
    """What a ridge is solved from: sums, with the numbers standardised."""

    def __init__(self, sums: Sums):
        whole, end = sums.total / sums.total[0, 0], 1 + sums.size
        self.mean, self.center = whole[0, 1:end], whole[0, end:]
        covariance = whole[1:end, 1:end] - torch.outer(self.mean, self.mean)
        self.spread = covariance.diagonal().clamp_min(0).sqrt()
        self.varies = self.spread > 1e-6
        unit = torch.where(self.varies, 1 / self.spread, 0.0)
        self.unit = unit
        self.among = covariance * unit[:, None] * unit
        self.with_labels = (whole[1:end, end:] - torch.outer(self.mean, self.center)) * unit[
            :, None
        ]

    def solve(self, penalty: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """penalty (size,), infinite where a number is not used. -> weight (outputs, size), bias
        (outputs,)"""
        weight = torch.zeros(len(self.center), len(penalty), dtype=torch.float64)
        used = torch.nonzero(self.varies & penalty.isfinite())[:, 0]
        if len(used):
            left = self.among.index_select(0, used).index_select(1, used)
            left.diagonal().add_(penalty[used])
            factor = torch.linalg.cholesky(left)
            found = torch.cholesky_solve(self.with_labels[used], factor)
            weight[:, used] = (found * self.unit[used, None]).mT
        return weight, self.center - weight @ self.mean


@dataclass
class Fold:
    """The subjects that a fit knows, and those that it is tried on."""

    known: Correlations
    tried: Sums


def penalties(sizes: dict[str, int], strengths: dict[str, float]) -> torch.Tensor:
    """(size,): each kind's strength times its numbers, so that kinds of any size are alike."""
    parts = [
        torch.full((size,), strengths[kind] * size, dtype=torch.float64)
        for kind, size in sizes.items()
    ]
    return torch.cat(parts)


def choose(folds: list[Fold], sizes: dict[str, int]) -> dict[str, float]:
    """{kind: the strength with the least error on subjects that were not known}

    The best kind alone at first, the others beside it one by one, then step by step from there
    until no step of any kind helps.
    """
    known: dict[tuple, float] = {}

    def error(strengths):
        key = tuple(strengths.values())
        if key not in known:
            penalty = penalties(sizes, strengths)
            known[key] = sum(
                fold.tried.error(*fold.known.solve(penalty)) * fold.tried.weight for fold in folds
            )
        return known[key]

    def best_of(kind, others, among=STRENGTHS):
        """Of equal ones the strongest, which is tried first."""
        return min((others | {kind: strength} for strength in reversed(among)), key=error)

    none = dict.fromkeys(sizes, math.inf)
    found = min((best_of(kind, none) for kind in sizes), key=error)
    for kind in sizes:
        if found[kind] == math.inf:
            found = best_of(kind, found)
    before = None
    while found != before:
        before = found
        for kind in sizes:
            at = STRENGTHS.index(found[kind])
            found = best_of(kind, found, STRENGTHS[max(0, at - 1) : at + 2])
    return found
