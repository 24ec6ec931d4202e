"""Worlds: what carries the labels in the EEG, from as weakly as in reality to not at all.

Challenge 1's label is each trial's response time, challenge 2's the subject's externalizing. What
is not named in a world either happens at moments that have nothing to do with the response, or is
not there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Carrier:
    """Something that a trial does to the EEG around a moment.

    kind: "potential" (peak in uV at a site), "rhythm" (change of log amplitude), "burst" (uV at a
    site, 20 Hz) or "coupling" (change of correlation). shape: (s from the moment, value) joined by
    lines. The moment is fraction * (decision - stimulus) + delay_s after the stimulus.
    """

    kind: str
    target: str  # a site, or what modulates rhythms; "motor" is over the hand's cortex
    size: float
    shape: tuple[tuple[float, float], ...] = ()
    fraction: float = 1.0
    delay_s: float = 0.0
    jitter_s: float = 0.1
    ipsilateral: float = 0.0  # of "motor": what the other hemisphere does
    from_stimulus: bool = False  # shape's times below 0 are shares of the way from the stimulus


BUILD_UP = ((-0.7, 0), (-0.25, 0.4), (0, 1), (0.18, 0.45), (0.5, 0))
READINESS = ((-0.6, 0), (0, 1), (0.15, 0.5), (0.4, 0))
WAVE = ((-0.25, 0), (-0.08, 0.7), (0, 1), (0.08, 0.7), (0.3, 0))
RELEASE = ((-0.8, 0), (-0.1, 1), (0.35, 1), (0.8, -0.4), (1.5, 0))
SPAN = ((-0.5, 0), (-0.25, 1), (0.25, 1), (0.5, 0))
REBOUND = ((-0.3, 0), (-0.1, 1), (0.2, 1), (0.6, 0))

# Dict order is the order of drawing: new ones go to the end.
CARRIERS = {
    # O'Connell et al. 2012, Twomey et al. 2015: peaks at the response to a gradual change
    "positivity": Carrier("potential", "parietal", 8.0, BUILD_UP, jitter_s=0.08),
    # Coles 1989: negative over the hemisphere that moves the hand
    "motor": Carrier("potential", "motor", -3.2, READINESS, jitter_s=0.06, ipsilateral=0.3),
    # Holroyd and Coles 2002: negative wave after feedback
    "feedback": Carrier("potential", "frontal", -4.2, WAVE, delay_s=0.3, jitter_s=0.06),
    # Pfurtscheller and Lopes da Silva 1999: desynchronisation, then rebound
    "desynchronisation": Carrier("rhythm", "motor", -0.7, RELEASE, jitter_s=0.1, ipsilateral=0.6),
    "alpha": Carrier("rhythm", "alpha", -0.5, RELEASE, jitter_s=0.15),  # Thut et al. 2006
    "theta": Carrier("rhythm", "theta", 0.5, SPAN, delay_s=0.1, jitter_s=0.15),  # Cavanagh 2014
    "coupling": Carrier("coupling", "pair", 1.8, RELEASE),  # Fries 2005
    "local_potential": Carrier("potential", "region", 8.0, BUILD_UP),
    "local_rhythm": Carrier("rhythm", "region", 0.9, SPAN),
    # Walter 1964: reaches its depth at the response, so that its slope tells the time
    "slow_negativity": Carrier(
        "potential", "frontal", -9.0, ((-1, 0), (0, 1), (0.4, 0)), from_stimulus=True
    ),
    "posterior_wave": Carrier("potential", "own_posterior", 8.0, WAVE, fraction=0.6, delay_s=0.3),
    # Little et al. 2019: the time of the burst tells the time of the response
    "beta_burst": Carrier("burst", "burst_site", 8.0, jitter_s=0.1, delay_s=-0.15),
    "early_frontal": Carrier("potential", "frontal", 8.0, WAVE, fraction=0.7, jitter_s=0.1),
    # Pfurtscheller et al. 1996: more power than at rest, half a second after a movement
    "rebound": Carrier("rhythm", "motor", 0.9, REBOUND, delay_s=0.5, jitter_s=0.1, ipsilateral=0.5),
    "orienting": Carrier("potential", "own_posterior", -7.0, WAVE, delay_s=0.2, jitter_s=0.08),
    # de Jong et al. 1988: of opposite sign over the two hemispheres
    "lateral_readiness": Carrier("potential", "motor", -8.0, READINESS, ipsilateral=-0.6),
    "attention": Carrier("rhythm", "alpha", -1.0, SPAN, fraction=0.6, delay_s=0.2, jitter_s=0.12),
}
TASK = {name: 1.0 for name in tuple(CARRIERS)[:6]}


@dataclass(frozen=True)
class World:
    name: str
    sentence: str
    carriers: Mapping[str, float]  # challenge 1: what is locked to the response, and how strongly
    links: Mapping[str, float]  # challenge 2: trait -> its correlation with externalizing
    others: Mapping[str, float] = field(default_factory=dict)  # at moments of their own
    jitter_s: float = 0.08  # of the decision around the response, shared by all carriers
    lapses: float = 0.08  # share of trials whose decision has nothing to do with the response
    background: float = 1.0
    artefacts: float = 1.0  # how large, and how many electrodes fail
    lambda_waves: float = 1.0  # size of the potentials after saccades
    steady: float = 1.0  # how the steady-state response follows the contrast
    artefacts_follow: float = 0.0  # log amplitude for each std of the label, sign by subject
    signal: bool = True  # False: nothing in the EEG depends on a label
    held_out: bool = False  # no default may be chosen on it


# Weak links of `real`: together a correlation of about 0.2 with externalizing, beside age and sex.
WEAK = {"power": 0.08, "exponent": -0.08, "alpha_peak": -0.08, "flicker": -0.08, "coupling": -0.08}
CLEAR = {"jitter_s": 0.2, "lapses": 0.1, "steady": 0.0}


def without(*names):
    """The task's carriers but these, at moments of their own."""
    return {name: size for name, size in TASK.items() if name not in names}


_REAL = World(
    "real",
    "everything the task does to the EEG, as weak as in reality",
    {name: 0.7 for name in TASK},
    WEAK,
    jitter_s=0.15,
    lapses=0.2,
)
_WORLDS = (
    _REAL,
    World(
        "easy",
        "strong signals and little background: learned in a minute, for demonstrations",
        {name: 4.0 for name in TASK},
        {"theta_power": 0.8, "alpha_power": -0.8},
        jitter_s=0.05,
        lapses=0.02,
        background=0.35,
        artefacts=0.1,
    ),
    replace(
        _REAL,
        name="null",
        sentence="nothing in the EEG depends on a label (real with --snr 0)",
        signal=False,
    ),
    World(
        "potentials",
        "only potentials: their moments (challenge 1), their size and latency (challenge 2)",
        {"positivity": 1.8, "motor": 1.8, "feedback": 1.8},
        {"erp": 0.75, "lambda": 0.8, "lambda_latency": 0.6},
        without("positivity", "motor", "feedback"),
        lambda_waves=4.0,
        **CLEAR,
    ),
    World(
        "rhythms",
        "only the power of rhythms: desynchronisation (1), alpha, theta and beta power (2)",
        {"desynchronisation": 1.7, "alpha": 1.7, "theta": 1.7},
        {"alpha_power": -0.75, "theta_power": 0.75, "beta_power": 0.75},
        without("desynchronisation", "alpha", "theta"),
        **CLEAR,
    ),
    World(
        "region",
        "one small region, right parietal: a potential and a rhythm (1), its power (2)",
        {"local_potential": 1.8, "local_rhythm": 1.0},
        {"region_power": 0.9},
        TASK,
        **CLEAR,
    ),
    World(
        "network",
        "only the correlation of two distant sources, each of unchanged power",
        {"coupling": 1.0},
        {"coupling": 0.9},
        TASK,
        **CLEAR,
    ),
    World(
        "artefacts",
        "artefacts follow the labels, with a sign that changes between subjects (1) and releases "
        "(2); an honest signal is weaker",
        {"positivity": 1.0, "motor": 1.0, "desynchronisation": 1.0},
        {"theta_power": 0.7, "beta_power": 0.7},
        without("positivity", "motor", "desynchronisation"),
        artefacts_follow=0.8,
        **CLEAR,
    ),
    World(
        "slow",
        "the slope of a slow negativity and the latency of a posterior wave (1), the shape of the "
        "spectrum at equal power (2)",
        {"slow_negativity": 1.3, "posterior_wave": 1.3},
        {"exponent": 0.8, "alpha_peak": -0.75},
        TASK,
        **CLEAR,
    ),
    World(
        "bursts",
        "the moments of brief beta bursts and of an early frontal potential (1), the rate of "
        "bursts and the steadiness of the flicker response at equal power (2)",
        {"beta_burst": 1.3, "early_frontal": 1.0},
        {"burst_rate": 0.85, "flicker_variability": 0.7},
        TASK,
        **CLEAR,
    ),
    World(
        "aftermath",
        "only what follows the response: the rebound of motor rhythms and a posterior wave (1), "
        "beta power and the peak of alpha (2)",
        {"rebound": 1.3, "orienting": 1.3},
        {"beta_power": 0.75, "alpha_peak": -0.55},
        TASK,
        held_out=True,
        **CLEAR,
    ),
    World(
        "preparation",
        "only what precedes the response: a potential with opposite signs over the two "
        "hemispheres and less alpha (1), overall power and the size of potentials (2)",
        {"lateral_readiness": 1.3, "attention": 1.2},
        {"power": 0.76, "erp": 0.58},
        TASK,
        held_out=True,
        **CLEAR,
    ),
)
WORLDS = {world.name: world for world in _WORLDS}
