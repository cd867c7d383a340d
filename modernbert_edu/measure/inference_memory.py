"""How much memory a forward pass needs: the encoders of peers.py on sequences of 512 tokens, their weights apart.

The paper compares memory by the largest batch that fits on a GPU. What decides it is how much each further sequence
adds to the peak, so that is measured: the peak at two batch sizes. On a GPU torch's allocator knows it. On a CPU the
profiler listens to the same allocator: bytes given and bytes taken back, in order. Both count tensors, kernels'
temporary ones included, so the numbers do not depend on how busy the machine is.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator

import torch

from ..errors import InputError
from ..runtime import default_dtype, progress
from .bench_cases import THEIRS, Case, make_batch
from .memory import peak_memory
from .peers import build_peer, check_size, ours_like
from .speed import forward_call

NAME = "claims"  # of the records' file: the claims need them, and no other part has them
LENGTH = 512
ROWS = {"ours": "ours", "modernbert": THEIRS, "bert": "BERT", "roberta": "RoBERTa", "deberta": "DeBERTaV3"}


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without the lines that torch's profiler writes to the error stream, from C++, at its beginning and its end."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def allocated_at_peak(call: Callable[[], object], device: torch.device) -> int:
    """Bytes of tensors that a call holds at its highest point, above what was there before.

    Raises `InputError` for a device on which torch counts nothing.
    """
    if device.type == "cuda":
        return peak_memory(call, device).added
    if device.type != "cpu":
        raise InputError(f"torch does not say what it allocates on {device}; choose --device cpu or cuda")
    here = [torch.profiler.ProfilerActivity.CPU]
    with silent(), torch.profiler.profile(activities=here, profile_memory=True) as watched:
        call()
    held = highest = 0
    for event in watched.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()  # below 0 where memory is given back
            highest = max(highest, held)
    return highest


def measure_inference_memory(
    device: torch.device, size: str = "base", seed: int = 0, batches: tuple[int, int] | None = None
) -> list[dict]:
    """Weights, and the peak of a forward pass through the encoder at two batch sizes, of each row: -> records.

    Random weights, the device's dtype as `bench` has it, sequences without padding, no head.
    """
    check_size(size)
    dtype = default_dtype(device)[0] if device.type == "cuda" else torch.float32
    batches = batches or ((32, 64) if device.type == "cuda" else (2, 4))
    records = []
    for row, title in progress(ROWS.items(), desc="memory", unit="model"):
        model = build_peer("modernbert" if row == "ours" else row, size, seed)
        model = ours_like(model).encoder if row == "ours" else model.base_model
        model = model.to(device, dtype)
        kind = str(dtype).removeprefix("torch.")
        common = dict(row=row, model=title, unit="bytes", length=LENGTH, batch="fixed", task="inference", seed=seed,
                      size=size, dtype=kind, step="encoder forward, without head")  # fmt: skip
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        records.append(dict(what="weight_bytes", value=weights, **common))
        for sequences in batches:
            vocabulary = 4096 if size == "tiny" else 30_522  # ids that all of them have
            ids, mask, _ = make_batch(Case("inference", "fixed", LENGTH, sequences, seed), vocabulary, device)
            peak = allocated_at_peak(forward_call(model, ids, mask), device)
            how = "allocated at the highest point of the forward pass, weights not counted"
            records.append(dict(what="inference_peak_bytes", value=peak, sequences=sequences, how=how, **common))
        del model
        gc.collect()
    return records
