"""What 07_unpadding measures, and its figures.

    lengths    spreads, paragraphs              how long sequences are: equal, drawn, or as the text falls
    packing    first_fit, shuffled_stream       two more ways to fill rows, beside the package's best_fit
    cost       measure_cost                     training speed and memory, padded, sorted, unpadded, packed
    leak       one_document, measure_leak       a row whose documents see each other, and what that does to a model
    training   train_ways                       the same model on the same text, three ways

Letters: B batch, S padded length, T tokens on the flat axis.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..attention import choose_backend
from ..classroom.scale import UnpaddingScale
from ..config import EncoderConfig
from ..data.batches import SequenceBatches, chunk, pad_batch
from ..data.masking import mask_tokens
from ..data.prepared import TextData
from ..data.tokenizer import Tokenizer
from ..errors import InputError
from ..measure import plots
from ..measure.flops import forward_flops
from ..measure.memory import bytes_saved_for_backward
from ..measure.speed import model_mode, time_interleaved, tokens_per_second, tokens_per_second_spread
from ..model import MaskedLM
from ..packing import best_fit, best_fit_by_loops, fullness
from ..runtime import progress
from ..tour import real_sequences
from ..training.pretrain import autocast, build_optimizer, evaluate_mlm
from ..unpadding import Layout, pack

SHORTEST = 16  # tokens of a drawn length: [CLS], [SEP] and something to guess from
WAYS = ("padded", "sorted", "unpadded", "packed")  # sorted: padded, but each batch of neighbours in length


# ---- lengths ---------------------------------------------------------------------------------------------------------


def draw_lengths(
    mean: float, std: float, count: int, longest: int, seed: int = 0, shortest: int = SHORTEST
) -> list[int]:
    """`count` whole lengths from N(mean, std), clamped to `shortest` ... `longest`."""
    drawn = mean + std * torch.randn(count, generator=torch.Generator().manual_seed(seed))
    return drawn.round().clamp(shortest, longest).int().tolist()


def paragraphs(texts: Sequence[str], tokenizer: Tokenizer, longest: int) -> list[list[int]]:
    """What stands between two empty lines, as `[CLS] ... [SEP]` of at most `longest` ids: sequences as the text falls.

    A longer one is cut into several; one of fewer than 8 tokens is left out.
    """
    pieces = [piece for text in texts for piece in text.split("\n\n") if piece.strip()]
    ids = tokenizer.encode_batch(pieces, add_special_tokens=False)
    return [cut for one in ids for cut in chunk(one, longest, tokenizer.cls_id, tokenizer.sep_id)]


def spreads(real: Sequence[int], count: int, longest: int, seed: int = 0) -> dict[str, list[int]]:
    """{name: `count` lengths}: equal, nearly equal, the paper's N(n/2, n/8), and a sample of the `real` ones."""
    half = longest // 2
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed)).tolist()
    return {
        "equal": [half] * count,
        "narrow": draw_lengths(half, longest / 32, count, longest, seed),
        "paper": draw_lengths(half, longest / 8, count, longest, seed),
        "paragraphs": [real[order[i % len(real)]] for i in range(count)],
    }


def share_of_pads(lengths: Sequence[int], batch_size: int) -> float:
    """Of all places in rectangles of `batch_size` rows, taken in order, each as wide as its longest row."""
    groups = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    return 1 - sum(lengths) / sum(len(group) * max(group) for group in groups)


# ---- packing ---------------------------------------------------------------------------------------------------------


def first_fit(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Each document, in the order given, into the first row that has room for it: rows of document indices."""
    if max(lengths, default=0) > token_budget:
        raise InputError(f"a document has {max(lengths):,} tokens, more than the budget of {token_budget:,}; cut it")
    rows: list[list[int]] = []
    rooms: list[int] = []
    for document, length in enumerate(lengths):
        row = next((row for row, room in enumerate(rooms) if room >= length), len(rows))
        if row == len(rows):
            rows.append([])
            rooms.append(token_budget)
        rows[row].append(document)
        rooms[row] -= length
    return rows


def shuffled_stream(lengths: Sequence[int], token_budget: int, seed: int = 0) -> list[list[tuple[int, int]]]:
    """All documents end to end in a random order, cut every `token_budget` tokens: rows of (document, tokens of it).

    The rows are full but for the last, and a document that lies across a border is in two rows or more.
    """
    rows, room = [], 0
    for document in torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed)).tolist():
        left = lengths[document]
        while left:
            if room == 0:
                rows.append([])
                room = token_budget
            piece = min(left, room)
            rows[-1].append((document, piece))
            left, room = left - piece, room - piece
    return rows


def cut_documents(rows: Sequence[Sequence[tuple[int, int]]]) -> set[int]:
    """The documents of a stream that are in more than one piece."""
    seen, cut = set(), set()
    for document in (document for row in rows for document, _ in row):
        (cut if document in seen else seen).add(document)
    return cut


PACKERS = {
    "first fit": first_fit,
    "best fit": partial(best_fit, longest_first=False),
    "best fit, longest first": best_fit,
}


def measure_packing(lengths: dict[str, Sequence[int]], sizes: UnpaddingScale) -> list[dict]:
    """How full rows get and how many documents a stream cuts, by distribution and budget: counted, not timed."""
    records = []
    for name, found in lengths.items():
        for multiple in sizes.budget_multiples:
            budget = multiple * sizes.sequence_length
            where = dict(lengths=name, documents=len(found), budget=budget, multiple=multiple, unit="share")
            for method, packer in PACKERS.items():
                value = fullness(packer(found, budget), found, budget)
                records.append(dict(what="fullness", value=value, model=method, **where))
            rows = shuffled_stream(found, budget, sizes.seed)
            cut = cut_documents(rows)
            full = sum(found) / (len(rows) * budget)
            records.append(dict(what="fullness", value=full, model="shuffled stream", **where))
            records.append(dict(what="documents_cut", value=len(cut) / len(found), model="shuffled stream", **where))
            in_cut = sum(found[document] for document in cut) / sum(found)
            records.append(dict(what="tokens_in_cut_documents", value=in_cut, model="shuffled stream", **where))
    return records


def measure_best_fit(sizes: UnpaddingScale) -> list[dict]:
    """Seconds of best fit, the package's and by loops, on lengths drawn as the paper draws them."""
    n, records = sizes.sequence_length, []
    for count in sizes.best_fit_counts:
        lengths = draw_lengths(n / 2, n / 8, count, n, sizes.seed)
        calls = {"buckets": partial(best_fit, lengths, 2 * n), "loops": partial(best_fit_by_loops, lengths, 2 * n)}
        timings = time_interleaved(calls, device="cpu", repeats=sizes.timing_repeats, warmup=1)
        for name, timing in timings.items():
            records.append(dict(what="packing_seconds", value=timing.median, spread=timing.spread, n=timing.n,
                                unit="s", model=name, documents=count))  # fmt: skip
    return records


# ---- what a batch costs ----------------------------------------------------------------------------------------------


def config_of(way: str, sizes: UnpaddingScale, tokenizer: Tokenizer) -> EncoderConfig:
    """The same model for every way; padded and sorted batches keep their pads."""
    unpad = way in ("unpadded", "packed")
    facts = dict(vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_id, unpad=unpad)
    return EncoderConfig.preset(sizes.preset, **facts)


def group(way: str, sequences: Sequence[list[int]], batch_size: int) -> list[list[list[int]]]:
    """The sequences as batches. A packed one has a budget of tokens, the mean of the others, instead of a count."""
    if way == "packed":
        lengths = [len(one) for one in sequences]
        budget = max(max(lengths), round(sum(lengths) / len(lengths) * batch_size))
        return [[sequences[i] for i in row] for row in best_fit(lengths, budget, longest_first=False)]
    ordered = sorted(sequences, key=len) if way == "sorted" else list(sequences)
    return [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]


def model_inputs(
    way: str, batch: Sequence[list[int]], tokenizer: Tokenizer, rate: float, generator: torch.Generator, device
) -> dict:
    """What the model is called with: ids and labels as a rectangle with its mask, or flat with their layout."""
    if way == "packed":
        ids, layout = pack(batch)
        rest = dict(layout=layout.to(device))
    else:
        ids, mask = pad_batch(batch, tokenizer.pad_id)
        rest = dict(attention_mask=mask.to(device))
    ids, labels = mask_tokens(ids, tokenizer, rate=rate, generator=generator)
    return dict(input_ids=ids.to(device), labels=labels.to(device), **rest)


def _forward_backward(model: MaskedLM, batches: Sequence[dict]) -> None:
    """One training step's work for each batch, without the optimizer's."""
    with model_mode(model, training=True):
        for inputs in batches:
            model(**inputs).loss.backward()
            model.zero_grad(set_to_none=True)


def measure_cost(by_spread: dict[str, list[int]], data: TextData, sizes: UnpaddingScale, device) -> list[dict]:
    """Forward and backward of the same sequences in each way: real tokens/s, and bytes kept for the backward pass."""
    records, tokenizer, dtype = [], data.tokenizer, getattr(torch, sizes.dtype)
    for spread, lengths in progress(by_spread.items(), desc="spreads of length"):
        sequences, models, batches = real_sequences(data, lengths), {}, {}
        for way in WAYS:
            torch.manual_seed(sizes.seed)
            models[way] = MaskedLM(config_of(way, sizes, tokenizer)).to(device)
            generator = torch.Generator().manual_seed(sizes.seed)
            batches[way] = [model_inputs(way, batch, tokenizer, sizes.mask_rate, generator, device)
                            for batch in group(way, sequences, sizes.batch_size)]  # fmt: skip
        with autocast(device, dtype):
            calls = {way: partial(_forward_backward, models[way], batches[way]) for way in WAYS}
            timings = time_interleaved(calls, device=device, repeats=sizes.timing_repeats, warmup=1)
            kept = {way: [_kept_bytes(models[way], inputs) for inputs in batches[way]] for way in WAYS}
        for way in WAYS:
            places, operations = _computed(way, sequences, sizes, tokenizer)
            where = dict(model=way, spread_of_lengths=spread, tokens=sum(lengths), places=places,
                         pads=1 - sum(lengths) / places, flops=operations, seed=sizes.seed,
                         backend=_backend(way, spread, device, dtype))  # fmt: skip
            speed = tokens_per_second(timings[way], sum(lengths))
            scatter = tokens_per_second_spread(timings[way], sum(lengths))
            records.append(dict(what="train_tokens_per_second", value=speed, unit="tokens/s", spread=scatter,
                                n=timings[way].n, **where))  # fmt: skip
            records.append(dict(what="kept_bytes_per_token", value=sum(kept[way]) / sum(lengths), unit="bytes",
                                **where))  # fmt: skip
            records.append(dict(what="kept_bytes_largest_batch", value=max(kept[way]), unit="bytes", **where))
    return records


def _kept_bytes(model: MaskedLM, inputs: dict) -> int:
    batch = [x for x in inputs.values() if isinstance(x, Tensor)]
    with model_mode(model, training=True):
        return bytes_saved_for_backward(lambda: model(**inputs), exclude=[*model.parameters(), *batch])


def _computed(way: str, sequences: Sequence[list[int]], sizes: UnpaddingScale, tokenizer: Tokenizer) -> tuple[int, int]:
    """(places on the flat axis, operations of the forward pass by formula) of all batches together."""
    config, places, operations = config_of(way, sizes, tokenizer), 0, 0
    for batch in group(way, sequences, sizes.batch_size):
        lengths = [len(one) for one in batch]
        places += sum(lengths) if config.unpad else len(lengths) * max(lengths)
        operations += forward_flops(config, lengths, masked=round(sizes.mask_rate * sum(lengths))).total
    return places, operations


def _backend(way: str, spread: str, device, dtype) -> str:
    kept_pads = way in ("padded", "sorted") and spread != "equal"
    return choose_backend(device, dtype, kept_pads=kept_pads)[0]


# ---- the leak --------------------------------------------------------------------------------------------------------


def one_document(layout: Layout) -> Layout:
    """The mistake: position ids restart at each document, as they should, but attention takes the row for one."""
    everything = torch.zeros_like(layout.document_ids)
    ends = layout.cu_seqlens[[0, -1]]
    return dataclasses.replace(layout, lengths=(layout.num_tokens,), cu_seqlens=ends, document_ids=everything, plans={})


@torch.inference_mode()
def measure_leak(model: MaskedLM, sequences: Sequence[list[int]], tokenizer: Tokenizer, sizes: UnpaddingScale, device):
    """Held-out loss of one trained model on the same rows with the same masks: apart, and with neighbours in sight."""
    generator, sums = torch.Generator().manual_seed(sizes.seed), {"apart": 0.0, "in sight of each other": 0.0}
    masked = 0
    with model_mode(model, training=False), autocast(device, getattr(torch, sizes.dtype)):
        for batch in group("packed", sequences, sizes.batch_size):
            inputs = model_inputs("packed", batch, tokenizer, sizes.mask_rate, generator, device)
            layouts = [inputs.pop("layout")]
            layouts.append(one_document(layouts[0]))
            count = int((inputs["labels"] != -100).sum())
            for name, layout in zip(sums, layouts, strict=True):
                sums[name] += model(**inputs, layout=layout).loss.item() * count
            masked += count
    return [dict(what="held_out_loss_by_layout", value=total / masked, unit="nats", model=name, seed=sizes.seed)
            for name, total in sums.items()]  # fmt: skip


# ---- training --------------------------------------------------------------------------------------------------------


def train_ways(
    train: Sequence[list[int]],
    held_out: Sequence[list[int]],
    data: TextData,
    sizes: UnpaddingScale,
    device,
    ways: Sequence[str] = ("padded", "unpadded", "packed"),
) -> tuple[list[dict], MaskedLM]:
    """Train the same model from the same seed in each way: -> (records, the last model).

    Padded and unpadded see the same batches with the same masks. A packed batch has a constant budget of tokens instead
    of a constant count of sequences; packing is in the seconds.
    """
    records = []
    with progress(total=len(ways) * sizes.steps, desc="training", unit="step") as bar:
        for way in ways:
            torch.manual_seed(sizes.seed)
            model = MaskedLM(config_of(way, sizes, data.tokenizer)).to(device)
            records += _train(way, model, train, held_out, data.tokenizer, sizes, device, bar)
    return records, model


def _train(way, model, train, held_out, tokenizer, sizes, device, bar) -> list[dict]:
    dtype, records, seconds, tokens = getattr(torch, sizes.dtype), [], 0.0, 0
    optimizer, schedule = build_optimizer(model, sizes.learning_rate, 0.01, sizes.steps)
    generator = torch.Generator().manual_seed(sizes.seed)
    every = max(1, sizes.steps // sizes.evaluations)
    start = time.perf_counter()
    batches = iter(_training_batches(way, train, sizes))
    for step in range(1, sizes.steps + 1):
        inputs = model_inputs(way, next(batches), tokenizer, sizes.mask_rate, generator, device)
        with autocast(device, dtype):
            loss = model(**inputs).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        loss_value = loss.item()  # waits for the device, so the clock below is honest
        seconds += time.perf_counter() - start
        real = inputs["attention_mask"].sum() if "attention_mask" in inputs else inputs["layout"].num_tokens
        tokens += int(real)
        where = dict(model=way, seed=sizes.seed, step=step, tokens=tokens, seconds=seconds, unit="nats")
        records.append(dict(what="train_loss", value=loss_value, real_tokens=int(real), **where))
        if step % every == 0 or step == sizes.steps:
            value, _ = evaluate_mlm(model, held_out, tokenizer, mask_rate=sizes.mask_rate, device=device, dtype=dtype)
            records.append(dict(what="held_out_loss", value=value, **where))
        bar.update()
        start = time.perf_counter()
    return records


def _training_batches(way: str, train: Sequence[list[int]], sizes: UnpaddingScale):
    """Batches for ever. For packing, a pool of the shuffled sequences is packed in the order in which they come."""
    if way != "packed":
        return SequenceBatches(train, sizes.batch_size, seed=sizes.seed)
    pools = SequenceBatches(train, len(train), seed=sizes.seed)
    return (batch for pool in pools for batch in _shuffled(group(way, pool, sizes.batch_size), sizes.seed))


def _shuffled(rows: list, seed: int) -> list:
    """The last rows to be opened are the least full; in their order they would come together."""
    return [rows[i] for i in torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()]


# ---- tables ----------------------------------------------------------------------------------------------------------

TRAINING_COLUMNS = ("way", "real tokens", "seconds", "real tokens/s", "tokens of a step", "held-out loss (nats)")
COST_COLUMNS = ("lengths", "pads", "1 / (1 - p)", "by operations", "padded, time", "padded, bytes", "sorted, time",
                "packed, time")  # fmt: skip
PACKING_COLUMNS = ("lengths", "budget / n", *PACKERS, "stream", "documents cut", "tokens in those")


def training_rows(records: Sequence[dict]) -> list[tuple]:
    """One row for each way: what it saw, how long it took, how even its steps were, where it ended."""
    rows = []
    for way in (way for way in WAYS if any(r["model"] == way and r["what"] == "train_loss" for r in records)):
        steps = [r for r in records if r["what"] == "train_loss" and r["model"] == way]
        loss = [r["value"] for r in records if r["what"] == "held_out_loss" and r["model"] == way][-1]
        real, last = [r["real_tokens"] for r in steps], steps[-1]
        rate = f"{last['tokens'] / last['seconds']:,.0f}"
        rows.append((way, last["tokens"], f"{last['seconds']:.1f}", rate, f"{min(real):,} to {max(real):,}",
                     f"{loss:.3f}"))  # fmt: skip
    return rows


def cost_rows(records: Sequence[dict]) -> list[tuple]:
    """One row for each spread: pads, two formulas, and what is measured, as multiples of the unpadded value."""
    costs = {(r["what"], r["spread_of_lengths"], r["model"]): r for r in records if r.get("spread_of_lengths")}
    rows = []
    for name in dict.fromkeys(spread for _, spread, _ in costs):
        speed = {way: costs["train_tokens_per_second", name, way] for way in WAYS}
        padded, free = speed["padded"], speed["unpadded"]
        slower = {way: free["value"] / speed[way]["value"] for way in WAYS}
        kept = [costs["kept_bytes_per_token", name, way]["value"] for way in ("padded", "unpadded")]
        numbers = [1 / (1 - padded["pads"]), padded["flops"] / free["flops"], slower["padded"], kept[0] / kept[1],
                   slower["sorted"], slower["packed"]]  # fmt: skip
        rows.append((name, f"{padded['pads']:.0%}", *(f"{number:.2f}" for number in numbers)))
    return rows


def packing_rows(records: Sequence[dict]) -> list[tuple]:
    """Two rows for each distribution, at the smallest and at the largest budget."""
    value = {(r["what"], r["lengths"], r["model"], r["multiple"]): r["value"] for r in records if r.get("multiple")}
    multiples = sorted({multiple for *_, multiple in value})
    rows = []
    for name in dict.fromkeys(name for _, name, _, _ in value):
        for multiple in (multiples[0], multiples[-1]):
            full = [value["fullness", name, method, multiple] for method in (*PACKERS, "shuffled stream")]
            cut = [value[what, name, "shuffled stream", multiple]
                   for what in ("documents_cut", "tokens_in_cut_documents")]  # fmt: skip
            rows.append((name, multiple, *(f"{share:.1%}" for share in full), *(f"{share:.0%}" for share in cut)))
    return rows


# ---- figures ---------------------------------------------------------------------------------------------------------

LOOKS = {
    "padded": plots.STYLES["BERT"],
    "sorted": plots.MORE_STYLES[1],
    "unpadded": plots.STYLES["ModernBERT"],
    "packed": plots.MORE_STYLES[0],
    "first fit": plots.MORE_STYLES[2],
    "best fit": plots.MORE_STYLES[0],
    "best fit, longest first": plots.MORE_STYLES[3],
    "shuffled stream": plots.MORE_STYLES[1],
    "loops": plots.MORE_STYLES[2],
    "buckets": plots.MORE_STYLES[3],
}


@plots.style()
def plot_cost(records: Sequence[dict]):
    """Training speed and memory of the four ways at each spread of length, and what the share of pads predicts."""
    chosen = [r for r in records if r.get("spread_of_lengths")]
    figure, axes = plots.panels(12, 4.4, 2, chosen)
    names = list(dict.fromkeys(r["spread_of_lengths"] for r in chosen))
    panels = [("train_tokens_per_second", 1, "real tokens per second (tokens/s)", "Speed: forward and backward"),
              ("kept_bytes_per_token", 1024, "kept for backward (KiB per real token)", "Memory")]  # fmt: skip
    for ax, (what, unit, label, title) in zip(axes, panels, strict=True):
        value = {(r["model"], r["spread_of_lengths"]): r for r in chosen if r["what"] == what}
        for way in WAYS:
            heights = [value[way, name]["value"] / unit for name in names]
            plots.draw_line(ax, range(len(names)), heights, LOOKS[way], way)
        real = [1 - value["padded", name]["pads"] for name in names]
        free = [value["unpadded", name]["value"] / unit for name in names]
        formula = [f * r if what.startswith("train") else f / r for f, r in zip(free, real, strict=True)]
        ax.plot(range(len(names)), formula, "x", color="black", markersize=9, label="padded, by formula")
        ax.set_xticks(range(len(names)), [f"{n}\n{1 - r:.0%} pads" for n, r in zip(names, real, strict=True)])
        ax.set(ylabel=label, title=title, xlabel="spread of lengths, and pads of the unsorted rectangle")
        ax.set_ylim(0)
    axes[0].legend(loc="lower left")
    return figure


@plots.style()
def plot_packing(records: Sequence[dict]):
    """Fullness against the budget for each distribution, documents cut by the stream, and seconds of best fit."""
    counted = [r for r in records if r["what"] == "fullness"]
    names = list(dict.fromkeys(r["lengths"] for r in counted))
    timed = [r for r in records if r["what"] == "packing_seconds"]
    figure, axes = plots.panels(13, 7.6, 3, timed, rows=-(-(len(names) + 3) // 3))
    for ax in axes[len(names) + 2 :]:
        ax.set_axis_off()  # the legend's place
    lowest = min(r["value"] for r in counted)
    for ax, name in zip(axes, names, strict=False):
        for method in (*PACKERS, "shuffled stream"):
            mine = [r for r in counted if r["lengths"] == name and r["model"] == method]
            plots.draw_line(ax, [r["multiple"] for r in mine], [100 * r["value"] for r in mine], LOOKS[method], method)
        _budget_axis(ax, mine)
        ax.set(title=f"{name}: {mine[0]['documents']:,} documents", ylim=(100 * lowest - 2, 101.5))
        ax.set_ylabel("places that hold a token (%)")
    axes[-1].legend(*axes[0].get_legend_handles_labels(), title="fullness", loc="center left")
    ax = axes[len(names)]
    for name, style in zip(names, plots.MORE_STYLES, strict=False):
        mine = [r for r in records if r["what"] == "documents_cut" and r["lengths"] == name]
        ax.plot([r["multiple"] for r in mine], [100 * r["value"] for r in mine], label=name, **style)
    _budget_axis(ax, mine)
    ax.set(title="A stream cuts documents", ylabel="documents cut (%)", ylim=(0, None))
    ax.legend()
    _plot_seconds(axes[len(names) + 1], timed)
    return figure


def _budget_axis(ax, mine: Sequence[dict]) -> None:
    plots.octaves(ax, [r["multiple"] for r in mine], "row's budget / longest sequence, log scale")


def _plot_seconds(ax, timed: Sequence[dict]) -> None:
    from matplotlib.ticker import NullLocator

    for name in ("loops", "buckets"):
        mine = [r for r in timed if r["model"] == name]
        plots.draw_line(ax, [r["documents"] for r in mine], [1000 * r["value"] for r in mine], LOOKS[name], name)
    ax.set(xscale="log", yscale="log", title="Best fit: the same rows, two codes", xlabel="documents, log scale")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks([r["documents"] for r in mine], [f"{r['documents']:,}" for r in mine])
    ax.set_ylabel("time (ms), log scale")
    ax.legend()


@plots.style()
def plot_training(records: Sequence[dict]):
    """Held-out loss against tokens and against seconds for each way, and the tokens of each training step."""
    from matplotlib.ticker import EngFormatter

    chosen = [r for r in records if r["what"] in ("held_out_loss", "train_loss") and r["model"] in LOOKS]
    figure, axes = plots.panels(14, 4.2, 3, chosen)
    ways = list(dict.fromkeys(r["model"] for r in chosen))
    for ax, (x, label) in zip(axes, (("tokens", "real tokens seen"), ("seconds", "training time (s)")), strict=False):
        for way in ways:
            mine = [r for r in chosen if r["what"] == "held_out_loss" and r["model"] == way]
            under = dict(linewidth=6, alpha=0.35) if way == "padded" else dict(alpha=0.85)  # the same curve over tokens
            plots.draw_line(ax, [r[x] for r in mine], [r["value"] for r in mine], LOOKS[way], way, **under)
        plots.entropy_line(ax, records)
        ax.set(xlabel=label, ylabel="held-out loss (nats)", title=f"Loss against {x}")
    axes[0].legend()
    axes[0].xaxis.set_major_formatter(EngFormatter(sep=" "))
    for way in ways:
        if way != "unpadded":  # the same batches as padded
            real = [r["real_tokens"] for r in chosen if r["what"] == "train_loss" and r["model"] == way]
            name = "unpadded" if way == "padded" else way
            label = "padded and unpadded" if way == "padded" else way
            ranked = sorted(real)
            axes[2].plot(range(1, len(real) + 1), ranked, label=label, **LOOKS[name] | dict(marker=""))
    axes[2].set(xlabel="training step, ranked by its tokens", ylabel="real tokens of the step", ylim=(0, None))
    axes[2].set_title("How even the steps are")
    axes[2].legend()
    return figure


@plots.style()
def picture_rectangles(by_spread: dict[str, list[int]], batch_size: int):
    """The first batch of each spread as a rectangle, real tokens dark and pads white."""
    figure, axes = plots.panels(12, 2.5, len(by_spread))
    for ax, (name, lengths) in zip(axes, by_spread.items(), strict=True):
        first = torch.tensor(lengths[:batch_size])
        real_BS = torch.arange(int(first.max())) < first[:, None]
        ax.imshow(real_BS.numpy(), vmin=0, vmax=1.3, aspect="auto", interpolation="nearest")
        plots.frame_image(ax)
        ax.set(title=f"{name}: {(~real_BS).float().mean():.0%} pads", xlabel="place in the row")
    figure.axes[0].set_ylabel("sequence")
    return figure


@plots.style()
def picture_packing(lengths: Sequence[int], token_budget: int):
    """Rows of documents as bars, for first fit, best fit and the stream; a document that was cut is hatched."""
    stream = shuffled_stream(lengths, token_budget)
    cut = cut_documents(stream)
    packed = {name: [[(d, lengths[d]) for d in row] for row in packer(lengths, token_budget)]
              for name, packer in PACKERS.items() if name != "best fit"}  # fmt: skip
    figure, axes = plots.panels(12, 3.4, 3)
    for ax, (name, rows) in zip(axes, {**packed, "shuffled stream": stream}.items(), strict=True):
        for place, row in enumerate(rows):
            left = 0
            for document, tokens in row:
                look = dict(hatch="////") if ax is axes[2] and document in cut else {}
                grey = ("#9db8d2", "#dfe8f1", "#6f94ba")[document % 3]
                ax.barh(place, tokens, left=left, color=grey, edgecolor="black", linewidth=0.7, height=0.8, **look)
                left += tokens
        full = sum(lengths) / (len(rows) * token_budget)
        ax.set(title=f"{name}: {len(rows)} rows, {full:.1%} full", xlim=(0, token_budget), xlabel="tokens")
        ax.set_ylim(max(len(rows_of) for rows_of in (*packed.values(), stream)) - 0.4, -0.6)
        ax.set_yticks(range(len(rows)))
        ax.grid(False)
    axes[0].set_ylabel("row")
    axes[2].set_title(f"{axes[2].get_title()}, {len(cut)} cut")
    return figure


@torch.inference_mode()
@plots.style()
def picture_leak(model: MaskedLM, a: list[int], b: list[int], other: list[int], device):
    """How far each token's logits move when document B, after A in one row, is exchanged for `other`'s first tokens."""
    both = min(len(b), len(other))
    (ids, layout), (ids_other, _) = (pack([a, x[:both]], device) for x in (b, other))
    figure, (ax,) = plots.panels(9, 3, 1)
    layouts = {"in sight of each other": one_document(layout), "apart": layout}
    with model_mode(model, training=False):
        for (name, used), look in zip(layouts.items(), plots.MORE_STYLES, strict=False):
            before, after = (model(x, layout=used).logits.float() for x in (ids, ids_other))
            style = {**look, "marker": "", "label": f"documents {name}"}
            ax.plot((before - after).abs().amax(dim=-1).tolist(), linewidth=1.5, **style)
    ax.axvline(len(a) - 0.5, color="black", linewidth=1)
    ax.set_yscale("symlog", linthresh=1e-3)
    ax.set_ylim(-2e-4, None)
    ax.set(
        xlabel="place in the row: document A, border, document B",
        ylabel="largest change of a logit,\nlog scale above 0.001",
    )
    ax.set_title("B is exchanged: which logits move?")
    ax.legend(loc="lower right")
    return figure


FIGURES = {"07_unpadding_cost": plot_cost, "07_unpadding_packing": plot_packing, "07_unpadding_training": plot_training}
