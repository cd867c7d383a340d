"""Passages: nothing is lost, nothing is too long, and cuts lie where a reader would make them."""

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert_edu.data.tokenizer import train_bpe, train_wordpiece
from modernbert_edu.errors import InputError
from modernbert_edu.tasks import passages as module
from modernbert_edu.tasks.passages import Passage, count_tokens, cut_text, decode, list_files, read_folder

WORDS = "the cat sat on a mat and def return class self import for in of to is not none value".split()
BPE = train_bpe([" ".join(WORDS), "    def f(x):\n        return x\n"] * 20, vocab_size=320)
WORDPIECE = train_wordpiece([" ".join(WORDS)] * 20, vocab_size=64)

line = st.one_of(
    st.just(""),
    st.sampled_from(["# a", "## b c", "def f(x):", "    return x", "class A:", "    def g(self):", "@d", "```"]),
    st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join),
    st.text(alphabet=st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=40),
)


@settings(max_examples=150)
@given(
    lines=st.lists(line, max_size=60), limit=st.integers(16, 64), overlap=st.integers(0, 5),
    name=st.sampled_from(["a.py", "a.md", "a.txt"]), tokenizer=st.sampled_from([BPE, WORDPIECE]),
)  # fmt: skip
def test_every_line_lies_in_a_passage_and_no_passage_is_too_long(lines, limit, overlap, name, tokenizer):
    found, long_lines = cut_text("\n".join(lines), name, tokenizer, limit, overlap)
    assert all(tokens <= limit for tokens in count_tokens([p.text for p in found], tokenizer))
    in_parts = {}
    for passage in found:
        body = lines[passage.first_line - 1 : passage.last_line]
        if passage.text == "\n".join(body):
            assert body[0].strip() and body[-1].strip()
        else:  # a part of one long line
            assert len(body) == 1
            in_parts.setdefault(passage.first_line, []).append(passage.text)
    assert len(in_parts) <= long_lines  # of a long line all but one part may be white space
    for number, parts in in_parts.items():
        assert "".join("".join(parts).split()) == "".join(lines[number - 1].split())
    covered = {number for p in found for number in range(p.first_line, p.last_line + 1)}
    assert {number for number, text in enumerate(lines, start=1) if text.strip()} <= covered
    firsts = [passage.first_line for passage in found]
    assert firsts == sorted(firsts)
    if overlap == 0:  # no line twice, but in parts
        assert sum(p.last_line - p.first_line + 1 for p in found) - len(covered) == sum(
            len(parts) - 1 for parts in in_parts.values()
        )


def spans(text, name, limit, overlap=0):
    return [(p.first_line, p.last_line) for p in cut_text(text, name, BPE, limit, overlap)[0]]


PROGRAM = '''"""A module of which this is said, at some length, so that it is a passage."""
import os


# What comes above a function belongs to it.
@decorator
def first(the, cat, sat, on, a, mat):
    return the and cat and sat and on and a and mat


class Second:
    """It has two methods and this to say of itself, in words enough for a passage."""

    def one(self, the, cat, sat, on, a, mat):
        return self.value is not None and the and cat and sat

    async def two(self, the, cat, sat, on, a, mat):
        return self.value is None and the and cat and sat


LAST = first(the=1, cat=2, sat=3, on=4, a=5, mat=6), Second().one(the=1, cat=2, sat=3, on=4)
'''


def test_a_passage_of_python_is_a_definition():
    ast.parse(PROGRAM)
    assert spans(PROGRAM, "a.py", 120) == [(1, 2), (5, 8), (11, 12), (14, 15), (17, 18), (21, 21)]
    # As any other text it is cut where it is full.
    assert spans(PROGRAM, "a.txt", 10_000) == [(1, 21)]
    assert spans(PROGRAM.replace("import os", "import os os"), "a.py", 10_000) == [(1, 21)]  # another Python's


def test_small_definitions_share_a_passage():
    program = "".join(f"def f{i}(x):\n    return x\n\n\n" for i in range(12))
    found = spans(program, "a.py", 400)
    assert 1 < len(found) < 12
    assert all((first - 1) % 4 == 0 and last % 4 == 2 for first, last in found)


def test_a_long_function_is_cut_at_blank_lines_into_like_parts():
    body = "\n\n".join("    the = cat and mat\n    sat = the is not none" for _ in range(8))
    program = f"def f(the, cat):\n{body}\n"
    whole = sum(count_tokens([program], BPE))
    found = spans(program, "a.py", whole - 20)
    lines = program.split("\n")
    assert len(found) == 2 and not lines[found[0][1]].strip()
    lengths = [last - first for first, last in found]
    assert max(lengths) - min(lengths) <= 5


def test_sections_of_markdown_but_not_comments_in_its_code():
    section = "the cat sat on a mat and the cat is not in the mat\n" * 2
    text = f"# one\n{section}\n```\n# no heading\n{section}```\n## two\n{section}"
    assert spans(text, "a.md", 400) == [(1, 9), (10, 12)]


def test_neighbours_share_lines_where_a_text_is_cut():
    text = "\n".join("the cat sat on a mat" for _ in range(40))
    found = spans(text, "a.txt", 60, overlap=2)
    assert len(found) > 4
    assert all(second[0] == first[1] - 1 for first, second in zip(found, found[1:], strict=False))
    assert spans(text, "a.txt", 60)[1][0] == spans(text, "a.txt", 60)[0][1] + 1
    # More lines than a passage has cannot be shared: it goes on all the same.
    assert spans(text, "a.txt", 60, overlap=1000)[-1][1] == 40


def test_a_line_that_is_too_long_is_cut_and_counted():
    long = " ".join(WORDS * 40)
    found, long_lines = cut_text(f"the cat\n{long}\nthe mat", "a.txt", BPE, 32)
    assert long_lines == 1
    parts = [p.text for p in found if p.first_line == p.last_line == 2]
    assert len(parts) > 5 and "".join(parts) == long
    assert (found[0].text, found[-1].text) == ("the cat", "the mat")
    assert (found[0].where, Passage("", "b/c.py", 3, 9).where) == ("a.txt:1", "b/c.py:3-9")


def test_nothing_in_it_and_impossible_lengths():
    assert cut_text("", "a.txt", BPE) == ([], 0)
    assert cut_text(" \n\t\n", "a.py", BPE) == ([], 0)
    for limit, overlap in ((15, 0), (64, -1)):
        with pytest.raises(InputError, match="at least 16 and 0"):
            cut_text("the cat", "a.txt", BPE, limit, overlap)


def test_files_of_a_folder(tmp_path):
    for name in ("b.txt", "sub/a.py", "sub/c.MD", ".hidden/x.txt", "node_modules/x.js", "picture.png", "own/i.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("the cat\n")
    assert [file.source for file in list_files(tmp_path)] == ["b.txt", "own/i.txt", "sub/a.py", "sub/c.MD"]
    assert [f.source for f in list_files(tmp_path, leave_out=tmp_path / "own")] == ["b.txt", "sub/a.py", "sub/c.MD"]
    (one,) = list_files(tmp_path / "b.txt")
    assert (one.source, one.size, one.mtime_ns) == ("b.txt", 8, (tmp_path / "b.txt").stat().st_mtime_ns)
    with pytest.raises(InputError, match="does not exist"):
        list_files(tmp_path / "nothing")


def test_text_of_a_folder(tmp_path):
    (tmp_path / "windows.txt").write_bytes(b"\xef\xbb\xbfthe cat\r\nsat\r\n")
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (tmp_path / "long.txt").write_text("the cat " * 100)
    found, counts = read_folder(tmp_path, BPE, limit=32)
    assert found[-1] == Passage("the cat\nsat", "windows.txt", 1, 2)
    assert counts == {"files not UTF-8": 1, "lines cut inside": 1}
    assert decode(b"\xff\xfe") is None
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "blank.txt").write_text(" \n")
    with pytest.raises(InputError, match="no text in .*sub.* txt "):
        read_folder(tmp_path / "sub", BPE)


def test_a_definition_on_the_last_line_or_with_another_pythons_syntax():
    assert spans("def f(): return 1", "a.py", 32) == [(1, 1)]
    assert spans("print 'the cat'", "a.py", 32) == [(1, 1)]
    assert list(module._python_definitions(["x = '\\d'", "def f(): pass"])) == [1, 2]
