"""What 02_tokenizer_and_data measures, and its figures.

    counts       count_tokens, round_trip           how many tokens a text costs, and whether it comes back
    decoder      time_around, time_decoder, decoder_memory    what a vocabulary size costs
    padding      padding_share, measure_padding     how much of a padded batch is padding
    comparison   make_sides, train_side             the same model on the same text, read by each tokenizer

Each measures and returns records; each `plot_...` draws records and nothing else. A tokenizer's name is in "model".
"""

from __future__ import annotations

import ast
import inspect
import random
import re
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ..config import EncoderConfig
from ..data import Tokenizer, pad_batch, tokenize_corpus, train_bpe, unigram_entropy
from ..data.prepared import TextData, first_characters
from ..errors import InputError
from ..measure import memory, plots, speed
from ..measure.ablation import paired_differences
from ..model import MaskedLM
from ..runtime import progress
from ..training.pretrain import autocast, train_mlm
from .shared import side_of_zero, with_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..classroom.scale import TokenizerScale

WORDPIECE, BPE, FOLDED = "WordPiece", "byte-level BPE", "BPE on folded text"
ALONE, SHOWN = "BPE, each space alone", "BPE, layout not counted"
LAYOUT = set(" \u0120\u010a\u0109\u010d")  # a space in a run, and the stand-ins of space, line end, tab, return
STYLES = {
    WORDPIECE: plots.STYLES["BERT"],
    BPE: plots.STYLES["ModernBERT"],
    FOLDED: plots.MORE_STYLES[0],
    ALONE: plots.MORE_STYLES[1],
    SHOWN: plots.MORE_STYLES[2],
}
MULTIPLE = 64


# ------------------------------------------------------------------------------------------------ counts


def prose_and_code(split) -> dict[str, list[str]]:
    """{"prose": texts, "code": texts} of a corpus split: docstrings and the language reference; files without them.

    A docstring loses the indentation of its surroundings. Files that do not parse are left out (one may be cut).
    """
    prose, code = [], []
    for source, text in zip(split["source"], split["text"], strict=True):
        if not source.endswith(".py"):
            prose.append(text)
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # old files hold "\d" in plain strings
                tree = ast.parse(text)
        except (SyntaxError, ValueError):
            continue
        found = [node.body[0] for node in ast.walk(tree) if _has_docstring(node)]
        prose += [inspect.cleandoc(statement.value.value) for statement in found]
        dropped = {line for statement in found for line in range(statement.lineno - 1, statement.end_lineno)}
        code.append("\n".join(line for i, line in enumerate(text.split("\n")) if i not in dropped))
    return {"prose": [t for t in prose if t.strip()], "code": [t for t in code if t.strip()]}


def _has_docstring(node: ast.AST) -> bool:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None


def count_tokens(tokenizer: Tokenizer, texts: dict[str, Sequence[str]]) -> list[dict]:
    """Tokens per word (between whitespace), per line that is not blank, and per character, for each kind of text.

    Byte-level BPE has two more series: what the same text would cost if each space of a run were a token of its own,
    as in a BPE whose merges hold no runs of spaces; and what it costs without the tokens that are whitespace only, of
    which WordPiece has none.
    """
    rows = []
    for kind, some in texts.items():
        ids = tokenizer.encode_batch(some, add_special_tokens=False)
        tokens = {tokenizer.name: sum(map(len, ids))}
        if tokenizer.name == BPE:
            runs = {number: len(token) for token, number in _vocabulary(tokenizer) if set(token) == {" "}}
            layout = {number for token, number in _vocabulary(tokenizer) if set(token) <= LAYOUT}
            tokens[ALONE] = tokens[BPE] + sum(runs[i] - 1 for one in ids for i in one if i in runs)
            tokens[SHOWN] = sum(i not in layout for one in ids for i in one)
        units = {
            "word": sum(len(text.split()) for text in some),
            "line": sum(bool(line.strip()) for text in some for line in text.split("\n")),
            "character": sum(map(len, some)),
        }
        rows += [
            dict(what=f"tokens_per_{unit}", value=n / many, unit="tokens", model=name, text=kind,
                 vocab_size=tokenizer.vocab_size)
            for name, n in tokens.items() for unit, many in units.items()
        ]  # fmt: skip
    return rows


def _vocabulary(tokenizer: Tokenizer):
    return tokenizer.backend.get_vocab(with_added_tokens=True).items()


def round_trip(tokenizer: Tokenizer, texts: dict[str, Sequence[str]]) -> list[dict]:
    """The share of lines that come back exactly as they were, for each kind of text; blank lines do not count."""
    rows = []
    for kind, some in texts.items():
        lines = [line for text in some for line in text.split("\n") if line.strip()]
        back = tokenizer.backend.decode_batch(tokenizer.encode_batch(lines, add_special_tokens=False))
        share = sum(a == b for a, b in zip(lines, back, strict=True)) / len(lines)
        rows.append(dict(what="round_trip_share", value=share, unit="share", model=tokenizer.name, text=kind))
    return rows


@plots.style()
def plot_pieces(rows: dict[str, Sequence[str]], title: str) -> Figure:
    """Tokens as boxes side by side, one line for each label; a box is as wide as its token is long."""
    from matplotlib.patches import Rectangle

    widths = {label: [max(len(piece), 1) + 1 for piece in pieces] for label, pieces in rows.items()}
    figure = plots.new_figure(10, 0.8 + 0.42 * len(rows))
    ax = figure.add_axes((0.22, 0.04, 0.77, 1 - 0.55 / (0.8 + 0.42 * len(rows))))
    for line, (label, pieces) in enumerate(rows.items()):
        x = 0
        for number, (piece, width) in enumerate(zip(pieces, widths[label], strict=True)):
            fill = "#e4e4e4" if number % 2 else "white"
            ax.add_patch(Rectangle((x, line - 0.38), width, 0.76, facecolor=fill, edgecolor="black", linewidth=0.8))
            shown = "\u2423" * len(piece) if set(piece) == {" "} else piece  # an open box for each space
            ax.text(x + width / 2, line, shown, ha="center", va="center", fontsize=8.5, family="monospace")
            x += width
        ax.text(-0.8, line, f"{label}: {len(pieces)}", ha="right", va="center")
    ax.set(xlim=(-0.1, max(map(sum, widths.values())) + 0.2), ylim=(len(rows) - 0.5, -0.5))
    ax.axis("off")
    figure.text(0.01, 0.98, title, fontsize=10, va="top")
    return figure


def value_of(records: Sequence[dict], what: str, **where) -> float:
    """The value of the last record of `what` with these fields."""
    found = [r["value"] for r in records if r["what"] == what and all(r.get(k) == v for k, v in where.items())]
    if not found:
        raise InputError(f"no record of {what!r} with {where}; measure it first")
    return found[-1]


def counts_table(records: Sequence[dict], vocab_size: int) -> list[tuple]:
    """Rows (kind of text, tokenizer, tokens per word, per line, per character), as text."""
    keys = dict.fromkeys((r["text"], r["model"]) for r in records if r["what"] == "tokens_per_word")
    units = ("word", "line", "character")
    return [
        (kind, name, *(f"{value_of(records, f'tokens_per_{u}', model=name, text=kind, vocab_size=vocab_size):.2f}"
                       for u in units))
        for kind in dict.fromkeys(kind for kind, _ in keys) for name in (WORDPIECE, BPE, ALONE, SHOWN)
        if (kind, name) in keys
    ]  # fmt: skip


@plots.style()
def plot_counts(records: Sequence[dict]) -> Figure:
    """Tokens per word of prose and per line of code, against the size of the vocabulary."""
    figure = plots.new_figure(9.6, 4.3)
    figure.subplots_adjust(left=0.07, right=0.98, top=0.9, bottom=0.2, wspace=0.22)
    panels = [
        ("tokens_per_word", "prose", "Prose: tokens per word"),
        ("tokens_per_line", "code", "Code: tokens per line"),
    ]
    for ax, (what, kind, title) in zip(figure.subplots(1, 2), panels, strict=True):
        chosen = [r for r in records if r["what"] == what and r.get("text") == kind]
        for name in dict.fromkeys(r["model"] for r in chosen):
            points = sorted((r["vocab_size"], r["value"]) for r in chosen if r["model"] == name)
            ax.plot(*zip(*points, strict=True), label=name, **STYLES[name])
        sizes = sorted({r["vocab_size"] for r in chosen})
        plots.octaves(ax, sizes, "size of the vocabulary (ids), log scale")
        ax.set(ylabel=title.split(": ")[1], title=title)
        ax.set_ylim(0)
        ax.legend(loc="lower left")
    return plots.finish(figure, chosen, own=True)


# ------------------------------------------------------------------------------------------------ the decoder


def _factors(rows: int, width: int, vocab: int, device, dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """x (rows, width) and a table (vocab, width), seeded. A slice table[:V] is a table of V rows at the same place."""
    generator = torch.Generator().manual_seed(0)
    x_MD, table_VD = (torch.randn(n, width, generator=generator) * width**-0.5 for n in (rows, vocab))
    return x_MD.to(device, dtype), table_VD.to(device, dtype)


def time_around(sizes: TokenizerScale, device: torch.device) -> list[dict]:
    """Milliseconds of the decoder's product at vocabulary sizes around a multiple of 64, timed in turns.

    The multiple itself is timed twice, as if it were two sizes: what the two differ by is no effect of the size.
    """
    x_MD, table_VD = _factors(
        sizes.decoder_rows, sizes.decoder_width, sizes.aligned + max(sizes.offsets), device, getattr(torch, sizes.dtype)
    )
    calls = {offset: partial(F.linear, x_MD, table_VD[: sizes.aligned + offset]) for offset in sizes.offsets}
    calls["again"] = partial(F.linear, x_MD, table_VD[: sizes.aligned])
    with torch.inference_mode():
        times = speed.time_interleaved(calls, device=device, repeats=sizes.timing_repeats)
    return [
        dict(what="decoder_ms", value=1e3 * t.median, spread=1e3 * t.spread, unit="ms", n=t.n, model="decoder",
             offset=0 if name == "again" else name, again=name == "again", vocab_size=sizes.aligned,
             rows=sizes.decoder_rows, width=sizes.decoder_width)
        for name, t in times.items()
    ]  # fmt: skip


@dataclass(frozen=True)
class Alignment:
    """What `time_around` found, in shares of the time at the multiple: 0.1 is ten per cent longer."""

    effect: float  # median over the sizes that are no multiple of 8, minus the median over the multiples of 64
    noise: float  # the same size timed as two, or the middle half of one size's repeats, whichever is larger

    @property
    def shows(self) -> bool:
        return self.effect > self.noise


def alignment(records: Sequence[dict]) -> Alignment:
    """Whether unaligned sizes take longer than the measurement's own noise."""
    rows = [r for r in records if r["what"] == "decoder_ms" and "offset" in r]
    base = next(r for r in rows if r["offset"] == 0 and not r["again"])
    again = next(r for r in rows if r["again"])
    # Each is first brought to the same number of columns, for 64 more columns are more work.
    per_column = {id(r): r["value"] / (r["vocab_size"] + r["offset"]) * r["vocab_size"] / base["value"] for r in rows}
    aligned = statistics.median(per_column[id(r)] for r in rows if r["offset"] % MULTIPLE == 0)
    odd = statistics.median(per_column[id(r)] for r in rows if r["offset"] % 8)
    spread = statistics.median(r["spread"] / r["value"] for r in rows)
    return Alignment(odd - aligned, max(abs(again["value"] / base["value"] - 1), spread))


@plots.style()
def plot_alignment(records: Sequence[dict]) -> Figure:
    """The decoder's time against the distance from the multiple of 64; bars: the middle half of the repeats."""
    rows = [r for r in records if r["what"] == "decoder_ms" and "offset" in r]
    figure = plots.new_figure(7.6, 4.3)
    figure.subplots_adjust(left=0.1, right=0.97, top=0.86, bottom=0.21)
    ax = figure.add_subplot()
    groups = [
        ("multiple of 64", plots.MORE_STYLES[0], lambda r: r["offset"] % 64 == 0 and not r["again"]),
        ("multiple of 8 only", plots.MORE_STYLES[2], lambda r: r["offset"] % 8 == 0 and r["offset"] % 64),
        ("no multiple of 8", plots.MORE_STYLES[1], lambda r: r["offset"] % 8),
        ("the middle size, timed again", plots.MORE_STYLES[3] | dict(marker="x"), lambda r: r["again"]),
    ]
    order = sorted({r["offset"] for r in rows})  # places by rank: around 0 the sizes lie too close to tell apart
    for label, look, belongs in groups:
        some = [r for r in rows if belongs(r)]
        xs, ys = [order.index(r["offset"]) + 0.35 * r["again"] for r in some], [r["value"] for r in some]
        half = [r["spread"] / 2 for r in some]
        ax.errorbar(xs, ys, yerr=half, label=label, **look | plots.BARS | dict(linestyle="none"))
    one = rows[0]
    ax.set_xticks(range(len(order)), [f"{offset:+d}" for offset in order])
    ax.set(xlabel=f"vocabulary size minus {one['vocab_size']:,} = 64 x {one['vocab_size'] // 64:,}",
           ylabel="time of the product (ms)")  # fmt: skip
    ax.set_title(f"Decoder: {one['rows']:,} tokens x {one['width']} numbers x vocabulary")
    ax.set_ylim(0, 1.35 * max(r["value"] + r["spread"] for r in rows))
    ax.legend(ncols=2, loc="upper center")
    return plots.finish(figure, rows, own=True)


def decoder_cost(sizes: TokenizerScale, device: torch.device) -> list[dict]:
    """Time and memory of the tied table and the decoder against the vocabulary's size.

    `table_bytes`: the float32 table, its gradient and AdamW's two moments, from the tensors themselves after a step.
    `logits_bytes`: what the product and its loss keep for the backward pass.
    """
    dtype, rows = getattr(torch, sizes.dtype), []
    x_MD, table_VD = _factors(sizes.decoder_rows, sizes.decoder_width, max(sizes.decoder_sizes), device, dtype)
    labels = torch.zeros(sizes.decoder_rows, dtype=torch.long, device=device)
    calls = {V: partial(F.linear, x_MD, table_VD[:V]) for V in sizes.decoder_sizes}
    with torch.inference_mode():
        times = speed.time_interleaved(calls, device=device, repeats=sizes.timing_repeats)
    for V in sizes.decoder_sizes:
        here = dict(model="decoder", vocab_size=V, rows=sizes.decoder_rows, width=sizes.decoder_width)
        table = torch.nn.Parameter(torch.zeros(V, sizes.decoder_width, device=device))
        rows.append(here | dict(what="table_bytes", value=table_bytes(table), unit="bytes"))
        learnt = table_VD[:V].detach().clone().requires_grad_()
        loss = lambda: F.cross_entropy(F.linear(x_MD, learnt), labels)  # noqa: B023, E731
        kept = memory.bytes_saved_for_backward(loss, exclude=[learnt, x_MD, labels])
        rows.append(here | dict(what="logits_bytes", value=kept, unit="bytes"))
        t = times[V]
        rows.append(here | dict(what="decoder_size_ms", value=1e3 * t.median, spread=1e3 * t.spread, unit="ms", n=t.n))
    return rows


def table_bytes(table: torch.nn.Parameter) -> int:
    """Bytes of a parameter, its gradient and its AdamW state, after one step."""
    optimizer = torch.optim.AdamW([table])
    table.grad = torch.zeros_like(table)
    optimizer.step()
    state = [value for value in optimizer.state[table].values() if value.dim() > 0]  # without the step counter
    return sum(tensor.nbytes for tensor in (table, table.grad, *state))


@plots.style()
def plot_decoder(records: Sequence[dict]) -> Figure:
    """Time of the decoder's product, and memory of table and logits, against the size of the vocabulary."""
    figure = plots.new_figure(9.6, 4.3)
    figure.subplots_adjust(left=0.08, right=0.98, top=0.88, bottom=0.2, wspace=0.24)
    left, right = figure.subplots(1, 2)
    times = sorted((r for r in records if r["what"] == "decoder_size_ms"), key=lambda r: r["vocab_size"])
    V = [r["vocab_size"] for r in times]
    half = [r["spread"] / 2 for r in times]
    left.errorbar(V, [r["value"] for r in times], yerr=half, **plots.MORE_STYLES[2])
    one = times[0]
    left.set(ylabel="time of the product (ms)", title=f"Speed: {one['rows']:,} tokens x {one['width']} x vocabulary")
    words = {"table_bytes": f"table, gradient, AdamW ({one['width']} numbers a row)",
             "logits_bytes": f"kept for the backward pass ({one['rows']:,} tokens)"}  # fmt: skip
    for (what, label), style in zip(words.items(), plots.MORE_STYLES, strict=False):
        chosen = {r["vocab_size"]: r["value"] / plots.MIB for r in records if r["what"] == what}
        right.plot(*zip(*sorted(chosen.items()), strict=True), label=label, **style)
    right.set(ylabel="memory in training (MiB)", title="Memory: measured from the tensors")
    right.legend(loc="upper left")
    for ax in (left, right):
        ax.set(xlabel="size of the vocabulary (ids)", xlim=(0, None), ylim=(0, None))
        ax.xaxis.set_major_formatter("{x:,.0f}")
    return plots.finish(figure, times, own=True)


# ------------------------------------------------------------------------------------------------ padding


def padding_share(lengths: Sequence[int], batch_size: int, by_length: bool = False) -> float:
    """The share of pads in all places of all rectangles, in [0, 1): each batch is as wide as its longest text.

    `by_length` sorts first, so that neighbours are alike. The last batch may be smaller.
    """
    order = sorted(lengths) if by_length else list(lengths)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    places = sum(len(batch) * max(batch) for batch in batches)
    return 1 - sum(lengths) / places


def measure_padding(lengths: Sequence[int], sizes: TokenizerScale) -> list[dict]:
    """Share of pads by batch size, for texts in random order and sorted by length, cut at each of the limits."""
    shuffled, rows = list(lengths), []
    random.Random(sizes.seed).shuffle(shuffled)
    for limit in sizes.padding_limits:
        cut = [min(n, limit) for n in shuffled]
        for order in ("random", "sorted"):
            for batch_size in sizes.padding_batches:
                share = padding_share(cut, batch_size, order == "sorted")
                rows.append(dict(what="padding_share", value=share, unit="share", model=BPE, order=order, limit=limit,
                                 batch_size=batch_size, texts=len(cut)))  # fmt: skip
    return rows


def padding_table(records: Sequence[dict], lengths: Sequence[int], batch_size: int) -> list[tuple]:
    """Rows (limit, share of the tokens kept, share of pads in random order, and sorted), as text."""
    rows = []
    for limit in dict.fromkeys(r["limit"] for r in records if r["what"] == "padding_share"):
        kept = sum(min(n, limit) for n in lengths) / sum(lengths)
        shares = [
            value_of(records, "padding_share", limit=limit, order=order, batch_size=batch_size)
            for order in ("random", "sorted")
        ]
        rows.append((limit, *(f"{share:.0%}" for share in (kept, *shares))))
    return rows


@plots.style()
def plot_padding(records: Sequence[dict]) -> Figure:
    """Share of pads against the number of texts in a batch."""
    rows = [r for r in records if r["what"] == "padding_share"]
    figure = plots.new_figure(6.6, 4.3)
    figure.subplots_adjust(left=0.12, right=0.97, top=0.88, bottom=0.21)
    ax = figure.add_subplot()
    looks = {"random": plots.MORE_STYLES[0], "sorted": plots.MORE_STYLES[1]}
    for limit, marker in zip(dict.fromkeys(r["limit"] for r in rows), "soD^", strict=False):
        for order, look in looks.items():
            points = [(r["batch_size"], 100 * r["value"]) for r in rows if (r["limit"], r["order"]) == (limit, order)]
            label = f"{order} order, cut at {limit} tokens"
            ax.plot(*zip(*points, strict=True), label=label, **look | dict(marker=marker))
    plots.octaves(ax, sorted({r["batch_size"] for r in rows}), "texts in a batch, log scale")
    ax.set(ylabel="pads among all places (%)", ylim=(0, 100))
    ax.set_title(f"Padding: {rows[0]['texts']:,} docstrings and language-reference pages")
    ax.legend(loc="upper left")
    return plots.finish(figure, rows, own=True)


# ------------------------------------------------------------------------------------------------ the comparison


@dataclass(frozen=True)
class Side:
    """One tokenizer's reading of the text: training sequences, and the held-out passages as texts."""

    name: str
    tokenizer: Tokenizer
    train: list[list[int]]
    passages: list[str]  # as this side reads them
    characters: int  # of the passages as they were, the same for every side
    characters_per_token: float  # of the training text

    @property
    def held_out(self) -> list[list[int]]:
        return self.tokenizer.encode_batch(self.passages)

    @property
    def tokens_per_character(self) -> float:
        """Ordinary tokens of the held-out passages for each character of the original."""
        return sum(len(ids) - 2 for ids in self.held_out) / self.characters


def fold(text: str) -> str:
    """Lower case, and every run of whitespace one space: what WordPiece forgets at least. The words stay the same."""
    return " ".join(text.lower().split())


def passages(texts: Sequence[str], characters: int, count: int, seed: int = 0) -> list[str]:
    """`count` runs of whole lines, each of at most so many characters and some words, drawn from all that there are."""
    found = []
    for text in texts:
        current = ""
        for line in text.splitlines(keepends=True):
            if len(current) + len(line) > characters:
                found.append(current)
                current = ""
            current += line if len(line) <= characters else ""
        found.append(current)
    found = [passage for passage in found if len(passage) > characters // 2 and len(passage.split()) > 2]
    return random.Random(seed).sample(found, min(count, len(found)))


def make_sides(data: TextData, wordpiece: Tokenizer, sizes: TokenizerScale) -> list[Side]:
    """WordPiece, byte-level BPE, and as a control byte-level BPE that reads and is scored on folded text."""
    import datasets

    texts = data.corpus.train["text"]
    folded = [fold(text) for text in texts]
    folded_bpe = train_bpe(first_characters(folded, sizes.tokenizer_characters), sizes.vocab_size)
    folded_split = datasets.Dataset.from_dict({"text": folded})
    held = passages(data.corpus.held_out["text"], sizes.passage_characters, sizes.held_out_sequences, sizes.seed)
    wordpiece_train = tokenize_corpus(data.corpus.train, wordpiece, sizes.sequence_length)
    folded_train = tokenize_corpus(folded_split, folded_bpe, sizes.sequence_length)
    total, scored = sum(map(len, texts)), sum(map(len, held))

    def side(name: str, tokenizer: Tokenizer, train: list[list[int]], held_texts: list[str]) -> Side:
        return Side(name, tokenizer, train, held_texts, scored, total / sum(len(ids) - 2 for ids in train))

    return [
        side(WORDPIECE, wordpiece, wordpiece_train, held),
        side(BPE, data.tokenizer, data.train, held),
        side(FOLDED, folded_bpe, folded_train, [fold(text) for text in held]),
    ]


def unigram_records(sides: Sequence[Side]) -> list[dict]:
    """What guessing by frequency costs each side, in nats per character: loss per token times tokens per character."""
    rows = []
    for side in sides:
        entropy = unigram_entropy(side.train, side.held_out, side.tokenizer.vocab_size, side.tokenizer.special_ids)
        value = entropy * side.tokens_per_character
        rows.append(dict(what="unigram_per_token", value=entropy, unit="nats", model=side.name))
        rows.append(dict(what="unigram_per_character", value=value, unit="nats", model=side.name))
    return rows


def train_side(side: Side, seed: int, sizes: TokenizerScale, device: torch.device, bar=None) -> list[dict]:
    """Train the lesson's model on one side: its curve per token and per character, and the loss on hidden words.

    Per character: the mean loss of a hidden token, times the passages' tokens, divided by their original characters.
    """
    torch.manual_seed(seed)
    tokenizer, dtype = side.tokenizer, getattr(torch, sizes.dtype)
    config = EncoderConfig.preset(sizes.preset, vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_id)
    model = MaskedLM(config)
    run = train_mlm(
        model, side.train, side.held_out, tokenizer, steps=sizes.steps, batch_size=sizes.batch_size,
        learning_rate=sizes.learning_rate, warmup_steps=sizes.warmup_steps, mask_rate=sizes.mask_rate, seed=seed,
        eval_every=max(1, sizes.steps // sizes.evaluations), device=device, dtype=dtype, label=side.name, bar=bar,
    )  # fmt: skip
    facts = dict(model=side.name, seed=seed, purpose="final", parameters=config.num_parameters())
    rows = []
    for point in run.history:
        if point["what"] == "held_out_loss" and point["step"] > 0:
            here = facts | dict(unit="nats", tokens=point["tokens"], step=point["step"], seconds=point["seconds"],
                                characters=round(point["tokens"] * side.characters_per_token))  # fmt: skip
            rows.append(here | dict(what="nats_per_token", value=point["value"]))
            rows.append(here | dict(what="nats_per_character", value=point["value"] * side.tokens_per_character))
    words = hidden_words_loss(model, side, sizes, device)
    rows.append(facts | dict(what="nats_per_hidden_character", value=words, unit="nats", tokens=run.tokens))
    rows.append(facts | dict(what="train_tokens_per_second", value=run.tokens_per_second, unit="tokens/s"))
    speed_in_text = run.tokens_per_second * side.characters_per_token
    rows.append(facts | dict(what="train_characters_per_second", value=speed_in_text, unit="characters/s"))
    return rows


def compare(sides: Sequence[Side], sizes: TokenizerScale, device: torch.device) -> list[dict]:
    """Every side from every seed, with as many training tokens: -> records."""
    bar = progress(total=len(sides) * len(sizes.seeds) * sizes.steps, desc="training", unit="step")
    rows = [row for seed in sizes.seeds for side in sides for row in train_side(side, seed, sizes, device, bar)]
    bar.close()
    return rows


def choose_words(passages: Sequence[str], share: float, seed: int = 0) -> list[set[int]]:
    """For each passage the numbers of the words to hide, a word being what stands between whitespace."""
    source = random.Random(seed)
    counts = [len(passage.split()) for passage in passages]
    return [set(source.sample(range(n), max(1, round(share * n)))) for n in counts]


def hide_words(tokenizer: Tokenizer, passage: str, hidden: set[int]) -> tuple[list[int], list[int]]:
    """Ids with every token of the hidden words replaced by [MASK], and labels (-100 at all other tokens)."""
    owner = [-1] * len(passage)
    for number, word in enumerate(re.finditer(r"\S+", passage)):
        owner[word.start() : word.end()] = [number] * (word.end() - word.start())
    encoding = tokenizer.backend.encode(passage)
    ids, labels = list(encoding.ids), []
    for i, (start, end) in enumerate(encoding.offsets):
        covers = hidden & set(owner[start:end])
        labels.append(ids[i] if covers and ids[i] not in tokenizer.special_ids else -100)
        ids[i] = tokenizer.mask_id if labels[-1] != -100 else ids[i]
    return ids, labels


@torch.inference_mode()
def hidden_words_loss(model: MaskedLM, side: Side, sizes: TokenizerScale, device: torch.device) -> float:
    """Nats per character of hidden words: the same words of the same passages for every side, whole, all at once."""
    dtype, total = getattr(torch, sizes.dtype), 0.0
    chosen = choose_words(side.passages, sizes.mask_rate, sizes.seed)
    pairs = [hide_words(side.tokenizer, text, words) for text, words in zip(side.passages, chosen, strict=True)]
    characters = sum(
        len(text.split()[number]) for text, words in zip(side.passages, chosen, strict=True) for number in words
    )
    model.eval()
    for start in range(0, len(pairs), sizes.batch_size):
        ids, labels = zip(*pairs[start : start + sizes.batch_size], strict=True)
        input_ids, real = pad_batch(ids, side.tokenizer.pad_id)
        labels, _ = pad_batch(labels, -100)
        with autocast(device, dtype):
            loss = model(input_ids.to(device), real.to(device), labels=labels.to(device)).loss
        total += loss.item() * int((labels != -100).sum())
    return total / characters


def final_mean(records: Sequence[dict], what: str, name: str) -> float:
    """The last value of each seed, averaged."""
    last = {r["seed"]: r["value"] for r in records if r["what"] == what and r["model"] == name}
    return sum(last.values()) / len(last)


COMPARED = {
    "nats_per_token": "nats per token",
    "nats_per_character": "nats per character",
    "nats_per_hidden_character": "same words: nats per character",
}


def comparison_table(records: Sequence[dict], sides: Sequence[Side]) -> list[tuple]:
    """Rows: the side, characters in a training token, the three losses, guessing by frequency, characters/s."""
    return [
        (
            side.name,
            f"{side.characters_per_token:.2f}",
            *(f"{final_mean(records, what, side.name):.3f}" for what in COMPARED),
            f"{value_of(records, 'unigram_per_character', model=side.name):.3f}",
            f"{final_mean(records, 'train_characters_per_second', side.name):,.0f}",
        )
        for side in sides
    ]


def verdicts(records: Sequence[dict]) -> list[str]:
    """One line for each loss and side: its distance from WordPiece, the interval over seeds, and what that allows."""
    lines = []
    for what, words in COMPARED.items():
        for d in paired_differences(records, WORDPIECE, what=what):
            verdict = side_of_zero(d.low, d.high, above="higher than WordPiece", below="lower than WordPiece")
            verdict = verdict if len(d.by_seed) > 1 else "one seed, no verdict"
            lines.append(f"{words:<31}{d.model:<20}{with_interval(d.mean, d.low, d.high)}: {verdict}")
    return lines


@plots.style()
def plot_comparison(records: Sequence[dict]) -> Figure:
    """The same runs on three rulers: per token, per character, and per character of the same hidden words."""
    figure = plots.new_figure(12.6, 4.6)
    figure.subplots_adjust(left=0.05, right=0.985, top=0.86, bottom=0.2, wspace=0.24)
    axes = figure.subplots(1, 3)
    curves = [("nats_per_token", "unigram_per_token", "nats per hidden token", "Per token: not comparable"),
              ("nats_per_character", "unigram_per_character", "nats per character",
               "Per character, tokens hidden")]  # fmt: skip
    for ax, (what, line, label, title) in zip(axes, curves, strict=False):
        chosen = [r for r in records if r["what"] == what]
        for name in dict.fromkeys(r["model"] for r in chosen):
            for seed in sorted({r["seed"] for r in chosen}):
                points = [(r["tokens"] / 1e3, r["value"]) for r in chosen if (r["model"], r["seed"]) == (name, seed)]
                ax.plot(*zip(*points, strict=True), linewidth=1.6, alpha=0.8, **STYLES[name],
                        label=name if seed == chosen[0]["seed"] else None)  # fmt: skip
            ax.axhline(value_of(records, line, model=name), linewidth=1, linestyle=STYLES[name]["linestyle"],
                       color=STYLES[name]["color"], alpha=0.5)  # fmt: skip
        ax.set(xlabel="training tokens seen (thousands)", ylabel=label, title=title)
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=3, loc="lower right")
    _final_points(axes[2], [r for r in records if r["what"] == "nats_per_hidden_character"])
    figure.suptitle("One model, one text, three ways to read it (thin level lines: guessing by frequency)")
    return plots.finish(figure, [r for r in records if r["what"] == "nats_per_token"], own=True)


def _final_points(ax, rows: Sequence[dict]) -> None:
    names, seeds = (list(dict.fromkeys(r[key] for r in rows)) for key in ("model", "seed"))
    for place, name in enumerate(names):
        # Seeds side by side: points that lie on each other look like one.
        points = [(place + 0.12 * (seeds.index(r["seed"]) - (len(seeds) - 1) / 2), r["value"]) for r in rows
                  if r["model"] == name]  # fmt: skip
        look = dict(color=STYLES[name]["color"], marker=STYLES[name]["marker"], linestyle="none")
        ax.plot(*zip(*points, strict=True), markersize=8, markeredgecolor="white", **look)
    ax.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names])
    ax.set(xlim=(-0.5, len(names) - 0.5), ylabel="nats per hidden character")
    ax.set_title("Per character, the same words hidden")
    ax.margins(y=0.25)


FIGURES = {
    "02_tokenizer_and_data_counts": plot_counts,
    "02_tokenizer_and_data_alignment": plot_alignment,
    "02_tokenizer_and_data_vocabulary": plot_decoder,
    "02_tokenizer_and_data_padding": plot_padding,
    "02_tokenizer_and_data_comparison": plot_comparison,
}
