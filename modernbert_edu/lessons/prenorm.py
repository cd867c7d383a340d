"""What 03_prenorm_and_biases measures, and its figures.

    profile, measure_depth             the residual stream and the gradients, layer by layer
    topic_sequences, measure_rates     a deep stack trained at one learning rate after the other; first_broken_rate
    measure_embedding                  the norm of the embedding, and the stack without it
    count_operations, measure_biases   what biases cost: operations, time, memory
    measure_ablation                   the lesson taken out of ModernBERT, and the biases put back

The stack is deep and narrow. A matrix of D columns drawn with sigma makes its output sigma sqrt(D) times as large as
its input (rms); this is the "gain". BERT-base has 0.02 sqrt(768) = 0.55. A narrow model drawn with 0.02 would have far
less, and would not show what happens in BERT; so sigma is chosen here to give the gain.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..classroom.scale import PrenormScale
from ..config import EncoderConfig
from ..data.batches import pad_batch
from ..data.masking import mask_tokens
from ..data.prepared import TextData
from ..data.tokenizer import Tokenizer
from ..errors import InputError
from ..measure import ablation, ablation_plots, plots
from ..measure.memory import bytes_saved_for_backward
from ..measure.speed import model_mode, time_interleaved, training_call
from ..model import Encoder, MaskedLM
from ..norms import build_norm
from ..runtime import progress, provenance
from ..training.pretrain import autocast, masked_batch, train_mlm
from .shared import side_of_zero

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BERT_GAIN = 0.02 * math.sqrt(768)
# Xiong et al. 2020 draw from Glorot's distribution, variance 2 / (columns + rows): gain 1 for a square matrix.
GLOROT_GAIN = 1.0

VARIANTS = {
    "post-norm, normal": dict(norm_placement="post", init="normal"),  # BERT's
    "post-norm, megatron": dict(norm_placement="post", init="megatron"),
    "pre-norm, normal": dict(norm_placement="pre", init="normal"),
    "pre-norm, megatron": dict(norm_placement="pre", init="megatron"),  # ModernBERT's
}
STYLES = {
    "post-norm, normal": plots.STYLES["BERT"],
    "post-norm, megatron": plots.MORE_STYLES[3],
    "pre-norm, normal": plots.MORE_STYLES[0],
    "pre-norm, megatron": plots.STYLES["ModernBERT"],
}
START, END = "at initialisation", "after training"


# ---- the stack -------------------------------------------------------------------------------------------------------


def deep_config(
    variant: str, layers: int, sizes: PrenormScale, tokenizer: Tokenizer | TopicWords, gain: float = BERT_GAIN
) -> EncoderConfig:
    """BERT, deep and narrow, with the variant's norm placement and initialisation, and sigma sqrt(D) = gain."""
    if variant not in VARIANTS:
        raise InputError(f"there is no variant {variant!r}; there are: {', '.join(VARIANTS)}")
    return EncoderConfig(
        vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_id, hidden_size=sizes.deep_width,
        intermediate_size=4 * sizes.deep_width, num_attention_heads=sizes.deep_heads, num_hidden_layers=layers,
        initializer_range=gain / math.sqrt(sizes.deep_width), **VARIANTS[variant],
    )  # fmt: skip


def held_out_batch(data: TextData, sizes: PrenormScale) -> tuple[Tensor, Tensor, Tensor]:
    """(ids, labels, attention mask), each (B, S), with the same tokens masked every time."""
    sequences = data.held_out[: sizes.profile_sequences]
    return masked_batch(sequences, data.tokenizer, sizes.mask_rate, torch.Generator().manual_seed(sizes.seed))


def train(model: MaskedLM, train_sequences, held_out, vocabulary, sizes: PrenormScale, device, **how) -> float:
    """`train_mlm` with the lesson's sizes: -> held-out loss, infinite where the loss stops being a number."""
    common = dict(mask_rate=sizes.mask_rate, seed=sizes.seed, device=device, dtype=getattr(torch, sizes.dtype))
    try:
        loss = train_mlm(model, train_sequences, held_out, vocabulary, **common, **how).held_out_loss
    except InputError:
        return math.inf
    return loss if math.isfinite(loss) else math.inf


# ---- signal and gradient by depth ------------------------------------------------------------------------------------


def profile(model: MaskedLM, batch: Sequence[Tensor], facts: dict) -> list[dict]:
    """On one masked batch: the rms of the stream where it enters each layer and at the end, 0 ... L ("stream_rms"),
    and the norm of the gradient of each layer's matrices, 0 ... L - 1 ("gradient_norm").

    Nothing is updated, and no gradient stays.
    """
    device = next(model.parameters()).device
    ids, labels, mask = (x.to(device) for x in batch)
    with model_mode(model, training=False):
        model.zero_grad(set_to_none=True)
        model(ids, mask, labels=labels).loss.backward()
        with torch.no_grad():
            states = model.encoder(ids, mask, output_hidden_states=True).hidden_states
    real = mask.bool()
    stream = [rms(state[real]) for state in states]
    gradients = [gradient_norm(block) for block in model.encoder.layers]
    model.zero_grad(set_to_none=True)
    rows = [("stream_rms", i, x) for i, x in enumerate(stream)]
    rows += [("gradient_norm", i, x) for i, x in enumerate(gradients)]
    return [facts | dict(what=what, layer=i, value=x, unit="1") for what, i, x in rows]


def rms(x: Tensor) -> float:
    """The root of the mean square of all numbers of x."""
    return x.double().pow(2).mean().sqrt().item()


def gradient_norm(module: nn.Module) -> float:
    """The Euclidean norm of the gradients of all matrices of a module (biases and norms left out)."""
    gradients = [p.grad for p in module.parameters() if p.dim() >= 2 and p.grad is not None]
    return math.sqrt(sum(g.double().pow(2).sum().item() for g in gradients))


def measure_depth(data: TextData, sizes: PrenormScale, device: torch.device) -> list[dict]:
    """`profile` of each variant: at initialisation at each depth, and at the largest depth also with Glorot's gain; at
    the largest depth with BERT's gain also after `profile_steps` steps of training."""
    deepest, batch, records = max(sizes.depths), held_out_batch(data, sizes), []
    setups = [(layers, BERT_GAIN) for layers in sizes.depths] + [(deepest, GLOROT_GAIN)]
    bar = progress(total=len(VARIANTS) * sizes.profile_steps, desc="depth", unit="step")
    for layers, gain in setups:
        for variant in VARIANTS:
            torch.manual_seed(sizes.seed)
            model = MaskedLM(deep_config(variant, layers, sizes, data.tokenizer, gain)).to(device)
            facts = provenance(
                device, model=variant, layers=layers, gain=round(gain, 3), seed=sizes.seed, dtype="float32"
            )
            records += profile(model, batch, facts | dict(moment=START))
            if (layers, gain) == (deepest, BERT_GAIN):
                how = dict(steps=sizes.profile_steps, learning_rate=sizes.profile_rate)
                few = data.held_out[: sizes.profile_sequences]
                train(model, data.train, few, data.tokenizer, sizes, device, batch_size=sizes.profile_batch_size,
                      warmup_steps=sizes.profile_warmup, label=variant, bar=bar, **how)  # fmt: skip
                records += profile(model, batch, facts | how | dict(moment=END))
    bar.close()
    return records


def last_over_first(records: Sequence[dict], what: str, **fields) -> float:
    """The last layer's value over the first one's, of the records that have these fields."""
    values = curve(records, what, **fields)
    return values[-1][1] / values[0][1]


def curve(records: Sequence[dict], what: str, **fields) -> list[tuple[int, float]]:
    """[(layer, value), ...] of the records that have these fields, by layer."""
    chosen = [r for r in records if r["what"] == what and all(r.get(k) == v for k, v in fields.items())]
    return sorted((r["layer"], r["value"]) for r in chosen)


@torch.no_grad()
def stream_parts(encoder: Encoder, ids: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """(T,) ids through a pre-norm encoder: -> embedding (T, D), each sublayer's output (T, D), the last stream (T, D).

    The stream is that before the final norm.
    """
    outputs: list[Tensor] = []
    linears = [linear for block in encoder.layers for linear in (block.attn.Wo, block.mlp.Wo)]
    hooks = [linear.register_forward_hook(lambda _module, _x, y: outputs.append(y)) for linear in linears]
    try:
        with model_mode(encoder, training=False):
            states = encoder(ids, output_hidden_states=True).hidden_states
    finally:
        for hook in hooks:
            hook.remove()
    return states[0], outputs, states[-1]


def predicted_stream(variant: str, layers: int, data: TextData, sizes: PrenormScale) -> tuple[float, float, float]:
    """A pre-norm stack at initialisation: -> v, the mean square of its sublayers' outputs; sqrt(1 + 2 L v), which is
    the last stream's rms if the outputs are independent; the rms measured."""
    torch.manual_seed(sizes.seed)
    encoder = Encoder(deep_config(variant, layers, sizes, data.tokenizer))
    ids = held_out_batch(data, sizes)[0].flatten()[: sizes.sequence_length]
    _, outputs, last = stream_parts(encoder, ids)
    v = sum(rms(output) ** 2 for output in outputs) / len(outputs)
    return v, math.sqrt(1 + 2 * layers * v), rms(last)


# ---- the learning rate at which each breaks --------------------------------------------------------------------------


@dataclass(frozen=True)
class TopicWords:
    """A vocabulary of its own, small so that training begins where knowing how frequent words are ends: [PAD], [CLS],
    [SEP], [MASK], then the words, those of a topic side by side. It serves where a `Tokenizer` does."""

    topics: int
    words_per_topic: int
    pad_id: int = 0
    cls_id: int = 1
    sep_id: int = 2
    mask_id: int = 3
    special_ids: frozenset[int] = frozenset(range(4))

    @property
    def vocab_size(self) -> int:
        return len(self.special_ids) + self.topics * self.words_per_topic

    @property
    def ordinary_ids(self) -> Tensor:
        return torch.arange(len(self.special_ids), self.vocab_size)


def topic_sequences(vocabulary: TopicWords, length: int, count: int, seed: int) -> list[list[int]]:
    """`count` sequences [CLS] ... [SEP] of `length` tokens, each of words of one topic, drawn alike.

    Who knows how frequent words are pays ln(topics x words) for a masked one; who knows the topic, ln(words). To know
    it, a model must bring something from the other tokens through its layers: that is all that has to work here.
    """
    v, generator = vocabulary, torch.Generator().manual_seed(seed)
    words = v.ordinary_ids.view(v.topics, v.words_per_topic)
    topics = torch.randint(v.topics, (count, 1), generator=generator)
    places = torch.randint(v.words_per_topic, (count, length - 2), generator=generator)
    return [[v.cls_id, *row, v.sep_id] for row in words[topics, places].tolist()]


def measure_rates(sizes: PrenormScale, device: torch.device) -> list[dict]:
    """The held-out loss on topic sequences after `rate_steps` steps, for each variant, warm-up and learning rate."""
    vocabulary = TopicWords(sizes.topics, sizes.words_per_topic)
    train_topics = topic_sequences(vocabulary, sizes.topic_length, sizes.topic_sequences, seed=sizes.seed + 1)
    held_out = topic_sequences(vocabulary, sizes.topic_length, sizes.held_out_sequences, seed=sizes.seed + 2)
    blind, topic = math.log(sizes.topics * sizes.words_per_topic), math.log(sizes.words_per_topic)
    facts = provenance(device, dtype=sizes.dtype, unit="nats", layers=sizes.rate_layers, steps=sizes.rate_steps,
                       blind=blind, topic=topic, seed=sizes.seed)  # fmt: skip
    runs = [(v, w, rate) for v in sizes.rate_variants for w in sizes.warmups for rate in sizes.tried_rates]
    bar, records = progress(total=len(runs) * sizes.rate_steps, desc="learning rates", unit="step"), []
    for variant, warmup, rate in runs:
        torch.manual_seed(sizes.seed)
        model = MaskedLM(deep_config(variant, sizes.rate_layers, sizes, vocabulary))
        how = dict(steps=sizes.rate_steps, batch_size=sizes.rate_batch_size, learning_rate=rate, warmup_steps=warmup)
        loss = train(model, train_topics, held_out, vocabulary, sizes, device, label=variant, bar=bar, **how)
        records.append(facts | dict(what="rate_loss", value=loss, model=variant, warmup=warmup, learning_rate=rate))
    bar.close()
    return records


def loss_by_rate(records: Sequence[dict], model: str, warmup: int) -> dict[float, float]:
    """{learning rate: held-out loss}, by rate; infinite where training ended in something that is not a number."""
    chosen = [r for r in records if r["what"] == "rate_loss" and r["model"] == model and r["warmup"] == warmup]
    return {r["learning_rate"]: r["value"] for r in sorted(chosen, key=lambda r: r["learning_rate"])}


LEARNT = 0.5  # nats below what frequency alone gives: from there on, a run counts as having learnt


def working_rates(losses: dict[float, float], learnt: float) -> list[float]:
    """The rates whose loss ended below `learnt`, in order. Infinity and what is not a number are not below."""
    return [rate for rate in sorted(losses) if losses[rate] < learnt]


def first_broken_rate(losses: dict[float, float], learnt: float) -> float | None:
    """The lowest rate above the best one whose loss is not below `learnt`; None where no rate tried is too high."""
    best = min(losses, key=losses.get)
    return next((rate for rate in sorted(losses) if rate > best and not losses[rate] < learnt), None)


def rates_table(records: Sequence[dict]) -> list[tuple[str, ...]]:
    """A row for each variant and warm-up: its name, the warm-up, rates that work, best loss, first rate too high."""
    learnt = next(r["blind"] for r in records if r["what"] == "rate_loss") - LEARNT
    rows = []
    for variant, warmup in dict.fromkeys((r["model"], r["warmup"]) for r in records if r["what"] == "rate_loss"):
        losses = loss_by_rate(records, variant, warmup)
        works, broken = working_rates(losses, learnt), first_broken_rate(losses, learnt)
        listed = ", ".join(f"{rate:g}" for rate in works) or "none"
        too_high = "not found" if broken is None or not works else f"{broken:g}"
        best = f"{min(losses.values()):.2f}"
        rows.append((variant, f"{warmup} steps" if warmup > 1 else "none", listed, best, too_high))
    return rows


def rates_verdict(records: Sequence[dict], baseline: str) -> list[str]:
    """A line for each other variant and warm-up: its highest rate that works over the baseline's, in words."""
    learnt = next(r["blind"] for r in records if r["what"] == "rate_loss") - LEARNT
    highest = {}
    for variant, warmup in dict.fromkeys((r["model"], r["warmup"]) for r in records if r["what"] == "rate_loss"):
        highest[variant, warmup] = max(working_rates(loss_by_rate(records, variant, warmup), learnt), default=None)
    lines = []
    for (variant, warmup), rate in highest.items():
        other = highest[baseline, warmup]
        if variant == baseline:
            continue
        if rate is None or other is None:
            words = "no rate works for " + " and ".join(n for n, x in {variant: rate, baseline: other}.items() if not x)
        else:
            words = f"its highest rate that works is {rate / other:g} times that of {baseline}"
        lines.append(f"{variant}, {f'warm-up of {warmup} steps' if warmup > 1 else 'no warm-up'}: {words}")
    return lines


# ---- the norm of the embedding ---------------------------------------------------------------------------------------


def plain_embedding(model: MaskedLM) -> MaskedLM:
    """The usual pre-norm stack, in place: no norm after the embedding, and layer 0 has its attention norm."""
    norm = build_norm(model.config).to(next(model.parameters()).device)
    model.encoder.embeddings.norm = nn.Identity()
    model.encoder.layers[0].attn_norm = norm
    return model


def measure_embedding(data: TextData, sizes: PrenormScale, device: torch.device) -> list[dict]:
    """At initialisation, with the embedding normalised (ModernBERT) and without: the stream's rms at the embedding, the
    mean cosine between embedding and last stream, and the norm of the token table's gradient."""
    batch, records = held_out_batch(data, sizes), []
    ids, labels, mask = (x.to(device) for x in batch)
    config = deep_config("pre-norm, megatron", max(sizes.depths), sizes, data.tokenizer)
    for name, change in {"norm after the embedding": lambda model: model, "none": plain_embedding}.items():
        torch.manual_seed(sizes.seed)
        model = change(MaskedLM(config).to(device)).eval()
        with torch.no_grad():
            states = model.encoder(ids, mask, output_hidden_states=True).hidden_states
        first, last = (state[mask.bool()] for state in (states[0], states[-1]))
        model(ids, mask, labels=labels).loss.backward()
        table = model.encoder.embeddings.tok_embeddings.weight.grad
        cosine = torch.cosine_similarity(first, last, dim=-1).mean().item()
        facts = provenance(device, model=name, layers=config.num_hidden_layers, seed=sizes.seed, unit="1")
        values = dict(embedding_rms=rms(first), last_rms=rms(last), cosine=cosine, table_gradient=table.norm().item())
        records += [dict(what=what, value=value, **facts) for what, value in values.items()]
    return records


# ---- biases ----------------------------------------------------------------------------------------------------------

BIASES = {"with biases": True, "without": False}
BIAS_STYLES = {"with biases": plots.STYLES["BERT"], "without": plots.STYLES["ModernBERT"]}


class _Operations(TorchDispatchMode):
    """Counts the operations that torch runs and that are no mere views."""

    def __init__(self):
        super().__init__()
        self.counts: Counter = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not function.is_view:
            self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


def count_operations(call: Callable[[], object]) -> Counter:
    """{operation: how often torch runs it} during `call`, backward pass included. Views, which are free, do not count.

    On a GPU in eager mode nearly each of them is the start of a kernel.
    """
    with _Operations() as operations:
        call()
    return operations.counts


def measure_biases(data: TextData, sizes: PrenormScale, device: torch.device) -> list[dict]:
    """BERT of the ablation's size with and without biases: parameters, operations of a training step, and for batches
    of several sizes its time and the bytes that it keeps for the backward pass."""
    base = EncoderConfig.preset(
        sizes.bert_preset, vocab_size=data.tokenizer.vocab_size, pad_token_id=data.tokenizer.pad_id
    )
    facts = provenance(device, dtype=sizes.dtype, seed=sizes.seed)
    models, records = {}, []
    for name, bias in BIASES.items():
        torch.manual_seed(sizes.seed)
        models[name] = MaskedLM(base.replace(bias=bias)).to(device)
        own = facts | dict(model=name, n=1, spread=0)
        parameters = list(models[name].parameters())
        operations = count_operations(_step(models[name], data, 1, sizes, device))
        for what, value in [("parameters", sum(p.numel() for p in parameters)), ("tensors", len(parameters)),
                            ("operations", sum(operations.values()))]:  # fmt: skip
            records.append(own | dict(what=what, value=value, unit="1"))
    for sequences in sizes.bias_batches:
        tokens = sequences * sizes.sequence_length
        calls = {name: _step(model, data, sequences, sizes, device) for name, model in models.items()}
        times = time_interleaved(calls, device=device, repeats=sizes.timing_repeats)
        for name, timing in times.items():
            own = facts | dict(model=name, tokens=tokens, n=timing.n)
            share = timing.spread / timing.median
            rate = tokens / timing.median
            records.append(own | dict(what="train_tokens_per_second", value=rate, spread=rate * share, unit="tokens/s"))
            kept = _kept(models[name], data, sequences, sizes, device)
            records.append(own | dict(what="kept_bytes", value=kept, spread=0, unit="bytes"))
    return records


def embedding_table(records: Sequence[dict]) -> list[tuple[str, ...]]:
    """A row for each model of `measure_embedding`: name, rms at start and end, cosine, gradient of the token table."""
    value = {(r["what"], r["model"]): r["value"] for r in records}
    models = dict.fromkeys(r["model"] for r in records if r["what"] == "cosine")
    quantities = ["embedding_rms", "last_rms", "cosine", "table_gradient"]
    return [(model, *(f"{value[what, model]:.3f}" for what in quantities)) for model in models]


def bias_counts(records: Sequence[dict]) -> list[tuple]:
    """A row for each model of `measure_biases`: name, parameters, parameter tensors, operations of a training step."""
    value = {(r["what"], r["model"]): r["value"] for r in records if r.get("model") in BIASES}
    return [(model, *(value[what, model] for what in ("parameters", "tensors", "operations"))) for model in BIASES]


def bias_report(records: Sequence[dict]) -> list[str]:
    """A line for each batch: what leaving the biases out changes in speed and in the memory kept."""
    found = {(r["what"], r["model"], r["tokens"]): r for r in records if r.get("model") in BIASES and "tokens" in r}
    lines = []
    for tokens in sorted({tokens for _, _, tokens in found}):
        after, before = (found["train_tokens_per_second", name, tokens] for name in ("without", "with biases"))
        kept = [found["kept_bytes", name, tokens]["value"] for name in ("without", "with biases")]
        gain, noise = after["value"] / before["value"] - 1, (after["spread"] + before["spread"]) / before["value"]
        words = "within" if abs(gain) <= noise else "beyond"
        memory = "equal to the byte" if kept[0] == kept[1] else f"{kept[0] / kept[1] - 1:+.2%}"
        lines.append(f"{tokens:,} tokens: speed {gain:+.1%} ({words} the spread of {noise:.1%}), memory kept {memory}")
    return lines


def _batch(data: TextData, sequences: int, sizes: PrenormScale, device) -> tuple[Tensor, Tensor]:
    """Full sequences only, so that both models compute as many tokens as are counted: ids and labels, each (B, S)."""
    full = [s for s in data.train if len(s) == sizes.sequence_length]
    chosen = [full[i % len(full)] for i in range(sequences)]
    ids, _ = pad_batch(chosen, data.tokenizer.pad_id)
    generator = torch.Generator().manual_seed(sizes.seed)
    ids, labels = mask_tokens(ids, data.tokenizer, rate=sizes.mask_rate, generator=generator)
    return ids.to(device), labels.to(device)


def _step(model: MaskedLM, data: TextData, sequences: int, sizes: PrenormScale, device) -> Callable[[], object]:
    ids, labels = _batch(data, sequences, sizes, device)
    call = training_call(model, ids, None, labels)

    def step() -> object:
        with autocast(torch.device(device), getattr(torch, sizes.dtype)):
            return call()

    return step


def _kept(model: MaskedLM, data: TextData, sequences: int, sizes: PrenormScale, device) -> int:
    ids, labels = _batch(data, sequences, sizes, device)
    with autocast(torch.device(device), getattr(torch, sizes.dtype)), model_mode(model, training=True):
        return bytes_saved_for_backward(lambda: model(ids, labels=labels), exclude=[*model.parameters(), ids, labels])


# ---- the ablation ----------------------------------------------------------------------------------------------------

# From ModernBERT's end: the whole lesson taken away, and the biases alone put back.
ABLATION = {
    "post-norm, normal, biases": dict(norm_placement="post", init="normal", bias=True),
    "ModernBERT with biases": dict(bias=True),
}


def measure_ablation(data: TextData, sizes: PrenormScale, device: torch.device) -> list[dict]:
    """ModernBERT and the two of `ABLATION`, equally large, at one learning rate, from each of `sizes.seeds`."""
    variants = ablation.make_variants(list(ABLATION.values()), "modernbert", sizes, data.tokenizer)
    names = ["ModernBERT", *ABLATION]
    variants = [replace(variant, name=name) for variant, name in zip(variants, names, strict=True)]
    return ablation.run_ablation(variants, data, sizes, device, rates=dict.fromkeys(names, sizes.ablation_rate))


def verdict(difference: ablation.Difference, baseline: str) -> str:
    """What a paired difference says, in a line that does not know beforehand who wins."""
    words = side_of_zero(difference.low, difference.high)
    words = words if len(difference.by_seed) > 1 else "one seed, so no verdict"
    return f"{difference.model}: {difference.mean:+.3f} nats against {baseline}: {words}"


@plots.style()
def plot_ablation(records: Sequence[dict]) -> Figure:
    """The curves of `measure_ablation`, and the differences from ModernBERT seed by seed."""
    chosen = [r for r in records if "purpose" in r or r["what"] == "unigram_entropy"]
    rate = next(r["learning_rate"] for r in chosen if "purpose" in r)
    seeds = len({r["seed"] for r in chosen if "purpose" in r})
    figure = ablation_plots.plot_ablation(chosen, "ModernBERT")
    figure.suptitle(
        f"Pre-norm and biases taken out of ModernBERT: {seeds} seed{'s' * (seeds > 1)}, all at rate {rate:g}"
    )
    return figure


# ---- figures ---------------------------------------------------------------------------------------------------------


@plots.style()
def plot_parts(parts: dict[str, Tensor], tokens: Sequence[str]) -> Figure:
    """Matrices (tokens, D) side by side on one grey scale that is the same for all: what adds up to the last."""
    figure = plots.new_figure(1.75 * len(parts) + 1.2, 1.95)
    axes = figure.subplots(1, len(parts), sharey=True)
    figure.subplots_adjust(left=0.08, right=0.9, top=0.8, bottom=0.22, wspace=0.32)
    largest = max(part.abs().max().item() for part in parts.values())
    for place, (ax, (name, part)) in enumerate(zip(axes, parts.items(), strict=True)):
        image = ax.imshow(part.numpy(), cmap="gray", vmin=-largest, vmax=largest, aspect="auto")
        plots.frame_image(ax)
        ax.set_title(name)
        ax.set_yticks(range(len(tokens)), tokens)
        ax.set_xticks([0, part.shape[1] - 1])
        ax.set_xlabel("number")
        if place:
            sign = "=" if place == len(parts) - 1 else "+"
            ax.text(-0.17, 0.5, sign, transform=ax.transAxes, ha="center", va="center", fontsize=13)
    figure.colorbar(image, ax=list(axes), label="value", fraction=0.012, pad=0.015)
    return figure


@plots.style()
def plot_depth(records: Sequence[dict], moment: str = START) -> Figure:
    """The stream and the gradients in two rows, a column for each depth and gain (one pair alone: side by side)."""
    records = [r for r in records if r.get("moment") == moment]
    setups = sorted({(r["gain"], r["layers"]) for r in records})
    panels = {"stream_rms": "rms of the\nresidual stream", "gradient_norm": "gradient norm of\na layer's matrices"}
    alone = len(setups) == 1
    rows, columns = (1, 2) if alone else (2, len(setups))
    width, height = 3.7 * columns + 1.2, 2.7 * rows + 1.6
    figure = plots.new_figure(width, height)
    figure.subplots_adjust(left=0.95 / width, right=0.985, top=1 - 0.85 / height, bottom=1.25 / height, hspace=0.48,
                           wspace=0.32 if alone else 0.1)  # fmt: skip
    axes = figure.subplots(rows, columns, sharey=False if alone else "row", squeeze=False).reshape(len(panels), -1)
    for line, (what, label) in zip(axes, panels.items(), strict=True):
        for ax, (gain, layers) in zip(line, setups, strict=True):
            for variant in VARIANTS:
                points = curve(records, what, model=variant, layers=layers, gain=gain)
                every = max(1, len(points) // 6)
                ax.plot(*zip(*points, strict=True), label=variant, markevery=every, **STYLES[variant])
            _log_axis(ax, [r["value"] for r in records if r["what"] == what])
            ax.xaxis.get_major_locator().set_params(integer=True)
            whose = "BERT's" if gain < GLOROT_GAIN else "Glorot's"
            ax.set_title(f"{layers} layers, {whose} gain {gain:.2f}")
            ax.set_xlabel("layer" if what == "gradient_norm" else "after how many layers")
        line[0].set_ylabel(f"{label} (log scale)")
    figure.suptitle(f"Signal and gradient by depth, {moment}", y=1 - 0.12 / height)
    plots.legend_below(figure, axes[0, 0])
    return plots.finish(figure, records, own=True)


@plots.style()
def plot_rates(records: Sequence[dict]) -> Figure:
    """Held-out loss against the learning rate, one panel for each length of the warm-up; a cross: not a number."""
    losses = [r for r in records if r["what"] == "rate_loss"]
    one = losses[0]
    finite = [r["value"] for r in losses if math.isfinite(r["value"])]
    ceiling = max([one["blind"], *finite]) + 0.25
    warmups = sorted({r["warmup"] for r in losses})
    figure = plots.new_figure(4.6 * len(warmups) + 1, 4.4)
    figure.subplots_adjust(left=0.08, right=0.98, top=0.84, bottom=0.28, wspace=0.08)
    axes = figure.subplots(1, len(warmups), sharey=True, squeeze=False)[0]
    for ax, warmup in zip(axes, warmups, strict=True):
        for variant in dict.fromkeys(r["model"] for r in losses):
            by_rate = loss_by_rate(losses, variant, warmup)
            ys = [value if math.isfinite(value) else math.nan for value in by_rate.values()]
            ax.plot(list(by_rate), ys, label=variant, **STYLES[variant])
            broken = [rate for rate, value in by_rate.items() if not math.isfinite(value)]
            ax.plot(broken, [ceiling] * len(broken), "x", color=STYLES[variant]["color"], markersize=9)
        for level, words in {one["blind"]: "frequency alone", one["topic"]: "topic known"}.items():
            ax.axhline(level, color=plots.FAINT, linestyle=(0, (2, 2)), linewidth=1)
            ax.annotate(words, (0.01, level), xycoords=("axes fraction", "data"), xytext=(0, 3),
                        textcoords="offset points", fontsize=8, color=plots.FAINT)  # fmt: skip
        ax.set_xscale("log")
        tried = sorted({r["learning_rate"] for r in losses})
        ax.set_xticks(tried, [f"{rate:g}" for rate in tried])
        ax.minorticks_off()
        ax.set_xlabel("peak learning rate (log scale)")
        ax.set_title("no warm-up" if warmup <= 1 else f"warm-up of {warmup} steps")
    axes[0].set_ylabel("held-out loss (nats per masked token)")
    figure.suptitle(f"{one['layers']} layers, {one['steps']} steps at each learning rate")
    plots.legend_below(figure, axes[0])
    return plots.finish(figure, losses, own=True)


@plots.style()
def plot_biases(records: Sequence[dict]) -> Figure:
    """Tokens per second of a training step and MiB kept for its backward pass, against the tokens of the batch."""
    panels = {"train_tokens_per_second": ("training step (tokens/s)", 1, "Speed: forward and backward"),
              "kept_bytes": ("memory (MiB)", plots.MIB, "Memory: kept for the backward pass")}  # fmt: skip
    figure = plots.new_figure(9.4, 4.2)
    figure.subplots_adjust(left=0.09, right=0.98, top=0.9, bottom=0.27, wspace=0.25)
    used = [r for r in records if r["what"] in panels and r["model"] in BIASES]
    for ax, (what, (label, scale, title)) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for name, style in BIAS_STYLES.items():
            mine = sorted((r for r in used if r["what"] == what and r["model"] == name), key=lambda r: r["tokens"])
            # One open and larger: where the two agree, both can be seen.
            size = dict(markersize=9, markerfacecolor="none") if name == "with biases" else dict(markersize=4)
            xs, ys, spreads = zip(*((r["tokens"], r["value"] / scale, r["spread"] / scale) for r in mine), strict=True)
            half = [spread / 2 for spread in spreads] if any(spreads) else None
            ax.errorbar(xs, ys, yerr=half, label=name, **style | size | plots.BARS)
        ax.set_ylim(0, 1.08 * ax.get_ylim()[1])
        plots.octaves(ax, sorted({r["tokens"] for r in used}), "tokens in the batch (log scale)")
        ax.set_ylabel(label)
        ax.set_title(title)
    plots.legend_below(figure, ax)
    return plots.finish(figure, used, own=True)


def _log_axis(ax: Axes, values: Sequence[float]) -> None:
    """A log scale over these values and at least a factor of two; over less than two decades named at 1, 2, 5, ..."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_yscale("log")
    ax.set_ylim(min(values) / 1.12, max(1.12 * max(values), 2.2 * min(values)))
    if max(values) > 100 * min(values):
        return
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


FIGURES = {
    "03_prenorm_and_biases_depth": partial(plot_depth, moment=START),
    "03_prenorm_and_biases_depth_trained": partial(plot_depth, moment=END),
    "03_prenorm_and_biases_rates": plot_rates,
    "03_prenorm_and_biases_cost": plot_biases,
    "03_prenorm_and_biases_ablation": plot_ablation,
}
