"""Attention between tokens: a small transformer encoder, fit for pretraining (it answers, and it
restores the hidden parts of a window), and a conformer, which makes its tokens by convolutions.

B windows, C electrodes, T samples, N tokens of `patch` samples each, D width.
"""

import torch
from torch import nn
from torch.nn import functional as F

from . import chosen
from .layers import Block, Dropout, Linear, Stem, halved


class Layer(nn.Module):
    """(B, N, D) -> (B, N, D): self-attention, then two linear layers, each normalised first and
    added."""

    def __init__(self, width, heads, inner, dropout):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.mix = Linear(width, 3 * width), Linear(width, width)
        self.widen, self.narrow = Linear(width, inner), Linear(inner, width)
        self.dropout = Dropout(dropout)

    def forward(self, x):
        attend = self.attend(self.norm1(x)).unflatten(2, (3, self.heads, -1))
        seen = F.scaled_dot_product_attention(*attend.permute(2, 0, 3, 1, 4))
        x = x + self.dropout(self.mix(seen.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.narrow(F.gelu(self.widen(self.norm2(x)))))


class TokenHead(nn.Module):
    """Tokens (B, N, D) -> (B, T) scores of moments, or (B, n_outputs) numbers of the mean over
    tokens. s: the network's settings."""

    def __init__(self, s, n_times, patch, n_outputs):
        super().__init__()
        self.kind, self.n_times = s.head, n_times
        self.norm, self.hidden = nn.LayerNorm(s.width), nn.Linear(s.width, s.width)
        self.dropout = nn.Dropout(s.dropout)
        self.last = nn.Linear(s.width, patch if s.head == "time" else n_outputs)

    def forward(self, x):
        if self.kind == "time":
            return self.last(F.gelu(self.hidden(self.norm(x)))).flatten(1)[:, : self.n_times]
        return self.last(self.dropout(F.gelu(self.hidden(self.norm(x).mean(1)))))


class Transformer(nn.Module):
    """(B, C, T) -> (B, n_outputs) numbers (one, or the four factors at once), or (B, T) scores of
    moments.

    Settings: head, "number" or "time" for scores; patch, samples a token; width, of tokens; depth,
    layers; heads, of attention; inner, units between a layer's two linear ones; dropout, for what
    each layer adds.
    """

    def __init__(self, n_chans=129, n_times=200, n_outputs=1, **settings):
        super().__init__()
        s = chosen("transformer", settings)
        layers = (Layer(s.width, s.heads, s.inner, s.dropout) for _ in range(s.depth))
        self.n_chans, self.n_times, self.patch = n_chans, n_times, s.patch
        self.n_tokens = -(-n_times // s.patch)  # the last one may reach past the window, into zeros
        self.project = Linear(n_chans * s.patch, s.width)
        self.position = nn.Parameter(0.02 * torch.randn(self.n_tokens, s.width))
        self.hidden = nn.Parameter(0.02 * torch.randn(s.width))  # replaces a hidden token
        self.layers = nn.ModuleList(layers)
        self.head = TokenHead(s, n_times, s.patch, n_outputs)
        self.restore = Linear(s.width, n_chans * s.patch)

    def encode(self, x, mask=None):
        """(B, C, T) -> (B, N, D). mask (B, N) bool: the tokens to hide."""
        x = F.pad(x.transpose(1, 2), (0, 0, 0, self.n_tokens * self.patch - self.n_times))
        x = self.project(x.reshape(len(x), self.n_tokens, -1))
        if mask is not None:
            x = torch.where(mask[:, :, None], self.hidden.to(x.dtype), x)
        x = x + self.position
        for layer in self.layers:
            x = layer(x)
        return x

    def forward(self, x):
        return self.head(self.encode(x))

    def reconstruct(self, x, mask):
        """Normalised windows (B, C, T) with the tokens of mask (B, N) hidden -> all of them, as far
        as the rest tells (B, C, T)."""
        samples = self.restore(self.encode(x, mask)).reshape(len(x), -1, self.n_chans)
        return samples[:, : self.n_times].transpose(1, 2)

    def masked_samples(self, mask):
        """mask (B, N) of tokens -> (B, T) of samples."""
        return mask.repeat_interleave(self.patch, 1)[:, : self.n_times]


class Conformer(nn.Module):
    """A convolution stem, then a transformer: the stem finds waves, attention compares moments
    (after EEG Conformer, Song et al. 2023). A token is 4 samples.

    (B, C, T) -> (B, n_outputs) numbers, or (B, T) scores of moments.

    Settings: head, "number" or "time" for scores; width, of the stem and of tokens; kernel, taps of
    the stem's filters; depth, transformer layers; heads, of attention; inner, units between a
    layer's two linear ones; dropout, for what each block and layer adds.
    """

    def __init__(self, n_chans=129, n_times=200, n_outputs=1, **settings):
        super().__init__()
        s = chosen("conformer", settings)
        layers = (Layer(s.width, s.heads, s.inner, s.dropout) for _ in range(s.depth))
        self.stem = Stem(n_chans, s.width, s.kernel)
        self.block = Block(s.width, s.kernel, 1, s.dropout)
        self.coarse = Block(s.width, s.kernel, 1, s.dropout)
        self.position = nn.Parameter(0.02 * torch.randn(-(-n_times // 4), s.width))
        self.layers = nn.Sequential(*layers)
        self.head = TokenHead(s, n_times, 4, n_outputs)

    def forward(self, x):
        x = halved(self.coarse(halved(self.block(self.stem(x)))))
        return self.head(self.layers(x + self.position))
