"""Wrong answers to the exercises of 02_tokenizer_and_data."""

PLANTED: dict[str, list[tuple[str, str]]] = {}

_COUNT = """def merge_step(words):
    counts = {}
    for symbols, count in words.items():
        for two in zip(symbols, symbols[1:]):
            counts[two] = counts.get(two, 0) + count
    best = min(counts, key=lambda two: (-counts[two], two))
    """
_MERGE = """def merge(symbols):
        out, i = [], 0
        while i < len(symbols):
            if symbols[i:i + 2] == best:
                out.append(symbols[i] + symbols[i + 1])
                i += 2
            else:
                out.append(symbols[i])
                i += 1
        return tuple(out)
    merged = {}
    for symbols, count in words.items():
        merged[merge(symbols)] = merged.get(merge(symbols), 0) + count
    """
_RIGHT = _COUNT + _MERGE + "return best, merged"
_TEXT = "merged = {}\n    for symbols, count in words.items():\n        "

PLANTED["check_merge_step"] = [
    (_RIGHT.replace("+ count\n    best", "+ 1\n    best"), "a pair counts as often as its word occurs"),
    (
        _RIGHT.replace("min(counts, key=lambda two: (-counts[two], two))", "max(sorted(counts)[::-1], key=counts.get)"),
        "the alphabetically first",
    ),
    (_RIGHT.replace("(-counts[two], two)", "(counts[two], two)"), "the rarest pair"),
    (_RIGHT.replace("return best,", "return ''.join(best),"), "not joined"),
    (_RIGHT.replace("return best,", "return (best, counts[best]),"), "without its count"),
    (_RIGHT.replace("return best,", "return ('z', 'z'),"), "expected the pair ('l', 'o')"),
    (_RIGHT.replace("merged.get(merge(symbols), 0) + count", "count"), "add their counts"),
    (
        _COUNT + _TEXT + "new = tuple(' '.join(symbols).replace(' '.join(best), ''.join(best)).split())\n"
        "        merged[new] = merged.get(new, 0) + count\n    return best, merged",
        "xa is not a, though it ends in it",
    ),
    (
        _RIGHT.replace("i += 2", "return (*out, *symbols[i + 2:])"),
        "only the first place in a word was merged",
    ),
    (
        _RIGHT.replace("return best, merged", "return best, {s: c for s, c in merged.items() if ''.join(best) in s}"),
        "words without the pair are kept",
    ),
    (_RIGHT.replace("return best, merged", "return best, words"), "nothing was merged"),
    (_RIGHT.replace("return tuple(out)", "return ''.join(out)"), "not one string"),
    (_RIGHT.replace("i += 2", "i += 1"), "expected lo|g x2, lo x1, i|n x1, got dict"),
    (_RIGHT.replace("return best, merged", "return best, list(merged)"), "must be a dict"),
    (_RIGHT.replace("return best, merged", "return merged"), "return two things, the pair and the words"),
    (_COUNT + "best, words", "returned None"),
]

_PAD = "def pad_vocabulary(used, multiple, spare):\n    "

PLANTED["check_pad_vocabulary"] = [
    (_PAD + "size = (used + spare) // multiple * multiple\n    return size, size - used", "rounded down"),
    (_PAD + "size = ((used + spare) // multiple + 1) * multiple\n    return size, size - used", "no further block"),
    (_PAD + "size = round((used + spare) / multiple) * multiple\n    return size, size - used", "not to the nearest"),
    (_PAD + "size = -(-used // multiple) * multiple\n    return size, size - used", "were not thought of"),
    (_PAD + "size = -(-used // multiple) * multiple + spare\n    return size, size - used", "added after rounding"),
    (_PAD + "size = -(-(used + spare) // multiple) * multiple\n    return size - used, size", "the two are swapped"),
    (_PAD + "size = -(-(used + spare) // multiple) * multiple\n    return size, used % multiple", "the remainder"),
    (_PAD + "size = -(-(used + spare) // multiple) * multiple\n    return size, size - used - spare", "unused ids too"),
    (_PAD + "return -(-(used + spare) // multiple), 0", "the number of blocks"),
    (
        _PAD + "size = math.ceil((used + spare) / multiple) * float(multiple)\n    return size, size - used",
        "is a float",
    ),
    (_PAD + "size = -(-(used + spare) // multiple) * multiple\n    return size, spare", "count how many are"),
    (_PAD + "size = -(-(used + spare) // multiple) * multiple\n    return size", "return two things"),
    (_PAD + "size = -(-(used + spare) // multiple) * multiple\n    size, size - used", "returned None"),
]

_BATCHES = """def padding_share(lengths, batch_size, by_length):
    order = sorted(lengths) if by_length else lengths
    batches = [order[i:i + batch_size] for i in range(0, len(order), batch_size)]
    places = sum(len(batch) * max(batch) for batch in batches)
    """

PLANTED["check_padding_share"] = [
    (_BATCHES + "return sum(lengths) / places", "the share of real tokens"),
    (_BATCHES + "return places / sum(lengths) - 1", "divide by all places"),
    (_BATCHES + "return 100 * (1 - sum(lengths) / places)", "in percent"),
    (_BATCHES + "return places - sum(lengths)", "how many pads there are"),
    (_BATCHES + "return 1 - sum(lengths) / (len(lengths) * max(lengths))", "its own longest text"),
    (
        _BATCHES + "return sum(1 - sum(b) / (len(b) * max(b)) for b in batches) / len(batches)",
        "the mean of the batches' shares",
    ),
    (
        _BATCHES.replace("sorted(lengths) if by_length else ", "") + "return 1 - sum(lengths) / places",
        "were not sorted",
    ),
    (
        _BATCHES.replace(" if by_length else lengths", "") + "return 1 - sum(lengths) / places",
        "were sorted, though by_length is False",
    ),
    (
        _BATCHES.replace("len(batch) * max", "batch_size * max") + "return 1 - sum(lengths) / places",
        "no more rows than texts",
    ),
    (
        _BATCHES.replace("range(0, len(order), batch_size)", "range(0, len(order) - batch_size + 1, batch_size)")
        + "return 1 - sum(map(sum, batches)) / places if places else 0.0",
        "smaller batch was left out",
    ),
    (_BATCHES + "return torch.tensor(lengths)", "expected a number, got Tensor"),
    (_BATCHES + "1 - sum(lengths) / places", "returned None"),
]
