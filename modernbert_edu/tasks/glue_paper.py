"""GLUE as the ModernBERT paper reports it, quoted and not measured here (arXiv 2412.13663, table 5: dev sets).

Numbers are in hundredths, as printed. By the published evaluation code the metric is Matthews correlation for CoLA,
Spearman's for STS-B, accuracy and F1 for MRPC and QQP (the code does not tell which of the two is printed) and accuracy
for the others. By the paper RTE, MRPC and STS-B begin with the model fine-tuned on MNLI, and ModernBERT's numbers come
from a sweep over learning rate, weight decay and epochs.
"""

from __future__ import annotations

from ..errors import InputError

# Name of the task in forms.GLUE -> its name in print. WNLI is not in the table.
NAMES = {"cola": "CoLA", "sst2": "SST-2", "mrpc": "MRPC", "stsb": "STS-B",
         "qqp": "QQP", "mnli": "MNLI", "qnli": "QNLI", "rte": "RTE"}  # fmt: skip

TABLE_5 = {
    "base": {
        "BERT": (59.0, 93.1, 89.5, 89.4, 91.4, 85.4, 91.6, 78.2),
        "RoBERTa": (63.6, 94.8, 90.2, 91.2, 91.9, 87.6, 92.8, 78.7),
        "DeBERTaV3": (69.2, 95.6, 89.5, 91.6, 92.4, 90.0, 94.0, 83.8),
        "ModernBERT": (65.1, 96.0, 92.2, 91.8, 92.1, 89.1, 93.9, 87.4),
    },
    "large": {
        "BERT": (56.2, 93.3, 87.8, 90.6, 90.9, 86.3, 92.8, 83.8),
        "RoBERTa": (68.0, 96.4, 90.9, 92.4, 92.2, 90.2, 94.7, 86.6),
        "DeBERTaV3": (75.3, 96.9, 92.2, 93.0, 93.3, 91.8, 96.0, 92.7),
        "ModernBERT": (71.4, 97.1, 91.7, 92.8, 92.7, 90.8, 95.2, 92.1),
    },
}
# The column GLUE of table 1. The means of table 5's cells agree to 0.1, ModernBERT's cut off rather than rounded (88.45
# printed as 88.4, 90.475 as 90.4), with one exception: DeBERTaV3-base's cells average 88.26, table 1 prints 88.1.
TABLE_1 = {
    "base": {"BERT": 84.7, "RoBERTa": 86.4, "DeBERTaV3": 88.1, "ModernBERT": 88.4},
    "large": {"BERT": 85.2, "RoBERTa": 88.9, "DeBERTaV3": 91.4, "ModernBERT": 90.4},
}
METRICS = {"cola": "matthews", "stsb": "spearman", "mrpc": "accuracy or f1", "qqp": "accuracy or f1"}  # else accuracy
FROM_MNLI = ("rte", "mrpc", "stsb")


def paper_table(size: str = "base") -> list[dict]:
    """A row for each model: {"model": ..., "CoLA": ..., ..., "RTE": ...}, tasks in the paper's order."""
    if size not in TABLE_5:
        raise InputError(f"the paper has no size {size!r}; it has: {', '.join(TABLE_5)}")
    return [
        {"model": model, **dict(zip(NAMES.values(), scores, strict=True))} for model, scores in TABLE_5[size].items()
    ]


def average(row: dict) -> float:
    """The plain mean over the eight tasks."""
    return sum(row[name] for name in NAMES.values()) / len(NAMES)


def quoted(task: str) -> str | None:
    """One line: what the paper reports for ModernBERT on a GLUE task, in our unit (1 is all right); else None."""
    if task not in NAMES:
        return None
    base, large = (TABLE_5[size]["ModernBERT"][list(NAMES).index(task)] / 100 for size in ("base", "large"))
    start = ", from its MNLI checkpoint" if task in FROM_MNLI else ""
    return (f"quoted, not measured here: {NAMES[task]} dev set, {METRICS.get(task, 'accuracy')}: ModernBERT-base "
            f"{base:.3f}, -large {large:.3f}{start} (arXiv 2412.13663, table 5)")  # fmt: skip
