"""Wrong answers to the exercises, by the name of their check: (source, words that the check's line must hold).

Each is a mistake that learners make. A check that lets one pass, or that cannot say what is wrong with it, is no check.
The functions bear the names that the lessons give them; `torch`, `math` and `F` are at hand as in the lessons.
"""

import importlib
import pkgutil

PLANTED: dict[str, list[tuple[str, str]]] = {}
for _module in pkgutil.iter_modules(__path__):
    PLANTED |= importlib.import_module(f"{__name__}.{_module.name}").PLANTED
