"""What the windows are made of: sampling rate, electrodes, and the groups and bands of the
neuroscience features.
"""

SFREQ = 100  # Hz
START_S = 0.5  # after the stimulus: where a challenge 1 window opens
CHANNELS = tuple(f"E{i}" for i in range(1, 129)) + ("Cz",)  # HydroCel GSN 129

BANDS = {  # Hz, both ends included
    "delta": (0.5, 4),
    "theta": (4, 8),
    "alpha": (8, 13),
    "beta": (13, 30),
    "gamma": (30, 45),
}
LAGS = (5, 10, 25, 50, 100)  # samples

# Electrodes of the HydroCel net around the 10-20 sites that each group is named for (MNE's
# GSN-HydroCel-129). The two motor groups mirror each other, the others themselves. Cz is the
# reference, and in none.
GROUPS = {
    "parietal": ("E62", "E54", "E79", "E55", "E61", "E78", "E67", "E77", "E72"),  # Pz, CPz
    "motor_left": ("E36", "E35", "E30", "E29", "E41", "E42", "E37"),  # C3
    "motor_right": ("E104", "E110", "E105", "E111", "E103", "E93", "E87"),  # C4
    "frontal": ("E11", "E16", "E10", "E18", "E19", "E4", "E12", "E5", "E24", "E124"),  # Fz, F3, F4
    "occipital": ("E75", "E70", "E83", "E71", "E76", "E74", "E82", "E65", "E90"),  # Oz, O1, O2
}
