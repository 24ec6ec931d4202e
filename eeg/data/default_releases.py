"""Which releases are trained on and which validate. Imports nothing heavy: a run knows them before anything can go wrong."""

from eeg import UserError
from eeg.data.release import cache_path

TRAIN, VALID = ("R1", "R2", "R3", "R4", "R8", "R9", "R10", "R11"), "R5"


def choose_releases(folder, challenge, train, valid, mini, cv):
    """-> (train, valid), tuples of release names; valid is empty where subjects of the training releases validate. Only file names are looked at."""
    cached = lambda name: cache_path(folder, challenge, name, mini).exists()
    if cv and valid:
        raise UserError(
            "--cv validates on subjects of the training releases, --valid on releases of their own: ask for one of them"
        )
    if not train:
        train = tuple(name for name in TRAIN if cached(name) and name not in (valid or ()))
        if not train:
            from eeg.data.rebuild import build, neighbour

            command = build(folder, neighbour(folder, challenge, mini) | {"release": "R1"})
            looked = ", ".join(cache_path(folder, challenge, name, mini).name for name in TRAIN[:2])
            raise UserError(
                f"there is no cache of a training release for challenge {challenge} in {folder}/ (looked for {looked}, ...); build one with: {command}"
            )
    if valid is None:
        valid = (VALID,) if not cv and cached(VALID) and VALID not in train else ()
    train, valid = tuple(dict.fromkeys(train)), tuple(dict.fromkeys(valid))
    if not all(map(cached, (*train, *valid))):
        from eeg.data.cache import find_caches

        find_caches(folder, challenge, [*train, *valid], mini)  # says what is missing
    return train, valid
