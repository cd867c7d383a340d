"""An index is whole at every moment, is brought up to date without embedding what it has, and finds what is nearest."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from tiny_retriever import TEXTS, tiny_embedder

from modernbert_edu.errors import InputError
from modernbert_edu.tasks import index as module
from modernbert_edu.tasks.index import APPROXIMATE_FROM, GENERATION, Changes, Index, build, fuse, write_graph
from modernbert_edu.tasks.passages import Passage
from modernbert_edu.tasks.ranking import Bm25


@pytest.fixture(scope="module")
def model():
    return tiny_embedder()


@pytest.fixture
def folder(tmp_path):
    """Five files of a passage each, some of them in a folder below."""
    for number, text in enumerate(TEXTS):
        path = tmp_path / "texts" / ("sub" if number % 2 else "") / f"{number}.{'py' if 'def' in text else 'txt'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "texts"


def make(folder, out, model, **options):
    said = []
    return build(folder, out, model, options.pop("name", "a-model"), say=said.append, **options), said


def holds(out):
    return {passage.text for passage in Index(out).passages()}


def refused(match, *arguments, **options):
    with pytest.raises(InputError, match=match) as caught:
        make(*arguments, **options)
    assert "\n" not in str(caught.value)


# ---- what is in it ---------------------------------------------------------------------------------------------------


def test_each_text_is_found_by_itself_with_its_place(folder, tmp_path, model):
    built, said = make(folder, tmp_path / "i", model)
    assert (built.passages, built.embedded, built.new, built.kept, built.approximate) == (5, 5, 5, 0, False)
    assert said == ["files: 5 new, 0 changed, 0 gone, 0 kept; 5 passages of at most 64 tokens"]
    index = Index(tmp_path / "i", model)
    for text in TEXTS:
        hits = index.search(text, 2)
        assert hits[0].passage.text == text and hits[0].score == pytest.approx(1, abs=1e-5)
        assert hits[0].score > hits[1].score
    assert index.search(TEXTS[2], 1)[0].passage == Passage(TEXTS[2], "2.py", 1, 3)
    assert index.seconds["embedding"] > 0 and index.seconds["searching"] > 0
    assert len(index.search("cat", 50)) == len(index) == 5
    texts = [passage.text for passage in index.passages()]
    torch.testing.assert_close(index.vectors, model.encode(texts))
    assert index.vectors.dtype == torch.float32


def test_long_files_prompts_and_what_is_no_text(folder, tmp_path):
    model = tiny_embedder(prompts={"document": "the cat: ", "query": "a dog: "})
    (folder / "long.txt").write_text("\n".join([*TEXTS, "the cat sat " * 60]))
    (folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (folder / "empty.py").write_text("\n")
    built, said = make(folder, tmp_path / "i", model, max_tokens=48, overlap=1)
    assert "; without text: 1 empty, 1 not UTF-8; " in said[0] and said[0].endswith(
        "lines too long for one, cut inside: 1"
    )
    assert (built.skipped, built.long_lines, built.shortened) == ({"empty": 1, "not UTF-8": 1}, 1, 0)
    lengths = [len(ids) for ids in model.token_ids([p.text for p in Index(tmp_path / "i").passages()], "document")]
    assert 24 < max(lengths) <= 48  # prompt, [CLS] and [SEP] included
    built, said = make(folder, tmp_path / "i", model)  # settings are the index's, and what is no text is known
    assert (built.kept, built.new, built.changed, built.embedded) == (8, 0, 0, 0)


def test_one_file_is_a_folder_of_one(folder, tmp_path, model):
    assert make(folder / "0.txt", tmp_path / "i", model)[0].passages == 1
    index = Index(tmp_path / "i", model)
    assert index.search("cat")[0].passage.source == "0.txt" and not index.changes()


def test_an_index_inside_its_folder_does_not_index_itself(folder, model):
    make(folder, folder / "index", model)
    (folder / "index" / "note.txt").write_text("put here later")
    assert make(folder, folder / "index", model)[0].kept == 5
    assert not Index(folder / "index").changes()


# ---- up to date ------------------------------------------------------------------------------------------------------


def test_only_what_changed_is_embedded_and_the_result_is_that_of_a_new_build(folder, tmp_path, model):
    out = tmp_path / "i"
    make(folder, out, model)
    (folder / "0.txt").write_text("the bird sang in the tree")
    (folder / "sub" / "1.txt").unlink()
    (folder / "a.txt").write_text("snow lay on the hill")
    os.utime(folder / "2.py", (0, 0))  # another time, the same content
    index = Index(out, model)
    assert index.changes() == Changes(new=1, changed=2, gone=1)
    assert index.search(TEXTS[0])[0].passage.text == TEXTS[0]  # as indexed, until it is built again

    asked = []
    encode = model.encode
    model.encode = lambda texts, **options: asked.append(list(texts)) or encode(texts, **options)
    try:
        built, said = make(folder, out, model)
    finally:
        del model.encode
    assert asked == [["the bird sang in the tree", "snow lay on the hill"]]
    assert said == ["files: 1 new, 1 changed, 1 gone, 3 kept; 5 passages of at most 64 tokens"]
    assert (built.passages, built.embedded) == (5, 2)
    make(folder, tmp_path / "fresh", model)
    updated, fresh = Index(out), Index(tmp_path / "fresh")
    assert updated.passages() == fresh.passages()
    torch.testing.assert_close(updated.vectors, fresh.vectors)
    assert updated.manifest["files"] == fresh.manifest["files"]
    assert not updated.changes()
    assert [path.name for path in out.glob(".generation-*")] == [GENERATION + "000002"]


def test_where_nothing_changed_nothing_is_written_but_times(folder, tmp_path, model):
    out = tmp_path / "i"
    make(folder, out, model)
    before = (out / (GENERATION + "000001") / "vectors.safetensors").stat()
    os.utime(folder / "0.txt", (0, 0))
    assert Index(out).changes() == Changes(0, 1, 0)
    built, said = make(folder, out, model)
    assert built.embedded == 0 and said[0].startswith("files: 0 new, 0 changed, 0 gone, 5 kept")
    assert not Index(out).changes()
    after = (out / (GENERATION + "000001") / "vectors.safetensors").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_file_that_may_not_be_read(folder, tmp_path, model, monkeypatch):
    real = Path.read_bytes

    def read_bytes(path):
        if path.name == "0.txt":
            raise PermissionError(13, "Permission denied")
        return real(path)

    make(folder, tmp_path / "j", model)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read_bytes)
        built, _ = make(folder, tmp_path / "i", model)
        assert built.skipped == {"not readable": 1} and built.passages == 4
        assert make(folder, tmp_path / "i", model)[0].kept == 5
        assert make(folder, tmp_path / "j", model)[0].changed == 1 and len(Index(tmp_path / "j")) == 4
    assert make(folder, tmp_path / "i", model)[0].changed == 1
    assert holds(tmp_path / "i") == set(TEXTS)


def test_a_folder_that_is_gone(folder, tmp_path, model):
    make(folder, tmp_path / "i", model)
    folder.rename(tmp_path / "elsewhere")
    index = Index(tmp_path / "i", model)
    assert index.changes() is None and index.search(TEXTS[0])[0].passage.text == TEXTS[0]


# ---- refused ---------------------------------------------------------------------------------------------------------


def test_another_model_setting_or_folder_is_refused_and_anew_takes_it(folder, tmp_path, model):
    out, other = tmp_path / "i", tiny_embedder(seed=1)
    make(folder, out, model)
    refused("built with another model, a-model, not with b-model; give --anew", folder, out, other, name="b-model")
    refused("the model a-model has changed since", folder, out, other)
    refused("max tokens 64, not 32; give --anew", folder, out, model, max_tokens=32)
    refused("overlap 0, not 2; give --anew", folder, out, model, overlap=2)
    refused("is the index of .*texts, not of .*sub; give --anew", folder / "sub", out, model)
    refused("takes texts of 64 tokens and passages of 65", folder, out, model, max_tokens=65)
    refused("choose --max-tokens 18 or more", folder, out, model, max_tokens=17, anew=True)
    refused("--overlap must be at least 0", folder, out, model, overlap=-1, anew=True)
    with pytest.raises(InputError, match="built with another model, a-model, not with b-model; ask without"):
        Index(out).use(other, "b-model")
    with pytest.raises(InputError, match="the model a-model has changed since"):
        Index(out, other)
    assert holds(out) == set(TEXTS)

    assert make(folder / "sub", out, other, name="b-model", max_tokens=32, anew=True)[0].embedded == 2
    assert Index(out, other).search(TEXTS[1], 1)[0].passage.text == TEXTS[1]
    assert not Index(out).changes()


def test_a_folder_of_other_things_is_never_touched(folder, tmp_path, model):
    listing = sorted((path.name, path.read_bytes()) for path in folder.rglob("*") if path.is_file())
    refused("holds other things .* and no index", folder, folder, model, anew=True)
    assert sorted((p.name, p.read_bytes()) for p in folder.rglob("*") if p.is_file()) == listing
    for content in ("{}", "[1]", "not json", '{"format": "something else"}'):
        other = tmp_path / "other"
        other.mkdir(exist_ok=True)
        (other / "manifest.json").write_text(content)
        refused("is not an index: its manifest.json", folder, other, model, anew=True)
        assert [path.name for path in other.iterdir()] == ["manifest.json"]
    refused("is a file", folder, folder / "0.txt", model)
    for nothing in (tmp_path / "none", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="there is no index in"):
            Index(nothing)
    assert make(folder, tmp_path / "empty", model)[0].passages == 5  # an empty folder is as good as none


def test_without_text_and_beside_another_build(folder, tmp_path, model):
    refused("does not exist", tmp_path / "none", tmp_path / "i", model)
    (tmp_path / "blank").mkdir()
    refused("no text in", tmp_path / "blank", tmp_path / "i", model)
    with FileLock(tmp_path / "i" / ".lock"):
        refused("another build is writing", folder, tmp_path / "i", model)
    assert make(folder, tmp_path / "i", model)[0].passages == 5


def test_vectors_that_are_no_numbers_and_a_newer_format(folder, tmp_path):
    model = tiny_embedder()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    refused("not numbers", folder, tmp_path / "i", model)
    make(folder, tmp_path / "j", tiny_embedder())
    path = tmp_path / "j" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    with pytest.raises(InputError, match="newer version"):
        Index(tmp_path / "j")


def test_a_broken_index_is_told_and_built_anew(folder, tmp_path, model):
    out = tmp_path / "i"
    make(folder, out, model)
    generation = out / (GENERATION + "000001")
    whole = {path.name: path.read_bytes() for path in generation.iterdir() if path.is_file()}
    assert sorted(whole) == ["passages.jsonl", "vectors.safetensors"]
    for name, content in whole.items():
        (generation / name).write_bytes(content[:-30])
        with pytest.raises(InputError, match="is broken .*--anew"):
            Index(out)
        (generation / name).unlink()
        refused("is broken .*--anew", folder, out, model)
        (generation / name).write_bytes(content)
    (generation / "vectors.safetensors").unlink()
    assert make(folder, out, model, anew=True)[0].embedded == 5
    assert holds(out) == set(TEXTS)


# ---- killed ----------------------------------------------------------------------------------------------------------

# What a build calls, in order; it is stopped before the call, or after it.
MOMENTS = ["list_files", "cut_text", "save_file", "write_graph", "write_words", "_flush", "write_text_atomic"]


class Stopped(BaseException):
    """What no handler of errors catches, as a kill."""


def stop_at(monkeypatch, moment, after):
    real = getattr(module, moment)

    def stopping(*arguments, **options):
        if after:
            real(*arguments, **options)
        raise Stopped

    monkeypatch.setattr(module, moment, stopping)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_stopped_at_any_moment_the_earlier_index_answers_and_the_next_build_completes(
    folder, tmp_path, model, monkeypatch, moment, after
):
    pytest.importorskip("usearch")
    out = tmp_path / "i"
    for known in (False, True):  # the first build ever, then one that changes an index
        with monkeypatch.context() as patch:
            stop_at(patch, moment, after)
            with pytest.raises(Stopped):
                make(folder, out, model, approximate=True)
        switched = moment == "write_text_atomic" and after
        if known:
            assert holds(out) == {"the bird sang" if switched else TEXTS[0], *TEXTS[1:]}
        elif not switched:
            with pytest.raises(InputError, match="there is no index"):
                Index(out)
        built, _ = make(folder, out, model, approximate=True)
        assert built.passages == 5
        assert len(list(out.glob(".generation-*"))) == 1 and not list(out.glob(".manifest*"))
        (folder / "0.txt").write_text("the bird sang")
    assert Index(out, model).search("the bird sang", 1)[0].score == pytest.approx(1, abs=1e-3)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[4])
from tiny_retriever import tiny_embedder
from modernbert_edu.tasks import index
def kill(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(index, sys.argv[3], kill)
index.build(sys.argv[1], sys.argv[2], tiny_embedder(), "a-model")
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("moment", ["save_file", "write_text_atomic", "_clean"])
def test_killed_for_good(folder, tmp_path, model, moment):
    out = tmp_path / "i"
    make(folder, out, model)
    (folder / "0.txt").write_text("the bird sang")
    here = Path(__file__).resolve().parent
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(out), moment, str(here)],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(here.parent)},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert holds(out) == set(TEXTS)
    if moment != "_clean":  # which comes first: it was killed before anything was written
        assert len(list(out.glob(".generation-*"))) == 2
    built, _ = make(folder, out, model)  # the lock of a process that is gone is free
    assert (built.changed, built.kept) == (1, 4) and "the bird sang" in holds(out)
    assert len(list(out.glob(".generation-*"))) == 1


def test_a_full_disk_keeps_the_earlier_index(folder, tmp_path, model, monkeypatch):
    out = tmp_path / "i"
    make(folder, out, model)
    (folder / "0.txt").write_text("the bird sang")
    with monkeypatch.context() as patch:
        patch.setattr(module, "save_file", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        refused("cannot write the index .*No space left", folder, out, model)
    assert holds(out) == set(TEXTS)
    assert len(list(out.glob(".generation-*"))) == 1


def test_a_build_that_ends_while_an_index_is_opened(folder, tmp_path, model, monkeypatch):
    out, real, calls = tmp_path / "i", module.read_manifest, []
    make(folder, out, model)

    def outdated(path):
        manifest = real(path)
        calls.append(manifest["generation"])
        return manifest | {"generation": GENERATION + "999999"} if len(calls) == 1 else manifest

    monkeypatch.setattr(module, "read_manifest", outdated)
    assert len(Index(out)) == 5 and len(calls) == 2


# ---- searching -------------------------------------------------------------------------------------------------------


def test_questions_that_cannot_be_asked(folder, tmp_path, model):
    make(folder, tmp_path / "i", model)
    index = Index(tmp_path / "i", model)
    with pytest.raises(InputError, match="empty"):
        index.search(" \n")
    with pytest.raises(InputError, match="at least one passage"):
        index.search("cat", 0)


def test_fused_with_words(folder, tmp_path, model):
    pytest.importorskip("bm25s")
    make(folder, tmp_path / "i", model)
    index = Index(tmp_path / "i", model)
    (first, *others) = index.search("town", 5, hybrid=True)
    by_vectors = [hit.passage for hit in index.search("town", 5)]
    assert "town" in first.passage.text  # the only one with the word: first by words, and somewhere by vectors
    assert first.score == pytest.approx(1 / 61 + 1 / (61 + by_vectors.index(first.passage)))
    assert [hit.passage for hit in others] == [p for p in by_vectors if p != first.passage]


def test_words_alone_answer_without_a_model(folder, tmp_path, model):
    make(folder, tmp_path / "i", model)
    index = Index(tmp_path / "i")
    hits = index.search("the cat ran", 5, words=True)
    rows = {passage.text: row for row, passage in enumerate(index.passages())}
    expected = Bm25(list(rows)).scores("the cat ran")
    assert [hit.score for hit in hits] == pytest.approx([float(expected[rows[hit.passage.text]]) for hit in hits])
    assert {hit.passage.text for hit in hits} == {TEXTS[0], TEXTS[1], TEXTS[3]}  # the others hold none of the words
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert index.search("elephants", 5, words=True) == []
    with pytest.raises(InputError, match="empty"):
        index.search(" ", words=True)


def test_words_are_those_of_a_new_build_after_every_change(folder, tmp_path, model):
    make(folder, tmp_path / "i", model)
    (folder / "0.txt").write_text("the bird sang in the tree")
    (folder / "sub" / "1.txt").unlink()
    (folder / "a.txt").write_text("snow lay on the hill")
    make(folder, tmp_path / "i", model)
    make(folder, tmp_path / "fresh", model)
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).glob(".generation-*/words/*")}
             for name in ("i", "fresh")]  # fmt: skip
    assert files[0] == files[1] and {name.split(".")[-1] for name in files[0]} == {"npy", "json"}
    assert Index(tmp_path / "i").search("bird", 1, words=True)[0].passage.source == "0.txt"
    assert Index(tmp_path / "i").search("dog", 1, words=True) == []


def test_an_index_of_before_there_were_words(folder, tmp_path, model):
    out = tmp_path / "i"
    make(folder, out, model)
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["words"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(out / manifest["generation"] / "words")
    index = Index(out, model)
    assert index.search(TEXTS[0], 1)[0].passage.text == TEXTS[0]
    for how in (dict(hybrid=True), dict(words=True)):
        with pytest.raises(InputError, match=r"before indexes held words; `search build .*texts --out .*i` adds them"):
            index.search("cat", **how)
    vectors = index.vectors.clone()
    built, _ = make(folder, out, model)
    assert (built.embedded, built.kept) == (0, 5)
    assert Index(out).search("town", 1, words=True)[0].passage.text == TEXTS[3]
    assert torch.equal(Index(out).vectors, vectors)


def test_every_file_is_on_the_disk_before_the_manifest_names_it(folder, tmp_path, model, monkeypatch):
    flushed, real = [], module.write_text_atomic
    monkeypatch.setattr(module, "_flush", flushed.append)

    def switch(path, text):
        generation = path.parent / json.loads(text)["generation"]
        assert sorted(flushed) == sorted(path for path in generation.rglob("*") if path.is_file())
        assert len(flushed) == 2 + 5  # passages and vectors, and the words' arrays, vocabulary and settings
        real(path, text)

    monkeypatch.setattr(module, "write_text_atomic", switch)
    make(folder, tmp_path / "i", model)
    assert holds(tmp_path / "i") == set(TEXTS)


def test_broken_words_are_told_and_vectors_answer_all_the_same(folder, tmp_path, model):
    out = tmp_path / "i"
    make(folder, out, model)
    words = out / (GENERATION + "000001") / "words"
    whole = {path: path.read_bytes() for path in words.iterdir()}
    assert len(whole) == 5
    for path, content in whole.items():
        for broken in (content[:-9], None):
            path.write_bytes(broken) if broken else path.unlink()
            with pytest.raises(InputError, match=r"words of .* do not open \(.*--anew") as caught:
                Index(out).search("cat", words=True)
            assert "\n" not in str(caught.value)
            assert Index(out, model).search(TEXTS[0], 1)[0].passage.text == TEXTS[0]
            path.write_bytes(content)
    Bm25(["the cat"]).save(words)
    with pytest.raises(InputError, match="other passages"):
        Index(out).search("cat", words=True)


def test_without_bm25s_it_is_said_before_anything_is_embedded(folder, tmp_path, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with monkeypatch.context() as patch:
        patch.setattr(type(model), "encode", None)
        refused("pip install bm25s", folder, tmp_path / "i", model)


def test_reciprocal_rank_fusion_by_hand():
    assert fuse([[3, 1], [1, 2]], 3) == [(1, 1 / 62 + 1 / 61), (3, 1 / 61), (2, 1 / 62)]
    assert fuse([[5], []], 3) == [(5, 1 / 61)]


def clustered(count, questions, dimension=32, clusters=100, seed=0):
    """Unit vectors in clusters, as texts of like matter make them; questions lie in the same clusters."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(clusters, dimension, generator=generator)
    chosen = torch.randint(clusters, (count + questions,), generator=generator)
    vectors = centres[chosen] + 0.7 * torch.randn(count + questions, dimension, generator=generator)
    return torch.nn.functional.normalize(vectors, dim=-1).split([count, questions])


def test_the_graph_finds_nearly_all_of_the_nearest(tmp_path):
    usearch = pytest.importorskip("usearch.index")
    vectors, questions = clustered(5000, 100)
    write_graph(vectors, tmp_path / "g.usearch")
    index = Index.__new__(Index)
    index.vectors, index.approximate = vectors, True
    index.graph = usearch.Index.restore(str(tmp_path / "g.usearch"), view=True)
    scores, rows = index.nearest(questions, 10)
    exact_scores, exact_rows = index.nearest(questions, 10, exact=True)
    found = (rows[:, :, None] == exact_rows[:, None, :]).any(dim=1)
    assert found.float().mean() >= 0.9
    torch.testing.assert_close(scores, (vectors[rows] * questions[:, None]).sum(dim=-1))  # not the graph's float16
    assert (scores.diff(dim=1) <= 0).all() and (scores[:, 0] <= exact_scores[:, 0] + 1e-6).all()


def test_a_graph_is_written_where_it_is_wanted_or_large_enough(folder, tmp_path, model):
    pytest.importorskip("usearch")
    out = tmp_path / "i"

    def graphs():
        return [path.name for path in out.glob(".generation-*/*.usearch")]

    assert not make(folder, out, model, approximate_from=6)[0].approximate and graphs() == []
    built, _ = make(folder, out, model, approximate_from=5)
    assert built.approximate and built.embedded == 0 and graphs() == ["vectors.usearch"]
    index = Index(out, model)
    for text in TEXTS:
        graph, exact = index.search(text, 3), index.search(text, 3, exact=True)
        assert [hit.passage for hit in graph] == [hit.passage for hit in exact]
        assert [hit.score for hit in graph] == pytest.approx([hit.score for hit in exact], abs=1e-6)
    assert not make(folder, out, model, approximate_from=5, approximate=False)[0].approximate and graphs() == []
    assert make(folder, out, model, approximate=True)[0].approximate
    assert APPROXIMATE_FROM == 500_000  # as the help of `search build` says


def test_without_usearch_it_is_said_before_anything_is_embedded(folder, tmp_path, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with monkeypatch.context() as patch:
        patch.setattr(type(model), "encode", None)
        refused("pip install usearch, or give --exact", folder, tmp_path / "i", model, approximate=True)


def test_a_graph_without_usearch_is_not_needed_for_exact_answers(folder, tmp_path, model, monkeypatch):
    pytest.importorskip("usearch")
    make(folder, tmp_path / "i", model, approximate=True)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    index = Index(tmp_path / "i", model)
    with pytest.raises(InputError, match="or give --exact"):
        index.search(TEXTS[0])
    assert index.search(TEXTS[0], exact=True)[0].passage.text == TEXTS[0]


def test_files_of_an_index_are_what_the_module_says(folder, tmp_path, model):
    out = tmp_path / "i"
    make(folder, out, model)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["model"]["name"] == "a-model" and len(manifest["model"]["fingerprint"]) == 16
    assert (manifest["model"]["dimension"], manifest["model"]["similarity"]) == (32, "cosine")
    assert manifest["settings"] == {"max_tokens": 64, "overlap": 0} and manifest["words"]
    entry = manifest["files"]["0.txt"]
    assert entry["size"] == len(TEXTS[0]) and len(entry["sha256"]) == 64 and entry["rows"] == 1
    tensors = load_file(out / manifest["generation"] / "vectors.safetensors")
    lines = (out / manifest["generation"] / "passages.jsonl").read_bytes()
    assert tensors["vectors"].shape == (5, 32)
    first, second = tensors["offsets"][:2].tolist()
    assert json.loads(lines[first:second]) == dict(text=TEXTS[0], source="0.txt", first_line=1, last_line=1)
