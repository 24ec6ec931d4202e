"""What a ridge's representation learns: how large windows usually are, without labels, from a
sample of them; and the spatial components of slow potentials, from averages over like labels."""

import numpy as np
import torch

from eeg.models.ridge import Covariance, Embeddings, Features, Potentials, Ridge, Standard

SAMPLED = 1000  # windows from which sizes are learned
CUT = 8.0  # an electrode's samples are cut at so many of its usual standard deviations
BINS = 8  # of the label, in which windows are averaged
SHRINKAGE = 0.1  # of the covariance of electrodes towards a sphere
PART = 100  # windows computed at once


def learn_sizes(model: Ridge, x: torch.Tensor, known: dict[str, torch.Tensor]) -> None:
    """Standardise by a sample of training windows x (N, C, T), microvolts, and their raw features
    and embeddings (N, F) by kind, where they are used: by medians, which artefacts do not move."""
    model.limit.copy_(CUT * x.std(2, unbiased=False).median(0).values)
    for name, kind in model.kinds.items():
        if isinstance(kind, (Features, Embeddings)):
            _standardise(kind.standard, kind.plain(known[name]))
        elif isinstance(kind, Covariance):
            _learn_covariance(kind, [model.bounded(part) for part in x.split(PART)])


def _standardise(standard: Standard, z: torch.Tensor) -> None:
    z = z.double().numpy()
    known = np.isfinite(z).any(0)  # of some features no window has any
    median, mad = np.zeros(z.shape[1]), np.ones(z.shape[1])
    median[known] = np.nanmedian(z[:, known], 0)
    mad[known] = 1.4826 * np.nanmedian(np.abs(z[:, known] - median[known]), 0)
    standard.median.copy_(torch.from_numpy(median))
    standard.mad.copy_(torch.from_numpy(np.where(mad > 0, mad, 1)))


def _learn_covariance(kind: Covariance, parts: list[torch.Tensor]) -> None:
    """Components of the mean covariance of windows that all count the same, however large; then
    the mean covariance of these components, log-Euclidean, which large windows do not rule."""
    total = [0.0] * len(kind.bins)
    for part in parts:
        spectrum = kind.spectrum(part)
        for band in range(len(total)):
            seen = kind.band(spectrum, band)
            seen = seen / seen.square().sum((1, 2), keepdim=True).sqrt().clamp_min(1e-12)
            across = seen.transpose(0, 1).flatten(1).double()
            total[band] = total[band] + across @ across.mT
    for band, covariance in enumerate(total):
        values, vectors = torch.linalg.eigh(covariance)
        values = values[-kind.rank :].clamp_min(1e-6 * float(values[-1]) + 1e-30)
        signed = vectors[:, -kind.rank :]
        signed = signed * torch.where(signed.sum(0) < 0, -1.0, 1.0)
        kind.whiten[band] = (signed / values.sqrt()).mT
    found = torch.cat([kind.covariances(part) for part in parts])
    # each window in units of the typical one, so that no eigenvalue is cut before the mean is known
    unit = found.diagonal(dim1=2, dim2=3).mean(2).median(0).values.clamp_min(1e-30)
    kind.whiten /= unit.sqrt()[:, None, None]
    mean = kind.logarithm(found / unit[:, None, None]).mean(0)
    values, vectors = torch.linalg.eigh(mean)
    kind.root.copy_(vectors * (-0.5 * values).exp()[:, None, :] @ vectors.mT)
    found = found / unit[:, None, None]
    _standardise(kind.standard, torch.cat([kind.tangent(part) for part in found.split(PART)]))


class Averages:
    """Averages of windows with like labels, and the covariance of electrodes.

    known (n,): the first labels of the windows that are learned from, by whose quantiles windows
    are put into bins.
    """

    def __init__(self, known: np.ndarray, electrodes: int, averages: int):
        self.edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS))
        self.sums = torch.zeros(len(self.edges) + 1, electrodes * averages, dtype=torch.float64)
        self.weight = torch.zeros(len(self.edges) + 1, dtype=torch.float64)
        self.total = torch.zeros(electrodes, electrodes, dtype=torch.float64)
        self.shape = (-1, electrodes, averages)

    def add(self, smooth: torch.Tensor, y: np.ndarray, weight: torch.Tensor) -> None:
        """smooth (B, electrodes, averages), y (B,) labels, weight (B,)."""
        smooth, bin_of = smooth.double(), torch.from_numpy(np.searchsorted(self.edges, y, "right"))
        weighted = smooth * weight[:, None, None]
        self.sums.index_add_(0, bin_of, weighted.flatten(1))
        self.weight.index_add_(0, bin_of, weight)
        across = smooth.transpose(0, 1).flatten(1)
        self.total += weighted.transpose(0, 1).flatten(1) @ across.mT

    def components(self, count: int) -> torch.Tensor:
        """(count, electrodes): generalised eigenvectors of the averages' covariance and that of all
        windows, of variance 1, those with the largest ratio first."""
        filled = self.weight > 0
        own = (self.sums[filled] / self.weight[filled, None]).view(self.shape)
        grand = (self.sums.sum(0) / self.weight.sum()).view(self.shape)
        means = torch.cat([own, grand]).transpose(0, 1).flatten(1)
        total = self.total / self.weight.sum() / self.shape[2]
        size = total.diagonal().mean().clamp_min(1e-12)
        sphere = size * torch.eye(len(total), dtype=torch.float64)
        lower = torch.linalg.cholesky((1 - SHRINKAGE) * total + SHRINKAGE * sphere)
        half = torch.linalg.solve_triangular(lower, means, upper=False)
        _, vectors = torch.linalg.eigh(half @ half.mT)
        found = torch.linalg.solve_triangular(lower.mT, vectors.flip(1)[:, :count], upper=True).mT
        found = found * torch.where(found.sum(1, keepdim=True) < 0, -1.0, 1.0)
        spread = torch.einsum("kc,cd,kd->k", found, total, found).clamp_min(0).sqrt()
        return found / spread.clamp_min(1e-12)[:, None]


def averages_of(kind: Potentials, known: np.ndarray, electrodes: int) -> Averages:
    return Averages(known, electrodes, kind.averages)
