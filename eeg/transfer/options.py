"""The options of pretraining, and of a model that begins with pretrained weights: which there are,
and what they are where they are not given.

Imports nothing heavy: arguments are checked with it before torch is there.
"""

from pathlib import Path

from eeg.models import CLOSED_FORM, PUBLIC
from eeg.models.montage import REGIONS

SIGNAL = "signal"  # the target of pretraining, which needs no labels
ENCODERS = ("transformer", "conformer")  # what can be pretrained
# instead of the defaults of training
USUAL = {"model": ENCODERS[0], "normalize": "channel", "blend": "none", "members": 1, "aux": ()}
USUAL |= {"augment": {}, "epochs": 30, "lr": 1e-3, "weight_decay": 5e-2, "patience": 1000}
BEGIN = (*ENCODERS, *PUBLIC)  # what can begin with an encoder
TASKS = {"masked": ("mask", "span", "mask_regions"), "positioning": ("near", "far")}
OWN = ("task", *sum(TASKS.values(), ()))  # options that run/pretrain.py alone has
TRANSFER = ("init", "freeze", "lora", "layer_decay")  # what --init brings with it
OFF = {"coral": 0.0, "align": "none"}  # domain adaptation that a run does without
UNREAD = (
    *("target", "blend", "members", "features", "aux", "train", "cv", "l1", "coral", "loss"),
    *("optimizer", "rho", "align", *TRANSFER),
)


def in_file(init: str) -> bool:
    """Whether --init names a file of published weights, and not a run."""
    return Path(init).is_file() or Path(init).suffix in (".safetensors", ".pt", ".pth")


def usual(model: str) -> dict:
    """{option: what it is where it is not given}, of options in which a published encoder differs
    from other models. It is large; CBraMod's own fine-tuning has this rate and decay."""
    if model not in PUBLIC:
        return {}
    rates = {"lr": 1e-4, "weight_decay": 5e-2}
    return {"normalize": PUBLIC[model], "members": 1, "batch_size": 16, **rates}


def not_kept(options) -> set[str]:
    """Options that the config.json of a run leaves out, because it has no use for them."""
    if options.pretrains:
        others = (names for task, names in TASKS.items() if task != options.task)
        return set(UNREAD) - {"target", "train", "cv"} | set().union(*others)
    unused = {name for name, off in OFF.items() if getattr(options, name) == off}
    return {*OWN, *(() if options.init else TRANSFER), *unused}


def check_transfer(options) -> None:
    """Raises ValueError where options go with --init, and there is none, or the other way round."""
    embeds = "embeddings" in str(options.set.get("on", ""))
    if options.model in CLOSED_FORM and embeds != bool(options.init):
        raise ValueError("--model ridge: --on embeddings and --init RUN go with each other")
    if embeds and options.align != "none":
        raise ValueError("--align with --on embeddings, which are those of windows as they are")
    for name, unused in {"freeze": 0, "lora": 0, "layer_decay": 1.0}.items():
        if getattr(options, name) != unused and not options.init:
            raise ValueError(f"--{name.replace('_', '-')} goes with --init RUN")
    if options.freeze < 0:
        raise ValueError(f"--freeze {options.freeze}: expected a whole number of at least 0")
    if not 0 < options.layer_decay <= 1:
        raise ValueError(f"--layer-decay {options.layer_decay:g}: expected above 0, at most 1")
    if options.freeze and options.lora:
        raise ValueError("--freeze with --lora, which freezes every layer: choose one of them")


def check_read(given: dict) -> None:
    """Raises ValueError where an option of another task is given. None counts as not given."""
    for task, names in TASKS.items():
        for name in names:
            if given.get(name) is not None and task != (given.get("task") or "masked"):
                raise ValueError(f"--{name.replace('_', '-')} goes with --task {task}")


def check_task(options) -> None:
    """Raises ValueError where an encoder cannot be pretrained so."""
    if options.model not in ENCODERS:
        raise ValueError(f"--model {options.model}: pretraining knows {' and '.join(ENCODERS)}")
    if "head" in options.set:
        raise ValueError("--set head: an encoder is pretrained without a head")
    if options.far <= options.near:
        apart = f"--near {options.near:g} --far {options.far:g}"
        raise ValueError(f"{apart}: what is far is further apart than what is near")
    if not 0 <= options.mask_regions < len(REGIONS):
        what = f"--mask-regions {options.mask_regions}: expected 0 to {len(REGIONS) - 1}"
        raise ValueError(f"{what}, for there are {len(REGIONS)}")
    if "+" in options.normalize:
        raise ValueError(f"--normalize {options.normalize}: an encoder is pretrained with one kind")
    if options.mask == 0:
        raise ValueError("--mask 0 hides no patch: there is nothing to restore")
