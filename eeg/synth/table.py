"""Every number of the simulation that stands for something real, with its source.

Amplitudes are microvolts after reference to Cz, at 10 years of age unless the name says otherwise.
"assumption" is said where no source gives the number; HBN metadata are the events and participants
of the Healthy Brain Network's EEG releases 1 to 11 (Shirazi et al. 2024).
"""

ROWS = (
    # people: participants.tsv of 1,757 real participants
    ("age_shape", 2.3, "", "HBN metadata: 5 years plus a gamma variable, mean 10.2, std 3.4"),
    ("age_scale", 2.25, "years", "as age_shape"),
    ("male", 0.645, "share", "HBN metadata"),
    ("no_factors", 0.014, "share", "HBN metadata: 25 of 1,757"),
    ("floor_vector", 0.0104, "share", "HBN metadata: 18 of 1,732 share one vector"),
    # response times
    ("pace_s", 1.69, "s", "HBN metadata: mean 1.598 with early presses and censoring at 2.4 s"),
    ("pace_sd_s", 0.17, "s", "HBN metadata: each subject's own mean scores 0.87 to 0.89"),
    ("trial_sd_s", 0.36, "s", "HBN metadata: std 0.408 in all"),
    ("pace_per_year_s", 0.01, "s", "HBN metadata: older children answer slightly faster"),
    # background
    ("background_uv", 7.0, "uV", "adult at Pz, 0.5 to 50 Hz: Segalowitz et al. 2010"),
    ("child_gain", 1.5, "", "at 5 years 2.5 times the adult amplitude: Gasser et al. 1988"),
    ("growth_years", 6.0, "years", "time constant of maturing: Gasser et al. 1988"),
    ("background_sd", 0.25, "log", "spread between subjects of one age: Gasser et al. 1988"),
    ("exponent", 2.0, "", "power about f^-2: f^-2.1 in EEGLAB's tutorial recording, He 2014"),
    (
        "knee_hz",
        2.5,
        "Hz",
        "below it the spectrum is flat: EEGLAB's recording, Donoghue et al. 2020",
    ),
    ("exponent_child", 0.4, "", "steeper at 5 years: Hill et al. 2022, Troendle et al. 2022"),
    ("exponent_sd", 0.2, "", "Donoghue et al. 2020"),
    ("drift_sd", 0.3, "log", "slow waxing and waning of the background: assumption"),
    # rhythms
    ("alpha_adult_hz", 10.2, "Hz", "Troendle et al. 2022, on HBN; Lindsley 1939"),
    ("alpha_child_hz", -2.3, "Hz", "about 8 Hz at 5 years: Cellier et al. 2021"),
    ("alpha_sd_hz", 0.6, "Hz", "between subjects of one age: Troendle et al. 2022"),
    ("alpha_sd", 0.6, "log", "log-normal between subjects: Buzsaki and Mizuseki 2014"),
    ("rhythm_sd", 0.6, "log", "theta and beta between subjects: Buzsaki and Mizuseki 2014"),
    ("envelope_sd", 0.35, "log", "non-stationary envelopes over seconds: Freeman 2004"),
    ("closed_eyes", 2.2, "", "alpha amplitude, eyes closed against open: Berger 1929, Barry 2007"),
    ("flicker_uv", 1.5, "uV", "steady-state response to 20 and 25 Hz: Norcia et al. 2015"),
    ("flicker_sd", 0.4, "log", "between subjects: Norcia et al. 2015"),
    ("coupling", 0.35, "", "correlation of distant sources: Nunez et al. 1997"),
    ("coupling_sd", 0.4, "", "of its arctanh, between subjects: assumption"),
    ("coupled_uv", 7.0, "uV", "each of the two sources, 5 to 13 Hz: assumption"),
    ("bursts_per_s", 0.6, "1/s", "beta events: Sherman et al. 2016, Little et al. 2019"),
    ("bursts_sd", 0.7, "log", "between subjects: Little et al. 2019"),
    ("bursts_uv", 6.0, "uV", "rms, whatever their rate: Sherman et al. 2016"),
    # potentials
    ("erp_child", 0.4, "", "potentials larger in the young: Polich 2007"),
    ("erp_sd", 0.4, "log", "amplitude between subjects: Polich 2007"),
    ("erp_latency_sd_s", 0.05, "s", "latency between subjects: Polich 2007"),
    ("trial_amplitude_sd", 0.4, "log", "from trial to trial: d' 1.4 in EEGLAB's recording"),
    ("lambda_uv", 7.0, "uV", "lambda waves after saccades: Thickbroom et al. 1991"),
    ("lambda_sd", 0.6, "log", "between subjects: Thickbroom et al. 1991"),
    ("lambda_s", 0.11, "s", "latency after the saccade: Thickbroom et al. 1991"),
    ("lambda_sd_s", 0.02, "s", "latency between subjects: assumption"),
    # head
    ("place_sd", 0.1, "rad", "place of one source between subjects: assumption"),
    ("cap_sd", 0.04, "rad", "how the net sits, from its place by 4 mm: assumption"),
    ("width_sd", 0.12, "log", "skull and cortex folding: assumption"),
    # artefacts of recordings that nobody has cleaned
    ("amplifier_uv", 1.0, "uV", "noise of each electrode: EGI's manual, high impedance"),
    ("blinks_per_min", 12.0, "1/min", "Bentivoglio et al. 1997; fewer in children"),
    ("blink_uv", 130.0, "uV", "above the eye: Lins et al. 1993"),
    ("below_eye", -0.5, "", "below the eye, of what is above it: Lins et al. 1993"),
    ("saccades_per_s", 1.5, "1/s", "free viewing: Otero-Millan et al. 2008"),
    ("saccade_uv", 40.0, "uV", "saccades of 5 degrees, beside the eye: Lins et al. 1993"),
    ("muscle_uv", 1.5, "uV", "tonic, over the temples: Whitham et al. 2007"),
    ("muscle_bursts_per_min", 3.0, "1/min", "Goncharova et al. 2003; 10 uV and more"),
    ("movements_per_min", 0.5, "1/min", "children, twice that at 5 years: assumption"),
    ("movement_uv", 80.0, "uV", "assumption"),
    ("pops_per_min", 0.3, "1/min", "assumption"),
    ("line_uv", 0.5, "uV", "60 Hz left by a 50 Hz low-pass, at 40 Hz after resampling: assumption"),
    ("habit_sd", 0.5, "log", "artefacts between subjects: assumption"),
    ("noisy_electrode", 0.4, "share", "of recordings: assumption"),
    ("flat_electrode", 0.15, "share", "of recordings: assumption"),
    ("bridged_electrodes", 0.1, "share", "of recordings: Alschuler et al. 2014"),
)
NUMBER = {name: value for name, value, _, _ in ROWS}

FACTORS = ("p_factor", "attention", "internalizing", "externalizing")
# Of 1,732 real participants: value = (1, age in years, male) times these, plus what is left,
# correlated as below. Age and externalizing then correlate by -0.24.
FACTOR_MEANS = ((0.042, -0.002, -0.543, 0.430), (-0.008, -0.007, 0.072, -0.052),
                (0.099, 0.117, -0.206, 0.223))  # fmt: skip
FACTOR_STDS = (0.885, 0.796, 0.762, 0.692)
FACTOR_CORRELATIONS = (
    (1.0, 0.037, 0.210, 0.212),
    (0.037, 1.0, 0.105, -0.076),
    (0.210, 0.105, 1.0, -0.178),
    (0.212, -0.076, -0.178, 1.0),
)
FLOOR_VECTOR = (-1.909, -0.775, -0.826, -0.249)
EXTERNALIZING_MEAN, EXTERNALIZING_STD = 0.051, 0.722

# Electrodes whose mean place is the centre, and width in radians (on a head of 9 cm, 0.1 is 9 mm).
SITES = {
    "parietal": (("E62", "E62", "E72"), 0.6),  # CPz to POz: Polich 2007
    "motor_left": (("E36",), 0.35),  # C3
    "motor_right": (("E104",), 0.35),  # C4
    "frontal": (("E11",), 0.45),  # Fz
    "occipital": (("E75",), 0.45),  # Oz
    "occipital_left": (("E70", "E65"), 0.35),
    "occipital_right": (("E83", "E90"), 0.35),
    "region": (("E92",), 0.2),  # P4 alone
    "far_front": (("E24", "E27"), 0.25),  # F3 and before it
    "far_back": (("E90", "E96"), 0.25),  # right occipito-temporal
    "own_posterior": (("E62", "E75"), 0.35),  # displaced in each subject by about 4 cm
    "burst_site": (("E36", "E29"), 0.35),
}

# What waxes and wanes all the time: site, Hz (None: the subject's alpha peak), bandwidth in Hz,
# uV rms, the trait that scales it, and what modulates it in a trial.
RHYTHMS = (
    ("occipital", None, 0.7, 8.0, "alpha_power", "alpha"),  # Berger 1929
    ("occipital_left", None, 0.7, 5.0, "alpha_power", "alpha"),
    ("occipital_right", None, 0.7, 5.0, "alpha_power", "alpha"),
    ("parietal", None, 0.7, 5.0, "alpha_power", "alpha"),
    ("motor_left", None, 0.8, 4.0, "alpha_power", "motor_left"),  # mu: Pfurtscheller 1999
    ("motor_right", None, 0.8, 4.0, "alpha_power", "motor_right"),
    ("motor_left", 20.0, 2.5, 2.5, "beta_power", "motor_left"),
    ("motor_right", 20.0, 2.5, 2.5, "beta_power", "motor_right"),
    ("frontal", 5.5, 0.8, 5.0, "theta_power", "theta"),  # Cavanagh and Frank 2014
    ("region", 18.0, 3.0, 4.5, "region_power", "region"),
    ("region", 6.0, 1.0, 6.0, "region_power", "region"),
)
