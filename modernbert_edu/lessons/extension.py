"""What 09_context_extension measures, and its figures.

    turns      turn_length, plot_turns              how far apart two tokens are when a pair has turned once
    training   train_phases                         phase one on short texts, then three ways to go on from it
    context    measure_context, measure_positions   what a masked token gains from text that stands far before it
    needle     needles, train_needles, ...          tokens to be found again at a distance: accuracy by distance
    cost       measure_cost                         speed and memory against length, beside BERT at equal parameters

Letters: K head size, N texts, S tokens of a text, M masked tokens, B batch.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..classroom.scale import ExtensionScale
from ..config import EncoderConfig
from ..data.batches import chunk
from ..data.masking import IGNORED, mask_tokens
from ..data.prepared import TextData
from ..data.tokenizer import Tokenizer
from ..errors import InputError
from ..measure import plots, speed
from ..measure.flops import forward_flops
from ..measure.memory import training_memory
from ..model import MaskedLM
from ..rope import rotary_tables
from ..runtime import progress
from ..training.checkpoints import newest_checkpoint
from ..training.context_extension import cut_documents, extended_model
from ..training.pretrain import autocast, evaluate_mlm
from ..training.recipe import Recipe
from ..training.runs import pretrain
from .shared import side_of_zero, with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEFORE, THETA_ONLY = "phase one", "phase one, theta changed"
SHORT, KEPT, CHANGED = "on short texts", "on long texts, theta kept", "on long texts, theta changed"
NAMES = (BEFORE, THETA_ONLY, SHORT, KEPT, CHANGED)
LOCAL_ONLY = "theta changed, global layers made local"


# ---- turns -----------------------------------------------------------------------------------------------------------


def turn_length(pair: int, theta: float, head_size: int) -> float:
    """How many tokens apart two positions are when pair 0, 1, ... of a head has turned once between them."""
    return math.tau * theta ** (2 * pair / head_size)


def unturned(theta: float, head_size: int, length: int) -> int:
    """Pairs of a head that do not turn once within `length` tokens."""
    return sum(turn_length(pair, theta, head_size) > length for pair in range(head_size // 2))


def unseen(theta: float, length: int, old_theta: float, old_length: int, head_size: int) -> int:
    """Pairs of a head that meet angles, within `length` tokens, that the old theta and length have not shown.

    An encoder looks both ways, so a pair that turned half round to each side has shown every angle there is. Of the
    others, those count that turn further now than they did.
    """
    old, new = ([n / turn_length(i, one, head_size) for i in range(head_size // 2)]
                for n, one in ((old_length, old_theta), (length, theta)))  # fmt: skip
    return sum(before < 0.5 and after > before * (1 + 1e-9) for before, after in zip(old, new, strict=True))


class CachedRotary:
    """The trap: cos and sin are kept, and `theta` can be set. Written as such code usually is."""

    def __init__(self, theta: float, head_size: int):
        self.theta, self.head_size, self.tables = theta, head_size, None

    def __call__(self, length: int) -> tuple[Tensor, Tensor]:
        if self.tables is None or len(self.tables[0]) < length:
            self.tables = rotary_tables(torch.arange(length), self.theta, self.head_size)
        return tuple(table[:length] for table in self.tables)


# ---- training --------------------------------------------------------------------------------------------------------


def recipe_of(phase: str, sizes: ExtensionScale, length: int) -> Recipe:
    """The published recipe of "modernbert" or "modernbert-context", shrunk; a step has as many tokens in all phases."""
    tokens_per_step = sizes.batch_size * sizes.sequence_length
    first = phase == "modernbert"
    return Recipe.preset(phase).shrunk(
        tokens=(sizes.steps if first else sizes.long_steps) * tokens_per_step, length=length,
        tokens_per_step=tokens_per_step, microbatch_tokens=tokens_per_step,
        learning_rate=sizes.learning_rate * (1 if first else sizes.long_rate_share),
        warmup_share=sizes.warmup_share, decay_share=0 if first else sizes.decay_share,
    )  # fmt: skip


def train_phases(
    data: TextData, sizes: ExtensionScale, device: torch.device
) -> tuple[dict[str, list[MaskedLM]], list[dict]]:
    """Phase one on short texts, then the three continuations of it: -> ({name: a model for each seed}, records).

    Each goes on from the same weights and the same state of the optimizer, with as many tokens: on texts of the old
    length, on long texts with theta kept, and on long texts with theta changed. Those that have been trained once only
    come once, whatever the number of seeds.
    """
    dtype, first = getattr(torch, sizes.dtype), recipe_of("modernbert", sizes, sizes.sequence_length)
    config = EncoderConfig.preset(
        sizes.modernbert_preset, vocab_size=data.tokenizer.vocab_size, pad_token_id=data.tokenizer.pad_id,
        max_position_embeddings=sizes.sequence_length, global_rope_theta=sizes.short_theta,
    )  # fmt: skip
    torch.manual_seed(sizes.seed)
    before, records = MaskedLM(config), []
    every = dict(device=device, dtype=dtype)
    with (
        tempfile.TemporaryDirectory() as folder,
        progress(total=sizes.steps + 3 * len(sizes.long_seeds) * sizes.long_steps, desc="training", unit="step") as bar,
    ):
        run = pretrain(before, first, data, out=folder, seed=sizes.seed, label=BEFORE, bar=bar,
                       checkpoint_every=sizes.steps, **every)  # fmt: skip
        records += [r for r in run.history if r["what"] in ("train_loss", "held_out_loss")]
        state = newest_checkpoint(folder).optimizer_state()
        models = {BEFORE: [before], THETA_ONLY: [extended_model(before, sizes.long_length, sizes.long_theta)],
                  SHORT: [], KEPT: [], CHANGED: []}  # fmt: skip
        long = replace(data, train=cut_documents(data.corpus, data.tokenizer, sizes.long_length)[0])
        for seed in sizes.long_seeds:
            ways = {
                SHORT: (copy.deepcopy(before), data, sizes.sequence_length),
                KEPT: (extended_model(before, sizes.long_length, sizes.short_theta), long, sizes.long_length),
                CHANGED: (extended_model(before, sizes.long_length, sizes.long_theta), long, sizes.long_length),
            }
            for name, (model, texts, length) in ways.items():
                recipe = recipe_of("modernbert-context", sizes, length)
                own = {key: moment.clone() for key, moment in state.items()}  # it is written to
                run = pretrain(model, recipe, texts, seed=seed, label=name, optimizer_state=own, bar=bar, **every)
                models[name].append(model)
                records += [r for r in run.history if r["what"] == "train_loss"]
    for name, found in models.items():
        for seed, model in zip(sizes.long_seeds, found, strict=False):
            loss, _ = evaluate_mlm(model, data.held_out, data.tokenizer, mask_rate=sizes.test_mask_rate, **every)
            records.append(dict(what="short_loss", value=loss, unit="nats", model=name, seed=seed,
                                length=sizes.sequence_length))  # fmt: skip
    return models, records


# ---- loss by context and by position ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Texts:
    """N texts of the same length with [CLS] and [SEP], and the number of the document that each was cut from."""

    ids_NS: Tensor
    document_N: Tensor


def long_texts(split, tokenizer: Tokenizer, length: int, count: int) -> Texts:
    """At most `count` texts of exactly `length` tokens: the first of every document that has one, then the second ...

    Raises `InputError` unless two documents are that long: one of them lends the other a stranger's text.
    """
    found = []
    for document, ids in enumerate(tokenizer.encode_batch(split["text"], add_special_tokens=False)):
        pieces = chunk(ids, length, tokenizer.cls_id, tokenizer.sep_id)
        found += [(turn, document, piece) for turn, piece in enumerate(pieces) if len(piece) == length]
    found = sorted(found, key=lambda one: one[:2])[:count]
    if len({document for _, document, _ in found}) < 2:
        raise InputError(f"the held-out text has no two documents of {length:,} tokens; give more text")
    return Texts(torch.tensor([piece for *_, piece in found]), torch.tensor([document for _, document, _ in found]))


def hide(
    ids_NS: Tensor, tokenizer: Tokenizer, rate: float, seed: int, last: int | None = None
) -> tuple[Tensor, Tensor]:
    """(ids, labels): a share of all tokens masked, or of the `last` tokens before [SEP], whatever stands around."""
    hidden, labels = ids_NS.clone(), torch.full_like(ids_NS, IGNORED)
    where = slice(1, -1) if last is None else slice(-1 - last, -1)
    generator = torch.Generator().manual_seed(seed)
    hidden[:, where], labels[:, where] = mask_tokens(ids_NS[:, where], tokenizer, rate=rate, generator=generator)
    return hidden, labels


def with_context(x_NS: Tensor, context: int, probe: int) -> Tensor:
    """Each text cut down to its first token, `context` tokens, the probe and its last token. Positions begin at 0."""
    return torch.cat([x_NS[:, :1], x_NS[:, -(context + probe + 1) :]], dim=1)


def with_strangers(texts: Texts, hidden_NS: Tensor, near: int, probe: int) -> Tensor:
    """Only the probe and the `near` tokens before it are a text's own; all that stands before is another document's."""
    partner_N = torch.tensor([_stranger(i, texts.document_N.tolist()) for i in range(len(texts.document_N))])
    far = slice(1, texts.ids_NS.shape[1] - 1 - probe - near)
    mixed = hidden_NS.clone()
    mixed[:, far] = texts.ids_NS[partner_N][:, far]
    return mixed


def _stranger(text: int, documents: list[int]) -> int:
    """The next text that is from another document."""
    after = [(text + i) % len(documents) for i in range(1, len(documents))]
    return next(other for other in after if documents[other] != documents[text])


@torch.inference_mode()
def losses_at(model: MaskedLM, ids_NS: Tensor, labels_NS: Tensor, dtype: torch.dtype, tokens: int = 16_384) -> Tensor:
    """Nats at every masked token, (M,) float64, row by row; as many texts at once as have `tokens` tokens."""
    device, losses = next(model.parameters()).device, []
    rows = max(1, tokens // ids_NS.shape[1])
    with speed.model_mode(model, training=False):
        for ids, labels in zip(ids_NS.split(rows), labels_NS.split(rows), strict=True):
            with autocast(device, dtype):
                logits = model(ids.to(device), labels=labels.to(device)).masked_logits
            losses.append(F.cross_entropy(logits.float(), labels[labels != IGNORED].to(device), reduction="none"))
    return torch.cat(losses).double().cpu()


def mean_interval(values_M: Tensor, document_M: Tensor, draws: int = 2000) -> dict:
    """The mean over tokens, and its 95 % bootstrap interval over documents: {value, low, high, n, documents}.

    Tokens of one document are alike, so whole documents are drawn, as many as there are, with replacement.
    """
    number_M = document_M.unique(return_inverse=True)[1]
    documents = int(number_M.max()) + 1
    sums, counts = (torch.zeros(documents, dtype=torch.float64) for _ in range(2))
    sums.index_add_(0, number_M, values_M)
    counts.index_add_(0, number_M, torch.ones_like(values_M))
    drawn = torch.randint(documents, (draws, documents), generator=torch.Generator().manual_seed(0))
    means = sums[drawn].sum(dim=1) / counts[drawn].sum(dim=1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return dict(value=values_M.mean().item(), low=low, high=high, n=len(values_M), documents=documents)


def measure_context(
    models: dict[str, list[MaskedLM]], texts: Texts, tokenizer: Tokenizer, sizes: ExtensionScale
) -> list[dict]:
    """Loss at the same masked tokens with ever more of the text before them, all of it clear: records.

    "context_gain" is what a model gains from its text's far part: the loss with `near` tokens minus that with all.
    "own_gain" is the loss with a stranger's far part minus that with the text's own. "theta_gain" is the loss with
    theta kept minus that with theta changed, for each context.
    """
    dtype, probe, records = getattr(torch, sizes.dtype), sizes.probe, []
    hidden, labels = hide(texts.ids_NS, tokenizer, sizes.test_mask_rate, sizes.seed, last=probe)
    document_M = texts.document_N[(labels != IGNORED).nonzero()[:, 0]]
    inputs = {c: (with_context(hidden, c, probe), with_context(labels, c, probe)) for c in sizes.contexts}
    inputs["strange"] = with_strangers(texts, hidden, sizes.near, probe), labels
    common = dict(unit="nats", length=sizes.test_length)
    losses = {}
    for name in progress(models, desc="loss by context"):
        losses[name] = {c: _mean_over_seeds(models[name], *pair, dtype) for c, pair in inputs.items()}
        for c in sizes.contexts:
            records.append(dict(what="loss_by_context", model=name, context=c, **common)
                           | mean_interval(losses[name][c], document_M))  # fmt: skip
        mine, whole = losses[name], losses[name][sizes.contexts[-1]]
        near = min(sizes.contexts, key=lambda c: abs(c - sizes.near))
        for what, other in {"context_gain": mine[near], "own_gain": mine["strange"]}.items():
            records.append(dict(what=what, model=name, context=near, **common)
                           | mean_interval(other - whole, document_M))  # fmt: skip
    for c in sizes.contexts:
        gain = mean_interval(losses[KEPT][c] - losses[CHANGED][c], document_M)
        records.append(dict(what="theta_gain", model=CHANGED, context=c, **common) | gain)
    return records


def _mean_over_seeds(models: Sequence[MaskedLM], ids_NS: Tensor, labels_NS: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.stack([losses_at(model, ids_NS, labels_NS, dtype) for model in models]).mean(dim=0)


def measure_positions(
    models: dict[str, list[MaskedLM]], texts: Texts, tokenizer: Tokenizer, sizes: ExtensionScale
) -> list[dict]:
    """Loss of masked tokens everywhere in whole texts, by their position, in bins of equal width: records.

    "theta_gain_everywhere" is kept minus changed over all positions, seed by seed ("by_seed") and in the mean.
    """
    dtype, records = getattr(torch, sizes.dtype), []
    hidden, labels = hide(texts.ids_NS, tokenizer, sizes.test_mask_rate, sizes.seed + 1)
    row_M, position_M = (labels != IGNORED).nonzero().unbind(dim=1)
    document_M, width = texts.document_N[row_M], sizes.test_length / sizes.position_bins
    bin_M = (position_M / width).long()
    losses = {}
    for name in progress(models, desc="loss by position"):
        losses[name] = [losses_at(model, hidden, labels, dtype) for model in models[name]]
        mean = torch.stack(losses[name]).mean(dim=0)
        for b in bin_M.unique().tolist():
            here = bin_M == b
            records.append(dict(what="loss_by_position", model=name, position=(b + 0.5) * width, unit="nats",
                                length=sizes.test_length) | mean_interval(mean[here], document_M[here]))  # fmt: skip
    gains = [kept - changed for kept, changed in zip(losses[KEPT], losses[CHANGED], strict=True)]
    records.append(dict(what="theta_gain_everywhere", model=CHANGED, unit="nats", length=sizes.test_length,
                        by_seed=[gain.mean().item() for gain in gains])
                   | mean_interval(torch.stack(gains).mean(dim=0), document_M))  # fmt: skip
    return records


def in_words(record: dict, more: str, less: str) -> str:
    """Which side of zero the whole interval of a difference lies on: `more` above it, `less` below it."""
    return side_of_zero(record["low"], record["high"], above=more, below=less)


# ---- needle ----------------------------------------------------------------------------------------------------------


def needle_vocabulary(sizes: ExtensionScale) -> int:
    """A token "key = ?" for each key, one "key = value" for each pair, 32 ordinary ones or more; a multiple of 64."""
    return -(-(sizes.needle_keys * (1 + sizes.needle_values) + 32) // 64) * 64


def needles(
    count: int, length: int, pairs: int, sizes: ExtensionScale, generator: torch.Generator, distance: int | None = None
) -> tuple[Tensor, Tensor]:
    """Texts of random ordinary tokens with `pairs` needles, each of another key: (ids, labels), each (B, S).

    A needle stands twice: once told, as one token "key = value", and once asked for, as "key = ?", which is to become
    the told token. With `distance` it is asked for exactly so many tokens after it is told; without, both are anywhere.
    Raises `InputError` where the text has not the room.
    """
    K, V = sizes.needle_keys, sizes.needle_values
    free = length - (distance or 0)
    if pairs > K or (free < pairs if distance else free < 2 * pairs):
        raise InputError(f"{pairs} needles at distance {distance} do not fit into {length} tokens; take fewer")
    ids = torch.randint(K * (1 + V), needle_vocabulary(sizes), (count, length), generator=generator)
    labels = torch.full_like(ids, IGNORED)
    for row in range(count):
        told, asked = _places(free, pairs, distance, generator)
        key = torch.randperm(K, generator=generator)[: len(told)]
        value = torch.randint(V, (len(told),), generator=generator)
        ids[row, told], ids[row, asked] = K + key * V + value, key
        labels[row, asked] = ids[row, told]
    return ids, labels


def _places(free: int, pairs: int, distance: int | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Where needles are told and where they are asked for, no place used twice."""
    order = torch.randperm(free, generator=generator)
    if distance is None:
        return order[:pairs], order[pairs : 2 * pairs]
    told, used = [], set()
    for place in order.tolist():
        if len(told) < pairs and not {place, place + distance} & used:
            told.append(place)
            used |= {place, place + distance}
    return torch.tensor(told), torch.tensor(told) + distance


def train_needles(sizes: ExtensionScale, device: torch.device) -> tuple[dict[str, MaskedLM], list[dict]]:
    """A small model that learns to find needles in short texts, then both ways to go on with long ones.

    Every step has new texts, and as many tokens. The model with its global layers made local has the weights of the
    one whose theta was changed; it shows what the local layers reach alone.
    """
    config = EncoderConfig.preset(
        "modernbert-tiny", vocab_size=needle_vocabulary(sizes), hidden_size=sizes.needle_hidden,
        num_hidden_layers=sizes.needle_layers, num_attention_heads=sizes.needle_heads, pad_token_id=None,
        intermediate_size=3 * sizes.needle_hidden // 2, max_position_embeddings=sizes.needle_length,
        global_rope_theta=sizes.short_theta,
    )  # fmt: skip
    torch.manual_seed(sizes.seed)
    before, long = MaskedLM(config).to(device), sizes.needle_long_length
    total = sizes.needle_steps + 2 * sizes.needle_long_steps
    with progress(total=total, desc="needles", unit="step") as bar:
        records = _train_needles(before, BEFORE, sizes.needle_length, sizes.needle_steps, sizes, bar)
        models = {BEFORE: before, THETA_ONLY: extended_model(before, long, sizes.long_theta),
                  KEPT: extended_model(before, long, sizes.short_theta),
                  CHANGED: extended_model(before, long, sizes.long_theta)}  # fmt: skip
        for name in (KEPT, CHANGED):
            records += _train_needles(models[name], name, long, sizes.needle_long_steps, sizes, bar)
    local = MaskedLM(models[CHANGED].config.replace(attention_pattern="L")).to(device)
    local.load_state_dict(models[CHANGED].state_dict())
    return models | {LOCAL_ONLY: local}, records


def _train_needles(model: MaskedLM, name: str, length: int, steps: int, sizes: ExtensionScale, bar) -> list[dict]:
    """AdamW, its rate constant after a tenth of the steps: -> records of the accuracy on each step's own batch."""
    device, dtype, records = next(model.parameters()).device, getattr(torch, sizes.dtype), []
    batch = max(1, sizes.needle_batch * sizes.needle_length // length)  # as many tokens as before
    pairs = min(sizes.needle_keys, sizes.needle_pairs * length // sizes.needle_length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=sizes.needle_rate, betas=(0.9, 0.98), weight_decay=0.01)
    generator = torch.Generator().manual_seed(sizes.seed)
    model.train()
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = sizes.needle_rate * min(1, 10 * step / steps)
        ids, labels = needles(batch, length, pairs, sizes, generator)
        with autocast(device, dtype):
            output = model(ids.to(device), labels=labels.to(device))
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        right = output.masked_logits.argmax(dim=-1).cpu() == labels[labels != IGNORED]
        records.append(dict(what="needle_train_accuracy", value=right.double().mean().item(), unit="share", model=name,
                            step=step, seed=sizes.seed))  # fmt: skip
        bar.update()
    return records


@torch.inference_mode()
def measure_needles(models: dict[str, MaskedLM], sizes: ExtensionScale) -> list[dict]:
    """Share of values found by distance, in texts that are all equally long: so the distance alone changes.

    The interval is the bootstrap over texts. One record, "needle_facts", holds the share that guessing finds.
    """
    facts = dict(short=sizes.needle_length, long=sizes.needle_long_length)
    facts |= dict(half_window=next(iter(models.values())).config.half_window)
    records = [dict(what="needle_facts", model="guessing", value=1 / sizes.needle_values, unit="share", **facts)]
    for distance in progress(sizes.needle_distances, desc="needle distances"):
        generator = torch.Generator().manual_seed(sizes.seed + distance)
        ids, labels = needles(sizes.needle_test_texts, sizes.needle_test_length, sizes.needle_test_pairs, sizes,
                              generator, distance)  # fmt: skip
        row_M = (labels != IGNORED).nonzero()[:, 0]
        for name, model in models.items():
            right = torch.cat([_found(model, *pair, sizes) for pair in zip(ids.split(4), labels.split(4), strict=True)])
            records.append(dict(what="needle_accuracy", model=name, distance=distance, unit="share", seed=sizes.seed,
                                length=sizes.needle_test_length) | mean_interval(right, row_M))  # fmt: skip
    return records


def _found(model: MaskedLM, ids: Tensor, labels: Tensor, sizes: ExtensionScale) -> Tensor:
    device = next(model.parameters()).device
    with speed.model_mode(model, training=False), autocast(device, getattr(torch, sizes.dtype)):
        logits = model(ids.to(device), labels=labels.to(device)).masked_logits
    return (logits.argmax(dim=-1).cpu() == labels[labels != IGNORED]).double()


def reach(pattern: str, layers: int, length: int) -> int:
    """How far from the middle token of `length` its output still depends on an input: by gradient, in float64."""
    config = EncoderConfig.preset("modernbert-tiny", vocab_size=64, hidden_size=16, num_attention_heads=1,
                                  intermediate_size=16, num_hidden_layers=layers, attention_pattern=pattern,
                                  initializer_range=0.5)  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = MaskedLM(config).double().encoder.eval()
        ids = torch.randint(64, (1, length))
    caught = []
    handle = encoder.embeddings.register_forward_hook(lambda module, given, out: caught.append(out) or out)
    out = encoder(ids).last_hidden_state[0, length // 2]
    handle.remove()
    (gradient,) = torch.autograd.grad(out.sum() + out.square().sum(), caught)
    touched = gradient.abs().sum(dim=-1).nonzero().flatten()
    return int((touched - length // 2).abs().max())


# ---- cost ------------------------------------------------------------------------------------------------------------


def cost_configs(sizes: ExtensionScale) -> dict[str, EncoderConfig]:
    """BERT and ModernBERT of equal parameters, both good for the longest length.

    They are matched with BERT's table of 512 positions; then the table gets the rows it would need. A row that is
    looked up costs the same in a table of any size, so speed and the memory of a step do not depend on the rows.
    """
    longest = max(sizes.cost_lengths)
    modern = EncoderConfig.preset(sizes.modernbert_preset, vocab_size=sizes.vocab_size, max_position_embeddings=longest)
    bert = EncoderConfig.preset(sizes.bert_preset, vocab_size=sizes.vocab_size)
    return {"BERT": bert.replace(max_position_embeddings=longest), "ModernBERT": modern.matched_to(bert)}


def comparing_share(config: EncoderConfig, length: int) -> float:
    """The share of an encoder's operations that compare pairs of tokens, by formula."""
    flops = forward_flops(config, [length])
    return (flops.attention_global + flops.attention_local) / flops.total


def measure_cost(sizes: ExtensionScale, device: torch.device) -> list[dict]:
    """Tokens per second forward and memory of a training step for one text of each length, both models in turns."""
    dtype, records = getattr(torch, sizes.dtype), []
    generator = torch.Generator().manual_seed(sizes.seed)
    models = {name: MaskedLM(config).to(device) for name, config in cost_configs(sizes).items()}
    for n in progress(sizes.cost_lengths, desc="lengths"):
        ids = torch.randint(5, sizes.vocab_size, (1, n), generator=generator).to(device)
        labels = ids.where(torch.rand(1, n, generator=generator).to(device) < sizes.mask_rate, IGNORED)
        with autocast(device, dtype):
            calls = {name: speed.forward_call(model, ids, None) for name, model in models.items()}
            times = speed.time_interleaved(calls, device=device, repeats=sizes.timing_repeats, warmup=1,
                                           budget_seconds=sizes.timing_budget)  # fmt: skip
            kept = {name: training_memory(model, ids, None, labels) for name, model in models.items()}
        for name, model in models.items():
            facts = dict(model=name, length=n, comparing=comparing_share(model.config, n))
            records += [
                dict(what="forward_tokens_per_second", value=speed.tokens_per_second(times[name], n), unit="tokens/s",
                     spread=speed.tokens_per_second_spread(times[name], n), n=times[name].n) | facts,
                dict(what="train_memory_bytes", value=kept[name].bytes, unit="bytes", how=kept[name].how) | facts,
            ]  # fmt: skip
    return records


# ---- tables ----------------------------------------------------------------------------------------------------------

CONTEXT_COLUMNS = ("model", "loss, least context", "loss, all context", "gain from the far part",
                   "own far part against a stranger's", "loss on short texts")  # fmt: skip
COST_COLUMNS = ("tokens", "BERT, tokens/s", "ModernBERT, tokens/s", "times", "BERT, MiB", "ModernBERT, MiB", "times",
                "comparing, BERT", "comparing, ModernBERT")  # fmt: skip


def _with_interval(record: dict) -> str:
    return with_interval(record["value"], record["low"], record["high"])


def context_rows(records: Sequence[dict]) -> list[tuple]:
    """A row for each model: loss with the least and with all context, and the two gains with their intervals."""
    rows = []
    for name in NAMES:
        mine = [r for r in records if r["model"] == name]
        by_context = sorted((r for r in mine if r["what"] == "loss_by_context"), key=lambda r: r["context"])
        gain, own = (next(r for r in mine if r["what"] == what) for what in ("context_gain", "own_gain"))
        short = [r["value"] for r in mine if r["what"] == "short_loss"]
        rows.append((name, f"{by_context[0]['value']:.3f}", f"{by_context[-1]['value']:.3f}", _with_interval(gain),
                     _with_interval(own), f"{sum(short) / len(short):.3f}" if short else None))  # fmt: skip
    return rows


def theta_rows(records: Sequence[dict]) -> list[tuple]:
    """A row for each context: the loss with theta kept minus that with theta changed, in words too."""
    return [(f"{r['context']:,}", _with_interval(r), in_words(r, "changed is lower", "kept is lower"))
            for r in records if r["what"] == "theta_gain"]  # fmt: skip


def needle_rows(records: Sequence[dict]) -> tuple[list[tuple], list[str]]:
    """(rows, columns): a row for each model, the share found at each distance."""
    found = [r for r in records if r["what"] == "needle_accuracy"]
    distances = sorted({r["distance"] for r in found})
    value = {(r["model"], r["distance"]): r["value"] for r in found}
    rows = [(name, *(f"{value[name, d]:.0%}" for d in distances)) for name in dict.fromkeys(r["model"] for r in found)]
    return rows, ["model", *(f"{d:,}" for d in distances)]


def cost_rows(records: Sequence[dict]) -> list[tuple]:
    """A row for each length: speed, memory and the share of comparing by formula, BERT's and ModernBERT's."""
    value = {(r["what"], r["model"], r["length"]): r for r in records if r.get("comparing") is not None}
    rows, both = [], ("BERT", "ModernBERT")
    for n in sorted({length for *_, length in value}):
        speeds = [value["forward_tokens_per_second", name, n]["value"] for name in both]
        memory = [value["train_memory_bytes", name, n]["value"] / plots.MIB for name in both]
        shares = [value["train_memory_bytes", name, n]["comparing"] for name in both]
        rows.append((f"{n:,}", *(f"{s:,.0f}" for s in speeds), f"{speeds[1] / speeds[0]:.2f}",
                     *(f"{m:,.1f}" for m in memory), f"{memory[1] / memory[0]:.2f}",
                     *(f"{share:.0%}" for share in shares)))  # fmt: skip
    return rows


# ---- figures ---------------------------------------------------------------------------------------------------------

LOOKS = {
    BEFORE: plots.MORE_STYLES[3],
    THETA_ONLY: plots.MORE_STYLES[1],
    SHORT: plots.MORE_STYLES[0],
    KEPT: plots.MORE_STYLES[2],
    CHANGED: plots.STYLES["ModernBERT"],
    LOCAL_ONLY: plots.MORE_STYLES[0],  # never in one figure with SHORT
}


def _line(ax: Axes, mine: Sequence[dict], x: str, scale: float = 1, bars: bool = False, **more) -> None:
    """One model's values over the field `x`, with their intervals as bars where asked for."""
    mine = sorted(mine, key=lambda r: r[x])
    values = [scale * r["value"] for r in mine]
    bounds = [[scale * abs(r["value"] - r[end]) for r in mine] for end in ("low", "high")]
    look = plots.EDGE | plots.BARS | more
    ax.errorbar([r[x] for r in mine], values, yerr=bounds if bars else None, **look)


def _octaves(ax: Axes, at: Sequence[int], label: str) -> None:
    at = [n for i, n in enumerate(at) if i == len(at) - 1 or at[i + 1] >= 1.3 * n]  # labels that would touch
    plots.octaves(ax, at, label, slanted=True)


@plots.style()
def plot_context(records: Sequence[dict]) -> Figure:
    """Loss by context given, loss by position against phase one's, and what the change of theta gains by context."""
    context = [r for r in records if r["what"] == "loss_by_context"]
    position = [r for r in records if r["what"] == "loss_by_position"]
    gains = [r for r in records if r["what"] == "theta_gain"]
    figure, (left, middle, right) = plots.panels(14, 4.8, 3, [*context, *position, *gains])
    plain = {r["position"]: r["value"] for r in position if r["model"] == BEFORE}
    for name in NAMES:
        _line(left, [r for r in context if r["model"] == name], "context", label=name, **LOOKS[name])
        mine = [r | dict(value=r["value"] - plain[r["position"]]) for r in position if r["model"] == name]
        _line(middle, mine, "position", label=name, **LOOKS[name])
    contexts = sorted({r["context"] for r in context})
    _octaves(left, contexts, "tokens of the text given before the probe, log scale")
    _line(right, gains, "context", bars=True, **LOOKS[CHANGED])
    _octaves(right, contexts, "tokens of the text given before the probe, log scale")
    right.axhline(0, color="black", linewidth=0.9)
    left.set(ylabel="loss (nats per masked token)", title="By context given")
    middle.set(ylabel="loss minus that of phase one (nats)", xlabel="position in the whole text (tokens)")
    middle.set_title("By position, against phase one")
    right.set(ylabel="loss, theta kept minus changed (nats)", title="Above 0: lower with theta changed")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


@plots.style()
def plot_needle(records: Sequence[dict]) -> Figure:
    """Share of values found by distance for each model, with the reach of one local layer and the trained length."""
    found = [r for r in records if r["what"] == "needle_accuracy"]
    figure, (ax,) = plots.panels(9, 5.4, 1, found)
    for name in dict.fromkeys(r["model"] for r in found):
        _line(ax, [r for r in found if r["model"] == name], "distance", 100, bars=True, label=name, **LOOKS[name])
    facts = next(r for r in records if r["what"] == "needle_facts")
    marks = {"half_window": "one window", "short": "phase one", "long": "long texts"}
    for height, (name, words) in zip((107, 112, 107), marks.items(), strict=True):  # neighbours on two heights
        ax.axvline(facts[name], color=plots.FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
        place = dict(fontsize=8, color=plots.FAINT, ha="center", annotation_clip=False)
        ax.annotate(f"{words}: {facts[name]:,}", (facts[name], height), **place)
    ax.axhline(100 * facts["value"], color="black", linewidth=0.9, linestyle=(0, (1, 2)))
    ax.annotate("guessing", (1.005, 100 * facts["value"]), xycoords=("axes fraction", "data"), fontsize=8, va="center")
    _octaves(ax, sorted({r["distance"] for r in found}), "distance between the two places of a key (tokens), log scale")
    ax.set(ylabel="values found (%)", ylim=(-3, 106))
    ax.set_title(f"Needles in texts of {found[0]['length']:,} tokens", pad=28)
    figure.legend(loc="outside upper center", ncols=3)
    return figure


@plots.style()
def plot_cost(records: Sequence[dict]) -> Figure:
    """Speed and memory against length."""
    figure = plots.new_figure(12, 4.4)
    figure.subplots_adjust(left=0.08, right=0.89, top=0.88, bottom=0.24, wspace=0.55)
    left, right = figure.subplots(1, 2)
    plots.plot_speed(records, ax=left)
    plots.plot_memory(records, ax=right)
    shown = [r for r in records if r["what"] in ("forward_tokens_per_second", "train_memory_bytes")]
    return plots.finish(figure, shown, own=True)


@plots.style()
def plot_turns(theta: float, length: int, old_theta: float = 10_000.0, old_length: int = 1024, head_size: int = 64):
    """Tokens in which each pair of a head turns once, before and after; the lengths as lines across."""
    figure, (ax,) = plots.panels(9, 4, 1)
    pairs = range(head_size // 2)
    for one, n, look in zip((old_theta, theta), (old_length, length), plots.MORE_STYLES, strict=False):
        style = {**look, "markersize": 4}
        ax.plot(pairs, [turn_length(i, one, head_size) for i in pairs], label=f"theta {one:,.0f}", **style)
        ax.axhline(n, color=style["color"], linestyle=style["linestyle"], linewidth=0.9)
        ax.annotate(f"{n:,} tokens: {unturned(one, head_size, n)} pairs do not turn once", (0, n), fontsize=8,
                    xytext=(0, 3), textcoords="offset points")  # fmt: skip
    ax.set(yscale="log", xlabel=f"pair of a head of {head_size} numbers", ylabel="tokens for one turn, log scale")
    ax.legend(loc="lower right")
    return figure


FIGURES = {
    "09_context_extension_context": plot_context,
    "09_context_extension_needle": plot_needle,
    "09_context_extension_cost": plot_cost,
}
