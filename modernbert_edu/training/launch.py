"""What `pretrain`, `extend` and `grow` do: a request in words -> text, tokenizer, model, recipe -> a run.

A run's folder keeps its request in run.json, so `pretrain --resume FOLDER` needs nothing else.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..checkpoint import find_folder, load
from ..classroom.scale.pretrain import PretrainScale
from ..classroom.scale.text import TextScale
from ..config import EncoderConfig
from ..data.corpus import Corpus
from ..data.masking import IGNORED, mask_tokens
from ..data.prepared import TextData, learn_tokenizer, prepare, read_corpus
from ..data.tokenizer import Tokenizer, load_tokenizer, save_tokenizer
from ..errors import InputError
from ..model import MaskedLM
from ..runtime import prepare_output_folder, seed_everything
from .checkpoints import newest_checkpoint
from .context_extension import extended_config
from .distributed import processes
from .hub_stream import open_stream
from .pretrain import TrainingRun
from .recipe import Recipe
from .runs import RUN, pretrain

MODELS_OF = {"bert-2018": "bert", "modernbert": "modernbert", "modernbert-context": "modernbert"}


@dataclass(frozen=True)
class Request:
    """All that a run is made from, as plain values."""

    recipe: dict
    config: dict
    text: dict  # how the corpus is cut: fields of TextScale
    corpus: str = "python"
    seed: int = 0
    dtype: str = "float32"
    label: str = "model"
    source: str | None = None  # the model to go on from, in `extend`
    workers: int = 0
    checkpoint_every: int | None = None
    compile: bool = False
    stream: bool = False  # read a Hub dataset as it is trained on, rather than its first documents


def pretrain_request(
    scale: PretrainScale, recipe_name: str, preset: str | None, changes: dict, *, corpus: str = "python", seed: int = 0,
    **more,
) -> Request:  # fmt: skip
    """`pretrain`: a recipe shrunk to the scale, with `changes` to its fields; a preset with the scale's vocabulary."""
    published, kind = Recipe.preset(recipe_name), MODELS_OF[recipe_name]
    preset = preset or getattr(scale, f"{kind}_preset")
    length = changes.get("length", scale.sequence_length)
    recipe = _shrunk(published, changes, scale, length, scale.steps, getattr(scale, f"{kind}_rate"))
    config = EncoderConfig.preset(preset, vocab_size=scale.vocab_size)
    if config.positions == "rope":
        # The window of lengths that phase one is for; `extend` is what raises both.
        config = config.replace(global_rope_theta=recipe.global_rope_theta, max_position_embeddings=length)
    elif length > config.max_position_embeddings:
        raise InputError(
            f"{preset} has {config.max_position_embeddings} learned positions; length {length} is too long"
        )
    return Request(recipe.to_dict(), config.to_dict(), _text(scale, length, seed), corpus, seed, scale.dtype,
                   f"{preset} by {recipe_name}", **more)  # fmt: skip


def extend_request(
    scale: PretrainScale, source: str, length: int, changes: dict, *, theta: float | None = None,
    corpus: str = "python", seed: int = 0, **more,
) -> Request:  # fmt: skip
    """`extend`: phases two and three from the model in `source`, as many tokens a step as phase one had."""
    model, _ = load_masked_lm(source)
    earlier = read_request(Path(source)) if (Path(source) / RUN).exists() else None
    before = Recipe.from_dict(earlier.recipe) if earlier else None
    published = Recipe.preset("modernbert-context")
    peak = before.learning_rate if before else scale.modernbert_rate
    tokens_per_step = max(length, before.tokens_per_step if before else scale.batch_size * scale.sequence_length)
    sized = {"tokens_per_step": -(-tokens_per_step // length) * length, "microbatch_tokens": length}
    recipe = _shrunk(
        published, {**sized, **changes}, scale, length, scale.extension_steps, peak * scale.extension_rate_share
    )
    if theta is not None:
        recipe = recipe.replace(global_rope_theta=theta)
    config = extended_config(model.config, length, recipe.global_rope_theta)
    return Request(recipe.to_dict(), config.to_dict(), _text(scale, length, seed), corpus, seed, scale.dtype,
                   f"{Path(source).name} to {length:,} tokens", source=str(source), **more)  # fmt: skip


def _shrunk(published: Recipe, changes: dict, scale: PretrainScale, length: int, steps: int, rate: float) -> Recipe:
    """The recipe at the scale's sizes; what the user changes is kept to the letter."""
    _known(published, changes)
    for name in ("tokens", "length", "tokens_per_step", "microbatch_tokens"):
        value = changes.get(name, 1)
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a whole number of at least 1, not {value!r}")
    per_step = changes.get("tokens_per_step", scale.batch_size * length)
    sizes = dict(tokens=steps * per_step, length=length, tokens_per_step=per_step, learning_rate=rate,
                 microbatch_tokens=min(per_step, scale.microbatch_size * length))  # fmt: skip
    sizes |= {name: value for name, value in changes.items() if name in sizes}
    return published.shrunk(**sizes).replace(**{k: v for k, v in changes.items() if k not in sizes})


def _known(recipe: Recipe, changes: dict) -> None:
    recipe.from_dict({**recipe.to_dict(), **{name: getattr(recipe, name, None) for name in changes}})


def _text(scale: TextScale, length: int, seed: int) -> dict:
    names = TextScale.__dataclass_fields__
    return {name: getattr(scale, name) for name in names} | {"sequence_length": length, "seed": seed}


def parse_changes(words: Sequence[str]) -> dict:
    """["learning_rate=1e-3", "packing=false"] -> {field: value}."""
    changes = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InputError(f"--set {word!r} lacks a value; write FIELD=VALUE, `pretrain --explain` shows the fields")
        changes[name.strip()] = _value(value.strip())
    return changes


def _value(text: str):
    named = {"true": True, "false": False, "none": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        value = ast.literal_eval(text)  # numbers and tuples, nothing that runs
    except (ValueError, SyntaxError):
        return text
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) >= 1 else value


def read_request(folder: Path) -> Request:
    """What a run's folder was made from. Raises `InputError` where it holds no run."""
    try:
        request = json.loads((Path(folder) / RUN).read_text())["request"]
        return Request(**request)
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{folder} holds no run to resume; start one with pretrain --recipe NAME --out FOLDER"
        ) from None


def launch(request: Request, out: str | Path, device: torch.device, *, shard: bool = False, anyway: bool = False,
           on_record=None) -> TrainingRun | None:  # fmt: skip
    """Start the run in `out`, or go on with it. Under torchrun every process calls this; the first one prints."""
    out = prepare_output_folder(out)
    recipe = Recipe.from_dict(request.recipe)
    with processes(device, shard) as (group, device):
        text = TextScale(**request.text)
        corpus = read_corpus(text, request.corpus)
        if group.first:
            save_tokenizer(_tokenizer(request, text, corpus, out), out)
        group.wait()
        data = prepare(text, corpus, load_tokenizer(out))
        model, optimizer_state = _model(request)
        if group.first:
            print(data.corpus.summary())
            print(f"{request.label}: {model.config.num_parameters():,} parameters, {recipe.tokens:,} tokens "
                  f"in steps of {recipe.tokens_per_step:,}, learning rate {recipe.learning_rate:g}, {group.world} "
                  f"process{'es' if group.world > 1 else ''}; the state is kept in {out}", flush=True)  # fmt: skip
        run = pretrain(
            model, recipe, data, out=out, seed=request.seed, device=device, dtype=getattr(torch, request.dtype),
            label=request.label, checkpoint_every=request.checkpoint_every, workers=request.workers, group=group,
            optimizer_state=optimizer_state, request=asdict(request), anyway=anyway,
            hub=open_stream(request.corpus) if request.stream else None, on_record=on_record,
        )  # fmt: skip
        if group.first:
            # Cut up, the model in memory answers only when all processes ask it.
            _report(run, data, load(out)[0] if shard else model, out)
        return run if group.first else None


def _tokenizer(request: Request, text: TextScale, corpus: Corpus, out: Path) -> Tokenizer:
    """The folder's own where it has one, the source's where there is a source, else learnt from the corpus."""
    if (out / "tokenizer.json").exists() and (out / RUN).exists():
        return load_tokenizer(out)
    if request.source:
        return load_tokenizer(find_folder(request.source))
    return learn_tokenizer(text, corpus)


def _model(request: Request) -> tuple[MaskedLM, dict | None]:
    config = EncoderConfig.from_dict(request.config)
    seed_everything(request.seed)
    model = MaskedLM(config, compile=request.compile, token_budget=request.recipe["microbatch_tokens"])
    if request.source is None:
        return model, None
    source, _ = load_masked_lm(request.source)
    model.load_state_dict(source.state_dict())
    checkpoint = newest_checkpoint(Path(request.source))
    if checkpoint is None:
        print(f"{request.source} has no optimizer state: its moments begin at zero", flush=True)
    return model, checkpoint and checkpoint.optimizer_state()


def load_masked_lm(source: str | Path) -> tuple[MaskedLM, Tokenizer]:
    """A model with its masked-LM head and its tokenizer. Raises `InputError` where either is missing."""
    model, tokenizer = load(source)
    if not isinstance(model, MaskedLM):
        raise InputError(f"{source} has no masked-LM head, so it cannot be trained on; name a model that has one")
    if tokenizer is None:
        raise InputError(f"{source} has no tokenizer; put the tokenizer.json that it was trained with beside it")
    return model, tokenizer


def _report(run: TrainingRun, data: TextData, model: MaskedLM, out: Path) -> None:
    waited = [record["value"] for record in run.history if record["what"] == "waited_share"]
    print(
        f"held-out loss {run.held_out_loss:.3f} nats (unigram entropy {data.unigram_entropy:.3f}), "
        f"{run.masked_accuracy:.1%} of the masked tokens right; {run.tokens:,} tokens in {run.seconds:.0f} s, "
        f"{run.tokens_per_second:,.0f} tokens/s, {waited[-1] if waited else 0:.1%} of it waiting for data"
    )
    for line in filled_masks(model, data.tokenizer, data.held_out[:3]):
        print("  " + line)
    print(f"kept: {out}")


@torch.inference_mode()
def filled_masks(model: MaskedLM, tokenizer: Tokenizer, sequences: Sequence[list[int]], seed: int = 0) -> list[str]:
    """Held-out text with some tokens masked: what stood there, and what the model says, one line for each mask."""
    lines, device = [], next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    for ids in sequences:
        true_ids = torch.tensor(ids[:32])
        masked, labels = mask_tokens(true_ids, tokenizer, rate=0.1, generator=generator, split=(1.0, 0.0, 0.0))
        logits = model(masked.to(device)).logits.float()
        for place in (labels != IGNORED).nonzero().flatten().tolist():
            shown = tokenizer.decode(masked[max(0, place - 8) : place + 1], skip_special_tokens=False).replace(
                "\n", " "
            )
            best = logits[place].softmax(-1).topk(3)
            guesses = ", ".join(
                f"{tokenizer.decode([i])!r} {p:.0%}" for p, i in zip(best.values, best.indices.tolist(), strict=True)
            )
            lines.append(f"...{shown}  was {tokenizer.decode([int(labels[place])])!r}; says {guesses}")
    return lines
