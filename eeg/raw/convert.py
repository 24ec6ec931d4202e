"""A raw release -> one at 100 Hz in the competition's layout: BDF, and tables without `sample`.

The new release is a folder that ends in .partial until all recordings are there; each file in it
appears whole. A conversion that is interrupted continues.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import eeg
from eeg import UserError, files
from eeg.models.montage import SFREQ
from eeg.raw.bdf import write_bdf
from eeg.raw.preprocess import preprocess
from eeg.raw.preprocessing import Preprocessing
from eeg.raw.signals import identity, memory_peak, size
from eeg.raw.source import Unusable, companions
from eeg.raw.workers import in_processes

CONVERTER = "eeg conversion"  # its name in dataset_description.json
DESCRIPTION = "dataset_description.json"


@dataclass
class Report:
    folder: Path
    made: int = 0
    found: int = 0  # recordings that were converted before
    bytes: int = 0  # of the recordings that were made
    peak_bytes: int = 0  # most memory that one process needed
    skipped: list[tuple[Path, str]] = field(default_factory=list)  # (signal, reason)


def convert(
    source: Path,
    signals: Sequence[Path],
    target: Path,
    settings: Preprocessing,
    jobs: int | None = None,
    progress: Callable | None = None,
) -> Report:
    """Write the release in `source`, of which `signals` are the recordings, to `target`.

    progress(done, total, bytes) is called as each recording is finished. Raises UserError if
    `target` is another release, or cannot be written.
    """
    if target.exists() and not was_converted(target):
        raise UserError(
            f"{target} exists and is no conversion of this program; it is left as it is (name "
            "another folder with --out-data DIR)"
        )
    work = target if target.exists() else files.partial(target)
    report = Report(target)
    with files.writing(work, "--out-data DIR"):
        work.mkdir(parents=True, exist_ok=True)
        with files.locked_folder(work) as held:
            if not held:
                raise UserError(f"another process writes {work}; wait for it, or stop it")
            _convert_recordings(source, signals, work, settings, jobs, progress, report)
            if report.made or report.found:
                _copy_tables(source, work, settings)
                if work != target:
                    os.rename(work, target)
                    files.sync_folder(target.parent)
    return report


def was_converted(folder: Path) -> bool:
    """Whether a release is a conversion by this program."""
    try:
        about = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        return any(one["Name"] == CONVERTER for one in about["GeneratedBy"])
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _convert_recordings(source, signals, work, settings, jobs, progress, report):
    tasks, total = [], len(signals)
    for signal in signals:
        target = work / signal.relative_to(source).with_suffix(".bdf")
        known = identity(signal, settings)
        if _known(target) == known:
            report.found += 1
        else:
            tasks.append((signal, target, settings, known))
    tasks.sort(key=lambda task: size(task[0]), reverse=True)
    for done, ((signal, target, *_), result) in enumerate(
        in_processes(convert_recording, tasks, jobs), report.found + 1
    ):
        if isinstance(result, Unusable):
            report.skipped.append((signal, str(result)))
        elif isinstance(result, ValueError):
            raise result
        else:
            report.made, report.bytes = report.made + 1, report.bytes + target.stat().st_size
            report.peak_bytes = max(report.peak_bytes, result)
        if progress:
            progress(done, total, size(signal))


def _sidecar(bdf):
    return bdf.with_suffix(".json")


def _known(bdf):
    """The identity that a converted recording was made from; None if it is not there."""
    try:
        about = json.loads(_sidecar(bdf).read_text(encoding="utf-8"))
        return about["ConvertedFrom"]["Identity"] if bdf.exists() else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def convert_recording(signal: Path, target: Path, settings: Preprocessing, known: str) -> int:
    """Write one recording and what is beside it. -> the most memory this process has needed.

    Its eeg.json comes last: with it, the recording is complete.
    """
    samples = preprocess(signal, settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.publishing(target) as new:
        write_bdf(new, samples, filters=settings.filters)
        with open(new, "rb") as file:
            os.fsync(file.fileno())
    own = {signal, *companions(signal), _sidecar(signal)}
    stem = signal.name.removesuffix(f"eeg{signal.suffix}")
    for path in sorted(set(signal.parent.glob(f"{stem}*")) - own):
        is_events = path.name == f"{stem}events.tsv"
        content = path.read_bytes()
        files.write_whole(
            target.with_name(path.name), without_sample(content) if is_events else content
        )
    about = _read_json(_sidecar(signal)) | {
        "SamplingFrequency": SFREQ,
        "EEGChannelCount": len(samples),
        "RecordingDuration": samples.shape[1] / SFREQ,
        "SoftwareFilters": {"eeg": {"description": f"{settings.filters}, resampled by MNE"}},
        "ConvertedFrom": {"File": signal.name, "Identity": known},
    }
    files.write_json(_sidecar(target), about)
    return memory_peak()


def without_sample(events: bytes) -> bytes:
    """An events.tsv without its column `sample`, which counts samples of the raw file."""
    lines = [line.split(b"\t") for line in events.splitlines()]
    if not lines or b"sample" not in lines[0]:
        return events
    at = lines[0].index(b"sample")
    return b"".join(b"\t".join(line[:at] + line[at + 1 :]) + b"\n" for line in lines)


def _copy_tables(source, work, settings):
    """Copy what lies beside the subjects, dataset_description.json last."""
    for path in sorted(source.iterdir()):
        if not path.is_file() or path.name == DESCRIPTION:
            continue
        if path.name.endswith("_eeg.json"):
            about = _read_json(path)
            about |= {"SamplingFrequency": SFREQ} if "SamplingFrequency" in about else {}
            files.write_json(work / path.name, about)
        else:
            files.write_whole(work / path.name, path.read_bytes())
    about = _read_json(source / DESCRIPTION)
    before = about.get("GeneratedBy")
    own = {
        "Name": CONVERTER,
        "Version": eeg.__version__,
        "Description": f"{settings.filters}, resampled to {SFREQ} Hz by MNE",
    }
    # a simulation says of itself that it is one, in the first entry
    about["GeneratedBy"] = [*(before if isinstance(before, list) else []), own]
    files.write_json(work / DESCRIPTION, about)


def _read_json(path):
    """The object in a JSON file; {} if there is none, for a release may come without."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
