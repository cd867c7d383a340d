"""Links: each leads to a file that is committed, to a heading that is there, to the lesson that its words name.

That a lesson's links lead to something on disk is in test_notebooks.py. Here are committed files, anchors, words and
their targets, lesson numbers, pictures, and the form of addresses elsewhere, which no test opens.
"""

import re
from pathlib import PurePosixPath
from urllib.parse import unquote

import pytest
from test_house import ROOT, committed_files
from test_notebooks import LESSONS, MACHINE_PATH, cells_of

from modernbert_edu.lessons import MODULES

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "figures/claims.md")]
DOCUMENTS = PAGES + LESSONS
# The lessons that are there, and those that are registered and not yet written.
KNOWN = {path.stem for path in LESSONS} | set(MODULES)

FENCE = re.compile(r"^ *(`{3,}|~{3,}).*?^ *\1 *$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"(`+)(.+?)\1")
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\]\([^)]*\))*)\]\(([^()\s]+)(?: \"[^\"]*\")?\)")  # words may hold a picture
PICTURE = re.compile(r"!\[[^\]]*\]\(([^()\s]+)\)")
DEFINITION = re.compile(r"^\[[^\]]+\]: *(\S+)", re.MULTILINE)
TAG = re.compile(r"<(?:a|img)\b[^>]*?\b(?:href|src)=[\"']([^\"']+)")
PLACE = re.compile(r"<a\b[^>]*?\b(?:id|name)=[\"']([^\"']+)")
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)
ADDRESS = re.compile(r"\bhttps?://[^\s\"'`<>)\]|\\]+")
DRAWN = re.compile(r"(?<![\w/-])(?:\.\./)?(figures/[\w./-]+\.(?:png|md|json|jsonl))\b")
NUMBERS = re.compile(r"\b[Ll]essons? (\d\d)\b(?:(?:,| and| or| to) (\d\d)\b)*")
NAMED = re.compile(r"(?:[Ll]esson )?(\d\d)(?:_\w+)?")

# A package comes from where the reader's tools look, so no page names such a host. In parts: this file holds none.
REGISTRIES = [
    ".".join(parts)
    for parts in (["pypi", "org"], ["pythonhosted", "org"], ["anaconda", "org"], ["download", "pytorch", "org"])
]
ARXIV = re.compile(r"https://arxiv\.org/abs/(\d{4}\.\d{5})")


def text_of(path):
    """What a reader sees as prose: a page, or the markdown cells of a lesson."""
    if path.suffix == ".ipynb":
        return "\n\n".join(cell.source for cell in cells_of(path, "markdown"))
    return path.read_text(encoding="utf-8")


def prose(text):
    """Without blocks of code; what is code within a line stays, without the brackets that would read as a link."""
    return CODE.sub(lambda found: re.sub(r"[\[\]()<>]", "", found[2]), FENCE.sub("", text))


def links(text):
    """[(words, target)]: links, pictures, definitions and HTML."""
    text = prose(text)
    bare = [*PICTURE.findall(text), *DEFINITION.findall(text), *TAG.findall(text)]
    return [*LINK.findall(text), *(("", target) for target in bare)]


def anchors(path):
    """What may follow the # in a link to this file.

    GitHub writes a page's headings in small letters, keeps letters, digits, - and _, makes each space a -, and numbers
    those that come again. Jupyter keeps a lesson's headings as they are, with - for each space.
    """
    text = prose(text_of(path))
    found, seen = set(PLACE.findall(text)), {}
    for heading in HEADING.findall(text):
        heading = LINK.sub(r"\1", heading).replace("*", "")
        if path.suffix == ".ipynb":
            found.add(heading.replace(" ", "-"))
            continue
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        again = seen[anchor] = seen.get(anchor, -1) + 1
        found.add(f"{anchor}-{again}" if again else anchor)
    return found


def address_faults(address):
    """What is wrong with an address elsewhere; a machine's own server may be an example."""
    host = re.match(r"https?://([^/?#]*)", address)
    if not host:
        return [f"{address}: neither in this repository nor https"]
    if re.fullmatch(r"localhost(:\d+)?", host[1]):
        return []
    faults = []
    if not address.startswith("https://"):
        faults.append(f"{address}: not https")
    if not re.fullmatch(r"(?:[a-z0-9-]+\.)+[a-z]{2,}", host[1]):
        faults.append(f"{address}: no public host's name")
    if any(host[1] == name or host[1].endswith("." + name) for name in REGISTRIES):
        faults.append(f"{address}: the host of a registry")
    if host[1].endswith("arxiv.org") and not ARXIV.fullmatch(address):
        faults.append(f"{address}: not https://arxiv.org/abs/ and a number")
    return faults


def faults_of(path, root, committed):
    """Every fault of a document's links, as lines. `committed` holds the files below `root` that a reader gets."""
    text, faults = text_of(path), []
    folders = {parent for file in committed for parent in file.parents}
    for words, target in links(text):
        if re.match(r"\w+:", target):
            faults += address_faults(target)
            named = ARXIV.fullmatch(target)
            if named and re.fullmatch(r"[\d.]+", words) and words != named[1]:
                faults.append(f"[{words}] leads to arXiv {named[1]}")
            continue
        place, _, anchor = unquote(target).partition("#")
        file = (path.parent / place).resolve() if place else path
        if not (file in committed or (place and root in [file, *file.parents] and file in folders)):
            faults.append(f"{target}: not a file or folder of this repository")
        elif anchor and anchor not in anchors(file):
            faults.append(f"{target}: no such heading")
        lesson, named = PurePosixPath(place), NAMED.fullmatch(words.strip())
        if named and lesson.suffix == ".ipynb" and not (words == lesson.stem or named[1] == lesson.stem[:2]):
            faults.append(f"[{words}] leads to {lesson.name}")
    for address in ADDRESS.findall(text):
        faults += address_faults(address.rstrip(".,;:"))
    for name in DRAWN.findall(text):
        if root / name not in committed:
            faults.append(f"{name}: named, and not there")
    if MACHINE_PATH.search(text):
        faults.append(f"{MACHINE_PATH.search(text)[0]}: a path of a machine")
    return faults


def numbers_in(text):
    """The lessons that a text speaks of by number: "lesson 04", "lessons 04 and 06", "lessons 02 to 05"."""
    text = LINK.sub(r"\1", prose(text))
    return {number for found in NUMBERS.finditer(text) for number in re.findall(r"\d\d", found[0])}


def next_lesson(text):
    """The number of the lesson that the section "Next" names first, by a link or in words; None if none."""
    section = re.split(r"^## Next\b.*$", prose(text), flags=re.MULTILINE)[-1]
    found = re.search(r"\((\d\d)_\w+\.ipynb\)|\b[Ll]esson (\d\d)\b", section)
    return found and (found[1] or found[2])


# ------------------------------------------------------------------------------------------- the documents


@pytest.fixture(scope="module")
def committed():
    return {path.resolve() for path in committed_files()}


@pytest.mark.parametrize("path", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_every_link_leads_where_it_says(path, committed):
    assert links(text_of(path)) or path.name == "CONTRIBUTING.md", "no link was found at all"
    assert faults_of(path, ROOT, committed) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_every_lesson_that_is_named_by_number_exists(path):
    assert numbers_in(text_of(path)) <= {name[:2] for name in KNOWN}


@pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])
def test_a_lesson_ends_with_the_next_one(path):
    later = sorted(name[:2] for name in KNOWN if name[:2] > path.stem[:2])
    named = next_lesson(text_of(path))
    if later:
        assert named == later[0]
    else:  # the last one may look back
        assert named is None or named < path.stem[:2]


def test_the_front_page_links_every_lesson():
    targets = {target for _, target in links(text_of(ROOT / "README.md"))}
    assert {f"notebooks/{path.name}" for path in LESSONS} <= targets


def test_the_page_of_claims_links_from_its_table_to_every_section():
    page = ROOT / "figures" / "claims.md"
    places = PLACE.findall(text_of(page))
    assert places and len(places) == len(set(places))
    assert {"#" + place for place in places} == {target for _, target in links(text_of(page)) if target[0] == "#"}


# ------------------------------------------------------------------------------------- the test can fail


@pytest.fixture
def little(tmp_path):
    """A repository of a page, a second one, a lesson and a folder: -> check(text of the page) -> its faults."""
    tmp_path = tmp_path.resolve()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "04_rope.ipynb").write_text(
        '{"cells": [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# Rotary positions\\n\\n## Next"}],'
        ' "metadata": {}, "nbformat": 4, "nbformat_minor": 5}',
        encoding="utf-8",
    )
    (tmp_path / "other.md").write_text("# What's `new`?\n\n## Twice\n\n## Twice\n\n<a id='here'></a>", encoding="utf-8")
    (tmp_path / "ignored.md").write_text("made by a command", encoding="utf-8")
    page = tmp_path / "page.md"
    files = {page, tmp_path / "other.md", tmp_path / "notebooks" / "04_rope.ipynb"}

    def check(text):
        page.write_text(text, encoding="utf-8")
        return faults_of(page, tmp_path, files)

    return check


GOOD = [
    "[words](other.md) and [`04_rope`](notebooks/04_rope.ipynb), [lesson 04](notebooks/04_rope.ipynb), [a](notebooks)",
    "[a](other.md#whats-new) [b](other.md#twice) [c](other.md#twice-1) [d](other.md#here)",
    "# Here we are\n\n[up](#here-we-are) [r](notebooks/04_rope.ipynb#Rotary-positions)",
    "```python\nx = rows[0](missing.md)\n# [a](missing.md)\n```\nand `rows[0](missing.md)` and <br>",
    "[2104.09864](https://arxiv.org/abs/2104.09864) and http://localhost:8000/v1",
]


@pytest.mark.parametrize("text", GOOD)
def test_a_good_link_passes(text, little):
    assert little(text) == []


BROKEN = [
    ("see [words](missing.md)", "missing.md: not a file"),
    ("see [words](ignored.md)", "ignored.md: not a file"),
    ("see [words](Other.md)", "Other.md: not a file"),
    ("see [words](../elsewhere.md)", "../elsewhere.md: not a file"),
    ("![a picture](figures/a.png)", "figures/a.png: not a file"),
    ("[![a picture](a.png)](other.md)", "a.png: not a file"),
    ('<img alt="x" src="a.png">', "a.png: not a file"),
    ("[words][w]\n\n[w]: missing.md", "missing.md: not a file"),
    ("# Here\n\n[down](#there)", "#there: no such heading"),
    ("[a](other.md#What's-new)", "no such heading"),
    ("[a](other.md#twice-2)", "no such heading"),
    ("[r](notebooks/04_rope.ipynb#rotary-positions)", "no such heading"),
    ("[05](notebooks/04_rope.ipynb)", "[05] leads to 04_rope.ipynb"),
    ("[`05_geglu`](notebooks/04_rope.ipynb)", "[05_geglu] leads to 04_rope.ipynb"),
    ("as in `figures/a.png`", "figures/a.png: named, and not there"),
    ("[2104.09864](https://arxiv.org/abs/2104.09865)", "[2104.09864] leads to arXiv 2104.09865"),
    ("https://arxiv.org/pdf/2104.09864", "not https://arxiv.org/abs/ and a number"),
    ("[a](http://example.org/x)", "not https"),
    ("https://example:8080/x", "no public host's name"),
    ("[a](file:x.md)", "neither in this repository nor https"),
    (f"pip install --index-url https://{REGISTRIES[0]}/simple", "the host of a registry"),
    ("it was saved in " + "/ho" + "me/jane/x", "a path of a machine"),
]


@pytest.mark.parametrize(("text", "words"), BROKEN, ids=[text.splitlines()[-1][:40] for text, _ in BROKEN])
def test_a_broken_link_is_found(text, words, little):
    assert any(words in fault for fault in little(text)), little(text)


def test_numbers_of_lessons_are_read():
    text = "Lesson 03, and lessons 04, 06 and 09; lessons [10](10_x.ipynb) to [12](12_y.ipynb); since 2019, 13 of 14"
    assert numbers_in(text) == {"03", "04", "06", "09", "10", "12"}
    assert next_lesson("## Next\n\n[Lesson 07](07_unpadding.ipynb), after lesson 06") == "07"
    assert next_lesson("lesson 02\n\n## Next\n\nLesson 05, GeGLU") == "05"
    assert next_lesson("lesson 02\n\n## Next\n\nThe end.") is None
