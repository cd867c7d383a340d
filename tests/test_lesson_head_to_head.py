"""What 13_head_to_head measures: against transformers and by hand; its tables and figures, from records."""

import dataclasses
import json
import math

import pytest
import torch

from modernbert_edu.classroom.scale import SCALES
from modernbert_edu.data import prepare
from modernbert_edu.errors import InputError
from modernbert_edu.lessons import head_to_head as lesson
from modernbert_edu.lessons import head_to_head_records as evidence
from modernbert_edu.measure.plots import png_bytes
from modernbert_edu.runtime import provenance

SIZES = dataclasses.replace(
    SCALES["quick"].head_to_head,
    vocab_size=320, tokenizer_characters=20_000, corpus_characters=None, sequence_length=32, held_out_sequences=4,
    batch_size=4, steps=4, evaluations=2, timed_lengths=(16, 64), timed_tokens=64, mixed_sequences=2,
    lengths=(16, 32), deberta_rates=(1e-3, 2e-3),
)  # fmt: skip
CPU = torch.device("cpu")
FACTS = provenance(CPU, dtype=SIZES.dtype)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(8):
        words = [f"line {j} of document {i} says that models race " + "and race " * (j % 5) for j in range(30)]
        (folder / f"{i}.txt").write_text("\n".join(words))
    return prepare(SIZES, str(folder))


@pytest.fixture(scope="module")
def trained(data):
    records, models = lesson.train_models(data, SIZES, CPU)
    return [FACTS | r for r in records + lesson.measure_trained(models, data, SIZES, CPU)]


@pytest.fixture(scope="module")
def cost():
    return [FACTS | r for r in lesson.measure_cost(SIZES, CPU)]


# ---- DeBERTa's attention ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("buckets", "longest"), [(256, 512), (32, 128), (4, 16)])
def test_relative_places_are_transformers(buckets, longest):
    from transformers.models.deberta_v2 import modeling_deberta_v2 as theirs

    x = torch.zeros(1, longest, 2)
    relative = theirs.build_relative_position(x, x, bucket_size=buckets, max_position=longest)[0]
    assert torch.equal(
        lesson.relative_places(longest, buckets, longest), (relative + buckets).clamp(0, 2 * buckets - 1)
    )


@pytest.mark.parametrize(("tokens", "heads"), [(4, 1), (11, 2), (40, 4)])
def test_disentangled_attention_is_transformers(tokens, heads):
    buckets, longest, D = 8, 64, 16
    module = lesson.their_attention(D, heads, buckets, longest, seed=3)
    x, table = torch.randn(1, tokens, D), torch.randn(2 * buckets, D)
    allowed = torch.ones(1, 1, tokens, tokens)
    with torch.inference_mode():
        expected = module(x, allowed, output_attentions=True, rel_embeddings=table)[1][0]

        def split(y):
            return y.unflatten(-1, (heads, -1)).transpose(0, 1)

        q, pq = split(module.query_proj(x[0])), split(module.query_proj(table))
        k, pk = split(module.key_proj(x[0])), split(module.key_proj(table))
        places = lesson.relative_places(tokens, buckets, longest)
        got = lesson.disentangled_scores(q, k, pq, pk, places)
    assert got.shape == (3, heads, tokens, tokens)
    torch.testing.assert_close(got.sum(dim=0).softmax(dim=-1), expected)


# ---- the front -------------------------------------------------------------------------------------------------------


def test_a_point_is_on_the_front_unless_another_beats_it():
    assert lesson.pareto_front([(1, 3), (2, 2), (3, 2), (3, 1), (2, 3)]) == [True, True, False, True, False]
    assert lesson.pareto_front([(1, 1), (1, 1)]) == [True, True]
    assert lesson.pareto_front([(1, 1, 2), (1, 1, 1)]) == [False, True] and lesson.pareto_front([]) == []


# ---- cost ------------------------------------------------------------------------------------------------------------


def test_every_encoder_is_timed_in_every_batch(cost):
    assert len(cost) == 5 * (2 * 3 + len(SIZES.lengths))
    assert all(r["value"] > 0 and math.isfinite(r["value"]) for r in cost)
    assert {r["pads"] > 0 for r in cost if r["batch"] == "mixed"} == {True}
    assert {r["pads"] for r in cost if r["batch"] == "fixed"} == {0}
    assert [row[0] for row in lesson.cost_rows(cost)] == list(lesson.small_encoders(SIZES, CPU))


def test_deberta_keeps_its_scores_for_the_backward_pass_and_bert_does_not(cost):
    found = {(r["model"], r["length"]): r["value"] for r in cost if r["what"] == "train_memory_bytes"}
    layers, heads, n, places = 4, 4, 32, 512
    wide = layers * heads * n * places * 4  # bytes of one product with the whole relative table
    for length in SIZES.lengths:
        assert found[lesson.DEBERTA, length] > 2 * found[lesson.BERT, length]
    assert found[lesson.DEBERTA, n] - found[lesson.BERT, n] > wide


# ---- quality ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_the_three_are_equally_large_at_every_scale(scale, data):
    sizes = scale.head_to_head
    with torch.device("meta"):
        counts = [sum(p.numel() for p in lesson.new_model(name, sizes, data, 0).parameters())
                  for name in lesson.rates_of(sizes)]  # fmt: skip
    assert max(counts) / min(counts) < 1.02


def test_each_model_trains_from_each_seed_at_the_best_of_its_rates(trained):
    assert lesson.summary(trained).keys() == {lesson.BERT, lesson.STYLE, lesson.MODERN}
    losses = [r for r in trained if r["what"] == "held_out_loss"]
    for name, rates in lesson.rates_of(SIZES).items():
        runs = lesson.final_runs(trained, name)
        assert [run[0]["seed"] for run in runs] == list(SIZES.seeds)
        assert {r["learning_rate"] for run in runs for r in run} <= set(rates)
        assert [r["step"] for r in runs[0]] == [0, 2, 4]
        ends = {r["learning_rate"]: r["value"] for r in losses
                if r["model"] == name and r["seed"] == SIZES.seeds[0] and r["step"] == SIZES.steps}  # fmt: skip
        assert runs[0][-1]["learning_rate"] == min(ends, key=ends.get) and len(ends) == len(rates)


def test_the_same_seed_sees_as_many_tokens(trained):
    seen = {}
    for r in trained:
        if r["what"] == "held_out_loss":
            seen.setdefault((r["seed"], r["step"]), set()).add(r["tokens"])
    assert all(len(tokens) == 1 for tokens in seen.values())


def curve(model, seed, *points):
    return [dict(what="held_out_loss", model=model, seed=seed, seconds=s, tokens=100 * i, value=v, purpose="final",
                 step=i, learning_rate=1e-3, parameters=10) for i, (s, v) in enumerate(points)]  # fmt: skip


def made_up():
    records = curve("BERT", 0, (0, 7.0), (2, 6.0)) + curve("BERT", 1, (0, 7.0), (2, 6.2))
    records += curve("ModernBERT", 0, (0, 7.0), (2, 5.0), (4, 4.0)) + curve("ModernBERT", 1, (0, 7.0), (4, 4.4))
    for model, size, speed in (("BERT", 100, 1000), ("ModernBERT", 200, 2000)):
        records.append(dict(what="trained_memory_bytes", model=model, value=size))
        records.append(dict(what="trained_tokens_per_second", model=model, value=speed))
    return records


def test_losses_are_compared_at_equal_tokens_and_at_equal_seconds():
    run = curve("BERT", 0, (0, 7.0), (2, 6.0), (4, 5.5))
    assert lesson.loss_at(run, 1) == 6.5 and lesson.loss_at(run, 4) == 5.5 and lesson.loss_at(run, 5) is None
    found = lesson.summary(made_up())
    assert found["BERT"]["loss"] == pytest.approx(6.1) and found["ModernBERT"]["loss"] == pytest.approx(4.2)
    assert found["ModernBERT"]["early"] == pytest.approx((5.0 + 5.7) / 2) and found["ModernBERT"]["microseconds"] == 500
    assert [row[1] for row in lesson.fronts(made_up())] == ["BERT, ModernBERT", "BERT, ModernBERT", "ModernBERT"]
    entropy = dict(what="unigram_entropy", value=6.2)
    assert lesson.on_plateau([*made_up(), entropy]).endswith("6.20 nats: BERT with seed 1")
    assert lesson.on_plateau([*made_up(), entropy | dict(value=9.0)]).endswith("no run")
    assert lesson.verdicts(made_up()) == ["ModernBERT minus BERT: -1.900 [-2.000, -1.800] nats, lower"]


@pytest.mark.parametrize(
    ("interval", "seeds", "words"),
    [((-2, -1), 2, "lower"), ((1, 2), 2, "higher"), ((-1, 1), 2, "no difference"), ((1, 1), 1, "one seed")],
)
def test_a_verdict_follows_its_interval(interval, seeds, words):
    assert lesson.verdict(*interval, seeds).startswith(words)


# ---- the ladder ------------------------------------------------------------------------------------------------------


def ladder():
    records = []
    rungs = [("BERT", (6.0, 6.2), (1000, 1000), 2**20), ("+ a", (5.0, 5.1), (500, 500), 2**21)]
    rungs += [("ModernBERT", (4.9, 5.2), (400, 400), 2**21)]
    for model, losses, speeds, size in rungs:
        for seed in (0, 1):
            facts = dict(model=model, seed=seed, purpose="final", **FACTS)
            records.append(facts | dict(what="held_out_loss", value=losses[seed]))
            rounds = dict(model=model, what="step_seconds", value=100 / speeds[seed], tokens=100, round=seed)
            records.append(rounds | FACTS)
            records.append(facts | dict(what="train_memory_bytes", value=size))
    return records


def test_shares_of_the_ladder_add_up_and_what_is_not_told_is_said_so():
    steps = lesson.ladder_steps(ladder())
    for what in lesson.LADDER:
        mine = [s for s in steps if s.what == what]
        assert sum(s.mean for s in mine[:-1]) == pytest.approx(mine[-1].mean)
        assert sum(s.share for s in mine[:-1]) == pytest.approx(1)
    rows = {row[0]: row[1:] for row in lesson.ladder_rows(ladder())}
    assert rows["+ a"][:4] == ("-1.050 [-1.100, -1.000]", "100%", "+1000.0", "67%")
    assert rows["ModernBERT"][1] == "not told from 0" and rows["ModernBERT"][4:] == ("+0.0", "not told from 0")
    assert png_bytes(lesson.plot_ladder(ladder())).startswith(b"\x89PNG")


def test_a_ladder_of_one_seed_has_no_shares():
    rows = lesson.ladder_rows([r for r in ladder() if r.get("seed", r.get("round")) == 0])
    assert {cell for row in rows for cell in row[2::2]} == {"-"}


# ---- records of others -----------------------------------------------------------------------------------------------


def speeds(**tokens):
    facts = dict(what="real_tokens_per_second", task="inference", length=512, unit="tokens/s", date="2026-01-01",
                 device="a chip", dtype="float32", torch="2", spread=10)  # fmt: skip
    return [facts | dict(batch=batch, row=row, value=value) for row, pair in tokens.items()
            for batch, value in zip(("fixed", "variable"), pair, strict=True)]  # fmt: skip


def memory(**bytes_of):
    return [r for row, (slope, weights) in bytes_of.items() for r in (
        dict(what="weight_bytes", row=row, value=weights),
        dict(what="inference_peak_bytes", row=row, sequences=2, value=2 * slope),
        dict(what="inference_peak_bytes", row=row, sequences=4, value=4 * slope))]  # fmt: skip


@pytest.fixture
def figures(tmp_path):
    folder = tmp_path / "measurements" / "cpu-a-chip"
    folder.mkdir(parents=True)
    found = dict(bert=(1000, 500), roberta=(995, 505), deberta=(400, 200), ours=(700, 800))
    sizes = dict(bert=(20e6, 400e6), roberta=(20e6, 500e6), deberta=(100e6, 700e6), ours=(16e6, 600e6))
    for name, records in (("bench-base", speeds(**found)), ("claims-base", memory(**sizes))):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return tmp_path


def test_the_prediction_is_answered_by_the_records(figures):
    device = evidence.measured_on(figures)
    assert evidence.measured_on(figures, gpu=True) is None and evidence.provenance_line(device).startswith(
        "recorded on a"
    )
    assert evidence.answers(device) == [
        "fastest on full batches of 512: BERT or RoBERTa",
        "fastest on mixed lengths up to 512: ModernBERT",
        "most memory for a further text: DeBERTaV3, 6.2 times that of ModernBERT, which has least",
    ]
    rows = evidence.base_rows(device)
    assert [row[0] for row in rows] == ["BERT", "RoBERTa", "DeBERTaV3", "ModernBERT (ours)"] and rows[0][2] == "1"
    one, matrices = evidence.score_matrices(device)
    assert one == 12 * 512 * 512 * 4 and matrices["DeBERTaV3"] == pytest.approx(100e6 / one)


def test_losses_and_choices_follow_the_records(figures):
    losses = {row[0]: row for row in evidence.loss_rows(figures)}
    assert losses["full batches of 512"][1:3] == ("700 tokens/s", "BERT 1,000")
    assert losses["full batches of 512"][-1] == losses["weights to store and to load"][-1] == "yes"
    assert losses["code search, trained for seconds"][3] == evidence.NOT_RECORDED
    choices = {row[0]: row[1] for row in evidence.choice_rows(figures)}
    assert choices["speed, all texts about 512 tokens"] == "BERT or RoBERTa"
    assert choices["speed, texts of mixed lengths up to 512"] == "ModernBERT"
    assert choices["large batches in little memory"].startswith("ModernBERT: 16.0 MB")


def test_a_model_that_wins_everywhere_is_not_called_a_loser(figures):
    path = figures / "measurements" / "cpu-a-chip" / "bench-base.jsonl"
    found = speeds(bert=(1000, 500), roberta=(995, 505), deberta=(400, 200), ours=(2000, 2000))
    path.write_text("".join(json.dumps(r) + "\n" for r in found))
    assert {row[0]: row[-1] for row in evidence.loss_rows(figures)}["full batches of 512"] == "no"
    path.unlink()
    assert evidence.measured_on(figures) is None and evidence.loss_rows(figures)[0][3] == evidence.NOT_RECORDED


def test_claims_become_rows(figures):
    ratio = dict(value=0.001, low=0.001, high=0.001)
    claim = dict(id="x", title="a claim", verdict="does not hold", basis="arithmetic", findings=[])
    other = claim | dict(id="y", basis="measured", findings=[dict(ratios={"a / b": ratio}, device="a chip")])
    (figures / "claims.json").write_text(json.dumps([claim, other]))
    assert evidence.claim_rows(evidence.judged_claims(figures)) == [
        ("a claim", "-", "does not hold (arithmetic)"), ("a claim", "a / b: 0.001 (a chip)", "does not hold"),
    ]  # fmt: skip


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_every_figure_is_drawn_from_records(trained, cost):
    entropy = FACTS | dict(what="unigram_entropy", value=5.0, unit="nats", model="unigram", seed=0)
    for plot in lesson.FIGURES.values():
        assert png_bytes(plot([*trained, *cost, entropy])).startswith(b"\x89PNG")
    assert [row[0] for row in lesson.quality_rows(trained)] == list(lesson.rates_of(SIZES))
    scores = torch.randn(3, 4, 4)
    assert png_bytes(lesson.picture_terms(scores, ["a", "b", "c", "d"])).startswith(b"\x89PNG")
    figure = lesson.picture_front([(1, 3), (2, 2), (3, 3)], "abc")
    assert "2 of 3" in figure.axes[0].get_title()


def test_what_an_interval_cannot_tell_is_told_so(tmp_path):
    said = [evidence._behind_by(words) for words in ("lower", "higher", "fewer right", "no difference can be told")]
    assert said == ["yes", "no", "yes", "not told apart"]
    turned = [evidence._behind_by(words, less_is_better=True) for words in ("lower", "higher", "one seed")]
    assert turned == ["no", "yes", "not told apart"]


def test_a_copy_without_any_measurement_says_so(tmp_path):
    assert evidence.measured_on(tmp_path) is None
    quoted = [row for row in evidence.loss_rows(tmp_path) if "arXiv" in row[3]]
    others = [row for row in evidence.loss_rows(tmp_path) if row not in quoted]
    assert len(quoted) == 3 and others and all(evidence.NOT_RECORDED in row for row in others)
    search = next(row for row in evidence.choice_rows(tmp_path) if row[0].startswith("search, with few"))
    assert search[1] == "-" and evidence.NOT_RECORDED in search[2]
    with pytest.raises(InputError, match="claims.json is not there"):
        evidence.judged_claims(tmp_path)
