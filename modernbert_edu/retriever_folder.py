"""Retrievers on disk, in sentence-transformers' folder layout, both ways: each opens what the other has trained.

modules.json                        what is done one after the other, and where its settings lie
config.json, model.safetensors      the encoder, as checkpoint.py writes it, with its tokenizer
1_Pooling/, 2_Normalize/            a vector a text
1_Dense/, 2_.../, 3_Normalize/      a vector a token
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

from .checkpoint import find_folder, load, read_weights, save
from .classifier import POOLINGS
from .data.tokenizer import Tokenizer
from .errors import InputError
from .retriever import Embedder, Retriever, TokenEmbedder
from .runtime import prepare_output_folder, write_text_atomic

# The names that every version since 2.0 reads; late interaction came with version 6 and has only the new ones.
OLD = "sentence_transformers.models."
NEW = "sentence_transformers.base.modules."
LATE = "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask."


def save_retriever(model: Retriever, folder: str | Path) -> Path:
    """Write model, tokenizer and how texts become vectors: `SentenceTransformer(folder)` gives the same vectors, and
    for late interaction `MultiVectorEncoder(folder)`, of sentence-transformers 6, does.

    modules.json goes first and comes last: a folder in which the writing was cut short is known by its absence.
    """
    from safetensors.torch import save as to_bytes

    folder, late = prepare_output_folder(folder), isinstance(model, TokenEmbedder)
    (folder / "modules.json").unlink(missing_ok=True)
    settings = dict(model_type="MultiVectorEncoder" if late else "SentenceTransformer", prompts=model.prompts,
                    default_prompt_name=None, similarity_fn_name=None if late else _similarity(model))  # fmt: skip
    _write(folder / "config_sentence_transformers.json", settings)
    save_encoder(model, folder)
    modules = [("", (NEW + "transformer.Transformer") if late else OLD + "Transformer", None)]
    if late:
        tokens = dict(module_input_name="token_embeddings", module_output_name="token_embeddings")
        dense = dict(in_features=model.config.hidden_size, out_features=model.dimension, bias=False,
                     activation_function="torch.nn.modules.linear.Identity", **tokens)  # fmt: skip
        mask = dict(skiplist_words=[], skiplist_tasks=["document"], keep_only_token_ids=None)
        modules += [("1_Dense", NEW + "dense.Dense", dense), ("2_MultiVectorMask", LATE + "MultiVectorMask", mask),
                    ("3_Normalize", NEW + "normalize.Normalize", tokens)]  # fmt: skip
    else:
        pooling = dict(word_embedding_dimension=model.dimension, include_prompt=True)
        pooling |= {f"pooling_mode_{name}": name.startswith(f"{model.pooling}_tok") for name in OLD_POOLINGS}
        modules.append(("1_Pooling", OLD + "Pooling", pooling))
        if model.normalize:
            modules.append(("2_Normalize", OLD + "Normalize", {}))
    for path, _, settings in modules[1:]:
        (folder / path).mkdir(exist_ok=True)
        _write(folder / path / "config.json", settings)
    if late:
        weights = to_bytes({"linear.weight": model.linear.weight.detach().cpu().contiguous()})
        (folder / "1_Dense" / "model.safetensors").write_bytes(weights)
    _write(folder / "sentence_bert_config.json", dict(max_seq_length=model.max_length, do_lower_case=False))
    listed = [dict(idx=i, name=str(i), path=path, type=kind) for i, (path, kind, _) in enumerate(modules)]
    _write(folder / "modules.json", listed)
    return folder


OLD_POOLINGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def save_encoder(model: Retriever, folder: Path) -> None:
    """The encoder and its tokenizer, whose own longest length is the retriever's."""
    tokenizer = copy.copy(model.tokenizer)
    tokenizer.max_length = model.max_length
    save(model.encoder, tokenizer, folder)


def _similarity(model: Embedder) -> str:
    return "cosine" if model.normalize else "dot"


def _write(path: Path, content) -> None:
    write_text_atomic(path, json.dumps(content, indent=2) + "\n")


def load_retriever(name: str | Path, *, max_length: int | None = None, backend: str = "auto") -> Retriever:
    """Open a retriever's folder, or download one by its Hub id. A pretrained model without settings for retrieval opens
    as an `Embedder` with mean pooling, which finds little before it is trained.

    Raises `InputError` for what does not open, and for a part that this package does not compute.
    """
    folder = find_folder(name)
    model, tokenizer = load(folder, backend=backend)
    if tokenizer is None:
        raise InputError(f"{name} has no tokenizer; put the tokenizer.json that it was trained with beside it")
    if not (folder / "modules.json").exists():
        if (folder / "config_sentence_transformers.json").exists():
            raise InputError(f"{name} lacks modules.json: writing it was cut short; save or copy it again")
        return Embedder.from_pretrained(model, tokenizer, max_length=max_length).eval()
    parts = {str(part["type"]).rsplit(".", 1)[-1]: folder / part["path"] for part in _read(folder / "modules.json")}
    settings = _read(folder / "config_sentence_transformers.json", {})
    given = _read(folder / "sentence_bert_config.json", {}).get("max_seq_length")
    longest = min(model.config.max_position_embeddings, tokenizer.max_length or 10**9)
    options = dict(prompts=_prompts(settings), max_length=max_length or min(given or longest, longest))
    if "Pooling" in parts and parts.keys() <= {"Transformer", "Pooling", "Normalize"}:
        pooling = _read_pooling(_read(parts["Pooling"] / "config.json"), str(name))
        options |= dict(pooling=pooling, normalize="Normalize" in parts)
        return Embedder.from_pretrained(model, tokenizer, **options).eval()
    if "Dense" in parts and parts.keys() <= {"Transformer", "Dense", "MultiVectorMask", "Normalize"}:
        return _load_late(model, tokenizer, parts, settings, options, str(name))
    raise InputError(f"{name} is made of {', '.join(parts)}; a retriever here is an encoder with cls or mean pooling, "
                     "or with one linear layer for late interaction")  # fmt: skip


def _load_late(model, tokenizer: Tokenizer, parts: dict, settings: dict, options: dict, name: str) -> TokenEmbedder:
    dense = _read(parts["Dense"] / "config.json")
    mask = _read(parts["MultiVectorMask"] / "config.json", {}) if "MultiVectorMask" in parts else {}
    transformer = _read(parts["Transformer"] / "sentence_bert_config.json", {})
    unknown = {
        "a bias": dense.get("bias"),
        "query expansion": transformer.get("query_expansion"),
        "a list of words to skip": mask.get("skiplist_words") or mask.get("keep_only_token_ids"),
        "an activation": not str(dense.get("activation_function", "Identity")).endswith("Identity"),
    }
    if any(unknown.values()):
        used = ", ".join(what for what, there in unknown.items() if there)
        raise InputError(f"{name} uses {used} in late interaction, which is not here")
    made = TokenEmbedder.from_pretrained(model, tokenizer, dimension=dense["out_features"], **options)
    made.linear.load_state_dict({"weight": read_weights(parts["Dense"])["linear.weight"]})
    return made.eval()


def _read_pooling(config: dict, name: str) -> str:
    modes = config.get("pooling_mode") or [m for m in OLD_POOLINGS if config.get(f"pooling_mode_{m}")]
    modes = [modes] if isinstance(modes, str) else list(modes)
    pooling = modes[0].split("_")[0] if len(modes) == 1 else None
    if pooling not in POOLINGS or (modes[0] not in (pooling, f"{pooling}_token", f"{pooling}_tokens")):
        raise InputError(f"{name} pools by {', '.join(modes) or 'nothing'}; here are {' and '.join(POOLINGS)}")
    if not config.get("include_prompt", True):
        raise InputError(f"{name} leaves its prompt out of the mean, which is not here")
    return pooling


def _prompts(settings: dict) -> dict[str, str]:
    """A model names its prompts as it likes; "passage" and "corpus" are the document's."""
    prompts = settings.get("prompts") or {}
    document = next((prompts[name] for name in ("document", "passage", "corpus") if prompts.get(name)), "")
    return {"query": prompts.get("query") or "", "document": document}


def _read(path: Path, missing=None):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if missing is not None:
            return missing
        raise InputError(f"{path.parent.name} lacks {path.name}; copy the folder again") from None
    except ValueError:
        raise InputError(f"{path} is not readable JSON; copy the folder again") from None
