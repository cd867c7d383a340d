"""What others printed about ModernBERT: quoted numbers with their source, never mixed with what is measured here.

Also what re-running the paper's GLUE would take, by operations.
"""

from __future__ import annotations

from ..config import EncoderConfig
from ..tasks.forms import GLUE
from .flops import forward_flops, train_flops

PAPER = "Warner et al. 2024, arXiv 2412.13663"
BLOG = "ModernBERT's announcement, Hugging Face blog, December 2024"
CIRCULATION = "in circulation, without a source"

# Thousands of real tokens a second and the largest batch at 512 tokens, base size, RTX 4090 (tables 2, 10 and 11). For
# models without unpadding "variable" was not run: it is half of "fixed", as half of the places hold real tokens.
PAPER_TABLE = {
    "BERT": dict(fixed=180.4, variable=90.2, batch=1096),
    "RoBERTa": dict(fixed=179.9, variable=89.9, batch=664),
    "DeBERTaV3": dict(fixed=70.2, variable=35.1, batch=236),
    "ModernBERT": dict(fixed=148.1, variable=147.3, batch=1604),
}
PAPER_LONG = 123.7  # ModernBERT-base, fixed 8,192, same unit
# Tokens a second, GB, and GLUE as they are passed on. No size, length, batch, dtype or device comes with them.
CIRCULATING = {
    "BERT": dict(tokens=1420, gb=1.2, glue=78.3),
    "RoBERTa": dict(tokens=1630, gb=1.5, glue=88.5),
    "DeBERTaV3": dict(tokens=980, gb=5.8, glue=91.2),
    "ModernBERT": dict(tokens=2400, gb=1.1, glue=92.1),
}
CIRCULATING_EXTENSION = 300_000_000
PHASES = {"context extension": (250_000_000_000, 39.9), "decay": (50_000_000_000, 11.5)}  # table 3: tokens, hours


def paper_ratio(column: str, other: str) -> float:
    return PAPER_TABLE["ModernBERT"][column] / PAPER_TABLE[other][column]


def paper_row(column: str) -> str:
    """A column of the table in one line, in the order of its models."""
    return " / ".join(f"{numbers[column]:,}" for numbers in PAPER_TABLE.values())


# ---- what GLUE would take --------------------------------------------------------------------------------------------

# Training examples as in GLUE's copy on the Hub (Wang et al. 2019 print them rounded), and what a run is taken to be.
GLUE_EXAMPLES = {"cola": 8_551, "sst2": 67_349, "mrpc": 3_668, "stsb": 5_749,
                 "qqp": 363_846, "mnli": 392_702, "qnli": 104_743, "rte": 2_490}  # fmt: skip
GLUE_LENGTH = 128  # tokens: the cut BERT used on GLUE, above what most examples have
SWEEP_SETTINGS = 4 * 4  # learning rates x weight decays of the paper's sweep, each with three numbers of epochs
FEW_EPOCHS, MORE_EPOCHS = (1, 2, 3), (2, 5, 10)  # the few: SST-2, MNLI and RTE
PEAK, UTILISATION = 989e12, 0.3  # H100 and H200, dense bfloat16 by data sheet; the share that is used: assumed


def glue_hours(size: str = "base", utilisation: float = UTILISATION) -> dict[str, float]:
    """Hours on one GPU to fine-tune on the eight tasks, by operations: {"once": ..., "sweep": ...}."""
    config = EncoderConfig.preset(f"modernbert-{size}")
    seconds = train_flops(forward_flops(config, [GLUE_LENGTH])) / (PEAK * utilisation)  # of one example
    epochs = {task: FEW_EPOCHS if task in ("sst2", "mnli", "rte") else MORE_EPOCHS for task in GLUE_EXAMPLES}
    once = sum(count * GLUE[task].epochs for task, count in GLUE_EXAMPLES.items())
    sweep = sum(count * sum(epochs[task]) * SWEEP_SETTINGS for task, count in GLUE_EXAMPLES.items())
    return {"once": once * seconds / 3600, "sweep": sweep * seconds / 3600}


def glue_cost_in_words() -> str:
    base, large = glue_hours("base"), glue_hours("large")
    return (
        f"by operations (3 x forward, {GLUE_LENGTH} tokens an example, {sum(GLUE_EXAMPLES.values()):,} training "
        f"examples, {UTILISATION:.0%} of {PEAK / 1e12:.0f} TFLOP/s assumed) one run of the eight tasks takes "
        f"{base['once']:.1f} hours on an H100 or H200 (large: {large['once']:.1f}), the paper's sweep of "
        f"{3 * SWEEP_SETTINGS} settings a task {base['sweep']:.0f} hours (large: {large['sweep']:.0f}), and the "
        "published weights are needed"
    )
