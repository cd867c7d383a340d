"""The forms that a task can take, GLUE's among them, and the number that each is judged by.

    text(s) -> class      one sentence or a pair      accuracy, Matthews correlation, F1
    text(s) -> number     regression                  Pearson and Spearman correlation
    words -> classes      one label for each word     accuracy and macro F1 over words

Metrics are scikit-learn's and scipy's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError

FORMS = ("classes", "number", "words")


def accuracy(truth: np.ndarray, said: np.ndarray) -> float:
    return float((truth == said).mean())


def f1(truth: np.ndarray, said: np.ndarray) -> float:
    """Of class 1 (GLUE's "is a paraphrase") where there are two classes, else the mean over the classes."""
    from sklearn.metrics import f1_score

    binary = set(np.unique(truth)) | set(np.unique(said)) <= {0, 1}
    return float(f1_score(truth, said, average="binary" if binary else "macro", zero_division=0.0))


def macro_f1(truth: np.ndarray, said: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(truth, said, average="macro", zero_division=0.0))


def matthews(truth: np.ndarray, said: np.ndarray) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(truth, said))


def pearson(truth: np.ndarray, said: np.ndarray) -> float:
    return _correlation("pearsonr", truth, said)


def spearman(truth: np.ndarray, said: np.ndarray) -> float:
    return _correlation("spearmanr", truth, said)


def _correlation(name: str, truth: np.ndarray, said: np.ndarray) -> float:
    """0 where one side is constant: such answers order nothing."""
    import scipy.stats

    if np.ptp(truth) == 0 or np.ptp(said) == 0:
        return 0.0
    return float(getattr(scipy.stats, name)(truth, said).statistic)


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


@dataclass(frozen=True)
class Task:
    """Which columns hold the text and the answer, the answer's form, and how it is judged (first metric first)."""

    name: str
    columns: tuple[str, ...]  # one text, or the two of a pair; for "words" the column of word lists
    label: str = "label"
    form: str = "classes"
    metrics: tuple[str, ...] = ("accuracy",)
    splits: tuple[str, str] = ("train", "validation")  # on the Hub
    rate: float = 5e-5
    weight_decay: float = 5e-6
    epochs: int = 3

    def __post_init__(self):
        if self.form not in FORMS:
            raise InputError(f"a task's form must be one of {', '.join(FORMS)}, not {self.form!r}")
        if len(self.columns) not in (1, 2) or (self.form == "words" and len(self.columns) != 1):
            raise InputError(f"name one column of text, or the two of a pair, not {self.columns!r}")
        for metric in self.metrics:
            if metric not in METRICS:
                raise InputError(f"there is no metric {metric!r}; there are: {', '.join(METRICS)}")


# GLUE (Wang et al. 2019), columns and splits as in its copy on the Hub. The rates, decays and epochs of CoLA, MNLI and
# SST-2 are ModernBERT-base's (paper, table 6); those of the others lie in the middle of the paper's sweep.
GLUE = {
    task.name: task
    for task in (
        Task("cola", ("sentence",), metrics=("matthews", "accuracy"), rate=8e-5, weight_decay=1e-6, epochs=5),
        Task("sst2", ("sentence",), rate=8e-5, weight_decay=1e-5, epochs=2),
        Task("mrpc", ("sentence1", "sentence2"), metrics=("accuracy", "f1"), epochs=5),
        Task("stsb", ("sentence1", "sentence2"), form="number", metrics=("spearman", "pearson"), epochs=5),
        Task("qqp", ("question1", "question2"), metrics=("accuracy", "f1"), epochs=5),
        Task("mnli", ("premise", "hypothesis"), splits=("train", "validation_matched"), rate=5e-5, epochs=1),
        Task("qnli", ("question", "sentence"), epochs=2),
        Task("rte", ("sentence1", "sentence2")),
        Task("wnli", ("sentence1", "sentence2")),
    )
}
OWN = {
    "text": Task("text", ("text",)),
    "pair": Task("pair", ("text1", "text2")),
    "number": Task("number", ("text",), form="number", metrics=("spearman", "pearson")),
    "words": Task("words", ("words",), label="labels", form="words", metrics=("macro_f1", "accuracy")),
}
TASKS = GLUE | OWN


def find_task(
    name: str, columns: Sequence[str] | None = None, label: str | None = None, metrics: Sequence[str] | None = None
) -> Task:
    """A task by its name, with the columns of the user's own file where they are called otherwise."""
    if name not in TASKS:
        raise InputError(f"there is no task {name!r}; there are: {', '.join(TASKS)}")
    changes = dict(columns=tuple(columns or ()), label=label, metrics=tuple(metrics or ()))
    return replace(TASKS[name], **{key: value for key, value in changes.items() if value})
