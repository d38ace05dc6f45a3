"""Which digit is it? A small machine-learning script as people write them, wrapped in reactors.

    python examples/digits/digits.py [--plant-dir DIR] [--out-dir DIR] [name=value ...]

Real handwritten digits (bundled with scikit-learn) become sparse features, two models are trained and
compared, and the better one's confusion matrix is drawn. Run it twice: the second time only `report`
runs. Then edit something; README.md beside this file walks through a few edits.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse

from pyplantx import *

HERE = os.path.dirname(os.path.abspath(__file__))
CLASSES = 10


class SoftmaxConfig(ConfigBase):
    def __init__(self):
        super().__init__()
        self.learning_rate = 0.5
        self.epochs = 60


class DigitsConfig(ConfigBase):
    def __init__(self):
        super().__init__()
        self.seed = 7
        self.test_share = 0.25
        self.ink_threshold = 8  # of 16 grey levels
        self.softmax = SoftmaxConfig()
        self.neighbours = 5
        self.colour = "Blues"
        self.out_dir = os.path.join(HERE, "output")
        self.mark_auxiliary(["out_dir"])  # where the files go says nothing about what is in them


# --- data ----------------------------------------------------------------------------------------


@ReactorFunc
def load_images(pipe):
    from sklearn.datasets import load_digits  # imported where it is used: a run that skips this skips that too

    digits = load_digits()
    pipe.send("images", digits.images)
    pipe.send("labels", digits.target)


@ReactorFunc
def split(pipe, config):
    images, labels = yield pipe.receive("images", "labels")
    order = np.random.default_rng(config.seed).permutation(len(images))
    cut = int(len(images) * config.test_share)
    for name, rows in (("test", order[:cut]), ("train", order[cut:])):
        pipe.send(f"{name}_images", images[rows])
        pipe.send(f"{name}_labels", labels[rows])


# --- features ------------------------------------------------------------------------------------


def binarize(images, threshold):
    """Which pixels carry ink."""
    return images > threshold


def strokes(ink):
    """Inked pixels, and pairs of inked neighbours: to the right, below, and down both diagonals."""
    right = ink[:, :, :-1] & ink[:, :, 1:]
    below = ink[:, :-1, :] & ink[:, 1:, :]
    falling = ink[:, :-1, :-1] & ink[:, 1:, 1:]
    rising = ink[:, 1:, :-1] & ink[:, :-1, 1:]
    return np.hstack([part.reshape(len(ink), -1) for part in (ink, right, below, falling, rising)])


@ReactorFunc
def make_features(pipe, config):
    train, test = yield pipe.receive("train_images", "test_images")
    for name, images in (("train", train), ("test", test)):
        rows = strokes(binarize(images, config.ink_threshold))
        pipe.send(f"{name}_features", scipy.sparse.csr_matrix(rows, dtype=np.float64))


# --- models --------------------------------------------------------------------------------------


def softmax(scores):
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


@ReactorFunc
def train_softmax(pipe, config):
    """Multinomial logistic regression by plain gradient descent."""
    features, labels = yield pipe.receive("train_features", "train_labels")
    targets = np.eye(CLASSES)[labels]
    weights = np.zeros((features.shape[1], CLASSES))
    for _ in range(config.softmax.epochs):
        error = softmax(features @ weights) - targets
        weights -= config.softmax.learning_rate * (features.T @ error) / len(labels)
    pipe.send("softmax_weights", weights)


@ReactorFunc
def train_neighbours(pipe, config):
    from sklearn.neighbors import KNeighborsClassifier

    features, labels = yield pipe.receive("train_features", "train_labels")
    model = KNeighborsClassifier(n_neighbors=config.neighbours)
    pipe.send("neighbours_model", model.fit(features, labels))


# --- evaluation ----------------------------------------------------------------------------------


def confusion_matrix(truth, guess):
    matrix = np.zeros((CLASSES, CLASSES), dtype=np.int64)
    np.add.at(matrix, (truth, guess), 1)
    return matrix


@ReactorFunc
def evaluate(pipe):
    features, labels = yield pipe.receive("test_features", "test_labels")
    weights, model = yield pipe.receive("softmax_weights", "neighbours_model")
    guesses = {"softmax": np.argmax(features @ weights, axis=1), "neighbours": model.predict(features)}
    accuracy = {name: round(float((guess == labels).mean()), 4) for name, guess in guesses.items()}
    best = max(accuracy, key=accuracy.get)
    pipe.send("metrics", {"best": best, "accuracy": accuracy})
    pipe.send("confusion", confusion_matrix(labels, guesses[best]))


@ReactorFunc
def draw_confusion(pipe, config):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matrix = yield pipe.receive("confusion")
    figure, axes = pyplot.subplots(figsize=(4, 4), dpi=80)
    axes.imshow(matrix, cmap=config.colour)
    axes.set(xlabel="guess", ylabel="truth", xticks=range(CLASSES), yticks=range(CLASSES))
    path = pipe.allocate("confusion_picture", Ingredient.Type.file, suffix=".png")
    figure.savefig(path)
    pyplot.close(figure)
    pipe.send("confusion_picture", path)


@ReactorFunc
def report(pipe, config):
    """The final artifact: it sends nothing and is run each time that it is asked for."""
    metrics, picture = yield pipe.receive("metrics", "confusion_picture")
    os.makedirs(config.out_dir, exist_ok=True)
    shutil.copyfile(picture, os.path.join(config.out_dir, "confusion.png"))
    with open(os.path.join(config.out_dir, "metrics.json"), "w", encoding="utf-8") as file:
        json.dump(metrics, file, indent=2)
    for name, accuracy in metrics["accuracy"].items():
        print(f"{name}: {accuracy:.4f}")


# --- the command ---------------------------------------------------------------------------------


def set_option(config: Any, text: str) -> None:
    """Apply one ``softmax.epochs=20`` to the config; unknown names are an error, not a new option."""
    path, _, value = text.partition("=")
    *branches, leaf = path.split(".")
    for branch in branches:
        config = getattr(config, branch)
    kind = type(getattr(config, leaf))
    setattr(config, leaf, value if kind is str else kind(ast.literal_eval(value)))


def tell(event, name, function):
    print(f"ran: {name}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plant-dir", default=os.path.join(HERE, "plant"), help="where results are kept")
    parser.add_argument("--out-dir", help="where the picture and the metrics go")
    parser.add_argument("options", nargs="*", metavar="name=value", help="config options, e.g. softmax.epochs=20")
    arguments = parser.parse_args(argv)

    config = DigitsConfig()
    if arguments.out_dir:
        config.out_dir = arguments.out_dir
    for option in arguments.options:
        set_option(config, option)

    with Plant(arguments.plant_dir) as plant:
        plant.add_event_listener(Plant.EventType.reactor_started, tell)
        plant.set_config(config)
        plant.run_reactor(report)


if __name__ == "__main__":
    main()
