"""Models on disk, in the Hugging Face folder layout, both ways.

A folder holds `config.json`, `model.safetensors` and the tokenizer's files. Where `transformers` has the same model
(every published BERT and ModernBERT, and theirs in other sizes), names and configuration are its own, so
`AutoModelForMaskedLM` opens what we save and we open what it saves. A model in between, BERT with RoPE say, is saved
under our own names and opens here only.

Weights are safetensors and nothing else: a pickle can run code when it is opened.
"""

from __future__ import annotations

import copy
import json
import os
import re
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from .classifier import SequenceClassifier, TokenClassifier
from .config import EncoderConfig
from .data.tokenizer import Tokenizer, load_tokenizer, save_tokenizer
from .errors import InputError
from .model import Encoder, MaskedLM
from .runtime import prepare_output_folder, write_text_atomic

Model = MaskedLM | Encoder | SequenceClassifier | TokenClassifier
# How transformers' names of these end.
TASKS = {MaskedLM: "ForMaskedLM", SequenceClassifier: "ForSequenceClassification",
         TokenClassifier: "ForTokenClassification", Encoder: "Model"}  # fmt: skip
OWN_TYPE = "modernbert_edu"  # model_type of a folder that only this package opens
# What transformers' configuration has no field for, and what its model computes without it: kept under a key of ours.
OWN_FIELDS = {
    "bert": ("attention_output_dropout", "mlp_dropout", "unpad", "init",
             "local_window", "global_rope_theta", "local_rope_theta"),  # no layer of BERT reads the last three
    "modernbert": ("attention_output_dropout", "mlp_dropout", "unpad", "init"),
}  # fmt: skip


# ---- configurations --------------------------------------------------------------------------------------------------


def transformers_kind(config: EncoderConfig) -> tuple[str | None, str]:
    """("bert" | "modernbert", "") where transformers has this architecture, else (None, why not).

    It has one exactly if its own configuration, read back, is this one. A field that the two functions below do not
    carry over comes back as its default, so a value they do not know is named here and not lost.
    """
    kind = "modernbert" if config.positions == "rope" else "bert"
    back = config_from_hf(config_to_hf(config, kind, ""))
    if back.layer_types == config.layer_types:  # "GG" is "G" written longer
        back = back.replace(attention_pattern=config.attention_pattern)
    off = [f"{name}={value!r}" for name, (value, _) in config.differences(back).items()]
    if kind == "bert" and not config.type_vocab_size:  # it adds a segment embedding whatever the table's size
        off.append("type_vocab_size=0")
    name = {"bert": "BERT", "modernbert": "ModernBERT"}[kind]
    return (None, f"transformers has no {name} with {', '.join(off)}") if off else (kind, "")


def config_to_hf(config: EncoderConfig, kind: str, architecture: str) -> dict:
    """Our configuration as the `config.json` of transformers' BERT or ModernBERT."""
    c = config
    common = dict(
        architectures=[architecture],
        model_type=kind,
        vocab_size=c.vocab_size,
        hidden_size=c.hidden_size,
        num_hidden_layers=c.num_hidden_layers,
        num_attention_heads=c.num_attention_heads,
        intermediate_size=c.intermediate_size,
        max_position_embeddings=c.max_position_embeddings,
        initializer_range=c.initializer_range,
        pad_token_id=c.pad_token_id,
        tie_word_embeddings=True,
        modernbert_edu={name: getattr(c, name) for name in OWN_FIELDS[kind]},
    )
    if kind == "bert":
        return common | dict(
            hidden_act="gelu",
            layer_norm_eps=c.norm_eps,
            type_vocab_size=c.type_vocab_size,
            hidden_dropout_prob=c.embedding_dropout,
            attention_probs_dropout_prob=c.attention_dropout,
        )
    long_names = {"G": "full_attention", "L": "sliding_attention"}
    return common | dict(
        hidden_activation="gelu",
        classifier_activation="gelu",
        norm_eps=c.norm_eps,
        norm_bias=c.bias,
        attention_bias=c.bias,
        mlp_bias=c.bias,
        classifier_bias=c.bias,
        decoder_bias=True,
        layer_types=[long_names[letter] for letter in c.layer_types],
        local_attention=c.local_window,
        # The old and the new spelling of the thetas: older versions of transformers read the former.
        global_rope_theta=c.global_rope_theta,
        local_rope_theta=c.local_rope_theta,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": c.global_rope_theta},
            "sliding_attention": {"rope_type": "default", "rope_theta": c.local_rope_theta},
        },
        embedding_dropout=c.embedding_dropout,
        attention_dropout=c.attention_dropout,
        mlp_dropout=0.0,  # theirs sits inside the MLP, ours after it; ours is kept under our own key
    )


def config_from_hf(hf: dict) -> EncoderConfig:
    """The configuration in a `config.json` of transformers' BERT or ModernBERT, or of our own.

    Raises `InputError` for another kind of model and for a feature that this package does not compute.
    """
    kind = hf.get("model_type")
    if kind == OWN_TYPE:
        return EncoderConfig.from_dict(hf.get("encoder_config", {}))
    if kind not in ("bert", "modernbert"):
        raise InputError(f"a model of type {kind!r} is neither BERT nor ModernBERT; only these two open here")
    values = _from_hf_bert(hf) if kind == "bert" else _from_hf_modernbert(hf)
    own = hf.get("modernbert_edu") or {}
    return EncoderConfig.from_dict({**values, **{k: v for k, v in own.items() if k in OWN_FIELDS[kind]}})


SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
         "max_position_embeddings", "initializer_range", "pad_token_id")  # fmt: skip


def _from_hf_bert(hf: dict) -> dict:
    _refuse(hf, hidden_act="gelu", position_embedding_type="absolute", is_decoder=False, tie_word_embeddings=True)
    dropout = hf.get("hidden_dropout_prob", 0.1)
    return {k: hf[k] for k in SIZES if k in hf} | dict(
        norm_eps=hf.get("layer_norm_eps", 1e-12),
        type_vocab_size=hf.get("type_vocab_size", 2),
        embedding_dropout=dropout,
        attention_output_dropout=dropout,
        mlp_dropout=dropout,
        attention_dropout=hf.get("attention_probs_dropout_prob", 0.1),
    )


def _from_hf_modernbert(hf: dict) -> dict:
    _refuse(hf, hidden_activation="gelu", classifier_activation="gelu", decoder_bias=True, tie_word_embeddings=True)
    bias = bool(hf.get("attention_bias", False))
    _refuse(hf, norm_bias=bias, mlp_bias=bias, classifier_bias=bias)
    layers = hf.get("num_hidden_layers", 22)
    thetas = _rope_thetas(hf)
    values = dict(EncoderConfig.preset("modernbert-base", attention_output_dropout=0.0).to_dict())
    return values | {k: hf[k] for k in SIZES if k in hf} | dict(
        norm_eps=hf.get("norm_eps", 1e-5),
        bias=bias,
        attention_pattern=_pattern(hf, layers),
        local_window=hf.get("local_attention", 128),
        global_rope_theta=thetas[0],
        local_rope_theta=thetas[1],
        embedding_dropout=hf.get("embedding_dropout", 0.0),
        attention_dropout=hf.get("attention_dropout", 0.0),
        attention_output_dropout=hf.get("attention_dropout", 0.0),
        mlp_dropout=hf.get("mlp_dropout", 0.0),
    )  # fmt: skip


def _refuse(hf: dict, **required) -> None:
    """Every named field must be absent or have this value: the only one this package computes."""
    for name, value in required.items():
        if hf.get(name, value) not in (value, None):
            raise InputError(f"config.json has {name}={hf[name]!r}; only {value!r} can be computed here")


def _pattern(hf: dict, layers: int) -> str:
    """The shortest string of G and L that, repeated, gives the layers' types."""
    types = hf.get("layer_types")
    if types is None:
        every = hf.get("global_attn_every_n_layers", 3)
        letters = "".join("L" if i % every else "G" for i in range(layers))
    else:
        letters = "".join({"full_attention": "G", "sliding_attention": "L"}.get(t, "?") for t in types)
    if len(letters) != layers:
        raise InputError(f"config.json lists {len(letters)} layer_types for {layers} layers")
    for n in range(1, layers + 1):
        if (letters[:n] * layers)[:layers] == letters:
            return letters[:n]
    return letters


def _rope_thetas(hf: dict) -> tuple[float, float]:
    """(global, local), from today's `rope_parameters` or the older two fields."""
    rope = hf.get("rope_parameters") or {}
    pairs = (("full_attention", "global_rope_theta", 160_000.0), ("sliding_attention", "local_rope_theta", 10_000.0))
    thetas = []
    for kind, old_name, default in pairs:
        parameters = rope.get(kind) or {}
        if parameters.get("rope_type", "default") != "default":
            raise InputError(f"config.json has RoPE of type {parameters['rope_type']!r}; only 'default' opens here")
        thetas.append(float(parameters.get("rope_theta") or hf.get(old_name) or default))
    return thetas[0], thetas[1]


# ---- names of the weights --------------------------------------------------------------------------------------------

# Parts of a published folder that a masked language model does not have, or that are copies of others.
_BERT_IGNORED = re.compile(
    r"^bert\.(pooler\.|embeddings\.position_ids$)|^cls\.(seq_relationship\.|predictions\.decoder\.)"
)
_MODERNBERT_IGNORED = re.compile(r"^decoder\.weight$|rotary_emb\.")


def bert_names(layers: int) -> dict[str, str]:
    """transformers' BERT -> ours, module by module; its separate query, key and value are rows of our one Wqkv."""
    names = {
        "bert.embeddings.word_embeddings": "encoder.embeddings.tok_embeddings",
        "bert.embeddings.position_embeddings": "encoder.embeddings.position_embeddings",
        "bert.embeddings.token_type_embeddings": "encoder.embeddings.type_embeddings",
        "bert.embeddings.LayerNorm": "encoder.embeddings.norm",
        "cls.predictions.transform.dense": "head.dense",
        "cls.predictions.transform.LayerNorm": "head.norm",
    }
    for i in range(layers):
        theirs, ours = f"bert.encoder.layer.{i}", f"encoder.layers.{i}"
        names |= {
            f"{theirs}.attention.output.dense": f"{ours}.attn.Wo",
            f"{theirs}.attention.output.LayerNorm": f"{ours}.attn_norm",
            f"{theirs}.intermediate.dense": f"{ours}.mlp.Wi",
            f"{theirs}.output.dense": f"{ours}.mlp.Wo",
            f"{theirs}.output.LayerNorm": f"{ours}.mlp_norm",
        }
    return names


def weights_from_hf(weights: dict[str, Tensor], kind: str, layers: int) -> dict[str, Tensor]:
    """transformers' names -> those of our `MaskedLM`; the encoder's begin with "encoder."."""
    return _from_hf_bert_weights(weights, layers) if kind == "bert" else _from_hf_modernbert_weights(weights)


def weights_to_hf(model: Model, kind: str) -> dict[str, Tensor]:
    """Our weights under transformers' names, the decoder's matrix left out because it is the embedding's."""
    state = model.state_dict()
    if isinstance(model, Encoder):
        state = {"encoder." + name: tensor for name, tensor in state.items()}
    if kind == "bert":
        on_top = {} if isinstance(model, Encoder | MaskedLM) else _classifier_names(state, "head.", "bert.pooler.")
        below = {name: tensor for name, tensor in state.items() if not on_top or name.startswith("encoder.")}
        return _to_hf_bert_weights(below, model.config.num_hidden_layers) | on_top
    renamed = {re.sub(r"^encoder\.", "model.", name): tensor for name, tensor in state.items()}
    return {{"decoder_bias": "decoder.bias"}.get(name, name): tensor for name, tensor in renamed.items()}


def _classifier_names(weights: dict[str, Tensor], head: str, other: str) -> dict[str, Tensor]:
    """What a BERT classifier has above its encoder, its pooler renamed from `head` to `other`."""
    found = {name: tensor for name, tensor in weights.items() if name.startswith((head, "classifier."))}
    return {name.replace(head, other, 1) if name.startswith(head) else name: t for name, t in found.items()}


def _from_hf_modernbert_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    ours = {}
    for name, tensor in weights.items():
        if _MODERNBERT_IGNORED.search(name):
            continue
        if name == "decoder.bias":
            ours["decoder_bias"] = tensor
        elif name.startswith("head."):
            ours[name] = tensor
        else:  # saved from the bare encoder the names have no "model." in front
            ours["encoder." + name.removeprefix("model.")] = tensor
    return ours


def _from_hf_bert_weights(weights: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    names, ours = bert_names(layers), {}
    weights = {_modern_bert_name(name): tensor for name, tensor in weights.items()}
    for i in range(layers):
        for part in ("weight", "bias"):
            thirds = [f"bert.encoder.layer.{i}.attention.self.{which}.{part}" for which in ("query", "key", "value")]
            if all(third in weights for third in thirds):  # else they stay as they are, and are reported
                ours[f"encoder.layers.{i}.attn.Wqkv.{part}"] = torch.cat([weights.pop(third) for third in thirds])
    for name, tensor in weights.items():
        if _BERT_IGNORED.search(name):
            continue
        module, _, part = name.rpartition(".")
        ours["decoder_bias" if name == "cls.predictions.bias" else f"{names.get(module, module)}.{part}"] = tensor
    return ours


def _modern_bert_name(name: str) -> str:
    """The name that today's transformers gives a weight of an older folder, or of one saved from the bare encoder."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
    return name if name.startswith(("bert.", "cls.")) else "bert." + name


def _to_hf_bert_weights(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    names = {ours: theirs for theirs, ours in bert_names(layers).items()}
    theirs = {}
    for name, tensor in state.items():
        module, _, part = name.rpartition(".")
        if module.endswith(".Wqkv"):
            layer = module.split(".")[2]
            for which, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                theirs[f"bert.encoder.layer.{layer}.attention.self.{which}.{part}"] = third.contiguous()
        else:
            theirs["cls.predictions.bias" if name == "decoder_bias" else f"{names[module]}.{part}"] = tensor
    return theirs


def _build(config: EncoderConfig, weights: dict[str, Tensor], where: str, dtype: torch.dtype) -> MaskedLM | Encoder:
    """A model with (copies of) these weights: `MaskedLM` where there is a head, `Encoder` where there is none."""
    has_head = any(not name.startswith("encoder.") for name in weights)
    model = (MaskedLM(config) if has_head else Encoder(config)).to(dtype)
    if not has_head:
        weights = {name.removeprefix("encoder."): tensor for name, tensor in weights.items()}
    return _fill(model, weights, where)


def _fill(model: Model, weights: dict[str, Tensor], where: str) -> Model:
    """`model` with the weights copied into it, every name and shape checked."""
    expected = model.state_dict()
    missing, unexpected = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unexpected:
        parts = [f"{len(names)} weights {word} (first: {names[0]})"
                 for word, names in (("are missing", missing), ("are unknown", unexpected)) if names]  # fmt: skip
        raise InputError(f"{where} does not hold the model that its config.json describes: {', '.join(parts)}")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise InputError(
                f"{where}: {name} has the shape {tuple(tensor.shape)}, "
                f"but config.json asks for {tuple(expected[name].shape)}"
            )
    model.load_state_dict(weights)
    return model.eval()


# ---- transformers' models in memory ----------------------------------------------------------------------------------


def from_transformers(hf_model: nn.Module) -> Model:
    """Our model with the weights of transformers' BERT or ModernBERT: bare, with its masked-LM head, or a classifier.

    The weights are copied, in the dtype they have. Raises `InputError` for any other model.
    """
    hf = hf_model.config.to_dict()
    hf["architectures"] = [type(hf_model).__name__]
    weights = dict(hf_model.state_dict())
    return _open(hf, weights, type(hf_model).__name__, next(hf_model.parameters()).dtype)


def to_transformers(model: Model) -> nn.Module:
    """transformers' model with our weights (copied): bare, `...ForMaskedLM`, or a classifier.

    Raises `InputError` for a configuration between the two, which transformers does not have.
    """
    kind, why = transformers_kind(model.config)
    if kind is None:
        raise InputError(f"{why}; only BERT and ModernBERT can be handed over")
    try:
        import transformers
    except ImportError:
        raise InputError("to_transformers needs the package transformers: pip install transformers") from None
    architecture = _architecture(model, kind)
    hf = config_to_hf(model.config, kind, architecture) | classifier_fields(model)
    config = {"bert": transformers.BertConfig, "modernbert": transformers.ModernBertConfig}[kind].from_dict(hf)
    options = {"add_pooling_layer": False} if isinstance(model, Encoder) and kind == "bert" else {}
    hf_model = getattr(transformers, architecture)(config, **options)
    prefix = {"bert": "bert.", "modernbert": "model."}[kind] if isinstance(model, Encoder) else ""
    weights = {name.removeprefix(prefix): tensor for name, tensor in weights_to_hf(model, kind).items()}
    report = hf_model.load_state_dict(weights, strict=False)
    tied = {"decoder.weight", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    assert not report.unexpected_keys and set(report.missing_keys) <= tied, report
    hf_model.tie_weights()
    return hf_model.to(next(model.parameters()).dtype).eval()


def _architecture(model: Model, kind: str) -> str:
    return {"bert": "Bert", "modernbert": "ModernBert"}[kind] + TASKS[type(model)]


def classifier_fields(model: Model) -> dict:
    """What a classifier's config.json says beyond the encoder's."""
    if isinstance(model, Encoder | MaskedLM):
        return {}
    fields = dict(
        id2label=dict(enumerate(model.labels)),
        label2id={label: i for i, label in enumerate(model.labels)},
        classifier_dropout=model.drop.p,
    )
    if isinstance(model, SequenceClassifier):
        fields["classifier_pooling"] = model.pooling
        fields["problem_type"] = "regression" if model.num_labels == 1 else "single_label_classification"
    return fields


def _open(hf: dict, weights: dict[str, Tensor], where: str, dtype: torch.dtype) -> Model:
    """The model that a config.json and the weights beside it describe."""
    config, kind = config_from_hf(hf), hf["model_type"]
    name = str((hf.get("architectures") or [""])[0])
    task = next((cls for cls, ending in TASKS.items() if name == cls.__name__ or name.endswith(ending)), None)
    if task not in (SequenceClassifier, TokenClassifier):
        if kind == OWN_TYPE:
            prefix = "" if task is MaskedLM else "encoder."
            return _build(config, {prefix + k: v for k, v in weights.items()}, where, dtype)
        return _build(config, weights_from_hf(weights, kind, config.num_hidden_layers), where, dtype)
    if kind == "bert":
        on_top = _classifier_names(weights, "bert.pooler.", "head.")
        below = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier.")}
        weights = weights_from_hf(below, kind, config.num_hidden_layers) | on_top
    elif kind == "modernbert":
        weights = weights_from_hf(weights, kind, config.num_hidden_layers)
        weights = {name.removeprefix("encoder.") if "classifier." in name else name: t for name, t in weights.items()}
    labels = [str(label) for _, label in sorted((int(i), name) for i, name in hf.get("id2label", {}).items())]
    dropout = hf.get("classifier_dropout")
    options = {"dropout": (hf.get("hidden_dropout_prob", 0.0) if dropout is None else dropout)}
    if task is SequenceClassifier:
        options["pooling"] = hf.get("classifier_pooling", "cls")
    return _fill(task(config, labels or ("LABEL_0", "LABEL_1"), **options).to(dtype), weights, where)


# ---- folders ---------------------------------------------------------------------------------------------------------


def save(model: Model, tokenizer: Tokenizer | None, folder: str | Path) -> Path:
    """Write the model and its tokenizer to a folder, each file complete before it takes its name.

    Warns when the configuration is one that transformers does not have: such a folder opens here only.
    Raises `InputError` where the folder cannot be written.
    """
    from safetensors.torch import save_file

    folder = prepare_output_folder(folder)
    kind, why = transformers_kind(model.config)
    if kind is None:
        warnings.warn(f"{why}, so {folder.name} opens with modernbert_edu.load only", stacklevel=2)
        hf = dict(model_type=OWN_TYPE, architectures=[type(model).__name__])
        hf |= dict(encoder_config=model.config.to_dict()) | classifier_fields(model)
        weights = dict(model.state_dict())
    else:
        hf = config_to_hf(model.config, kind, _architecture(model, kind)) | classifier_fields(model)
        weights = weights_to_hf(model, kind)
    if tokenizer is not None:
        if tokenizer.vocab_size > model.config.vocab_size:
            raise InputError(
                f"the tokenizer has {tokenizer.vocab_size} ids and the model {model.config.vocab_size}; "
                "save a model with the tokenizer it was trained with"
            )
        hf |= dict(pad_token_id=tokenizer.pad_id, cls_token_id=tokenizer.cls_id, sep_token_id=tokenizer.sep_id,
                   bos_token_id=tokenizer.cls_id, eos_token_id=tokenizer.sep_id)  # fmt: skip
        # The folder's tokenizer must not promise more than its model takes: BERT has 512 positions.
        tokenizer = copy.copy(tokenizer)
        tokenizer.max_length = min(tokenizer.max_length or 10**9, model.config.max_position_embeddings)
        if kind == "bert":  # of a pair of texts BERT must be told which token belongs to which
            tokenizer.model_input_names = ("input_ids", "token_type_ids", "attention_mask")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    hf["dtype"] = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    partial = folder / f".model.safetensors.{os.getpid()}"
    try:
        save_file(weights, partial, metadata={"format": "pt"})  # the long part; a full disk is noticed here
        if tokenizer is not None:
            save_tokenizer(tokenizer, folder)
        os.replace(partial, folder / "model.safetensors")
    finally:
        partial.unlink(missing_ok=True)
    write_text_atomic(folder / "config.json", json.dumps(hf, indent=2) + "\n")
    return folder


def load(
    name: str | Path, *, backend: str = "auto", dtype: torch.dtype | None = None
) -> tuple[Model, Tokenizer | None]:
    """Open a folder, or download a published model by its Hub id: -> (model in eval mode, tokenizer).

    The model is a `MaskedLM`, a classifier, or an `Encoder` where the folder holds no head; the tokenizer is None where
    the folder holds none. Weights are float32 unless `dtype` says otherwise. Raises `InputError` for whatever does
    not open: no such folder, no safetensors, a truncated file, another kind of model, a Hub id while offline.
    """
    folder = find_folder(name)
    hf = _read_config(folder)
    model = _open(hf, read_weights(folder), folder.name, dtype or torch.float32)
    (model if isinstance(model, Encoder) else model.encoder).backend = backend
    has_tokenizer = any((folder / file).exists() for file in ("tokenizer.json", "vocab.txt"))
    return model, load_tokenizer(folder) if has_tokenizer else None


def find_folder(name: str | Path) -> Path:
    """A local folder as it is; a Hub id ("answerdotai/ModernBERT-base") downloaded to the Hub's own cache."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{name} is a file; give the folder that holds config.json and model.safetensors")
    hub_id = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(name))
    if not hub_id or str(name).startswith("."):
        raise InputError(f"there is no folder {name}; give a folder that `save` wrote, or a Hub id like owner/model")
    return _download(str(name))


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    wanted = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*.json", "vocab.txt",
              "special_tokens_map.json"]  # fmt: skip
    # Of a retriever also what comes after the encoder: 1_Pooling/config.json. Other folders hold other formats.
    wanted += ["modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "[0-9]_*/config.json"]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=wanted, ignore_patterns=["[!0-9]*/*"]))
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, ConnectionError):
        raise InputError(
            f"{hub_id} is no folder here, and the Hugging Face Hub cannot be reached (offline?) to look there; "
            "give a local folder, or go online"
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{hub_id} is no folder here and could not be had from the Hub: {first_line}") from None


def _read_config(folder: Path) -> dict:
    path = folder / "config.json"
    if not path.exists():
        raise InputError(f"{folder} has no config.json; give a folder that `save` or save_pretrained wrote")
    try:
        hf = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); save the model again") from None
    if not isinstance(hf, dict):
        raise InputError(f"{path} does not hold a configuration; save the model again")
    return hf


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's safetensors files (one, or several with an index)."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = sorted(p.name for p in folder.glob("*.bin")) or sorted(p.name for p in folder.glob("*.pt"))
        found = f"only {pickles[0]}, a pickle that could run code" if pickles else "no weights"
        raise InputError(f"{folder} holds {found}; save the model as safetensors (safe_serialization=True)")
    weights: dict[str, Tensor] = {}
    for file in _listed(folder, files):
        try:
            weights |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file} is not a whole safetensors file ({error}); copy or save it again") from None
    return weights


def _listed(folder: Path, files: list[Path]) -> list[Path]:
    """The files to read: those the index names, or the one called model.safetensors, or the only one."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        absent = [name for name in names if not (folder / name).exists()]
        if absent:
            raise InputError(f"{folder} lacks {absent[0]}, which its index names; copy the folder again")
        return [folder / name for name in names]
    single = folder / "model.safetensors"
    return [single] if single.exists() else files
