"""The options of a model that is fitted in closed form: which of them it reads, and what it has
instead of the others.

Imports nothing heavy: arguments are checked with it before torch is there.
"""

from eeg import UserError, hints
from eeg.models import CLOSED_FORM

# instead of the defaults
USUAL = {"normalize": "none", "aux": (), "augment": {}, "epochs": 1, "amp": "off", "device": "cpu"}
USUAL |= {"blend": "none", "members": 1}
UNREAD = (
    *(
        "lr",
        "weight_decay",
        "batch_size",
        "l1",
        "coral",
        "loss",
        "optimizer",
        "rho",
        "clip",
        "schedule",
    ),
    *("warmup", "ema", "patience", "balance", "features", "checkpoint_minutes"),
    *("freeze", "lora", "layer_decay"),
)


def usual(model: str) -> dict:
    """{option: what it is where it is not given}, of options in which a model differs from all
    others."""
    return USUAL if model in CLOSED_FORM else {}


def check_read(given: dict) -> None:
    """Raises ValueError where an option is given that the model does not read. None counts as not
    given, and so does what the model has anyway."""
    if given.get("model") not in CLOSED_FORM:
        return
    for name in (*UNREAD, *USUAL):
        value = given.get(name)
        if value is None or (name == "device" and value == "auto"):
            continue
        if name in USUAL and (value == USUAL[name] or not (value or USUAL[name])):
            continue
        raise ValueError(
            f"--{name.replace('_', '-')}: {given['model']} is fitted in closed form, without steps "
            "and on the CPU, and does not read it; leave it out"
        )


def check_searched(challenge: int, model: str | None) -> None:
    """Raises UserError for a model that a search has nothing to draw for."""
    if model in CLOSED_FORM:
        train = hints.command("train", "--challenge", challenge, "--model", model)
        raise UserError(
            f"{model} chooses its strength itself, so there is nothing to search; fit it with: "
            f"{train}"
        )
