"""What the five ethnicity codes and the two genders and ages mean as sliders and colours.

These are settings of a face generator, chosen so that the codes look different to a viewer. They
describe no real group: ranges are wide and overlap, and nothing should be inferred from them.
Colours are linear RGB; `local` and `spread` are centre and standard deviation of local shape
changes, on the generator's scale of -1 to 1.
"""

from dataclasses import dataclass, field

BLACK, DARK_BROWN, BROWN = (0.010, 0.008, 0.007), (0.020, 0.013, 0.009), (0.040, 0.022, 0.012)
CHESTNUT, AUBURN = (0.075, 0.038, 0.018), (0.13, 0.045, 0.018)
SAND, BLOND = (0.19, 0.115, 0.050), (0.34, 0.225, 0.105)


@dataclass(frozen=True)
class Ethnicity:
    """One ethnicity code as phenotype sliders, colours and habits of hair."""

    name: str
    mixture: dict  # ranges of the generator's three phenotype weights
    skin: tuple  # darkest and lightest skin
    hair_colours: tuple
    iris: tuple
    local: dict = field(default_factory=dict)
    curl: float = 0.0  # probability of curly hair
    beard: tuple = (0.45, 0.25, 0.15, 0.15)  # none, stubble, short, full
    scarf: tuple = (0.02, 0.05)  # probability for women, young and old
    brow: float = 1.0  # thickness of the brows
    eye_shade: float = 1.0
    flush: float = 1.0
    lip_red: float = 1.0


ETHNICITIES = (
    Ethnicity(
        "Black",
        dict(african=(0.85, 1.0), asian=(0, 0.05), caucasian=(0, 0.08)),
        ((0.075, 0.038, 0.024), (0.22, 0.115, 0.072)),
        (BLACK, BLACK, DARK_BROWN),
        ((0.035, 0.018, 0.010), (0.055, 0.028, 0.014)),
        {"nose-width3-incr": 0.15, "mouth-lowerlip-volume-incr": 0.2, "mouth-trans-forward": 0.1},
        curl=1.0,
        scarf=(0.03, 0.12),
        flush=0.45,
        lip_red=0.75,
    ),
    Ethnicity(
        "South Asian",
        dict(african=(0.2, 0.35), asian=(0.1, 0.25), caucasian=(0.5, 0.65)),
        ((0.19, 0.105, 0.062), (0.37, 0.225, 0.142)),
        (BLACK, BLACK, DARK_BROWN),
        ((0.035, 0.018, 0.010), (0.07, 0.035, 0.016)),
        {
            "eye-scale-incr": 0.2,
            "eyebrows-trans-up": -0.1,
            "nose-scale-vert-incr": 0.1,
            "nose-point-up": -0.15,
        },
        beard=(0.3, 0.25, 0.25, 0.2),
        scarf=(0.08, 0.15),
        brow=1.2,
        eye_shade=1.7,
        flush=0.6,
        lip_red=0.85,
    ),
    Ethnicity(
        "Middle Eastern",
        dict(african=(0.05, 0.15), asian=(0, 0.08), caucasian=(0.8, 0.95)),
        ((0.36, 0.228, 0.150), (0.55, 0.385, 0.28)),
        (BLACK, DARK_BROWN, DARK_BROWN, BROWN),
        ((0.06, 0.030, 0.014), (0.10, 0.055, 0.022), (0.11, 0.11, 0.05)),
        {
            "nose-hump-incr": 0.35,
            "nose-scale-vert-incr": 0.25,
            "nose-scale-depth-incr": 0.2,
            "nose-point-up": -0.25,
            "eyebrows-trans-up": -0.15,
            "chin-prominent-incr": 0.1,
        },
        curl=0.15,
        beard=(0.15, 0.3, 0.25, 0.3),
        scarf=(0.4, 0.5),
        brow=1.35,
        eye_shade=1.4,
        flush=0.8,
    ),
    Ethnicity(
        "Caucasian",
        dict(african=(0, 0.04), asian=(0, 0.05), caucasian=(0.9, 1.0)),
        ((0.60, 0.415, 0.33), (0.75, 0.57, 0.48)),
        (BROWN, CHESTNUT, CHESTNUT, AUBURN, SAND, BLOND, BLOND),
        ((0.10, 0.17, 0.26), (0.12, 0.20, 0.28), (0.11, 0.15, 0.10), (0.10, 0.055, 0.025)),
        {"nose-point-up": 0.1, "nose-width3-incr": -0.1, "mouth-upperlip-volume-incr": -0.15},
        curl=0.08,
        flush=1.35,
        brow=0.9,
    ),
    Ethnicity(
        "Asian",
        dict(african=(0, 0.04), asian=(0.92, 1.0), caucasian=(0, 0.06)),
        ((0.52, 0.355, 0.235), (0.68, 0.505, 0.375)),
        (BLACK, BLACK, BLACK, DARK_BROWN),
        ((0.030, 0.017, 0.010), (0.05, 0.027, 0.014)),
        {
            "eye-epicanthus-out": -0.3,
            "eye-height2-incr": -0.2,
            "eye-corner2-up": 0.15,
            "nose-scale-depth-incr": -0.1,
            "cheek-bones-incr": 0.15,
        },
        beard=(0.7, 0.2, 0.07, 0.03),
        brow=0.9,
        flush=0.8,
    ),
)

# Spread of the local shape changes; the two-sided ones are applied to both sides alike.
SPREAD_PAIRED = {
    "cheek-volume-incr": 0.30,
    "cheek-bones-incr": 0.30,
    "cheek-inner-incr": 0.25,
    "ear-scale-incr": 0.25,
    "ear-wing-incr": 0.3,
    "eye-scale-incr": 0.2,
    "eye-height2-incr": 0.15,
    "eye-corner1-up": 0.2,
    "eye-corner2-up": 0.2,
    "eye-bag-incr": 0.2,
    "eye-eyefold-up": 0.2,
    "eye-trans-out": 0.12,
    "eye-push1-out": 0.15,
    "eye-epicanthus-out": 0.05,
}
SPREAD = {
    "chin-height-incr": 0.25,
    "chin-width-incr": 0.25,
    "chin-prominent-incr": 0.22,
    "chin-bones-incr": 0.22,
    "chin-cleft-incr": 0.2,
    "forehead-scale-vert-incr": 0.22,
    "forehead-nubian-incr": 0.2,
    "forehead-temple-incr": 0.25,
    "head-fat-incr": 0.3,
    "head-scale-horiz-incr": 0.18,
    "head-scale-vert-incr": 0.18,
    "mouth-scale-horiz-incr": 0.22,
    "mouth-lowerlip-volume-incr": 0.25,
    "mouth-upperlip-volume-incr": 0.25,
    "mouth-trans-up": 0.18,
    "mouth-cupidsbow-incr": 0.2,
    "mouth-trans-forward": 0.1,
    "nose-scale-horiz-incr": 0.25,
    "nose-scale-vert-incr": 0.2,
    "nose-hump-incr": 0.25,
    "nose-point-up": 0.25,
    "nose-width1-incr": 0.25,
    "nose-width3-incr": 0.25,
    "nose-scale-depth-incr": 0.2,
    "nose-curve-convex": 0.25,
    "eyebrows-trans-up": 0.15,
    "eyebrows-angle-up": 0.2,
    "neck-double-incr": 0.2,
    "measure-shoulder-dist-incr": 0.15,
    "torso-vshape-incr": 0.1,
    "neck-scale-horiz-incr": 0.1,
    "head-age-incr": 0.03,
    "neck-scale-depth-incr": 0.1,
    "chin-jaw-drop-incr": 0.1,
    "mouth-laugh-lines-out": 0.1,
    "nose-point-width-incr": 0.15,
    "nose-base-up": 0.1,
    "mouth-angles-up": 0.08,
}
GENDER_LOCAL = {
    "Man": {
        "chin-width-incr": 0.25,
        "chin-bones-incr": 0.25,
        "chin-prominent-incr": 0.15,
        "eyebrows-trans-up": -0.15,
        "forehead-nubian-incr": 0.1,
        "neck-scale-horiz-incr": 0.15,
        "nose-scale-horiz-incr": 0.1,
        "eye-scale-incr": -0.05,
    },
    "Woman": {
        "measure-shoulder-dist-incr": -0.4,
        "torso-vshape-incr": -0.3,
        "chin-width-incr": -0.5,
        "chin-bones-incr": -0.4,
        "chin-prominent-incr": -0.15,
        "chin-height-incr": -0.25,
        "eyebrows-trans-up": 0.2,
        "eye-scale-incr": 0.35,
        "mouth-lowerlip-volume-incr": 0.25,
        "mouth-upperlip-volume-incr": 0.3,
        "mouth-cupidsbow-incr": 0.2,
        "nose-scale-horiz-incr": -0.25,
        "nose-scale-depth-incr": -0.1,
        "nose-width3-incr": -0.15,
        "cheek-bones-incr": 0.15,
        "neck-scale-horiz-incr": -0.65,
        "neck-scale-depth-incr": -0.4,
        "nose-scale-vert-incr": -0.15,
        "nose-hump-incr": -0.15,
        "nose-point-up": 0.2,
    },
}
# Ranges that replace the drawn value in old faces: sagging, thin lips, bags, large ears.
OLD_PAIRED = {
    "eye-bag-incr": (0.3, 0.8),
    "ear-scale-incr": (0.1, 0.6),
    "cheek-volume-incr": (-0.6, 0.1),
    "eye-height2-incr": (-0.35, 0.0),
}
OLD = {
    "mouth-upperlip-volume-incr": (-0.6, -0.2),
    "mouth-laugh-lines-out": (-0.6, -0.1),
    "neck-double-incr": (0.0, 0.5),
    "chin-jaw-drop-incr": (0.1, 0.5),
    "nose-point-up": (-0.5, 0.0),
    "mouth-angles-up": (-0.15, 0.1),
}
OLD_HEAD_AGE = {"Man": (0.5, 0.95), "Woman": (0.2, 0.55)}
