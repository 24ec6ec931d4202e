"""Attention of published encoders, with the parameters of torch's MultiheadAttention.

B windows, or parts of windows, N tokens, M tokens that are looked at, D width.
"""

from torch import nn
from torch.nn import functional as F

from ..layers import Linear


class Attention(nn.Module):
    """(B, N, D) -> (B, N, D): each token looks at all of its window, by several heads."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj, self.out_proj = Linear(width, 3 * width), Linear(width, width)

    def forward(self, x):
        return self.mixed(*self.in_proj(x).chunk(3, 2))

    def across(self, queries, keys, values):
        """queries (B, N, D) look at others, keys and values (B, M, D)."""
        parts = enumerate((queries, keys, values))
        return self.mixed(*(self.in_proj(each).chunk(3, 2)[part] for part, each in parts))

    def mixed(self, *parts):
        parts = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        dropout = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(*parts, dropout_p=dropout)
        return self.out_proj(seen.transpose(1, 2).flatten(2))
