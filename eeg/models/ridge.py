"""A linear map on numbers computed from a window. It is fitted in closed form, by
eeg/ridge/fit.py, and takes no step.

B windows, C electrodes, T samples, K components, R components of a band.

Amplitude is information: windows are taken in microvolts and keep their size. Five kinds of
numbers, chosen by `on`; `all` are the three of KINDS side by side:

    features    the neuroscience features of features.py
    transition  the features of its group `transition`; only where asked for
    potentials  slow potentials of K spatial components, by which windows of different labels differ
    embeddings  what a pretrained encoder makes of the window (embedding.py); only where asked for
    covariance  the covariance of each frequency band, in the tangent space at its mean (Barachant
                et al. 2012, doi:10.1109/TBME.2011.2172210; by band, Sabbagh et al. 2020,
                doi:10.1016/j.neuroimage.2020.116893)

Artefacts are bounded three times: each sample by its electrode's usual size, each number by FAR,
and a kind of numbers as a whole by LOUD, all in standard deviations.
"""

import math

import torch
from torch import nn

from . import chosen
from .features import NEUROSCIENCE
from .layers import microvolts
from .montage import BANDS, CHANNELS, SFREQ
from .neuro import NeuroFeatures
from .transformer import Embedding

KINDS = ("features", "potentials", "covariance")  # of "all"
# kinds that bound large samples in a way of their own
WHOLE = ("features", "transition", "embeddings")
FAR = 5.0  # beyond which a single number is cut
LOUD = 3.0  # root mean square of a window's numbers of one kind beyond which they are scaled down
AVERAGED = 8  # samples of an average: 80 ms, which halve the power at 5.5 Hz
LEAST, MOST = 1e-4, 1e4  # eigenvalues of a covariance in units of the mean one
SKEWED = ("_line_length", "_kurtosis", "ssvep20", "ssvep25", "lrp_amplitude")  # positive amounts


def tamed(z):
    """Standardised numbers (B, size), without NaN and without outliers."""
    z = torch.nan_to_num(z).clamp(-FAR, FAR)
    loudness = z.square().mean(1, keepdim=True).sqrt()
    return z * (LOUD / loudness.clamp_min(LOUD))


class Standard(nn.Module):
    """Numbers less their median, in units of their median absolute deviation x 1.4826."""

    def __init__(self, size):
        super().__init__()
        self.register_buffer("median", torch.zeros(size))
        self.register_buffer("mad", torch.ones(size))

    def forward(self, z):
        return tamed((z - self.median) / self.mad)


class Features(nn.Module):
    """Windows (B, C, T), microvolts -> (B, F) features of these groups. Powers are logarithms
    already; other amounts that are positive and skewed become logarithms here.
    """

    def __init__(self, n_chans, groups=(NEUROSCIENCE,)):
        super().__init__()
        if n_chans != len(CHANNELS):
            raise ValueError(
                f"ridge on features knows the {len(CHANNELS)} electrodes of the HydroCel net, "
                f"these windows have {n_chans}: choose on='potentials' or on='covariance'"
            )
        self.neuro = NeuroFeatures(groups=groups)
        skewed = [name.endswith(SKEWED) for name in self.neuro.names]
        self.register_buffer("skewed", torch.tensor(skewed), persistent=False)
        self.size = len(skewed)
        self.standard = Standard(self.size)

    def plain(self, features):
        """The numbers before they are standardised, of raw features (B, F)."""
        features = features.to(self.standard.median.dtype)
        return torch.where(self.skewed, features.clamp_min(1e-6).log(), features)

    def forward(self, x):
        return self.standard(self.plain(self.neuro(x)))


class Embeddings(nn.Module):
    """Windows (B, C, T) -> (B, size). encoder: the settings of an Embedding."""

    def __init__(self, encoder):
        super().__init__()
        if encoder is None:
            raise ValueError("ridge on embeddings needs an encoder: name its run with --init RUN")
        self.made = Embedding(**encoder)
        self.size = self.made.size
        self.standard = Standard(self.size)

    def plain(self, embeddings):
        """The numbers before they are standardised, of embeddings (B, size)."""
        return embeddings.to(self.standard.median.dtype)

    def forward(self, x):
        return self.standard(self.plain(self.made(x)))


class Potentials(nn.Module):
    """Windows (B, C, T) about their means -> (B, K * averages). components (K, C): of variance 1 in
    training."""

    def __init__(self, n_chans, n_times, components):
        super().__init__()
        self.width = min(AVERAGED, n_times)
        self.averages = n_times // self.width
        kept = min(components, n_chans)
        self.size = kept * self.averages
        self.register_buffer("components", torch.eye(n_chans)[:kept].clone())

    def smooth(self, x):
        """(B, C, averages); what does not fill the last average is left out."""
        return x[..., : self.averages * self.width].unflatten(2, (-1, self.width)).mean(3)

    def of(self, smooth, components):
        return tamed((components @ smooth).flatten(1))

    def forward(self, x):
        return self.of(self.smooth(x), self.components)


class Covariance(nn.Module):
    """Windows (B, C, T) about their means -> (B, bands * R (R + 1) / 2).

    whiten (bands, R, C): the R largest principal components of a band; root (bands, R, R): the
    inverse square root of the mean covariance of these.
    """

    def __init__(self, n_chans, n_times, rank):
        super().__init__()
        self.n_times, self.rank = n_times, min(rank, n_chans)
        hertz = torch.arange(n_times // 2 + 1, dtype=torch.float64) * (SFREQ / n_times)
        limits = torch.tensor(list(BANDS.values()), dtype=torch.float64)
        first = torch.searchsorted(hertz, limits[:, 0] - 1e-6).tolist()
        end = torch.searchsorted(hertz, limits[:, 1] + 1e-6).tolist()
        self.bins = [slice(*band) for band in zip(first, end) if band[0] < band[1]]
        if not self.bins:
            raise ValueError(f"ridge on covariance: {n_times} samples hold no frequency band")
        count = len(self.bins)
        self.register_buffer("whiten", torch.eye(n_chans)[: self.rank].repeat(count, 1, 1))
        self.register_buffer("root", torch.eye(self.rank).repeat(count, 1, 1))
        rows, columns = torch.triu_indices(self.rank, self.rank)
        self.register_buffer("upper", rows * self.rank + columns, persistent=False)
        weight = torch.where(rows == columns, 1.0, math.sqrt(2))
        self.register_buffer("weight", weight, persistent=False)
        self.size = count * len(self.upper)
        self.standard = Standard(self.size)

    def spectrum(self, x):
        """(B, rows, frequencies): the squares of a band's sum to its power, uV^2.

        Under a Hann window, so that slow drifts do not leak into fast bands.
        """
        n = self.n_times
        hann = torch.hann_window(n, dtype=x.dtype, device=x.device)
        return torch.fft.rfft(x * hann) * (2 / (hann.square().sum() * n)).sqrt()

    def band(self, spectrum, number):
        """(B, rows, 2 * frequencies of the band), real: the product with itself is the covariance
        of its rows."""
        part = spectrum[..., self.bins[number]]
        return torch.cat([part.real, part.imag], 2)

    def covariances(self, x):
        """(B, bands, R, R) of the whitened components, drawn towards a sphere of the same size:
        R parts of it beside as many of the window's own as its spectrum has numbers."""
        spectrum = self.spectrum(self.whiten.flatten(0, 1) @ x).unflatten(1, (-1, self.rank))
        found = []
        for number in range(len(self.bins)):
            own = self.band(spectrum[:, number], number)
            own, freedom = own @ own.mT, own.shape[2]
            size = own.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
            sphere = size * torch.eye(self.rank, dtype=x.dtype, device=x.device)
            found.append((freedom * own + self.rank * sphere) / (freedom + self.rank))
        return torch.stack(found, 1)

    def logarithm(self, covariances):
        """The matrix logarithm of (..., R, R), in float64."""
        values, vectors = torch.linalg.eigh(covariances.double())
        values = values.clamp(LEAST, MOST).log()
        return vectors * values[..., None, :] @ vectors.mT

    def tangent(self, covariances):
        """(B, bands, R, R) -> (B, size): vectors whose length is the distance from the mean."""
        seen = self.logarithm(self.root @ covariances @ self.root).to(self.weight.dtype)
        return (seen.flatten(2)[..., self.upper] * self.weight).flatten(1)

    def forward(self, x):
        return self.standard(self.tangent(self.covariances(x)))


class Ridge(nn.Module):
    """(B, C, T) in volts or microvolts -> (B, n_outputs).

    Settings: on, the kind of numbers, or all; components, of the potentials; rank, components of a
    band. limit (C): uV from its mean at which an electrode's samples are cut.
    """

    normalize = "none"

    def __init__(self, n_chans=129, n_times=200, n_outputs=1, **settings):
        super().__init__()
        s = chosen("ridge", settings)
        made = {
            "features": lambda: Features(n_chans),
            "transition": lambda: Features(n_chans, ("transition",)),
            "potentials": lambda: Potentials(n_chans, n_times, s.components),
            "covariance": lambda: Covariance(n_chans, n_times, s.rank),
            "embeddings": lambda: Embeddings(s.encoder),
        }
        kinds = KINDS if s.on == "all" else s.on.split("+")
        self.kinds = nn.ModuleDict({kind: made[kind]() for kind in kinds})
        self.register_buffer("limit", torch.full((n_chans,), 1e3))
        size = sum(kind.size for kind in self.kinds.values())
        self.weight = nn.Parameter(torch.zeros(n_outputs, size))
        self.bias = nn.Parameter(torch.zeros(n_outputs))

    def bounded(self, x):
        """Windows in microvolts about each electrode's mean, cut at `limit`."""
        x = x.to(self.limit.dtype)
        x = x - x.mean(2, keepdim=True)
        return x.clamp(-self.limit[:, None], self.limit[:, None])

    @torch.no_grad()
    def numbers(self, x):
        """(B, size), of windows in volts or microvolts."""
        if len(x) == 0:  # of which no Fourier transform is defined
            return x.new_zeros(0, self.weight.shape[1], dtype=self.limit.dtype)
        with torch.autocast(x.device.type, enabled=False):
            x = microvolts(x)
            bounded = self.bounded(x)
            parts = [kind(x if name in WHOLE else bounded) for name, kind in self.kinds.items()]
            return torch.cat([part.to(self.limit.dtype) for part in parts], 1)

    def forward(self, x):
        return nn.functional.linear(self.numbers(x), self.weight, self.bias)
