"""LUNA (Döner et al. 2025, arXiv:2510.22257): a few learned queries ask all electrodes, which are
known by where they lie, and attention follows their answers in time.

It was trained at 256 Hz on z-scores of each electrode, of up to 29 electrodes or pairs. A token is
40 samples (0.16 s) of one electrode.

B windows, C electrodes, S patches of an electrode, Q queries, D width of a token.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .. import PUBLIC, chosen
from ..layers import Dropout, Linear
from ..montage import CHANNELS, places
from .attention import Attention
from .patches import Resample, filters, spectrum

RATE = 256  # Hz
PATCH = 40  # samples
HEADS = 2
SIZES = {"base": (64, 4, 8), "large": (96, 6, 10), "huge": (128, 8, 24)}  # width, queries, depth


def waves(at, width):
    """Where electrodes lie (C, 3) -> (C, width): sines and cosines of 1, 2, 4, ... times each
    coordinate, which runs from 0 to 1 over the electrodes; zeros fill what is left."""
    least, most = at.amin(0), at.amax(0)
    at = (at - least) / (most - least + 1e-8)
    angles = at[:, None] * 2.0 ** torch.arange(width // 6)[:, None]  # (C, frequencies, 3)
    found = torch.stack([angles.sin(), angles.cos()], 3).flatten(1)
    return F.pad(found, (0, width - found.shape[1]))


class Perceptron(nn.Module):
    """(..., inputs) -> (..., outputs)"""

    def __init__(self, inputs, inner, outputs, dropout=0.0, normed=False):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, inner), nn.Linear(inner, outputs)
        if normed:
            self.norm = nn.LayerNorm(inner)
        self.dropout, self.normed = Dropout(dropout), normed

    def forward(self, x):
        x = self.dropout(F.gelu(self.fc1(x)))
        return self.fc2(self.norm(x) if self.normed else x)


class Query(nn.Module):
    """(B, Q, D) -> (B, Q, D): the queries look at each other."""

    def __init__(self, width, dropout):
        super().__init__()
        self.self_attn = Attention(width, HEADS, dropout)
        self.linear1, self.linear2 = Linear(width, 4 * width), Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, x):
        x = x + self.dropout(self.self_attn(self.norm1(x)))
        inner = self.dropout(F.gelu(self.linear1(self.norm2(x))))
        return x + self.dropout(self.linear2(inner))


class Electrodes(nn.Module):
    """The tokens of all electrodes in one patch (B, C, D) -> what the queries find (B, Q, D)."""

    def __init__(self, width, queries, dropout):
        super().__init__()
        self.query_embed = nn.Parameter(torch.randn(1, queries, width))
        self.cross_attention = Attention(width, HEADS, dropout)
        self.ffn = Perceptron(width, 4 * width, width, dropout)
        self.keys_norm, self.values_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_norm = nn.LayerNorm(width)
        layers = nn.ModuleList(Query(width, dropout) for _ in range(3))
        self.query_self_attn = nn.ModuleDict({"layers": layers})
        # nothing reads it, but it belongs to the weights
        self.register_buffer("temperature", torch.tensor(1.0))

    def forward(self, x):
        queries = self.queries_norm(self.query_embed).expand(len(x), -1, -1)
        found = self.cross_attention.across(queries, self.keys_norm(x), self.values_norm(x))
        found = found + self.ffn(found)
        for layer in self.query_self_attn["layers"]:
            found = layer(found)
        return found


class Turned(nn.Module):
    """Numbers (B, heads, S, E) by pairs -> the same, turned by an angle that grows with the patch,
    more slowly from pair to pair (Su et al. 2021)."""

    def __init__(self, size):
        super().__init__()
        self.register_buffer("freqs", 10000.0 ** (-torch.arange(0, size, 2) / size))

    def forward(self, x):
        angles = torch.arange(x.shape[2]).to(self.freqs)[:, None] * self.freqs
        sin, cos = angles.sin(), angles.cos()
        a, b = x.unflatten(3, (-1, 2)).unbind(4)
        return torch.stack([a * cos - b * sin, b * cos + a * sin], 4).flatten(3).to(x.dtype)


class Moments(nn.Module):
    """(B, S, D) -> (B, S, D): attention between the patches, which knows how far apart they are."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.rotary_emb = heads, Turned(width // heads)
        self.qkv_proj, self.proj = Linear(width, 3 * width), Linear(width, width)

    def forward(self, x):
        parts = self.qkv_proj(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys = self.rotary_emb(parts[0]), self.rotary_emb(parts[1])
        seen = F.scaled_dot_product_attention(queries, keys, parts[2])
        return self.proj(seen.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Moments(width, heads)
        self.mlp = Perceptron(width, 4 * width, width, normed=True)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Head(nn.Module):
    """(B, S, D) -> (B, n_outputs): one query asks all patches."""

    def __init__(self, width, n_outputs, dropout):
        super().__init__()
        self.learned_agg = nn.Parameter(torch.randn(1, 1, width))
        self.decoder_attn = Attention(width, HEADS, dropout)
        self.decoder_ffn = Perceptron(width, 4 * width, n_outputs, dropout)

    def forward(self, x):
        query = self.learned_agg.to(x.dtype).expand(len(x), -1, -1)
        return self.decoder_ffn(self.decoder_attn.across(query, x, x)[:, 0])


class LUNA(nn.Module):
    """(B, C, T) at 100 Hz, each electrode in its standard deviations -> (B, n_outputs) numbers.

    Settings: size, base, large or huge; channels, the names of the electrodes, by default those of
    the HydroCel net; dropout. Raises ValueError for electrodes of which no place is known.
    """

    normalize = PUBLIC["luna"]
    hidden = "head.decoder_ffn"  # what it is given are the last hidden features

    def __init__(self, n_chans=129, n_times=200, n_outputs=1, **settings):
        super().__init__()
        s = chosen("luna", settings)
        width, queries, depth = SIZES[s.size]
        names = CHANNELS if s.channels is None else s.channels
        if len(names) != n_chans:
            raise ValueError(
                f"luna has windows of {n_chans} electrodes and {len(names)} names: give it the "
                "name of each, in the order of the windows, as in channels=['E36', 'Cz']"
            )
        self.electrodes = tuple(names)
        self.resample = Resample(n_times, RATE, PATCH)
        self.register_buffer("waves", waves(torch.tensor(places(names)), width), persistent=False)
        self.patch_embed = nn.ModuleDict({"proj_in": filters(width // 4, 4, first=(19, 10, 9))})
        parts = 2 * (PATCH // 2 + 1)  # amplitudes and phases
        phases = Perceptron(parts, 4 * parts, width)
        self.freq_embed = nn.ModuleDict({"frequency_to_embed": phases})
        self.channel_location_embedder = Perceptron(width, 2 * width, width)
        self.cross_attn = Electrodes(width, queries, s.dropout)
        self.size = width * queries
        blocks = (Block(self.size, HEADS * queries) for _ in range(depth))
        self.blocks, self.norm = nn.ModuleList(blocks), nn.LayerNorm(self.size)
        # stands for a hidden patch; nothing is hidden here, but it belongs to the weights
        self.register_buffer("mask_token", torch.zeros(1, 1, width))
        self.head = Head(self.size, n_outputs, s.dropout)

    def tokens(self, x):
        """(B, C, S * PATCH) -> (B, S, C, D)"""
        patches = x.unflatten(2, (-1, PATCH))
        filtered = self.patch_embed["proj_in"](patches.flatten(1, 2)[:, None])
        filtered = filtered.permute(0, 2, 3, 1).flatten(2).unflatten(1, patches.shape[1:3])
        found = spectrum(patches)
        found = torch.cat([found.abs(), found.angle()], 3).to(x.dtype)
        tokens = filtered + self.freq_embed["frequency_to_embed"](found)
        return tokens.transpose(1, 2) + self.channel_location_embedder(self.waves)

    def encode(self, x):
        """(B, C, S * PATCH) at RATE -> (B, S, Q * D)"""
        tokens = self.tokens(x)
        x = self.cross_attn(tokens.flatten(0, 1)).flatten(1).unflatten(0, tokens.shape[:2])
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def moments(self, x):
        """Windows as `forward` takes them -> (B, S, Q * D)"""
        return self.encode(self.resample(x))

    def forward(self, x):
        return self.head(self.moments(x))

    def stages(self):
        """As Encoder.stages."""
        tokens = ["patch_embed", "freq_embed", "channel_location_embedder", "cross_attn"]
        blocks = [[f"blocks.{i}"] for i in range(len(self.blocks))]
        blocks[-1].append("norm")
        return [[*tokens, "mask_token"], *blocks]
