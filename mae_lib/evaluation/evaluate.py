"""Score one encoder on every task under both protocols."""

from collections.abc import Callable, Mapping

import numpy as np

from mae_lib.evaluation.features import Encode, Features, extract
from mae_lib.evaluation.intervals import wilson
from mae_lib.evaluation.linear_probe import Scored, linear_probe
from mae_lib.evaluation.neighbours import nearest_neighbours
from mae_lib.images.store import TaskImages
from mae_lib.study.definition import Evaluation

PROTOCOLS = ("linear", "knn")


def evaluate(
    encode: Encode,
    tasks: Mapping[str, TaskImages],
    evaluation: Evaluation,
    *,
    pixels: int,
    on_features: Callable[[str, Features], None] | None = None,
) -> list[dict]:
    """Return one row a task and protocol: the linear probe on mean tokens, k-NN on 2 x 2 pooled.

    Every cell is read out with the same labelled images, whatever it was pretrained on.
    `on_features` gets the features of `<task>-train` and `<task>-test` as they are made.
    """
    rows = []
    for name, task in tasks.items():
        train = extract(encode, task.train_images, pixels=pixels)
        test = extract(encode, task.test_images, pixels=pixels)
        if on_features is not None:
            on_features(f"{name}-train", train)
            on_features(f"{name}-test", test)
        for protocol, scored in score(train, test, task, evaluation).items():
            rows.append({"task": name, "protocol": protocol} | score_columns(scored, task))
    return rows


def score(
    train: Features, test: Features, task: TaskImages, evaluation: Evaluation
) -> dict[str, Scored]:
    """Read features out under both protocols."""
    labels, test_labels = np.asarray(task.train_labels), np.asarray(task.test_labels)
    return {
        "linear": linear_probe(train.mean, labels, test.mean, test_labels, folds=evaluation.folds),
        "knn": nearest_neighbours(
            train.pooled,
            labels,
            test.pooled,
            test_labels,
            neighbours=evaluation.neighbours,
            temperature=evaluation.temperature,
        ),
    }


def score_columns(scored: Scored, task: TaskImages) -> dict:
    """Return the columns of runs.csv that one readout fills."""
    n, right = len(scored.correct), int(scored.correct.sum())
    low, high = wilson(right, n)
    counts = np.bincount(np.asarray(task.test_labels))
    return {
        "top1": right / n,
        "top1_low": low,
        "top1_high": high,
        "n_eval": n,
        "top5": None if scored.correct_top5 is None else float(scored.correct_top5.mean()),
        "chance": float(counts.max() / n),
    }
