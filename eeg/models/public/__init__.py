"""Published encoders, written in plain torch: with braindecode's weights they give braindecode's
answers.

Their parameters have the names that they have there, but for RENAMED.
"""

# ours: braindecode's; as parts of a name that a dot precedes
RENAMED = {".head.": ".final_layer.", ".in_proj.": ".in_proj_"}


def from_braindecode(state: dict) -> dict:
    """{braindecode's name: tensor} -> {our name: tensor}, as a network here takes it."""
    return renamed(state, {theirs: ours for ours, theirs in RENAMED.items()})


def to_braindecode(state: dict) -> dict:
    """{our name: tensor} of a network here -> {braindecode's name: tensor}."""
    return renamed(state, RENAMED)


def renamed(state: dict, names: dict[str, str]) -> dict:
    """The same tensors, with other parts of their names. Raises ValueError where two would have one
    name."""
    found = {}
    for name, tensor in state.items():
        whole = f".{name}"
        for old, new in names.items():
            whole = whole.replace(old, new)
        if whole[1:] in found:
            raise ValueError(f"two tensors would be {whole[1:]}, one of them {name}")
        found[whole[1:]] = tensor
    return found
