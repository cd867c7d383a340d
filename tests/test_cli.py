"""The command line: bad input is one line on stderr, exit status 2, and nothing lost."""

import json
import os
import subprocess
import sys

import pytest

from modernbert_edu.__main__ import build_parser, main
from modernbert_edu.data.tokenizer import load_tokenizer


def fails(capsys, *arguments):
    """The one line that the command says; it must be one line and the status 2."""
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    assert status == 2
    assert captured.err.startswith("modernbert-edu: ") and captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err
    return captured.err


def test_bad_corpora(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / "blank.txt").write_text(" \n ")
    out = ("--out", tmp_path / "out", "--scale", "quick", "--device", "cpu")
    assert "empty" in fails(capsys, "tour", "--corpus", tmp_path / "empty", *out)
    assert "txt" in fails(capsys, "tour", "--corpus", tmp_path / "images", *out)
    assert fails(capsys, "tour", "--corpus", tmp_path / "blank.txt", *out)
    assert "hub:" in fails(capsys, "tour", "--corpus", tmp_path / "nothing", *out)
    assert fails(capsys, "tour", "--corpus", "hub:wikitext", *out)


def test_a_corpus_too_short_to_train_on(capsys, tmp_path):
    (tmp_path / "c").mkdir()
    for name in "ab":
        (tmp_path / "c" / f"{name}.txt").write_text("hello")
    out = ("--out", tmp_path / "out", "--scale", "quick", "--device", "cpu")
    with pytest.warns(UserWarning, match="too small"):
        assert "give more text" in fails(capsys, "tour", "--corpus", tmp_path / "c", *out)


def test_unwritable_output_and_unknown_names(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file" in fails(capsys, "tour", "--scale", "quick", "--out", tmp_path / "file" / "x", "--device", "cpu")
    assert "quick, laptop, gpu" in fails(capsys, "tour", "--scale", "huge", "--out", tmp_path)
    assert "cpu" in fails(capsys, "tour", "--device", "tpu", "--out", tmp_path)
    assert "tpu" in fails(capsys, "doctor", "--device", "tpu")
    assert "invalid choice: 'fly'" in fails(capsys, "fly")
    assert "--out" in fails(capsys, "tokenizer")
    assert "64" in fails(capsys, "tokenizer", "--vocab-size", "1000", "--out", tmp_path / "t")
    assert fails(capsys, "notebooks", "--folder", tmp_path / "none", "--out", tmp_path / "o")


def test_as_a_program_it_exits_with_2_and_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "modernbert_edu", "tour", "--corpus", str(tmp_path), "--out", str(tmp_path / "o")],
        capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_tokenizer_verb(capsys, tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat on the mat. " * 200 + "\n\n" + "the dog sat on the log. " * 30)
    (tmp_path / "b.txt").write_text("the cow sat on the plough. " * 20)
    with pytest.warns(UserWarning, match="stay unused"):
        status = main(["tokenizer", "--corpus", str(tmp_path), "--vocab-size", "640", "--out", str(tmp_path / "t"),
                       "--json", str(tmp_path / "t.json")])  # fmt: skip
    assert status == 0
    tokenizer = load_tokenizer(tmp_path / "t")
    assert tokenizer.vocab_size == 640
    result = json.loads((tmp_path / "t.json").read_text())
    assert result["vocab_size"] == 640 and result["held_out_characters_per_token"] > 1
    assert "characters per token" in capsys.readouterr().out


def test_doctor_prints_the_backend_and_writes_json(capsys, tmp_path):
    status = main(["doctor", "--json", str(tmp_path / "d.jsonl")])
    printed = capsys.readouterr().out
    assert status == 0
    for word in ("torch", "sdpa", "flash-attn", "transformers"):
        assert word in printed
    rows = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    assert len(rows) > 8


def test_every_verb_has_help_and_the_common_options(capsys):
    verbs = build_parser()._subparsers._group_actions[0].choices
    assert {"doctor", "tour", "tokenizer", "notebooks"} <= set(verbs)
    for verb, parser in verbs.items():
        options = parser.format_help()
        for option in ("--seed", "--device", "--scale", "--json"):
            assert option in options, (verb, option)


@pytest.mark.parametrize("package", ["torch", "tokenizers", "tqdm"])
def test_without_a_needed_package_doctor_still_says_so(package):
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from modernbert_edu.__main__ import main\n"
        "print('STATUS', main(['doctor']), main(['tour', '--scale', 'quick', '--corpus', 'nothing']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    # sys.modules[...] = None makes the import fail as if the package were absent; its metadata is still there.
    expected = "STATUS 1 2" if package == "torch" else "STATUS 0 2"
    assert expected in done.stdout, done.stdout
