"""ModernBERT built from vanilla BERT, one idea at a time: the package under the course's notebooks."""

from .attention import attention, attention_mask, choose_backend
from .checkpoint import from_transformers, load, save, to_transformers
from .config import EncoderConfig, presets
from .errors import InputError
from .model import Encoder, MaskedLM
from .unpadding import Layout, pack

__version__ = "0.1.0"

__all__ = [
    "Encoder",
    "EncoderConfig",
    "InputError",
    "Layout",
    "MaskedLM",
    "attention",
    "attention_mask",
    "choose_backend",
    "from_transformers",
    "load",
    "pack",
    "presets",
    "save",
    "to_transformers",
]
