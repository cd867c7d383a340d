"""A dataset read as it is trained on: shares are disjoint and whole, and a stream goes on where it was."""

import itertools
import json

import pytest
import torch

from modernbert_edu import EncoderConfig, InputError, MaskedLM
from modernbert_edu.classroom.scale.text import TextScale
from modernbert_edu.data import prepare
from modernbert_edu.data.masking import IGNORED
from modernbert_edu.training import hub_stream, launch
from modernbert_edu.training.hub_stream import HubStream, stream_microbatches
from modernbert_edu.training.recipe import Recipe
from modernbert_edu.training.runs import pretrain

datasets = pytest.importorskip("datasets")
SMALL = dict(tokens=6144, length=64, tokens_per_step=512, microbatch_tokens=256, learning_rate=1e-3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Four jsonl shards of 30 documents, each beginning with its own number."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(4):
        rows = [{"text": f"doc{shard * 30 + i:03} " + " ".join(f"w{(i * j) % 13}" for j in range(20 + i % 7))}
                for i in range(30)]  # fmt: skip
        (folder / f"{shard}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def data(files):
    return prepare(TextScale(vocab_size=320, sequence_length=64, held_out_sequences=8), str(files))


def open_files(files, tmp_path_factory):
    paths = sorted(str(path) for path in files.glob("*.jsonl"))
    cache = str(tmp_path_factory.mktemp("cache"))
    return datasets.load_dataset("json", data_files=paths, split="train", streaming=True, cache_dir=cache)


@pytest.fixture
def stream(files, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(hub_stream, "DOCUMENTS_IN_WINDOW", 16)
    return lambda: open_files(files, tmp_path_factory)


def recipe():
    return Recipe.preset("modernbert").shrunk(**SMALL).replace(batch_warmup_start=512, batch_warmup_tokens=0)


def source(stream, data, rank=0, world=1, state=None):
    return HubStream(stream(), data.tokenizer, recipe(), 0, rank, world, state)


def numbers(microbatches, tokenizer):
    """The documents' own numbers, read back from the unmasked text."""
    found = []
    for m in microbatches:
        true_ids = torch.where(m.labels != IGNORED, m.labels, m.input_ids)
        for part in true_ids.split(m.layout.lengths):
            words = tokenizer.decode(part.tolist()).split()
            found += [word for word in words if word.startswith("doc")]
    return found


def first_epoch(s):
    return list(itertools.takewhile(lambda m: m.place.epoch == 0, s))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_document_goes_to_exactly_one_process(stream, data, world):
    found = [numbers(first_epoch(source(stream, data, rank, world)), data.tokenizer) for rank in range(world)]
    everything = sorted(itertools.chain(*found))
    assert everything == [f"doc{i:03}" for i in range(120)]
    assert all(len(share) == 120 // world for share in found)


def test_numbers_are_dealt_out_among_the_processes(stream, data):
    shares = [[m.place.number for m in itertools.islice(source(stream, data, rank, 2), 8)] for rank in range(2)]
    assert shares == [list(range(0, 16, 2)), list(range(1, 16, 2))]


def test_it_goes_on_after_any_microbatch_and_into_the_next_epoch(stream, data):
    whole = list(itertools.islice(source(stream, data), 60))
    assert whole[-1].place.epoch >= 1
    for cut in (1, 4, 17, 40):
        state = json.loads(json.dumps(whole[cut - 1].state))  # as a checkpoint keeps it
        rest = list(itertools.islice(source(stream, data, state=state), 60 - cut))
        for a, b in zip(whole[cut:], rest, strict=True):
            assert a.place == b.place and torch.equal(a.input_ids, b.input_ids) and torch.equal(a.labels, b.labels)


def test_a_worker_changes_nothing(stream, data):
    alone, ahead = (list(itertools.islice(stream_microbatches(source(stream, data), n), 6)) for n in (0, 3))
    assert all(torch.equal(a.input_ids, b.input_ids) for a, b in zip(alone, ahead, strict=True))


def test_a_run_on_a_stream_survives_a_kill(stream, data, tmp_path):
    class Stop(Exception):
        pass

    def look(record):
        if record["what"] == "train_loss" and record["step"] == 8:
            raise Stop

    def run(out, **more):
        torch.manual_seed(0)
        sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
        model = MaskedLM(EncoderConfig.preset("modernbert-tiny", **sizes, vocab_size=data.tokenizer.vocab_size))
        pretrain(model, recipe(), data, out=out, hub=stream(), checkpoint_every=3, **more)
        return model.state_dict()

    whole = run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "cut", on_record=look)
    again = run(tmp_path / "cut")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_what_cannot_be_streamed_is_refused(stream, data, monkeypatch):
    bert = Recipe.preset("bert-2018").shrunk(**SMALL)
    with pytest.raises(InputError, match="--stream packs rows"):
        HubStream(stream(), data.tokenizer, bert, 0)
    with pytest.raises(InputError, match="has no documents"):
        next(iter(HubStream(stream().take(0), data.tokenizer, recipe(), 0)))
    with pytest.raises(InputError, match="cannot stream 'hub:nobody/nothing'"):  # the tests run offline
        hub_stream.open_stream("hub:nobody/nothing")
    assert launch.open_stream is hub_stream.open_stream
