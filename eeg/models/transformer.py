"""Attention between tokens: a small transformer encoder, and a conformer, which makes its tokens by
convolutions. Both are fit for pretraining: they encode a window of which they see a part.

B windows, C electrodes, T samples, N tokens of `patch` samples each, K of them seen, D width.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from . import chosen, network
from .layers import Block, Dropout, Linear, Normalize, Stem, halved
from .montage import CHANNELS, REGIONS

DECODED, HEADS, INNER = 64, 4, 128  # width of the decoder, which has one layer
LEAST = 1e-6  # spread of a patch, below which it is constant
QUARTERS = 4  # of a window, embedded apart: a response time is a moment, which a mean would lose


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


class Encoder(nn.Module):
    """What networks of tokens share: tokens, layers of attention between them, a head.

    A subclass makes tokens; it has patch, the samples of a token, position (N, D), layers, head,
    and first, the names of what makes the tokens.
    """

    hidden = "head"  # what it is given are the last hidden features

    def encode(self, x, seen=None):
        """(B, C, T) -> (B, N, D). seen (B, K): the numbers of the tokens to look at -> (B, K, D),
        which no sample of the others has touched."""
        x = self.tokens(x, seen)
        for layer in self.layers:
            x = layer(x)
        return x

    def forward(self, x):
        return self.head(self.encode(x))

    def moments(self, x):
        """What is known of each moment of a window: (B, N, D), in their order."""
        return self.encode(x)

    @property
    def size(self):
        """D"""
        return self.position.shape[1]

    def stages(self):
        """The names of its parts from the input on, in lists that are frozen one after the other;
        the head is not among them."""
        return [self.first, *([f"layers.{i}"] for i in range(len(self.layers)))]


def taken(tokens, seen):
    """Of tokens (B, N, ...), those with the numbers seen (B, K): (B, K, ...)."""
    return tokens[torch.arange(len(tokens), device=tokens.device)[:, None], seen]


def cut(x, patch, seen=None):
    """Windows (B, C, T) -> patches (B, N, P, C), or those of the tokens seen (B, K). The last one
    may reach past the window, into zeros."""
    if missing := -x.shape[2] % patch:
        x = F.pad(x, (0, missing))
    patches = x.unflatten(2, (-1, patch))
    if seen is None:
        return patches.permute(0, 2, 3, 1)
    # the order of its memory stays: this is copied once, by what reads it
    which = seen[:, None, :, None].expand(-1, x.shape[1], -1, patch)
    return patches.gather(2, which).permute(0, 2, 3, 1)


class Transformer(Encoder):
    """(B, C, T) -> (B, n_outputs) numbers (one, or the four factors at once), or (B, T) scores of
    moments.

    Settings: head, "number" or "time" for scores; patch, samples a token; width, of tokens; depth,
    layers; heads, of attention; inner, units between a layer's two linear ones; dropout, for what
    each layer adds.
    """

    first = ["project", "position"]

    def __init__(self, n_chans=129, n_times=200, n_outputs=1, **settings):
        super().__init__()
        s = chosen("transformer", settings)
        layers = (Layer(s.width, s.heads, s.inner, s.dropout) for _ in range(s.depth))
        self.n_times, self.patch = n_times, s.patch
        self.n_tokens = -(-n_times // s.patch)  # the last one may reach past the window, into zeros
        self.project = Linear(n_chans * s.patch, s.width)
        self.position = nn.Parameter(0.02 * torch.randn(self.n_tokens, s.width))
        self.layers = nn.ModuleList(layers)
        self.head = TokenHead(s, n_times, s.patch, n_outputs)

    def tokens(self, x, seen=None):
        patches = cut(x, self.patch, seen).flatten(2)
        return self.project(patches) + (self.position if seen is None else self.position[seen])


class Conformer(Encoder):
    """A convolution stem, then a transformer: the stem finds waves, attention compares moments
    (after EEG Conformer, Song et al. 2023). A token is 4 samples.

    (B, C, T) -> (B, n_outputs) numbers, or (B, T) scores of moments.

    Settings: head, "number" or "time" for scores; width, of the stem and of tokens; kernel, taps of
    the stem's filters; depth, transformer layers; heads, of attention; inner, units between a
    layer's two linear ones; dropout, for what each block and layer adds.
    """

    first, patch = ["stem", "block", "coarse", "position"], 4

    def __init__(self, n_chans=129, n_times=200, n_outputs=1, **settings):
        super().__init__()
        s = chosen("conformer", settings)
        layers = (Layer(s.width, s.heads, s.inner, s.dropout) for _ in range(s.depth))
        self.n_times, self.n_tokens = n_times, -(-n_times // 4)
        self.stem = Stem(n_chans, s.width, s.kernel)
        self.block = Block(s.width, s.kernel, 1, s.dropout)
        self.coarse = Block(s.width, s.kernel, 1, s.dropout)
        self.position = nn.Parameter(0.02 * torch.randn(self.n_tokens, s.width))
        self.layers = nn.Sequential(*layers)
        self.head = TokenHead(s, n_times, 4, n_outputs)

    def tokens(self, x, seen=None):
        """Where only some are seen, the samples of the others are 0 to the convolutions."""
        if seen is not None:
            shown = x.new_zeros(len(x), self.n_tokens).scatter_(1, seen, 1)
            x = x * shown.repeat_interleave(4, 1)[:, None, : self.n_times]
        x = halved(self.coarse(halved(self.block(self.stem(x)))))
        return x + self.position if seen is None else taken(x, seen) + self.position[seen]


ENCODERS = {"transformer": Transformer, "conformer": Conformer}


class Embedding(nn.Module):
    """What an encoder makes of windows, as numbers for others to read: the mean of its tokens in
    each quarter. (B, C, T) in volts or microvolts -> (B, size). It always answers as in inference.

    name, normalize and the other settings are those that the encoder was trained with.
    """

    def __init__(self, name, normalize, n_chans=129, n_times=200, **settings):
        super().__init__()
        self.normalize = Normalize(normalize)
        self.network = network(name)(n_chans, n_times, 1, **settings)
        self.network.head = nn.Identity()
        self.size = QUARTERS * self.network.size
        self.requires_grad_(False).eval()

    def train(self, mode=True):
        return super().train(False)

    def forward(self, x):
        x = self.normalize(x).to(next(self.network.parameters()).dtype)
        tokens = self.network.moments(x)
        return F.adaptive_avg_pool1d(tokens.transpose(1, 2), QUARTERS).flatten(1)


# ------------------------------------------------------------------------- the masked autoencoder

# An encoder that sees a part of a window, and a light decoder that restores the rest (He et al.
# 2022, doi:10.1109/CVPR52688.2022.01553). A patch is a token of the window, P samples of all
# electrodes. A share of them is hidden, in spans, and some groups of neighbouring electrodes are
# hidden throughout: both have to be told from the rest. Each patch counts the same: it is compared
# in its own standard deviations, so a guess of its mean has a squared error of about 1.


def region_of():
    """(129,) the region of each electrode."""
    found = torch.zeros(len(CHANNELS), dtype=torch.int64)
    for number, electrodes in enumerate(REGIONS):
        found[torch.tensor(electrodes) - 1] = number
    return found


@dataclass(frozen=True)
class Hiding:
    """What is hidden of each window. share: of its tokens, in spans of `span`; regions: how many of
    REGIONS are hidden throughout."""

    share: float
    span: int
    regions: int

    def draw(self, windows: int, tokens: int, generator=None) -> dict[str, torch.Tensor]:
        """{"seen": (B, K) the tokens that are seen, in order; "covered": (B, C) whether an
        electrode is hidden}. Each span begins at a multiple of its length."""
        spans = torch.rand(windows, -(-tokens // self.span), generator=generator)
        kept = max(1, tokens - round(self.share * tokens))
        order = spans.repeat_interleave(self.span, 1)[:, :tokens].argsort(dim=1, stable=True)
        found = {"seen": order[:, :kept].sort(1).values}
        if self.regions:
            drawn = torch.rand(windows, len(REGIONS), generator=generator).argsort(1)
            found["covered"] = region_of()[None, :, None] == drawn[:, None, : self.regions]
            found["covered"] = found["covered"].any(2)
        return found


class Decoder(nn.Module):
    """What the encoder made of the tokens seen (B, K, D) -> a guess at every patch (B, N, size)."""

    def __init__(self, tokens, width, size):
        super().__init__()
        self.enter = Linear(width, DECODED)
        self.hidden = nn.Parameter(0.02 * torch.randn(DECODED))  # stands for a token not seen
        self.position = nn.Parameter(0.02 * torch.randn(tokens, DECODED))
        self.layer = Layer(DECODED, HEADS, INNER, dropout=0.0)
        self.norm, self.restore = nn.LayerNorm(DECODED), Linear(DECODED, size)
        nn.init.zeros_(self.restore.weight)  # at first it guesses the mean
        nn.init.zeros_(self.restore.bias)

    def forward(self, encoded, seen):
        entered = self.enter(encoded)
        x = self.hidden.to(entered.dtype).repeat(len(seen), len(self.position), 1)
        x = x.scatter(1, seen[:, :, None].expand_as(entered), entered) + self.position
        return self.restore(self.norm(self.layer(x)))


class Masked(nn.Module):
    """An encoder and its decoder. It is used where a Model is trained, and its encoder has the
    names that it has in a Model: network.project.weight and so on.

    settings: Masked(**settings) makes the same again, with weights of its own.
    """

    aux, features, ridge, n_outputs = (), "none", None, 1

    def __init__(self, name, normalize, share, span, regions, n_chans=129, n_times=200, **more):
        super().__init__()
        self.settings = {"name": name, "normalize": normalize, "share": share, "span": span}
        self.settings |= {"regions": regions, "n_chans": n_chans, "n_times": n_times, **more}
        self.window, self.hiding = (n_chans, n_times), Hiding(share, span, regions)
        self.normalize = Normalize(normalize)
        if regions and n_chans != len(CHANNELS):
            raise ValueError(f"regions of {n_chans} electrodes are not known: choose 0 of them")
        self.network = ENCODERS[name](n_chans, n_times, 1, **more)
        width = self.network.size
        self.network.head = nn.Identity()  # nothing is answered
        self.decoder = Decoder(self.network.n_tokens, width, n_chans * self.network.patch)

    def restored(self, x, seen, covered=None):
        """Windows (B, C, T) -> their patches (B, N, P, C) in their own standard deviations, the
        guess at them, and (B, N, C) whether an electrode of a patch was hidden."""
        x = self.normalize(x)
        patches = cut(x, self.network.patch)
        patches = patches - patches.mean((2, 3), keepdim=True)
        spread = patches.square().mean((2, 3), keepdim=True).sqrt()
        patches = patches * torch.where(spread > LEAST, 1 / spread, 0)
        hidden = seen.new_ones(patches.shape[:2], dtype=torch.bool).scatter(1, seen, False)
        hidden = hidden[:, :, None].expand(-1, -1, x.shape[1])
        if covered is not None:
            x, hidden = x * ~covered[:, :, None], hidden | covered[:, None]
        guess = self.decoder(self.network.encode(x, seen), seen).float()
        return patches, guess.unflatten(2, (-1, x.shape[1])), hidden

    def errors(self, x, seen, covered=None):
        """(B,) the mean squared error over what was hidden of each window."""
        patches, guess, hidden = self.restored(x, seen, covered)
        squares = (guess - patches).square().mean(2)
        return (squares * hidden).sum((1, 2)) / hidden.sum((1, 2))

    def raw(self, x, features=None):
        """(B, 1): the errors where every window has the same tokens hidden; to measure what a step
        takes."""
        every = self.hiding.draw(1, self.network.n_tokens, torch.Generator().manual_seed(0))
        drawn = {name: part.to(x.device).expand(len(x), -1) for name, part in every.items()}
        return self.errors(x, **drawn)[:, None]


# ---------------------------------------------------------------------------- relative positioning


class Positioning(nn.Module):
    """An encoder, and a layer that says of two windows whether they are near in time (Banville et
    al. 2021, doi:10.1088/1741-2552/abca18). It is used where a Model is trained, as Masked is.

    settings: Positioning(**settings) makes the same again, with weights of its own.
    """

    aux, features, ridge, n_outputs = (), "none", None, 1

    def __init__(self, name, normalize, n_chans=129, n_times=200, **more):
        super().__init__()
        self.settings = {"name": name, "normalize": normalize, "n_chans": n_chans}
        self.settings |= {"n_times": n_times, **more}
        self.window, self.normalize = (n_chans, n_times), Normalize(normalize)
        self.network = ENCODERS[name](n_chans, n_times, 1, **more)
        width = self.network.position.shape[1]
        self.network.head = nn.Identity()  # nothing is answered
        self.norm, self.compare = nn.LayerNorm(width), nn.Linear(width, 1)

    def embedded(self, x):
        """Windows (B, C, T) -> (B, D), the mean of their tokens."""
        return self.norm(self.network.encode(self.normalize(x))).mean(1).float()

    def compared(self, one, other):
        """What two windows are embedded as, both (B, D) -> (B,): above 0 where they are near."""
        return self.compare((one - other).abs())[:, 0]

    def raw(self, x, features=None):
        """(B, 1): each window beside one without a signal; to measure what a step takes."""
        return self.compare(self.embedded(x))
