"""Measurements side by side, the rows of run/bench.py.

A row is a function of the number of rounds (`quality`: of its plan). It returns whether its results
were equal and its goals met. The file with it is imported when the row runs.
"""

ROWS = {  # name of a row and its function -> file
    **dict.fromkeys(("cache", "decode", "linear", "gather", "augment", "features"), "data"),
    **dict.fromkeys(("depthwise", "block", "eegnex", "tcn", "latency"), "models"),
    **dict.fromkeys(("evaluate", "coverage"), "scoring"),
    **dict.fromkeys(("train", "large"), "training"),
    "quality": "quality",
    "foundation": "foundation.cells",
}
ONLY_BY_NAME = {"coverage", "quality", "foundation"}
