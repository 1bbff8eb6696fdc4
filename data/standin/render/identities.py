"""Draw a person: phenotype sliders, local shape, colours, hair, brows, skin, clothes.

An identity depends on its demographic cell (gender, age, ethnicity) and on a random generator and
on nothing else: neither on the label nor on the expression.
"""

import colorsys
from dataclasses import dataclass

import numpy as np

from . import phenotypes as ph

GENDERS = ("Man", "Woman")
AGES = ("Young", "Old")
GREY = np.array([0.40, 0.385, 0.36])
WRINKLE_NAMES = (
    "forehead",
    "glabella",
    "crow",
    "under",
    "nasolabial",
    "bunny",
    "marionette",
    "perioral",
    "cheek",
    "smile",
    "neck",
    "chin",
)


@dataclass
class Hair:
    """A head of hair: lengths in metres, canonical heights z, angles in degrees from the front."""

    style: str  # bald, fringe_of_hair, buzz, short, afro, long, bob, bun, pulled, scarf
    colour: np.ndarray
    raise_front: float = 0.0  # how far the front hairline has receded
    raise_temple: float = 0.0
    drop_front: float = 0.0  # a fringe covers the forehead this far down
    side: float = 0.004  # thickness above the ears
    crown: float = 0.012  # thickness on top
    flow: str = "back"  # back, down, part, curl
    part: float = 0.0  # x of the parting
    end: float = 0.0  # z where hanging hair ends, 0 for none
    edge: float = 80.0  # azimuth where hanging hair starts
    wave: float = 0.0
    bun: float = 0.0  # radius
    shine: float = 0.5


@dataclass
class Identity:
    """Everything that stays the same in both halves of a pair."""

    seed: int  # offset of the texture noise
    gender: str
    age: str
    ethnicity: str
    phenotype: dict
    local: dict
    skin: np.ndarray
    flush: float
    oil: float
    eye_shade: float
    spots: float
    lips: np.ndarray
    iris: np.ndarray
    pupil: float
    teeth: np.ndarray
    lashes: float
    shadow: float  # strength of eye shadow
    shadow_colour: np.ndarray
    blush: float
    earrings: float  # radius, 0 for none
    hair: Hair
    brow: dict
    beard: float
    moustache: float
    beard_colour: np.ndarray
    age_lines: float
    line_strength: dict
    shirt: dict


def _colour(rng, saturation, value):
    """A linear RGB colour of random hue; `saturation` and `value` are ranges."""
    hsv = (rng.uniform(), rng.uniform(*saturation), rng.uniform(*value))
    return np.array(colorsys.hsv_to_rgb(*hsv)) ** 2.2


def _shape(rng, gender, age, ethnicity):
    """Phenotype sliders and local changes for the body model."""
    woman, old = gender == "Woman", age == "Old"
    sliders = dict(
        gender=rng.uniform(0.0, 0.10) if woman else rng.uniform(0.88, 1.0),
        age=rng.uniform(0.92, 1.0) if old else rng.uniform(0.60, 0.70),
        muscle=rng.uniform(0.15, 0.35) if woman else rng.uniform(0.4, 0.7),
        weight=rng.uniform(0.35, 0.72),
        height=rng.uniform(0.4, 0.6),
        proportions=rng.uniform(0.5, 0.8),
        cupsize=rng.uniform(0.35, 0.6),
        firmness=0.6,
    )
    sliders |= {k: rng.uniform(*v) for k, v in ethnicity.mixture.items()}
    local = {}

    def centre(name):
        return ethnicity.local.get(name, 0.0) + ph.GENDER_LOCAL[gender].get(name, 0.0)

    for name, spread in ph.SPREAD_PAIRED.items():
        value = centre(name) + spread * rng.standard_normal()
        if old and name in ph.OLD_PAIRED:
            value = rng.uniform(*ph.OLD_PAIRED[name])
        for side in "lr":
            local[f"{side}-{name}"] = float(np.clip(value, -0.85, 0.85))
    for name, spread in ph.SPREAD.items():
        value = centre(name) + spread * rng.standard_normal()
        if old and name in ph.OLD:
            value = rng.uniform(*ph.OLD[name])
        if old and name == "head-age-incr":
            value = rng.uniform(*ph.OLD_HEAD_AGE[gender])
        local[name] = float(np.clip(value, -0.85, 0.95))
    return {k: float(v) for k, v in sliders.items()}, local


def _style(rng, gender, age, ethnicity):
    """Name of a hair style for the cell."""
    old = age == "Old"
    curly = rng.random() < ethnicity.curl
    if gender == "Woman":
        if rng.random() < ethnicity.scarf[int(old)]:
            return "scarf", curly
        if ethnicity.name == "Black":
            p = [0.35, 0.3, 0.2, 0.15] if not old else [0.3, 0.25, 0.15, 0.3]
            return str(rng.choice(["afro", "bun", "long", "bob"], p=p)), curly
        p = [0.58, 0.2, 0.2, 0.02] if not old else [0.35, 0.45, 0.2, 0.0]
        return str(rng.choice(["long", "bob", "bun", "pulled"], p=p)), curly
    if old:
        return str(
            rng.choice(["short", "fringe_of_hair", "buzz", "bald"], p=[0.55, 0.2, 0.18, 0.07])
        ), curly
    return str(rng.choice(["short", "buzz", "bald"], p=[0.65, 0.3, 0.05])), curly


def _hair(rng, gender, age, ethnicity):
    style, curly = _style(rng, gender, age, ethnicity)
    old, woman = age == "Old", gender == "Woman"
    colour = np.array(ethnicity.hair_colours[rng.integers(len(ethnicity.hair_colours))])
    young_colour = colour
    if old:
        grey = rng.uniform(0.6, 1.0)
        colour = (1 - grey) * colour + grey * GREY * rng.uniform(0.75, 1.15)
    hair = Hair(style, colour, shine=0.25 if old else rng.uniform(0.35, 0.8))
    if not woman:
        hair.raise_front = rng.uniform(0.008, 0.03) if old else rng.uniform(-0.003, 0.008)
        hair.raise_temple = rng.uniform(0.0, 0.015) if old else 0.0
    if style == "short":
        hair.side, hair.crown = rng.uniform(0.003, 0.007), rng.uniform(0.009, 0.019)
        hair.flow = str(rng.choice(["back", "down"]))
        if not old and ethnicity.name == "Asian" and rng.random() < 0.6:
            hair.flow, hair.drop_front = "down", rng.uniform(0.004, 0.016)
    elif style == "buzz":
        hair.side, hair.crown, hair.flow = 0.0025, 0.0045, "curl" if curly else "down"
    elif style == "fringe_of_hair":
        hair.side, hair.crown, hair.flow = rng.uniform(0.004, 0.010), 0.004, "down"
    elif style == "afro":
        size = rng.uniform(0.018, 0.055) if not old else rng.uniform(0.012, 0.03)
        hair.side, hair.crown = 0.8 * size, size
    elif style in ("long", "bob"):
        hair.side, hair.crown, hair.flow = 0.010, rng.uniform(0.011, 0.018), "part"
        hair.part = float(rng.choice([0.0, 0.025, -0.025]))
        hair.edge = rng.uniform(62, 84)
        hair.end = rng.uniform(0.50, 0.57) if style == "long" else rng.uniform(0.615, 0.655)
        hair.wave = rng.uniform(0.0, 1.0)
        if ethnicity.name == "Asian" and rng.random() < 0.45 and not old:
            hair.flow, hair.drop_front, hair.wave = "down", rng.uniform(0.026, 0.036), 0.0
    elif style in ("bun", "pulled"):
        hair.side, hair.crown, hair.flow = 0.005, rng.uniform(0.007, 0.011), "back"
        hair.bun = rng.uniform(0.030, 0.042) if style == "bun" else 0.0
    elif style == "scarf":
        hair.side = hair.crown = rng.uniform(0.012, 0.018)
        hair.drop_front, hair.end = rng.uniform(0.006, 0.016), 0.50
        hair.colour = _colour(rng, (0.0, 0.55), (0.15, 0.85))
        hair.raise_front = 0.0
    if curly and style not in ("scarf", "bald"):
        hair.flow = "curl"
        if style == "short" and ethnicity.name == "Black":
            hair.side, hair.crown = rng.uniform(0.003, 0.006), rng.uniform(0.006, 0.014)
        hair.wave = max(hair.wave, 0.8)
    return hair, young_colour


def draw_identity(rng, gender, age, ethnicity_code):
    """An `Identity` for the demographic cell, from the generator `rng`."""
    ethnicity = ph.ETHNICITIES[ethnicity_code]
    woman, old = gender == "Woman", age == "Old"
    phenotype, local = _shape(rng, gender, age, ethnicity)
    t = rng.uniform()
    skin = (1 - t) * np.array(ethnicity.skin[0]) + t * np.array(ethnicity.skin[1])
    if woman:
        skin = skin * 1.05
    hair, young_colour = _hair(rng, gender, age, ethnicity)
    red = ethnicity.lip_red * (rng.uniform(0.5, 1.0) if woman else rng.uniform(0.0, 0.3))
    if woman and old:
        red *= 0.7
    lips = skin * np.array([0.90, 0.66 - 0.26 * red, 0.66 - 0.20 * red])
    style = rng.uniform()
    if woman and style > 0.55:  # lipstick
        tint = np.array([0.42, 0.07, 0.08]) * rng.uniform(0.7, 1.3)
        lips = 0.55 * lips + 0.45 * tint * (0.35 + 0.65 * skin.mean() / 0.4)

    # Brows have to be seen on every skin: dark against light skin, near black against dark skin.
    brow_colour = np.minimum(young_colour * 1.1, 0.22 * skin + 0.004)
    if old:
        share = rng.uniform(0.3, 0.8)
        pale = GREY * 0.75 if skin.mean() < 0.25 else np.array([0.17, 0.155, 0.14])
        brow_colour = (1 - share) * brow_colour + share * pale
    brow = dict(
        map="brow_woman" if woman else "brow_man",
        lift=0.0012 * rng.standard_normal() + (0.0015 if woman else 0.0),
        tilt=0.05 * rng.standard_normal(),
        width=(rng.uniform(0.75, 0.95) if woman else rng.uniform(0.9, 1.15)) * ethnicity.brow,
        strength=rng.uniform(0.85, 0.97),
        colour=brow_colour,
    )
    growth = 0.0
    if not woman:
        kinds = [(0.0, 0.05), (0.15, 0.3), (0.4, 0.65), (0.8, 1.0)]
        growth = rng.uniform(*kinds[rng.choice(4, p=ethnicity.beard)])
    beard_colour = hair.colour if hair.style != "scarf" else young_colour
    line_strength = {n: float(rng.uniform(0.65, 1.2)) for n in WRINKLE_NAMES}
    age_lines = rng.uniform(0.0, 0.10)
    if old:
        age_lines = rng.uniform(0.7, 1.0) if not woman else rng.uniform(0.6, 0.95)
    return Identity(
        seed=int(rng.integers(997)),
        gender=gender,
        age=age,
        ethnicity=ethnicity.name,
        phenotype=phenotype,
        local=local,
        skin=skin,
        flush=ethnicity.flush * rng.uniform(0.6, 1.3),
        oil=rng.uniform(0.6, 1.3),
        eye_shade=ethnicity.eye_shade,
        spots=rng.uniform(0.5, 1.0) if old else 0.0,
        lips=lips,
        iris=np.array(ethnicity.iris[rng.integers(len(ethnicity.iris))]),
        pupil=rng.uniform(0.8, 1.2),
        teeth=np.array([0.78, 0.73, 0.64]) * rng.uniform(0.8 if old else 0.95, 1.1),
        lashes=rng.uniform(0.75, 1.0) if woman else rng.uniform(0.25, 0.45),
        shadow=rng.uniform(0.0, 0.35 if old else 0.6) if woman else 0.0,
        shadow_colour=skin
        * np.array([[0.55, 0.38, 0.42], [0.45, 0.42, 0.5], [0.5, 0.4, 0.3]])[rng.integers(3)],
        blush=rng.uniform(0.3, 1.0) if woman else 0.0,
        earrings=rng.uniform(0.0035, 0.0065) if woman and rng.random() < 0.65 else 0.0,
        hair=hair,
        brow=brow,
        beard=growth,
        moustache=growth * float(rng.choice([1.0, 1.0, 0.3])),
        beard_colour=beard_colour,
        age_lines=age_lines,
        line_strength=line_strength,
        shirt=dict(
            colour=_colour(rng, (0.0, 0.5), (0.25, 0.95)),
            neck=rng.uniform(-0.012, 0.010) - (rng.uniform(0.0, 0.035) if woman else 0.0),
            vee=rng.choice([0.0, 0.0, rng.uniform(0.5, 1.1)]),
            stripes=rng.choice([0.0, 0.0, 0.0, rng.uniform(0.15, 0.4)]),
        ),
    )
