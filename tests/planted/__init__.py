"""Wrong answers to the exercises, by the name of their check: (source, words that the check's line must hold).

Each is a mistake that learners make. A check that lets one pass, or that cannot say what is wrong with it, is no check.
The functions bear the names that the lessons give them; `torch`, `math` and `F` are at hand as in the lessons.
"""

from . import (
    alternating,
    extension,
    geglu,
    growth,
    prenorm,
    pretraining,
    rope,
    tokenizer,
    tour,
    unpadding,
    vanilla_bert,
)

PLANTED: dict[str, list[tuple[str, str]]] = {}
for _lesson in (
    alternating,
    extension,
    geglu,
    growth,
    prenorm,
    pretraining,
    rope,
    tokenizer,
    tour,
    unpadding,
    vanilla_bert,
):
    PLANTED |= _lesson.PLANTED
