"""Corpora: what is read, what is skipped, how it is split, and what a mistake says."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert_edu.data import corpus as corpus_module
from modernbert_edu.data.corpus import Corpus, load_corpus
from modernbert_edu.errors import InputError

ROOT = Path(__file__).parent.parent


def documents(corpus: Corpus) -> dict[str, str]:
    """Both sides together."""
    return {row["source"]: row["text"] for split in (corpus.train, corpus.held_out) for row in split}


def characters(split) -> int:
    return sum(map(len, split["text"]))


@pytest.fixture
def folder(tmp_path):
    for number in range(20):
        (tmp_path / f"{number:02}.txt").write_text(f"This is text number {number}. " * 10)
    return tmp_path


# ------------------------------------------------------------------------------------------------- the python corpus


@pytest.fixture(scope="module")
def python_corpus():
    return load_corpus()


def test_the_python_corpus(python_corpus):
    found = documents(python_corpus)
    assert 5e6 < sum(map(len, found.values())) < 30e6
    assert "argparse.py" in found and "json/decoder.py" in found
    assert found["argparse.py"].startswith(Path(sys.modules["argparse"].__file__).read_text(encoding="utf-8")[:500])
    assert any(source.startswith("pydoc_data.topics:") for source in found)
    for source in found:
        parts = source.split("/")
        assert not {"test", "tests", "idle_test", "site-packages", "__pycache__"} & set(parts), source
        assert not os.path.isabs(source) and "\\" not in source
    assert "pydoc_data/topics.py" not in found
    assert not [source for source in found if "_sysconfigdata" in source]


def test_its_split_holds_a_tenth_of_the_characters(python_corpus):
    share = characters(python_corpus.held_out) / (characters(python_corpus.held_out) + characters(python_corpus.train))
    assert 0.09 < share <= 0.1
    assert not set(python_corpus.train["source"]) & set(python_corpus.held_out["source"])
    assert python_corpus.train.column_names == python_corpus.held_out.column_names == ["text", "source"]


def test_its_summary_is_one_line_with_the_facts(python_corpus):
    line = python_corpus.summary()
    assert "\n" not in line and line.startswith("python: ")
    assert python_corpus.fingerprint in line and f"{len(python_corpus.train):,}" in line
    assert f"{python_corpus.skipped['empty']} empty" in line


def test_a_python_without_the_topics(monkeypatch, python_corpus):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)  # importing it now raises ImportError
    found = documents(load_corpus("python"))
    assert "argparse.py" in found and not any(source.startswith("pydoc") and ":" in source for source in found)


# ------------------------------------------------------------------------------------------------- folders and files


def test_a_folder_is_read_with_everything_in_it(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("a.txt", "b.md", "deep/c.py", "deep/er/D.TXT", "deep/e.rst"):
        (tmp_path / name).write_text(f"text of {name}")
    (tmp_path / "f.jsonl").write_text('{"text": "row zero"}\n{"text": "row one"}\n')
    datasets.Dataset.from_dict({"content": ["p zero", None], "n": [1, 2]}).to_parquet(tmp_path / "g.parquet")
    for name in ("picture.png", "settings.json", "noext"):
        (tmp_path / name).write_text("not text")
    for hidden in (".git", ".venv", ".ipynb_checkpoints", "__pycache__", "deep/node_modules"):
        (tmp_path / hidden).mkdir()
        (tmp_path / hidden / "x.py").write_text("hidden")
    (tmp_path / ".hidden.txt").write_text("hidden")
    corpus = load_corpus(tmp_path)
    assert documents(corpus) == {
        **{name: f"text of {name}" for name in ("a.txt", "b.md", "deep/c.py", "deep/er/D.TXT", "deep/e.rst")},
        "f.jsonl:0": "row zero",
        "f.jsonl:1": "row one",
        "g.parquet:0": "p zero",
    }
    assert corpus.skipped == {"empty": 1}
    assert corpus.name == tmp_path.name  # no machine's path in a record


def test_what_cannot_be_read_is_skipped_and_counted(folder):
    (folder / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    (folder / "utf16.txt").write_text("from Notepad", encoding="utf-16")
    (folder / "latin.jsonl").write_bytes('{"text": "caf\u00e9"}'.encode("latin-1"))
    (folder / "empty.txt").write_text("")
    (folder / "blank.txt").write_text(" \n\t\n")
    (folder / "empty.jsonl").write_text("\n")
    (folder / "dangling.txt").symlink_to(folder / "nowhere.txt")
    corpus = load_corpus(folder)
    assert len(documents(corpus)) == 20
    assert corpus.skipped == {"not UTF-8": 3, "empty": 3}
    assert "3 empty, 3 not UTF-8" in corpus.summary()


def test_only_line_ends_are_changed(folder):
    (folder / "windows.txt").write_bytes("\ufeffa\r\nb\rc  \n\n\td\u0301\f".encode())
    assert documents(load_corpus(folder))["windows.txt"] == "a\nb\nc  \n\n\td\u0301\f"


def test_rows_of_a_single_file(tmp_path):
    path = tmp_path / "odd [name]*.jsonl"
    path.write_text("".join(json.dumps({"n": n, "body": f"text {n}"}) + "\n" for n in range(10)))
    assert documents(load_corpus(path)) == {f"{path.name}:{n}": f"text {n}" for n in range(10)}
    as_list = tmp_path / "list.json"
    as_list.write_text(json.dumps([{"text": "one", "title": "x"}, {"text": "two", "title": "y"}]))
    assert set(documents(load_corpus(str(as_list))).values()) == {"one", "two"}
    assert set(documents(load_corpus(as_list, text_column="title")).values()) == {"x", "y"}


def test_an_edited_file_is_read_anew_and_nothing_stays_behind(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "old one"}\n{"text": "old two"}\n')
    program = (
        "import sys; from modernbert_edu.data.corpus import load_corpus; p = sys.argv[1]\n"
        "print(load_corpus(p).train['text'][:], load_corpus(p).held_out['text'][:])\n"
        'open(p, \'w\').write(\'{"text": "new one"}\\n{"text": "new two"}\\n\')\n'
        "print(load_corpus(p).train['text'][:], load_corpus(p).held_out['text'][:])\n"
    )
    home = tmp_path / "home"
    result = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env={**os.environ, "HF_HOME": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = result.stdout.splitlines()
    assert before.count("old") == 2 and after.count("new") == 2 and "old" not in after
    assert not [file for file in home.rglob("*") if file.is_file()]


def test_a_broken_row_file_is_one_clear_line(tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(logging.getLogger("datasets"), "handlers", [logging.Handler()])
    monkeypatch.setattr(logging.getLogger("datasets").handlers[0], "emit", logged.append)
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"text": broken}\n')
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and then nothing")
    for name in ("bad.jsonl", "bad.parquet"):
        with pytest.raises(InputError, match=f"'{name}' is not a readable .{name[4:]} file") as error:
            load_corpus(tmp_path / name)
        assert "\n" not in str(error.value)
    assert not logged  # `datasets` would say it too


@pytest.mark.parametrize(
    "row, options, message",
    [
        ({"a": "x", "b": "y"}, {}, "columns are a, b"),
        ({"a": 1}, {}, "columns are a "),
        ({"text": "x"}, {"text_column": "body"}, "no column 'body'; the columns are text"),
        ({"text": 3, "n": 1}, {}, "holds int, not text"),
    ],
)
def test_rows_without_a_clear_text_column(tmp_path, row, options, message):
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=message):
        load_corpus(tmp_path / "a.jsonl", **options)


# --------------------------------------------------------------------------------------------- limits, split, identity


def test_the_split_is_seeded_and_does_not_depend_on_listing_order(folder, monkeypatch):
    first = load_corpus(folder, seed=1)
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda top: ((d, s, sorted(f, reverse=True)) for d, s, f in walk(top)))
    again = load_corpus(folder, seed=1)
    assert again.train["source"][:] == first.train["source"][:]
    assert again.held_out["source"][:] == first.held_out["source"][:]
    assert {tuple(load_corpus(folder, seed=seed).held_out["source"]) for seed in range(5)} != {
        tuple(first.held_out["source"])
    }


def test_the_fingerprint_names_the_text(folder, tmp_path_factory):
    first = load_corpus(folder)
    assert len(first.fingerprint) == 16 and int(first.fingerprint, 16) >= 0
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for file in folder.iterdir():
        (elsewhere / file.name).write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert load_corpus(elsewhere, seed=5, held_out=0.3).fingerprint == first.fingerprint
    (elsewhere / "00.txt").rename(elsewhere / "renamed.txt")
    assert load_corpus(elsewhere).fingerprint != first.fingerprint
    (folder / "07.txt").write_text("changed")
    assert load_corpus(folder).fingerprint != first.fingerprint


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5_000), min_size=2, max_size=40),
    held_out=st.floats(0.01, 0.9),
    seed=st.integers(0, 1000),
)
def test_both_sides_always_have_text(sizes, held_out, seed):
    whole = [(f"{number:03}", "x" * size) for number, size in enumerate(sizes)]
    train, held = corpus_module._split(whole, held_out, seed)
    assert train and held
    assert sorted(train + held) == whole
    share = sum(len(text) for _, text in held) / sum(sizes)
    assert share <= held_out + 1e-9 or len(held) == 1


def test_many_small_documents_meet_the_share(folder):
    for held_out in (0.1, 0.25, 0.5):
        corpus = load_corpus(folder, held_out=held_out)
        share = characters(corpus.held_out) / (characters(corpus.held_out) + characters(corpus.train))
        assert held_out - 0.06 < share <= held_out


def test_a_single_file_is_cut_at_a_paragraph(tmp_path):
    path = tmp_path / "book.txt"
    text = "\n\n".join(f"Paragraph {number} has a few lines.\nThis is the second." for number in range(100))
    path.write_text(text)
    corpus = load_corpus(path)
    assert corpus.train["source"][:] == ["book.txt#train"] and corpus.held_out["source"][:] == ["book.txt#held-out"]
    assert corpus.train["text"][0] + corpus.held_out["text"][0] == text
    assert corpus.held_out["text"][0].startswith("Paragraph ") and corpus.train["text"][0].endswith("second.\n\n")
    assert 0.08 < characters(corpus.held_out) / len(text) < 0.12


@pytest.mark.parametrize("border", ["\n", " "])
def test_a_single_file_without_paragraphs_is_cut_at_a_line_or_a_space(tmp_path, border):
    (tmp_path / "a.txt").write_text(border.join(["word" * 5] * 500))
    corpus = load_corpus(tmp_path)
    assert corpus.held_out["text"][0].startswith("word") and corpus.train["text"][0].endswith(f"word{border}")
    assert 0.08 < characters(corpus.held_out) / (500 * 21) < 0.12


@pytest.mark.parametrize("text", ["Too short.\n\nReally.", "x" * 50_000])
def test_a_single_file_that_cannot_be_split(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InputError, match="'a.txt' is the only document"):
        load_corpus(tmp_path / "a.txt")


def test_limits(folder):
    found = documents(load_corpus(folder, max_documents=7, seed=3))
    assert len(found) == 7 and sorted(found) != [f"{number:02}.txt" for number in range(7)]
    limited = load_corpus(folder, max_characters=1000, seed=3)
    assert sum(map(len, documents(limited).values())) == 1000
    assert set(documents(limited)) <= set(documents(load_corpus(folder)))


# ---------------------------------------------------------------------------------------------------------- mistakes


def test_mistakes_are_one_clear_line(tmp_path):
    empty, only_pictures = tmp_path / "empty", tmp_path / "pictures"
    empty.mkdir()
    only_pictures.mkdir()
    (only_pictures / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    (tmp_path / "blank.md").write_text("\n")
    (tmp_path / "a.docx").write_text("x")
    for spec, message in [
        (tmp_path / "nowhere", "does not exist; a corpus is 'python', a folder, a file .*hub:NAME"),
        ("wikitext", "does not exist; a corpus is"),
        (empty, r"no readable text in .*\.txt, \.md, \.rst, \.py, \.jsonl, \.parquet"),
        (only_pictures, r"no readable text in .*\.jsonl"),
        (tmp_path / "latin.txt", r"no readable text in .*\(1 not UTF-8 skipped\)"),
        (tmp_path / "blank.md", r"no readable text in .*\(1 empty skipped\)"),
        (tmp_path / "a.docx", "cannot read 'a.docx'"),
        ("hub:", "lacks a dataset's name"),
    ]:
        with pytest.raises(InputError, match=message) as error:
            load_corpus(spec)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"held_out": 0.0}, "held_out"),
        ({"held_out": 1.0}, "held_out"),
        ({"max_documents": 0}, "max_documents"),
        ({"max_characters": -1}, "max_characters"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        load_corpus("python", **options)


# ----------------------------------------------------------------------------------------------------------- the Hub


def stream_of(rows, monkeypatch, calls=None):
    """The Hub is out of reach of the tests: a local stream stands in for what `load_dataset` returns."""

    def load_dataset(*args, **kwargs):
        if calls is not None:
            calls.append((args, kwargs))
        return datasets.IterableDataset.from_generator(lambda: iter(rows))

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def test_a_hub_dataset_is_streamed_up_to_the_limits(monkeypatch):
    calls = []
    rows = [{"title": "t", "text": f"row {number:05} " * 3} for number in range(1000)]
    stream_of(rows, monkeypatch, calls)
    corpus = load_corpus("hub:some/data:config", max_documents=30)
    assert calls == [(("some/data", "config"), {"split": "train", "streaming": True})]
    assert set(documents(corpus)) == {f"some/data:{number}" for number in range(30)}
    assert corpus.name == "hub:some/data:config"
    few = load_corpus("hub:some/data", max_characters=300)
    assert calls[-1][0] == ("some/data", None)
    assert sum(map(len, documents(few).values())) == 300
    assert set(load_corpus("hub:some/data", max_documents=5, text_column="title").train["text"]) == {"t"}


def test_a_hub_dataset_without_text(monkeypatch):
    stream_of([{"label": 1}], monkeypatch)
    with pytest.raises(InputError, match="the columns are label"):
        load_corpus("hub:some/data")


@pytest.mark.parametrize(
    "error, message",
    [
        (ConnectionError("Couldn't reach it"), "cannot reach 'hub:some/data'.*needs no network"),
        (datasets.exceptions.DatasetNotFoundError("gone"), "no dataset 'some/data' on the Hub.*needs no network"),
        (ValueError("Config name is missing.\nPick one"), "cannot read 'hub:some/data': Config name is missing. Pick"),
    ],
)
def test_the_hubs_errors_are_mended(monkeypatch, error, message):
    def failing(*args, **kwargs):
        raise error

    stream_of([], monkeypatch)
    monkeypatch.setattr(datasets, "load_dataset", failing)
    with pytest.raises(InputError, match=message) as raised:
        load_corpus("hub:some/data")
    assert "\n" not in str(raised.value)


OFFLINE = r"'hub:some/data' is out of reach.*offline \(HF_HUB_OFFLINE\).*'python'"


def test_offline_is_one_clear_line(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=OFFLINE):
        load_corpus("hub:some/data")


def test_offline_in_a_fresh_process():
    """Where nothing has imported the Hub's library yet."""
    result = subprocess.run(
        [sys.executable, "-c", "from modernbert_edu.data.corpus import load_corpus; load_corpus('hub:some/data')"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert re.search("InputError: " + OFFLINE, result.stderr.splitlines()[-1])
