"""`search build` and `search ask`: what they print, what they keep, and what they refuse in one line."""

import io
import json
import shlex
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_retriever import TEXTS, tiny_embedder

from modernbert_edu.__main__ import build_parser, main
from modernbert_edu.checkpoint import save
from modernbert_edu.model import MaskedLM
from modernbert_edu.retriever import TokenEmbedder
from modernbert_edu.retriever_folder import save_retriever
from modernbert_edu.tasks import search as module
from modernbert_edu.tasks.index import Index, write_words


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of two models, of one that was trained for no search, and of one with a vector a token."""
    folder = tmp_path_factory.mktemp("models")
    embedder = tiny_embedder()
    save_retriever(embedder, folder / "one")
    save_retriever(tiny_embedder(seed=1), folder / "other")
    save(MaskedLM(embedder.config), embedder.tokenizer, folder / "plain")
    save_retriever(TokenEmbedder(embedder.encoder, embedder.tokenizer, dimension=8, max_length=64), folder / "late")
    return folder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "texts").mkdir()
    for number, text in enumerate(TEXTS):
        (tmp_path / "texts" / f"{number}.{'py' if 'def' in text else 'txt'}").write_text(text)
    return tmp_path / "texts"


def run(capsys, *arguments):
    capsys.readouterr()
    status = main(["search", *map(str, arguments), "--device", "cpu"])
    captured = capsys.readouterr()
    assert (status, captured.err) == (0, "")
    return captured.out


def fails(capsys, *arguments):
    capsys.readouterr()
    status = main(["search", *map(str, arguments)])
    line = capsys.readouterr().err
    assert status == 2 and line.count("\n") == 1 and line.startswith("modernbert-edu: "), line
    return line


def build(capsys, folder, models, *more):
    return run(capsys, "build", folder, "--out", folder.parent / "index", "--model", models / "one", *more)


def test_build_and_ask(capsys, folder, models, tmp_path):
    said = build(capsys, folder, models, "--json", tmp_path / "b.jsonl")
    assert "files: 5 new, 0 changed, 0 gone, 0 kept; 5 passages of at most 64 tokens" in said
    assert "embedded 5 of 5 passages in " in said and "passages/s" in said
    (record,) = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert (record["what"], record["passages"], record["embedded"], record["kept"]) == ("index", 5, 5, 0)
    assert record["model"] == str((models / "one").resolve()) and "date" in record

    index = tmp_path / "index"
    said = run(capsys, "ask", index, TEXTS[2], "--top", "2", "--json", tmp_path / "a.jsonl")
    assert "  1  1.000  2.py:1-3\n       def read_bytes(path):\n           with open(path, 'rb') as file:\n" in said
    assert "best 2 of 5 passages; embedding the question " in said and "searching " in said
    (record,) = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [hit["rank"] for hit in record["hits"]] == [1, 2]
    first = record["hits"][0]
    assert (first["source"], first["first_line"], first["last_line"]) == ("2.py", 1, 3)
    assert first["text"] == TEXTS[2] and first["score"] == pytest.approx(1, abs=1e-5)
    assert record["passages"] == 5 and record["embedding_seconds"] > 0 and record["searching_seconds"] > 0


def test_questions_from_standard_input_with_one_model(capsys, folder, models, tmp_path, monkeypatch):
    build(capsys, folder, models)
    opened = []
    real = module.load_retriever
    monkeypatch.setattr(module, "load_retriever", lambda name: opened.append(name) or real(name))
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{TEXTS[0]}\n\n  {TEXTS[3]} \n"))
    said = run(capsys, "ask", tmp_path / "index", "--top", "1", "--json", tmp_path / "a.jsonl")
    assert len(opened) == 1 and said.index("0.txt:1") < said.index("3.txt:1")
    records = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [record["question"] for record in records] == [TEXTS[0], TEXTS[3]]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n \n"))
    assert "no question" in fails(capsys, "ask", tmp_path / "index")


def test_long_passages_and_long_questions(capsys, folder, models, tmp_path):
    lines = [f"    {word}" for word in "the cat sat on mat and a dog ran".split()]
    (folder / "long.txt").write_text("\n".join(lines))
    build(capsys, folder, models)
    question = "\n".join(lines)
    said = run(capsys, "ask", tmp_path / "index", question, "--top", "1")
    assert "  1  1.000  long.txt:1-9\n       the\n       cat\n" in said
    assert "       mat\n       ... 4 more lines\n" in said and "dog" not in said.split("long.txt:1-9")[1]
    assert "       ran\n" in run(capsys, "ask", tmp_path / "index", question, "--top", "1", "--full")
    said = run(capsys, "ask", tmp_path / "index", "the cat " * 100)
    assert "(only its first 64 tokens: the model takes no more)" in said


def test_a_folder_that_changed_is_told_and_built_again_without_naming_the_model(capsys, folder, models, tmp_path):
    build(capsys, folder, models, "--max-tokens", "48")
    ask = ("ask", tmp_path / "index", TEXTS[0], "--top", "1")
    assert "changed since" not in run(capsys, *ask)
    (folder / "0.txt").write_text("the bird sang")
    (folder / "new.md").write_text("snow lay on the hill")
    (folder / "1.txt").unlink()
    said = run(capsys, *ask)
    note = f"{folder} has changed since (files: 1 new, 1 changed, 1 gone); `search build {folder} --out "
    assert note in said and "0.txt:1" in said
    again = run(capsys, "build", folder, "--out", tmp_path / "index")
    assert "files: 1 new, 1 changed, 1 gone, 3 kept; 5 passages of at most 48 tokens" in again
    assert "embedded 2 of 5" in again
    assert "changed since" not in run(capsys, *ask)
    assert "nothing to embed; 5 passages" in run(capsys, "build", folder, "--out", tmp_path / "index")
    folder.rename(tmp_path / "elsewhere")
    assert "is gone; the answers are what the index holds" in run(capsys, *ask)


def test_models_that_do_not_fit(capsys, folder, models, tmp_path):
    index = tmp_path / "index"
    shutil.copytree(models / "one", tmp_path / "copy")
    build = ("build", folder, "--out", index)
    run(capsys, *build, "--model", tmp_path / "copy")
    assert "another model" in fails(capsys, "ask", index, "cat", "--model", models / "other")
    assert "--anew" in fails(capsys, *build, "--model", models / "other")
    assert "a vector of each token" in fails(capsys, *build, "--model", models / "late", "--anew")
    assert "no folder" in fails(capsys, *build, "--model", tmp_path / "none" / "x" / "y")

    assert "0.txt" in run(capsys, "ask", index, TEXTS[0], "--model", models / "one")  # the same, from elsewhere
    (tmp_path / "copy").rename(tmp_path / "moved")
    for command in (("ask", index, "cat"), build):
        assert "copy, is gone; put it back" in fails(capsys, *command)
    assert "0.txt" in run(capsys, "ask", index, TEXTS[0], "--model", tmp_path / "moved")

    shutil.copytree(models / "other", tmp_path / "copy")  # trained on, say
    for command in (("ask", index, "cat"), build):
        assert "copy has changed since" in fails(capsys, *command)
    run(capsys, *build, "--model", tmp_path / "copy", "--anew")
    assert "0.txt" in run(capsys, "ask", index, TEXTS[0])


def test_a_model_trained_for_no_search_is_told(capsys, folder, models, tmp_path):
    out = tmp_path / "plain"
    assert "trained for no search" in run(capsys, "build", folder, "--out", out, "--model", models / "plain")
    assert "trained for no search" not in build(capsys, folder, models)


def test_without_a_model_the_courses_own_is_used(capsys, folder, models, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        module, "_default_model", lambda scale, device: asked.append((scale.name, device.type)) or models / "one"
    )
    run(capsys, "build", folder, "--out", tmp_path / "i", "--scale", "quick")
    assert asked == [("quick", "cpu")]
    run(capsys, "build", folder, "--out", tmp_path / "i")  # the index knows its model
    assert len(asked) == 1
    assert Index(tmp_path / "i").manifest["model"]["name"] == str((models / "one").resolve())


def test_from_another_working_folder(capsys, folder, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(models / "one", tmp_path / "m")
    run(capsys, "build", "texts", "--out", "index", "--model", "m")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    said = run(capsys, "ask", "../index", TEXTS[0])
    assert "0.txt:1" in said and "changed" not in said and "gone" not in said
    assert "nothing to embed" in run(capsys, "build", "../texts", "--out", "../index")


def test_bad_input(capsys, folder, models, tmp_path):
    index = tmp_path / "index"
    assert "there is no index" in fails(capsys, "ask", index, "cat")
    assert not index.exists()
    build(capsys, folder, models)
    assert "--top" in fails(capsys, "ask", index, "cat", "--top", "0")
    assert "question is empty" in fails(capsys, "ask", index, " ")
    assert "ACTION" in fails(capsys)
    assert "--out" in fails(capsys, "build", folder)
    model = ("--model", models / "one")
    assert "does not exist" in fails(capsys, "build", tmp_path / "none", "--out", tmp_path / "j", *model)
    assert "no index; choose a new folder" in fails(capsys, "build", folder, "--out", folder, *model)
    assert "not allowed with" in fails(capsys, "build", folder, "--out", index, "--exact", "--approximate")
    assert "no device" in fails(capsys, "ask", index, "cat", "--device", "tpu")


def test_graph_and_words_on_request(capsys, folder, models, tmp_path):
    pytest.importorskip("usearch")
    pytest.importorskip("bm25s")
    assert "; approximate" in build(capsys, folder, models, "--approximate")
    assert "  1  1.000  0.txt:1\n" in run(capsys, "ask", tmp_path / "index", TEXTS[0])
    assert "  1  1.000  0.txt:1\n" in run(capsys, "ask", tmp_path / "index", TEXTS[0], "--exact")
    assert "approximate" not in build(capsys, folder, models, "--exact")
    said = run(capsys, "ask", tmp_path / "index", TEXTS[0], "--hybrid")
    assert " words and its model in " in said and f"  1  {2 / 61:.3f}  0.txt:1\n" in said


def test_words_alone_load_no_model(capsys, folder, models, tmp_path, monkeypatch):
    index = tmp_path / "index"
    shutil.copytree(models / "one", tmp_path / "copy")
    run(capsys, "build", folder, "--out", index, "--model", tmp_path / "copy")
    monkeypatch.setattr(module, "load_retriever", None)
    said = run(capsys, "ask", index, "read file", "--words", "--json", tmp_path / "a.jsonl")
    assert "  2.py:1-3\n" in said and "its model" not in said and "embedding" not in said
    (record,) = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [(hit["rank"], hit["source"]) for hit in record["hits"]] == [(1, "2.py")] and record["hits"][0]["score"] > 0
    said = run(capsys, "ask", index, "elephants", "--words")
    assert "(no passage holds one of its words)\nbest 0 of 5 passages; searching " in said
    said = run(capsys, "ask", index, "read file", "--words", "--context", "--top", "1")
    assert f"[1] 2.py:1-3\n{TEXTS[2]}\n\n1 source, " in said
    assert "no passage was found" in run(capsys, "ask", index, "elephants", "--words", "--context")
    (tmp_path / "copy").rename(tmp_path / "moved")
    assert "  2.py:1-3\n" in run(capsys, "ask", index, "read file", "--words")
    assert "copy, is gone; put it back" in fails(capsys, "ask", index, "read file", "--words", "--context")
    assert "leave out --model" in fails(capsys, "ask", index, "cat", "--words", "--model", models / "one")
    assert "not allowed with" in fails(capsys, "ask", index, "cat", "--words", "--hybrid")


def test_words_of_an_index_without_them(capsys, folder, models, tmp_path):
    build(capsys, folder, models)
    path = tmp_path / "index" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"words": False}))
    assert "0.txt:1" in run(capsys, "ask", tmp_path / "index", TEXTS[0])
    for option in ("--words", "--hybrid"):
        assert "built before indexes held words" in fails(capsys, "ask", tmp_path / "index", "cat", option)
    assert "nothing to embed" in run(capsys, "build", folder, "--out", tmp_path / "index")
    assert "0.txt:1" in run(capsys, "ask", tmp_path / "index", "cat", "--words")


def test_the_commands_of_the_readme_are_understood():
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    prefix = ".venv/bin/python -m modernbert_edu search "
    lines = [line.removeprefix(prefix) for line in readme.splitlines() if line.startswith(prefix)]
    asked = [build_parser().parse_args(["search", *shlex.split(line, comments=True)]) for line in lines]
    assert {arguments.action for arguments in asked} >= {"build", "ask", "train"}
    assert any(arguments.action == "ask" and arguments.words for arguments in asked)


def test_common_options_stand_on_either_side_of_the_action(capsys, folder, models, tmp_path):
    out = ("--out", str(tmp_path / "i"), "--model", str(models / "one"))
    assert main(["search", "--device", "tpu", "build", str(folder), *out]) == 2
    assert main(["search", "--json", str(tmp_path / "a"), "build", str(folder), *out, "--device", "cpu"]) == 0
    assert (tmp_path / "a").exists()


def test_a_hundred_thousand_passages_are_opened_and_searched_quickly(tmp_path):
    """Well under a second in all: vectors and words are mapped, and only what is found is read."""
    count, dimension = 100_000, 256
    vectors = torch.nn.functional.normalize(torch.randn(count, dimension), dim=-1)
    lines = [
        json.dumps(dict(text=f"passage {i}", source="a.txt", first_line=i + 1, last_line=i + 1)).encode() + b"\n"
        for i in range(count)
    ]
    generation = tmp_path / ".generation-000001"
    generation.mkdir()
    (generation / "passages.jsonl").write_bytes(b"".join(lines))
    offsets = torch.tensor([0, *map(len, lines)]).cumsum(0)
    save_file({"vectors": vectors, "offsets": offsets}, generation / "vectors.safetensors")
    write_words([f"passage {i}" for i in range(count)], generation / "words")
    manifest = dict(format="modernbert_edu search index", version=1, generation=generation.name, approximate=False,
                    words=True, passages=count, files={"a.txt": dict(rows=count)})  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))

    start = time.perf_counter()
    index = Index(tmp_path)
    opened = time.perf_counter()
    scores, rows = index.nearest(vectors[[77]], 5)
    found = index.passages(rows[0].tolist())
    searched = time.perf_counter()
    assert rows[0, 0] == 77 and scores[0, 0] == pytest.approx(1, abs=1e-5) and found[0].text == "passage 77"
    (hit,) = index.search("number 77", 5, words=True)  # which opens the words
    by_words = time.perf_counter()
    assert hit.passage.text == "passage 77"
    times = dict(opened=opened - start, searched=searched - opened, words=by_words - searched)
    print(", ".join(f"{what} in {seconds:.3f} s" for what, seconds in times.items()))
    assert max(times.values()) < 2  # on an idle machine 0.1 s at most: a busy one is no failure
