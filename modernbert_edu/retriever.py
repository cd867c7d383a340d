"""An encoder that finds: texts become vectors, and what answers a question lies near it.

    Embedder         a text -> one unit vector: encoder -> pool -> length 1
    TokenEmbedder    a text -> a unit vector for each token: encoder -> linear -> length 1 ("late interaction")

Two texts' score is the dot product of their vectors, the cosine of the angle between them (Reimers and Gurevych 2019,
"Sentence-BERT"). With a vector a token it is the sum, over the question's tokens, of each one's best match among the
text's tokens (Khattab and Zaharia 2020, "ColBERT", equation 3).

retriever_folder.py saves and opens both.

Letters: B batch, S padded length, D hidden, N texts, Q questions, K size of a token's vector.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .classifier import POOLINGS, pool
from .data.batches import pad_batch
from .data.tokenizer import Tokenizer
from .errors import InputError
from .model import Encoder, MaskedLM
from .runtime import progress
from .training.pretrain import autocast
from .unpadding import Layout

KINDS = ("query", "document")


class _Retriever(nn.Module):
    """What both have: an encoder with its tokenizer, what is put before a text, and batches of like lengths."""

    def __init__(self, encoder: Encoder, tokenizer: Tokenizer, prompts: dict[str, str] | None, max_length: int | None):
        super().__init__()
        longest = min(encoder.config.max_position_embeddings, tokenizer.max_length or 10**9)
        if max_length is not None and not 2 < max_length <= longest:
            raise InputError(f"max_length must lie between 3 and the model's {longest:,}, not {max_length!r}")
        self.encoder, self.tokenizer, self.config = encoder, tokenizer, encoder.config
        self.max_length = max_length or longest
        self.prompts = {kind: (prompts or {}).get(kind, "") for kind in KINDS}
        self.cut = 0  # texts of the last `encode` that were too long

    @classmethod
    def from_pretrained(cls, model: MaskedLM | Encoder, tokenizer: Tokenizer, **options):
        """A retriever with copies of a pretrained encoder's weights; its masked-LM head is not needed."""
        if not isinstance(model, MaskedLM | Encoder):
            raise InputError(f"a {type(model).__name__} cannot become a retriever; give the pretrained model")
        encoder = model.encoder if isinstance(model, MaskedLM) else model
        return cls(copy.deepcopy(encoder), tokenizer, **options)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def token_ids(self, texts: Sequence[str], kind: str, max_length: int | None = None) -> list[list[int]]:
        """`[CLS] prompt text [SEP]`, cut to the longest length; how many were cut is in `.cut`."""
        if kind not in KINDS:
            raise InputError(f"a text is a {' or a '.join(KINDS)}, not a {kind!r}")
        longest = min(max_length or self.max_length, self.max_length)
        rows = self.tokenizer.encode_batch([self.prompts[kind] + text for text in texts])
        self.cut = sum(len(ids) > longest for ids in rows)
        return [ids if len(ids) <= longest else [*ids[: longest - 1], self.tokenizer.sep_id] for ids in rows]

    @torch.no_grad()
    def _batches(self, texts: Sequence[str], kind: str, batch_tokens: int, dtype: torch.dtype | None, bar: bool):
        """(indices, output, attention mask) of one batch after the other, longest texts first, in eval mode."""
        ids = self.token_ids(texts, kind)
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        was_training, start = self.training, 0
        self.eval()
        try:
            with progress(total=len(ids), desc="embed", unit="text") if bar else nullcontext() as shown:
                while start < len(order):
                    rows = max(1, batch_tokens // len(ids[order[start]]))
                    chosen = order[start : start + rows]
                    input_ids, mask = pad_batch([ids[i] for i in chosen], self.tokenizer.pad_id)
                    with autocast(self.device, dtype or torch.float32):
                        output = self(input_ids.to(self.device), mask.to(self.device))
                    yield chosen, output.float().cpu(), mask
                    start += rows
                    if shown is not None:
                        shown.update(len(chosen))
        finally:
            self.train(was_training)


class Embedder(_Retriever):
    """A text as one vector of `dimension` numbers.

    `pooling` is "mean" over the text's tokens or "cls", the first one's. With `normalize` vectors have length 1, and
    their dot product is the cosine. `prompts` are put before a "query" and a "document".
    """

    def __init__(
        self, encoder: Encoder, tokenizer: Tokenizer, pooling: str = "mean", normalize: bool = True,
        prompts: dict[str, str] | None = None, max_length: int | None = None,
    ):  # fmt: skip
        super().__init__(encoder, tokenizer, prompts, max_length)
        if pooling not in POOLINGS:
            raise InputError(f"pooling must be one of {', '.join(map(repr, POOLINGS))}, not {pooling!r}")
        self.pooling, self.normalize = pooling, normalize
        self.dimension = encoder.config.hidden_size

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, layout: Layout | None = None) -> Tensor:
        """(B, S) ids -> (B, D), or flat (T,) ids with a layout -> (N, D)."""
        hidden = self.encoder(input_ids, attention_mask, layout).last_hidden_state
        pooled = pool(hidden, self.pooling, attention_mask, layout)
        return F.normalize(pooled.float(), dim=-1) if self.normalize else pooled

    def encode(
        self, texts: Sequence[str], kind: str = "document", *, batch_tokens: int = 16_384,
        dtype: torch.dtype | None = None, bar: bool = False,
    ) -> Tensor:  # fmt: skip
        """N texts -> (N, D) float32 on the CPU, in the texts' order, without gradients.

        Texts longer than `max_length` are cut and counted in `.cut`. `batch_tokens` are computed at once, pads
        included; with `dtype` bfloat16 the products run in it under autocast.
        """
        vectors = torch.empty(len(texts), self.dimension)
        for chosen, output, _ in self._batches(texts, kind, batch_tokens, dtype, bar):
            vectors[chosen] = output
        return vectors


class TokenEmbedder(_Retriever):
    """A text as one unit vector of `dimension` numbers for each of its tokens, [CLS] and [SEP] among them."""

    def __init__(
        self, encoder: Encoder, tokenizer: Tokenizer, dimension: int = 128, prompts: dict[str, str] | None = None,
        max_length: int | None = None,
    ):  # fmt: skip
        super().__init__(encoder, tokenizer, prompts, max_length)
        if dimension < 1:
            raise InputError(f"dimension must be at least 1, not {dimension!r}")
        self.dimension = dimension
        self.linear = nn.Linear(encoder.config.hidden_size, dimension, bias=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, layout: Layout | None = None) -> Tensor:
        """(B, S) ids -> (B, S, K), zeros at pads; or flat (T,) ids with a layout -> (T, K)."""
        hidden = self.encoder(input_ids, attention_mask, layout).last_hidden_state
        vectors = F.normalize(self.linear(hidden).float(), dim=-1)
        return vectors if attention_mask is None else vectors * attention_mask[..., None]

    def encode(
        self, texts: Sequence[str], kind: str = "document", *, batch_tokens: int = 16_384,
        dtype: torch.dtype | None = None, bar: bool = False,
    ) -> list[Tensor]:  # fmt: skip
        """N texts -> N tensors (tokens of the text, K), float32 on the CPU, in the texts' order."""
        found: list[Tensor] = [torch.empty(0)] * len(texts)
        for chosen, output, mask in self._batches(texts, kind, batch_tokens, dtype, bar):
            for i, vectors, length in zip(chosen, output, mask.sum(dim=1).tolist(), strict=True):
                found[i] = vectors[:length].clone()
        return found


Retriever = Embedder | TokenEmbedder


def max_sim(query_SK: Tensor, documents: Sequence[Tensor]) -> Tensor:
    """One question's token vectors against N texts' -> (N,) sums of best matches (ColBERT, equation 3)."""
    return torch.stack([(query_SK @ document.T).amax(dim=1).sum() for document in documents])


def fingerprint(model: Retriever) -> str:
    """16 hex digits that two retrievers share exactly if they make the same vectors of every text."""
    digest = hashlib.sha256()
    config = {name: value for name, value in model.config.identity().items() if name not in NOT_IN_VECTORS}
    settings = [type(model).__name__, config, model.prompts, model.max_length, _pooling(model)]
    digest.update(json.dumps([*settings, model.tokenizer.fingerprint], sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


NOT_IN_VECTORS = ("pad_token_id", "unpad", "init", "initializer_range", "embedding_dropout", "attention_dropout",
                  "attention_output_dropout", "mlp_dropout")  # fmt: skip


def _pooling(model: Retriever) -> list:
    return [model.pooling, model.normalize] if isinstance(model, Embedder) else [model.dimension]
