"""What 07_unpadding measures: counts against brute force, the ways of training against each other, figures drawn."""

import dataclasses
from itertools import pairwise

import pytest
import torch

from modernbert_edu import InputError, pack
from modernbert_edu.attention import attention_mask
from modernbert_edu.classroom.scale import SCALES
from modernbert_edu.data import prepare
from modernbert_edu.lessons import unpadding as lesson
from modernbert_edu.measure.plots import png_bytes
from modernbert_edu.model import MaskedLM
from modernbert_edu.runtime import provenance

SIZES = dataclasses.replace(
    SCALES["quick"].unpadding,
    vocab_size=320, tokenizer_characters=50_000, corpus_characters=None, sequence_length=64, held_out_sequences=6,
    batch_size=4, timed_batches=2, packed_documents=40, budget_multiples=(1, 2), best_fit_counts=(20, 40), steps=4,
    evaluations=2,
)  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(8):
        parts = [f"paragraph {j} of document {i} " + "says that every token counts " * (j % 9) for j in range(30)]
        (folder / f"{i}.txt").write_text("\n\n".join(parts))
    return prepare(SIZES, str(folder))


@pytest.fixture(scope="module")
def sequences(data):
    return lesson.paragraphs(data.corpus.train["text"], data.tokenizer, SIZES.sequence_length)


# ---- lengths ---------------------------------------------------------------------------------------------------------


def test_lengths_are_drawn_in_bounds_and_again_the_same():
    drawn = lesson.draw_lengths(256, 64, 4000, 512)
    assert drawn == lesson.draw_lengths(256, 64, 4000, 512)
    assert abs(sum(drawn) / 4000 - 256) < 5 and min(lesson.draw_lengths(20, 64, 500, 128)) == 16
    assert max(lesson.draw_lengths(100, 64, 500, 128)) == 128


def test_paragraphs_are_cut_at_the_longest_and_lose_nothing(data, sequences):
    assert max(map(len, sequences)) <= SIZES.sequence_length
    text = "\n\n".join(
        ["one two three four five six seven eight nine " * 40, "", "much shorter, but no less a paragraph"]
    )
    whole = data.tokenizer.encode(text.split("\n\n")[0], add_special_tokens=False)
    pieces = lesson.paragraphs([text], data.tokenizer, 64)
    assert [token for piece in pieces[:-1] for token in piece[1:-1]] == whole[: sum(len(p) - 2 for p in pieces[:-1])]


def test_pads_are_counted_as_the_rectangle_has_them():
    lengths, batch = [5, 2, 9, 1, 3], 2
    groups = [lengths[:2], lengths[2:4], lengths[4:]]
    pads = sum(max(group) - n for group in groups for n in group)
    places = sum(max(group) for group in groups for _ in group)
    assert lesson.share_of_pads(lengths, batch) == pytest.approx(pads / places)
    assert lesson.share_of_pads([7] * 6, 4) == 0


# ---- packing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_first_fit_takes_the_earliest_row_that_has_room(seed):
    lengths = lesson.draw_lengths(40, 30, 60, 100, seed)
    rows = lesson.first_fit(lengths, 120)
    assert sorted(document for row in rows for document in row) == list(range(60))
    for number, row in enumerate(rows):
        for document in row:  # when it came, no earlier row had room
            for before in rows[:number]:
                used = sum(lengths[d] for d in before if d < document)
                assert used + lengths[document] > 120
    assert all(sum(lengths[d] for d in row) <= 120 for row in rows)


def test_a_document_above_the_budget_is_refused():
    with pytest.raises(InputError, match="30 tokens, more than the budget of 20"):
        lesson.first_fit([4, 30], 20)


@pytest.mark.parametrize("seed", range(5))
def test_a_stream_is_full_and_whole_and_its_cuts_are_at_the_borders(seed):
    lengths = lesson.draw_lengths(60, 40, 30, 200, seed)
    rows = lesson.shuffled_stream(lengths, 100, seed)
    assert all(sum(tokens for _, tokens in row) == 100 for row in rows[:-1])
    whole = [0] * len(lengths)
    for document, tokens in (piece for row in rows for piece in row):
        whole[document] += tokens
    assert whole == lengths
    across = {a[-1][0] for a, b in pairwise(rows) if a[-1][0] == b[0][0]}
    assert lesson.cut_documents(rows) == across and across


def test_what_is_recorded_of_packing_is_what_the_rows_hold():
    lengths = lesson.draw_lengths(32, 8, SIZES.packed_documents, 64)
    records = lesson.measure_packing({"drawn": lengths}, SIZES)
    one = next(r for r in records if r["model"] == "first fit" and r["multiple"] == 1)
    assert one["value"] == pytest.approx(sum(lengths) / (64 * len(lesson.first_fit(lengths, 64))))
    stream = next(r for r in records if r["model"] == "shuffled stream" and r["multiple"] == 2)
    assert stream["value"] == pytest.approx(sum(lengths) / (128 * -(-sum(lengths) // 128)))
    assert len(lesson.packing_rows(records)) == 2


# ---- batches and their cost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", lesson.WAYS)
def test_every_way_computes_each_sequence_once(way, sequences):
    batches = lesson.group(way, sequences[:20], 4)
    assert sorted(one for batch in batches for one in batch) == sorted(sequences[:20])
    if way == "packed":
        mean = sum(map(len, sequences[:20])) / 20
        budget = max(max(map(len, sequences[:20])), round(4 * mean))
        assert max(sum(map(len, batch)) for batch in batches) <= budget


def test_cost_counts_places_by_the_definition(data):
    lengths = [20, 40, 30, 64, 16, 16, 60, 33]
    records = lesson.measure_cost({"uneven": lengths}, data, SIZES, CPU)
    places = {r["model"]: r["places"] for r in records}
    assert places["unpadded"] == places["packed"] == sum(lengths)
    assert places["padded"] == 4 * 64 + 4 * 60
    assert places["sorted"] == 4 * 30 + 4 * 64
    kept = {r["model"]: r["value"] for r in records if r["what"] == "kept_bytes_per_token"}
    assert kept["unpadded"] < kept["padded"] < kept["unpadded"] * places["padded"] / sum(lengths) * 1.01
    (row,) = lesson.cost_rows(records)
    assert row[:3] == ("uneven", f"{1 - 279 / 496:.0%}", f"{496 / 279:.2f}")


# ---- the leak --------------------------------------------------------------------------------------------------------


def test_the_naive_layout_keeps_positions_and_forgets_borders():
    _, layout = pack([[1, 2, 3], [4, 5]])
    attention_mask(layout)
    naive = lesson.one_document(layout)
    assert naive.position_ids.tolist() == [0, 1, 2, 0, 1] and naive.cu_seqlens.tolist() == [0, 5]
    assert attention_mask(naive).all() and not attention_mask(layout).all()
    assert naive.plans is not layout.plans and naive.max_seqlen == 5


def test_apart_is_the_loss_of_each_document_alone(data, sequences):
    model = MaskedLM(lesson.config_of("packed", SIZES, data.tokenizer))
    apart, mixed = lesson.measure_leak(model, sequences[:7], data.tokenizer, SIZES, CPU)
    generator, total, count = torch.Generator().manual_seed(SIZES.seed), 0.0, 0
    for batch in lesson.group("packed", sequences[:7], SIZES.batch_size):
        inputs = lesson.model_inputs("packed", batch, data.tokenizer, SIZES.mask_rate, generator, CPU)
        lengths = inputs["layout"].lengths
        for ids, labels in zip(inputs["input_ids"].split(lengths), inputs["labels"].split(lengths), strict=True):
            chosen = int((labels != -100).sum())
            if chosen:
                total += model(ids, labels=labels).loss.item() * chosen
                count += chosen
    assert apart["value"] == pytest.approx(total / count, rel=1e-5)
    assert mixed["value"] != apart["value"]


# ---- training and figures --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(data, sequences):
    return lesson.train_ways(sequences, sequences[:6], data, SIZES, CPU)


def test_training_padded_and_unpadded_is_the_same_and_packed_is_even(trained, sequences):
    records, model = trained
    loss = {way: [r["value"] for r in records if r["what"] == "train_loss" and r["model"] == way]
            for way in ("padded", "unpadded", "packed")}  # fmt: skip
    assert loss["padded"] == pytest.approx(loss["unpadded"], rel=1e-4)
    assert {len(steps) for steps in loss.values()} == {SIZES.steps}
    real = [r["real_tokens"] for r in records if r["what"] == "train_loss" and r["model"] == "packed"]
    assert max(real) <= SIZES.batch_size * max(map(len, sequences))
    assert model.config.unpad and [row[0] for row in lesson.training_rows(records)] == ["padded", "unpadded", "packed"]


def test_every_figure_is_drawn_from_records(data, sequences, trained):
    lengths = list(map(len, sequences))
    records, model = trained
    records = records + lesson.measure_cost({"equal": [32] * 8, "real": lengths[:8]}, data, SIZES, CPU)
    records += lesson.measure_packing({"real": lengths[:40]}, SIZES) + lesson.measure_best_fit(SIZES)
    facts = provenance(CPU, dtype=SIZES.dtype)
    for plot in lesson.FIGURES.values():
        assert png_bytes(plot([facts | record for record in records])).startswith(b"\x89PNG")
    pictures = [
        lesson.picture_packing(lengths[:20], 128),
        lesson.picture_rectangles({"real": lengths[:8], "equal": [9] * 8}, 4),
        lesson.picture_leak(model, *sequences[:3], CPU),
    ]
    assert all(png_bytes(picture).startswith(b"\x89PNG") for picture in pictures)


def test_in_the_picture_of_the_leak_the_first_document_stays_where_it_is(data, sequences):
    model = MaskedLM(lesson.config_of("packed", SIZES, data.tokenizer))
    a = sequences[0]
    naive, apart, *_ = lesson.picture_leak(model, *sequences[:3], CPU).axes[0].lines
    assert max(apart.get_ydata()[: len(a)]) == 0 < min(naive.get_ydata()[: len(a)])
