"""ModernBERT built from vanilla BERT, one idea at a time: the package under the course's notebooks."""

from .errors import InputError

try:
    from .attention import attention, attention_mask, choose_backend
    from .checkpoint import from_transformers, load, save, to_transformers
    from .classifier import SequenceClassifier, TokenClassifier
    from .config import EncoderConfig, presets
    from .model import Encoder, MaskedLM
    from .retriever import Embedder, TokenEmbedder
    from .retriever_folder import load_retriever, save_retriever
    from .unpadding import Layout, pack
except ModuleNotFoundError as error:
    _missing = error.name or ""
    if _missing.startswith("modernbert_edu"):
        raise

    # Without torch, say, the package must still open far enough for `doctor` to tell what is missing.
    def __getattr__(name: str):
        if name not in __all__:
            raise AttributeError(name)
        raise ModuleNotFoundError(f"modernbert_edu.{name} needs {_missing}: pip install {_missing}", name=_missing)


__version__ = "0.1.0"

__all__ = [
    "Embedder",
    "Encoder",
    "EncoderConfig",
    "InputError",
    "Layout",
    "MaskedLM",
    "SequenceClassifier",
    "TokenClassifier",
    "TokenEmbedder",
    "attention",
    "attention_mask",
    "choose_backend",
    "from_transformers",
    "load",
    "load_retriever",
    "pack",
    "presets",
    "save",
    "save_retriever",
    "to_transformers",
]
