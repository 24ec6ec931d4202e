"""The options of a run, each said once: its default, its argument of run/train.py, whether
config.json keeps it, what a search draws.

Imports nothing heavy: run/train.py checks its arguments with it before torch is loaded.
"""

import argparse
from dataclasses import dataclass, field, fields
from pathlib import Path

from eeg import cli
from eeg.data.augment import AUGMENTATIONS
from eeg.models import SETTINGS, check, normals, tuned
from eeg.models.montage import REGIONS
from eeg.option import About, amount, choice, count, each, flag, limit, option, pairs, releases
from eeg.ridge import options as ridge
from eeg.train.losses import LOSSES
from eeg.transfer import options as pretraining

TARGETS = {  # by challenge; the one that the competition scores comes first
    1: ("rt_from_stimulus", "rt_from_trialstart", "correct"),
    2: ("externalizing", "factors"),
}
AUX = ("age", "sex")
OFFERED = {name: loss.words for name, loss in LOSSES.items() if loss.offered}

# what a search draws from
RATES = each({"log": [3e-4, 5e-3]}, {"log": [1e-4, 3e-3]})
WEIGHT_DECAYS = each({"log": [1e-3, 0.3]}, {"log": [1e-2, 1]})
BATCH_SIZES = each([32, 64, 128], [32, 64, 128])
DECAYS = each([0.9, 0.99, 0.995], [0.9, 0.99, 0.995])


def normalization(text: str) -> str:
    """argparse type: kinds of normalisation, joined by +."""
    try:
        normals(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from None
    return text


@dataclass
class Options:
    """What a run is asked to do. What is not given, or None, takes the default of the challenge."""

    challenge: int = field()
    target: str = option(
        each("rt_from_stimulus", "externalizing"),
        "what to learn: a response time, hit or error, the factor, all four factors",
        "",
        shared=True,
        choices=TARGETS[1] + TARGETS[2],
    )
    model: str = option("tcn", "one of --list-models", "model")
    set: dict = pairs({}, "settings of the model: width=96 depth=5 head=number", "model", "+")
    normalize: str = option(
        each("level+spread", "amplitude"),
        "normalise a window by each electrode's mean and deviation (channel) or deviation alone "
        "(spread), by one deviation for all (window), by median and MAD (robust), in unit alone so "
        "that its amplitude stays, without its mean (amplitude, hundreds) or with it (level), or "
        "not at all (none); of several, joined by +, the --members take turns",
        "model",
        type=normalization,
        metavar="KIND",
    )
    blend: str = choice(
        "ridge none",
        "fit a ridge beside the network, in closed form, and weigh the answers of both on the "
        "validation subjects",
        "model",
    )
    members: int = count(
        each(3, 1),
        "train N networks side by side, which differ in their first weights, and answer their mean",
        "model",
    )
    features: str | None = option(
        None,
        "where the hybrid model takes its features from: the cache, or the window itself",
        "model",
        usual="file",
        choices=("none", "file", "layer"),
    )
    aux: tuple = option(
        each((), AUX), "what else to learn in challenge 2", "model", nargs="*", choices=AUX
    )
    train: tuple | None = releases(
        "releases to train on", "those of R1 R2 R3 R4 R8 R9 R10 R11 that are cached"
    )
    valid: tuple | None = releases(
        "releases to validate on", "R5 if cached, else 20 %% of the training subjects", shared=True
    )
    mini: bool = option(False, shared=True)
    cv: int = count(
        0,
        "train N folds by subject over the training releases, one run each",
        "data",
        usual="one run",
    )
    max_recordings: int | None = limit("use the first N recordings of each release")
    max_subjects: int | None = limit("use the first N subjects of each release")
    keep_copies: bool = flag("also use blocks that were copied from another run")
    keep_bad: bool = flag("also use the subjects known to be bad")
    balance: bool = option(False, "draw all subjects equally often", "data", action="store_true")
    augment: dict = pairs(
        each({"noise": 0.05, "mask": 0.1}, {"noise": 0.05, "mask": 0.1, "dropout": 0.1}),
        f"strengths of {', '.join(AUGMENTATIONS)}; --augment alone turns all of them off",
        "data",
        "*",
    )
    align: str = choice(
        "none spread euclidean",
        "take from each subject's windows how large its signals are, by all of them: divide each "
        "electrode by its deviation (spread), or multiply by the inverse square root of their "
        "covariance (euclidean); run/submit.py refuses such a run, because the server shows single "
        "windows of unknown subjects",
        "data",
    )
    epochs: int = count(each(12, 10), "train for at most N epochs")
    lr: float = amount(each(3e-3, 1e-3), "learning rate", searched=RATES)
    weight_decay: float = amount(each(1e-2, 5e-2), "weight decay of AdamW", searched=WEIGHT_DECAYS)
    batch_size: int = count(64, "windows in a step, over all processes", searched=BATCH_SIZES)
    l1: float = amount(0.0, "strength of an L1 penalty on the weights")
    coral: float = amount(
        0.0,
        "strength of CORAL, which makes the covariance of the network's last hidden features alike "
        "in all training releases or, where there is one release, subjects",
    )
    loss: str | None = option(
        None,
        "what to minimise: " + "; ".join(f"{name}, {words}" for name, words in OFFERED.items()),
        usual="time for models with a time head, else mse; cross-entropy for --target correct",
        choices=tuple(OFFERED),
    )
    optimizer: str = choice("adamw sam", "optimizer; sam looks for flat minima, at twice the cost")
    rho: float = amount(0.05, "how far sam looks")
    clip: float = amount(1.0, "cut gradients to this norm; 0 does not cut")
    schedule: str = choice("cosine onecycle plateau constant", "course of the learning rate")
    warmup: float = amount(1.0, "epochs over which the learning rate rises", metavar="N")
    ema: float = amount(
        0.99,
        "decay of the averaged weights, which are validated and kept; 0 does not average",
        type=cli.share,
        searched=DECAYS,
    )
    patience: int = count(15, "stop after N epochs without a better one")
    amp: str = choice(
        "auto off fp16 bf16",
        "mixed precision",
        "machine",
        usual="auto, what the device supports if it is faster",
    )
    cache: Path = option(Path("cache"))
    fold: tuple | None = option(None)  # (number, of how many)
    seed: int = option(0)
    task: str = choice(
        "masked positioning",
        "learn to restore hidden parts of windows (masked), or to tell whether two windows of a "
        "recording are near in time, which is cheaper (positioning)",
        "model",
    )
    near: float = amount(
        10.0, "windows that begin at most S seconds apart are near", "model", metavar="S"
    )
    far: float = amount(
        60.0, "windows that begin at least S seconds apart are far", "model", metavar="S"
    )
    mask: float = amount(0.4, "share of a window's time to hide", "model", type=cli.share)
    span: int = count(3, "hide spans of N tokens", "model")
    mask_regions: int = option(
        4,
        f"also hide N of {len(REGIONS)} groups of neighbouring electrodes for the whole window",
        "model",
        type=cli.whole,
        metavar="N",
    )
    init: str | None = option(
        None,
        "begin with the encoder of a run, as of run/pretrain.py, or with published weights in a "
        "file, .safetensors or a state dict of torch",
        "model",
        metavar="RUN",
    )
    freeze: int = option(
        0,
        "leave the first N stages as they are: 1 makes the tokens, 2 is a layer of attention, ...",
        "model",
        type=cli.whole,
        metavar="N",
    )
    lora: int = option(
        0,
        "leave the encoder as it is but for a change of rank R of each linear layer",
        "model",
        type=cli.positive,
        metavar="R",
    )
    layer_decay: float = amount(
        1.0, "multiply the learning rate by X for each stage further from the head", "model"
    )
    # What follows may differ each time the run is resumed.
    device: str = option("auto", kept=False)
    threads: int | None = count(
        None,
        "CPU threads of each process",
        "machine",
        usual="a resumed run keeps its number, on which the last digits of its results depend; "
        "else $OMP_NUM_THREADS; else one for each core that other programs leave free",
        kept=False,
    )
    max_memory: float = amount(
        80.0,
        "save and stop at this percentage of the memory of the machine or of its control group",
        "machine",
        kept=False,
        type=cli.percent,
        metavar="P",
    )
    checkpoint_minutes: float = amount(
        5.0,
        "save every M minutes, as well as at the end of each epoch",
        "machine",
        kept=False,
        metavar="M",
    )

    def __post_init__(self):
        usual = ridge.usual(self.model) | pretraining.usual(self.model)
        usual = pretraining.USUAL if self.pretrains else usual
        for name, about in ABOUT.items():
            if getattr(self, name) is None:
                default = usual.get(name, about.defaults[self.challenge - 1])
                setattr(self, name, dict(default) if isinstance(default, dict) else default)

    @property
    def pretrains(self) -> bool:
        return self.target == pretraining.SIGNAL

    @classmethod
    def from_config(cls, config: dict, **now) -> "Options":
        """Read what config.json keeps. now: those of this process. Options that no longer exist are
        ignored."""
        kept = {"blend": "none", "members": 1}  # runs from before there were these
        kept |= {name: value for name, value in config["train"].items() if name in ABOUT}
        return cls(config["challenge"], **kept | {"cache": Path(kept.get("cache", "cache"))} | now)

    def kept(self) -> dict:
        """What config.json keeps of it, under "train"."""
        left_out = pretraining.not_kept(self)
        names = [name for name, about in ABOUT.items() if about.kept and name not in left_out]
        found = {name: getattr(self, name) for name in names}
        return found | {"cache": str(self.cache.absolute())}

    def check(self) -> None:
        """Raises ValueError, which names the argument, where options do not fit each other."""
        targets = TARGETS[self.challenge]
        pretraining.check_transfer(self)
        if self.pretrains:
            pretraining.check_task(self)
        elif self.target not in targets:
            fitting = f"the targets of challenge {self.challenge} are {', '.join(targets)}"
            raise ValueError(f"--target {self.target}: {fitting}")
        try:
            check(self.model, self.set)
        except ValueError as e:
            raise ValueError(f"--{'set' if self.model in SETTINGS else 'model:'} {e}") from None
        if unknown := [name for name in self.augment if name not in AUGMENTATIONS]:
            known = ", ".join(AUGMENTATIONS)
            raise ValueError(f"--augment {unknown[0]}: the augmentations are {known}")
        if not all(isinstance(value, (int, float)) for value in self.augment.values()):
            raise ValueError("--augment: a strength is a number, as in --augment scale=0.2 mix=0.4")
        if self.aux and self.challenge == 1:
            raise ValueError("--aux: a cache of challenge 1 holds neither age nor sex")
        if self.align != "none" and self.features == "layer":
            raise ValueError("--align with --features layer: features are those of windows in uV")
        if self.coral and self.augment.get("mix"):
            raise ValueError("--coral with --augment mix, whose windows belong to two subjects")
        if self.cv == 1:
            raise ValueError("--cv 1: expected at least 2 folds")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed {self.seed}: a seed lies from 0 to {2**32 - 1}")


ABOUT: dict[str, About] = {f.name: f.metadata["about"] for f in fields(Options) if f.metadata}


def add_arguments(p: argparse.ArgumentParser, pretrains: bool = False) -> dict:
    """Add the options to a parser. -> {name: group of arguments}, to which a script adds its own.
    pretrains: those of run/pretrain.py"""
    left_out = pretraining.UNREAD if pretrains else pretraining.OWN
    titles = ("model", "data", "training", "machine")
    groups = {"": p} | {title: p.add_argument_group(title) for title in titles}
    for name, about in ABOUT.items():
        if about.words and name not in left_out:
            instead = [pretraining.USUAL[name]] if pretrains and name in pretraining.USUAL else []
            known = about.argument | {"default": None, "help": about.help(*instead)}
            groups[about.group].add_argument(f"--{name.replace('_', '-')}", **known)
    return groups


def from_arguments(args: argparse.Namespace, **more) -> Options:
    """The options that a command line gives. more: those that it leaves to the script. Raises
    ValueError."""
    given = {name: getattr(args, name) for name in ABOUT if hasattr(args, name)} | more
    for name in ("set", "augment"):
        if given[name] is not None:
            given[name] = dict(given[name])
    ridge.check_read(given)
    pretraining.check_read(given)
    options = Options(args.challenge, **given)
    options.check()
    return options


# A search sets these itself, or they make no sense in it.
OF_A_SEARCH = "challenge epochs cv seed cache data out name resume tmux list_models".split()


def usual_space(challenge: int, model: str | None) -> dict:
    """What a search draws from by default: {option: values}.

    An unknown model adds nothing: run/train.py reports the mistake. A draw takes its random numbers
    in the order of the fields of Options: another order would draw other settings. Raises UserError
    for a model that has nothing to draw.
    """
    ridge.check_searched(challenge, model)
    space = {
        name.replace("_", "-"): about.searched[challenge - 1]
        for name, about in ABOUT.items()
        if about.searched[challenge - 1]
    }
    name = model or ABOUT["model"].defaults[challenge - 1]
    of_model = tuned(name) if name in SETTINGS else {}
    return space | {f"set.{setting}": values for setting, values in of_model.items()}


def search_rules():
    """What eeg.runs.study needs to know of the options. -> eeg.runs.space.Rules"""
    from eeg.runs.space import Rules

    shared = frozenset(name for name, about in ABOUT.items() if about.shared)
    return Rules(frozenset(OF_A_SEARCH), shared, usual_space)
