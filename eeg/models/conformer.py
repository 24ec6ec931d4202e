"""A convolution stem, then a transformer: the stem finds waves, attention compares their moments
(after EEG Conformer, Song et al. 2023).

B windows, C electrodes, T samples, N tokens of 4 samples each, D width.
"""

import torch
from torch import nn

from .layers import Block, Stem, halved
from .settings import chosen
from .transformer import Layer, TokenHead


class Conformer(nn.Module):
    """(B, C, T) -> (B, n_outputs) numbers, or (B, T) scores of moments.

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
