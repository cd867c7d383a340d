"""Sizes of the verbs `pretrain`, `extend` and `grow`: what the published recipes are shrunk to."""

from dataclasses import dataclass

from .text import TextScale


@dataclass(frozen=True)
class PretrainScale(TextScale):
    """A run by a recipe of recipe.py: `Recipe.shrunk` keeps its ideas and takes these sizes.

    The laptop's learning rates are the best of 1e-3, 2e-3 and 4e-3 in the recorded sweep of the headline figure; the
    GPU's come from no sweep yet.
    """

    bert_preset: str = "bert-tiny"
    modernbert_preset: str = "modernbert-tiny"
    dtype: str = "float32"

    batch_size: int = 8  # sequences of full length in a step
    microbatch_size: int = 8  # and in one forward pass
    steps: int = 2400
    bert_rate: float = 2e-3
    modernbert_rate: float = 2e-3
    workers: int = 0  # processes that pack and mask ahead; on two cores they would take them from the model

    extension_steps: int = 400  # of `extend`, the decay included
    extension_rate_share: float = 3 / 8  # of the first phase's learning rate: 3e-4 of 8e-4 (paper, table 3)


SIZES = {
    "quick": PretrainScale(
        vocab_size=1024,
        tokenizer_characters=300_000,
        corpus_characters=600_000,
        held_out_sequences=32,
        steps=24,
        extension_steps=8,
    ),
    "laptop": PretrainScale(),
    "gpu": PretrainScale(
        bert_preset="bert-small",
        modernbert_preset="modernbert-small",
        dtype="bfloat16",
        vocab_size=16_384,
        tokenizer_characters=12_000_000,
        sequence_length=1024,
        held_out_sequences=1024,
        batch_size=96,
        microbatch_size=12,  # eight to a step, for up to eight processes
        steps=4000,
        bert_rate=1e-3,
        modernbert_rate=1e-3,
        workers=4,
        extension_steps=600,
    ),
}
