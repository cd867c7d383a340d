"""Passages -> a numbered context within a budget -> a chat server's answer, and the sources that it cites."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from tiny_retriever import TEXTS, tiny_embedder

from modernbert_edu import SequenceClassifier, save
from modernbert_edu.__main__ import main
from modernbert_edu.data.tokenizer import train_bpe
from modernbert_edu.errors import InputError
from modernbert_edu.retriever_folder import save_retriever
from modernbert_edu.tasks import rag
from modernbert_edu.tasks.chat import chat, completions_url
from modernbert_edu.tasks.index import Hit
from modernbert_edu.tasks.passages import Passage, count_tokens
from modernbert_edu.tasks.rag import answer, choose, citations, context_of, find, join, prepare, run_answers
from modernbert_edu.tasks.rerank import Reranker

TOPICS = "sorting reading writing parsing hashing pickling copying zipping walking timing".split()
LINES = [f"line {number} of the file says something about {topic}" for number, topic in enumerate(TOPICS, 1)]


@pytest.fixture(scope="module")
def tokenizer():
    with pytest.warns(UserWarning, match="stay unused"):
        return train_bpe(LINES * 3, 640)


def hit(first, last, score, source="a.py", lines=LINES):
    return Hit(Passage("\n".join(lines[first - 1 : last]), source, first, last), score)


class FakeIndex:
    """Gives its hits, best first, as the real one does; remembers how it was asked."""

    def __init__(self, hits, tokenizer):
        self.hits, self.tokenizer, self.asked = hits, tokenizer, []

    def search(self, question, k, **how):
        self.asked.append((question, k, how))
        return self.hits[:k]


HITS = [hit(7, 8, 0.9), hit(1, 2, 0.8, "b.py"), hit(1, 3, 0.7), hit(3, 4, 0.6), hit(10, 10, 0.5), hit(6, 7, 0.4)]


# ---- the context -----------------------------------------------------------------------------------------------------


def test_neighbours_of_one_file_are_joined_and_the_best_comes_first():
    sources = join(HITS)
    assert [str(source) for source in sources] == ["[1] a.py:6-8", "[2] b.py:1-2", "[3] a.py:1-4", "[4] a.py:10"]
    assert [source.score for source in sources] == [0.9, 0.8, 0.7, 0.5]
    assert sources[0].passage.text == "\n".join(LINES[5:8]) and sources[2].passage.text == "\n".join(LINES[:4])
    assert join(HITS[:1])[0].passage == HITS[0].passage
    touching = join([hit(5, 6, 2.0), hit(7, 9, 3.0)])  # no line in common, none between
    assert [str(source) for source in touching] == ["[1] a.py:5-9"] and touching[0].score == 2.0


def test_parts_of_one_long_line_stay_apart():
    parts = [Hit(Passage(text, "a.txt", 4, 4), 1.0) for text in ("the first half", "the second half")]
    assert [source.passage.text for source in join(parts)] == ["the first half", "the second half"]


def test_whole_passages_are_taken_while_the_budget_holds(tokenizer):
    def size(sources):
        return count_tokens([context_of(sources)], tokenizer)[0]

    everything = choose(HITS, tokenizer, 10_000)
    assert everything == join(HITS)
    for count in range(1, len(HITS) + 1):
        exactly = size(join(HITS[:count]))
        assert choose(HITS, tokenizer, exactly) == join(HITS[:count])
        if count > 1:
            assert choose(HITS, tokenizer, exactly - 1) == join(HITS[: count - 1])
    with pytest.raises(InputError, match="the best passage takes .* tokens, and the budget is 5"):
        choose(HITS, tokenizer, 5)


def test_a_text_that_stands_twice_is_taken_once(tokenizer):
    copies = [hit(1, 2, 0.9), hit(1, 2, 0.8, "copy.py"), hit(5, 5, 0.7)]
    assert [source.passage.where for source in choose(copies, tokenizer, 10_000)] == ["a.py:1-2", "a.py:5"]


def test_the_context_names_file_and_lines(tokenizer):
    made = prepare("what is sorted?  ", FakeIndex([hit(1, 2, 0.9), hit(5, 5, 0.8)], tokenizer), k=2)
    assert made.context == f"[1] a.py:1-2\n{LINES[0]}\n{LINES[1]}\n\n[2] a.py:5\n{LINES[4]}"
    assert made.tokens == count_tokens([made.context], tokenizer)[0] and made.text is None
    assert made.question == "what is sorted?" and made.warning is None and made.cited == []
    with pytest.raises(InputError, match="budget must be at least 1"):
        prepare("q", FakeIndex(HITS, tokenizer), budget=0)


def test_a_reranker_reads_more_than_it_returns(tokenizer):
    class Longest:
        def rerank(self, question, texts):
            return torch.tensor([float(len(text)) for text in texts])

    index = FakeIndex(HITS, tokenizer)
    found = find(index, "q", 2, reranker=Longest(), candidates=4, hybrid=True)
    assert index.asked == [("q", 4, {"hybrid": True})]
    assert [h.passage.where for h in found] == ["a.py:1-3", "a.py:7-8"] and found[0].score == len(HITS[2].passage.text)
    assert find(index, "q", 3) == HITS[:3] and index.asked[-1] == ("q", 3, {})


# ---- citations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("It sorts [2]. It reads files[1][3].", [2, 1, 3]),
        ("Both [1, 3; 2] and [2-4].", [1, 3, 2, 4]),
        ("Nothing (1) here, [a], [], [1.5].", []),
        ("Write `x[7]`:\n```python\ny = x[8]\n```\nas in [1].", [1]),
        ("Code that never ends [2]\n```\nx[5]", [2]),
        ("[0] and [12], from [1990-2020]", [0, 12, 1990, 2020]),
    ],
)
def test_citations_are_read_from_prose(text, numbers):
    assert citations(text) == numbers


def test_numbers_without_a_source_are_warned_of(tokenizer):
    made = prepare("q", FakeIndex([hit(1, 2, 0.9), hit(5, 5, 0.8)], tokenizer))
    made.text = "It sorts [2], as [3] and [0] say."
    assert made.cited == [2] and made.unknown == [3, 0]
    assert made.warning == "the answer cites [3], [0], and there are 2 sources"
    made.text = "It sorts."
    assert made.warning == "the answer cites no source"
    made.text = "It sorts [1]."
    assert made.warning is None and made.cited == [1]


# ---- a server --------------------------------------------------------------------------------------------------------


def said(text):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@pytest.fixture
def server(monkeypatch):
    """A chat server on this machine: `.answers` holds (status, headers, body) of the next ones, `.requests` what came.

    Both variables below would keep other clients from reaching it.
    """
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            httpd.requests.append((self.path, dict(self.headers), body))
            status, headers, answer = httpd.answers.pop(0)
            if callable(answer):
                answer = answer()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(answer)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.requests, httpd.answers = [], []
    httpd.url = f"http://127.0.0.1:{httpd.server_port}/v1"
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_the_server_is_asked_with_passages_and_question(server, tokenizer):
    server.answers.append((200, {}, said("It sorts [1].\x1b[2J ")))
    index = FakeIndex([hit(1, 2, 0.9), hit(5, 5, 0.8)], tokenizer)
    made = answer("what is sorted?", index, endpoint=server.url, api_model="small")
    assert made.text == "It sorts [1].[2J" and made.cited == [1]  # without control characters; and
    assert made.unknown == []  # "[2J" is no citation
    ((path, headers, body),) = server.requests
    assert path == "/v1/chat/completions" and body["model"] == "small" and "Authorization" not in headers
    system, user = body["messages"]
    assert system["role"] == "system" and system["content"] == rag.INSTRUCTION
    assert user["role"] == "user" and made.context in user["content"] and user["content"].endswith("what is sorted?")


def test_the_key_comes_from_the_environment_and_goes_to_that_server_only(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", " secret \n")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    server.answers += [(200, {}, said("yes")), (307, {"Location": server.url.replace("v1", "v2")}, b"")]
    assert chat(server.url + "/", [{"role": "user", "content": "?"}]) == "yes"
    path, headers, body = server.requests[0]
    assert headers["Authorization"] == "Bearer secret" and "model" not in body and "hf_other" not in str(headers)
    with pytest.raises(InputError, match="status 307 .* give the URL that it moved to"):
        chat(server.url, [])
    assert len(server.requests) == 2  # the redirect was not followed
    monkeypatch.setenv("OPENAI_API_KEY", "se\ncret")
    with pytest.raises(InputError, match="OPENAI_API_KEY holds characters that no key has") as caught:
        chat(server.url, [])
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b'{"error": {"message": "Bad key\\nsecret given"}}', "status 401 (Bad key ... given); set OPENAI_API"),
        (403, b"<html>no</html>", "status 403 (Forbidden); set OPENAI_API_KEY"),
        (404, b'{"error": "no model q"}', "status 404 (no model q); does the URL end as"),
        (422, b'{"detail": [{"msg": "x"}]}', "status 422 (Unprocessable"),
        (500, b"[]", "status 500 (Internal Server Error); see the server"),
        (200, b"<html>hello</html>", "answers, but not as OpenAI's chat completions do"),
        (200, b'{"choices": []}', "answers, but not as"),
        (200, b'{"choices": [{"message": {"content": null}}]}', "answers, but not as"),
        (200, b'{"choices": [{"message": {"content": "  "}}]}', "answers, but not as"),
        (200, b'["choices"]', "answers, but not as"),
        (200, b"", "answers, but not as"),
    ],
)  # fmt: skip
def test_every_failing_answer_is_one_line(server, monkeypatch, status, body, words):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server.answers.append((status, {}, body))
    with pytest.raises(InputError) as caught:
        chat(server.url, [])
    message = str(caught.value)
    assert words in message and "\n" not in message and "secret" not in message and server.url in message


def test_a_server_that_is_silent_cut_off_or_absent(server):
    release = threading.Event()
    server.answers.append((200, {}, lambda: release.wait(20) and b"" or b""))
    with pytest.raises(InputError, match=r"cannot be asked: no answer within 0\.2 s"):
        chat(server.url, [], timeout=0.2)
    release.set()
    server.answers.append((200, {"Content-Length": "1000"}, b"half"))
    with pytest.raises(InputError, match="answers, but not as"):
        chat(server.url, [])
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError, match="cannot be asked: .*refused.*; is the server running"):
        chat(server.url, [], timeout=5)


@pytest.mark.parametrize(
    "endpoint",
    ["", "here", "localhost:8000", "ftp://x/v1", "file:///etc/passwd", "http://", "http://x:port/v1", "http://a b/v1",
     "http://x/v1\n", "http://[::1/v1"],
)  # fmt: skip
def test_what_is_no_url_is_refused_before_anything_is_sent(endpoint):
    with pytest.raises(InputError, match="is no URL; give one like http://localhost:8000/v1"):
        completions_url(endpoint)


def test_the_path_is_completed():
    assert completions_url("https://h/v1") == completions_url("https://h/v1/") == "https://h/v1/chat/completions"
    assert completions_url("https://h/v1/chat/completions") == "https://h/v1/chat/completions"
    assert completions_url("http://h:8000") == "http://h:8000/chat/completions"
    assert completions_url("http://h/openai/v1?version=2") == "http://h/openai/v1/chat/completions?version=2"


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch, tokenizer):
    index = FakeIndex([hit(1, 2, 0.9), hit(5, 5, 0.8)], tokenizer)
    monkeypatch.setattr("modernbert_edu.tasks.search.open_for_questions", lambda out, model, device, **how: index)
    return index


def test_without_a_server_the_context_is_printed(opened, capsys, tmp_path):
    records = run_answers(tmp_path, ["what is sorted?", "what is hashed?"], device=torch.device("cpu"), top=1)
    printed = capsys.readouterr().out
    assert f"[1] a.py:1-2\n{LINES[0]}\n{LINES[1]}\n" in printed and "1 source, " in printed
    assert [record["question"] for record in records] == ["what is sorted?", "what is hashed?"]
    assert records[0]["sources"] == [dict(number=1, score=0.9, text=f"{LINES[0]}\n{LINES[1]}", source="a.py",
                                          first_line=1, last_line=2)]  # fmt: skip
    assert records[0]["text"] is None and json.dumps(records) and opened.asked[0][1] == 1
    with pytest.raises(InputError, match="there was no question"):
        run_answers(tmp_path, [], device=torch.device("cpu"))


def test_with_a_server_the_answer_is_printed_with_what_it_cites(opened, server, capsys, tmp_path):
    server.answers.append((200, {}, said("It hashes [2]. Surely [9].")))
    (record,) = run_answers(tmp_path, ["what is hashed?"], device=torch.device("cpu"), endpoint=server.url)
    printed = capsys.readouterr().out
    assert "It hashes [2]. Surely [9].\n\n[2] a.py:5\nwarning: the answer cites [9], and there are 2 sources" in printed
    assert record["cited"] == [2] and record["unknown"] == [9] and LINES[0] not in printed


def test_where_nothing_is_found_no_server_is_asked(opened, server, capsys, tmp_path):
    opened.hits = []
    (record,) = run_answers(tmp_path, ["what is hashed?"], device=torch.device("cpu"), endpoint=server.url)
    assert record["text"] is None and record["context"] == "" and record["sources"] == [] and not server.requests
    assert "no passage was found" in capsys.readouterr().out
    assert answer("what is hashed?", opened, endpoint=server.url).text is None


def test_where_the_server_fails_the_context_is_printed_all_the_same(opened, server, capsys, tmp_path):
    server.answers.append((500, {}, b"oops"))
    with pytest.raises(InputError, match="status 500"):
        run_answers(tmp_path, ["what is hashed?"], device=torch.device("cpu"), endpoint=server.url)
    assert f"[2] a.py:5\n{LINES[4]}" in capsys.readouterr().out
    with pytest.raises(InputError, match="is no URL"):
        run_answers(tmp_path, ["q"], device=torch.device("cpu"), endpoint="nowhere")
    assert len(opened.asked) == 1  # nothing was searched for it


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A real index of a few files, and a reranker that nobody trained."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "texts").mkdir()
    for number, text in enumerate(TEXTS):
        (folder / "texts" / f"{number}.txt").write_text(text)
    embedder = tiny_embedder()
    save_retriever(embedder, folder / "model")
    torch.manual_seed(0)
    save(SequenceClassifier.from_pretrained(embedder.encoder, ("relevance",)), embedder.tokenizer, folder / "reranker")
    command = ["search", "build", folder / "texts", "--out", folder / "index", "--model", folder / "model"]
    assert main([*map(str, command), "--device", "cpu"]) == 0
    return folder


def ask(built, capsys, *arguments, status=0):
    capsys.readouterr()
    assert main(["search", "ask", str(built / "index"), *map(str, arguments), "--device", "cpu"]) == status
    captured = capsys.readouterr()
    assert captured.err.count("\n") == (status != 0)
    return captured.out, captured.err


def test_the_shell_prints_a_context_of_a_real_index(built, capsys, tmp_path):
    printed, _ = ask(built, capsys, TEXTS[2], "--context", "--top", "3", "--json", tmp_path / "a.jsonl")
    assert f"[1] 2.txt:1-3\n{TEXTS[2]}\n" in printed and "\n[3] " in printed and "\n[4] " not in printed
    (record,) = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [source["number"] for source in record["sources"]] == [1, 2, 3] and record["context"] in printed
    nothing, _ = ask(built, capsys, "xylophone", "--context", "--words")
    assert "no passage was found" in nothing
    small, _ = ask(built, capsys, TEXTS[2], "--context", "--budget", record["tokens"] - 1)
    assert "[1] 2.txt:1-3" in small and "\n[3] " not in small


def test_the_shell_reranks(built, capsys, tmp_path):
    reranker = Reranker.load(built / "reranker")
    order = reranker.rerank(TEXTS[2], TEXTS).argsort(descending=True).tolist()
    assert order != list(range(len(TEXTS)))
    printed, _ = ask(built, capsys, TEXTS[2], "--rerank", built / "reranker", "--json", tmp_path / "a.jsonl")
    (record,) = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [hit["source"] for hit in record["hits"]] == [f"{i}.txt" for i in order]
    assert ", reranking " in printed and record["reranking_seconds"] > 0
    printed, _ = ask(built, capsys, TEXTS[2], "--rerank", built / "reranker", "--context")
    assert [printed.index(f"] {i}.txt:") for i in order] == sorted(printed.index(f"] {i}.txt:") for i in order)


def test_the_shell_asks_a_server(built, capsys, server):
    server.answers += [(200, {}, said("It reads bytes [1].")), (404, {}, b"")]
    given = (TEXTS[2], "--endpoint", server.url, "--api-model", "m", "--top", "1")
    printed, _ = ask(built, capsys, *given)
    assert "It reads bytes [1].\n\n[1] 2.txt:1-3\n" in printed and server.requests[0][2]["model"] == "m"
    printed, error = ask(built, capsys, *given, status=2)
    assert f"[1] 2.txt:1-3\n{TEXTS[2]}" in printed and "status 404" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--budget", "9"], "--budget is of a context"),
        (["--api-model", "m", "--context"], "give --endpoint URL"),
        (["--context", "--full"], "leave out --full"),
        (["--context", "--budget", "3"], "the best passage takes"),
        (["--context", "--budget", "0"], "budget must be at least 1"),
        (["--context", "--top", "0"], "at least one passage"),
        (["--endpoint", "localhost"], "is no URL"),
        (["--rerank", "nowhere/at/all"], "there is no folder nowhere/at/all"),
    ],
)
def test_the_shell_refuses_what_does_not_fit_together(built, capsys, arguments, words):
    assert words in ask(built, capsys, "q", *arguments, status=2)[1]
    assert "is no reranker" in ask(built, capsys, "q", "--rerank", built / "model", status=2)[1]
