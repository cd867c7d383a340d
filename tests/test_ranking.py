"""Ranking: words, vectors and token vectors score as their formulas say, ties go by position, measures are right."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from modernbert_edu.errors import InputError
from modernbert_edu.intervals import bootstrap_interval
from modernbert_edu.tasks.ranking import (
    Bm25,
    code_words,
    evaluate_ranking,
    exact_top_k,
    late_top_k,
    reciprocal_ranks,
)

ROOT = Path(__file__).resolve().parents[1]
BOTH_DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def sorted_by_score(scores, k):
    """The definition: positions of each row by score, the largest first, equal ones by position."""
    k = min(k, scores.shape[1])
    order = [sorted(range(len(row)), key=lambda i: (-row[i], i))[:k] for row in scores.tolist()]
    return scores.gather(1, torch.tensor(order)), torch.tensor(order)


# ---------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    "text, words",
    [
        ("read_line", ["read_line", "read", "line"]),
        ("camelCase", ["camelcase", "camel", "case"]),
        ("HTTPServer", ["httpserver", "http", "server"]),
        ("getHTTPResponse_code2", ["gethttpresponse_code2", "get", "http", "response", "code2"]),
        ("utf8Decode", ["utf8decode", "utf8", "decode"]),
        ("__init__", ["__init__", "init"]),
        ("_", ["_"]),
        ("The URLs of GPUs", ["the", "urls", "of", "gpus"]),
        ("parseURLsFast", ["parseurlsfast", "parse", "urls", "fast"]),
        ("HTTPSession", ["httpsession", "http", "session"]),
        ("x = a.b(1, 'c')", ["x", "a", "b", "1", "c"]),
        ("the the", ["the", "the"]),
        ("Größe café", ["größe", "café"]),
        ("", []),
        (" ()\n", []),
    ],
)
def test_code_words(text, words):
    assert code_words(text) == words


@given(st.lists(st.text(alphabet="abXYZ_19", min_size=1, max_size=12), max_size=5), st.sampled_from([" ", ".", "-\n("]))
def test_code_words_are_each_identifier_and_its_parts(identifiers, between):
    assert code_words(between.join(identifiers)) == sum(map(code_words, identifiers), [])
    for identifier in identifiers:
        whole, *parts = code_words(identifier)
        assert whole == identifier.lower() and all(parts)
        assert "".join(parts) in ("", whole.replace("_", ""))  # nothing is lost between the parts
        assert parts or "_" not in whole.strip("_")


# ----------------------------------------------------------------------------------------------- BM25


def naive_bm25(documents, query, k1=1.5, b=0.75):
    """The formula of the docstring, word by word."""
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        score = 0.0
        for word in query:
            holding = sum(word in other for other in documents)
            frequency = document.count(word)
            if frequency:
                rarity = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
                score += rarity * frequency / (frequency + k1 * (1 - b + b * len(document) / mean))
        scores.append(score)
    return torch.tensor(scores, dtype=torch.float64)


texts_of_words = st.lists(st.sampled_from(["a", "b", "c", "dd", "e_f", "gH"]), max_size=8).map(" ".join)


@settings(max_examples=60)
@given(
    texts=st.lists(texts_of_words, min_size=1, max_size=12),
    queries=st.lists(st.one_of(texts_of_words, st.just("nowhere a nowhere"), st.just("")), min_size=1, max_size=3),
    k=st.integers(1, 14),
    b=st.sampled_from([0.0, 0.75, 1.0]),
    k1=st.sampled_from([0.9, 1.5]),
)
def test_bm25_is_the_formula(texts, queries, k, b, k1):
    index = Bm25(texts, k1=k1, b=b)
    scores, indices = index.top_k(queries, k)
    assert scores.shape == indices.shape == (len(queries), min(k, len(texts)))
    assert scores.dtype == torch.float32 and indices.dtype == torch.int64
    documents = [code_words(text) for text in texts]
    for query, row, where in zip(queries, scores, indices, strict=True):
        expected = naive_bm25(documents, code_words(query), k1, b)
        torch.testing.assert_close(index.scores(query).double(), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(row.double(), expected[where], atol=1e-5, rtol=0)
        torch.testing.assert_close(row, sorted_by_score(index.scores(query)[None], k)[0][0], atol=0, rtol=0)
        assert where.tolist() == sorted_by_score(index.scores(query)[None], k)[1][0].tolist()


def test_bm25_finds_a_function_by_a_part_of_its_name():
    texts = ["def open_file(path): return open(path)", "class HTTPServer: pass", "def close(self): self.file = None"]
    _, indices = Bm25(texts).top_k(["an http server", "open file"], k=2)
    assert indices[0, 0] == 1 and indices[1].tolist() == [0, 2]


@given(
    texts=st.lists(texts_of_words, min_size=1, max_size=8), query=texts_of_words, words=st.sampled_from([None, list])
)
@settings(max_examples=20, deadline=None)
def test_bm25_is_the_same_after_it_was_saved(tmp_path_factory, texts, query, words):
    options = dict(words=words) if words else {}
    folder = tmp_path_factory.mktemp("words")
    index = Bm25(texts, k1=0.9, b=0.5, **options)
    index.save(folder)
    opened = Bm25.load(folder, **options)
    assert torch.equal(opened.scores(query), index.scores(query)) and opened.size == len(texts)
    assert all(torch.equal(a, b) for a, b in zip(opened.top_k([query], 3), index.top_k([query], 3), strict=True))
    found = {word for text in texts for word in (words or code_words)(text)}
    assert opened.vocabulary_size == index.vocabulary_size == len(found)


def test_saved_words_are_mapped_plain_and_the_same_in_every_process(tmp_path):
    program = "import sys; from modernbert_edu.tasks.ranking import Bm25; Bm25(['b a', 'c_d', '']).save(sys.argv[1])"
    for seed in ("0", "1"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", program, str(tmp_path / seed)], check=True, env=environment)
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / seed).iterdir()} for seed in "01")
    assert first == second and {name.rsplit(".")[-1] for name in first} == {"npy", "json"}
    for path in (tmp_path / "0").glob("*.npy"):
        assert np.load(path, allow_pickle=False).dtype.kind in "fi"
    assert all(isinstance(Bm25.load(tmp_path / "0")._index.scores[name], np.memmap) for name in ("data", "indices"))


def test_no_pickle_is_opened_as_saved_words(tmp_path):
    Bm25(["a b", "c"]).save(tmp_path)
    (path,) = tmp_path.glob("data*.npy")
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError):
        Bm25.load(tmp_path)


def test_bm25_takes_other_words():
    index = Bm25(["Ab ab", "b a"], words=lambda text: list(text))
    assert index.scores("A").tolist() == pytest.approx(naive_bm25([list("Ab ab"), list("b a")], ["A"]).tolist())


def test_an_empty_string_is_no_word_of_a_query():
    index = Bm25(["a b", "b"], words=lambda text: text.split(" "))
    assert index.scores(" a ").tolist() == index.scores("a").tolist() != [0, 0]


@pytest.mark.parametrize("query", ["", "?!", "nowhere", "nowhere to_be found"])
@pytest.mark.parametrize("texts", [["a b", "c", "", "d"], ["", "...", "", ""]], ids=["words", "no words at all"])
def test_bm25_of_unknown_words_is_zero_in_order(texts, query, recwarn):
    scores, indices = Bm25(texts).top_k([query], k=3)
    assert scores.tolist() == [[0, 0, 0]] and indices.tolist() == [[0, 1, 2]]
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_bm25_of_equal_texts_goes_by_position():
    scores, indices = Bm25(["b", "a b", "a b", "c", "a b"]).top_k(["a"], k=2)
    assert indices.tolist() == [[1, 2]] and scores[0, 0] == scores[0, 1] > 0


def test_bm25_draws_no_bar(capfd, tmp_path):
    Bm25(["a b", "c"]).save(tmp_path)
    Bm25.load(tmp_path).top_k(["a"], k=1)
    assert capfd.readouterr() == ("", "")


# -------------------------------------------------------------------------------------------- vectors


def whole_numbers(*shape, seed=0, dtype=torch.float32):
    """Small whole numbers: their dot products are exact in every order of summing, and often equal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, shape, generator=generator).to(dtype)


@given(
    queries=st.integers(1, 5),
    documents=st.integers(1, 40),
    size=st.integers(1, 4),
    k=st.integers(1, 45),
    chunk=st.integers(1, 45),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_exact_top_k_is_a_full_sort(queries, documents, size, k, chunk, dtype, seed):
    q, d = whole_numbers(queries, size, seed=seed), whole_numbers(documents, size, seed=seed + 100, dtype=dtype)
    scores, indices = exact_top_k(q, d, k, chunk=chunk)
    expected, order = sorted_by_score(q @ d.float().T, k)
    assert torch.equal(scores, expected) and torch.equal(indices, order)
    assert scores.dtype == torch.float32 and indices.dtype == torch.int64


def test_exact_top_k_of_real_numbers():
    q, d = torch.randn(1100, 16), torch.randn(3000, 16)  # more queries than are compared at once
    scores, indices = exact_top_k(q, d, 7, chunk=1000)
    torch.testing.assert_close(scores, (q @ d.T).topk(7).values)
    torch.testing.assert_close(scores, (q[:, None] * d[indices]).sum(-1))
    assert all(len(set(row)) == 7 for row in indices.tolist())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_exact_top_k_multiplies_half_precision_in_float32(dtype):
    q, d = torch.randn(3, 64).to(dtype), torch.randn(50, 64).to(dtype)
    scores, _ = exact_top_k(q, d, 50)
    expected = sorted_by_score(q.double() @ d.double().T, 50)[0]
    torch.testing.assert_close(scores.double(), expected, atol=1e-5, rtol=1e-6)


@pytest.mark.cuda
@pytest.mark.parametrize("documents_on", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_exact_top_k_on_a_gpu(documents_on, dtype):
    q, d = whole_numbers(6, 8), whole_numbers(500, 8, seed=1)
    scores, indices = exact_top_k(q.cuda().to(dtype), d.to(documents_on, dtype), 20, chunk=64)
    expected, order = sorted_by_score(q @ d.T, 20)
    assert scores.is_cuda and torch.equal(scores.cpu(), expected) and torch.equal(indices.cpu(), order)


def test_vectors_that_remember_how_they_came_about_give_plain_numbers():
    scores, _ = exact_top_k(torch.randn(2, 3, requires_grad=True), torch.randn(4, 3), 2)
    assert not scores.requires_grad


# -------------------------------------------------------------------------------------- token vectors


def naive_late(queries, documents):
    scores = torch.zeros(len(queries), len(documents))
    for i, query in enumerate(queries):
        for j, document in enumerate(documents):
            scores[i, j] = sum(max(float(a @ b) for b in document) for a in query)
    return scores


@settings(max_examples=40)
@given(
    query_lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    document_lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    k=st.integers(1, 14),
    chunk=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_late_top_k_is_a_double_loop(query_lengths, document_lengths, k, chunk, seed):
    queries = [whole_numbers(n, 3, seed=seed + i) for i, n in enumerate(query_lengths)]
    documents = [whole_numbers(n, 3, seed=seed + 100 + i) for i, n in enumerate(document_lengths)]
    scores, indices = late_top_k(queries, documents, k, chunk=chunk)
    expected, order = sorted_by_score(naive_late(queries, documents), k)
    assert torch.equal(scores, expected) and torch.equal(indices, order)


@pytest.mark.parametrize("device", BOTH_DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_late_top_k_of_unit_vectors(device, dtype):
    def unit(n):
        return torch.nn.functional.normalize(torch.randn(n, 8), dim=-1).to(dtype)

    queries = [unit(n) for n in [3, 700, 600, 1]]  # more tokens than are compared at once
    documents = [unit(n) for n in [4, 1, 9, 2, 30]]
    scores, indices = late_top_k([q.to(device) for q in queries], documents, 5, chunk=10)
    expected = torch.stack([torch.stack([(q.float() @ d.float().T).amax(1).sum() for d in documents]) for q in queries])
    assert scores.device.type == device and scores.dtype == torch.float32
    torch.testing.assert_close(scores.cpu(), expected.gather(1, indices.cpu()))
    torch.testing.assert_close(scores.cpu(), expected.sort(descending=True).values)


def test_one_token_a_text_is_the_single_vector_ranking():
    q, d = whole_numbers(4, 5), whole_numbers(30, 5, seed=1)
    late, single = late_top_k(list(q[:, None]), list(d[:, None]), 10), exact_top_k(q, d, 10)
    assert torch.equal(late[0], single[0]) and torch.equal(late[1], single[1])


# ------------------------------------------------------------------------------------------- measures


RANKINGS = torch.tensor([[3, 1, 0], [2, 0, 1], [0, 1, 2]])


def test_measures_by_hand():
    # Relevant: at rank 2; not found; at ranks 1 and 3, and one more that is not found.
    found = evaluate_ranking(RANKINGS, [{1}, {3}, {0, 2, 7}], mrr=[3], ndcg=[3], recall=[2, 3], accuracy=[1, 2])
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert found == pytest.approx(
        {
            "mrr@3": (1 / 2 + 0 + 1) / 3,
            "ndcg@3": (1 / math.log2(3) + 0 + (1 + 1 / 2) / ideal) / 3,
            "recall@2": (1 + 0 + 1 / 3) / 3,
            "recall@3": (1 + 0 + 2 / 3) / 3,
            "accuracy@1": 1 / 3,
            "accuracy@2": 2 / 3,
        }
    )
    assert json.loads(json.dumps(found)) == found  # plain numbers, for a record


def test_measures_by_default():
    rankings = torch.stack([torch.arange(100).roll(i) for i in [0, 4, 40]])  # document 0 at ranks 1, 5 and 41
    assert evaluate_ranking(rankings, [0, 0, 0]) == pytest.approx(
        {
            "mrr@10": (1 + 1 / 5) / 3,
            "ndcg@10": (1 + 1 / math.log2(6)) / 3,
            "recall@10": 2 / 3,
            "recall@100": 1,
            "accuracy@1": 1 / 3,
        }
    )


@settings(max_examples=40)
@given(queries=st.integers(1, 5), documents=st.integers(2, 20), at=st.integers(1, 20), seed=st.integers(0, 999))
def test_ndcg_is_scikit_learns_and_the_mean_of_ranks_is_mrr(queries, documents, at, seed):
    rng = np.random.default_rng(seed)
    rankings = np.stack([rng.permutation(documents) for _ in range(queries)])
    relevant = [set(rng.choice(documents, rng.integers(1, documents + 1), replace=False)) for _ in range(queries)]
    truth = np.array([[float(d in good) for d in range(documents)] for good in relevant])
    scores = -np.argsort(rankings, axis=1).astype(float)  # by document, best first
    found = evaluate_ranking(rankings, relevant, mrr=[at], ndcg=[at], recall=[at], accuracy=[at], documents=documents)
    assert found[f"ndcg@{at}"] == pytest.approx(ndcg_score(truth, scores, k=at))
    assert found[f"mrr@{at}"] == pytest.approx(reciprocal_ranks(rankings, relevant, k=at).mean())
    share = [len(good.intersection(row[:at])) / len(good) for row, good in zip(rankings, relevant, strict=True)]
    assert found[f"recall@{at}"] == pytest.approx(np.mean(share))


def test_one_relevant_document_may_be_a_number_a_set_or_stand_in_a_tensor():
    first, *others = [
        (evaluate_ranking(RANKINGS, relevant, documents=3), reciprocal_ranks(RANKINGS, relevant).tolist())
        for relevant in ([3, 0, 2], [{3}, {0}, {2}], torch.tensor([3, 0, 2]), np.array([3, 0, 2]))
    ]
    assert first[1] == pytest.approx([1, 1 / 2, 1 / 3]) and others == [first] * 3


def test_reciprocal_ranks_look_no_deeper_than_k():
    assert reciprocal_ranks(RANKINGS, [1, 1, 9], k=2).tolist() == [1 / 2, 0, 0]
    assert reciprocal_ranks([[5, 6]], [{6, 5}]).tolist() == [1]


def test_a_perfect_bm25_is_perfect_in_every_measure():
    texts = [f"word{i} filler" for i in range(120)]
    _, indices = Bm25(texts).top_k([f"word{i}" for i in range(120)], k=100)
    assert set(evaluate_ranking(indices, range(120)).values()) == {1.0}


def test_the_interval_holds_the_mean_and_shrinks_with_more_queries():
    values = np.random.default_rng(0).random(100)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    # The normal approximation: 1.96 standard errors on each side.
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 10, rel=0.15)
    more = bootstrap_interval(np.tile(values, 16))
    assert more[1] - more[0] == pytest.approx((high - low) / 4, rel=0.2)
    assert bootstrap_interval(values) == (low, high) != bootstrap_interval(values, seed=1)
    assert bootstrap_interval([0.5, 0.5]) == (0.5, 0.5) and bootstrap_interval([1]) == (1, 1)
    assert bootstrap_interval(torch.tensor([0.0, 1.0]), draws=50) == (0, 1)


# ------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: Bm25([]), "no texts"),
        (lambda: Bm25("one text"), "list of texts"),
        (lambda: Bm25(["a"]).top_k("one query", 1), "list of texts"),
        (lambda: Bm25(["a"]).top_k([], 1), "no queries"),
        (lambda: Bm25(["a"]).top_k(["a"], 0), "k must be"),
        (lambda: Bm25(["a"]).top_k(["a"], True), "k must be"),
        (lambda: exact_top_k(torch.ones(3), torch.ones(2, 3), 1), "(Q, D)"),
        (lambda: exact_top_k(torch.ones(1, 4), torch.ones(2, 3), 1), "(1, 4)"),
        (lambda: exact_top_k(torch.ones(1, 3), torch.ones(0, 3), 1), "nothing to rank"),
        (lambda: exact_top_k(torch.ones(1, 3), torch.ones(2, 3), 1.5), "k must be"),
        (lambda: exact_top_k(torch.ones(1, 3), torch.ones(2, 3), 1, chunk=0), "chunk must be"),
        (lambda: exact_top_k(torch.ones(1, 3), torch.tensor([[1, 1, 1], [1, math.nan, 1]]), 1), "not a number"),
        (lambda: late_top_k([], [torch.ones(2, 3)], 1), "nothing to rank"),
        (lambda: late_top_k([torch.ones(2, 3)], [torch.ones(1, 3), torch.ones(0, 3)], 1), "document 1"),
        (lambda: late_top_k([torch.ones(2, 3)], [torch.ones(2, 4)], 1), "document 0"),
        (lambda: late_top_k([torch.ones(2, 3), torch.ones(3)], [torch.ones(2, 3)], 1), "query 1"),
        (lambda: late_top_k([torch.ones(2, 3)], [torch.full((2, 3), math.nan)], 1), "not a number"),
        (lambda: evaluate_ranking(RANKINGS, [0, 0, 0]), "looks at 100"),
        (lambda: evaluate_ranking(RANKINGS, [0, 0]), "2 queries"),
        (lambda: evaluate_ranking(RANKINGS, [{0}, set(), {0}], documents=3), "query 1"),
        (lambda: evaluate_ranking([[1, 1]], [1], documents=2), "twice"),
        (lambda: reciprocal_ranks([[1, 2], [1]], [1, 1]), "equally long"),
        (lambda: reciprocal_ranks([[0.5, 0.1]], [1]), "float"),
        (lambda: reciprocal_ranks(RANKINGS, [0, 0, 0], k=0), "k must be"),
        (lambda: bootstrap_interval([]), "one or more"),
        (lambda: bootstrap_interval([1, 2], draws=0), "draws must be"),
    ],
)
def test_mistakes_are_named_in_one_line(call, words):
    with pytest.raises(InputError) as raised:
        call()
    assert words in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "module, package, call",
    [
        ("bm25s", "bm25s", lambda: Bm25(["a"])),
        ("sentence_transformers", "sentence-transformers", lambda: evaluate_ranking(RANKINGS, [0, 0, 0], documents=3)),
    ],
)
def test_a_missing_package_is_named_with_its_line(monkeypatch, module, package, call):
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"pip install {package}$"):
        call()


def test_importing_loads_no_optional_package():
    slow = ["bm25s", "sentence_transformers", "transformers", "sklearn", "scipy"]
    program = f"import sys, modernbert_edu.tasks.ranking; print([m for m in {slow} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
