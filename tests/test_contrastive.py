"""Contrastive training: the loss by hand, gradient caching equal to the whole batch, and a retriever that learns."""

import math
import time
import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert_edu import Embedder, EncoderConfig, InputError, MaskedLM, TokenEmbedder
from modernbert_edu.data.tokenizer import train_bpe
from modernbert_edu.errors import Paused
from modernbert_edu.measure.memory import bytes_saved_for_backward
from modernbert_edu.retriever import max_sim
from modernbert_edu.tasks.contrastive import (
    ContrastiveSettings,
    cached_backward,
    info_nce,
    plain_backward,
    same_text,
    score_matrix,
    train_retriever,
)
from modernbert_edu.tasks.library import Pair

WORDS = "red green blue black white pink brown grey gold teal plum rust lime navy jade ruby".split()
PAIRS = [Pair(f"the color {word}", f"paint({word!r}, {i % 3})", f"package{i % 4}", f"{word}.py")
         for i, word in enumerate(WORDS)]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    with warnings.catch_warnings():  # so little text leaves ids unused
        warnings.simplefilter("ignore")
        return train_bpe([pair.query + " " + pair.document for pair in PAIRS] * 3, 448)


def retriever(tokenizer, made=Embedder, kind="modernbert", dtype=torch.float32, **changes):
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48,
                 vocab_size=tokenizer.vocab_size, max_position_embeddings=64)  # fmt: skip
    config = EncoderConfig.preset(f"{kind}-tiny", **{**sizes, **changes})
    return made.from_pretrained(MaskedLM(config), tokenizer).to(dtype)


@given(n=st.integers(1, 6), more=st.integers(0, 3), temperature=st.floats(0.05, 2.0), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_info_nce_by_hand(n, more, temperature, seed):
    scores = torch.rand(n, n + more, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    wanted = 0.0
    for i in range(n):
        exponentials = [math.exp(float(score) / temperature) for score in scores[i]]
        wanted -= math.log(exponentials[i] / sum(exponentials)) / n
    assert info_nce(scores, temperature).item() == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_equal_scores_cost_the_logarithm_of_their_number():
    assert info_nce(torch.zeros(8, 8), 0.05).item() == pytest.approx(math.log(8))


def test_another_copy_of_the_right_text_is_no_negative():
    pairs = [PAIRS[0], replace(PAIRS[1], document=PAIRS[0].document), PAIRS[2], replace(PAIRS[3], query=PAIRS[2].query)]
    ignored = same_text(pairs)
    assert ignored.nonzero().tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    scores = torch.tensor([[1.0, 1.0, 0.0, 0.0]] * 4)
    assert info_nce(scores, 1.0, ignored)[None].item() < info_nce(scores, 1.0).item()
    kept = torch.tensor([1.0, 0.0, 0.0])  # question 0: text 1 is left out
    assert info_nce(scores[:1], 1.0, ignored[:1]).item() == pytest.approx(-kept.log_softmax(0)[0].item())


def test_late_scores_are_max_sim_by_token(tokenizer):
    model = retriever(tokenizer, TokenEmbedder)
    queries, documents = model.encode([p.query for p in PAIRS[:4]], "query"), model.encode([p.document for p in PAIRS])
    padded = [torch.nn.utils.rnn.pad_sequence(side, batch_first=True) for side in (queries, documents)]
    wanted = torch.stack([max_sim(query, documents) / len(query) for query in queries])
    torch.testing.assert_close(score_matrix(*padded), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("made", [Embedder, TokenEmbedder])
@pytest.mark.parametrize("chunk", [1, 3, 8, 100])
@pytest.mark.parametrize("changes", [{}, {"embedding_dropout": 0.2}], ids=["plain", "dropout"])
def test_cached_gradients_are_those_of_the_whole_batch(tokenizer, made, chunk, changes):
    if changes and chunk < 100:
        pytest.skip("with dropout one chunk alone draws the random numbers that the whole batch draws")
    found = []
    for backward in (plain_backward, cached_backward):
        model = retriever(tokenizer, made, dtype=torch.float64, **changes).train()
        sides = [model.token_ids([getattr(p, side) for p in PAIRS], side) for side in ("query", "document")]

        def loss_of(queries, documents):
            return info_nce(score_matrix(queries, documents), 0.1)

        torch.manual_seed(1)
        loss = backward(model, sides, loss_of, chunk, "cpu", torch.float32)
        found.append((loss, [p.grad for p in model.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert any(gradient.abs().max() > 1e-4 for gradient in found[0][1])


def test_dropout_is_drawn_the_same_in_both_passes(tokenizer):
    """In chunks, the vectors whose gradients are computed must be the vectors that the loss saw."""
    model = retriever(tokenizer, embedding_dropout=0.3).train()
    sides = [model.token_ids([getattr(p, side) for p in PAIRS], side) for side in ("query", "document")]
    seen = []
    hook = model.register_forward_hook(lambda module, given, output: seen.append(output.detach().clone()))
    torch.manual_seed(1)
    cached_backward(model, sides, lambda q, d: info_nce(score_matrix(q, d), 0.1), 5, "cpu", torch.float32)
    hook.remove()
    half = len(seen) // 2
    assert half == 2 * 4  # 16 texts in chunks of 5, both sides
    for first, second in zip(seen[:half], seen[half:], strict=True):
        torch.testing.assert_close(first, second, atol=0, rtol=0)
    assert not torch.equal(seen[0], seen[1])


def test_caching_keeps_less_for_backward(tokenizer):
    model = retriever(tokenizer).train()
    ids = model.token_ids([p.document for p in PAIRS], "document")
    whole = bytes_saved_for_backward(lambda: model(*_padded(ids, tokenizer)).sum())
    chunk = bytes_saved_for_backward(lambda: model(*_padded(ids[:2], tokenizer)).sum())
    assert chunk < whole / 3


def _padded(ids, tokenizer):
    from modernbert_edu.data.batches import pad_batch

    return pad_batch(ids, tokenizer.pad_id)


@pytest.mark.parametrize("made", [Embedder, TokenEmbedder])
@pytest.mark.parametrize("chunk", [None, 4])
def test_a_retriever_learns_to_find(tokenizer, made, chunk):
    def hits(model):
        queries = model.encode([p.query for p in PAIRS], "query")
        documents = model.encode([p.document for p in PAIRS])
        if made is TokenEmbedder:
            scores = torch.stack([max_sim(query, documents) for query in queries])
        else:
            scores = queries @ documents.T
        return {"accuracy@1": (scores.argmax(dim=1) == torch.arange(len(PAIRS))).float().mean().item()}

    model = retriever(tokenizer, made)
    run = train_retriever(
        model,
        PAIRS,
        ContrastiveSettings(rate=5e-3, steps=60, batch_size=8, chunk_size=chunk),
        evaluate=hits,
        eval_every=30,
    )
    found = [record["value"] for record in run.history if record["what"] == "accuracy@1"]
    assert len(found) == 3 and found[-1] >= 0.9 > found[0]
    assert run.pairs == 60 * 8 and run.pairs_per_second > 0
    losses = [record["value"] for record in run.history if record["what"] == "train_loss"]
    assert len(losses) == 60 and sum(losses[-5:]) < sum(losses[:5]) / 2


def test_the_same_seed_gives_the_same_retriever(tokenizer):
    trained = []
    for _ in range(2):
        model = retriever(tokenizer, embedding_dropout=0.1)
        train_retriever(model, PAIRS, ContrastiveSettings(rate=1e-3, steps=3, batch_size=4, seed=5))
        trained.append(model.encode([PAIRS[0].query]))
    assert torch.equal(*trained)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"batch_size": 1}, "no negatives"), ({"temperature": 0.0}, "temperature must be above 0"),
     ({"steps": 0}, "steps must be a whole number"), ({"rate": -1.0}, "learning rate"),
     ({"chunk_size": 0}, "chunk_size must be at least 1")],
)  # fmt: skip
def test_bad_settings_are_refused(changes, said):
    with pytest.raises(InputError, match=said):
        ContrastiveSettings(**{**dict(rate=1e-3, steps=5), **changes})


def test_too_few_pairs_and_a_loss_that_is_no_number_say_so(tokenizer):
    with pytest.raises(InputError, match="16 pairs do not fill a batch of 64"):
        train_retriever(retriever(tokenizer), PAIRS, ContrastiveSettings(rate=1e-3, steps=2))
    model = retriever(tokenizer)
    with torch.no_grad():
        model.encoder.embeddings.tok_embeddings.weight[:] = float("nan")
    with pytest.raises(InputError, match="not a number after 1 steps; lower the learning rate"):
        train_retriever(model, PAIRS, ContrastiveSettings(rate=1e-3, steps=2, batch_size=4))


@pytest.mark.parametrize("made", [Embedder, TokenEmbedder])
def test_a_paused_training_goes_on_to_the_same_bits(tokenizer, made, tmp_path):
    """Also with dropout, whose random numbers go on where they were."""
    chosen = ContrastiveSettings(rate=1e-3, steps=7, batch_size=4, query_length=8, document_length=16)

    def train(**options):
        model = retriever(tokenizer, made, "bert", mlp_dropout=0.1)
        run = train_retriever(model, PAIRS, chosen, evaluate=lambda m: {"x": 1.0}, eval_every=2, **options)
        return model.state_dict(), run

    whole, run = train()
    for step in (2, 4, 6):
        with pytest.raises(Paused, match=f"after step {step} of 7"):
            train(out=tmp_path, deadline=0.0)
    parts, resumed = train(out=tmp_path, deadline=time.monotonic() + 600)
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())
    without_seconds = [[{k: v for k, v in r.items() if k != "seconds"} for r in x.history] for x in (run, resumed)]
    assert without_seconds[0] == without_seconds[1] and resumed.pairs == run.pairs == 28


def test_another_training_in_the_folder_is_refused(tokenizer, tmp_path):
    chosen = ContrastiveSettings(rate=1e-3, steps=6, batch_size=4, query_length=8, document_length=16)
    with pytest.raises(Paused):
        train_retriever(retriever(tokenizer), PAIRS, chosen, eval_every=2, out=tmp_path, deadline=0.0)
    others = [
        (retriever(tokenizer), PAIRS, replace(chosen, rate=1e-2), "settings"),
        (retriever(tokenizer, hidden_size=64), PAIRS, chosen, "config"),
        (retriever(tokenizer, TokenEmbedder), PAIRS, chosen, "model"),
        (retriever(tokenizer), PAIRS[:-1], chosen, "pairs"),
    ]
    for model, pairs, settings_, what in others:
        with pytest.raises(InputError, match=f"holds a training of other {what}; give another folder"):
            train_retriever(model, pairs, settings_, eval_every=2, out=tmp_path)


def test_same_text_is_the_plain_double_loop():
    pairs = [Pair(f"q{i % 3}", f"d{i % 4}", "p", "s") for i in range(9)]
    plain = [[n != m and (a.query == b.query or a.document == b.document) for m, b in enumerate(pairs)]
             for n, a in enumerate(pairs)]  # fmt: skip
    assert same_text(pairs).tolist() == plain
