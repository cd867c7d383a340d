"""The tour: vanilla BERT and ModernBERT of equal size, on the same text, measured side by side.

    data     = prepare(scale, corpus)            text -> tokenizer -> sequences
    models   = build_models(scale, data)         equal parameters, different architecture
    records  = train_both(models, data, ...)     the same sequences, order and masks for both
    records += measure_lengths(...)              speed and memory against sequence length
    records += measure_mixed(...)                ... and on a batch of mixed lengths
    rows     = fill_masks(models, data, ...)     both guess the same hidden words

`run_tour` does all of it; the lesson `00_tour` does it step by step. Every measurement is a record, one JSON line, and
the figures are drawn from the records.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .attention import choose_backend
from .checkpoint import save
from .classroom.scale import TourScale
from .config import EncoderConfig
from .data.batches import pad_batch
from .data.masking import mask_tokens
from .data.prepared import TextData, prepare
from .data.tokenizer import Tokenizer
from .lessons import recorded
from .measure import plots
from .measure.memory import training_memory
from .measure.speed import forward_call, time_interleaved, tokens_per_second, tokens_per_second_spread
from .model import MaskedLM
from .runtime import prepare_output_folder, provenance, write_jsonl
from .training.pretrain import autocast, train_mlm

print_now = partial(print, flush=True)  # a log file should not lag minutes behind
NAMES = {"BERT": "bert", "ModernBERT": "modernbert"}  # what a model is called, and its folder


def configurations(scale: TourScale, tokenizer: Tokenizer) -> dict[str, EncoderConfig]:
    """{"BERT": ..., "ModernBERT": ...}, the second with its MLP sized so that both have equally many parameters."""
    vocabulary = dict(vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_id)
    bert = EncoderConfig.preset(scale.bert_preset, **vocabulary)
    return {"BERT": bert, "ModernBERT": EncoderConfig.preset(scale.modernbert_preset, **vocabulary).matched_to(bert)}


def build_models(configs: dict[str, EncoderConfig], seed: int = 0) -> dict[str, MaskedLM]:
    """A model with random weights for each configuration, each drawn from the same seed."""
    models = {}
    for name, config in configs.items():
        torch.manual_seed(seed)
        models[name] = MaskedLM(config)
    return models


def train_both(
    models: dict[str, MaskedLM],
    data: TextData,
    scale: TourScale,
    device: torch.device,
    after_each: Callable[[str, MaskedLM], object] = lambda name, model: None,
) -> list[dict]:
    """Train the models in place, one after the other, on the same batches with the same masks: -> records.

    The records of this and of the measurements below say what was measured; where and with what is added to them with
    `runtime.provenance` before they are kept or drawn.

    `after_each(name, model)` is called as soon as one is trained, so that it can be saved before the next one starts.
    """
    rates = {"BERT": scale.bert_learning_rate, "ModernBERT": scale.modernbert_learning_rate}
    records = [dict(what="unigram_entropy", value=data.unigram_entropy, unit="nats", model="unigram", seed=scale.seed)]
    for name, model in models.items():
        run = train_mlm(
            model, data.train, data.held_out, data.tokenizer,
            steps=scale.steps, batch_size=scale.batch_size, learning_rate=rates[name], warmup_steps=scale.warmup_steps,
            mask_rate=scale.mask_rate, seed=scale.seed, eval_every=max(1, scale.steps // 10), device=device,
            dtype=getattr(torch, scale.dtype), label=name,
        )  # fmt: skip
        after_each(name, model)
        how = dict(backend=backend_for(model.config, device, scale), learning_rate=rates[name], steps=scale.steps)
        records += [record | how for record in run.history if record["what"] != "train_loss"]
        records.append(dict(what="train_tokens_per_second", value=run.tokens_per_second, unit="tokens/s", model=name,
                            seed=scale.seed, **how))  # fmt: skip
    return records


RATES = (5e-4, 1e-3, 2e-3, 4e-3)


def sweep_rates(
    data: TextData,
    scale: TourScale,
    scale_name: str,
    device: torch.device,
    figures: str | Path = "figures",
    say: Callable[[str], None] = print_now,
) -> list[dict]:
    """Train each model at each of `RATES` for half the steps: where the learning rates of the scale come from.

    The records are kept under `figures`/measurements/<device>/00_tour-rates.jsonl, when all rates have been tried.
    """
    figures = prepare_output_folder(figures)
    configs, steps, records = configurations(scale, data.tokenizer), max(1, scale.steps // 2), []
    facts = provenance(device, dtype=scale.dtype, scale=scale_name, corpus=data.corpus.name,
                       fingerprint=data.corpus.fingerprint)  # fmt: skip
    for rate in RATES:
        one = replace(scale, steps=steps, warmup_steps=max(1, scale.warmup_steps // 2), bert_learning_rate=rate,
                      modernbert_learning_rate=rate)  # fmt: skip
        last = {r["model"]: r for r in train_both(build_models(configs, scale.seed), data, one, device)
                if r["what"] == "held_out_loss"}  # fmt: skip
        records += [{**facts, **last[name]} for name in configs]
        losses = ", ".join(f"{name} {last[name]['value']:.3f} nats" for name in configs)
        say(f"learning rate {rate:g}, {steps:,} steps: {losses}")
    write_jsonl(figures / "measurements" / facts["device_slug"] / "00_tour-rates.jsonl", records)
    return records


def backend_for(config: EncoderConfig, device: torch.device, scale: TourScale, pads: bool = True) -> str:
    """The attention backend that a model gets on a batch with pads; kept pads need one that takes a mask."""
    return choose_backend(
        device, getattr(torch, scale.dtype), kept_pads=pads and not config.unpad, dropout=config.attention_dropout
    )[0]


# ---- speed and memory ------------------------------------------------------------------------------------------------


def measuring_models(configs: dict[str, EncoderConfig], longest: int, device: torch.device) -> dict[str, MaskedLM]:
    """Models with random weights for timing; BERT's position table is made long enough, which costs it no time."""
    longer = {name: c.replace(max_position_embeddings=max(longest, c.max_position_embeddings))
              for name, c in configs.items()}  # fmt: skip
    return {name: model.to(device) for name, model in build_models(longer).items()}


def measure_lengths(configs: dict[str, EncoderConfig], data: TextData, scale: TourScale, device: torch.device):
    """Forward speed and training memory of both models at each length, the tokens of a batch held constant."""
    models = measuring_models(configs, max(scale.lengths), device)
    records = []
    for length in scale.lengths:
        count = max(1, max(scale.lengths) // length)
        padded = pad_batch(real_sequences(data, [length] * count), data.tokenizer.pad_id)
        records += _measure(models, padded, data, scale, device, length=length, batch="fixed", sequences=count)
    return records


def measure_mixed(configs: dict[str, EncoderConfig], data: TextData, scale: TourScale, device: torch.device):
    """The same on one batch whose sequences have different lengths, as real text is: BERT pads, ModernBERT does not."""
    lengths = mixed_lengths(scale)
    models = measuring_models(configs, max(lengths), device)
    padded = pad_batch(real_sequences(data, lengths), data.tokenizer.pad_id)
    share = 1 - sum(lengths) / (len(lengths) * max(lengths))
    return _measure(models, padded, data, scale, device, length=None, batch="mixed", sequences=len(lengths), pads=share)


def mixed_lengths(scale: TourScale) -> list[int]:
    """Lengths from a normal distribution, clamped to 16 ... `max`: how the paper makes its sets of variable length."""
    m = scale.mixed_lengths
    drawn = m.mean + m.std * torch.randn(m.count, generator=torch.Generator().manual_seed(scale.seed))
    return drawn.round().clamp(16, m.max).int().tolist()


def real_sequences(data: TextData, lengths: list[int]) -> list[list[int]]:
    """Sequences of exactly these lengths out of the training text, whose pieces are laid end to end for it."""
    cls_id, sep_id = data.tokenizer.cls_id, data.tokenizer.sep_id
    needed, stream = sum(lengths), []
    while len(stream) < needed:
        for piece in data.train:
            stream += piece[1:-1]
            if len(stream) >= needed:
                break
    sequences, start = [], 0
    for length in lengths:
        sequences.append([cls_id, *stream[start : start + length - 2], sep_id])
        start += length - 2
    return sequences


def _measure(
    models: dict[str, MaskedLM], padded: tuple[Tensor, Tensor], data: TextData, scale: TourScale, device, **where
) -> list[dict]:
    dtype = getattr(torch, scale.dtype)
    input_ids, mask = padded
    masked_ids, labels = mask_tokens(
        input_ids, data.tokenizer, rate=scale.mask_rate, generator=torch.Generator().manual_seed(scale.seed)
    )
    input_ids, mask, masked_ids, labels = (x.to(device) for x in (input_ids, mask, masked_ids, labels))
    tokens = int(mask.sum())
    where |= dict(tokens_in_batch=tokens, seed=scale.seed)
    records = []
    with autocast(device, dtype):
        calls = {name: forward_call(model, input_ids, mask) for name, model in models.items()}
        timings = time_interleaved(calls, device=device, repeats=scale.timing_repeats, budget_seconds=8)
        for name, model in models.items():
            memory = training_memory(model, masked_ids, mask, labels)
            timing = timings[name]
            where["backend"] = backend_for(model.config, device, scale, pads=tokens < mask.numel())
            records.append(dict(what="forward_tokens_per_second", value=tokens_per_second(timing, tokens),
                                unit="tokens/s", spread=tokens_per_second_spread(timing, tokens), n=timing.n,
                                model=name, **where))  # fmt: skip
            records.append(dict(what="train_memory_bytes", value=memory.bytes, unit="bytes", spread=None, n=1,
                                how=memory.how, model=name, **where))  # fmt: skip
    return records


# ---- filling masks ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FilledMask:
    """One hidden token of a held-out text: the context with ____ in its place, the truth, and the models' guesses."""

    context: str
    truth: str
    guesses: dict[str, list[tuple[str, float]]]  # model -> [(token, probability), ...], the likeliest first


@torch.inference_mode()
def fill_masks(
    models: dict[str, MaskedLM], data: TextData, device: torch.device, *, count: int = 6, seed: int = 0, top: int = 3
) -> list[FilledMask]:
    """Hide one whole word in each of `count` held-out sequences and let every model guess it, the rest in sight."""
    tokenizer, generator = data.tokenizer, torch.Generator().manual_seed(seed)
    filled = []
    for i in torch.randperm(len(data.held_out), generator=generator).tolist():
        ids = data.held_out[i]
        words = [at for at in range(8, len(ids) - 8) if is_whole_word(tokenizer, ids[at], ids[at + 1])]
        if not words:
            continue
        at = words[int(torch.randint(len(words), (1,), generator=generator))]
        hidden = torch.tensor([ids[:at] + [tokenizer.mask_id] + ids[at + 1 :]], device=device)
        guesses = {}
        for name, model in models.items():
            probabilities = model.to(device).eval()(hidden).logits[0, at].float().softmax(dim=-1)
            best = probabilities.topk(top)
            likeliest = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            guesses[name] = [(visible(tokenizer, token), probability) for token, probability in likeliest]
        context = tokenizer.decode(ids[max(1, at - 12) : at]) + " ____" + tokenizer.decode(ids[at + 1 : at + 8])
        filled.append(FilledMask(" ".join(context.split()), visible(tokenizer, ids[at]), guesses))
        if len(filled) == count:
            break
    return filled


def is_whole_word(tokenizer: Tokenizer, token: int, following: int) -> bool:
    """Whether the token is a space and at least three letters, and the word ends there: a reader can guess it too."""
    goes_on = re.match(r"[\w']", tokenizer.decode([following]))
    return bool(re.fullmatch(r" [A-Za-z]{3,}", tokenizer.decode([token]))) and not goes_on


def visible(tokenizer: Tokenizer, token: int) -> str:
    """The token's text without the space before it; line ends and runs of spaces are spelled out."""
    text = tokenizer.decode([token], skip_special_tokens=False)
    return text.strip() or text


def fill_table(filled: list[FilledMask]) -> str:
    """The guesses as text: the likeliest of each model, its probability, and a mark where it is right."""
    lines = []
    for row in filled:
        lines.append(f"  ... {row.context} ...   (hidden: {row.truth!r})")
        for name, guesses in row.guesses.items():
            shown = " | ".join(f"{token!r} {p:.0%}" for token, p in guesses)
            mark = "  <- right" if guesses[0][0] == row.truth else ""
            lines.append(f"      {name:<11}{shown}{mark}")
    return "\n".join(lines)


# ---- the whole -------------------------------------------------------------------------------------------------------


def run_tour(
    scale: TourScale,
    scale_name: str,
    *,
    corpus: str = "python",
    out: str | Path = "build/tour",
    figures: str | Path = "figures",
    device: torch.device,
    say: Callable[[str], None] = print_now,
) -> list[dict]:
    """The whole tour: leaves `out`/bert and `out`/modernbert, records and figures, and prints the table: -> records."""
    out, figures = prepare_output_folder(out), prepare_output_folder(figures)
    backend, reason = choose_backend(device, getattr(torch, scale.dtype))
    data = prepare(scale, corpus)
    say(data.corpus.summary())
    say(f"tokenizer: {data.tokenizer.name}, {data.tokenizer.vocab_size:,} ids; attention: {backend}, {reason}")
    configs = configurations(scale, data.tokenizer)
    for name, config in configs.items():
        say(f"{name}: {config.num_parameters():,} parameters, layers {config.layer_types}")

    models = build_models(configs, scale.seed)
    records = train_both(models, data, scale, device, lambda name, m: save(m, data.tokenizer, out / NAMES[name]))
    say("measuring speed and memory ...")
    records += measure_lengths(configs, data, scale, device) + measure_mixed(configs, data, scale, device)
    facts = provenance(device, dtype=scale.dtype, backend=backend, scale=scale_name, corpus=data.corpus.name,
                       fingerprint=data.corpus.fingerprint)  # fmt: skip
    records = [{**facts, **record} for record in records]
    write_jsonl(out / "tour.jsonl", records)
    drawn = keep_and_draw(records, figures)

    say("\nThe same masks filled by both, in text that neither was trained on:")
    say(fill_table(fill_masks(models, data, device, seed=scale.seed)))
    say("\n" + table(records))
    say(f"\nfigures: {', '.join(str(path) for path in drawn)}")
    say(f'models:  {out / "bert"} and {out / "modernbert"}; open one with modernbert_edu.load("{out / "modernbert"}")')
    say("         or transformers.AutoModelForMaskedLM.from_pretrained of the same folder")
    return records


def table(records: list[dict]) -> str:
    """Loss, accuracy, speed and memory of both models, and the unigram entropy to hold the loss against."""

    def last(what: str, model: str, **where) -> float:
        found = [r["value"] for r in records if r["what"] == what and r["model"] == model
                 and all(r.get(k) == v for k, v in where.items())]  # fmt: skip
        return found[-1]

    lengths = sorted({r["length"] for r in records if r.get("batch") == "fixed"})
    rows = [
        ("held-out loss (nats)", "{:.3f}", lambda m: last("held_out_loss", m)),
        ("masked accuracy (%)", "{:.1f}", lambda m: 100 * last("masked_accuracy", m)),
        ("training (tokens/s)", "{:,.0f}", lambda m: last("train_tokens_per_second", m)),
    ]
    for length in lengths:
        rows.append((f"forward at {length:,} (tokens/s)", "{:,.0f}",
                     lambda m, n=length: last("forward_tokens_per_second", m, length=n)))  # fmt: skip
    rows.append(("forward, mixed lengths (tokens/s)", "{:,.0f}",
                 lambda m: last("forward_tokens_per_second", m, batch="mixed")))  # fmt: skip
    for length in lengths[-1:]:
        rows.append((f"training memory at {length:,} (MiB)", "{:,.1f}",
                     lambda m, n=length: last("train_memory_bytes", m, length=n) / 2**20))  # fmt: skip
    rows.append(("training memory, mixed lengths (MiB)", "{:,.1f}",
                 lambda m: last("train_memory_bytes", m, batch="mixed") / 2**20))  # fmt: skip

    names = list(NAMES)
    lines = [f"{'':<38}" + "".join(f"{name:>14}" for name in names)]
    for title, form, value in rows:
        lines.append(f"{title:<38}" + "".join(f"{form.format(value(name)):>14}" for name in names))
    entropy = next(r["value"] for r in records if r["what"] == "unigram_entropy")
    lines.append(f"{'unigram entropy of the text (nats)':<38}{entropy:>14.3f}")
    return "\n".join(lines)


# ---- records and figures ---------------------------------------------------------------------------------------------


def keep_and_draw(records: list[dict], figures: Path) -> list[Path]:
    """Keep the records under figures/measurements/<device>/ and draw the tour's figures from them."""
    first = records[0]
    write_jsonl(figures / "measurements" / first["device_slug"] / f"00_tour-{first['scale']}.jsonl", records)
    return draw(records, figures)


def draw(records: list[dict], figures: Path) -> list[Path]:
    return [
        plots.save(plots.plot_tour(records), figures / "00_tour.png"),
        plots.save(plots.plot_mixed(records), figures / "00_tour_mixed.png"),
    ]


def redraw(figures: str | Path = "figures") -> list[Path]:
    """Draw the tour's figures again from the best measurements that are kept: a GPU's, else a laptop's, else quick."""
    records = recorded("00_tour", figures)
    return draw(records, Path(figures)) if records else []


def with_seed(scale: TourScale, seed: int | None) -> TourScale:
    return scale if seed is None else replace(scale, seed=seed)
