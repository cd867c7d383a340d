"""An encoder that answers one question about a text, or about each of its words: heads for fine-tuning.

    SequenceClassifier   one answer for a text: pool -> head -> dropout -> linear
    TokenClassifier      one for each token: head -> dropout -> linear

The head between the encoder and the linear layer is each architecture's own, so that transformers'
`AutoModelForSequenceClassification` computes the same. ModernBERT uses its prediction head again (dense, GELU, norm),
already trained; BERT has a pooler (dense, tanh) for texts, and nothing for tokens.

Letters: B batch, S padded length, T tokens on the flat axis, N documents, D hidden, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import EncoderConfig
from .data.masking import IGNORED
from .errors import InputError
from .model import Encoder, MaskedLM, PredictionHead
from .unpadding import Layout

POOLINGS = ("cls", "mean")


@dataclass
class ClassifierOutput:
    """`logits` are (B, C), or (B, S, C) for tokens; `loss` is the mean over all labels that are given."""

    logits: Tensor
    loss: Tensor | None = None


class Pooler(nn.Module):
    """BERT's: dense, then tanh (Devlin et al. 2019, the published code): (N, D) -> (N, D)."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        nn.init.normal_(self.dense.weight, std=config.initializer_range)
        nn.init.zeros_(self.dense.bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        return torch.tanh(self.dense(x_ND))


def pool(hidden: Tensor, pooling: str, attention_mask: Tensor | None = None, layout: Layout | None = None) -> Tensor:
    """One vector a text: its first token's, or the mean over its real tokens.

    (B, S, D) with an attention mask where there is padding -> (B, D); flat (T, D) with a layout -> (N, D).
    """
    if hidden.dim() == 2:
        layout = Layout.from_lengths([hidden.shape[0]], hidden.device) if layout is None else layout
        starts, ends = layout.cu_seqlens[:-1].long(), layout.cu_seqlens[1:].long()
        if pooling == "cls":
            return hidden[starts]
        sums = hidden.new_zeros(layout.num_documents, hidden.shape[1]).index_add(0, layout.document_ids, hidden)
        return sums / (ends - starts)[:, None]
    if pooling == "cls":
        return hidden[:, 0]
    if attention_mask is None:
        return hidden.mean(dim=1)
    mask = attention_mask.to(hidden.dtype)[..., None]
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1)


class _Classifier(nn.Module):
    """What both have: encoder, dropout and the linear layer, which begins at random."""

    def __init__(self, config: EncoderConfig, labels: Sequence[str], dropout: float, backend: str):
        super().__init__()
        if not labels or len(set(labels)) < len(labels):
            raise InputError(f"labels must be the names of the classes, each once, not {list(labels)!r}")
        num_labels = len(labels)
        self.config, self.labels, self.num_labels = config, tuple(labels), num_labels
        self.encoder = Encoder(config, backend)
        self.drop = nn.Dropout(dropout)
        self.classifier = nn.Linear(config.hidden_size, num_labels)
        # ModernBERT's published code: the spread that keeps a logit's variance near one.
        modern = config.norm_placement == "pre"
        nn.init.normal_(self.classifier.weight, std=config.hidden_size**-0.5 if modern else config.initializer_range)
        nn.init.zeros_(self.classifier.bias)

    @classmethod
    def from_pretrained(cls, model: MaskedLM | Encoder | _Classifier, labels: Sequence[str], **options):
        """A classifier with copies of another model's weights: the encoder's, and the head's where it is of this kind.

        The linear layer begins anew, also where `model` is a classifier: its classes were others.
        """
        made = cls(model.config, labels, **options)
        made.encoder.load_state_dict((model if isinstance(model, Encoder) else model.encoder).state_dict())
        if not isinstance(model, Encoder) and type(model.head) is type(made.head):
            made.head.load_state_dict(model.head.state_dict())
        return made


class SequenceClassifier(_Classifier):
    """A text's class, one of `labels`; with a single label its name is that of a number (regression)."""

    def __init__(
        self, config: EncoderConfig, labels: Sequence[str], pooling: str = "cls", dropout: float = 0.0,
        backend: str = "auto",
    ):  # fmt: skip
        super().__init__(config, labels, dropout, backend)
        if pooling not in POOLINGS:
            raise InputError(f"pooling must be one of {', '.join(map(repr, POOLINGS))}, not {pooling!r}")
        self.pooling = pooling
        self.head = PredictionHead(config) if config.norm_placement == "pre" else Pooler(config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        layout: Layout | None = None,
        labels: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> ClassifierOutput:
        """As `Encoder.forward`; `labels` (B,) are class numbers, or floats for the squared error of one label."""
        hidden = self.encoder(input_ids, attention_mask, layout, token_type_ids).last_hidden_state
        pooled = pool(hidden, self.pooling, attention_mask, layout)
        logits = self.classifier(self.drop(self.head(pooled)))
        if labels is None:
            return ClassifierOutput(logits)
        if self.num_labels == 1:
            return ClassifierOutput(logits, F.mse_loss(logits[:, 0].float(), labels.float()))
        return ClassifierOutput(logits, F.cross_entropy(logits.float(), labels))


class TokenClassifier(_Classifier):
    """A class for each token; -100 marks those that have none."""

    def __init__(self, config: EncoderConfig, labels: Sequence[str], dropout: float = 0.0, backend: str = "auto"):
        super().__init__(config, labels, dropout, backend)
        self.head = PredictionHead(config) if config.norm_placement == "pre" else nn.Identity()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        layout: Layout | None = None,
        labels: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> ClassifierOutput:
        """As `Encoder.forward`; `labels` has the shape of the ids."""
        hidden = self.encoder(input_ids, attention_mask, layout, token_type_ids).last_hidden_state
        logits = self.classifier(self.drop(self.head(hidden)))
        if labels is None:
            return ClassifierOutput(logits)
        loss = F.cross_entropy(logits.flatten(0, -2).float(), labels.flatten(), ignore_index=IGNORED)
        return ClassifierOutput(logits, loss)
