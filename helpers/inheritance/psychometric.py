"""The psychometric function, fitted by maximum likelihood to many weighted samples at once.

ψ(x) = γ + (1 − γ − λ) / (1 + exp(−(x − α) / β)) (Wichmann & Hill 2001, *The psychometric function:
I*, Perception & Psychophysics 63, 1293–1313, with the logistic as their F). γ is how often the
answer comes without any of x, λ how often it is missed at any x. Both are bounded: free ones
take up what belongs to the slope. α is where half of the rise from γ to 1 − λ is reached.
"""

import numpy as np
import pandas as pd

# λ as in Wichmann & Hill. A guess is no lapse: in a yes-no task it is the rate of false alarms.
LAPSE, GUESS = 0.06, 0.25
_SLOPES = (0.01, 20.0)  # of 1 / β: from flat over the whole scale to a step
_END = 12.0  # of γ and λ on their logit scale
_ALPHA = 50.0  # |α| beyond which a curve is flat on any scale there is
_STEPS, _GAIN = 100, 1e-6  # of the climb; gain of log likelihood


def psychometric(x: np.ndarray, curve: pd.Series) -> np.ndarray:
    """Return ψ at `x` for one row of `fit_psychometric`."""
    rise = 1 / (1 + np.exp(-np.clip((x - curve["alpha"]) / curve["beta"], -500, 500)))
    return curve["gamma"] + (1 - curve["gamma"] - curve["lapse"]) * rise


def fit_psychometric(
    x: np.ndarray,
    yes: np.ndarray,
    weights: np.ndarray | None = None,
    guess: float = GUESS,
    lapse: float = LAPSE,
) -> pd.DataFrame:
    """Return columns `alpha`, `beta`, `gamma`, `lapse`, one row for each row of `weights`.

    `x`: the dose, (faces,). `yes`: the answers, bool, (faces,). `weights`: (samples, faces), none
    means one row, every face once. `guess`, `lapse`: the upper bounds of γ and λ; 0 leaves the
    plain logistic regression. Rises only: β is positive, and large where the answers do not rise
    with x. NaN where all answers are the same.

    By Fisher scoring with damping (Levenberg): the faces with equal weights from three starts, of
    which the best is kept, then each row of `weights` from there.
    """
    x, yes = np.asarray(x, float), np.asarray(yes, bool)
    centre, spread = x.mean(), max(float(x.std()), 1e-9)
    z, low_high = (x - centre) / spread, np.log(np.array(_SLOPES) * spread)

    def climb(begin: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _climb(begin, low_high, z, yes, weights, np.array([guess, lapse]))

    level, slope = np.array([(0.0, 1.0), (-1.4, 2.0), (0.0, 0.2)]).T
    begin = np.column_stack([level, np.log(slope), np.full((3, 2), -1.0)])
    found, likelihood = climb(begin, np.ones((3, len(x))))
    best = found[[likelihood.argmax()]]
    if weights is None:
        weights = np.ones((1, len(x)))
    else:
        # From a step, or from γ or λ at a bound, no gradient would lead away.
        begin = np.clip(best, [-np.inf, -np.inf, -3, -3], [np.inf, np.log(3), 3, 3])
        begin[:, 0] *= np.exp(begin[:, 1] - best[:, 1])  # which leaves α where it was
        best, _ = climb(np.tile(begin, (len(weights), 1)), weights)
    slope = np.exp(best[:, 1])
    alpha = np.clip(centre - spread * best[:, 0] / slope, -_ALPHA, _ALPHA)
    table = pd.DataFrame({"alpha": alpha, "beta": spread / slope})
    table["gamma"], table["lapse"] = guess * _logistic(best[:, 2]), lapse * _logistic(best[:, 3])
    said, total = weights @ yes, weights.sum(axis=1)
    table[(said == 0) | (said == total)] = np.nan
    return table


def _logistic(value: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(value, -60, 60)))


def _climb(
    found: np.ndarray,
    low_high: np.ndarray,
    z: np.ndarray,
    yes: np.ndarray,
    weights: np.ndarray,
    bounds: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the parameters (samples, 4) that end the climb, and their log likelihood.

    Parameters: level and log of the slope of the logistic's argument, γ and λ on a logit scale
    within their `bounds`. A step is taken where it does not lower the likelihood; a row is left
    alone once a step gains next to nothing. What is at its end and would go beyond has no part in
    a step, which would otherwise count on its moving.
    """
    found, damping = found.copy(), np.full(len(found), 1e-2)
    free = np.r_[True, True, bounds > 0]
    value, gradient, information = _likelihood(found, z, yes, weights, bounds)
    rows = np.arange(len(found))
    for _ in range(_STEPS):
        at, uphill = found[rows], gradient[rows]
        ended = (at <= -_END) & (uphill <= 0) | (at >= _END) & (uphill >= 0)
        ended[:, :2] = False
        may = free & ~ended
        slopes, curved = uphill * may, information[rows] * may[:, :, None] * may[:, None]
        scale = damping[rows, None] * np.einsum("sii->si", curved) + 1e-8
        step = np.linalg.solve(curved + scale[:, :, None] * np.eye(4), slopes[:, :, None])
        tried = found[rows] + np.clip(step[:, :, 0], -3, 3)
        tried[:, 1] = np.clip(tried[:, 1], *low_high)
        tried[:, 2:] = np.clip(tried[:, 2:], -_END, _END)
        new = _likelihood(tried, z, yes, weights[rows], bounds)
        better, gain = new[0] >= value[rows], new[0] - value[rows]
        taken = rows[better]
        found[taken], value[taken] = tried[better], new[0][better]
        gradient[taken], information[taken] = new[1][better], new[2][better]
        damping[rows] = np.clip(damping[rows] * np.where(better, 0.25, 8), 1e-8, 1e8)
        rows = rows[~better | (gain > _GAIN)]
        rows = rows[damping[rows] < 1e8]
        if not len(rows):
            break
    return found, value


def _likelihood(
    found: np.ndarray,
    z: np.ndarray,
    yes: np.ndarray,
    weights: np.ndarray,
    bounds: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return log likelihood (samples,), its gradient (samples, 4) and Fisher's information."""
    guess, lapse = bounds
    slope, gamma, missed = np.exp(found[:, 1:2]), *(_logistic(found[:, i : i + 1]) for i in (2, 3))
    rise = _logistic(found[:, :1] + slope * z)
    room = 1 - guess * gamma - lapse * missed
    chance = np.clip(guess * gamma + room * rise, 1e-12, 1 - 1e-12)
    value = (weights * np.log(np.where(yes, chance, 1 - chance))).sum(axis=1)
    along = room * rise * (1 - rise)
    parts = np.stack(
        [
            along,
            along * slope * z,
            guess * gamma * (1 - gamma) * (1 - rise),
            -lapse * missed * (1 - missed) * rise,
        ],
        axis=2,
    )
    variance = chance * (1 - chance)
    gradient = np.einsum("sf,sfp->sp", weights * (yes - chance) / variance, parts)
    weighted = (weights / variance)[:, :, None] * parts
    return value, gradient, weighted.transpose(0, 2, 1) @ parts
