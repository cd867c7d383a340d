"""The cross-encoder: order is learnt where a bag of words is blind, scores are sentence-transformers', bad input is
refused."""

import itertools
import random

import pytest
import torch
import torch.nn.functional as F

from modernbert_edu import EncoderConfig, MaskedLM, SequenceClassifier, load, save
from modernbert_edu.data.tokenizer import train_bpe, train_wordpiece
from modernbert_edu.errors import InputError
from modernbert_edu.tasks.library import Pair
from modernbert_edu.tasks.rerank import Reranker, RerankSettings, encode_pairs, mine_negatives, train_reranker

SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, init="normal",
             initializer_range=0.15, attention_pattern="G", max_position_embeddings=64)  # fmt: skip
WORDS = ("red", "blue", "green", "black", "white", "brown", "circle", "square", "star", "line", "dot", "cross")


def scenes(n=600):
    """Texts of four different words, in one fixed random order."""
    made = list(itertools.permutations(WORDS, 4))
    random.Random(0).shuffle(made)
    return [" ".join(words) for words in made[:n]]


def bag_of_words(queries, texts, k):
    """The first stage: how many words a text shares with the query. It cannot see which of them comes first."""
    bags = [set(text.split()) for text in texts]
    return [sorted(range(len(texts)), key=lambda i: -len(bags[i] & set(q.split())))[:k] for q in queries]


def pairs_of(texts):
    """What a text begins with -> the text."""
    return [Pair(text.split()[0], text, "scenes", text) for text in texts]


@pytest.fixture(scope="module", params=["bert", "modernbert"])
def pretrained(request):
    train = dict(bert=lambda: train_wordpiece(scenes(), 192), modernbert=lambda: train_bpe(scenes(), 384))
    with pytest.warns(UserWarning, match="stay unused"):
        tokenizer = train[request.param]()
    torch.manual_seed(0)
    return MaskedLM(EncoderConfig.preset(f"{request.param}-tiny", **SIZES, vocab_size=tokenizer.vocab_size)), tokenizer


@pytest.fixture(scope="module")
def untrained(pretrained):
    torch.manual_seed(1)
    return Reranker(SequenceClassifier.from_pretrained(pretrained[0], ("relevance",)).eval(), pretrained[1])


def right_first(queries, texts, indices):
    """The share of queries that have a text at the top which begins with them."""
    return sum(texts[int(row[0])].startswith(query) for query, row in zip(queries, indices, strict=True)) / len(queries)


def test_it_learns_what_its_first_stage_cannot_see(pretrained):
    texts = scenes()
    seen, unseen = texts[:400], texts[400:]
    pairs = pairs_of(seen)
    negatives = mine_negatives(pairs, bag_of_words([pair.query for pair in pairs], seen, 40), 16)
    queries, before = list(WORDS), bag_of_words(WORDS, unseen, 40)
    judged = []

    def evaluate(reranker):
        scores, indices = reranker.rerank_indices(queries, unseen, before)
        assert (scores.diff(dim=1) <= 0).all() and indices.sort().values.equal(torch.tensor(before).sort().values)
        judged.append(right_first(queries, unseen, indices))
        return {"accuracy@1": judged[-1]}

    settings = RerankSettings(rate=3e-3, steps=150, batch_size=24, negatives=3)
    run = train_reranker(*pretrained, pairs, settings, negatives=negatives, evaluate=evaluate, eval_every=75)
    assert right_first(queries, unseen, before) < 0.5
    assert len(judged) == 3 and judged[-1] >= 0.8  # before, after half of them, at the end; of texts never trained on
    assert [h["value"] for h in run.history if h["what"] == "accuracy@1"] == judged
    losses = [h["value"] for h in run.history if h["what"] == "train_loss"]
    assert len(losses) == 150 and losses[-1] < losses[0] / 2
    assert run.examples == 150 * 24 * 4 and run.cut == 0 and run.seconds > 0 and not run.reranker.model.training


def test_the_loss_is_the_softmax_over_one_right_text_and_the_wrong_ones(pretrained):
    texts = scenes()
    pairs, wrong = pairs_of(texts[:8]), [texts[-3:]] * 8
    settings = RerankSettings(rate=1e-3, steps=1, batch_size=8, negatives=3)
    run = train_reranker(*pretrained, pairs, settings, negatives=lambda i, rng: wrong[i])
    torch.manual_seed(settings.seed)  # the head that training began with
    model = SequenceClassifier.from_pretrained(pretrained[0], ("relevance",)).eval()
    reranker = Reranker(model, pretrained[1])
    scores = torch.stack([reranker.rerank(pair.query, [pair.document, *wrong[0]]) for pair in pairs])
    expected = -F.log_softmax(scores, dim=1)[:, 0].mean()
    assert run.history[0]["value"] == pytest.approx(float(expected), rel=1e-4)


def test_sentence_transformers_gives_the_same_scores(untrained, tmp_path):
    """`CrossEncoder` applies the sigmoid to a single label's logit, unless it is given another function."""
    module = pytest.importorskip("sentence_transformers")
    untrained.save(tmp_path)
    theirs = module.CrossEncoder(str(tmp_path), device="cpu")
    assert isinstance(theirs.activation_fn, torch.nn.Sigmoid)
    pairs = [(query, text) for query in ("red circle", "dot") for text in (*scenes()[:5], "red")]
    ours = untrained.score(*zip(*pairs, strict=True))
    assert ours.std() > 1e-3
    logits = torch.tensor(theirs.predict(pairs, activation_fn=torch.nn.Identity()))
    torch.testing.assert_close(ours, logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(ours.sigmoid(), torch.tensor(theirs.predict(pairs)), rtol=0, atol=1e-4)
    opened = Reranker.load(tmp_path)
    torch.testing.assert_close(opened.score(*zip(*pairs, strict=True)), ours, rtol=0, atol=1e-5)


def test_transformers_opens_it_as_a_classifier_of_one_label(untrained, tmp_path):
    transformers = pytest.importorskip("transformers")
    save(untrained.model, untrained.tokenizer, tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert theirs.config.num_labels == 1 and theirs.config.id2label == {0: "relevance"}
    text = transformers.AutoTokenizer.from_pretrained(tmp_path)("red circle", scenes()[0], return_tensors="pt")
    with torch.no_grad():
        logits = theirs(**text).logits[:, 0]
    torch.testing.assert_close(untrained.rerank("red circle", scenes()[:1]), logits, rtol=0, atol=1e-4)


def test_scores_do_not_depend_on_the_batch(untrained):
    texts = [*scenes()[:7], "red", " ".join(scenes()[:3])]
    together = untrained.rerank("red circle", texts)
    small = Reranker(untrained.model, untrained.tokenizer, batch_tokens=1)
    one_by_one = torch.cat([small.rerank("red circle", [text]) for text in texts])
    assert together.dtype == torch.float32 and together.shape == (9,)
    torch.testing.assert_close(small.rerank("red circle", texts), together, rtol=0, atol=1e-5)
    torch.testing.assert_close(one_by_one, together, rtol=0, atol=1e-5)
    assert untrained.rerank("red circle", []).shape == (0,)


def test_many_queries_are_the_same_as_one_at_a_time(untrained, monkeypatch):
    monkeypatch.setattr("modernbert_edu.tasks.rerank.PAIRS_AT_ONCE", 7)  # several groups of queries
    texts, queries = scenes()[:30], ["red circle", "blue dot", "green line", "white star", "black dot"]
    indices = torch.tensor(bag_of_words(queries, texts, 3))
    scores, order = untrained.rerank_indices(queries, texts, indices)
    for query, row, row_scores, row_order in zip(queries, indices, scores, order, strict=True):
        alone = untrained.rerank(query, [texts[i] for i in row])
        torch.testing.assert_close(row_scores, alone.sort(descending=True).values, rtol=0, atol=1e-5)
        assert row_order.tolist() == row[alone.argsort(descending=True)].tolist()


def test_what_is_too_long_is_cut_at_the_text_and_counted(untrained, tmp_path):
    tokenizer = untrained.tokenizer
    short = Reranker(untrained.model, tokenizer, max_length=12)
    long = "red circle " * 30
    short.score(["red circle", "red circle"], ["blue dot", long])
    assert short.cut == 1
    encoded = encode_pairs(["red circle"], [long], tokenizer, 12)
    query = tokenizer.encode("red circle", add_special_tokens=False)
    assert len(encoded.input_ids[0]) == 12 and encoded.input_ids[0][1 : 1 + len(query)] == query
    short.rerank_indices(["red circle", "dot"], ["blue dot", long], [[0, 1], [1, 0]])
    assert short.cut == 2
    short.save(tmp_path)
    assert Reranker.load(tmp_path).max_length == 12 and untrained.max_length == 64
    run = train_reranker(MaskedLM(untrained.model.config), tokenizer, [Pair("red circle", long, "", "")] * 2,
                         RerankSettings(rate=1e-3, steps=2, batch_size=1, negatives=1, max_length=16),
                         negatives=[["dot"]] * 2)  # fmt: skip
    assert run.cut == 2 and run.examples == 4


def test_negatives_are_high_in_the_ranking_and_never_right():
    documents = ["a", "b", "c", "a", "d", "e"]
    pairs = [Pair("q", "a", "", ""), Pair("q", "b", "", ""), Pair("r", "e", "", "")]
    ranking = [[0, 3, 1, 4, 2], [4, 5, 0, 1, 2], [5, 3, 0, 2, 1]]
    # Of "q" both a (twice in the corpus) and b are right; a text that stands twice is taken once.
    assert mine_negatives(pairs, ranking, 2, documents) == [["d", "c"], ["d", "e"], ["a", "c"]]
    filled = mine_negatives(pairs, [[0], [1], [5]], 3, documents)
    assert [set(row) for row in filled[:2]] == [{"c", "d", "e"}] * 2  # nothing else is left
    assert len(set(filled[2])) == 3 and "e" not in filled[2]
    assert filled == mine_negatives(pairs, torch.tensor([[0], [1], [5]]), 3, documents)
    assert mine_negatives(pairs[1:], [[0, 1], [1, 0]], 1) == [["e"], ["b"]]  # among the pairs' own documents
    with pytest.raises(InputError, match="too few different texts for 4 wrong ones"):
        mine_negatives(pairs, ranking, 4, documents)
    with pytest.raises(InputError, match="a row for each of the 3 pairs"):
        mine_negatives(pairs, ranking[:2], 1, documents)


def test_the_same_seed_gives_the_same_weights(pretrained):
    pairs = pairs_of(scenes()[:40])
    pools = mine_negatives(pairs, [list(range(40))] * 40, 5)
    settings = RerankSettings(rate=1e-3, steps=3, batch_size=4, negatives=2)
    one, two = (train_reranker(*pretrained, pairs, settings, negatives=pools).reranker.model for _ in range(2))
    assert all(a.equal(b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_bad_input_is_one_line(pretrained, untrained, tmp_path):
    model, tokenizer = pretrained
    pairs, settings = pairs_of(scenes()[:4]), RerankSettings(rate=1e-3, steps=1, batch_size=2, negatives=1)
    bad = [
        (lambda: RerankSettings(rate=0, steps=1), "learning rate must be above 0"),
        (lambda: RerankSettings(rate=1e-3, steps=0), "steps must be a whole number"),
        (lambda: RerankSettings(rate=1e-3, steps=1, negatives=0), "negatives must be a whole number"),
        (lambda: train_reranker(model, tokenizer, [], settings, negatives=[]), "no pairs to train on"),
        (lambda: train_reranker(model, tokenizer, pairs, settings, negatives=[["x"]]), "a list for each of the 4"),
        (lambda: train_reranker(model, tokenizer, pairs, settings, negatives=[[]] * 4), "0 wrong texts"),
        (lambda: train_reranker(model, tokenizer, pairs, settings, negatives=lambda i, _: [pairs[i].document]),
         "the right text is among the wrong ones"),
        (lambda: train_reranker(model, None, pairs, settings, negatives=[["x"]] * 4), "has no tokenizer"),
        (lambda: Reranker(SequenceClassifier(model.config, ("a", "b")), tokenizer), "with one label"),
        (lambda: Reranker(untrained.model, tokenizer, max_length=3), "leaves no room"),
        (lambda: untrained.rerank_indices(["q"], ["a"], [[0], [0]]), "a row for each of the 1 queries"),
        (lambda: untrained.rerank_indices(["q"], ["a"], [[1]]), "numbers from 0 to 0"),
        (lambda: Reranker.load(save(model, tokenizer, tmp_path / "lm")), "is no reranker"),
        (lambda: Reranker.load(save(untrained.model, None, tmp_path / "bare")), "has no tokenizer"),
    ]  # fmt: skip
    for call, words in bad:
        try:
            call()
        except InputError as error:
            said = str(error)
        else:
            said = "nothing was raised"
        assert words in said and "\n" not in said
    assert isinstance(load(save(untrained.model, tokenizer, tmp_path / "whole"))[0], SequenceClassifier)


@pytest.mark.cuda
def test_on_a_gpu_in_bfloat16(untrained):
    texts, model = scenes()[:20], SequenceClassifier(untrained.model.config, ("relevance",)).eval()
    model.load_state_dict(untrained.model.state_dict())
    there = Reranker(model.cuda(), untrained.tokenizer, dtype=torch.bfloat16).rerank("red circle", texts)
    torch.testing.assert_close(there, untrained.rerank("red circle", texts), rtol=0.05, atol=0.1)
