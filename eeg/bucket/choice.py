"""Which files of a release a task needs, by their names in the bucket."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from eeg import UserError, cli
from eeg.bucket.listing import Object

_RECORDING = re.compile(
    r"sub-([A-Za-z0-9]+)/eeg/(sub-\1_task-([A-Za-z0-9]+)(?:_run-[0-9]+)?)_"
    r"(eeg\.(?P<format>[a-z]+)|events\.tsv|channels\.tsv)"
)
_COMMON = re.compile(
    r"participants\.(tsv|json)|dataset_description\.json|"
    r"task-([A-Za-z0-9]+)_(eeg|events)\.json"
)
# where one recording lies in several formats, the first; the first file of each names it
_FORMATS = (("bdf",), ("set", "fdt"), ("edf",), ("vhdr", "vmrk", "eeg"))


@dataclass
class Choice:
    objects: list[Object]  # what all recordings share comes first
    recordings: int
    subjects: int

    @property
    def bytes(self) -> int:
        return sum(one.size for one in self.objects)


def choose(objects: Iterable[Object], tasks: Iterable[str], subjects: int | None = None) -> Choice:
    """The files of these tasks, of the first `subjects` subjects by name that have one of them.

    Raises UserError where the release has no recording of them.
    """
    tasks, common = set(tasks), []
    stems: dict[tuple[str, str, str], dict[str, Object]] = {}
    for one in sorted(objects, key=lambda one: one.path):
        if match := _RECORDING.fullmatch(one.path):
            stem = match[1], match[2], match[3]
            stems.setdefault(stem, {})[match["format"] or match[4]] = one
        elif (match := _COMMON.fullmatch(one.path)) and (not match[2] or match[2] in tasks):
            common.append(one)
    wanted = {stem: files for stem, files in stems.items() if stem[2] in tasks and _format(files)}
    if not wanted:
        there = ", ".join(sorted({stem[2] for stem, files in stems.items() if _format(files)}))
        of = f"has no recording of {', '.join(sorted(tasks))}"
        raise UserError(f"the release {of}; it has: {there or 'no recordings at all'}")
    names = sorted({subject for subject, _, _ in wanted})
    kept = set(names[:subjects])
    chosen, recordings = common, 0
    for (subject, _, _), files in sorted(wanted.items()):
        if subject in kept:
            others = {each for format in _FORMATS for each in format} - set(_format(files))
            chosen += [one for kind, one in files.items() if kind not in others]
            recordings += 1
    return Choice(chosen, recordings, len(kept))


def concerns(refused: str, tasks: Iterable[str]) -> bool:
    """Whether a key that is refused may be one of the files of these tasks, by its words."""
    common = ("participants.", "dataset_description.", *(f"task-{task}" for task in tasks))
    return any(word in refused for word in common)


def _format(files):
    """The suffixes of the format that a recording is read in, None where it has no signal."""
    return next((format for format in _FORMATS if format[0] in files), None)


def described(choice: Choice) -> str:
    recordings = cli.counted(choice.recordings, "recording")
    return f"{recordings} of {cli.counted(choice.subjects, 'subject')}"
