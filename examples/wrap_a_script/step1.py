"""Step 1: the old main() becomes one reactor. Nothing is saved yet, but nothing is lost either."""

import csv
import os
import sys

import numpy as np

from pyplantx import *

HERE = os.path.dirname(os.path.abspath(__file__))
DEGREE = 2
RESAMPLES = 20_000
SHOWN = [0, 10, 20, 30]


def read_table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def clean(rows):
    """Drop days without a temperature, and days on which the counter was broken."""
    kept = [(float(row["temperature"]), int(row["rides"])) for row in rows if row["temperature"]]
    return np.array([pair for pair in kept if pair[1] >= 0])


def design(temperature, degree):
    return np.vander(np.asarray(temperature, dtype=float) / 10, degree + 1)


def fit(days, degree):
    return np.linalg.lstsq(design(days[:, 0], degree), days[:, 1], rcond=None)[0]


def resample_fits(days, degree, resamples):
    """The slow part: fit again on many random selections of the days."""
    rng = np.random.default_rng(1)
    picks = (days[rng.integers(len(days), size=len(days))] for _ in range(resamples))
    return np.array([fit(pick, degree) for pick in picks])


def show(days, curve, fits, degree, shown):
    print(f"{len(days)} good days, curve of degree {degree}")
    expected = design(shown, degree) @ curve
    low, high = np.percentile(design(shown, degree) @ fits.T, [5, 95], axis=1)
    for temperature, mean, least, most in zip(shown, expected, low, high):
        print(f"{temperature:3d} degrees: {mean:5.0f} rides  (90 %: {least:.0f} to {most:.0f})")


@ReactorFunc
def report(pipe):
    rows = read_table(os.path.join(HERE, "rides.csv"))
    days = clean(rows)
    curve = fit(days, DEGREE)
    fits = resample_fits(days, DEGREE, RESAMPLES)
    show(days, curve, fits, DEGREE, SHOWN)


def main():
    with Plant(sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "plant")) as plant:
        plant.add_event_listener(Plant.EventType.reactor_started, tell)
        plant.run_reactor(report)


def tell(event, name, function):
    print(f"ran: {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
