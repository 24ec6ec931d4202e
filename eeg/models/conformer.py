"""A convolution stem, then a transformer: the stem finds waves, attention compares their moments
(after EEG Conformer, Song et al. 2023).

B windows, C electrodes, T samples, N tokens of 4 samples each, D width.
"""

import torch
from torch import nn

from .layers import Block, Stem, halved
from .transformer import Layer, TokenHead


class Conformer(nn.Module):
    """(B, C, T) -> (B, n_outputs) numbers, or (B, T) scores of moments.

    width: channels of the stem and of tokens; kernel: taps of its filters; depth: transformer
    layers; heads: of attention; inner: units between a layer's two linear ones; dropout: of what
    each block and layer adds.
    """

    def __init__(
        self,
        n_chans=129,
        n_times=200,
        n_outputs=1,
        head="number",
        width=96,
        kernel=15,
        depth=2,
        heads=4,
        inner=192,
        dropout=0.1,
    ):
        super().__init__()
        self.stem, self.block, self.coarse = (
            Stem(n_chans, width, kernel),
            Block(width, kernel, 1, dropout),
            Block(width, kernel, 1, dropout),
        )
        self.position = nn.Parameter(0.02 * torch.randn(-(-n_times // 4), width))
        self.layers = nn.Sequential(*(Layer(width, heads, inner, dropout) for _ in range(depth)))
        self.head = TokenHead(head, width, n_times, 4, n_outputs, dropout)

    def forward(self, x):
        x = halved(self.coarse(halved(self.block(self.stem(x)))))
        return self.head(self.layers(x + self.position))
