"""CBraMod (Wang et al. 2025, arXiv:2412.07236): attention across electrodes and attention along
time, side by side.

It was trained at 200 Hz on microvolts / 100, less than 1 in size, of 19 electrodes. A token is one
second of one electrode. It knows no names of electrodes: a convolution over neighbours, in the
order of the windows, says where a token lies.

B windows, C electrodes, S patches of an electrode, N = C * S tokens, D width.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .. import PUBLIC, chosen
from ..layers import Dropout, Linear
from .attention import Attention
from .patches import Resample, filters, spectrum

RATE = 200  # Hz
PATCH = 200  # samples
WIDTH, HEADS, INNER = 200, 8, 800


class Patches(nn.Module):
    """(B, C, S * PATCH) -> tokens (B, C, S, D): what filters say of a patch, plus its amplitude
    spectrum, plus what the neighbours say of its place."""

    def __init__(self, dropout):
        super().__init__()
        self.proj_in = filters(25, groups=5, first=(49, 25, 24))
        self.spectral_proj = nn.Sequential(nn.Linear(PATCH // 2 + 1, WIDTH), Dropout(dropout))
        around = nn.Conv2d(WIDTH, WIDTH, (19, 7), padding=(9, 3), groups=WIDTH)
        self.positional_encoding = nn.Sequential(around)
        # stands for a hidden patch; nothing is hidden here, but it belongs to the weights
        self.register_buffer("mask_encoding", torch.zeros(PATCH))

    def forward(self, x):
        patches = x.unflatten(2, (-1, PATCH))
        filtered = self.proj_in(patches.flatten(1, 2)[:, None])  # (B, 25, N, 8)
        filtered = filtered.transpose(1, 2).flatten(2).unflatten(1, patches.shape[1:3])
        amplitudes = spectrum(patches, norm="forward").abs().to(x.dtype)
        tokens = filtered + self.spectral_proj(amplitudes)
        return tokens + self.positional_encoding(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Layer(nn.Module):
    """(B, C, S, D) -> (B, C, S, D). Half of a token looks at the other electrodes in the same
    second, half at the other seconds of the same electrode."""

    def __init__(self, dropout):
        super().__init__()
        self.self_attn_s = Attention(WIDTH // 2, HEADS // 2, dropout)
        self.self_attn_t = Attention(WIDTH // 2, HEADS // 2, dropout)
        self.linear1, self.linear2 = Linear(WIDTH, INNER), Linear(INNER, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.dropout = Dropout(dropout)

    def forward(self, x):
        windows, electrodes, patches = x.shape[:3]
        space, time = self.norm1(x).chunk(2, 3)
        space = self.self_attn_s(space.transpose(1, 2).flatten(0, 1))
        space = space.unflatten(0, (windows, patches)).transpose(1, 2)
        time = self.self_attn_t(time.flatten(0, 1)).unflatten(0, (windows, electrodes))
        x = x + self.dropout(torch.cat([space, time], 3))
        inner = F.gelu(self.linear1(self.norm2(x).flatten(1, 2)))
        inner = self.linear2(self.dropout(inner)).unflatten(1, (electrodes, patches))
        return x + self.dropout(inner)


class CBraMod(nn.Module):
    """(B, C, T) at 100 Hz in hundreds of microvolts -> (B, n_outputs) numbers.

    Settings: depth, layers; pool, "electrodes" where the head reads the mean over them, "none"
    where it reads each token, as braindecode's does; dropout, of what each layer adds.
    """

    normalize = PUBLIC["cbramod"]
    hidden = "head.1"  # what it is given are the last hidden features

    def __init__(self, n_chans=129, n_times=200, n_outputs=1, **settings):
        super().__init__()
        s = chosen("cbramod", settings)
        self.resample = Resample(n_times, RATE, PATCH)
        self.patch_embedding = Patches(s.dropout)
        layers = nn.ModuleList(Layer(s.dropout) for _ in range(s.depth))
        self.encoder = nn.ModuleDict({"layers": layers})
        self.proj_out = nn.Sequential(nn.Linear(WIDTH, WIDTH))
        self.size = WIDTH
        self.pooled = s.pool == "electrodes"
        read = (1 if self.pooled else n_chans) * self.resample.patches * WIDTH
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(read, n_outputs))

    def encode(self, x):
        """(B, C, S * PATCH) at RATE -> (B, C, S, D)"""
        x = self.patch_embedding(x)
        for layer in self.encoder["layers"]:
            x = layer(x)
        return self.proj_out(x)

    def moments(self, x):
        """Windows as `forward` takes them -> (B, S, D), the mean over electrodes."""
        return self.encode(self.resample(x)).mean(1)

    def forward(self, x):
        return self.head(self.moments(x) if self.pooled else self.encode(self.resample(x)))

    def stages(self):
        """As Encoder.stages."""
        layers = [[f"encoder.layers.{i}"] for i in range(len(self.encoder["layers"]))]
        layers[-1].append("proj_out")
        return [["patch_embedding"], *layers]
