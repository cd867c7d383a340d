"""Checks of 02_tokenizer_and_data."""

from __future__ import annotations

from collections import Counter

from .machinery import NotYet, check, compare_number, pair, recognise, short

Words = dict[tuple[str, ...], int]


@check
def check_merge_step(fn) -> str:
    """`fn(words) -> (pair, words)`: the most frequent pair of neighbours, and the words with it merged.

    `words` is {tuple of symbols: how often}. Of equally frequent pairs the alphabetically first is merged.
    """
    cases: list[Words] = [
        {("l", "o", "g"): 2, ("l", "o"): 1, ("i", "n"): 1},
        {("a", "b"): 5, ("c", "d", "c", "d"): 1, ("x", "c", "d"): 1},
        {("b", "e", "b", "e"): 2, ("b", "e"): 1},
        {("i", "n"): 3, ("g", "o"): 3},
        {("a", "a", "a"): 2, ("b", "a"): 1},
        {("a", "b", "c"): 2, ("ab", "c"): 1, ("d",): 4},
        {("a", "b"): 3, ("xa", "b"): 1},
    ]
    for words in cases:
        case = f"with {_spelled(words)}"
        got_pair, got_words = pair(fn(dict(words)), case, "the pair and the words")
        counts = _pair_counts(words)
        best = min(found for found in counts if counts[found] == max(counts.values()))
        if got_pair != best:
            known = recognise(got_pair, _pair_mistakes(words, counts, best), lambda a, b: a == b)
            raise NotYet(f"{case}: {known or f'expected the pair {best}, got {short(got_pair)}'}")
        if not isinstance(got_words, dict):
            raise NotYet(f"{case}: the words must be a dict as they came, not {short(got_words)}")
        want = _merged(words, best)
        if dict(got_words) != want:
            known = recognise(dict(got_words), _word_mistakes(words, best), lambda a, b: a == b)
            raise NotYet(f"{case}: {known or f'expected {_spelled(want)}, got {short(dict(got_words))}'}")
    return f"merges as it should in {len(cases)} vocabularies, ties and overlaps among them"


def _spelled(words: Words) -> str:
    return ", ".join(f"{'|'.join(symbols)} x{count}" for symbols, count in words.items())


def _pair_counts(words: Words, weighted: bool = True) -> Counter:
    counts = Counter()
    for symbols, count in words.items():
        for i in range(len(symbols) - 1):
            counts[symbols[i], symbols[i + 1]] += count if weighted else 1
    return counts


def _merge_one(symbols: tuple[str, ...], best: tuple[str, str], most: int | None = None) -> tuple[str, ...]:
    """From left to right; at most `most` times."""
    out, i, done = [], 0, 0
    while i < len(symbols):
        if symbols[i : i + 2] == best and (most is None or done < most):
            out.append(symbols[i] + symbols[i + 1])
            i, done = i + 2, done + 1
        else:
            out.append(symbols[i])
            i += 1
    return tuple(out)


def _merged(words: Words, best: tuple[str, str]) -> Words:
    out = Counter()
    for symbols, count in words.items():
        out[_merge_one(symbols, best)] += count
    return dict(out)


def _pair_mistakes(words: Words, counts: Counter, best: tuple[str, str]) -> dict[str, object]:
    unweighted = _pair_counts(words, weighted=False)
    tied = [found for found in counts if counts[found] == counts[best]]
    by_word = max(unweighted, key=unweighted.get)
    return {
        "return the pair as a tuple of its two symbols, not joined": "".join(best),
        "return the pair alone, without its count": (best, counts[best]),
        "of equally frequent pairs take the alphabetically first": max(tied) if len(tied) > 1 else None,
        "a pair counts as often as its word occurs, not once a word": by_word if by_word != best else None,
        "that is the rarest pair": min(counts, key=counts.get),
    }


def _word_mistakes(words: Words, best: tuple[str, str]) -> dict[str, Words]:
    overwritten = {_merge_one(symbols, best): count for symbols, count in words.items()}
    by_text = Counter()
    for symbols, count in words.items():
        by_text[tuple(" ".join(symbols).replace(" ".join(best), "".join(best)).split())] += count
    from_right = Counter()
    for symbols, count in words.items():
        turned = _merge_one(symbols[::-1], best[::-1])
        from_right[tuple("".join(best) if s == "".join(best[::-1]) else s for s in turned[::-1])] += count
    first_only = Counter()
    for symbols, count in words.items():
        first_only[_merge_one(symbols, best, most=1)] += count
    return {
        "the words are as they came: nothing was merged": dict(words),
        "two spellings became the same word; add their counts": overwritten,
        "symbols are merged whole: xa is not a, though it ends in it": dict(by_text),
        "merge from left to right: a, a, a becomes aa, a": dict(from_right),
        "only the first place in a word was merged; merge all": dict(first_only),
        "words without the pair are kept as they are": {
            symbols: count for symbols, count in _merged(words, best).items() if "".join(best) in symbols
        },
        "a word is a tuple of symbols, not one string": {
            "".join(symbols): count for symbols, count in _merged(words, best).items()
        },
    }


@check
def check_pad_vocabulary(fn) -> str:
    """`fn(used, multiple, spare) -> (size, unused)`: the smallest multiple that leaves at least `spare` ids unused."""
    cases = [
        (50_285, 64, 0),
        (65, 64, 0),
        (50_285, 64, 20),
        (30_522, 64, 0),
        (4096, 64, 0),
        (128, 64, 1),
        (1, 8, 0),
        (100, 128, 28),
        (65, 64, 64),
    ]
    for used, multiple, spare in cases:
        case = f"with used {used:,}, multiple {multiple}, spare {spare}"
        size, unused = pair(fn(used, multiple, spare), case, "the size and the number of unused ids")
        want = used + spare
        while want % multiple:
            want += 1
        if isinstance(size, float) and size == want:
            raise NotYet(f"{case}: {size} is a float; return whole numbers (divide with //)")
        compare_number(size, want, f"{case}, size", _size_mistakes(used, multiple, spare, want))
        compare_number(unused, want - used, f"{case}, unused", _unused_mistakes(used, multiple, spare, want))
    return f"is right for {len(cases)} vocabularies: the published one needs its {50_368 - 50_285} only with spares"


def _size_mistakes(used: int, multiple: int, spare: int, want: int) -> dict[str, float]:
    wanted = used + spare
    return {
        "the two are swapped: the size comes first": want - used,
        "the spare ids were not thought of": -(-used // multiple) * multiple,
        "the spare ids were added after rounding; the size is no multiple any more": -(-used // multiple) * multiple
        + spare,
        "a number that is a multiple already needs no further block": (wanted // multiple + 1) * multiple,
        "round up, not to the nearest multiple": round(wanted / multiple) * multiple,
        "rounded down: there is no room for all ids": wanted // multiple * multiple,
        "that is the number of blocks; times the multiple it is the size": want // multiple,
    }


def _unused_mistakes(used: int, multiple: int, spare: int, want: int) -> dict[str, float]:
    return {
        "that is the remainder of the division; the ids up to the next multiple are unused": used % multiple,
        "the spare ids are unused ids too": want - used - spare,
        "at least so many are unused; count how many are": spare,
        "that is what is used": used,
    }


@check
def check_padding_share(fn) -> str:
    """`fn(lengths, batch_size, by_length) -> float`: pads among all places, each batch as wide as its longest text."""
    cases = [([3, 1, 9, 2], 2), ([3, 1, 9, 2, 8], 2), ([5], 4), ([4, 4, 4], 2), ([7, 1, 6, 2, 5, 3, 4], 3)]
    for lengths, batch_size in cases:
        for by_length in (False, True):
            case = f"with lengths {lengths}, batch_size {batch_size}, by_length {by_length}"
            got = fn(list(lengths), batch_size, by_length)
            if got is None:
                raise NotYet("your function returned None; does it end with a return?")
            want, mistakes = _share(lengths, batch_size, by_length), _share_mistakes(lengths, batch_size, by_length)
            compare_number(got, want, case, mistakes)
    return f"is right for {len(cases)} sets of texts in both orders"


def _rectangles(lengths: list[int], batch_size: int, by_length: bool) -> list[list[int]]:
    order = sorted(lengths) if by_length else lengths
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _share(lengths: list[int], batch_size: int, by_length: bool) -> float:
    pads = places = 0
    for batch in _rectangles(lengths, batch_size, by_length):
        for length in batch:
            pads += max(batch) - length
            places += max(batch)
    return pads / places


def _share_mistakes(lengths: list[int], batch_size: int, by_length: bool) -> dict[str, float]:
    batches, real = _rectangles(lengths, batch_size, by_length), sum(lengths)
    places = sum(len(batch) * max(batch) for batch in batches)
    full = [batch for batch in batches if len(batch) == batch_size]
    kept = sum(map(sum, full))
    order = "the texts were not sorted by length" if by_length else "the texts were sorted, though by_length is False"
    return {
        "that is the share of real tokens, not of pads": real / places,
        "the pads were divided by the real tokens; divide by all places": places / real - 1,
        "that is in percent; a share lies between 0 and 1": 100 * (1 - real / places),
        "that is how many pads there are, not their share": places - real,
        "each batch is as wide as its own longest text, not as the longest of all": 1
        - real / (len(lengths) * max(lengths)),
        order: _share(lengths, batch_size, not by_length),
        "that is the mean of the batches' shares; a wide batch has more places, so divide the sums": sum(
            1 - sum(batch) / (len(batch) * max(batch)) for batch in batches
        )
        / len(batches),
        "the last batch may be smaller; it has no more rows than texts": 1
        - real / sum(batch_size * max(batch) for batch in batches),
        "the last, smaller batch was left out": 1 - kept / sum(batch_size * max(batch) for batch in full)
        if full
        else -1,
    }
