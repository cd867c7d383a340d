"""Masked-language-model training: batches -> masking -> model -> loss on the masked tokens -> AdamW.

Two models trained with the same seed see the same sequences in the same order with the same tokens masked, whatever
their architecture: order and masks come from generators of their own, which nothing in a model touches.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..data.batches import SequenceBatches, pad_batch
from ..data.masking import mask_tokens
from ..data.tokenizer import Tokenizer
from ..errors import InputError
from ..model import MaskedLM
from ..runtime import progress


@dataclass
class TrainingRun:
    """What a training run measured. `seconds` is training alone: the evaluations in between are not counted."""

    held_out_loss: float  # nats per masked token
    masked_accuracy: float  # share of held-out masked tokens whose likeliest token is the right one
    tokens: int  # real tokens seen, pads not counted
    seconds: float
    history: list[dict] = field(repr=False, default_factory=list)  # one dict a measurement

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


def train_mlm(
    model: MaskedLM,
    train_sequences: Sequence[list[int]],
    held_out_sequences: Sequence[list[int]],
    tokenizer: Tokenizer,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    warmup_steps: int | None = None,
    mask_rate: float = 0.3,
    weight_decay: float = 0.01,
    seed: int = 0,
    eval_every: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    label: str = "model",
    bar=None,
) -> TrainingRun:
    """Train `model` in place for `steps` batches of `batch_size` sequences (token ids with [CLS] and [SEP]).

    The learning rate rises linearly over `warmup_steps` (default: a tenth of the steps) to `learning_rate` and falls
    linearly to zero, as BERT's does (Devlin et al. 2019, A.2). Weights stay in float32; with `dtype` bfloat16 the
    products run in it under autocast. `eval_every` steps, and at the end, the held-out loss is recorded. With `bar`, a
    tqdm bar over several trainings, the steps are counted there.
    Raises `InputError` when the loss stops being a number.
    """
    if not train_sequences or not held_out_sequences:
        raise InputError("there are no sequences to train or to evaluate on; give a larger corpus")
    device = torch.device(device)
    model.to(device).train()
    optimizer, schedule = build_optimizer(model, learning_rate, weight_decay, steps, warmup_steps)
    mask_generator = torch.Generator().manual_seed(seed)
    batches = SequenceBatches(train_sequences, batch_size, seed=seed).take(steps)
    run = TrainingRun(float("nan"), 0.0, 0, 0.0)

    def record(what: str, value: float, unit: str, step: int) -> None:
        run.history.append(dict(what=what, value=value, unit=unit, model=label, seed=seed, step=step,
                                tokens=run.tokens, seconds=run.seconds))  # fmt: skip

    def evaluate(step: int) -> None:
        run.held_out_loss, run.masked_accuracy = evaluate_mlm(
            model, held_out_sequences, tokenizer, mask_rate=mask_rate, batch_size=batch_size, device=device, dtype=dtype
        )
        record("held_out_loss", run.held_out_loss, "nats", step)
        record("masked_accuracy", run.masked_accuracy, "share", step)

    evaluate(0)
    own_bar = bar is None
    bar = progress(total=steps, desc=f"train {label}", unit="step") if own_bar else bar
    for step, sequences in enumerate(batches, start=1):
        start = time.perf_counter()
        input_ids, labels, attention_mask = masked_batch(sequences, tokenizer, mask_rate, mask_generator)
        with autocast(device, dtype):
            loss = model(input_ids.to(device), attention_mask.to(device), labels=labels.to(device)).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        loss_value = loss.item()  # waits for the device, so the clock below is honest
        run.seconds += time.perf_counter() - start
        run.tokens += int(attention_mask.sum())
        if loss_value != loss_value:
            raise InputError(f"the loss of {label} is not a number after {step} steps; lower the learning rate")
        record("train_loss", loss_value, "nats", step)
        bar.set_postfix_str(f"loss {loss_value:.3f}, {run.tokens_per_second:,.0f} tokens/s", refresh=False)
        bar.update()
        if eval_every and step % eval_every == 0 and step < steps:
            evaluate(step)
    if own_bar:
        bar.close()
    evaluate(steps)
    return run


@torch.no_grad()  # and no inference_mode: of the weights that FSDP gathers here, training goes on with the outermost
def evaluate_mlm(
    model: MaskedLM,
    sequences: Sequence[list[int]],
    tokenizer: Tokenizer,
    *,
    mask_rate: float = 0.3,
    seed: int = 0,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[float, float]:
    """(mean loss in nats, accuracy) over the masked tokens of `sequences`; the masks depend on `seed` alone."""
    device = torch.device(device)
    was_training = model.training
    if next(model.parameters()).device != device:  # a model that FSDP has cut up cannot be moved, not even to its place
        model.to(device)
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    loss_sum = correct = masked = 0.0
    for start in range(0, len(sequences), batch_size):
        input_ids, labels, attention_mask = masked_batch(
            sequences[start : start + batch_size], tokenizer, mask_rate, generator
        )
        with autocast(device, dtype):
            output = model(input_ids.to(device), attention_mask.to(device), labels=labels.to(device))
        targets = labels[labels != -100].to(device)
        loss_sum += output.loss.item() * targets.numel()
        correct += (output.masked_logits.argmax(dim=-1) == targets).sum().item()
        masked += targets.numel()
    model.train(was_training)
    return loss_sum / masked, correct / masked


def masked_batch(
    sequences: Sequence[list[int]], tokenizer: Tokenizer, mask_rate: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Token-id lists -> (input_ids, labels, attention_mask), each (B, S). Drawn on the CPU: same seed, same masks."""
    input_ids, attention_mask = pad_batch(sequences, tokenizer.pad_id)
    input_ids, labels = mask_tokens(input_ids, tokenizer, rate=mask_rate, generator=generator)
    return input_ids, labels, attention_mask


def build_optimizer(
    model: nn.Module, learning_rate: float, weight_decay: float, steps: int, warmup_steps: int | None = None
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW with no decay on norms and biases, and the linear warm-up and decay of its learning rate."""
    warmup_steps = max(1, steps // 10) if warmup_steps is None else warmup_steps
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [dict(params=matrices, weight_decay=weight_decay), dict(params=vectors, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), eps=1e-6)

    def multiplier(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return max(0.0, (steps - step) / max(1, steps - warmup_steps))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, multiplier)


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Autocast to `dtype`, or nothing in float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)
