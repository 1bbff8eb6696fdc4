"""How often the 95 % interval of a difference holds the truth, on simulated studies.

Two arms score two faces of each person, one of them in pain or not. A score is the label's shift
plus what this person's face does to every model, to the models of this arm, and to this trained
model; a training run also has a luck of its own in how far it tells the classes apart. The truth is
the mean difference in AUROC over people and training runs, known in closed form.

    python benchmarks/coverage.py [--studies 1000]
"""

import argparse

import numpy as np
import pandas as pd
from scipy.stats import binomtest, norm
from tqdm import tqdm

from helpers.files import project_path, write_csv
from helpers.stats import Estimate, estimates, identity_weights, measure_auroc

PERSON, ARM, RUN = 0.7, 0.4, 0.6  # standard deviations of a face's effects on its score
SKILL = (1.5, 1.3)  # mean shift of Pain against NoPain, by arm
PEOPLE, PAINFUL, SAMPLES = 150, 75, 500


def truth(luck: float) -> float:
    """Return the mean difference in AUROC: normal shifts over the difference of two scores."""
    noise = 2 * (PERSON**2 + ARM**2 + RUN**2)
    first, second = (norm.cdf(skill / np.sqrt(noise + luck**2)) for skill in SKILL)
    return float(first - second)


def study(seeds: int, luck: float, rng: np.random.Generator) -> Estimate:
    """Simulate one study of two arms, each of `seeds` training runs; the difference in AUROC."""
    positive = np.arange(PEOPLE) < PAINFUL
    weights = identity_weights(np.arange(PEOPLE), SAMPLES, int(rng.integers(2**32)))
    person = rng.normal(0, PERSON, PEOPLE)
    arms = []
    for skill in SKILL:
        arm = person + rng.normal(0, ARM, PEOPLE)
        values, draws = [], []
        for _ in range(seeds):
            score = arm + rng.normal(0, RUN, PEOPLE) + positive * rng.normal(skill, luck)
            values.append(measure_auroc(positive, score))
            draws.append(measure_auroc(positive, score, weights))
        arms.append(estimates(values, draws)["auroc"])
    return arms[0] - arms[1]


def coverage(studies: int, seeds: int, luck: float) -> dict:
    """Return how many of `studies` intervals hold the truth, and how wide they are."""
    rng, known = np.random.default_rng([0, seeds, int(1000 * luck)]), truth(luck)
    found = [study(seeds, luck, rng) for _ in tqdm(range(studies), f"{seeds} seeds", mininterval=5)]
    held = sum(one.low <= known <= one.high for one in found)
    people = [np.quantile(one.draws, (0.025, 0.975)) for one in found]
    interval = binomtest(held, studies).proportion_ci()
    return {
        "seeds": seeds,
        "luck_of_training": luck,
        "true_difference": known,
        "studies": studies,
        "coverage": held / studies,
        "coverage_low": interval.low,
        "coverage_high": interval.high,
        "coverage_of_identities_alone": np.mean([low <= known <= high for low, high in people]),
        "median_width": np.median([one.high - one.low for one in found]),
    }


def main() -> None:
    """Simulate every setting, write the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000)
    given = parser.parse_args()
    settings = [(1, 0.0), (3, 0.0), (3, 0.15), (3, 0.4), (5, 0.15), (5, 0.4)]
    table = pd.DataFrame([coverage(given.studies, *setting) for setting in settings]).round(4)
    write_csv(project_path("benchmarks/results/coverage.csv"), table)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
