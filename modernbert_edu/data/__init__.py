"""Text in, training batches out: corpus -> tokenizer -> batches -> masking."""

from modernbert_edu.data.batches import SequenceBatches, chunk, pad_batch, tokenize_corpus, unigram_entropy
from modernbert_edu.data.corpus import Corpus, load_corpus
from modernbert_edu.data.masking import MaskingSpec, mask_tokens
from modernbert_edu.data.prepared import TextData, prepare
from modernbert_edu.data.tokenizer import Tokenizer, load_tokenizer, save_tokenizer, train_bpe, train_wordpiece

__all__ = [
    "Corpus",
    "MaskingSpec",
    "SequenceBatches",
    "TextData",
    "Tokenizer",
    "chunk",
    "load_corpus",
    "load_tokenizer",
    "mask_tokens",
    "pad_batch",
    "prepare",
    "save_tokenizer",
    "tokenize_corpus",
    "train_bpe",
    "train_wordpiece",
    "unigram_entropy",
]
