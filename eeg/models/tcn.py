"""Temporal convolution network with a score on each moment of the window, as in the best solutions
of challenge 1.

B windows, C electrodes, T samples, W width. Inside, channels come last, (B, T, W): a depthwise
filter then reads whole cache lines and a pointwise layer is a matrix product.
"""

from torch import nn

from . import chosen
from .layers import Block, Head, Stem


class TCN(nn.Module):
    """(B, C, T) -> (B, T) scores of moments, or (B, n_outputs).

    Settings: head, "time" for scores or "number"; width, channels inside; depth, blocks, with
    dilations 1, 2, 4, ...; kernel, taps of the filters; dropout, share of channels that a
    block may lose.
    """

    hidden = "head"  # what it is given are the last hidden features

    def __init__(self, n_chans=129, n_times=200, n_outputs=1, **settings):
        super().__init__()
        s = chosen("tcn", settings)
        blocks = (Block(s.width, s.kernel, 2**i, s.dropout) for i in range(s.depth))
        self.stem = Stem(n_chans, s.width, s.kernel)
        self.blocks = nn.Sequential(*blocks)
        self.head = Head(s.head, s.width, n_outputs)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))
