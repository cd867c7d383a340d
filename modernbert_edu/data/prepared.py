"""From a corpus to what training reads: a tokenizer learnt on it, and sequences, split by file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .batches import tokenize_corpus, unigram_entropy
from .corpus import Corpus, load_corpus
from .tokenizer import Tokenizer, train_bpe

if TYPE_CHECKING:
    from ..classroom.scale import TextScale


@dataclass(frozen=True)
class TextData:
    """The text as every model of a comparison sees it: token-id lists `[CLS] ... [SEP]`, split by file."""

    corpus: Corpus
    tokenizer: Tokenizer
    train: list[list[int]]
    held_out: list[list[int]]
    unigram_entropy: float  # nats: the held-out loss of a model that knows only how frequent each token is


def prepare(scale: TextScale, corpus: str | Corpus = "python", tokenizer: Tokenizer | None = None) -> TextData:
    """Read the corpus, learn a tokenizer from its training half (or take the one given), cut both into sequences."""
    if isinstance(corpus, str):
        corpus = read_corpus(scale, corpus)
    if tokenizer is None:
        tokenizer = learn_tokenizer(scale, corpus)
    train = tokenize_corpus(corpus.train, tokenizer, scale.sequence_length)
    held_out = tokenize_corpus(corpus.held_out, tokenizer, scale.sequence_length)
    order = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(scale.seed)).tolist()
    held_out = [held_out[i] for i in order[: scale.held_out_sequences]]
    entropy = unigram_entropy(train, held_out, tokenizer.vocab_size, tokenizer.special_ids)
    return TextData(corpus, tokenizer, train, held_out, entropy)


def read_corpus(scale: TextScale, spec: str) -> Corpus:
    return load_corpus(spec, seed=scale.seed, max_characters=scale.corpus_characters)


def learn_tokenizer(scale: TextScale, corpus: Corpus) -> Tokenizer:
    """A byte-level BPE of the scale's size, from the beginning of the corpus's training half."""
    return train_bpe(first_characters(corpus.train["text"], scale.tokenizer_characters), scale.vocab_size)


def first_characters(texts: list[str], limit: int) -> list[str]:
    """As many of the texts, from the first on, as hold `limit` characters together."""
    chosen, total = [], 0
    for text in texts:
        if total >= limit:
            break
        chosen.append(text)
        total += len(text)
    return chosen
