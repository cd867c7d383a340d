"""Text to ids and back: ModernBERT's byte-level BPE, and BERT's WordPiece for comparison.

Both are trained and run by the `tokenizers` library; this file holds the conventions.

ModernBERT's tokenizer is OLMo's, which is GPT-NeoX-20B's with BERT's special tokens (arXiv 2412.13663, section
2.2.1). What sets it apart from BERT's WordPiece:
- it works on bytes, so no text is unknown, and case, accents and whitespace survive;
- every run of 2 to 24 spaces is one token, so that the indentation of code costs one token;
- its 50,368 ids are a multiple of 64, which suits the matrix kernels of a GPU. 50,280 of them are ordinary, 5 special
  ([UNK] [CLS] [SEP] [PAD] [MASK], 50,280 to 50,284), 83 unused.
"""

import functools
import hashlib
import json
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import tokenizers
import torch
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from modernbert_edu.errors import InputError

# The role of each special token (transformers' name for it) and its text, in ModernBERT's order.
SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}
BERT_ORDER = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # BERT counts these first, from 0

FULL_VOCAB_SIZE, FULL_UNUSED = 50_368, 83  # the published ModernBERT's
SPACE_RUNS = [" " * length for length in range(24, 1, -1)]  # longest first, as GPT-NeoX-20B numbers them
BERT_ALPHABET = 1_000  # characters a WordPiece vocabulary keeps; rarer ones become [UNK]

UNUSED = re.compile(r"\[unused\d+\]")


class Tokenizer:
    """Text to ids and back: a thin layer over `tokenizers.Tokenizer`, which is `.backend`.

    `max_length` is the longest sequence the tokenizer's model was made for (None: not known). It is information:
    `encode` cuts only where it is told to. `special_tokens` maps a role ("mask_token") to its text ("[MASK]").
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        max_length: int | None = None,
        special_tokens: dict[str, str] = SPECIAL_TOKENS,
        model_input_names: tuple[str, ...] = ("input_ids", "attention_mask"),
    ):
        backend.no_truncation()  # a tokenizer.json may carry the settings of its last use
        backend.no_padding()
        missing = [role for role in SPECIAL_TOKENS if backend.token_to_id(special_tokens.get(role, "")) is None]
        if missing:
            raise InputError(
                f"the tokenizer has no {' and no '.join(missing)}: masked language modelling needs all five"
            )
        self.backend = backend
        self.max_length = max_length
        self.special_tokens = {role: special_tokens[role] for role in SPECIAL_TOKENS}
        self.model_input_names = tuple(model_input_names)
        self.unk_id, self.cls_id, self.sep_id, self.pad_id, self.mask_id = (
            backend.token_to_id(text) for text in self.special_tokens.values()
        )
        self.special_ids = frozenset((self.unk_id, self.cls_id, self.sep_id, self.pad_id, self.mask_id))

    @property
    def name(self) -> str:
        kind = type(self.backend.model).__name__
        return "byte-level BPE" if kind == "BPE" else kind

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that two tokenizers share exactly if they cut every text alike."""
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()[:16]

    @functools.cached_property
    def vocab_size(self) -> int:
        """The number of rows an embedding needs: all ids, special and unused ones included."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def __len__(self) -> int:
        return self.vocab_size

    @functools.cached_property
    def ordinary_ids(self) -> torch.Tensor:
        """(N,) int64, sorted: the ids that stand for text. Masking draws its random tokens from these."""
        special = {id_ for id_, token in self.backend.get_added_tokens_decoder().items() if token.special}
        vocab = self.backend.get_vocab(with_added_tokens=True)
        unused = {id_ for token, id_ in vocab.items() if UNUSED.fullmatch(token)}
        return torch.tensor(sorted(set(vocab.values()) - unused - special - self.special_ids))

    def encode(self, text: str, add_special_tokens: bool = True, max_length: int | None = None) -> list[int]:
        """`[CLS] text [SEP]` as ids. With `max_length` the tail is cut and [SEP] kept.

        A special token written out in the text, "[MASK]" say, becomes that token.
        """
        return self.encode_batch([text], add_special_tokens, max_length)[0]

    def encode_batch(
        self, texts: Iterable[str], add_special_tokens: bool = True, max_length: int | None = None
    ) -> list[list[int]]:
        """`encode` for many texts, on all cores."""
        if max_length is not None and max_length < 2:
            raise InputError(f"max_length is {max_length}: [CLS] and [SEP] alone need 2")
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        sequences = [encoding.ids for encoding in encodings]
        if max_length is None:
            return sequences
        tail = [self.sep_id] if add_special_tokens else []
        return [ids if len(ids) <= max_length else ids[: max_length - len(tail)] + tail for ids in sequences]

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        return self.backend.decode([int(id_) for id_ in ids], skip_special_tokens=skip_special_tokens)

    def tokens(self, text: str) -> list[str]:
        """The text's tokens as the vocabulary spells them, without [CLS] and [SEP].

        In byte-level BPE each byte has a visible stand-in: a space is shown as U+0120, a line end as U+010A.
        """
        return [self.backend.id_to_token(id_) for id_ in self.encode(text, add_special_tokens=False)]


# ---------------------------------------------------------------------------------------------------------- training


def train_bpe(
    texts: Iterable[str], vocab_size: int = FULL_VOCAB_SIZE, *, max_length: int = 8192, min_frequency: int = 2
) -> Tokenizer:
    """Train a byte-level BPE with ModernBERT's conventions.

    Ids in order: the 256 bytes, the merges, the 23 runs of spaces, the 5 special tokens, the unused ids. The share of
    unused ids is the published one: 83 of 50,368, so 6 of 4,096. Where the text yields fewer merges than asked for,
    the ids left over are unused ones too, with a warning: the vocabulary always has `vocab_size` ids.

    Raises InputError for a size that is no multiple of 64 or has no room for the 256 bytes.
    """
    unused = FULL_UNUSED * vocab_size // FULL_VOCAB_SIZE
    num_merged = vocab_size - unused - len(SPECIAL_TOKENS) - len(SPACE_RUNS)
    if vocab_size % 64 or num_merged < 256:
        raise InputError(f"vocab_size is {vocab_size:,}: a byte-level BPE needs a multiple of 64, at least 320")

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    # At use the runs of spaces are taken out of the text before the merges see it. So they are in training: the
    # published vocabulary has 221 merges of spaces that can never be used (GPT-NeoX issue 585).
    outside_runs = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(" {2,}"), "removed"), byte_level])
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = outside_runs
    trainer = trainers.BpeTrainer(
        vocab_size=num_merged,
        min_frequency=min_frequency,
        initial_alphabet=sorted(byte_level.alphabet()),
        show_progress=sys.stderr.isatty(),
    )
    backend.train_from_iterator(_as_texts(texts), trainer)
    backend.pre_tokenizer = byte_level
    backend.decoder = decoders.ByteLevel()

    backend.add_tokens([AddedToken(run, normalized=True) for run in SPACE_RUNS])
    # lstrip: in "it is [MASK]." the mask takes the space before it, as the token " good" would
    backend.add_special_tokens(
        [AddedToken(token, lstrip=token == "[MASK]", normalized=False) for token in SPECIAL_TOKENS.values()]
    )
    left_over = vocab_size - backend.get_vocab_size()
    _warn_if_short(left_over - unused, vocab_size)
    backend.add_tokens([AddedToken(f"[unused{number}]", normalized=True) for number in range(left_over)])
    _add_template(backend)
    return Tokenizer(backend, max_length=max_length)


def train_wordpiece(
    texts: Iterable[str], vocab_size: int = 30_522, *, lowercase: bool = True, max_length: int = 512
) -> Tokenizer:
    """Train BERT's WordPiece: words split at spaces and punctuation, continuations marked ##.

    Ids in order: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, then the vocabulary. (The published BERT has the same
    tokens with its unused ids between them.) The pieces are chosen as BPE chooses them, by frequency, as `tokenizers`
    does; Google's own trainer was never published. Too little text: as in `train_bpe`.
    """
    texts = list(_as_texts(texts))
    backend = _wordpiece({token: id_ for id_, token in enumerate(BERT_ORDER)}, lowercase)
    characters = Counter()
    for text in texts:
        characters.update(backend.normalizer.normalize_str(text))
    ranked = sorted((c for c in characters if not c.isspace()), key=lambda c: (-characters[c], c))
    alphabet = sorted(ranked[:BERT_ALPHABET])

    def train(size: int, first: list[str]) -> dict[str, int]:
        trainer = trainers.WordPieceTrainer(
            vocab_size=size,
            special_tokens=first,
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=sys.stderr.isatty() and size == vocab_size,
        )
        backend.train_from_iterator(texts, trainer)
        return backend.get_vocab()

    # The trainer numbers the continuations (##a, ##b, ...) as it meets them, in the order of a randomised hash table.
    # A first pass without merges finds them; fixing their order makes the second pass the same in every run.
    smallest = train(1, list(BERT_ORDER))
    if vocab_size < len(smallest):
        raise InputError(f"vocab_size is {vocab_size:,}: this text's characters alone need {len(smallest):,}")
    vocab = train(vocab_size, [*BERT_ORDER, *sorted(token for token in smallest if token.startswith("##"))])

    left_over = vocab_size - len(vocab)
    _warn_if_short(left_over, vocab_size)
    vocab |= {f"[unused{number}]": len(vocab) + number for number in range(left_over)}
    return Tokenizer(_wordpiece(vocab, lowercase), max_length=max_length)


def _wordpiece(vocab: dict[str, int], lowercase: bool, **normalizer_options) -> tokenizers.Tokenizer:
    """BERT's pipeline around a given vocabulary."""
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase, **normalizer_options)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in BERT_ORDER])
    _add_template(backend)
    return backend


def _add_template(backend: tokenizers.Tokenizer) -> None:
    """`[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`; the second text has token type 1."""
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )


def _as_texts(texts: Iterable[str]) -> Iterable[str]:
    if isinstance(texts, str):  # it would be read as texts of one character each
        raise InputError("texts is one string: give a list of texts")
    return iter(texts)


def _warn_if_short(missing: int, vocab_size: int) -> None:
    if missing > 0:
        warnings.warn(
            f"the text is too small for {vocab_size:,} ids: {missing:,} of them stay unused; "
            "give more text or a smaller vocab_size",
            stacklevel=3,
        )


# -------------------------------------------------------------------------------------------------------- on the disk


def save_tokenizer(tokenizer: Tokenizer, folder) -> None:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json as `AutoTokenizer` reads them."""
    folder = Path(folder)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": list(tokenizer.model_input_names),
        "clean_up_tokenization_spaces": False,  # "a , b" must come back as it was
        **tokenizer.special_tokens,
    }
    if tokenizer.max_length is not None:
        config["model_max_length"] = tokenizer.max_length
    added = {token.content: token for token in tokenizer.backend.get_added_tokens_decoder().values()}
    special_tokens_map = {}
    for role, text in tokenizer.special_tokens.items():
        flags = ("content", "lstrip", "normalized", "rstrip", "single_word")
        special_tokens_map[role] = {flag: getattr(added[text], flag) for flag in flags} if text in added else text
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "tokenizer.json", tokenizer.backend.to_str(pretty=True))
        _write(folder / "tokenizer_config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        _write(folder / "special_tokens_map.json", json.dumps(special_tokens_map, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise InputError(f"cannot write the tokenizer to {str(folder)!r}: {error.strerror or error}") from error


def load_tokenizer(folder) -> Tokenizer:
    """Open a tokenizer folder: one of ours, a published ModernBERT or BERT, or one saved by transformers.

    Reads tokenizer.json, or vocab.txt where an old BERT folder has only that; the special tokens' names and the
    length come from tokenizer_config.json and special_tokens_map.json where they are there. Raises InputError for
    a file that is missing or broken, and for a tokenizer without one of the five special tokens.
    """
    folder = Path(folder)
    config = {**_read_json(folder / "special_tokens_map.json"), **_read_json(folder / "tokenizer_config.json")}
    if (folder / "tokenizer.json").is_file():
        try:
            backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises a bare Exception
            raise InputError(f"{str(folder / 'tokenizer.json')!r} is broken: {str(error).splitlines()[0]}") from error
    elif (folder / "vocab.txt").is_file():
        backend = _from_vocab_txt(folder / "vocab.txt", config)
    else:
        raise InputError(f"no tokenizer in {str(folder)!r}: neither tokenizer.json nor vocab.txt is there")

    names = {}
    for role, default in SPECIAL_TOKENS.items():
        given = config.get(role) or default
        names[role] = given["content"] if isinstance(given, dict) else given  # older files spell the token out
    max_length = config.get("model_max_length")
    if not isinstance(max_length, int | float) or max_length > 1e9:  # transformers writes 1e30 for "not known"
        max_length = None
    return Tokenizer(
        backend,
        max_length=None if max_length is None else int(max_length),
        special_tokens=names,
        model_input_names=config.get("model_input_names") or ("input_ids", "attention_mask"),
    )


def _from_vocab_txt(path: Path, config: dict) -> tokenizers.Tokenizer:
    """An old BERT folder: one token a line, the line's number is its id."""
    try:
        vocab = {token: id_ for id_, token in enumerate(path.read_text(encoding="utf-8").split("\n")) if token}
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} is broken: not UTF-8") from error
    for token in BERT_ORDER:
        if token not in vocab:
            raise InputError(f"{str(path)!r} has no {token}: not the vocabulary of a BERT")
    return _wordpiece(
        vocab,
        config.get("do_lower_case", True),
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
    )


def _read_json(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise InputError(f"{str(path)!r} is broken: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{str(path)!r} is broken: a JSON object was expected")
    return content


def _write(path: Path, text: str) -> None:
    """To a temporary name first: a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
