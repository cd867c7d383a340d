"""Retrievers: vectors of texts, equal to sentence-transformers', both ways; what does not open says why."""

import json
import warnings

import pytest
import torch

from modernbert_edu import (
    Embedder,
    EncoderConfig,
    InputError,
    MaskedLM,
    SequenceClassifier,
    TokenEmbedder,
    load_retriever,
    pack,
    save,
    save_retriever,
)
from modernbert_edu.data.tokenizer import train_bpe, train_wordpiece
from modernbert_edu.retriever import fingerprint, max_sim

TEXTS = [
    "return the sum of two numbers",
    "x",
    " open a file, read its lines\nand close it ",
    "sort a list in place " * 30,
    "def add(a, b):\n    return a + b",
]


def tiny(kind="modernbert", **changes) -> tuple[MaskedLM, object]:
    torch.manual_seed(0)
    train = train_bpe if kind == "modernbert" else train_wordpiece
    size = dict(vocab_size=448) if kind == "modernbert" else dict(vocab_size=128)
    with warnings.catch_warnings():  # so little text leaves ids unused
        warnings.simplefilter("ignore")
        tokenizer = train([*TEXTS, "quick brown foxes jump over lazy dogs"] * 3, **size)
    sizes = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48,
                 vocab_size=tokenizer.vocab_size, max_position_embeddings=128)  # fmt: skip
    config = EncoderConfig.preset(f"{kind}-tiny", **{**sizes, **changes})
    return MaskedLM(config).eval(), tokenizer


@pytest.fixture(params=["modernbert", "bert"])
def pretrained(request):
    return tiny(request.param)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_each_text_alone_in_its_order(pretrained, pooling):
    model = Embedder.from_pretrained(*pretrained, pooling=pooling)
    together = model.encode(TEXTS, batch_tokens=150)
    assert together.shape == (len(TEXTS), 32) and together.dtype == torch.float32
    alone = torch.cat([model.encode([text]) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(len(TEXTS)))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_vector_by_hand(pretrained, pooling):
    lm, tokenizer = pretrained
    model = Embedder.from_pretrained(lm, tokenizer, pooling=pooling, normalize=False)
    ids = tokenizer.encode(TEXTS[0])
    hidden = lm.encoder(torch.tensor([ids])).last_hidden_state[0]
    wanted = hidden.mean(dim=0) if pooling == "mean" else hidden[0]
    torch.testing.assert_close(model.encode([TEXTS[0]])[0], wanted, atol=1e-5, rtol=1e-4)


def test_flat_tokens_give_what_a_padded_batch_gives(pretrained):
    model = Embedder.from_pretrained(*pretrained).eval()
    tokens = TokenEmbedder.from_pretrained(*pretrained, dimension=8).eval()
    rows = model.token_ids(TEXTS[:3], "document")
    ids, layout = pack(rows)
    torch.testing.assert_close(model(ids, layout=layout), model.encode(TEXTS[:3]), atol=1e-5, rtol=1e-4)
    flat = tokens(ids, layout=layout).split([len(row) for row in rows])
    for one, other in zip(flat, tokens.encode(TEXTS[:3]), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_long_texts_are_cut_and_counted(pretrained):
    model = Embedder.from_pretrained(*pretrained, max_length=12)
    rows = model.token_ids(TEXTS, "document")
    assert max(map(len, rows)) == 12 and all(row[-1] == model.tokenizer.sep_id for row in rows)
    model.encode(TEXTS)
    assert model.cut == sum(len(model.tokenizer.encode(text)) > 12 for text in TEXTS) > 0


def test_prompts_stand_before_the_text():
    lm, tokenizer = tiny()
    model = Embedder.from_pretrained(lm, tokenizer, prompts={"query": "sort: "})
    plain = Embedder.from_pretrained(lm, tokenizer)
    torch.testing.assert_close(model.encode(["a list"], "query"), plain.encode(["sort: a list"], "query"))
    torch.testing.assert_close(model.encode(["a list"]), plain.encode(["a list"]))


def test_late_interaction_is_the_sum_of_best_matches(pretrained):
    model = TokenEmbedder.from_pretrained(*pretrained, dimension=8)
    query = model.encode([TEXTS[0]], "query")[0]
    documents = model.encode(TEXTS)
    assert [len(d) for d in documents] == [len(row) for row in model.token_ids(TEXTS, "document")]
    wanted = [sum(max(float(q @ d) for d in document) for q in query) for document in documents]
    torch.testing.assert_close(max_sim(query, documents), torch.tensor(wanted), atol=1e-4, rtol=1e-4)


def test_the_mode_is_left_as_it_was():
    model = Embedder.from_pretrained(*tiny()).train()
    model.encode(TEXTS[:2])
    assert model.training
    assert not any(p.grad is not None for p in model.parameters())


# ---- sentence-transformers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("normalize", [True, False])
def test_sentence_transformers_gives_the_same_vectors_and_scores(tmp_path, pretrained, pooling, normalize):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = Embedder.from_pretrained(*pretrained, pooling=pooling, normalize=normalize, max_length=64,
                                     prompts={"query": "find: "})  # fmt: skip
    save_retriever(model, tmp_path / "retriever")
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "retriever"), device="cpu")
    assert theirs.max_seq_length == 64
    texts = torch.from_numpy(theirs.encode(TEXTS, prompt_name="document"))
    queries = torch.from_numpy(theirs.encode(TEXTS[:2], prompt_name="query"))
    torch.testing.assert_close(texts, model.encode(TEXTS), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(queries, model.encode(TEXTS[:2], "query"), atol=1e-5, rtol=1e-4)
    ours = model.encode(TEXTS[:2], "query") @ model.encode(TEXTS).T
    torch.testing.assert_close(theirs.similarity(queries, texts), ours, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_retriever_of_sentence_transformers_opens_here(tmp_path, pretrained, pooling):
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

    save(pretrained[0], pretrained[1], tmp_path / "plain")
    transformer = Transformer(str(tmp_path / "plain"))
    parts = [transformer, Pooling(32, pooling_mode=pooling), Normalize()]
    theirs = SentenceTransformer(modules=parts, prompts={"query": "q: ", "passage": "p: "}, device="cpu")
    theirs.max_seq_length = 40
    theirs.save(str(tmp_path / "theirs"))
    model = load_retriever(tmp_path / "theirs")
    assert (model.pooling, model.max_length) == (pooling, 40)
    assert model.prompts == {"query": "q: ", "document": "p: "}
    for kind, prompt in (("query", "query"), ("document", "passage")):
        wanted = torch.from_numpy(theirs.encode(TEXTS, prompt_name=prompt))
        torch.testing.assert_close(model.encode(TEXTS, kind), wanted, atol=1e-5, rtol=1e-4)


def test_late_interaction_is_sentence_transformers_too(tmp_path, pretrained):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.0")
    model = TokenEmbedder.from_pretrained(*pretrained, dimension=16, max_length=50)
    save_retriever(model, tmp_path / "late")
    theirs = sentence_transformers.MultiVectorEncoder(str(tmp_path / "late"), device="cpu")
    for one, other in zip(theirs.encode_document(TEXTS), model.encode(TEXTS), strict=True):
        torch.testing.assert_close(torch.as_tensor(one), other, atol=1e-5, rtol=1e-4)
    scores = theirs.similarity(theirs.encode_query(TEXTS[:1]), theirs.encode_document(TEXTS))
    ours = max_sim(model.encode(TEXTS[:1], "query")[0], model.encode(TEXTS))
    torch.testing.assert_close(torch.as_tensor(scores)[0], ours, atol=1e-4, rtol=1e-4)
    theirs.save(str(tmp_path / "theirs"))
    again = load_retriever(tmp_path / "theirs")
    torch.testing.assert_close(again.encode(TEXTS)[3], model.encode(TEXTS)[3], atol=1e-5, rtol=1e-4)


# ---- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [Embedder, TokenEmbedder])
def test_saved_and_opened_again(tmp_path, pretrained, made):
    model = made.from_pretrained(*pretrained, max_length=60, prompts={"document": "text: "})
    again = load_retriever(save_retriever(model, tmp_path / "r"))
    assert type(again) is made and fingerprint(again) == fingerprint(model)
    assert (again.max_length, again.prompts) == (60, {"query": "", "document": "text: "})
    for one, other in zip(again.encode(TEXTS), model.encode(TEXTS), strict=True):
        torch.testing.assert_close(one, other)


def test_an_architecture_of_our_own_is_kept_as_well(tmp_path):
    lm, tokenizer = tiny("bert", positions="rope")
    with pytest.warns(UserWarning, match="opens with modernbert_edu"):
        folder = save_retriever(Embedder.from_pretrained(lm, tokenizer, pooling="cls"), tmp_path / "r")
    assert load_retriever(folder).pooling == "cls"


def test_fingerprints_tell_models_apart():
    lm, tokenizer = tiny()
    known = {fingerprint(Embedder.from_pretrained(lm, tokenizer, **options))
             for options in ({}, {"pooling": "cls"}, {"max_length": 50}, {"prompts": {"query": "q"}})}  # fmt: skip
    other = Embedder.from_pretrained(lm, tokenizer)
    with torch.no_grad():
        other.encoder.embeddings.tok_embeddings.weight[7, 3] += 1e-3
    assert len(known | {fingerprint(other)}) == 5


def test_a_pretrained_model_opens_with_mean_pooling(tmp_path, pretrained):
    save(*pretrained, tmp_path / "plain")
    model = load_retriever(tmp_path / "plain")
    assert (type(model), model.pooling, model.normalize) == (Embedder, "mean", True)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def unlink_pooling(folder):
    (folder / "1_Pooling" / "config.json").unlink()


def pool_by_max(folder):
    edit(folder / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_max_tokens=True)


def pool_twice(folder):
    edit(folder / "1_Pooling" / "config.json", pooling_mode_cls_token=True)


def without_prompt(folder):
    edit(folder / "1_Pooling" / "config.json", include_prompt=False)


def cut_short(folder):
    (folder / "modules.json").write_text("[{")


def with_layer(folder):
    listed = json.loads((folder / "modules.json").read_text())
    listed.append(dict(idx=3, name="3", path="3_Dense", type="sentence_transformers.models.Dense"))
    (folder / "modules.json").write_text(json.dumps(listed))


def without_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(unlink_pooling, "lacks config.json"), (pool_by_max, "pools by max"), (pool_twice, "pools by cls_token, mean"),
     (without_prompt, "leaves its prompt out"), (cut_short, "not readable JSON"),
     (with_layer, "Pooling, Normalize, Dense"), (without_tokenizer, "has no tokenizer")],
)  # fmt: skip
def test_what_does_not_open_says_why(tmp_path, spoil, said):
    folder = save_retriever(Embedder.from_pretrained(*tiny()), tmp_path / "r")
    spoil(folder)
    with pytest.raises(InputError, match=said):
        load_retriever(folder)


def test_late_interaction_with_more_than_is_computed_here_is_refused(tmp_path):
    folder = save_retriever(TokenEmbedder.from_pretrained(*tiny()), tmp_path / "r")
    edit(folder / "2_MultiVectorMask" / "config.json", skiplist_words=["."])
    edit(folder / "sentence_bert_config.json", query_expansion={"length": 32})
    with pytest.raises(InputError, match="query expansion, a list of words to skip"):
        load_retriever(folder)


def test_bad_settings_are_refused():
    lm, tokenizer = tiny()
    with pytest.raises(InputError, match="max_length must lie between 3 and the model's 128"):
        Embedder.from_pretrained(lm, tokenizer, max_length=129)
    with pytest.raises(InputError, match="pooling must be one of"):
        Embedder.from_pretrained(lm, tokenizer, pooling="max")
    with pytest.raises(InputError, match="not a 'passage'"):
        Embedder.from_pretrained(lm, tokenizer).encode(["x"], "passage")
    with pytest.raises(InputError, match="cannot become a retriever"):
        Embedder.from_pretrained(SequenceClassifier(lm.config, ["a", "b"]), tokenizer)
    with pytest.raises(InputError, match="dimension must be at least 1"):
        TokenEmbedder.from_pretrained(lm, tokenizer, dimension=0)


def test_a_writing_cut_short_does_not_open(tmp_path, monkeypatch):
    """The encoder alone would open, with mean pooling whatever the retriever had."""
    from modernbert_edu import retriever_folder

    model = Embedder.from_pretrained(*tiny(), pooling="cls")
    folder = save_retriever(model, tmp_path / "r")
    real = retriever_folder._write

    def stop_at_pooling(path, content):
        if path.parent.name == "1_Pooling":
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(retriever_folder, "_write", stop_at_pooling)
    with pytest.raises(KeyboardInterrupt):
        save_retriever(model, folder)
    with pytest.raises(InputError, match="cut short"):
        load_retriever(folder)
