"""How the records of one device decide on a claim: a function each, from a device to a `Finding`, or to None.

The thresholds stand here as names; the words of each rule, in claims.py, are made from them. Where two models are
compared, both must come from the same run, in which they took turns.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..tasks.glue_paper import NAMES, TABLE_1, TABLE_5
from ..training.recipe import Recipe
from .ablation import paired_differences
from .evidence import Device, Ratio, over, select
from .flops import pairs_in_window
from .published import CIRCULATING, CIRCULATING_EXTENSION, PAPER, PHASES

HOLDS, PARTLY, NOT, UNMEASURED = "holds", "holds in part", "does not hold", "not measured here"
BENCH, MEMORY = "bench-base", "claims-base"
GB = 1e9
ROWS = {"BERT": "bert", "RoBERTa": "roberta", "DeBERTaV3": "deberta", "ModernBERT": "ours"}


@dataclass(frozen=True)
class Finding:
    """What one device's records, or arithmetic on printed numbers, say of a claim."""

    verdict: str
    said: str  # the numbers in words
    workload: str  # ours
    ratios: dict[str, Ratio]
    used: tuple[dict, ...]  # the records, or {"what", "value", "unit", "source"} of printed numbers


def all_or_some(flags: Sequence[bool]) -> str:
    """Holds where all hold, in part where some do."""
    return HOLDS if all(flags) else PARTLY if any(flags) else NOT


# ---- finding records -------------------------------------------------------------------------------------------------


def speed(device: Device, row: str, batch: str, length: int = 512, task: str = "inference") -> dict | None:
    """The record of a row's real tokens a second in a case of `bench`."""
    return device.find(BENCH, what="real_tokens_per_second", task=task, batch=batch, length=length, row=row)


def in_one_run(*records: dict | None) -> bool:
    """Whether all are there and were timed in turns: two runs may have met the machine in different moods."""
    return None not in records and len({r["date"] for r in records}) == 1


def case(record: dict) -> str:
    """The workload of a record of `bench`, in words."""
    kind = "of one length" if record["batch"] == "fixed" else "of mixed length"
    return (
        f"{record['task']}, {record['sequences']} sequence{'s' * (record['sequences'] > 1)} {kind} at "
        f"{record['length']:,} ({record['tokens_in_batch']:,} real tokens), {record['step']}"
    )


def setting(record: dict, cases: Sequence[str]) -> str:
    """Base size, dtype and versions, then the cases."""
    packages = f"torch {record['torch']}, transformers {record['transformers']}"
    return f"base size, random weights, {record['dtype']}, {packages}: " + "; ".join(cases)


def per_sequence(device: Device, row: str) -> tuple[float, float, tuple[dict, ...]] | None:
    """(bytes a further sequence of 512 adds to the peak of a forward pass, bytes of the weights, the records)."""
    peaks = select(device.records(MEMORY), what="inference_peak_bytes", row=row)
    weights = device.find(MEMORY, what="weight_bytes", row=row)
    if len(peaks) < 2 or weights is None:
        return None
    few, many = sorted(peaks, key=lambda r: r["sequences"])[:2]
    slope = (many["value"] - few["value"]) / (many["sequences"] - few["sequences"])
    return slope, weights["value"], (few, many, weights)


# ---- speed -----------------------------------------------------------------------------------------------------------

FASTER = 2.0


def faster_than_deberta(device: Device) -> Finding | None:
    rows = [(b, speed(device, "ours", b), speed(device, "deberta", b)) for b in ("fixed", "variable")]
    if not all(in_one_run(ours, deberta) for _, ours, deberta in rows):
        return None
    ratios = {f"{batch} 512": over(ours, deberta) for batch, ours, deberta in rows}
    said = ", ".join(f"{ratio} times at {name}" for name, ratio in ratios.items())
    verdict = all_or_some([ratio.value >= FASTER for ratio in ratios.values()])
    used = [r for _, *pair in rows for r in pair]
    theirs = [(b, speed(device, "modernbert", b), speed(device, "deberta", b)) for b in ("fixed", "variable")]
    if all(in_one_run(one, deberta) for _, one, deberta in theirs):
        words = " and ".join(f"{over(one, deberta).value:.2f} ({b})" for b, one, deberta in theirs)
        said += f"; transformers' ModernBERT, which computes the pads: {words}"
        used += [one for _, one, _ in theirs]
    long = [speed(device, row, "fixed", 8192) for row in ("ours", "deberta")]
    if in_one_run(*long):
        said += f"; at fixed 8,192, where the paper has no number: {over(*long)}"
        used += long
    return Finding(verdict, said, setting(used[0], [case(ours) for _, ours, _ in rows]), ratios, tuple(used))


def against_bert(device: Device) -> Finding | None:
    rows = [(b, speed(device, "ours", b), speed(device, "bert", b)) for b in ("fixed", "variable")]
    if not all(in_one_run(ours, bert) for _, ours, bert in rows):
        return None
    ratios = {f"{batch} 512": over(ours, bert) for batch, ours, bert in rows}
    flags = [ratios["fixed 512"].value < 1, ratios["variable 512"].value > 1]
    said = ", ".join(f"{ratio} times at {name}" for name, ratio in ratios.items())
    used = tuple(r for _, *pair in rows for r in pair)
    return Finding(all_or_some(flags), said, setting(used[0], [case(ours) for _, ours, _ in rows]), ratios, used)


KEPT_SPEED = 0.75


def reads_8192(device: Device) -> Finding | None:
    long, short = speed(device, "ours", "fixed", 8192), speed(device, "ours", "fixed")
    if long is None or short is None:
        return None
    ratio = over(long, short)
    said = (
        f"{long['value']:,.0f} tokens/s at 8,192, {ratio} times the {short['value']:,.0f} at 512; that it runs, not "
        "what it understands (lesson 09 asks that)"
    )
    said += "" if in_one_run(long, short) else "; from two runs"
    verdict = HOLDS if ratio.value >= KEPT_SPEED else PARTLY
    return Finding(verdict, said, setting(long, [case(long), case(short)]), {"8,192 over 512": ratio}, (long, short))


CLOSE = 0.2


def circulating_speed(device: Device) -> Finding | None:
    flags, ratios, used, words = [], {}, [], []
    for batch in ("fixed", "variable"):
        found = {model: speed(device, row, batch) for model, row in ROWS.items()}
        if not in_one_run(*found.values()):
            return None
        claimed = {model: numbers["tokens"] for model, numbers in CIRCULATING.items()}
        relative = {model: over(r, found["BERT"]) for model, r in found.items() if model != "BERT"}
        close = all(abs(x.value / (claimed[m] / claimed["BERT"]) - 1) <= CLOSE for m, x in relative.items())
        ordered = not any(
            claimed[a] > claimed[b] and over(found[a], found[b]).high < 1 for a in found for b in found if a != b
        )
        flags.append((close, ordered))
        ratios |= {f"{model} / BERT, {batch}": ratio for model, ratio in relative.items()}
        numbers = ", ".join(f"{model} {r['value']:,.0f}" for model, r in found.items())
        words.append(f"{batch} 512: {numbers} tokens/s, the order {'not contradicted' if ordered else 'contradicted'}")
        used += found.values()
    verdict = HOLDS if any(map(all, flags)) else PARTLY if any(ordered for _, ordered in flags) else NOT
    cases = [case(r) for r in used if r["row"] == "ours"]
    return Finding(verdict, "; ".join(words), setting(used[0], cases), ratios, tuple(used))


COMPILED = 1.08


def compile_gain(device: Device) -> Finding | None:
    pairs = [
        (speed(device, "ours compiled", batch, length, task), speed(device, "ours", batch, length, task))
        for task in ("training", "inference") for length in (512, 1024) for batch in ("fixed", "variable")
    ]  # fmt: skip
    pairs = [pair for pair in pairs if in_one_run(*pair)]
    if not pairs:
        return None
    ratios = {f"{fast['task']}, {fast['batch']} {fast['length']:,}": over(fast, slow) for fast, slow in pairs}
    said = "compiled over eager: " + ", ".join(f"{ratio} ({name})" for name, ratio in ratios.items())
    verdict = all_or_some([ratio.value >= COMPILED for ratio in ratios.values()])
    used = tuple(r for pair in pairs for r in pair)
    return Finding(verdict, said, setting(used[0], [case(slow) for _, slow in pairs]), ratios, used)


# ---- memory ----------------------------------------------------------------------------------------------------------

FIFTH = 5.0


def less_memory_than_deberta(device: Device) -> Finding | None:
    ratios, used, cases, said = {}, [], [], []
    mine, other = per_sequence(device, "ours"), per_sequence(device, "deberta")
    if mine and other:
        ratios["a further sequence"] = Ratio.exactly(other[0] / mine[0])
        used += [*mine[2], *other[2]]
        cases.append("forward pass over sequences of 512, peak of what torch allocates, by batch size")
        whole = (other[1] + other[0]) / (mine[1] + mine[0])
        said.append(
            f"a further sequence of 512 takes {other[0] / 1e6:,.1f} MB in DeBERTaV3 and {mine[0] / 1e6:,.1f} MB in "
            f"ours, {other[0] / mine[0]:.2f} times; of one sequence with all weights {whole:.2f} times"
        )
    for what, name in (("largest_batch", "largest batch"), ("train_memory_bytes", "a training step")):
        task = "inference" if what == "largest_batch" else "training"
        pair = [device.find(BENCH, what=what, task=task, batch="fixed", length=512, row=row)
                for row in ("ours", "deberta")]  # fmt: skip
        if in_one_run(*pair) and all(r["value"] > 0 for r in pair):
            ratios[name] = over(*pair) if what == "largest_batch" else over(*reversed(pair))
            said.append(f"{name}: {ratios[name]} times")
            used += pair
            cases.append(case(pair[0]))
    if not ratios:
        return None
    verdict = all_or_some([ratio.value >= FIFTH for ratio in ratios.values()])
    return Finding(verdict, "; ".join(said), setting(used[0], cases), ratios, tuple(used))


def circulating_memory(device: Device) -> Finding | None:
    found = {model: per_sequence(device, row) for model, row in ROWS.items()}
    if not all(found.values()):
        return None
    slope, weights, _ = found["BERT"]
    batch = (CIRCULATING["BERT"]["gb"] * GB - weights) / slope
    totals = {model: (weights + batch * slope) / GB for model, (slope, weights, _) in found.items()}
    ratios = {
        f"{model}, ours / claimed": Ratio.exactly(totals[model] / CIRCULATING[model]["gb"])
        for model in ROWS if model != "BERT"
    }  # fmt: skip
    close = [batch >= 1 and abs(ratio.value - 1) <= CLOSE for ratio in ratios.values()]
    said = f"BERT takes its 1.2 GB at {batch:,.0f} sequences of 512; there the four take " + ", ".join(
        f"{model} {total:.1f}" for model, total in totals.items()
    )
    used = tuple(r for _, _, records in found.values() for r in records)
    cases = ["weights and peak of a forward pass over sequences of 512, the batch chosen so that BERT fits"]
    return Finding(all_or_some(close), said + " GB", setting(used[0], cases), ratios, used)


# ---- packing and unpadding -------------------------------------------------------------------------------------------

LESSON_07 = "07_unpadding"
PACKED, PACKED_SOME = 1.15, 1.05


def packing_gain(device: Device) -> Finding | None:
    records = select(device.records(LESSON_07), what="train_tokens_per_second")
    by = {(r["model"], r["spread_of_lengths"]): r for r in records if "spread_of_lengths" in r}
    packed, unpadded = by.get(("packed", "paper")), by.get(("unpadded", "paper"))
    if packed is None or unpadded is None:
        return None
    ratio = over(packed, unpadded)
    verdict = HOLDS if ratio.value >= PACKED else PARTLY if ratio.value >= PACKED_SOME else NOT
    spreads = [spread for way, spread in by if way == "padded" and ("packed", spread) in by]
    padded = {f"packed / padded, {s} lengths": over(by["packed", s], by["padded", s]) for s in spreads}
    said = (
        f"packing adds {ratio} to unpadding at the paper's lengths; packed against padded, which is unpadding's gain: "
    )
    said += ", ".join(f"{over(by['packed', s], by['padded', s])} ({s}, {by['padded', s]['pads']:.0%} pads)"
                      for s in spreads)  # fmt: skip
    used = (packed, unpadded, *(by[way, s] for s in spreads for way in ("packed", "padded")))
    cases = f"a small ModernBERT, forward and backward, {packed['tokens']:,} real tokens, lengths N(n/2, n/8)"
    workload = f"{packed['dtype']}, torch {packed['torch']}: {cases}"
    return Finding(
        verdict, said, workload, {"packed / unpadded": ratio} | padded, tuple({r["place"]: r for r in used}.values())
    )


FULL = 0.99


def packing_fullness(device: Device) -> Finding | None:
    records = select(device.records(LESSON_07), what="fullness", lengths="the paper's lengths")
    if not records:
        return None
    budget = max(r["budget"] for r in records)
    by = {r["model"]: r for r in records if r["budget"] == budget}
    if not {"best fit", "best fit, longest first"} <= set(by):
        return None
    greedy, sorted_first = by["best fit"], by["best fit, longest first"]
    verdict = HOLDS if greedy["value"] > FULL else PARTLY if sorted_first["value"] > FULL else NOT
    said = f"best fit fills {greedy['value']:.2%} of the places, longest first {sorted_first['value']:.2%}"
    workload = f"{greedy['documents']:,} drawn lengths N(n/2, n/8), rows of {budget:,} tokens, {greedy['multiple']} n"
    exact = {"places filled": Ratio.exactly(greedy["value"])}
    return Finding(verdict, said, workload, exact, (greedy, sorted_first))


UNPADDED_ONCE = 1.10


def unpadding_once(device: Device) -> Finding | None:
    pairs = []
    for task, length in (("inference", 512), ("training", 512), ("training", 1024)):
        best = speed(device, "modernbert best", "variable", length, task)
        if best is None or best["backend"] != "varlen":
            continue  # without the kernels it computes the pads, which is another comparison
        ours = speed(device, "ours compiled" if best["compiled"] else "ours", "variable", length, task)
        if in_one_run(ours, best):
            pairs.append((ours, best))
    if not pairs:
        return None
    ratios = {f"{ours['task']}, variable {ours['length']:,}": over(ours, best) for ours, best in pairs}
    said = ", ".join(f"{ratio} times ({name})" for name, ratio in ratios.items())
    verdict = all_or_some([ratio.value >= UNPADDED_ONCE for ratio in ratios.values()])
    used = tuple(r for pair in pairs for r in pair)
    return Finding(verdict, said, setting(used[0], [case(ours) for ours, _ in pairs]), ratios, used)


# ---- attention, vocabulary, masking ----------------------------------------------------------------------------------

LONG = 1024
LAYERS, GLOBAL, HALF_WINDOW = 22, 8, 64  # of ModernBERT-base, which has 14 local ones


def alternating_saving(device: Device) -> Finding | None:
    whole = select(device.records("06_alternating_attention"), what="forward_tokens_per_second")
    by = {(r["model"], r["length"]): r for r in whole if "layers" in r}
    lengths = sorted(n for model, n in by if model == "G" and ("GLL", n) in by)
    if not any(n >= LONG for n in lengths):
        return None
    ratios = {f"{n:,} tokens": over(by["GLL", n], by["G", n]) for n in lengths}
    verdict = all_or_some([over(by["GLL", n], by["G", n]).value > 1 for n in lengths if n >= LONG])
    said = "encoder with every third layer global, over all global: "
    said += ", ".join(f"{ratio.value:.2f} at {name}" for name, ratio in ratios.items())
    used = [by[model, n] for n in lengths for model in ("GLL", "G")]
    layer = {(r["kind"], r["length"]): r for r in select(device.records(BENCH), what="attention_seconds")}
    both = sorted(n for kind, n in layer if kind == "global" and ("local", n) in layer)
    said += f"; formula for the attention of {LAYERS} layers of base, pairs of tokens: "
    said += ", ".join(f"{n * n * LAYERS / mixed_pairs(n):.2f} at {n:,}" for n in lengths)
    if both:
        said += f"; attention alone, {LAYERS} layers of base size: "
        said += ", ".join(f"{LAYERS * layer['global', n]['value'] / mixed(layer, n):.2f} at {n:,}" for n in both)
        used += [layer[kind, n] for n in both for kind in ("global", "local")]
    first = used[0]
    workload = (
        f"{first['dtype']}, torch {first['torch']}: an encoder of {len(first['layers'])} layers, forward, batches of "
        f"{first['batch_tokens']:,} tokens"
    )
    return Finding(verdict, said, workload, ratios, tuple(used))


def mixed(layer: dict, length: int) -> float:
    """Seconds of base's attention: its global layers and its local ones."""
    return GLOBAL * layer["global", length]["value"] + (LAYERS - GLOBAL) * layer["local", length]["value"]


def mixed_pairs(length: int) -> int:
    """Pairs of a query and a key of base's layers together."""
    return GLOBAL * length * length + (LAYERS - GLOBAL) * pairs_in_window(length, HALF_WINDOW)


VOCABULARY_GAIN = 0.05


def vocabulary_multiple(device: Device) -> Finding | None:
    """As lesson 02 looks at it: time a column of the table, so that a larger table is not taken for a slower one."""
    records = [r for r in select(device.records("02_tokenizer_and_data"), what="decoder_ms") if "offset" in r]
    again = [r["value"] for r in records if r["offset"] == 0]
    aligned, odd = ([r["value"] / (r["vocab_size"] + r["offset"]) for r in records if test(r["offset"])]
                    for test in (lambda o: o % 64 == 0, lambda o: o % 8))  # fmt: skip
    if len(again) < 2 or not odd:
        return None
    middle = [statistics.median(values) for values in (odd, aligned)]
    gain, noise = middle[0] / middle[1] - 1, max(again) / min(again) - 1
    verdict = HOLDS if gain >= max(VOCABULARY_GAIN, noise) else PARTLY if gain > noise else NOT
    said = (
        f"sizes that are no multiple of 8 take {gain:+.1%} time a column against multiples of 64; the same size "
        f"measured twice differs by {noise:.1%}"
    )
    first = records[0]
    workload = (
        f"{first['dtype']}, torch {first['torch']}: product of {first['rows']} rows with a table of "
        f"{first['vocab_size']:,} ids and up to {max(abs(r['offset']) for r in records)} more or fewer, width "
        f"{first['width']}"
    )
    return Finding(
        verdict, said, workload, {"no multiple of 8 / multiple of 64": Ratio.exactly(1 + gain)}, tuple(records)
    )


BASELINE, FEWER = "ModernBERT's recipe", "15 % masked"


def masking_more(device: Device) -> Finding | None:
    records = device.records("08_mlm_pretraining")
    runs = [r for r in select(records, what="held_out_loss", purpose="final") if r["model"] in (BASELINE, FEWER)]
    if {r["model"] for r in runs} != {BASELINE, FEWER}:
        return None
    (d,) = paired_differences(runs, BASELINE)
    if len(d.by_seed) < 2:
        return None  # one seed decides nothing
    last = {(r["model"], r["seed"]): r for r in runs if r["seed"] in d.by_seed}
    said = (
        f"loss with 15 % masked minus loss with 30 %: {d.mean:+.3f} nats [{d.low:+.3f}, {d.high:+.3f}] from "
        f"{len(d.by_seed)} seeds after {max(r['tokens'] for r in last.values()):,} tokens; both judged with 15 % masked"
    )
    first = runs[0]
    workload = f"{first['dtype']}, torch {first['torch']}: a small ModernBERT, each rate at its own best learning rate"
    means = [sum(r["value"] for (m, _), r in last.items() if m == model) for model in (FEWER, BASELINE)]
    ratio = {"loss at 15 % / at 30 %": Ratio.exactly(means[0] / means[1])}
    return Finding(HOLDS if d.low > 0 else NOT, said, workload, ratio, tuple(last.values()))


# ---- by arithmetic and by quotation ----------------------------------------------------------------------------------

WITHIN = 0.02


def printed(what: str, value: float, unit: str, source: str = PAPER) -> dict:
    return dict(what=what, value=value, unit=unit, source=source)


def first_phase() -> Finding:
    recipe = Recipe.preset("modernbert")
    ratio = 1.7e12 / recipe.tokens
    steps = recipe.tokens / recipe.tokens_per_step
    said = (
        f"table 3 says {recipe.tokens / 1e12:.3f} T; {recipe.tokens:,} / {recipe.tokens_per_step:,} tokens a step = "
        f"{steps:,.0f} steps"
    )
    used = (
        printed("tokens of phase one", recipe.tokens, "tokens"),
        printed("a step", recipe.tokens_per_step, "tokens"),
    )
    verdict = HOLDS if abs(ratio - 1) <= WITHIN else NOT
    return Finding(verdict, said, "arithmetic", {"claimed / table 3": Ratio.exactly(ratio)}, used)


def later_phases() -> Finding:
    per_step = Recipe.preset("modernbert-context").tokens_per_step
    total, hours = (sum(numbers) for numbers in zip(*PHASES.values(), strict=True))
    ratio, parts = CIRCULATING_EXTENSION / total, " + ".join(f"{tokens / 1e9:.0f} B" for tokens, _ in PHASES.values())
    said = (
        f"{parts} = {total / 1e9:.0f} B, {1 / ratio:,.0f} times as many. 300 M would be 300,000,000 / {per_step:,} = "
        f"{CIRCULATING_EXTENSION / per_step:.0f} steps; and at the paper's {hours:.1f} hours for both phases, "
        f"{total / hours / 3600 / 1e6:.2f} M tokens/s, they would last {hours * ratio * 60:.1f} minutes"
    )
    used = tuple(printed(name, tokens, "tokens") for name, (tokens, _) in PHASES.items())
    used += (
        *(printed(f"hours, {name}", h, "h") for name, (_, h) in PHASES.items()),
        printed("a step", per_step, "tokens"),
    )
    verdict = HOLDS if abs(ratio - 1) <= WITHIN else NOT
    return Finding(verdict, said, "arithmetic", {"claimed / table 3": Ratio.exactly(ratio)}, used)


def circulating_glue() -> Finding:
    found = {
        model: [size for size in TABLE_1 if abs(TABLE_1[size][model] - numbers["glue"]) < 0.05]
        for model, numbers in CIRCULATING.items()
    }
    modern = CIRCULATING["ModernBERT"]["glue"]
    scores = [(size, task, score) for size in TABLE_5
              for task, score in zip(NAMES.values(), TABLE_5[size]["ModernBERT"], strict=True)]  # fmt: skip
    cells = [f"{size}'s {task}" for size, task, score in scores if score == modern]
    tables = "; ".join(f"{size} " + " / ".join(f"{scores[m]}" for m in CIRCULATING) for size, scores in TABLE_1.items())
    said = (
        f"{sum(map(bool, found.values()))} of the 4 are the paper's averages for that model at any size, which are "
        f"{tables} (quoted, not re-run)"
    )
    if cells:
        said += f"; {modern} is ModernBERT's score on single tasks: {' and '.join(cells)}"
    used = tuple(printed(f"GLUE, {model}-{size}", scores[model], "hundredths", f"{PAPER}, table 1")
                 for size, scores in TABLE_1.items() for model in CIRCULATING)  # fmt: skip
    ratios = {f"{model}, claimed / table 1, {size}": Ratio.exactly(numbers["glue"] / TABLE_1[size][model])
              for model, numbers in CIRCULATING.items() for size in TABLE_1}  # fmt: skip
    return Finding(all_or_some([bool(sizes) for sizes in found.values()]), said, "none: quoted", ratios, used)
