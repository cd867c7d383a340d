"""One frozen dataclass that describes BERT, ModernBERT and everything between them.

Vanilla BERT is the default value. ModernBERT is BERT with the fields in `MODERNBERT_CHANGES` replaced, and each
of them can be replaced alone: `EncoderConfig.preset("bert-base").replace(positions="rope")` is BERT with rotary
positions. The lessons and the ablations are built on that.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field, fields

from .errors import InputError


def switch(default, values: tuple, lesson: str):
    """A field that a lesson turns. `ablate --list` shows every field made this way."""
    return field(default=default, metadata={"switch": True, "values": values, "lesson": lesson})


@dataclass(frozen=True)
class EncoderConfig:
    """Everything that decides what an encoder computes. Sizes bear the names that transformers gives them.

    Raises `InputError` at construction when the values cannot go together.
    """

    # Sizes. Defaults are BERT-base (Devlin et al. 2019).
    vocab_size: int = 30_522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072  # width of the MLP; for GeGLU the width of one half (Wi is twice as wide)
    max_position_embeddings: int = 512  # rows of the learned table; for RoPE only the length the model is meant for
    type_vocab_size: int = 2  # BERT's segment embeddings (sentence A or B); 0 leaves them out

    # Switches: one per idea of the course.
    positions: str = switch("learned", ("learned", "rope"), "04_rope")
    norm_placement: str = switch("post", ("post", "pre"), "03_prenorm_and_biases")
    bias: bool = switch(True, (True, False), "03_prenorm_and_biases")  # of linear layers and norms
    mlp: str = switch("gelu", ("gelu", "geglu"), "05_geglu")
    attention_pattern: str = switch("G", ("G", "GLL"), "06_alternating_attention")  # tiled over the layers
    local_window: int = switch(128, (64, 128, 256), "06_alternating_attention")  # half on each side of the token
    global_rope_theta: float = switch(160_000.0, (10_000.0, 160_000.0), "09_context_extension")
    local_rope_theta: float = switch(10_000.0, (10_000.0, 160_000.0), "04_rope")
    unpad: bool = switch(False, (False, True), "07_unpadding")  # compute real tokens only, or the whole rectangle
    init: str = switch("normal", ("normal", "megatron"), "03_prenorm_and_biases")  # see model.initialise

    # Numbers that the lessons leave alone.
    norm_eps: float = 1e-12
    initializer_range: float = 0.02
    embedding_dropout: float = 0.0
    attention_dropout: float = 0.0  # on the attention probabilities
    attention_output_dropout: float = 0.0  # after the attention's output projection
    mlp_dropout: float = 0.0  # after the MLP's output projection
    pad_token_id: int | None = 0

    def __post_init__(self):
        _check_sizes(self)
        _check_switches(self)

    # ---- derived -------------------------------------------------------------------------------------------------

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def half_window(self) -> int:
        """Keys on each side of a token in a local layer: 64 for `local_window` 128, so 129 keys with the token."""
        return self.local_window // 2

    def layer_type(self, layer: int) -> str:
        """`G` (global) or `L` (local) for layer 0, 1, ...; the pattern repeats, so `GLL` is global at 0, 3, 6, ..."""
        return self.attention_pattern[layer % len(self.attention_pattern)]

    @property
    def layer_types(self) -> str:
        """One letter per layer, for example "GLLGLLG"."""
        return "".join(self.layer_type(i) for i in range(self.num_hidden_layers))

    # ---- making others -------------------------------------------------------------------------------------------

    @classmethod
    def preset(cls, name: str, **changes) -> EncoderConfig:
        """A named configuration (`presets()` lists the names), with `changes` applied."""
        if name not in PRESETS:
            raise InputError(f"no preset is called {name!r}; there are: {', '.join(PRESETS)}")
        return cls.from_dict({**PRESETS[name], **changes})

    @classmethod
    def from_dict(cls, values: dict) -> EncoderConfig:
        """A configuration from a plain dict. Raises `InputError` for a field that does not exist."""
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"the fields are: {', '.join(known)}"
                raise InputError(f"a configuration has no field {name!r}; {hint}")
        return cls(**values)

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    def identity(self) -> dict:
        """What a kept run or index is known by: all fields, less the later ones that have their default.

        A field that is added with a default leaves what there was as it was, and what was measured is found again.
        """
        later = {f.name: f.default for f in fields(self) if f.name not in FIRST_FIELDS}
        return {name: v for name, v in self.to_dict().items() if name not in later or v != later[name]}

    def replace(self, **changes) -> EncoderConfig:
        """This configuration with some fields changed, checked anew."""
        return self.from_dict({**self.to_dict(), **changes})

    def differences(self, other: EncoderConfig) -> dict[str, tuple]:
        """{field: (here, there)} for the fields in which the two differ."""
        mine, theirs = self.to_dict(), other.to_dict()
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}

    # ---- size ----------------------------------------------------------------------------------------------------

    def num_parameters(self, mlm_head: bool = True) -> int:
        """Parameters by formula; with `mlm_head` those of `MaskedLM`, whose decoder shares the embedding's matrix.

        `tests/test_config.py` holds it to the built model for every combination of the switches.
        """
        D, V, L = self.hidden_size, self.vocab_size, self.num_hidden_layers
        b = 1 if self.bias else 0
        norm = D * (1 + b)

        tables = V + self.type_vocab_size + (self.max_position_embeddings if self.positions == "learned" else 0)
        embeddings = tables * D + norm

        attention = (D * 3 * D + b * 3 * D) + (D * D + b * D)  # Wqkv and Wo
        wi = self.intermediate_size * (2 if self.mlp == "geglu" else 1)
        mlp = (D * wi + b * wi) + (self.intermediate_size * D + b * D)
        layers = L * (attention + mlp + 2 * norm)
        # Pre-norm: layer 0 has no attention norm (the embedding was just normalised), a final norm closes the stack.
        placement = -norm + norm if self.norm_placement == "pre" else 0

        head = (D * D + b * D + norm + V) if mlm_head else 0  # dense, norm, decoder bias
        return embeddings + layers + placement + head

    def matched_to(self, other: EncoderConfig, tolerance: float = 0.005) -> EncoderConfig:
        """This configuration with the MLP's width changed so that both have equally many parameters.

        The width is a multiple of 64 where one lands within `tolerance` (0.5 %), else of 32, 16, ... 1.
        Raises `InputError` when no positive width does.
        """
        target = other.num_parameters()
        empty = self.replace(intermediate_size=1).num_parameters()
        per_unit = self.replace(intermediate_size=2).num_parameters() - empty
        exact = 1 + (target - empty) / per_unit
        for multiple in (64, 32, 16, 8, 4, 2, 1):
            width = round(exact / multiple) * multiple
            if width < 1:
                continue
            matched = self.replace(intermediate_size=width)
            if abs(matched.num_parameters() - target) <= tolerance * target:
                return matched
        raise InputError(
            f"no width of the MLP gives {target:,} parameters (without an MLP there are already about {empty:,}); "
            "compare models of the same hidden size, layers and vocabulary"
        )


def _check_sizes(c: EncoderConfig) -> None:
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                 "max_position_embeddings"):  # fmt: skip
        if not isinstance(getattr(c, name), int) or getattr(c, name) < 1:
            raise InputError(f"{name} must be a whole number of at least 1, not {getattr(c, name)!r}")
    if not isinstance(c.type_vocab_size, int) or c.type_vocab_size < 0:
        raise InputError(f"type_vocab_size must be 0 (no segment embeddings) or more, not {c.type_vocab_size!r}")
    if c.hidden_size % c.num_attention_heads:
        raise InputError(
            f"num_attention_heads ({c.num_attention_heads}) does not divide hidden_size ({c.hidden_size}); "
            "each head gets hidden_size / num_attention_heads numbers"
        )
    if c.pad_token_id is not None and not 0 <= c.pad_token_id < c.vocab_size:
        raise InputError(f"pad_token_id {c.pad_token_id} is not in a vocabulary of {c.vocab_size}; set it, or None")
    for name in ("embedding_dropout", "attention_dropout", "attention_output_dropout", "mlp_dropout"):
        if not 0 <= getattr(c, name) < 1:
            raise InputError(f"{name} must be at least 0 and below 1, not {getattr(c, name)!r}")


def _check_switches(c: EncoderConfig) -> None:
    for name in ("positions", "norm_placement", "mlp", "init", "bias", "unpad"):
        allowed = SWITCHES[name]["values"]
        if getattr(c, name) not in allowed:
            raise InputError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {getattr(c, name)!r}")
    if not c.attention_pattern or set(c.attention_pattern) - set("GL"):
        raise InputError(
            f"attention_pattern {c.attention_pattern!r} may hold only the letters G (global) and L (local), "
            'for example "G" or "GLL"'
        )
    if not isinstance(c.local_window, int) or c.local_window < 2 or c.local_window % 2:
        raise InputError(f"local_window must be an even number of keys (half on each side), not {c.local_window!r}")
    if c.positions == "rope" and c.head_size % 2:
        raise InputError(
            f"RoPE turns pairs of numbers, so the head size must be even, not {c.head_size} "
            f"(hidden_size {c.hidden_size} / {c.num_attention_heads} heads)"
        )
    for name in ("global_rope_theta", "local_rope_theta", "norm_eps", "initializer_range"):
        if not getattr(c, name) > 0:
            raise InputError(f"{name} must be above 0, not {getattr(c, name)!r}")


# The fields of the first kept measurements. Those that come later stay out of this list: see `identity`.
FIRST_FIELDS = frozenset(
    "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings "
    "type_vocab_size positions norm_placement bias mlp attention_pattern local_window global_rope_theta "
    "local_rope_theta unpad init norm_eps initializer_range embedding_dropout attention_dropout "
    "attention_output_dropout mlp_dropout pad_token_id".split()
)
SWITCHES = {f.name: f.metadata for f in fields(EncoderConfig) if f.metadata.get("switch")}

# The road from BERT to ModernBERT, in the order of the lessons. Table 4 of the paper and the released checkpoints.
MODERNBERT_CHANGES = dict(
    norm_placement="pre",
    init="megatron",
    bias=False,
    positions="rope",
    type_vocab_size=0,
    mlp="geglu",
    attention_pattern="GLL",
    unpad=True,
    norm_eps=1e-5,
    max_position_embeddings=8192,
)


def _modernbert(**sizes) -> dict:
    return {**MODERNBERT_CHANGES, **sizes}


# BERT trains with dropout 0.1 everywhere (Devlin et al., A.2).
_BERT_DROPOUT = dict(embedding_dropout=0.1, attention_dropout=0.1, attention_output_dropout=0.1, mlp_dropout=0.1)
_MODERNBERT_PUBLISHED = dict(vocab_size=50_368, pad_token_id=50_283, attention_output_dropout=0.1)
# Small sizes have 1 mod 3 layers, so that first and last are global as in the published models, and no dropout:
# the budgets they are trained on end long before they could overfit.
_TINY = dict(vocab_size=4096, hidden_size=128, num_hidden_layers=4, num_attention_heads=4)
_MINI = dict(vocab_size=8192, hidden_size=256, num_hidden_layers=7, num_attention_heads=4)
_SMALL = dict(vocab_size=16_384, hidden_size=384, num_hidden_layers=7, num_attention_heads=6)
_BERT_LARGE = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
_MODERNBERT_BASE = dict(hidden_size=768, num_hidden_layers=22, num_attention_heads=12, intermediate_size=1152)
_MODERNBERT_LARGE = dict(hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, intermediate_size=2624)

PRESETS: dict[str, dict] = {
    "bert-tiny": dict(**_TINY, intermediate_size=512),
    "bert-mini": dict(**_MINI, intermediate_size=1024),
    "bert-small": dict(**_SMALL, intermediate_size=1536),
    "bert-base": dict(**_BERT_DROPOUT),
    "bert-large": dict(**_BERT_DROPOUT, **_BERT_LARGE),
    "modernbert-tiny": _modernbert(**_TINY, intermediate_size=192),
    "modernbert-mini": _modernbert(**_MINI, intermediate_size=384),
    "modernbert-small": _modernbert(**_SMALL, intermediate_size=576),
    "modernbert-base": _modernbert(**_MODERNBERT_PUBLISHED, **_MODERNBERT_BASE),
    "modernbert-large": _modernbert(**_MODERNBERT_PUBLISHED, **_MODERNBERT_LARGE),
}


def presets() -> list[str]:
    """The names that `EncoderConfig.preset` knows."""
    return list(PRESETS)
