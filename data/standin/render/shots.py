"""How a half is photographed: wall, light and camera. Never told the label, kind or side.

The wall and the main light are drawn once a pair, as two photographs from one session; pose,
gaze, framing and small changes of the light are drawn for each half from a stream of its own.
"""

from dataclasses import dataclass

import numpy as np

from .geometry import rotation


@dataclass
class Setting:
    """What the two halves of a pair share."""

    wall: np.ndarray  # linear RGB
    wall_slope: np.ndarray  # horizontal and vertical change of brightness
    wall_seed: int
    mottle: float
    panel: tuple  # position and brightness of a blurred edge in the background
    key: np.ndarray  # direction of the main light in camera axes (right, up, towards the camera)
    key_size: float
    key_power: float
    fill_power: float
    tint: float  # warm (positive) to cold
    span: float  # metres from top to bottom of the picture
    distance: float
    height: float


@dataclass
class Shot:
    """One photograph: angles in degrees, lengths in metres."""

    yaw: float
    pitch: float
    roll: float
    gaze: tuple
    azimuth: float
    elevation: float
    shift: tuple
    span: float
    distance: float
    key: np.ndarray
    exposure: float
    grain: float
    seed: int

    def head_axes(self):
        """Rotation (3, 3) of the head: its columns point left, back and up in the world."""
        turn = rotation("z", self.yaw) @ rotation("x", self.pitch) @ rotation("y", self.roll)
        return turn.astype(np.float32)


def draw_setting(rng):
    """A `Setting` from the generator `rng`."""
    u = rng.uniform
    side = rng.choice([-1, 1])
    return Setting(
        wall=u(0.18, 0.75) * u(0.85, 1.15, 3),
        wall_slope=np.array([u(-0.35, 0.35), u(-0.3, 0.3)]),
        wall_seed=int(rng.integers(2**31)),
        mottle=u(0.01, 0.09),
        panel=(u(-0.2, 1.2), u(-0.25, 0.25), u(0.01, 0.12)),
        key=np.array([side * u(0.25, 0.95), u(0.3, 0.8), 1.0]),
        key_size=u(0.10, 0.30),
        key_power=u(0.9, 1.2),
        fill_power=u(0.7, 1.5),
        tint=u(-0.06, 0.06),
        span=u(0.36, 0.47),
        distance=u(1.1, 1.9),
        height=u(0.012, 0.034),
    )


def draw_shot(rng, setting):
    """A `Shot` of the setting from the generator `rng`."""
    n = rng.standard_normal
    return Shot(
        yaw=6.0 * n(),
        pitch=3.5 * n(),
        roll=2.5 * n(),
        gaze=(3.0 * n(), 2.0 * n()),
        azimuth=3.0 * n(),
        elevation=rng.uniform(-3, 6),
        shift=(0.007 * n(), setting.height + 0.006 * n()),
        span=setting.span * rng.uniform(0.94, 1.06),
        distance=setting.distance,
        key=setting.key + np.array([0.06 * n(), 0.06 * n(), 0.0]),
        exposure=rng.uniform(0.88, 1.12),
        grain=rng.uniform(0.8, 1.9),
        seed=int(rng.integers(2**31)),
    )
