"""Next-sentence prediction: what a pair is, half and half, never the same document; the head is BERT's."""

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import TINY_BERT, batch, randomise

from modernbert_edu import EncoderConfig, InputError, MaskedLM, from_transformers, to_transformers
from modernbert_edu.training.nsp import MIN_SEGMENT, NextSentenceHead, PretrainingModel, sentence_pairs
from modernbert_edu.unpadding import pack

TOKENIZER = SimpleNamespace(cls_id=1, sep_id=2)
STRIDE = 1_000_000  # token j of document i is (i + 1) * STRIDE + j, so every token says where it is from


def make_documents(lengths):
    return [[(i + 1) * STRIDE + j for j in range(length)] for i, length in enumerate(lengths)]


def segments(pair):
    """(A, B) without the special tokens, after checking that the special tokens and the types are where they belong."""
    ids, types = pair.input_ids, pair.token_type_ids
    assert len(ids) == len(types) and ids[0] == 1 and ids[-1] == 2 and ids.count(1) == 1 and ids.count(2) == 2
    middle = ids.index(2)
    assert types == [0] * (middle + 1) + [1] * (len(ids) - middle - 1)
    return ids[1:middle], ids[middle + 1 : -1]


def is_span(segment):
    return segment == list(range(segment[0], segment[0] + len(segment)))


def check(documents, length, seed=0):
    pairs = sentence_pairs(documents, length, TOKENIZER, np.random.default_rng(seed))
    for pair in pairs:
        a, b = segments(pair)
        assert len(pair.input_ids) <= length and min(len(a), len(b)) >= MIN_SEGMENT
        assert is_span(a) and is_span(b)
        if pair.is_next:
            assert b[0] == a[-1] + 1
        else:
            assert a[0] // STRIDE != b[0] // STRIDE
    true = sum(pair.is_next for pair in pairs)
    assert abs(true - (len(pairs) - true)) <= 1
    return pairs


def test_half_follow_and_half_come_from_another_document():
    pairs = check(make_documents([5_000, 3_000, 80, 2_000, 6]), 64)
    assert len(pairs) > 200
    lengths = [len(pair.input_ids) for pair in pairs]
    assert 0.8 < sum(length == 64 for length in lengths) / len(pairs) < 0.97 and min(lengths) < 40
    cuts = [len(segments(pair)[0]) for pair in pairs]
    assert min(cuts) < 10 and max(cuts) > 50 and 25 < np.mean(cuts) < 36  # A is of every size
    drawn = Counter(segments(pair)[1][0] // STRIDE - 1 for pair in pairs if not pair.is_next)
    assert drawn[0] > drawn[3] > drawn[2]  # as often as they have tokens


@pytest.mark.parametrize("size", [150, 300, 900])
def test_length_does_not_give_the_answer_away(size):
    """Near a document's end pairs are shorter: as often with the true B as with a random one."""
    pairs = check(make_documents([size] * (300_000 // size)), 128)
    true, false = ([len(p.input_ids) for p in pairs if p.is_next is which] for which in (True, False))
    spread = math.sqrt(np.var(true) / len(true) + np.var(false) / len(false))
    assert abs(np.mean(true) - np.mean(false)) < 3 * spread < 4


def test_no_text_is_left_out_but_short_tails_and_the_surplus_of_one_kind():
    documents = make_documents([5_000, 41, 7, 3])
    seen = set()
    pairs = check(documents, 32)
    for pair in pairs:
        a, b = segments(pair)
        seen |= set(a) | (set(b) if pair.is_next else set())
    lost = [token for ids in documents[:2] for token in ids if token not in seen]
    assert len(lost) < 0.1 * 5_041  # of some 230 throws of a coin
    assert not seen & set(documents[2] + documents[3])  # too short for two segments


def test_a_short_document_serves_as_a_random_b_only():
    pairs = check(make_documents([4_000, 2 * MIN_SEGMENT - 1, MIN_SEGMENT - 1]), 24)
    drawn = {segments(pair)[1][0] // STRIDE for pair in pairs if not pair.is_next}
    assert drawn == {2}  # the only other one with enough tokens


@settings(max_examples=60)
@given(st.lists(st.integers(0, 120), min_size=2, max_size=8), st.integers(11, 70), st.integers(0, 3))
def test_pairs_are_right_for_any_documents(lengths, length, seed):
    enough = sum(n >= MIN_SEGMENT for n in lengths) >= 2 and max(lengths) >= 2 * MIN_SEGMENT
    documents = make_documents(lengths)
    if enough:
        assert check(documents, length, seed)
    else:
        with pytest.raises(InputError):
            sentence_pairs(documents, length, TOKENIZER, seed)


def test_the_seed_decides():
    documents = make_documents([300, 400, 500])
    first, again, other = (sentence_pairs(documents, 40, TOKENIZER, seed) for seed in (3, 3, 4))
    assert first == again == sentence_pairs(documents, 40, TOKENIZER, np.random.default_rng(3)) != other


@pytest.mark.parametrize(
    ("lengths", "length", "words"),
    [
        ([100, 100], 10, "length is 10.*needs 11 or more"),
        ([100], 64, "two of 4 tokens or more; there are 1"),
        ([100, 3, 0], 64, "two of 4 tokens or more; there are 1"),
        ([], 64, "there are 0"),
        ([7, 6], 64, "no document has 8 tokens"),
    ],
)
def test_what_cannot_be_paired_is_said(lengths, length, words):
    with pytest.raises(InputError, match=words) as caught:
        sentence_pairs(make_documents(lengths), length, TOKENIZER, 0)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------ the head


def bert_pair(seed=0):
    """transformers' BertForPreTraining with random weights, and ours with the same."""
    from transformers import BertConfig, BertForPreTraining

    config = BertConfig(**TINY_BERT, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    theirs = randomise(BertForPreTraining(config), seed)
    ours = PretrainingModel(from_transformers(theirs))
    weights = theirs.state_dict()
    names = {"pooler": "bert.pooler.dense", "seq_relationship": "cls.seq_relationship"}
    ours.next_sentence.load_state_dict(
        {f"{mine}.{part}": weights[f"{name}.{part}"] for mine, name in names.items() for part in ("weight", "bias")}
    )
    return theirs, ours.eval()


def pair_batch(lengths=(40, 17, 33, 9), seed=0):
    input_ids, attention_mask, labels = batch(lengths, TINY_BERT["vocab_size"], seed)
    token_type_ids = torch.stack([(torch.arange(max(lengths)) >= n // 2).long() for n in lengths]) * attention_mask
    return input_ids, attention_mask, labels, token_type_ids, torch.tensor([0, 1, 1, 0])


def test_losses_and_gradients_equal_those_of_transformers():
    theirs, ours = bert_pair()
    input_ids, attention_mask, labels, types, next_labels = pair_batch()
    expected = theirs(input_ids, attention_mask, types, labels=labels, next_sentence_label=next_labels)
    output = ours(input_ids, attention_mask, labels, types, next_labels)
    assert output.loss.item() == pytest.approx(expected.loss.item(), abs=1e-5)
    assert output.loss.item() == pytest.approx(output.mlm_loss.item() + output.next_loss.item())
    torch.testing.assert_close(output.next_logits, expected.seq_relationship_logits, atol=1e-5, rtol=1e-4)
    expected.loss.backward()
    output.loss.backward()
    torch.testing.assert_close(
        ours.next_sentence.pooler.weight.grad, theirs.bert.pooler.dense.weight.grad, atol=1e-6, rtol=1e-3
    )
    torch.testing.assert_close(
        ours.masked_lm.encoder.embeddings.type_embeddings.weight.grad,
        theirs.bert.embeddings.token_type_embeddings.weight.grad,
        atol=1e-5, rtol=1e-3,
    )  # fmt: skip


def test_class_0_means_that_b_follows():
    """The loss falls where the logit of the labelled class rises, and label 0 is transformers' "is next"."""
    _, ours = bert_pair()
    input_ids, attention_mask, labels, types, _ = pair_batch()
    with torch.no_grad():
        ours.next_sentence.seq_relationship.bias.copy_(torch.tensor([20.0, -20.0]))
    losses = [ours(input_ids, attention_mask, labels, types, torch.full((4,), c)).next_loss.item() for c in (0, 1)]
    assert losses[0] < 0.01 and losses[1] > 30


def test_flat_axis_and_padded_batch_agree():
    _, ours = bert_pair()
    input_ids, attention_mask, labels, types, next_labels = pair_batch()
    padded = ours(input_ids, attention_mask, labels, types, next_labels)
    keep = attention_mask.bool()
    flat_ids, layout = pack([row[mask].tolist() for row, mask in zip(input_ids, keep, strict=True)])
    flat = ours(flat_ids, None, labels[keep], types[keep], next_labels, layout=layout)
    torch.testing.assert_close(flat.next_logits, padded.next_logits, atol=1e-5, rtol=1e-4)
    assert flat.loss.item() == pytest.approx(padded.loss.item(), abs=1e-5)


def test_the_wrapped_model_is_the_one_that_is_kept():
    theirs, ours = bert_pair()
    input_ids, attention_mask, _, _, _ = pair_batch()
    kept = to_transformers(ours.masked_lm)
    with torch.no_grad():
        expected = theirs(input_ids, attention_mask).prediction_logits
        torch.testing.assert_close(kept(input_ids, attention_mask).logits, expected, atol=1e-4, rtol=1e-3)


def test_it_begins_undecided_at_bert_s_spread():
    torch.manual_seed(0)
    config = EncoderConfig.preset("bert-tiny", hidden_size=256, num_attention_heads=4)
    head = NextSentenceHead(config)
    assert head.pooler.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert head.seq_relationship.weight.std().item() == pytest.approx(0.02, rel=0.15)
    assert not head.pooler.bias.any() and not head.seq_relationship.bias.any()
    model = PretrainingModel(MaskedLM(config)).eval()
    ids = torch.randint(5, 4096, (8, 20))
    output = model(ids, None, ids, None, torch.tensor([0, 1] * 4))
    assert output.next_loss.item() == pytest.approx(math.log(2), abs=0.05)
    assert model(ids).loss is None and model(ids, labels=ids).loss is None


def test_labels_that_do_not_fit_are_refused():
    _, ours = bert_pair()
    input_ids, attention_mask, labels, types, _ = pair_batch()
    with pytest.raises(InputError, match="one number for each of the 4 pairs"):
        ours(input_ids, attention_mask, labels, types, torch.zeros(3, dtype=torch.long))


def test_it_learns_to_tell_neighbours_from_strangers():
    """Each document repeats a token of its own, so whether A and B agree is all that has to be seen."""
    generator = np.random.default_rng(0)
    documents = [[5 + i] * 60 for i in range(12)]
    pairs = [pair for _ in range(6) for pair in sentence_pairs(documents, 19, TOKENIZER, generator)]
    config = EncoderConfig.preset("bert-tiny", vocab_size=17, hidden_size=32, num_hidden_layers=2,
                                  num_attention_heads=2, intermediate_size=64, initializer_range=0.1)  # fmt: skip
    torch.manual_seed(0)
    model = PretrainingModel(MaskedLM(config))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    full = [pair for pair in pairs if len(pair.input_ids) == 19]
    ids = torch.tensor([pair.input_ids for pair in full])
    types = torch.tensor([pair.token_type_ids for pair in full])
    answers = torch.tensor([int(not pair.is_next) for pair in full])
    for step in range(120):
        rows = torch.randint(len(full), (32,), generator=torch.Generator().manual_seed(step))
        loss = model(ids[rows], None, ids[rows], types[rows], answers[rows]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = (model(ids, None, ids, types, answers).next_logits.argmax(-1) == answers).float().mean().item()
    assert right > 0.95
