"""What lesson 02 measures: the counts against counting by hand, the formulas against the tensors, the figures drawn."""

import textwrap
from dataclasses import replace

import pytest
import torch
from matplotlib.figure import Figure

from modernbert_edu.classroom.scale import SCALES
from modernbert_edu.config import EncoderConfig
from modernbert_edu.data import train_bpe, train_wordpiece
from modernbert_edu.errors import InputError
from modernbert_edu.lessons import tokenizer as lab
from modernbert_edu.model import MaskedLM

TEXTS = ["def count(items):\n    total = 0\n    for item in items:\n        total += item\n    return total\n" * 20,
         "The count is the number of items that are in the list, and the list is given. " * 20]  # fmt: skip
SIZES = replace(
    SCALES["quick"].tokenizer, vocab_size=384, decoder_rows=8, decoder_width=16, aligned=128, offsets=(-64, -1, 0, 8),
    decoder_sizes=(64, 128), padding_batches=(1, 2, 4), padding_limits=(8, 32), steps=2, warmup_steps=1, evaluations=1,
    batch_size=2, seeds=(0,),
)  # fmt: skip
CPU = torch.device("cpu")
FACTS = dict(device="a machine", torch="x", dtype="float32")


@pytest.fixture(scope="module")
def bpe():
    with pytest.warns(UserWarning):
        return train_bpe(TEXTS, 384)


@pytest.fixture(scope="module")
def wordpiece():
    with pytest.warns(UserWarning):
        return train_wordpiece(TEXTS, 384)


def make_side(name, tokenizer, passages):
    train = tokenizer.encode_batch(TEXTS[1].split(". ")[:8])
    return lab.Side(name, tokenizer, train, passages, sum(map(len, passages)), 3.0)


def test_prose_is_docstrings_and_pages_and_code_the_rest():
    module = textwrap.dedent('''
        """About the module."""
        x = "not a docstring"

        class A:
            """About the class,
            in two lines."""

            def f(self):
                """One more."""
                return 1  # stays
    ''')
    split = {"source": ["a.py", "broken.py", "pydoc_data.topics:if"], "text": [module, "def (", "The if statement"]}
    found = lab.prose_and_code(split)
    assert set(found["prose"]) == {
        "About the module.", "About the class,\nin two lines.", "One more.", "The if statement"
    }  # fmt: skip
    (code,) = found["code"]
    assert '"""' not in code and "return 1  # stays" in code and "not a docstring" in code


def test_counts_are_those_made_by_hand(bpe, wordpiece):
    text = "if total:\n        return 0\n\n"
    rows = lab.count_tokens(bpe, {"code": [text]}) + lab.count_tokens(wordpiece, {"code": [text]})
    tokens = bpe.tokens(text)
    assert " " * 8 in tokens
    alone = len(tokens) + 7  # eight spaces for one
    layout = sum(not token.strip(" \u0120\u010a") for token in tokens)
    for name, n in {lab.BPE: len(tokens), lab.ALONE: alone, lab.SHOWN: len(tokens) - layout,
                    lab.WORDPIECE: len(wordpiece.tokens(text))}.items():  # fmt: skip
        for unit, many in {"word": 4, "line": 2, "character": len(text)}.items():
            assert lab.value_of(rows, f"tokens_per_{unit}", model=name, text="code") == n / many
    with pytest.raises(InputError, match="measure it first"):
        lab.value_of(rows, "tokens_per_page")


def test_round_trip_counts_exact_lines(bpe, wordpiece):
    texts = {"prose": ["the list\n\n  The list, given\n"]}
    assert lab.round_trip(bpe, texts)[0]["value"] == 1
    assert lab.round_trip(wordpiece, texts)[0]["value"] == 0.5


def test_padding_share_is_the_share_of_pads_in_the_rectangles():
    lengths = [5, 1, 7, 3, 3, 2, 9]
    for batch_size in range(1, 9):
        for by_length in (False, True):
            order = sorted(lengths) if by_length else lengths
            pads = places = 0
            for start in range(0, len(order), batch_size):
                rectangle = torch.nn.utils.rnn.pad_sequence(
                    [torch.ones(n) for n in order[start : start + batch_size]], batch_first=True
                )
                pads, places = pads + int((rectangle == 0).sum()), places + rectangle.numel()
            assert lab.padding_share(lengths, batch_size, by_length) == pytest.approx(pads / places)


def test_memory_of_table_and_logits_follows_the_formula():
    rows = lab.decoder_cost(SIZES, CPU)
    for V in SIZES.decoder_sizes:
        assert lab.value_of(rows, "table_bytes", vocab_size=V) == 4 * 4 * V * SIZES.decoder_width
        kept = lab.value_of(rows, "logits_bytes", vocab_size=V)
        assert 4 * SIZES.decoder_rows * V <= kept <= 4 * SIZES.decoder_rows * V + 64


def test_alignment_is_judged_against_the_noise():
    def row(offset, value, again=False, spread=0.01):
        return dict(what="decoder_ms", value=value * (128 + offset) / 128, spread=spread, offset=offset, again=again,
                    vocab_size=128)  # fmt: skip

    rows = [row(0, 1.0), row(0, 1.02, again=True), row(-64, 1.0), row(8, 1.0), row(-1, 1.5), row(1, 1.5)]
    found = lab.alignment(rows)
    assert found.effect == pytest.approx(0.5) and found.noise == pytest.approx(0.02) and found.shows
    assert not lab.alignment([row(0, 1.0), row(0, 1.3, again=True), row(-64, 1.0), row(1, 1.1)]).shows


def test_passages_are_whole_lines_of_the_text_within_the_limit():
    found = lab.passages(TEXTS[:1], 100, 5)
    assert len(found) == 5 and all(50 < len(passage) <= 100 and passage in TEXTS[0] for passage in found)
    assert found == lab.passages(TEXTS[:1], 100, 5)


def test_folding_keeps_the_words():
    text = "If  X is\tNone:\n    return  X\n"
    assert lab.fold(text) == "if x is none: return x"
    assert len(lab.fold(text).split()) == len(text.split())


def test_hiding_words_hides_all_their_tokens_and_no_others(bpe, wordpiece):
    passage = "    return total, given\nitems"
    for tokenizer in (bpe, wordpiece):
        ids, labels = lab.hide_words(tokenizer, passage, {1})
        original = tokenizer.encode(passage)
        hidden = [label for label in labels if label != -100]
        assert tokenizer.decode(hidden).replace(" ", "") == "total,"
        assert [i for i, label in zip(ids, labels, strict=True) if label != -100] == [tokenizer.mask_id] * len(hidden)
        assert [a if b == -100 else b for a, b in zip(ids, labels, strict=True)] == original


def test_the_loss_on_hidden_words_is_the_sum_over_their_tokens(bpe):
    side = make_side(lab.BPE, bpe, ["the list is given and the count", "items that are in the list"])
    torch.manual_seed(0)
    config = EncoderConfig.preset("modernbert-tiny", vocab_size=bpe.vocab_size, pad_token_id=bpe.pad_id)
    model = MaskedLM(config).eval()
    total = characters = 0
    chosen = lab.choose_words(side.passages, SIZES.mask_rate, SIZES.seed)
    for passage, words in zip(side.passages, chosen, strict=True):
        ids, labels = (torch.tensor(row) for row in lab.hide_words(bpe, passage, words))
        with torch.inference_mode():
            logits = model(ids[None]).logits[0]
        at = labels != -100
        total += torch.nn.functional.cross_entropy(logits[at], labels[at], reduction="sum").item()
        characters += sum(len(passage.split()[number]) for number in words)
    assert lab.hidden_words_loss(model, side, SIZES, CPU) == pytest.approx(total / characters, rel=1e-4)


def test_a_side_is_trained_and_scored_and_every_figure_drawn(bpe, wordpiece):
    passages = lab.passages(TEXTS, 100, 6)
    sides = [make_side(lab.WORDPIECE, wordpiece, passages), make_side(lab.BPE, bpe, passages)]
    rows = lab.unigram_records(sides) + lab.compare(sides, SIZES, CPU)
    for side in sides:
        per_token, per_character = (
            lab.value_of(rows, what, model=side.name) for what in ("nats_per_token", "nats_per_character")
        )
        tokens = sum(len(side.tokenizer.encode(p, add_special_tokens=False)) for p in passages)
        assert per_character == pytest.approx(per_token * tokens / sum(map(len, passages)))
    for tokenizer in (bpe, wordpiece):
        rows += lab.count_tokens(tokenizer, {"prose": TEXTS[1:], "code": TEXTS[:1]})
    rows += lab.time_around(SIZES, CPU) + lab.decoder_cost(SIZES, CPU) + lab.measure_padding([3, 9, 4, 30, 7], SIZES)
    rows = [FACTS | row for row in rows]
    for draw in lab.FIGURES.values():
        figure = draw(rows)
        assert isinstance(figure, Figure)
        assert all(ax.get_xlabel() or ax.get_title() for ax in figure.axes)
        assert any("measured on a machine" in text.get_text() for text in figure.texts)
