"""Where releases lie: which bucket holds them, under which prefix, and their folder on disk."""

from dataclasses import dataclass

from eeg import UserError
from eeg.data.release import DATASETS


@dataclass(frozen=True)
class Source:
    bucket: str
    prefix: str  # of every key of the release, with the "/" at its end
    folder: str  # its name under the data root

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


def find_source(name: str, mini: bool = False, kind: str = "challenge") -> Source:
    """Where a release lies. Raises UserError where no bucket has it.

    kind: challenge, the competition's 100 Hz recordings; fcp-indi, openneuro: the 500 Hz originals.
    """
    if mini and kind != "challenge":
        raise UserError(f"--source {kind} has no mini releases; leave out --mini or --source")
    if name not in DATASETS:
        last = list(DATASETS)[-1]
        raise UserError(f"no bucket holds {name}; the public releases are R1 ... {last}")
    if kind == "challenge":
        folder = f"{name}_mini_L100_bdf" if mini else f"{name}_L100_bdf"
        return Source("nmdatasets", f"NeurIPS25/{folder}/", folder)
    if kind == "fcp-indi":
        folder = f"cmi_bids_{name}"
        return Source("fcp-indi", f"data/Projects/HBN/BIDS_EEG/{folder}/", folder)
    return Source("openneuro.org", f"{DATASETS[name]}/", DATASETS[name])
