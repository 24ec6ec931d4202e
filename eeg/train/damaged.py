"""Windows with NaN or infinity: left out of training and validation, counted, the first named."""

from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np

from eeg.data.cache import Cache, rebuild_known

NAMED = 3  # windows that are named


class Damaged:
    """rows: those met so far. on_event(kind, text) is told of the first ones."""

    def __init__(self, cache: Cache, on_event: Callable):
        self.cache, self.on_event, self.rows = cache, on_event, set()

    def add(self, rows: np.ndarray, side: str) -> None:
        """side: what they are left out of, training or validation."""
        for row in rows.tolist():
            if row not in self.rows and len(self.rows) < NAMED:
                more = "; what follows is counted only" if len(self.rows) == NAMED - 1 else ""
                self.on_event("left out", f"{self.cache.damage(row)}, left out of {side}{more}")
            self.rows.add(row)

    def without(self, batch):
        """The batch without its damaged windows. If it has no others, it is left as it is."""
        if batch.finite.all():
            return batch
        self.add(batch.rows[~batch.finite], "training")
        if not batch.finite.any():
            return batch
        kept = {f.name: getattr(batch, f.name)[batch.finite] for f in fields(batch)}
        return replace(batch, **kept)

    def files(self) -> str:
        """How many windows each file lost, and the command that rebuilds it."""
        parts = Counter(int(self.cache.part_of(row)) for row in self.rows)
        found = []
        for part, count in sorted(parts.items()):
            path = self.cache.paths[part]
            command = rebuild_known(path, self.cache.attributes[part])
            found.append(f"{count:,} of {path}, rebuild it with: {command}")
        return "; ".join(found)
