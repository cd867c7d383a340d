"""Every size that a lesson uses, three times: `quick`, `laptop`, `gpu`.

A lesson holds no size of its own: it reads them from `get_scale()`, so the same code runs in the tests within seconds,
on a laptop within minutes and on a GPU at sizes that conclusions can rest on. `laptop` is written as the defaults;
`quick` and `gpu` state what they change.

Times behind the sizes: two CPU cores train about 15,000 tokens/s of the tiny models. The loss of a masked language
model first falls fast, to about the unigram entropy of the text, and then slowly; `laptop` has the steps to get below
it, `quick` has not and only shows that everything runs.
"""

import os
from dataclasses import dataclass

from modernbert_edu.errors import InputError

from . import (
    ablation,
    alternating,
    extension,
    finetuning,
    geglu,
    growth,
    head_to_head,
    headline,
    prenorm,
    pretrain,
    pretraining,
    retrieval,
    rope,
    search,
    tokenizer,
    tour,
    unpadding,
    vanilla_bert,
)
from .ablation import AblationScale
from .alternating import AlternatingScale
from .extension import ExtensionScale
from .finetuning import FinetuningScale
from .geglu import GegluScale
from .growth import GrowthScale
from .head_to_head import HeadToHeadScale
from .headline import HeadlineScale
from .prenorm import PrenormScale
from .pretrain import PretrainScale
from .pretraining import PretrainingScale
from .retrieval import RetrievalScale
from .rope import RopeScale
from .search import SearchScale
from .text import MixedLengths, TextScale
from .tokenizer import TokenizerScale
from .tour import TourScale
from .unpadding import UnpaddingScale
from .vanilla_bert import VanillaBertScale

__all__ = [
    "MixedLengths",
    "SCALES",
    "Scale",
    "TextScale",
    "get_scale",
    "AblationScale",
    "AlternatingScale",
    "ExtensionScale",
    "FinetuningScale",
    "GegluScale",
    "GrowthScale",
    "HeadToHeadScale",
    "HeadlineScale",
    "PrenormScale",
    "PretrainScale",
    "PretrainingScale",
    "RetrievalScale",
    "RopeScale",
    "SearchScale",
    "TokenizerScale",
    "TourScale",
    "UnpaddingScale",
    "VanillaBertScale",
]


@dataclass(frozen=True)
class Scale:
    """One size of the whole course: a section for each lesson that has sizes."""

    name: str
    tour: TourScale
    vanilla_bert: VanillaBertScale
    tokenizer: TokenizerScale
    prenorm: PrenormScale
    rope: RopeScale
    geglu: GegluScale
    alternating: AlternatingScale
    unpadding: UnpaddingScale
    pretraining: PretrainingScale
    extension: ExtensionScale
    growth: GrowthScale
    finetuning: FinetuningScale
    retrieval: RetrievalScale
    head_to_head: HeadToHeadScale
    ablation: AblationScale
    pretrain: PretrainScale
    headline: HeadlineScale
    search: SearchScale


_SECTIONS = dict(
    tour=tour,
    vanilla_bert=vanilla_bert,
    tokenizer=tokenizer,
    prenorm=prenorm,
    rope=rope,
    geglu=geglu,
    alternating=alternating,
    unpadding=unpadding,
    pretraining=pretraining,
    extension=extension,
    growth=growth,
    finetuning=finetuning,
    retrieval=retrieval,
    head_to_head=head_to_head,
    ablation=ablation,
    pretrain=pretrain,
    headline=headline,
    search=search,
)
SCALES = {
    name: Scale(name, **{section: module.SIZES[name] for section, module in _SECTIONS.items()})
    for name in ("quick", "laptop", "gpu")
}


def get_scale(name: str | None = None) -> Scale:
    """The scale called `name`, or MODERNBERT_EDU_SCALE, or `gpu` where CUDA is and `laptop` elsewhere.

    Raises InputError for a name that is none of quick, laptop, gpu.
    """
    wanted = (name or os.environ.get("MODERNBERT_EDU_SCALE", "")).strip().lower()
    if not wanted:
        import torch  # only here: the table itself needs nothing

        wanted = "gpu" if torch.cuda.is_available() else "laptop"
    if wanted not in SCALES:
        source = "scale" if name else "MODERNBERT_EDU_SCALE"
        raise InputError(f"{source} {wanted!r} does not exist: choose one of {', '.join(SCALES)}")
    return SCALES[wanted]
