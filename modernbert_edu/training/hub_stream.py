"""Training text that is never held whole: a Hub dataset read as it is trained on, each process its own share.

    the dataset from document HUB_MAX_DOCUMENTS on  ->  this process's share  ->  windows of documents  ->  packed rows

The documents before are those that the tokenizer and the held-out text come from, so nothing held out is trained on.
A checkpoint keeps where each process's share stands; so a run goes on with as many processes as it had.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from torch.utils.data import DataLoader, IterableDataset

from ..data.batches import chunk
from ..data.corpus import HUB_MAX_DOCUMENTS, find_text_column
from ..data.tokenizer import Tokenizer
from ..errors import InputError
from ..packing import best_fit
from .recipe import Recipe
from .stream import Documents, Microbatch, Place, as_it_is, derived_seed

DOCUMENTS_IN_WINDOW = 1024


def open_stream(spec: str):
    """The `train` split of "hub:NAME[:CONFIG]" as a `datasets.IterableDataset`, without the documents held back."""
    import datasets

    name, _, config = spec.removeprefix("hub:").partition(":")
    try:
        return datasets.load_dataset(name, config or None, split="train", streaming=True).skip(HUB_MAX_DOCUMENTS)
    except Exception as error:  # each library below has its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"cannot stream {spec!r} from the Hub: {reason}") from None


class HubStream(IterableDataset):
    """Endless microbatches of one process, from a stream of documents; `state` is a microbatch's, to go on after it."""

    def __init__(self, stream, tokenizer: Tokenizer, recipe: Recipe, seed: int, rank: int = 0, world: int = 1,
                 state: dict | None = None):  # fmt: skip
        from datasets.distributed import split_dataset_by_node

        if not recipe.packing or recipe.next_sentence:
            raise InputError(
                "--stream packs rows of single documents; a recipe with pads or sentence pairs needs a corpus"
            )
        self.mine = split_dataset_by_node(stream, rank=rank, world_size=world)
        self.tokenizer, self.recipe, self.seed, self.rank, self.world = tokenizer, recipe, seed, rank, world
        self.state = state
        self.column = None

    def __iter__(self) -> Iterator[Microbatch]:
        epoch, window, skip, count = 0, 0, 0, 0
        if self.state:
            epoch, window, skip = (self.state[name] for name in ("epoch", "window", "row"))
            count = self.state["count"]
            if self.state["stream"] is not None:
                self.mine.load_state_dict(self.state["stream"])
        while True:
            self.mine.set_epoch(epoch)
            rows = iter(self.mine)
            while True:
                before = self.mine.state_dict()
                texts = [self._text(row) for row in itertools.islice(rows, DOCUMENTS_IN_WINDOW)]
                if not texts:
                    break
                for row, microbatch in self._window(texts, epoch, window, skip, count):
                    count += 1
                    # Where to go on: this window again, and the row after this one.
                    microbatch.state = dict(epoch=epoch, window=window, row=row + 1, count=count, stream=before)
                    yield microbatch
                window, skip = window + 1, 0
            if count == 0:
                raise InputError(
                    f"process {self.rank} of {self.world} has no documents: the dataset is too short to stream"
                )
            epoch, window = epoch + 1, 0  # a saved state counts in its own epoch only: the next begins at the beginning

    def _window(self, texts: list[str], epoch: int, window: int, skip: int, count: int):
        t = self.tokenizer
        documents = [
            piece
            for ids in t.encode_batch(texts, add_special_tokens=False)
            for piece in chunk(ids, self.recipe.length, t.cls_id, t.sep_id)
        ]
        if not documents:
            return
        packed = Documents(documents, t, self.recipe, self.seed)
        rows = best_fit(packed.lengths, self.recipe.microbatch_tokens)
        order = np.random.default_rng(derived_seed(self.seed, epoch, window, self.rank)).permutation(len(rows))
        for at, row in enumerate(order[skip:], start=skip):
            number = (count + at - skip) * self.world + self.rank  # of the whole run, as if all were dealt out in turn
            yield at, packed[Place(epoch, window, at, number), rows[row]]

    def _text(self, row: dict) -> str:
        if self.column is None:
            self.column = find_text_column([row], None, "the stream")
        return row[self.column] or ""


def stream_microbatches(source: HubStream, workers: int) -> Iterator[Microbatch]:
    """In order. One process may read ahead; more would read the same share twice."""
    return iter(DataLoader(source, batch_size=None, num_workers=min(workers, 1), collate_fn=as_it_is))
