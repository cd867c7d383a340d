"""The tokenizers: ModernBERT's layout of ids, exact round trips, and the same ids as transformers."""

import argparse
import json
import textwrap
import unicodedata
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from modernbert_edu.data.tokenizer import (
    SPECIAL_TOKENS,
    Tokenizer,
    load_tokenizer,
    save_tokenizer,
    train_bpe,
    train_wordpiece,
)
from modernbert_edu.errors import InputError

# Real code and prose, on every machine; and words that the tests below ask for.
TEXTS = [
    Path(argparse.__file__).read_text(encoding="utf-8"),
    Path(textwrap.__file__).read_text(encoding="utf-8"),
    "The quick brown fox jumps over a lazy dog. " * 20 + "fox boxfox foxquick quickfox. " * 20,
]
SAMPLES = [
    "The quick brown fox.",
    "Isn't it naive? na\u00efve \u4f60\u597d \U0001f600",
    "def f(x):\n        return x  # two  spaces\t\ttabs\r\n",
    "The capital of France is [MASK].",
    "[MASK] at the start, and [SEP] inside",
    "a , b . c ' s",
    "",
]


@pytest.fixture(scope="module")
def bpe():
    return train_bpe(TEXTS, 512)


@pytest.fixture(scope="module")
def wordpiece():
    return train_wordpiece(TEXTS, 640)


# ---------------------------------------------------------------------------------------------------- byte-level BPE


def test_the_published_layout_at_full_size():
    with pytest.warns(UserWarning, match="too small for 50,368"):
        tokenizer = train_bpe(TEXTS)
    assert len(tokenizer) == tokenizer.vocab_size == 50_368 == 64 * 787

    # Enough different words for all the merges.
    random = Random(0)
    words = ["".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=8)) for _ in range(20_000)]
    tokenizer = train_bpe([" ".join(words * 2)])
    ids = (tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id, tokenizer.mask_id)
    assert ids == (50_280, 50_281, 50_282, 50_283, 50_284)
    assert tokenizer.special_ids == frozenset(ids)
    assert tokenizer.ordinary_ids.tolist() == list(range(50_280))
    assert tokenizer.backend.id_to_token(50_285) == "[unused0]"
    assert tokenizer.backend.id_to_token(50_367) == "[unused82]"
    assert tokenizer.vocab_size == 50_368


@pytest.mark.parametrize("vocab_size, unused", [(320, 0), (512, 0), (1024, 1)])
def test_a_small_vocabulary_has_the_same_layout(vocab_size, unused):
    tokenizer = train_bpe(TEXTS, vocab_size)
    assert tokenizer.vocab_size == vocab_size
    assert tokenizer.mask_id == vocab_size - unused - 1
    assert len(tokenizer.ordinary_ids) == vocab_size - 5 - unused


def test_too_little_text_leaves_unused_ids_and_says_so():
    with pytest.warns(UserWarning, match="stay unused"):
        tokenizer = train_bpe(["hello hello"], 640)
    assert tokenizer.vocab_size == 640
    assert tokenizer.decode(tokenizer.encode("anything at all")) == "anything at all"
    assert len(tokenizer.ordinary_ids) < 300
    assert tokenizer.backend.id_to_token(639).startswith("[unused")


@pytest.mark.parametrize("vocab_size", [0, 256, 1000, 50_300])
def test_impossible_sizes_are_refused(vocab_size):
    with pytest.raises(InputError, match="multiple of 64, at least 320"):
        train_bpe(TEXTS, vocab_size)


def test_one_string_is_not_a_list_of_texts():
    for train in (train_bpe, train_wordpiece):
        with pytest.raises(InputError, match="list of texts"):
            train("some text", 320)


@settings(max_examples=300, deadline=None)
@given(text=st.text())
def test_any_text_comes_back(bpe, text):
    text = unicodedata.normalize("NFC", text)
    assert bpe.decode(bpe.encode(text)) == text
    assert bpe.unk_id not in bpe.encode(text)


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="a (\n\t'"))
def test_whitespace_comes_back(bpe, text):
    assert bpe.decode(bpe.encode(text)) == text


def test_indentation_is_one_token(bpe):
    for spaces in range(2, 25):
        run = " " * spaces
        assert bpe.tokens(f"\n{run}return") == ["\u010a", run, *bpe.tokens("return")]
    assert bpe.tokens(" " * 30) == [" " * 24, " " * 6]


def test_no_merge_of_spaces_wastes_an_id(bpe):
    assert not [token for token in bpe.backend.get_vocab() if token.startswith("\u0120\u0120")]


def test_the_mask_takes_the_space_before_it(bpe):
    assert bpe.tokens("dog [MASK].") == [*bpe.tokens("dog"), "[MASK]", "."]


def test_single_texts_and_pairs(bpe, wordpiece):
    for tokenizer in (bpe, wordpiece):
        a, b = (tokenizer.encode(text, add_special_tokens=False) for text in ("the fox", "a dog"))
        cls, sep = tokenizer.cls_id, tokenizer.sep_id
        assert tokenizer.encode("the fox") == [cls, *a, sep]
        pair = tokenizer.backend.encode("the fox", "a dog")
        assert pair.ids == [cls, *a, sep, *b, sep]
        assert pair.type_ids == [0] * (len(a) + 2) + [1] * (len(b) + 1)


def test_max_length_keeps_the_last_separator(bpe):
    whole = bpe.encode("the quick brown fox jumps over a lazy dog")
    assert bpe.encode("the quick brown fox jumps over a lazy dog", max_length=len(whole)) == whole
    cut = bpe.encode("the quick brown fox jumps over a lazy dog", max_length=6)
    assert cut == [*whole[:5], bpe.sep_id]
    bare = bpe.encode("the quick brown fox", add_special_tokens=False, max_length=2)
    assert bare == whole[1:3]
    with pytest.raises(InputError, match="max_length"):
        bpe.encode("x", max_length=1)


# --------------------------------------------------------------------------------------------------------- WordPiece


def test_wordpiece_is_berts(wordpiece):
    assert [wordpiece.backend.id_to_token(id_) for id_ in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert wordpiece.name == "WordPiece" and wordpiece.max_length == 512 and wordpiece.vocab_size == 640
    assert wordpiece.tokens("The QUICK") == wordpiece.tokens("the quick")
    first, *rest = wordpiece.tokens("foxjumps")
    assert not first.startswith("##") and rest and all(piece.startswith("##") for piece in rest)
    assert wordpiece.decode(wordpiece.encode("the foxjumps")) == "the foxjumps"
    assert wordpiece.tokens("\u4f60") == ["[UNK]"]
    assert wordpiece.tokens("fox" * 33 + "f") != ["[UNK]"] == wordpiece.tokens("fox" * 34)  # 100 letters and 102


def test_wordpiece_case_can_be_kept():
    cased = train_wordpiece(["Fox fox"] * 3, 14, lowercase=False)
    assert cased.tokens("Fox") != cased.tokens("fox")


def test_wordpiece_fills_up_with_unused_ids():
    with pytest.warns(UserWarning, match="stay unused"):
        tokenizer = train_wordpiece(["fox fox"], 64)
    assert tokenizer.vocab_size == 64
    assert 63 not in tokenizer.ordinary_ids
    assert tokenizer.ordinary_ids.min() == 5
    with pytest.raises(InputError, match="characters alone need"):
        train_wordpiece(TEXTS, 20)


@pytest.mark.parametrize("train", [train_bpe, train_wordpiece])
def test_the_same_texts_give_the_same_vocabulary(train):
    """The library's own WordPiece trainer fails this: it numbers by the order of a randomised hash table."""
    assert len({train(TEXTS, 640).backend.to_str() for _ in range(4)}) == 1


# ------------------------------------------------------------------------------------------------------- on the disk


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_transformers_reads_the_folder_as_we_do(kind, request, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours = request.getfixturevalue(kind)
    save_tokenizer(ours, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)

    assert {role: getattr(theirs, role) for role in SPECIAL_TOKENS} == SPECIAL_TOKENS
    assert theirs.mask_token_id == ours.mask_id and theirs.pad_token_id == ours.pad_id
    assert theirs.model_max_length == ours.max_length
    assert theirs.model_input_names == ["input_ids", "attention_mask"]
    assert len(theirs) == len(ours)
    for text in SAMPLES:
        ids = ours.encode(text)
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == ours.decode(ids, skip_special_tokens=False)
        assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids)
    assert theirs("the fox", "a dog")["input_ids"] == ours.backend.encode("the fox", "a dog").ids
    assert set(theirs("the fox")) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_a_folder_saved_here_or_by_transformers_opens_here(kind, request, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours = request.getfixturevalue(kind)
    save_tokenizer(ours, tmp_path / "ours")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    theirs(["a", "the fox"], padding=True, truncation=True, max_length=3)  # leaves its settings in tokenizer.json
    theirs.save_pretrained(tmp_path / "theirs")
    for folder in ("ours", "theirs"):
        back = load_tokenizer(tmp_path / folder)
        assert [back.encode(text) for text in SAMPLES] == [ours.encode(text) for text in SAMPLES]
        assert back.encode_batch(["a", "the quick brown fox"]) == ours.encode_batch(["a", "the quick brown fox"])
        assert (back.vocab_size, back.max_length, back.special_ids) == (
            ours.vocab_size,
            ours.max_length,
            ours.special_ids,
        )
        assert back.ordinary_ids.equal(ours.ordinary_ids)
        assert back.model_input_names == ("input_ids", "attention_mask")
        assert back.name == ours.name
    assert not list((tmp_path / "ours").glob(".*"))  # no temporary file stays


def test_an_old_bert_folder_with_only_a_vocabulary_opens(wordpiece, tmp_path):
    transformers = pytest.importorskip("transformers")
    vocab = sorted(wordpiece.backend.get_vocab(), key=wordpiece.backend.get_vocab().get)
    (tmp_path / "vocab.txt").write_text("\n".join([*vocab, "Fox"]) + "\n", encoding="utf-8")
    opened = load_tokenizer(tmp_path)
    assert opened.max_length is None
    assert opened.vocab_size == wordpiece.vocab_size + 1
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    for text in SAMPLES:
        assert opened.encode(text) == wordpiece.encode(text) == theirs(text)["input_ids"]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "model_max_length": 512}')
    cased = load_tokenizer(tmp_path)
    assert cased.tokens("Fox") == ["Fox"] and cased.max_length == 512


def test_names_of_special_tokens_come_from_the_folder(bpe, tmp_path):
    """RoBERTa's <mask>, <s> and </s>, spelt as older folders spell them."""
    save_tokenizer(bpe, tmp_path)
    names = {
        "unk_token": "<unk>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    }
    text = (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    for role, name in SPECIAL_TOKENS.items():
        text = text.replace(name, names[role])
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"mask_token": {"content": "<mask>", "lstrip": True}}))
    config = {role: name for role, name in names.items() if role != "mask_token"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": int(1e30)}))
    opened = load_tokenizer(tmp_path)
    assert opened.mask_id == bpe.mask_id and opened.cls_id == bpe.cls_id
    assert opened.max_length is None
    assert opened.encode("the <mask>") == bpe.encode("the [MASK]")


def test_further_special_tokens_are_not_ordinary():
    """The published ModernBERT has <|endoftext|> and the like."""
    backend = train_bpe(TEXTS, 512).backend
    backend.add_special_tokens([AddedToken("<|endoftext|>")])
    assert backend.token_to_id("<|endoftext|>") not in Tokenizer(backend).ordinary_ids.tolist()


def test_broken_folders_are_refused(bpe, tmp_path):
    with pytest.raises(InputError, match="neither tokenizer.json nor vocab.txt"):
        load_tokenizer(tmp_path / "nowhere")
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match=r"has no \[PAD\]"):
        load_tokenizer(tmp_path)
    save_tokenizer(bpe, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(InputError, match="tokenizer_config.json' is broken"):
        load_tokenizer(tmp_path)
    save_tokenizer(bpe, tmp_path)
    whole = (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(whole[: len(whole) // 2], encoding="utf-8")
    with pytest.raises(InputError, match="tokenizer.json' is broken") as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)
    (tmp_path / "tokenizer.json").write_text(whole.replace("[MASK]", "[HIDE]"), encoding="utf-8")
    with pytest.raises(InputError, match="no mask_token"):
        load_tokenizer(tmp_path)


def test_a_folder_that_cannot_be_written(bpe, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write the tokenizer"):
        save_tokenizer(bpe, tmp_path / "file")
