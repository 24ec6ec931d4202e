"""A compact residual CNN that looks through filters of several lengths, alone ("cnn") and joined by
neuroscience features ("hybrid").

B windows, C electrodes, T samples, W width, F features; channels come last inside, (B, T, W).
"""

import torch
from torch import nn
from torch.nn import functional as F

from .layers import DepthwiseConv1d, Pointwise, Stem, halved


class Scales(nn.Module):
    """A residual block whose channels are filtered in as many groups as there are kernels, each
    with its own length: (B, T, W) -> (B, T, W).
    """

    def __init__(self, width, kernels):
        super().__init__()
        self.filters = nn.ModuleList(
            DepthwiseConv1d(width // len(kernels), kernel, bias=False) for kernel in kernels
        )
        self.mix = Pointwise(width, width)

    def forward(self, x):
        parts = x.chunk(len(self.filters), 2)
        return x + F.relu(
            self.mix(torch.cat([own(part) for own, part in zip(self.filters, parts)], 2))
        )


class AttentionPool(nn.Module):
    """(B, T, W)

    -> (B, W + heads): each head's share of the channels at the moments it attends to, and where,
    from -1 to 1, those moments are.
    """

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.score = heads, nn.Linear(width, heads)

    def forward(self, x):
        attention = self.score(x).softmax(1)  # (B, T, heads)
        parts = x.unflatten(2, (self.heads, -1))
        where = attention.transpose(1, 2) @ torch.linspace(
            -1, 1, x.shape[1], dtype=attention.dtype, device=x.device
        )
        return torch.cat([torch.einsum("bth,bthw->bhw", attention, parts).flatten(1), where], 1)


class CNN(nn.Module):
    """(B, C, T) -> (B, n_outputs). Time is halved after each of the first two blocks.

    width: channels inside; depth: blocks; kernels: taps of each group of channels; heads: of the
    attention over time; hidden: units before the answer; dropout: of the pooled numbers and of
    those units.
    """

    def __init__(
        self,
        n_chans=129,
        n_times=200,
        n_outputs=1,
        width=160,
        depth=4,
        kernels=(7, 15, 31, 63),
        heads=4,
        hidden=64,
        dropout=0.3,
    ):
        super().__init__()
        self.stem = Stem(n_chans, width)
        self.blocks = nn.ModuleList(Scales(width, kernels) for _ in range(depth))
        self.pool = AttentionPool(width, heads)
        self.joined = nn.Linear(width + heads, hidden)
        self.last = nn.Linear(hidden, n_outputs)
        self.dropout = dropout

    def pooled(self, x):
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i < 2:
                x = halved(x)
        return F.dropout(self.pool(x), self.dropout, self.training)

    def forward(self, x):
        return self._answer(self.joined(self.pooled(x)))

    def _answer(self, joined):
        return self.last(F.dropout(F.relu(joined), self.dropout, self.training))


class Hybrid(CNN):
    """(B, C, T) and features (B, n_features), normalised

    -> (B, n_outputs): CNN, its last hidden layer also sees the features. Settings as CNN's.
    """

    def __init__(
        self,
        n_chans=129,
        n_times=200,
        n_outputs=1,
        n_features=103,
        width=160,
        depth=4,
        kernels=(7, 15, 31, 63),
        heads=4,
        hidden=64,
        dropout=0.3,
    ):
        super().__init__(n_chans, n_times, n_outputs, width, depth, kernels, heads, hidden, dropout)
        self.known = nn.Linear(n_features, hidden, bias=False)

    def forward(self, x, features):
        return self._answer(
            self.joined(self.pooled(x))
            + self.known(F.dropout(features, self.dropout, self.training))
        )
