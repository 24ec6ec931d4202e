import pytest


@pytest.fixture
def eeglab_visual(eeg_files):
    """EEGLAB's tutorial recording: one adult, 32 electrodes, 75 targets with responses."""
    path = eeg_files / "eeglab_visual" / "eeglab_data.set"
    if not path.exists():
        pytest.skip("no eeglab_visual among the real recordings beside the project")
    return path
