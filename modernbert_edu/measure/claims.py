"""Published claims about ModernBERT as data: the words, their source, their workload, and the rule that decides.

    published.py    numbers that others printed
    verdicts.py     one function a claim: records of a device -> verdict, ratios, and the records used
    here            CLAIMS, and `judge`: a GPU's records before a CPU's
    claims_report.py    the page

No measured number stands in these files. A claim that no record can decide is "not measured here", with the command.
"Ours" is this package's ModernBERT.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import verdicts
from .evidence import Device
from .published import BLOG, CIRCULATION, PAPER, PAPER_LONG, PAPER_TABLE, glue_cost_in_words, paper_ratio, paper_row
from .verdicts import (
    CLOSE,
    COMPILED,
    FASTER,
    FIFTH,
    FULL,
    KEPT_SPEED,
    LONG,
    PACKED,
    PACKED_SOME,
    UNMEASURED,
    UNPADDED_ONCE,
    VOCABULARY_GAIN,
    WITHIN,
    Finding,
)


@dataclass(frozen=True)
class Claim:
    """A claim as published, and how to decide on it. `decide` takes a device; nothing where `basis` is not measured."""

    id: str
    title: str
    published: str
    source: str
    workload: str  # the published one
    paper: str  # what the paper itself says
    rule: str
    decide: Callable[..., Finding | None]
    command: str  # what measures it
    basis: str = "measured"  # or "arithmetic", "quoted"
    gpu_only: bool = False  # made of GPUs: another device can only say how it is there


# ---- the claims ------------------------------------------------------------------------------------------------------

RTX = "RTX 4090, inference, base size, 8,192 random texts"
RECORD = "python -m modernbert_edu record --part "
BENCH_512 = "python -m modernbert_edu bench --only inference --lengths 512 --minutes 12 --figures figures"

CLAIMS = (
    Claim(
        id="speed-deberta",
        title="2 to 4 times as fast as DeBERTaV3",
        published="twice as fast as DeBERTa; in fact up to 4 times where inputs are of mixed length",
        source=BLOG,
        workload=f"{RTX}: 512 tokens each, or N(256, 64)",
        paper=f"{paper_ratio('fixed', 'DeBERTaV3'):.2f} times at fixed 512, {paper_ratio('variable', 'DeBERTaV3'):.1f} "
        "times at variable 512 (table 2); at 8,192 never measured",
        rule=f"holds if ours reads at least {FASTER:g} times as many real tokens a second at 512, both of one length "
        "and of mixed length; in part if in one of the two. Medians decide; in brackets what the spreads allow",
        decide=verdicts.faster_than_deberta,
        command=BENCH_512,
    ),
    Claim(
        id="speed-bert",
        title="slower than BERT on full batches, faster on mixed ones",
        published=f"{paper_ratio('fixed', 'BERT'):.2f} times BERT's speed at fixed 512, "
        f"{paper_ratio('variable', 'BERT'):.2f} times at variable 512",
        source=f"{PAPER}, table 2",
        workload=f"{RTX}: 512 tokens each, or N(256, 64)",
        paper="this is the paper's own table; BERT has 12 layers and 110 M parameters, ModernBERT 22 and 149 M",
        rule="holds if ours is slower than BERT at fixed 512 and faster at variable 512; in part if one is so",
        decide=verdicts.against_bert,
        command=BENCH_512,
    ),
    Claim(
        id="memory-deberta",
        title="less than a fifth of DeBERTa's memory",
        published="uses less than a fifth of DeBERTa's memory",
        source=BLOG,
        workload="RTX 4090, inference at 512: the largest batch that fits",
        paper=f"largest batches {PAPER_TABLE['ModernBERT']['batch']:,} and {PAPER_TABLE['DeBERTaV3']['batch']}: "
        f"{paper_ratio('batch', 'DeBERTaV3'):.1f} times (large: 770 and 134, {770 / 134:.1f}); no bytes are given",
        rule=f"holds if every recorded ratio is at least {FIFTH:g}: the bytes that a further sequence of 512 "
        "adds, which decide the largest batch; on a GPU also the largest batch itself and a training step. In part if "
        "one is",
        decide=verdicts.less_memory_than_deberta,
        command=RECORD + "claims",
    ),
    Claim(
        id="context-8192",
        title="8,192 tokens of context against 512",
        published="a context of 8,192 tokens, where BERT, RoBERTa and DeBERTaV3 were made for 512",
        source=f"{PAPER}, abstract and table 2",
        workload=f"{RTX}: 8,192 tokens each",
        paper=f"{PAPER_LONG} k tokens/s at 8,192, {PAPER_LONG / PAPER_TABLE['ModernBERT']['fixed']:.2f} times the "
        "speed at 512. BERT's and RoBERTa's tables of positions end at 512; DeBERTaV3's positions are relative, its "
        "configuration says 512",
        rule=f"holds if a sequence of 8,192 tokens went through at {KEPT_SPEED:g} or more of the tokens a "
        "second at 512; in part if it went through",
        decide=verdicts.reads_8192,
        command=RECORD + "bench",
    ),
    Claim(
        id="circulating-speed",
        title="1420 / 1630 / 980 / 2400 tokens/s",
        published="BERT 1420, RoBERTa 1630, DeBERTaV3 980, ModernBERT 2400 tokens/s",
        source=CIRCULATION,
        workload="not stated",
        paper=f"in thousands {paper_row('fixed')} at fixed 512, where BERT and RoBERTa are the fastest, and "
        f"{paper_row('variable')} at variable 512 (table 2)",
        rule="no workload is stated, so ratios to BERT are compared. Holds if at fixed or at variable 512 all are "
        f"within {CLOSE:.0%} of the claimed ones and in the claimed order; in part if only the order is not "
        "contradicted beyond the spreads",
        decide=verdicts.circulating_speed,
        command=BENCH_512,
    ),
    Claim(
        id="circulating-memory",
        title="1.2 / 1.5 / 5.8 / 1.1 GB",
        published="BERT 1.2, RoBERTa 1.5, DeBERTaV3 5.8, ModernBERT 1.1 GB",
        source=CIRCULATION,
        workload="not stated",
        paper=f"no bytes at all; largest batches at 512: {paper_row('batch')}",
        rule="no workload is stated, so the batch of 512-token sequences is taken at which BERT's weights and peak "
        f"make 1.2 GB. Holds if there the other three are within {CLOSE:.0%} of their numbers; in part if some are",
        decide=verdicts.circulating_memory,
        command=RECORD + "claims",
    ),
    Claim(
        id="packing-gain",
        title="packing makes it 20 % more efficient",
        published="sequence packing improves efficiency by 20 %",
        source=CIRCULATION,
        workload="not stated",
        paper="packing fills more than 99 % of the places, for steps of equal cost; 10 to 20 % is what its unpadding "
        "gains over other unpadding; packing itself is given no gain in speed",
        rule=f"holds if packed batches train at least {PACKED:g} times as fast as unpadded ones of the same sequences "
        f"with the paper's spread of lengths; in part from {PACKED_SOME:g} on",
        decide=verdicts.packing_gain,
        command=RECORD + "lesson-07",
    ),
    Claim(
        id="packing-full",
        title="packing fills more than 99 %",
        published="a packing efficiency of over 99 %",
        source=f"{PAPER}, section 2.2.1",
        workload="pretraining: greedy best fit into rows of 96 x 1,024 tokens",
        paper="this is the paper's own claim",
        rule=f"holds if best fit fills more than {FULL:.0%} of the places with the paper's spread of lengths, in the "
        "largest recorded rows; in part if only with the longest first",
        decide=verdicts.packing_fullness,
        command=RECORD + "lesson-07",
    ),
    Claim(
        id="unpadding-once",
        title="unpadding once is worth 10 to 20 %",
        published="unpadding before the embedding gains 10 to 20 % over implementations that unpad inside",
        source=f"{PAPER}, section 2",
        workload="training on GPUs with FlashAttention",
        paper="this is the paper's own claim",
        rule=f"holds if ours is at least {UNPADDED_ONCE:g} times as fast as transformers' ModernBERT with the same "
        "kernels, which unpads in every layer, in each recorded case of mixed lengths; in part if in some",
        decide=verdicts.unpadding_once,
        command=RECORD + "bench",
        gpu_only=True,
    ),
    Claim(
        id="compile-gain",
        title="torch.compile is worth 10 %",
        published="compiling gains about 10 % of throughput",
        source=f"{PAPER}, section 2",
        workload="training on H100s",
        paper="this is the paper's own claim",
        rule=f"holds if ours compiled is at least {COMPILED:g} times as fast as ours in every recorded case at 512 and "
        "1,024; in part if in some",
        decide=verdicts.compile_gain,
        command=BENCH_512,
        gpu_only=True,
    ),
    Claim(
        id="alternating",
        title="alternating attention makes long texts cheaper",
        published="full attention in every third layer only, a window of 128 tokens in the others: considerably "
        "faster on long inputs",
        source=f"{PAPER}, section 2, and {BLOG}",
        workload="not stated",
        paper="no table by length; what the formula promises stands with the measurement",
        rule="holds if the whole encoder is faster with every third layer global than with all of them at each "
        f"recorded length from {LONG:,} tokens on; in part if at some",
        decide=verdicts.alternating_saving,
        command=RECORD + "lesson-06",
    ),
    Claim(
        id="vocabulary",
        title="a vocabulary that is a multiple of 64 is faster",
        published="50,368 ids, a multiple of 64, for the best use of a GPU",
        source=f"{PAPER}, section 2",
        workload="not stated; GPUs",
        paper="no number is given",
        rule=f"holds if table sizes that are no multiple of 8 take at least {VOCABULARY_GAIN:.0%} more time a column "
        "than multiples of 64, and more than the same size differs when measured twice; in part if only the latter",
        decide=verdicts.vocabulary_multiple,
        command=RECORD + "lesson-02",
        gpu_only=True,
    ),
    Claim(
        id="masking",
        title="masking 30 % beats masking 15 %",
        published="30 % of the tokens masked, as 15 % has been shown to be too few",
        source=f"{PAPER}, section 2.2.2, after Wettig et al. 2023",
        workload="BERT-like models pretrained in full (Wettig et al.); ModernBERT has no ablation of it",
        paper="adopted, not measured",
        rule="holds if the 95 % interval over seeds of loss at 15 % minus loss at 30 % lies above 0, after equally "
        "many tokens, judged on the same masks; one seed decides nothing",
        decide=verdicts.masking_more,
        command=RECORD + "lesson-08",
    ),
    Claim(
        id="tokens-first",
        title="1.7 T tokens at 1,024",
        published="pretrained on 1.7 trillion tokens at 1,024",
        source=f"{PAPER}, section 2.2.2",
        workload="8 H100s, 194 hours (base)",
        paper="1.719 T (table 3)",
        rule=f"holds if the claimed number is within {WITHIN:.0%} of table 3's",
        decide=verdicts.first_phase,
        command="",
        basis="arithmetic",
    ),
    Claim(
        id="tokens-second",
        title="then 300 million tokens at 8,192",
        published="then 300 million tokens at 8,192",
        source=CIRCULATION,
        workload="8 H100s, 51 hours (base)",
        paper="300 billion: 250 B at a constant rate and 50 B of decay (section 2.2.2)",
        rule=f"holds if the claimed number is within {WITHIN:.0%} of the sum of table 3's two phases",
        decide=verdicts.later_phases,
        command="",
        basis="arithmetic",
    ),
    Claim(
        id="glue-circulating",
        title="GLUE 78.3 / 88.5 / 91.2 / 92.1",
        published="GLUE: BERT 78.3, RoBERTa 88.5, DeBERTaV3 91.2, ModernBERT 92.1",
        source=CIRCULATION,
        workload="not stated",
        paper="base 84.7 / 86.4 / 88.1 / 88.4, large 85.2 / 88.9 / 91.4 / 90.4: at large size DeBERTaV3 is ahead",
        rule="quoted, not re-run: holds if each number is the paper's average for that model at some size; in part if "
        "some are",
        decide=verdicts.circulating_glue,
        command="",
        basis="quoted",
    ),
    Claim(
        id="glue-paper",
        title="GLUE 88.4 (base), ahead of DeBERTaV3-base",
        published="GLUE 88.4 for base against DeBERTaV3's 88.1; 90.4 for large against 91.4",
        source=f"{PAPER}, tables 1 and 5",
        workload="dev sets, best of a sweep over learning rate, weight decay and epochs",
        paper="this is the paper's own claim",
        rule="needs the published weights and a GPU-day: " + glue_cost_in_words(),
        decide=lambda device: None,
        command="python -m modernbert_edu finetune answerdotai/ModernBERT-base --task TASK --out build/glue/TASK",
    ),
)


# ---- judged ----------------------------------------------------------------------------------------------------------


def judge(claim: Claim, found: Sequence[Device]) -> dict:
    """The claim with its verdict and what is behind it, for each device; the first device that can decide does."""
    if claim.basis == "measured":
        findings = [(device, finding) for device in found if (finding := claim.decide(device)) is not None]
    else:
        findings = [(None, claim.decide())]
    about = {name: getattr(claim, name) for name in ("id", "title", "published", "source", "workload", "paper", "rule")}
    measured = [_as_dict(claim, device, finding) for device, finding in findings]
    return about | dict(
        basis=claim.basis if measured else "none",
        verdict=measured[0]["verdict"] if measured else UNMEASURED,
        device=measured[0]["device"] if measured else None,
        findings=measured,
        command=claim.command,
        gpu_only=claim.gpu_only,
    )


def _as_dict(claim: Claim, device: Device | None, finding: Finding) -> dict:
    keep = (
        "place",
        "source",
        "what",
        "model",
        "row",
        "batch",
        "length",
        "value",
        "unit",
        "spread",
        "n",
        "seed",
        "date",
    )
    used = [{name: r[name] for name in keep if r.get(name) is not None} for r in finding.used]
    dates = sorted(r["date"][:10] for r in finding.used if "date" in r)
    caveat = claim.gpu_only and device is not None and not device.is_gpu
    return dict(
        verdict=finding.verdict,
        device=finding.used[0].get("device") if device else None,
        gpu=device.is_gpu if device else None,
        dates=sorted({*dates[:1], *dates[-1:]}),
        said=finding.said + ("; the claim is made of GPUs, and this is none" if caveat else ""),
        workload=finding.workload,
        ratios={
            name: dict(value=r.value, low=r.low, high=r.high if math.isfinite(r.high) else None)
            for name, r in finding.ratios.items()
        },
        measurements=used,
    )
