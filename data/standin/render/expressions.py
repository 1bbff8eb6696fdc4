"""Kinds of expression -> FACS action units -> the facial actions of the body model.

The model's actions carry the names of ARKit's blend shapes; the correspondence with FACS action
units (Ekman, Friesen & Hager 2002) is the usual one, written out in `UNITS`. An intensity runs
from 0 to 5 (FACS A to E = 1 to 5); AU43, closed eyes, from 0 to 1. Pain intensity is
PSPI = AU4 + max(AU6, AU7) + max(AU9, AU10) + AU43 (Prkachin & Solomon 2008, Pain 139, 267-274).
"""

import numpy as np

# AU: (facial action, two-sided, weight at intensity 5). A weight above 1 exaggerates a shape that
# MakeHuman's artists drew too mild to be seen at this size.
UNITS = {
    "AU1": ("browInnerUp", False, 1.0),  # inner brow raiser
    "AU2": ("browOuterUp", True, 1.2),  # outer brow raiser
    "AU4": ("browDown", True, 1.35),  # brow lowerer
    "AU5": ("eyeWide", True, 1.0),  # upper lid raiser
    "AU6": ("cheekSquint", True, 1.5),  # cheek raiser
    "AU7": ("eyeSquint", True, 1.25),  # lid tightener
    "AU9": ("noseSneer", True, 1.3),  # nose wrinkler
    "AU10": ("mouthUpperUp", True, 1.4),  # upper lip raiser
    "AU12": ("mouthSmile", True, 1.3),  # lip corner puller
    "AU14": ("mouthDimple", True, 1.0),  # dimpler
    "AU15": ("mouthFrown", True, 1.2),  # lip corner depressor
    "AU16": ("mouthLowerDown", True, 1.2),  # lower lip depressor
    "AU17": ("mouthShrugLower", False, 1.0),  # chin raiser
    "AU18": ("mouthPucker", False, 1.0),  # lip pucker
    "AU20": ("mouthStretch", True, 1.3),  # lip stretcher
    "AU22": ("mouthFunnel", False, 1.0),  # lip funneler
    "AU24": ("mouthPress", True, 1.0),  # lip pressor
    "AU26": ("jawOpen", False, 0.75),  # jaw drop (to AU27, mouth stretch, at the top)
    "AU43": ("eyeBlink", True, 1.0),  # eyes closed
}
NO_PAIN_KINDS = {  # share of the expressive halves of NoPain pairs
    "laugh": 0.13,
    "squint": 0.13,
    "disgust": 0.12,
    "anger": 0.12,
    "closed": 0.08,
    "smile": 0.08,
    "surprise": 0.08,
    "sad": 0.09,
    "fear": 0.09,
    "speech": 0.08,
}
KINDS = ("neutral", "pain", *NO_PAIN_KINDS)


def top(unit):
    """Greatest intensity of an action unit."""
    return 1.0 if unit == "AU43" else 5.0


def pspi(units):
    """Prkachin & Solomon's pain intensity (0-16) of a dict of action unit intensities."""
    u = dict.fromkeys(UNITS, 0.0) | units
    return u["AU4"] + max(u["AU6"], u["AU7"]) + max(u["AU9"], u["AU10"]) + u["AU43"]


def actions_of(units, rng):
    """Facial action weights for action units, each side off by about 7 % (faces are not even)."""
    actions = {}
    for unit, (action, two_sided, gain) in UNITS.items():
        value = units.get(unit, 0.0) / top(unit)
        for side in ("Left", "Right") if two_sided else ("",):
            uneven = value * (1 + 0.07 * rng.standard_normal())
            actions[action + side] = gain * float(np.clip(uneven, 0, 1))
    return actions


def units_of(actions):
    """Action unit intensities that a set of facial action weights amounts to: what is rendered."""
    units = {}
    for unit, (action, two_sided, gain) in UNITS.items():
        names = (action + "Left", action + "Right") if two_sided else (action,)
        mean = sum(actions.get(n, 0.0) for n in names) / len(names)
        units[unit] = round(mean / gain * top(unit), 3)
    return units


def _neutral(u):
    return {
        "AU4": u(0, 0.6),
        "AU7": u(0, 0.6),
        "AU15": u(0, 0.4),
        "AU43": u(0, 0.08),
        "AU26": u(0, 0.15),
        "AU12": u(0, 0.6),
    }


def _pain(u, rng):
    """Pain at a drawn dose: a PSPI of about 3 to 15, shared out over its four terms."""
    dose = 3.0 + 12.0 * rng.beta(1.9, 1.4)
    closed = u(0.8, 1) if rng.random() < 0.2 + 0.5 * (dose - 3) / 12 else u(0.0, 0.45)
    share = rng.dirichlet([6, 7, 5])
    terms = share * (dose - closed)
    for _ in range(3):  # a term above 5 spills over onto the other two
        spill = np.maximum(terms - 5, 0)
        room = np.maximum(5 - terms, 0)
        terms = np.minimum(terms, 5) + spill.sum() * room / max(room.sum(), 1e-6)
    brow, orbit, levator = np.minimum(terms, 5)
    out = {"AU4": brow, "AU43": closed, "AU1": u(0, 1.2)}
    less = orbit * u(0.45, 1)
    out |= {"AU6": orbit, "AU7": less} if rng.random() < 0.5 else {"AU6": less, "AU7": orbit}
    less = levator * u(0.3, 0.95)
    out |= {"AU9": levator, "AU10": less} if rng.random() < 0.5 else {"AU9": less, "AU10": levator}
    force = 0.35 + 0.65 * (dose - 3) / 12
    mouth = rng.choice(
        ["bared", "cry", "pressed", "grimace", "quiet"], p=[0.3, 0.22, 0.18, 0.2, 0.1]
    )
    if mouth == "bared":
        out |= {"AU20": force * u(2.5, 5), "AU16": force * u(2, 4.5), "AU26": force * u(0.3, 1)}
    elif mouth == "cry":
        out |= {"AU26": force * u(1.8, 4.2), "AU20": force * u(1, 3.5), "AU16": force * u(0, 2)}
    elif mouth == "pressed":
        out |= {"AU24": force * u(2, 4.5), "AU15": force * u(0.5, 3), "AU17": force * u(1, 3)}
    elif mouth == "grimace":
        out |= {"AU20": force * u(2, 4), "AU15": force * u(0.5, 2.5), "AU26": force * u(0.2, 1.2)}
    return out


def _speech(u, rng):
    shapes = [
        {"AU22": u(2, 4.5)},
        {"AU18": u(2, 4.5)},
        {"AU20": u(1, 3), "AU16": u(1, 3)},
        {"AU10": u(0.5, 2), "AU16": u(1, 3)},
    ]
    return {
        "AU26": u(0.5, 2.4),
        "AU2": u(0, 1.8),
        "AU43": u(0, 0.4),
        "AU4": u(0, 1.2),
        **shapes[rng.integers(4)],
    }


def draw_units(kind, rng):
    """Action unit intensities of one face of a kind, drawn with the generator `rng`."""

    def u(low, high):
        return float(rng.uniform(low, high))

    if kind == "neutral":
        return _neutral(u)
    if kind == "pain":
        return _pain(u, rng)
    if kind == "speech":
        return _speech(u, rng)
    drawn = {
        "smile": lambda: {
            "AU12": u(2.2, 5),
            "AU6": u(1, 4),
            "AU10": u(0, 1.5),
            "AU7": u(0, 2),
            "AU26": u(0, 0.8),
        },
        "laugh": lambda: {
            "AU12": u(3, 5),
            "AU6": u(3, 5),
            "AU7": u(1.5, 4.5),
            "AU10": u(0.5, 3),
            "AU26": u(1.2, 3.4),
            "AU43": u(0.1, 1),
            "AU9": u(0, 2),
            "AU4": u(0, 1),
        },
        "surprise": lambda: {"AU1": u(3, 5), "AU2": u(3, 5), "AU5": u(2.5, 5), "AU26": u(1, 3.8)},
        "disgust": lambda: {
            "AU9": u(2.5, 5),
            "AU10": u(2, 4.8),
            "AU4": u(0.3, 3),
            "AU7": u(0, 3),
            "AU6": u(0, 2),
            "AU15": u(0.8, 3),
            "AU17": u(0.5, 2.5),
        },
        "anger": lambda: {
            "AU4": u(3, 5),
            "AU7": u(0.5, 3.5),
            "AU24": u(1, 4),
            "AU9": u(0, 1.8),
            "AU10": u(0, 1.5),
            "AU15": u(0, 2),
            "AU5": u(0, 1.5),
        },
        "sad": lambda: {
            "AU1": u(2.5, 5),
            "AU4": u(0, 2),
            "AU15": u(2.2, 5),
            "AU17": u(1, 3),
            "AU43": u(0, 0.4),
        },
        "fear": lambda: {
            "AU1": u(3, 5),
            "AU2": u(1, 2.8),
            "AU5": u(2.5, 5),
            "AU20": u(2, 5),
            "AU26": u(0.6, 2.2),
            "AU4": u(0.5, 2),
        },
        "squint": lambda: {
            "AU7": u(3, 5),
            "AU6": u(1.5, 4.5),
            "AU4": u(0.5, 3.2),
            "AU43": u(0.0, 0.3),
            "AU10": u(0, 1.5),
            "AU12": u(0, 1),
        },
        "closed": lambda: {
            "AU43": u(0.9, 1),
            "AU26": u(0, 0.8),
            "AU12": u(0, 1.5),
            "AU4": u(0, 1.2),
            "AU7": u(0, 1),
        },
    }
    return drawn[kind]()


def draw_free_units(rng):
    """Any combination over the whole range: about a third of the units, each 0 to its top."""
    units = {}
    for unit in UNITS:
        if rng.random() < 0.35:
            units[unit] = float(rng.uniform(0, top(unit)))
    if units.get("AU5", 0) > 1 and units.get("AU43", 0) > 0.3:  # wide and closed exclude each other
        units.pop("AU5" if rng.random() < 0.5 else "AU43")
    return units
