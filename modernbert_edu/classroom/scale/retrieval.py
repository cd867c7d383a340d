"""Sizes of 12_retrieval."""

from dataclasses import dataclass

from .ablation import SIZES as ABLATION
from .ablation import AblationScale


@dataclass(frozen=True)
class RetrievalScale(AblationScale):
    """12_retrieval: ..."""


SIZES = {name: RetrievalScale(**vars(sizes)) for name, sizes in ABLATION.items()}
