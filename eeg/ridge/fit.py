"""A run of a model that is fitted in closed form: two passes over the windows, no steps.

1. the averages that spatial components of potentials follow from (only where there are any)
2. the sums that weights follow from, exactly

Each is done once for all training subjects, and once for each fold without its subjects: strengths
are chosen by the answers to subjects that were not known. What follows from labels is learned
inside each fold; how large windows are, which does not, is learned once.

Windows are read a batch at a time. What is kept of each is its numbers, some 3 kB of its 100.
"""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch

from eeg import UserError, hints
from eeg.data.batches import Batches, Order, Reading
from eeg.data.features import compute
from eeg.data.split import Damaged, Split
from eeg.data.windows import INPUT
from eeg.machine.memory import fits
from eeg.models.ridge import Embeddings, Features, Potentials, Ridge
from eeg.ridge import embeddings, gram
from eeg.ridge.embeddings import crops_of
from eeg.ridge.representation import SAMPLED, averages_of, learn_sizes

FOLDS = 5  # of the training subjects
BATCH = 64  # windows
# Correlation of response times of one subject beyond what its windows say. In HBN an oracle that
# answers each subject's own mean has an NRMSE of 0.87 to 0.89, so 0.2 of their variance lies
# between subjects. With few of those it is luck that looks like learning, unless the fit knows of
# it.
ALIKE = 0.2
# Standard errors by which answers to unknown subjects must beat the mean. With fewer, what is
# chosen among so many strengths may be chance, and the model answers the mean. With more it goes
# 1 - (BEYOND_CHANCE / standard errors)^2 of the way, as a garrote does: no threshold decides alone.
BEYOND_CHANCE = 1.645


@dataclass
class Found:
    """What a fit came to. answers (n, crops, outputs): out of fold, to each training window in its
    row, in the labels' units; NaN where it is damaged. rows (n,) and crops: the windows of the
    cache, and the samples at which they are cut. fold (n,): which did not know the window.
    strengths: by kind of numbers, infinite where it is not used. trust: how far answers go from the
    mean, 1 all the way; 0 where they beat it by no more than chance may."""

    rows: np.ndarray
    crops: tuple[int, ...]
    fold: np.ndarray
    answers: np.ndarray
    strengths: dict[str, float]
    trust: float
    gain: float  # how much less the squared error is than the mean's, as a share
    windows: int  # without the damaged ones

    def __str__(self):
        """What was chosen, in words."""
        if self.trust == 0:
            return (
                f"answers the mean: what it learned saves {max(0, self.gain):.1%} of the mean's "
                "squared error, no more than chance may"
            )
        kinds = ", ".join(
            f"{kind} {'not used' if strength == math.inf else f'{strength:.2g}'}"
            for kind, strength in self.strengths.items()
        )
        return f"strength {kinds}; trusted to {self.trust:.0%}"


def fold_of(subjects: np.ndarray, seed: int) -> np.ndarray:
    """(n,) the fold of each window, by subject, in an order that the seed draws. Raises UserError
    where there is only one subject."""
    names, which = np.unique(subjects, return_inverse=True)
    if len(names) < 2:
        train = hints.command("train", "--train", "R1", "R2")
        raise UserError(
            "ridge chooses its strength on subjects that it was not fitted on, which needs at "
            f"least 2 training subjects; there is {len(names)}, name more releases: {train}"
        )
    place = np.random.default_rng([seed, 14]).permutation(len(names))
    return (place % min(FOLDS, len(names)))[which]


def weights_of(subjects: np.ndarray) -> np.ndarray:
    """(n,) what each window of challenge 2 counts: a subject, which has one label, counts once."""
    _, which, count = np.unique(subjects, return_inverse=True, return_counts=True)
    return (1 / count)[which]


class Fit:
    """Fits the network of `model` to split.train. damaged: is told of windows with NaN.

    y (N, outputs): the labels of the cache's windows, in their units; the model's center and scale
    are already set. progress(done, total) is called after each batch.
    """

    def __init__(self, model, split: Split, y: np.ndarray, damaged: Damaged, seed=0, threads=1):
        self.model, self.split, self.damaged = model, split, damaged
        self.network: Ridge = model.ridge or model.network
        self.threads = threads
        cache, self.rows = split.cache, split.train
        subjects = self.subjects = cache.metadata["subject"][self.rows]
        self.fold = fold_of(subjects, seed)
        _, self.number = np.unique(subjects, return_inverse=True)
        each = weights_of(subjects) if cache.challenge == 2 else np.ones(len(subjects))
        self.weight = torch.from_numpy(each)
        known: np.ndarray = y[self.rows, : model.n_outputs].astype(float)
        self.y = (torch.from_numpy(known) - model.center) / model.scale
        self.crops = crops_of(cache)
        self.potentials = next(
            (kind for kind in self.network.kinds.values() if isinstance(kind, Potentials)), None
        )
        self.direct = not fits(self.rows.size * cache[0].nbytes)
        self.stored = None  # (N, crops, size) embeddings of the cache's windows
        if "embeddings" in self.network.kinds:
            made = self.network.kinds["embeddings"].made
            self.stored = embeddings.stored(cache, made)

    def run(self, progress=lambda done, total: None) -> Found:
        self._learn_sizes()
        components = self._components(progress) if self.potentials else None
        sums, tried, seen = self._sums(components, progress)
        known = [gram.Correlations(each) for each in sums]
        folds = [gram.Fold(*pair) for pair in zip(known[1:], tried)]
        sizes = {name: kind.size for name, kind in self.network.kinds.items()}
        strengths = gram.choose(folds, sizes)
        standardised = self._out_of_fold(folds, gram.penalties(sizes, strengths), seen)
        gain, trust = self._trust(standardised, folds)
        if trust == 0:
            strengths = dict.fromkeys(sizes, math.inf)
        standardised = self._means(folds) + trust * (standardised - self._means(folds))
        self._settle(known[0], gram.penalties(sizes, strengths), components, trust)
        answers = standardised * self.model.scale.numpy() + self.model.center.numpy()
        windows = int(np.isfinite(answers).all((1, 2)).sum())
        return Found(self.rows, self.crops, self.fold, answers, strengths, trust, gain, windows)

    # reading

    def _batches(self, rows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(which of `rows`, x (B, C, samples from the first crop to the end of the last)), without
        damaged windows."""
        cache, done = self.split.cache, 0
        reading = Reading(
            self.crops[-1] - self.crops[0] + INPUT,
            np.full(len(cache), self.crops[0]),
            direct=self.direct,
            threads=self.threads,
        )
        reader = Batches(cache, rows, BATCH, order=Order(shuffle=False), reading=reading)
        with closing(reader.epoch(0)) as batches:
            for batch in batches:
                which, done = np.arange(done, done + len(batch.rows)), done + len(batch.rows)
                if not batch.finite.all():
                    self.damaged.add(batch.rows[~batch.finite], "training")
                if batch.finite.any():
                    yield which[batch.finite], batch.x[batch.finite]

    def _cuts(self, x):
        """(number of the crop, its first sample, the windows (B, C, INPUT)), for each crop."""
        for number, crop in enumerate(self.crops):
            first = crop - self.crops[0]
            yield number, first, torch.from_numpy(x[:, :, first : first + INPUT])

    def _raw(self, rows, x, number, first):
        """{kind: (B, F)} numbers that another than the network computes faster: features of a crop
        of windows `rows` by the kernels, in a seventh of the time, and stored embeddings."""
        found = {}
        for name, kind in self.network.kinds.items():
            if isinstance(kind, Features):
                made = compute(x, first, INPUT, self.threads, kind.neuro.groups)
                found[name] = torch.from_numpy(made)
        if "embeddings" in self.network.kinds:
            if self.stored is not None:
                found["embeddings"] = torch.from_numpy(self.stored[rows, number])
            else:
                cut = torch.from_numpy(x[:, :, first : first + INPUT])
                with torch.inference_mode():
                    found["embeddings"] = self.network.kinds["embeddings"].made(cut).clone()
        return found

    # fitting

    def _learn_sizes(self):
        some = self.rows[:: max(1, len(self.rows) * len(self.crops) // SAMPLED)]
        cut, raw = [], []
        for which, x in self._batches(some):
            for number, first, part in self._cuts(x):
                cut.append(part.clone())  # the batch's memory is used again
                raw.append(self._raw(some[which], x, number, first))
        if not cut:
            raise UserError(
                f"all {len(some)} training windows that were looked at hold NaN or infinity: "
                f"{self.damaged.files()}"
            )
        known = {kind: torch.cat([each[kind] for each in raw]) for kind in raw[0]}
        learn_sizes(self.network, torch.cat(cut), known)

    def _components(self, progress):
        """Those of all training subjects, then those without each fold's: [(K, C)]"""
        kind, first = self.potentials, self.y[:, 0].numpy()
        without = [self.fold != fold for fold in range(int(self.fold.max()) + 1)]
        parts = [np.full(len(self.rows), True), *without]
        found = [averages_of(kind, first[part], self.model.window[0]) for part in parts]
        for which, x in self._batches(self.rows):
            for _, _, cut in self._cuts(x):
                smooth = kind.smooth(self.network.bounded(cut))
                for part, averages in zip(parts, found):
                    used = np.flatnonzero(part[which])
                    if len(used):
                        own = which[used]
                        averages.add(smooth[used], first[own], self.weight[own])
            progress(int(which[-1]) + 1, 2 * len(self.rows))
        return [each.components(len(kind.components)).to(kind.components) for each in found]

    def _sums(self, components, progress):
        """-> (the sums of all training subjects, then those without each fold's; those of each
        fold's alone; seen (n, crops, size): the numbers of each window, for the fit that did not
        know it)"""
        size, outputs = self.network.weight.shape[1], self.model.n_outputs
        whole, *known = (gram.Sums(size, outputs) for _ in range(2 + int(self.fold.max())))
        tried = [gram.Sums(size, outputs) for _ in known]
        seen = np.full((len(self.rows), len(self.crops), size), np.nan, np.float32)
        passes, generalised = 2 if components else 1, self.split.cache.challenge == 1
        for which, x in self._batches(self.rows):
            labels = [self.y[which], self.weight[which]]
            if generalised:
                labels.append(self.number[which])
            for number, first, cut in self._cuts(x):
                fixed = self._fixed(cut, self._raw(self.rows[which], x, number, first))
                for fold in range(len(known)):
                    z = self._numbers(fixed, components and components[1 + fold])
                    own = self.fold[which] == fold
                    tried[fold].add(z[own], *(part[own] for part in labels))
                    seen[which[own], number] = z[own].numpy()
                    if components:
                        known[fold].add(z[~own], *(part[~own] for part in labels))
                if components:
                    whole.add(self._numbers(fixed, components[0]), *labels)
            progress((passes - 1) * len(self.rows) + int(which[-1]) + 1, passes * len(self.rows))
        if not components:  # the numbers are the same whoever is known
            for fold, own in enumerate(tried):
                for each in [whole, *known[:fold], *known[fold + 1 :]]:
                    each.join(own)
        fitted = [whole, *known]
        if generalised:
            fitted = [each.generalised(ALIKE) for each in fitted]
        return fitted, tried, seen

    def _fixed(self, x, raw):
        """What of the numbers of windows depends on no label: {kind: numbers}; of potentials, the
        averages of which components are taken."""
        bounded = self.network.bounded(x)
        found = {}
        for name, kind in self.network.kinds.items():
            if isinstance(kind, (Features, Embeddings)):
                found[name] = kind.standard(kind.plain(raw[name]))
            else:
                found[name] = kind.smooth(bounded) if kind is self.potentials else kind(bounded)
        return found

    def _numbers(self, fixed, components):
        """(B, size), as Ridge.numbers"""
        parts = [
            self.potentials.of(part, components) if kind is self.potentials else part
            for part, kind in zip(fixed.values(), self.network.kinds.values())
        ]
        return torch.cat(parts, 1)

    def _out_of_fold(self, folds, penalty, seen):
        """(n, crops, outputs), standardised; NaN where a window is damaged"""
        found = np.full((*seen.shape[:2], self.model.n_outputs), np.nan)
        for number, fold in enumerate(folds):
            weight, bias = (part.numpy() for part in fold.known.solve(penalty))
            own = self.fold == number
            found[own] = seen[own] @ weight.T + bias
        return found

    def _means(self, folds):
        """(n, 1, outputs): what the mean of the subjects that were known answers"""
        return np.stack([fold.known.center.numpy() for fold in folds])[self.fold][:, None]

    def _trust(self, answers, folds):
        """-> (by what share the squared error is less than that of the mean of the subjects that
        were known, how far answers may go from the mean)"""
        y = self.y.numpy()[:, None]
        weight = self.weight.numpy()
        of_mean = np.square(y - self._means(folds)).mean((1, 2)) * weight
        gain = of_mean - np.square(y - answers).mean((1, 2)) * weight
        known = np.isfinite(gain)
        _, which = np.unique(self.subjects[known], return_inverse=True)
        by_subject = np.bincount(which, gain[known])
        error = by_subject.std(ddof=1) * math.sqrt(len(by_subject)) if len(by_subject) > 1 else 0.0
        total, chance = by_subject.sum(), BEYOND_CHANCE * error
        trust = 1 - (chance / total) ** 2 if total > chance else 0.0
        return float(total / of_mean[known].sum()), float(trust)

    @torch.no_grad()
    def _settle(self, known, penalty, components, trust):
        """Give the network the weights of all training subjects."""
        if components:
            self.potentials.components.copy_(components[0])
        weight, bias = known.solve(penalty)
        self.network.weight.copy_(trust * weight)
        self.network.bias.copy_(trust * bias)
