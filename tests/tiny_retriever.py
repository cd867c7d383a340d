"""A retriever that a test can make in a moment: untrained, and yet what shares words lies nearer than what does not."""

import torch

from modernbert_edu import EncoderConfig
from modernbert_edu.data.tokenizer import train_bpe
from modernbert_edu.model import Encoder
from modernbert_edu.retriever import Embedder

TEXTS = [
    "the cat sat on the mat and slept",
    "a dog ran over the wide green field",
    "def read_bytes(path):\n    with open(path, 'rb') as file:\n        return file.read()",
    "rain fell on the town all night long",
    "def mean(values):\n    return sum(values) / len(values)",
]


def tiny_embedder(seed=0, size=32, length=64, **options):
    tokenizer = train_bpe(TEXTS * 8, vocab_size=320)
    config = EncoderConfig.preset(
        "modernbert-tiny", vocab_size=320, hidden_size=size, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=48, attention_pattern="G", max_position_embeddings=length,
    )  # fmt: skip
    torch.manual_seed(seed)
    return Embedder(Encoder(config), tokenizer, max_length=length, **options).eval()
