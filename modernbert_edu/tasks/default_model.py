"""The small retriever that `search build` uses where no model is named: trained here once, and kept.

It learns from the library and the packages of the Python that runs this, by the settings of the scale's `search`
section. It is kept in the user's cache folder, or where MODERNBERT_EDU_CACHE says.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import torch

from ..beginning import new_model, tokenizer_of_texts
from ..classroom.scale import Scale
from ..classroom.scale.search import SearchScale
from ..retriever import Embedder
from ..retriever_folder import save_retriever
from ..runtime import prepare_output_folder
from .contrastive import ContrastiveSettings, train_retriever
from .library import functions, installed_files, library_files, passages, topics

RECIPE = 1  # raised where this file changes what is trained: then the kept model is an old one
LONGEST = 1024  # tokens that the model reads of a passage: more than `search build` makes, fewer than it could


def cache_folder() -> Path:
    """Where trained models are kept between commands."""
    import platformdirs

    return Path(os.environ.get("MODERNBERT_EDU_CACHE") or platformdirs.user_cache_dir("modernbert_edu", False))


def default_model(scale: Scale, device: torch.device) -> Path:
    """The folder of the scale's small retriever, trained first where it is not there yet.

    Two commands at once train it once. It takes its name when it is whole: a stopped training leaves nothing behind.
    """
    from filelock import FileLock

    settings = json.dumps([RECIPE, vars(scale.search)], sort_keys=True, default=list)
    name = f"search-{scale.name}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
    cache = prepare_output_folder(cache_folder())
    folder = cache / name
    with FileLock(cache / f"{name}.lock"):
        if not (folder / "modules.json").exists():
            print(f"no --model: a small one is trained here once, and kept in {folder}", flush=True)
            shutil.rmtree(folder, ignore_errors=True)  # only half of one could be there
            with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}.") as partial:
                whole = save_retriever(train_default(scale.search, device), Path(partial) / name)
                os.replace(whole, folder)
    return folder


def train_default(sizes: SearchScale, device: torch.device) -> Embedder:
    """A ModernBERT that has learnt docstring -> function and heading -> section, from random weights."""
    code = functions(library_files() + (installed_files() if sizes.installed else []), sizes.per_package, sizes.seed)
    pairs = [*code, *passages(code), *topics()]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(sizes.seed)).tolist()
    pairs = [pairs[i] for i in order]
    print(f"{len(pairs):,} pairs of questions and texts from {len({p.package for p in pairs})} packages", flush=True)
    tokenizer = tokenizer_of_texts([pair.text for pair in pairs], sizes.tokenizer_characters, sizes.vocab_size)
    lm = new_model(sizes.modernbert_preset, tokenizer, sizes.seed)
    model = Embedder.from_pretrained(lm, tokenizer, max_length=min(LONGEST, lm.config.max_position_embeddings))
    settings = contrastive_settings(sizes, sizes.modernbert_rate, sizes.default_steps, sizes.seed)
    run = train_retriever(
        model, pairs, settings, device=device, dtype=getattr(torch, sizes.dtype), label="search model"
    )
    losses = [record["value"] for record in run.history if record["what"] == "train_loss"]
    print(f"{run.pairs:,} pairs in {run.seconds:.0f} s; loss {losses[0]:.2f} -> {losses[-1]:.2f} nats", flush=True)
    return model


def contrastive_settings(sizes: SearchScale, rate: float, steps: int, seed: int) -> ContrastiveSettings:
    return ContrastiveSettings(
        rate=rate, steps=steps, batch_size=sizes.batch_size, temperature=sizes.temperature,
        query_length=sizes.query_length, document_length=sizes.document_length, seed=seed,
    )  # fmt: skip
