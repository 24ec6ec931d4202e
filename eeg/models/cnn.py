"""A compact residual CNN that looks through filters of several lengths, alone ("cnn") and joined by
neuroscience features ("hybrid").

B windows, C electrodes, T samples, W width, F features; channels come last inside, (B, T, W).
"""

import torch
from torch import nn
from torch.nn import functional as F

from . import chosen
from .layers import DepthwiseConv1d, Pointwise, Stem, halved


class Scales(nn.Module):
    """A residual block (B, T, W) -> (B, T, W) that splits its channels into as many groups as there
    are kernels, and filters each group with its own length.
    """

    def __init__(self, width, kernels):
        super().__init__()
        share = width // len(kernels)
        self.filters = nn.ModuleList(DepthwiseConv1d(share, each, bias=False) for each in kernels)
        self.mix = Pointwise(width, width)

    def forward(self, x):
        parts = x.chunk(len(self.filters), 2)
        filtered = [own(part) for own, part in zip(self.filters, parts)]
        return x + F.relu(self.mix(torch.cat(filtered, 2)))


class AttentionPool(nn.Module):
    """(B, T, W) -> (B, W + heads): each head's share of the channels at the moments it attends to,
    then where these moments are, from -1 to 1.
    """

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.score = heads, nn.Linear(width, heads)

    def forward(self, x):
        attention = self.score(x).softmax(1)  # (B, T, heads)
        parts = x.unflatten(2, (self.heads, -1))
        place = torch.linspace(-1, 1, x.shape[1], dtype=attention.dtype, device=x.device)
        seen = torch.einsum("bth,bthw->bhw", attention, parts).flatten(1)
        return torch.cat([seen, attention.transpose(1, 2) @ place], 1)


class CNN(nn.Module):
    """(B, C, T) -> (B, n_outputs). Time is halved after each of the first two blocks.

    Settings: width, channels inside; depth, blocks; kernels, taps for each group of channels;
    heads, of the attention over time; hidden, units before the answer; dropout, for the pooled
    numbers and those units.
    """

    hidden = "last"  # what it is given are the last hidden features

    def __init__(self, n_chans=129, n_times=200, n_outputs=1, **settings):
        super().__init__()
        s = chosen("cnn", settings)
        self.stem = Stem(n_chans, s.width)
        self.blocks = nn.ModuleList(Scales(s.width, s.kernels) for _ in range(s.depth))
        self.pool = AttentionPool(s.width, s.heads)
        self.joined = nn.Linear(s.width + s.heads, s.hidden)
        self.last = nn.Linear(s.hidden, n_outputs)
        self.dropout = s.dropout

    def pooled(self, x):
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i < 2:
                x = halved(x)
        return self.dropped(self.pool(x))

    def dropped(self, x):
        return F.dropout(x, self.dropout, self.training)

    def answer(self, joined):
        return self.last(self.dropped(F.relu(joined)))

    def forward(self, x):
        return self.answer(self.joined(self.pooled(x)))


class Hybrid(CNN):
    """(B, C, T) and normalised features (B, n_features) -> (B, n_outputs): a CNN whose last hidden
    layer also sees the features. Its settings are CNN's, and groups, which says what features.
    """

    def __init__(self, n_chans=129, n_times=200, n_outputs=1, n_features=103, **settings):
        settings.pop("groups", None)  # the model's matter: here is only their number
        super().__init__(n_chans, n_times, n_outputs, **settings)
        self.known = nn.Linear(n_features, self.joined.out_features, bias=False)

    def forward(self, x, features):
        return self.answer(self.joined(self.pooled(x)) + self.known(self.dropped(features)))
