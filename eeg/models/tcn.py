"""Temporal convolution network with a score on each moment of the window: what the best solutions
of challenge 1 answer with.

B windows, C electrodes, T samples, W width. Inside, channels come last, (B, T, W): a depthwise
filter then reads whole cache lines and a pointwise layer is a matrix product.
"""

from torch import nn

from .layers import Block, Head, Stem


class TCN(nn.Module):
    """(B, C, T)

    -> (B, T) scores of moments, or (B, n_outputs): depthwise, pointwise to `width`, dilated
    depthwise-separable blocks, attention over channels, head.

    width: channels inside; depth: blocks, of dilation 1, 2, 4, ...; kernel: taps of the depthwise
    filters; dropout: share of channels each block may lose.
    """

    def __init__(
        self,
        n_chans=129,
        n_times=200,
        n_outputs=1,
        head="time",
        width=160,
        depth=4,
        kernel=15,
        dropout=0.1,
    ):
        super().__init__()
        self.stem = Stem(n_chans, width, kernel)
        self.blocks = nn.Sequential(*(Block(width, kernel, 2**i, dropout) for i in range(depth)))
        self.head = Head(head, width, n_outputs)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))
