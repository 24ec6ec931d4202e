"""The native extension, csrc/ compiled: that of this checkout, or a sentence on what to run."""

from pathlib import Path

from eeg import UserError

HERE = Path(__file__).parents[1]

try:
    from eeg import _native
except ImportError as e:
    raise UserError(
        f"the native extension is not built here ({e}): run make build in {HERE}"
    ) from None

if Path(_native.__file__).parent != Path(__file__).parent:
    # an installed checkout lends its own to one that has none
    raise UserError(
        f"the native extension is not built here, that of {Path(_native.__file__).parents[1]} was "
        f"found: run make build in {HERE}"
    )
