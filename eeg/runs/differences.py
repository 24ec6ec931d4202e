"""How the settings of several runs differ, in words."""

from collections import Counter

from eeg.runs.run import Run

# Settings that a table of runs shows in another column, or that follow from the model
SHOWN = "name model normalize features aux set target cache device cv loss".split()
# What is said where a switch is on, and where it is off
SWITCHES = {
    "balance": ("subjects drawn equally often", "windows drawn equally often"),
    "keep_copies": ("copies kept", "copies left out"),
    "keep_bad": ("bad subjects kept", "bad subjects left out"),
    "mini": ("mini releases", "full releases"),
}


def differences(runs: list[Run]) -> list[str]:
    """For each run, its settings that differ from the others', except what more than half share."""
    settings = [_settings(run) for run in runs]
    known = dict.fromkeys(key for own in settings for key in own)
    strengths = [key for key in known if key[0] == "augment"]
    settings = [dict.fromkeys(strengths, 0) | own for own in settings]
    counts = {key: Counter(repr(own[key]) for own in settings if key in own) for key in known}
    rare = lambda key, value: 2 * counts[key][repr(value)] <= counts[key].total()
    shown = [[item for item in own.items() if rare(*item)] for own in settings]
    return [", ".join(_words(key[-1], value) for key, value in own) for own in shown]


def _settings(run):
    """{key: value}: ("train", option), ("augment", name), and ("model", its name, setting).

    Another model need not have the same settings, so they are compared within a model.
    """
    model, train = run.config["model"], dict(run.config["train"])
    augment, fold = train.pop("augment", {}), train.get("fold")
    if fold:
        train.pop("valid", None)  # the fold says who validates
    found = {("train", key): value for key, value in train.items() if key not in SHOWN}
    found |= {("augment", key): value for key, value in augment.items()}
    found |= {("model", model["name"], key): value for key, value in model.items() if key != "name"}
    found |= {("model", model["name"], "loss"): run.config.get("loss")}
    return found | {("run", "precision"): run.config.get("precision")}


def _words(key, value):
    """A setting and its value: seed 1, fold 2 of 5, train R1 R2, no mask."""
    name = key.replace("_", " ")
    if key == "fold":
        return f"fold {value[0]} of {value[1]}" if value else "no fold"
    if key == "valid" and not value:
        return "valid a fifth of the training subjects"
    if key.startswith("max_") and value is None:
        return f"all {key[4:]}"
    if isinstance(value, bool):
        return SWITCHES.get(key, (name, f"no {name}"))[not value]
    if isinstance(value, (list, tuple)):
        return f"{name} {' '.join(map(str, value))}" if value else f"no {name}"
    if isinstance(value, float):
        value = f"{value:g}"
    return f"no {name}" if value in (None, 0, "0", "none") and key != "seed" else f"{name} {value}"
