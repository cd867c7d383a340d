"""What 09_context_extension measures: counts against brute force, cuts of texts, intervals, needles, figures drawn."""

import dataclasses
import math

import pytest
import torch

from modernbert_edu import InputError, MaskedLM
from modernbert_edu.classroom.scale import SCALES
from modernbert_edu.data import prepare
from modernbert_edu.data.masking import IGNORED
from modernbert_edu.lessons import extension as lesson
from modernbert_edu.measure.plots import png_bytes
from modernbert_edu.rope import rotary_angles
from modernbert_edu.runtime import provenance

SIZES = dataclasses.replace(
    SCALES["quick"].extension,
    vocab_size=320, tokenizer_characters=50_000, corpus_characters=None, sequence_length=32, held_out_sequences=6,
    batch_size=4, steps=3, long_length=128, long_steps=2, long_seeds=(0, 1), test_length=200, test_texts=5, probe=32,
    near=32, position_bins=3, needle_hidden=16, needle_heads=1, needle_length=32, needle_steps=3, needle_batch=4,
    needle_pairs=4, needle_long_length=64, needle_long_steps=2, needle_distances=(8, 40), needle_test_length=96,
    needle_test_texts=5, needle_test_pairs=3, cost_lengths=(64, 128), timing_budget=0.1,
)  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(12):
        words = (f"word {j} of document {i} says that every token counts\n" for j in range(40 + 5 * i))
        (folder / f"{i}.txt").write_text("".join(words))
    return prepare(SIZES, str(folder))


@pytest.fixture(scope="module")
def texts(data):
    return lesson.long_texts(data.corpus.train, data.tokenizer, SIZES.test_length, SIZES.test_texts)


# ---- turns -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("theta", "length"), [(1e4, 1024), (1e4, 8192), (16e4, 8192), (100.0, 64)])
def test_slow_pairs_are_those_whose_angle_stays_below_a_turn(theta, length):
    angles = rotary_angles(torch.tensor([length]), theta, 64)[0]
    assert lesson.unturned(theta, 64, length) == int((angles < math.tau).sum())
    assert lesson.turn_length(3, theta, 64) == pytest.approx(length * math.tau / angles[3].item(), rel=1e-4)


@pytest.mark.parametrize(("theta", "length"), [(1e4, 8192), (16e4, 8192), (5e5, 8192), (16e4, 2048), (1e4, 1024)])
def test_unseen_counts_the_pairs_that_point_where_they_never_pointed(theta, length):
    """By brute force: the directions, in 100 sectors, at every whole distance to either side, old against new."""

    def sectors(one, n):
        angles = rotary_angles(torch.arange(1 - n, n).double(), one, 64).double()
        return [set(column.tolist()) for column in (angles.remainder(math.tau) * 100 / math.tau).int().T]

    slow = range(12, 32)  # they move less than a sector from token to token; faster ones come round many times
    old, new = sectors(1e4, 1024), sectors(theta, length)
    assert lesson.unseen(theta, length, 1e4, 1024, 64) == sum(len(new[i] - old[i]) > 2 for i in slow)


def test_the_trap_is_one_and_springs_open_for_longer_texts():
    rotary = lesson.CachedRotary(1e4, 8)
    old = rotary(16)[0].clone()
    rotary.theta = 16e4
    assert torch.equal(rotary(16)[0], old) and torch.equal(rotary(4)[0], old[:4])
    assert not torch.allclose(rotary(17)[0][:16], old)


# ---- texts, probes, contexts -----------------------------------------------------------------------------------------


def test_long_texts_take_one_of_every_document_before_a_second_of_any(data):
    many = lesson.long_texts(data.corpus.train, data.tokenizer, 200, 1000)
    documents = many.document_N.tolist()
    first = len(set(documents))
    assert len(set(documents[:first])) == first < len(documents)
    assert many.ids_NS.shape == (len(documents), 200)
    assert (many.ids_NS[:, 0] == data.tokenizer.cls_id).all() and (many.ids_NS[:, -1] == data.tokenizer.sep_id).all()
    with pytest.raises(InputError, match="no two documents of 100,000 tokens"):
        lesson.long_texts(data.corpus.train, data.tokenizer, 100_000, 4)


def test_only_the_probe_is_hidden_and_the_context_stays_clear(data, texts):
    hidden, labels = lesson.hide(texts.ids_NS, data.tokenizer, 0.15, 0, last=32)
    asked = labels != IGNORED
    assert int(asked.sum()) == round(0.15 * 32 * len(labels)) and not asked[:, :-33].any() and not asked[:, -1].any()
    assert torch.equal(hidden[~asked], texts.ids_NS[~asked]) and torch.equal(labels[asked], texts.ids_NS[asked])
    everywhere = lesson.hide(texts.ids_NS, data.tokenizer, 0.15, 0)[1] != IGNORED
    assert everywhere[:, 1:50].any() and not everywhere[:, [0, -1]].any()


def test_a_context_is_the_end_of_the_text_and_asks_for_the_same_tokens(data, texts):
    hidden, labels = lesson.hide(texts.ids_NS, data.tokenizer, 0.15, 0, last=32)
    for context in (16, 100, 166):
        cut = lesson.with_context(hidden, context, 32)
        assert cut.shape[1] == 1 + context + 32 + 1 and torch.equal(cut[:, 1:], hidden[:, -(context + 33) :])
        assert torch.equal(cut[:, 0], hidden[:, 0])
        assert torch.equal(
            lesson.with_context(labels, context, 32)[lesson.with_context(labels, context, 32) != IGNORED],
            labels[labels != IGNORED],
        )
    assert torch.equal(lesson.with_context(hidden, 166, 32), hidden)


def test_the_contexts_end_with_the_whole_text():
    for scale in SCALES.values():
        sizes = scale.extension
        assert list(sizes.contexts) == sorted(set(sizes.contexts))
        assert sizes.contexts[-1] == sizes.test_length - sizes.probe - 2 and sizes.near in sizes.contexts
        assert sizes.near == sizes.sequence_length  # what lies beyond is far for a model after phase one
        assert max(sizes.needle_distances) + sizes.needle_test_pairs <= sizes.needle_test_length


def test_a_strangers_far_part_comes_from_another_document_and_the_rest_is_ones_own(texts):
    mixed = lesson.with_strangers(texts, texts.ids_NS, near=32, probe=32)
    border = 200 - 1 - 32 - 32
    assert torch.equal(mixed[:, border:], texts.ids_NS[:, border:]) and torch.equal(mixed[:, 0], texts.ids_NS[:, 0])
    for row, document in zip(mixed, texts.document_N, strict=True):
        lenders = texts.document_N[(texts.ids_NS[:, 1:border] == row[1:border]).all(dim=1)]
        assert len(lenders) and not (lenders == document).any()


def test_losses_are_those_of_the_model_text_by_text(data, texts):
    model = MaskedLM(lesson.EncoderConfig.preset("modernbert-tiny", vocab_size=320, hidden_size=32)).eval()
    hidden, labels = lesson.hide(texts.ids_NS, data.tokenizer, 0.15, 0)
    losses = lesson.losses_at(model, hidden, labels, torch.float32, tokens=400)
    with torch.no_grad():
        alone = [model(ids[None], labels=wanted[None]).loss for ids, wanted in zip(hidden, labels, strict=True)]
    counts = (labels != IGNORED).sum(dim=1).tolist()
    assert [part.mean().item() for part in losses.split(counts)] == pytest.approx([x.item() for x in alone], rel=1e-5)


def test_the_interval_is_over_documents():
    document = torch.tensor([3, 3, 3, 3, 7, 7])
    one = lesson.mean_interval(torch.tensor([1.0, 1, 1, 1, 4, 4]).double(), document)
    assert (one["value"], one["low"], one["high"]) == (2.0, 1.0, 4.0) and (one["n"], one["documents"]) == (6, 2)
    many = torch.randn(4000, generator=torch.Generator().manual_seed(0)).double()
    apart, alike = (lesson.mean_interval(many, d) for d in (torch.arange(4000), torch.arange(4000) // 40))
    half = (apart["high"] - apart["low"]) / 2
    assert half == pytest.approx(1.96 / math.sqrt(4000), rel=0.1)
    assert (alike["high"] - alike["low"]) / 2 == pytest.approx(half, rel=0.35)  # independent tokens: no difference
    same = torch.randn(100, generator=torch.Generator().manual_seed(0)).double().repeat_interleave(40)
    assert lesson.mean_interval(same, torch.arange(4000) // 40)["high"] - same.mean() > 4 * half  # alike: much wider


def test_words_follow_the_interval():
    assert lesson.in_words(dict(low=0.1, high=0.2), "more", "less") == "more"
    assert lesson.in_words(dict(low=-0.2, high=-0.1), "more", "less") == "less"
    assert "no difference can be told" in lesson.in_words(dict(low=-0.1, high=0.2), "more", "less")


# ---- training --------------------------------------------------------------------------------------------------------


def test_every_step_of_every_phase_has_as_many_tokens():
    for scale in SCALES.values():
        sizes = scale.extension
        one = lesson.recipe_of("modernbert", sizes, sizes.sequence_length)
        two = lesson.recipe_of("modernbert-context", sizes, sizes.long_length)
        assert one.tokens_per_step == two.tokens_per_step == sizes.batch_size * sizes.sequence_length
        assert one.tokens_per_step % sizes.long_length == 0
        assert one.decay_tokens == 0 < one.warmup_tokens and two.warmup_tokens == 0 < two.decay_tokens
        assert two.learning_rate == pytest.approx(0.375 * one.learning_rate)


@pytest.fixture(scope="module")
def trained(data):
    return lesson.train_phases(data, SIZES, CPU)


def test_the_continuations_begin_with_the_same_weights_and_differ_in_length_and_theta(trained):
    models, records = trained
    assert {name: len(found) for name, found in models.items()} == dict(zip(lesson.NAMES, (1, 1, 2, 2, 2), strict=True))
    facts = {
        name: (found[0].config.max_position_embeddings, found[0].config.global_rope_theta)
        for name, found in models.items()
    }
    assert list(facts.values()) == [(32, 1e4), (128, 16e4), (32, 1e4), (128, 1e4), (128, 16e4)]
    before, only = (models[name][0].state_dict() for name in (lesson.BEFORE, lesson.THETA_ONLY))
    assert all(torch.equal(before[name], only[name]) for name in before)
    moved = [models[name][i].state_dict() for name in (lesson.SHORT, lesson.KEPT, lesson.CHANGED) for i in range(2)]
    weights = [state["encoder.layers.0.attn.Wqkv.weight"] for state in (before, *moved)]
    assert all(not torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])
    steps = {name: sum(r["what"] == "train_loss" and r["model"] == name for r in records) for name in lesson.NAMES}
    assert steps == dict(zip(lesson.NAMES, (3, 0, 4, 4, 4), strict=True))


def test_the_optimizer_goes_on_where_phase_one_left_it(data, monkeypatch):
    """All ways are given phase one's moments, and none finds them changed by the way before."""
    given, real = [], lesson.pretrain

    def watched(model, recipe, texts, **options):
        state = options.get("optimizer_state")
        given.append(state and {name: moment.clone() for name, moment in state.items()})
        return real(model, recipe, texts, **options)

    monkeypatch.setattr(lesson, "pretrain", watched)
    lesson.train_phases(data, SIZES, CPU)
    first, *ways = given
    assert first is None and len(ways) == 6 and any(name.endswith("exp_avg_sq") for name in ways[0])
    assert all(torch.equal(way[name], moment) for way in ways for name, moment in ways[0].items())


def test_context_and_position_are_measured_on_the_same_tokens(trained, texts, data):
    models, _ = trained
    records = lesson.measure_context(models, texts, data.tokenizer, SIZES)
    by = {(r["what"], r["model"], r["context"]): r for r in records}
    whole, near = SIZES.contexts[-1], 32
    for name in lesson.NAMES:
        gain = by["loss_by_context", name, near]["value"] - by["loss_by_context", name, whole]["value"]
        assert by["context_gain", name, near]["value"] == pytest.approx(gain, abs=1e-9)
    for c in SIZES.contexts:
        kept, changed = (by["loss_by_context", name, c]["value"] for name in (lesson.KEPT, lesson.CHANGED))
        assert by["theta_gain", lesson.CHANGED, c]["value"] == pytest.approx(kept - changed, abs=1e-9)
    places = lesson.measure_positions(models, texts, data.tokenizer, SIZES)
    everywhere = places[-1]
    assert sum(everywhere["by_seed"]) / 2 == pytest.approx(everywhere["value"], abs=1e-9)
    for name in lesson.NAMES:
        mine = [r for r in places if r["what"] == "loss_by_position" and r["model"] == name]
        assert sum(r["n"] for r in mine) == everywhere["n"] and len(mine) == SIZES.position_bins


# ---- needles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [None, 1, 7, 60])
def test_a_needle_is_told_once_and_asked_for_once_at_the_distance(distance):
    generator = torch.Generator().manual_seed(0)
    ids, labels = lesson.needles(20, 64, 4, SIZES, generator, distance)
    K, V = SIZES.needle_keys, SIZES.needle_values
    for row, wanted in zip(ids, labels, strict=True):
        asked = (wanted != IGNORED).nonzero().flatten()
        assert 1 <= len(asked) <= 4 and len(asked) == int((row < K).sum())
        if distance != 60:  # four places at distance 60 of 64 tokens exclude no other either
            assert len(asked) >= 3
        for place in asked.tolist():
            told = (row == wanted[place]).nonzero().flatten().tolist()
            assert len(told) == 1 and row[told[0]] == wanted[place]
            assert (wanted[place] - K) // V == row[place]  # of the same key
            assert distance is None or place - told[0] == distance
    assert int(ids.max()) < lesson.needle_vocabulary(SIZES) and int((ids >= K * (1 + V)).sum()) > ids.numel() // 2


@pytest.mark.parametrize(("length", "pairs", "distance"), [(16, 9, None), (16, 3, 14), (500, 17, 8)])
def test_needles_that_do_not_fit_are_refused(length, pairs, distance):
    with pytest.raises(InputError, match=f"{pairs} needles at distance {distance} do not fit"):
        lesson.needles(1, length, pairs, SIZES, torch.Generator(), distance)


def test_local_layers_alone_reach_as_far_as_their_windows_add_up():
    assert lesson.reach("L", 2, 401) == 128 and lesson.reach("GLL", 3, 401) == 200


def test_a_model_that_looks_the_needle_up_finds_it():
    """The measure itself, on a stand-in for a model that copies the told token of the key that it is asked for."""
    K, V = SIZES.needle_keys, SIZES.needle_values

    class Finder(MaskedLM):
        def forward(self, ids, labels=None):
            logits = torch.zeros(*ids.shape, lesson.needle_vocabulary(SIZES))
            for row, place in (labels != IGNORED).nonzero().tolist():
                of_key = (
                    (ids[row] >= K) & (ids[row] < K * (1 + V)) & ((ids[row] - K) // V == ids[row, place])
                ).nonzero()
                logits[row, place, ids[row, of_key.flatten()[0]]] = 1
            return type("Output", (), dict(masked_logits=logits[labels != IGNORED]))

    model = Finder(lesson.EncoderConfig.preset("modernbert-tiny", vocab_size=192, hidden_size=32))
    found = [r for r in lesson.measure_needles({"finder": model}, SIZES) if r["what"] == "needle_accuracy"]
    assert [r["value"] for r in found] == [1.0, 1.0] and [r["distance"] for r in found] == [8, 40]


# ---- cost and figures ------------------------------------------------------------------------------------------------


def test_both_models_of_the_cost_have_equal_parameters_with_berts_own_table():
    configs = lesson.cost_configs(SIZES)
    bert = configs["BERT"].replace(max_position_embeddings=512)
    assert configs["ModernBERT"].num_parameters() == pytest.approx(bert.num_parameters(), rel=0.005)
    assert {c.max_position_embeddings for c in configs.values()} == {128}


def test_every_figure_and_table_is_drawn_from_records(trained, texts, data):
    models, records = trained
    records = records + lesson.measure_context(models, texts, data.tokenizer, SIZES)
    records += lesson.measure_positions(models, texts, data.tokenizer, SIZES)
    finders, curve = lesson.train_needles(SIZES, CPU)
    assert [sum(r["model"] == name for r in curve) for name in (lesson.BEFORE, lesson.KEPT, lesson.CHANGED)] == [
        3,
        2,
        2,
    ]
    assert finders[lesson.LOCAL_ONLY].config.layer_types == "LLLL"
    records += lesson.measure_needles(finders, SIZES) + lesson.measure_cost(SIZES, CPU)
    facts = provenance(CPU, dtype=SIZES.dtype)
    for plot in lesson.FIGURES.values():
        assert png_bytes(plot([facts | record for record in records])).startswith(b"\x89PNG")
    assert png_bytes(lesson.plot_turns(16e4, 8192)).startswith(b"\x89PNG")
    assert [row[0] for row in lesson.context_rows(records)] == list(lesson.NAMES)
    assert len(lesson.context_rows(records)[0]) == len(lesson.CONTEXT_COLUMNS)
    assert [row[0] for row in lesson.theta_rows(records)] == [f"{c:,}" for c in SIZES.contexts]
    rows, columns = lesson.needle_rows(records)
    assert columns == ["model", "8", "40"] and len(rows) == 5
    assert [len(row) for row in lesson.cost_rows(records)] == [len(lesson.COST_COLUMNS)] * 2
