"""eeg: from HBN-EEG recordings on disk to a scored submission for the EEG Foundation Challenge."""

__version__ = "0.1.0"


class UserError(Exception):
    """A problem the user can solve.

    The message says what came, what was expected and, where there is one, the command that helps.
    """
