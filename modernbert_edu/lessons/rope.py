"""What 04_rope measures, and its figures.

    decay      expected_score, score_bound         how a score falls with distance: formulas, nothing is measured
    rounding   rounding_errors                     what half-precision angles do to a score
    ablation   variants                            BERT and ModernBERT with either kind of positions
    lengths    gaps_at_lengths, losses_at_lengths  the same hidden tokens filled in ever longer texts
    cost       rotation_cost, encoder_cost         the rotation beside the layer that it stands in

Letters: K head size, S padded length, M masked tokens, T tokens, H heads, D hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.batches import tokenize_corpus
from ..data.masking import IGNORED, mask_tokens
from ..data.prepared import TextData
from ..measure import ablation, memory, plots, speed
from ..model import Block, Encoder, MaskedLM, make_layout
from ..rope import apply_rope, rotary_angles, rotary_tables
from ..runtime import seed_everything
from ..training.pretrain import autocast, train_mlm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..classroom.scale import RopeScale
    from ..config import EncoderConfig

LEARNED, ROTARY = "BERT", "BERT + RoPE"
SHARE = "share of the score at distance 0"


# ---- decay: formulas -------------------------------------------------------------------------------------------------


def expected_score(distances: Tensor, theta: float, head_size: int) -> Tensor:
    """The score of two equal vectors at these distances, as a share of that at distance 0: (N,) -> (N,).

    A pair of length r turned by the angles a and b scores r r cos(a - b). For random vectors with independent entries
    of one variance every pair weighs the same on average, so this is the mean over pairs of cos(distance * frequency).
    """
    return rotary_angles(distances, theta, head_size).cos().mean(dim=-1)


def score_bound(distances: Tensor, theta: float, head_size: int) -> Tensor:
    """The upper bound of RoFormer, section 3.4.3, as a share of its value at distance 0: (N,) -> (N,).

    For any q and k the score is at most a constant times the mean over j of |S_j|, S_j the sum of
    exp(i * distance * frequency) over the first j pairs. The constant depends on q and k, not on the distance.
    """
    angles = rotary_angles(distances, theta, head_size)
    sums = torch.polar(torch.ones_like(angles), angles).cumsum(dim=-1).abs().mean(dim=-1)
    return sums / ((angles.shape[-1] + 1) / 2)


def decay_records(thetas: Sequence[float], head_size: int, longest: int, per_octave: int = 2) -> list[dict]:
    """Both curves for each theta: mean, lowest and highest over the whole distances of each half octave.

    The fast pairs let the score of single distances swing; which of them a plot happens to pick would be chance.
    """
    distances = torch.arange(1, longest)
    bins = (per_octave * distances.log2() + 1e-4).floor().long()
    units = {"expected_score": SHARE, "score_bound": "share of the bound at distance 0"}
    records = []
    for what, curve in {"expected_score": expected_score, "score_bound": score_bound}.items():
        for theta in thetas:
            values = curve(distances, theta, head_size)
            for one in bins.unique().tolist():
                here = values[bins == one]
                middle = distances[bins == one].double().log().mean().exp().item()
                records.append(dict(what=what, model=f"theta {theta:,.0f}", distance=middle, value=here.mean().item(),
                                    low=here.min().item(), high=here.max().item(), unit=units[what],
                                    head_size=head_size))  # fmt: skip
    return records


# ---- rounding --------------------------------------------------------------------------------------------------------


def rounding_errors(dtype: torch.dtype, positions: Sequence[int], theta: float, head_size: int, reach: int) -> list:
    """How wrong scores get where positions and angles are computed in `dtype`: one number for each position.

    For a query at p and keys at p + 1 ... p + reach, all vectors equal: the largest |score - true score|, as a share
    of the score at distance 0. cos, sin and the dot product are exact (float64): only the angles are rounded.
    """
    exponents = torch.arange(0, head_size, 2, dtype=torch.float64) / head_size
    frequencies, distances = theta**-exponents, torch.arange(1, reach + 1, dtype=torch.float64)

    def rounded(at: Tensor) -> Tensor:
        return (at.to(dtype)[..., None] * frequencies.to(dtype)).double()

    query = torch.tensor(positions, dtype=torch.float64)[:, None]
    score = (rounded(query + distances) - rounded(query)).cos().mean(dim=-1)
    truth = (distances[:, None] * frequencies).cos().mean(dim=-1)
    return (score - truth).abs().amax(dim=-1).tolist()


# ---- ablation --------------------------------------------------------------------------------------------------------


def variants(sizes: RopeScale, tokenizer) -> dict[str, list[ablation.Variant]]:
    """{"bert": [BERT, BERT + RoPE], "modernbert": [ModernBERT, learned positions in it]}, parameters matched.

    ModernBERT gets a table of as many rows as BERT has: one of 8,192 would be larger than the rest of a tiny model.
    """
    rows = ablation.end_config("bert", sizes, tokenizer).max_position_embeddings
    learned = dict(positions="learned", max_position_embeddings=rows)
    added = ablation.make_variants([dict(positions="rope")], "bert", sizes, tokenizer)
    taken = ablation.make_variants([learned], "modernbert", sizes, tokenizer)
    return {
        "bert": [added[0], replace(added[1], name=ROTARY)],
        "modernbert": [taken[0], replace(taken[1], name="learned instead")],
    }


# ---- lengths ---------------------------------------------------------------------------------------------------------


def train_for_lengths(
    chosen: Sequence[ablation.Variant], data: TextData, sizes: RopeScale, device: torch.device
) -> tuple[dict[str, MaskedLM], list[dict]]:
    """Train each at the one length of `data` for `sizes.length_steps`: -> ({name: model}, records of the curves)."""
    models, records = {}, [dict(what="unigram_entropy", value=data.unigram_entropy, unit="nats", model="unigram")]
    for variant in chosen:
        seed_everything(sizes.seed)
        model = MaskedLM(variant.config)
        run = train_mlm(
            model, data.train, data.held_out, data.tokenizer, steps=sizes.length_steps, batch_size=sizes.batch_size,
            learning_rate=sizes.rate_of[variant.name], mask_rate=sizes.mask_rate, seed=sizes.seed,
            eval_every=max(1, sizes.length_steps // sizes.evaluations), device=device,
            dtype=getattr(torch, sizes.dtype), label=variant.name,
        )  # fmt: skip
        models[variant.name] = model.eval()
        records += [row for row in run.history if row["what"] == "held_out_loss"]
    return models, records


def gaps_at_lengths(data: TextData, sizes: RopeScale) -> dict[int, list[tuple[Tensor, Tensor]]]:
    """The same hidden tokens in ever longer texts: {length: [(ids (B, S), labels (B, S)), ...]}.

    Held-out text is cut into pieces of the longest length and tokens are hidden once. Cutting these pieces further
    changes how much text stands around a gap, and nothing else: any difference in loss comes from the length.
    """
    tokenizer, room = data.tokenizer, sizes.sequence_length - 2  # [CLS] and [SEP] are added to each piece
    longest = max(sizes.length_factors) * room
    pieces = tokenize_corpus(data.corpus.held_out, tokenizer, longest + 2)
    whole = torch.tensor([ids[1:-1] for ids in pieces if len(ids) == longest + 2][: sizes.length_texts])
    generator = torch.Generator().manual_seed(sizes.seed)
    hidden, labels = mask_tokens(whole, tokenizer, rate=sizes.mask_rate, generator=generator)
    found = {}
    for factor in sizes.length_factors:
        n = factor * room
        ids = F.pad(F.pad(hidden.view(-1, n), (1, 0), value=tokenizer.cls_id), (0, 1), value=tokenizer.sep_id)
        wanted = F.pad(labels.view(-1, n), (1, 1), value=IGNORED)
        rows = max(1, 4 * longest // n)  # equally many tokens at once
        found[n + 2] = list(zip(ids.split(rows), wanted.split(rows), strict=True))
    return found


@torch.inference_mode()
def losses_at_gaps(model: MaskedLM, batches: Sequence[tuple[Tensor, Tensor]], dtype: torch.dtype) -> Tensor:
    """Nats at every hidden token, (M,), in the order of the text."""
    device, losses = next(model.parameters()).device, []
    for ids, labels in batches:
        with autocast(device, dtype):
            logits = model(ids.to(device), labels=labels.to(device)).masked_logits
        losses.append(F.cross_entropy(logits.float(), labels[labels != IGNORED].to(device), reduction="none"))
    return torch.cat(losses).double().cpu()


def losses_at_lengths(
    models: dict[str, MaskedLM], gaps: dict[int, list[tuple[Tensor, Tensor]]], sizes: RopeScale
) -> list[dict]:
    """For each model the mean loss at each length, and at the longest what each stretch of positions adds to it.

    "added_loss" is the loss of a gap in the longest text minus that of the same gap in a piece of the trained length,
    averaged over the gaps of one stretch; "spread" is twice the standard error over gaps.
    """
    records, trained, longest = [], min(gaps), max(gaps)
    labels = torch.cat([labels for _, labels in gaps[longest]])
    stretch = (labels != IGNORED).nonzero()[:, 1].sub(1) // (trained - 2)
    for name, model in models.items():
        losses = {
            length: losses_at_gaps(model, batches, getattr(torch, sizes.dtype)) for length, batches in gaps.items()
        }
        common = dict(model=name, unit="nats", trained_length=trained, seed=sizes.seed, dtype=sizes.dtype)
        records += [
            dict(what="loss_at_length", length=n, value=loss.mean().item(), n=len(loss)) | common
            for n, loss in losses.items()
        ]
        added = losses[longest] - losses[trained]
        for i in stretch.unique().tolist():
            here = added[stretch == i]
            error = 2 * (here.std() / math.sqrt(len(here))).item()
            middle = 1 + (i + 0.5) * (trained - 2)
            records.append(dict(what="added_loss", position=middle, value=here.mean().item(), spread=error) | common)
    return records


# ---- cost ------------------------------------------------------------------------------------------------------------


def rotation_share_of_flops(config: EncoderConfig) -> float:
    """Operations of the rotation over those of a layer's matrices, per token.

    q and k have D numbers each, and a rotated number takes two products and a sum: 6 D. The matrices take two
    operations for each of their weights.
    """
    D, wi = config.hidden_size, config.intermediate_size * (2 if config.mlp == "geglu" else 1)
    return 6 * D / (2 * (4 * D * D + D * wi + config.intermediate_size * D))


def rotation_cost(
    configs: dict[str, EncoderConfig], tokens: int, repeats: int, device: torch.device, dtype: torch.dtype
) -> list[dict]:
    """Seconds of one layer, and of turning q and k alone, on one text of `tokens` tokens; records with both shares."""
    records = []
    for name, config in configs.items():
        config = config.replace(positions="rope")
        block = Block(config, 0).to(device, dtype).eval()
        x_TD = torch.randn(tokens, config.hidden_size, device=device, dtype=dtype)
        layout = make_layout(config, torch.zeros(1, tokens, dtype=torch.long, device=device), None, None)
        tables = rotary_tables(layout.position_ids, config.global_rope_theta, config.head_size)
        qkv = torch.randn(tokens, 3, config.num_attention_heads, config.head_size, device=device, dtype=dtype)
        qk_THK = qkv[:, :2].flatten(1, 2)  # a view into the output of Wqkv, as the model has it
        calls = {
            "one layer": partial(block, x_TD, layout, tables, "auto"),
            "the rotation": partial(apply_rope, qk_THK, *tables),
        }
        with torch.inference_mode():
            times = speed.time_interleaved(calls, device=device, repeats=repeats)
        for part, timing in times.items():
            records.append(dict(what="rotation_seconds", model=name, part=part, value=timing.median, unit="s",
                                spread=timing.spread, n=timing.n, length=tokens,
                                flops_share=rotation_share_of_flops(config)))  # fmt: skip
    return records


def rotation_rows(records: Sequence[dict]) -> list[tuple[str, ...]]:
    """A row for each model of `rotation_cost`: its name, ms of the layer and of the rotation, both shares."""
    seconds = {(r["model"], r["part"]): r["value"] for r in records}
    rows = []
    for name, share in {r["model"]: r["flops_share"] for r in records}.items():
        layer, turning = seconds[name, "one layer"], seconds[name, "the rotation"]
        rows.append((name, f"{1e3 * layer:.2f}", f"{1e3 * turning:.2f}", f"{turning / layer:.1%}", f"{share:.2%}"))
    return rows


def encoder_cost(
    chosen: Sequence[ablation.Variant], lengths: Sequence[int], tokens: int, repeats: int, device: torch.device,
    dtype: torch.dtype,
) -> list[dict]:  # fmt: skip
    """Tokens per second forward, and bytes kept for the backward pass, of encoders that differ in the positions only.

    All have the first one's layers (an equal MLP, so not equally many parameters) and a table long enough. Every
    length is measured on batches of `tokens` tokens.
    """
    base = chosen[0].config.replace(max_position_embeddings=max(lengths))
    encoders = {v.name: Encoder(base.replace(positions=v.config.positions)).to(device, dtype) for v in chosen}
    records = []
    for n in lengths:
        ids = torch.randint(5, base.vocab_size, (max(1, tokens // n), n), device=device)
        with torch.inference_mode():
            calls = {name: partial(encoder, ids) for name, encoder in encoders.items()}
            times = speed.time_interleaved(calls, device=device, repeats=repeats)
        for name, encoder in encoders.items():
            facts = dict(model=name, length=n, dtype=str(dtype).removeprefix("torch."))
            rate, spread = (
                f(times[name], ids.numel()) for f in (speed.tokens_per_second, speed.tokens_per_second_spread)
            )
            kept = memory.bytes_saved_for_backward(partial(encoder, ids), exclude=[*encoder.parameters(), ids])
            records += [
                dict(what="forward_tokens_per_second", value=rate, spread=spread, unit="tokens/s", n=repeats) | facts,
                dict(what="train_memory_bytes", value=kept, unit="bytes", how="kept for the backward pass") | facts,
            ]
    return records


# ---- figures ---------------------------------------------------------------------------------------------------------


@plots.style()
def plot_decay(records: Sequence[dict]) -> Figure:
    """Both decay curves against distance, one line for each theta."""
    figure = plots.new_figure(11, 4)
    figure.subplots_adjust(left=0.07, right=0.89, top=0.88, bottom=0.2, wspace=0.45)
    titles = {"expected_score": "Equal vectors: expected score", "score_bound": "Any vectors: RoFormer's bound"}
    for ax, (what, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        chosen = [r for r in records if r["what"] == what]
        _curves(ax, chosen, "distance")
        for model in plots.model_names(chosen):
            mine = [r for r in chosen if r["model"] == model]
            edges = ([r[name] for r in mine] for name in ("distance", "low", "high"))
            ax.fill_between(*edges, color=plots.style_of(chosen, model)["color"], alpha=0.12, linewidth=0)
        ax.axhline(0, color=plots.FAINT, linewidth=0.8)
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(plots.plain_number)
        ax.set(xlabel="distance between query and key (tokens), log scale", ylabel=chosen[0]["unit"], title=title)
    sizes = plots.distinct(records, "head_size")
    words = f"by formula, head size {sizes}: nothing is measured; lines: mean of half an octave, bands: its range"
    figure.text(0.01, 0.01, words, fontsize=7.5, color=plots.FAINT)
    return figure


@plots.style()
def plot_lengths(records: Sequence[dict]) -> Figure:
    """The loss at each length, and by position in the longest text what the length adds to the loss of a gap."""
    by_length, added = ([r for r in records if r["what"] == what] for what in ("loss_at_length", "added_loss"))
    trained = by_length[0]["trained_length"]
    figure = plots.new_figure(12, 4.4)
    figure.subplots_adjust(left=0.07, right=0.89, top=0.88, bottom=0.2, wspace=0.45)
    left, right = figure.subplots(1, 2)
    _curves(left, by_length, "length")
    lengths = sorted({r["length"] for r in by_length})
    plots.octaves(left, lengths, "length of the text (tokens), log scale")
    left.set(ylabel="held-out loss (nats)", title="The same gaps in longer texts")
    plots.unigram_line(left, records, [r["value"] for r in by_length])
    right.axhline(0, color=plots.FAINT, linewidth=0.8)
    _curves(right, added, "position", errors=True)
    right.set(xlabel=f"position in the text of {max(lengths):,} tokens", ylabel="loss added by the length (nats)")
    right.set_title("By position, against a text of the trained length")
    for ax in (left, right):
        ax.axvline(trained, color="black", linewidth=0.9, linestyle=(0, (4, 3)))
        ax.annotate(f" trained: {trained}", (trained, 0.3), xycoords=("data", "axes fraction"), fontsize=8)
    return plots.finish(figure, by_length, own=True)


@plots.style()
def plot_cost(records: Sequence[dict]) -> Figure:
    """Speed and memory against length."""
    figure = plots.new_figure(12, 4.4)
    figure.subplots_adjust(left=0.07, right=0.89, top=0.88, bottom=0.22, wspace=0.5)
    left, right = figure.subplots(1, 2)
    plots.plot_speed(records, log=False, ax=left)
    plots.plot_memory(records, log=False, ax=right)
    right.set(title="Memory: kept for the backward pass", ylabel="kept by the encoder (MiB)")
    shown = [r for r in records if r["what"] in ("forward_tokens_per_second", "train_memory_bytes")]
    return plots.finish(figure, shown, own=True)


@plots.style()
def plot_turning(q_K: Tensor, k_K: Tensor, theta: float, reach: int, *, position: int, distance: int) -> Figure:
    """The pairs of q at `position` and k `distance` tokens further on as arrows, and the score over the distance."""
    turned = apply_rope(torch.stack([q_K, k_K])[:, None], *rotary_tables(
        torch.tensor([position, position + distance]), theta, len(q_K)))[:, 0].double()  # fmt: skip
    pairs = torch.complex(*turned.chunk(2, dim=-1))  # (2, K/2)
    scores = scores_by_distance(q_K, k_K, theta, reach)
    figure = plots.new_figure(12, 3.4)
    circles = figure.add_gridspec(1, pairs.shape[1], left=0.01, right=0.6, top=0.76, bottom=0.17, wspace=0.1)
    for i, (q, k) in enumerate(zip(*pairs.tolist(), strict=True)):
        _arrows(figure.add_subplot(circles[0, i]), q, k, i, math.tau * theta ** (2 * i / len(q_K)))
    ax = figure.add_axes((0.67, 0.17, 0.31, 0.59))
    ax.plot(range(-reach, reach + 1), scores, color=plots.MORE_STYLES[3]["color"], linewidth=1.5)
    score = (turned[0] @ turned[1]).item()
    ax.plot(distance, score, "o", color="black", markersize=7)
    ax.set(xlabel="distance: key's position minus query's (tokens)", ylabel="score")
    ax.set_title(f"score here: {score:+.3f}")
    words = f"q (solid) at position {position:,}, k (dashed) at position {position + distance:,}: distance {distance:,}"
    figure.suptitle(f"{words}; theta {theta:,.0f}")
    return figure


def scores_by_distance(q_K: Tensor, k_K: Tensor, theta: float, reach: int) -> list[float]:
    """The score of q and of k that stands -reach ... reach tokens further on."""
    positions = torch.arange(2 * reach + 1)
    keys = apply_rope(k_K.expand(len(positions), 1, -1), *rotary_tables(positions, theta, len(k_K)))[:, 0]
    query = apply_rope(q_K[None, None], *rotary_tables(torch.tensor([reach]), theta, len(q_K)))[0, 0]
    return (keys @ query).tolist()


def _arrows(ax: Axes, q: complex, k: complex, pair: int, turn: float) -> None:
    longest = 1.15 * max(abs(q), abs(k))
    for end, look, line in zip((q, k), plots.MORE_STYLES, ("-", "--"), strict=False):
        ax.plot([0, end.real], [0, end.imag], color=look["color"], linestyle=line, linewidth=2)
        ax.plot(end.real, end.imag, "o", color=look["color"])
    ax.add_patch(_circle(longest))
    ax.set_xlim(-1.1 * longest, 1.1 * longest)
    ax.set_ylim(-1.1 * longest, 1.1 * longest)
    ax.set_aspect("equal")
    ax.axis("off")
    ax.set_title(f"pair {pair}: one turn\nin {turn:,.0f} tokens")


def _circle(radius: float):
    from matplotlib.patches import Circle

    return Circle((0, 0), radius, fill=False, color="#bbbbbb", linewidth=0.8)


def _curves(ax: Axes, records: Sequence[dict], x: str, errors: bool = False) -> None:
    """One line for each model, named where it ends."""
    ends = []
    for model in plots.model_names(records):
        mine = sorted((r for r in records if r["model"] == model), key=lambda r: r[x])
        xs, ys = [r[x] for r in mine], [r["value"] for r in mine]
        bars = [r["spread"] for r in mine] if errors else None
        ax.errorbar(xs, ys, yerr=bars, label=model, **plots.line_style(records, model) | plots.BARS)
        ends.append((model, xs[-1], ys[-1]))
    plots.label_ends(ax, records, ends)


FIGURES = {"04_rope_distance": plot_decay, "04_rope_lengths": plot_lengths, "04_rope_cost": plot_cost}
