"""Kinds of expression -> FACS action units -> the facial actions of the body model.

The model's actions carry the names of ARKit's blend shapes; the correspondence with FACS action
units (Ekman, Friesen & Hager 2002) is the usual one, written out in `UNITS`. An intensity runs
from 0 to 5 (FACS A to E = 1 to 5); AU43, closed eyes, from 0 to 1. Pain intensity is
PSPI = AU4 + max(AU6, AU7) + max(AU9, AU10) + AU43 (Prkachin & Solomon 2008, Pain 139, 267-274).

Pain is drawn as a mixture of configurations (sources at `PAIN`), and every expressive half, in pain
or not, has everyday activity of any unit on top (`_everyday`): neither a unit nor PSPI decides.
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
    "AU25": ("mouthClose", False, -0.35),  # lips part, the jaw stays: the opposite of closing them
}
NO_PAIN_KINDS = {  # share of the expressive halves of NoPain pairs
    "squint": 0.15,
    "disgust": 0.15,
    "laugh": 0.14,
    "anger": 0.14,
    "closed": 0.10,
    "sad": 0.09,
    "fear": 0.07,
    "smile": 0.06,
    "speech": 0.06,
    "surprise": 0.04,
}
BLENDED = ("laugh", "squint", "disgust", "anger", "closed")  # what another kind is blended with
# Which groups of pain-related units move: the configurations in which people show pain, by cluster
# analysis of heat pain (Kunz & Lautenbacher 2014, Eur J Pain 18, 813-823) and of shoulder pain
# (Kunz et al. 2021, Eur J Pain 25, 529-540: narrowed eyes are common to all). The shares are ours.
# A group that is not of the configuration moves in `STRAY` of the faces all the same: they come in
# many combinations and seldom all at once (Kunz, Meixner & Lautenbacher 2019, Pain 160, 535-549).
PAIN = {
    "brows, eyes, nose": (0.30, ("brow", "eyes", "nose")),
    "brows, eyes": (0.25, ("brow", "eyes")),
    "eyes, mouth": (0.25, ("eyes", "mouth")),
    "raised brows": (0.20, ("raised", "eyes")),
}
SHOWN, STRAY = 0.95, 0.6
OPEN = 0.4  # share of NoPain faces that bare their teeth, talk or gasp over what they show
KINDS = ("neutral", "pain", *NO_PAIN_KINDS)


def top(unit):
    """Greatest intensity of an action unit."""
    return 1.0 if unit == "AU43" else 5.0


def pspi(units):
    """Prkachin & Solomon's pain intensity (0-16) of a dict of action unit intensities."""
    u = dict.fromkeys(UNITS, 0.0) | units
    return u["AU4"] + max(u["AU6"], u["AU7"]) + max(u["AU9"], u["AU10"]) + u["AU43"]


def actions_of(units, rng=None):
    """Facial action weights for action units.

    With a generator each side is off by about 7 %, as faces are not even.
    """
    actions = {}
    for unit, (action, two_sided, gain) in UNITS.items():
        value = units.get(unit, 0.0) / top(unit)
        for side in ("Left", "Right") if two_sided else ("",):
            uneven = value if rng is None else value * (1 + 0.07 * rng.standard_normal())
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
    """Pain at a drawn dose, in one of the configurations of `PAIN`."""
    dose = rng.beta(2.2, 1.8)
    shares = [share for share, _ in PAIN.values()]
    moved = list(PAIN.values())[rng.choice(len(PAIN), p=shares)][1]
    out = {}

    def level():
        return float(np.clip(5 * (0.35 + 0.65 * dose) * u(0.5, 1.2), 0, 5))

    def moves(group):
        return rng.random() < (SHOWN if group in moved else STRAY) * (0.75 + 0.35 * dose)

    def either(one, other):  # PSPI takes the stronger of two units that are hard to tell apart
        strong, weak = level(), level() * u(0, 1)
        return {one: strong, other: weak} if rng.random() < 0.5 else {one: weak, other: strong}

    if moves("brow"):
        out["AU4"] = level()
    if moves("eyes"):
        out |= either("AU6", "AU7")
    if moves("nose"):
        out |= either("AU9", "AU10")
    if "raised" in moved or rng.random() < 0.1:
        out |= {"AU1": 0.8 * level(), "AU2": u(0, 2)}
    if rng.random() < 0.2 + 0.4 * dose:  # more often in clinical pain (Kunz et al. 2019)
        out["AU43"] = u(0.5, 1)
    return out | _mouth_in_pain(u, rng, level, moves("mouth"))


def _mouth_in_pain(u, rng, level, opened):
    """What the mouth does: opens in one of three ways, or tenses, smiles or keeps still."""
    if opened:
        wide = rng.choice(["lips", "bared", "cry"], p=[0.3, 0.3, 0.4])
        if wide == "lips":
            return {"AU25": level(), "AU20": 0.3 * level()}
        if wide == "bared":
            lips = {"AU25": 0.4 * level(), "AU20": 0.7 * level(), "AU16": 0.5 * level()}
            return lips | {"AU26": u(0, 1)}
        return {"AU26": 0.8 * level(), "AU20": 0.4 * level(), "AU16": 0.3 * level()}
    # Smiles over pain: Kunz, Prkachin & Lautenbacher 2013, Pain Res Treat, 128093.
    closed = rng.choice(["pressed", "drawn", "smile", "still"], p=[0.25, 0.1, 0.4, 0.25])
    if closed == "pressed":
        return {"AU24": 0.8 * level(), "AU17": 0.6 * level(), "AU15": 0.5 * level()}
    if closed == "drawn":
        return {"AU20": 0.7 * level(), "AU15": 0.5 * level()}
    return {"AU12": 0.7 * level()} if closed == "smile" else {}


def _no_pain(kind, u, rng):
    """A kind posed at any strength, in three of five faces blended with another."""
    strength = u(0.4, 1)
    out = {k: v * (1 if k == "AU43" else strength) for k, v in _posed(kind, u, rng).items()}
    if rng.random() < 0.6:
        second = rng.choice([name for name in BLENDED if name != kind])
        share = u(0.2, 0.6)
        for unit, value in _posed(second, u, rng).items():
            out[unit] = max(out.get(unit, 0), share * value)
    if rng.random() < OPEN:
        for unit, value in {"AU25": u(0, 4), "AU20": u(0, 4), "AU16": u(0, 3)}.items():
            out[unit] = max(out.get(unit, 0), value)
    return out


def _everyday(units, rng):
    """What any face does beside its expression: a little of any unit, half-closed lids."""
    for unit in UNITS:
        if unit != "AU43" and rng.random() < 0.2:
            units[unit] = min(5.0, units.get(unit, 0.0) + float(rng.gamma(1.2, 0.4)))
    if rng.random() < 0.15:
        units["AU43"] = max(units.get("AU43", 0.0), float(rng.uniform(0, 0.4)))
    if units.get("AU5", 0) > 1 and units.get("AU43", 0) > 0.3:  # wide and closed exclude each other
        units["AU5"] = 0.0
    return units


def draw_units(kind, rng):
    """Action unit intensities of one face of a kind, drawn with the generator `rng`."""

    def u(low, high):
        return float(rng.uniform(low, high))

    if kind == "neutral":
        return _neutral(u)
    return _everyday(_pain(u, rng) if kind == "pain" else _no_pain(kind, u, rng), rng)


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


def _posed(kind, u, rng):
    """A kind other than pain at its full strength."""
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
