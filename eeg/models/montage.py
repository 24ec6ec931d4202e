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

# Neighbours, which pretraining hides together: 12 groups by k-means of the positions in MNE's
# GSN-HydroCel-129. Numbers are those of the names, 129 is Cz.
REGIONS = (
    (6, 7, 13, 30, 31, 36, 37, 54, 55, 80, 87, 105, 106, 129),
    (32, 38, 43, 44, 48, 49, 127, 128),
    (75, 82, 83, 88, 89, 90, 94, 95, 96, 99, 100),
    (2, 8, 9, 10, 14, 15, 16, 17, 21),
    (42, 47, 51, 52, 53, 58, 59, 60, 61, 65, 66, 67, 70, 71),
    (18, 19, 20, 22, 23, 24, 25, 26, 27, 28, 29, 33, 34, 35),
    (93, 97, 98, 101, 102, 103, 104, 108, 109, 110, 115, 116),
    (1, 107, 113, 114, 119, 120, 121, 122, 125, 126),
    (56, 63, 64, 68, 69, 73, 74, 81),
    (62, 72, 76, 77, 78, 79, 84, 85, 86, 91, 92),
    (3, 4, 5, 11, 12, 111, 112, 117, 118, 123, 124),
    (39, 40, 41, 45, 46, 50, 57),
)
