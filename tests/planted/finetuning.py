"""Wrong answers to the exercises of 11_finetuning."""

PLANTED: dict[str, list[tuple[str, str]]] = {}

_POOL = (
    "def mean_pool(hidden_TD, cu_seqlens):\n    ends = cu_seqlens.tolist()\n"
    "    parts = [hidden_TD[i:j] for i, j in zip(ends[:-1], ends[1:])]\n    "
)

PLANTED["check_mean_pool"] = [
    (_POOL + "return torch.stack([part.sum(dim=0) for part in parts])", "not divided"),
    (
        _POOL + "longest = max(map(len, parts))\n    return torch.stack([part.sum(dim=0) / longest for part in parts])",
        "as if pads counted",
    ),
    (_POOL + "return torch.stack([part.sum(dim=0) for part in parts]) / len(hidden_TD)", "divided by T"),
    (_POOL + "return hidden_TD.mean(dim=0).repeat(len(parts), 1)", "the mean over all T tokens"),
    (_POOL + "return hidden_TD.mean(dim=0)", "return a row for each"),
    (_POOL + "return torch.stack([part[0] for part in parts])", "[CLS] pooling"),
    (_POOL + "return torch.stack([part.max(dim=0).values for part in parts])", "not the mean"),
    (_POOL + "return torch.stack([part[1:].mean(dim=0) for part in parts])", "first token was left out"),
    (_POOL + "return torch.stack([part[:-1].mean(dim=0) for part in parts])", "last token was left out"),
    (_POOL + "return torch.stack([part.mean(dim=0) for part in parts[:-1]])", "the last document is missing"),
    (_POOL + "return torch.stack([part.mean(dim=0) for part in parts], dim=1)", "return (N, D)"),
    (_POOL + "return torch.stack([part.mean(dim=1) for part in parts])", "RuntimeError"),
    (_POOL + "torch.stack([part.mean(dim=0) for part in parts])", "returned None"),
]

_ALIGN = "def align_labels(pieces, labels):\n    found = [-100]\n    for word, label in zip(pieces, labels):\n        "

PLANTED["check_align_labels"] = [
    (_ALIGN + "found += [label] * len(word)\n    return [*found, -100]", "at every token of a word"),
    (
        _ALIGN + "found += ([-100] * (len(word) - 1) + [label]) if word else []\n    return [*found, -100]",
        "last token",
    ),
    (
        _ALIGN + "found += ([label] + [0] * (len(word) - 1)) if word else []\n    return [*found, -100]",
        "inside a word got class 0",
    ),
    (
        _ALIGN + "found += ([label] + [-100] * (len(word) - 1)) if word else []\n    return [0, *found[1:], 0]",
        "got class 0",
    ),
    (
        _ALIGN + "found += ([label] + [-100] * (len(word) - 1)) if word else []\n    return found[1:]",
        "[CLS] and [SEP] have a place too",
    ),
    (
        _ALIGN + "found += ([label] + [-100] * (len(word) - 1)) if word else []\n    return found",
        "[SEP] has a place",
    ),
    (
        _ALIGN + "found += ([label] + [-100] * (len(word) - 1)) if word else []\n    return [*found[1:], -100]",
        "[CLS] has a place",
    ),
    (_ALIGN + "found += [label] + [-100] * (len(word) - 1)\n    return [*found, -100]", "a word without tokens"),
    (_ALIGN + "found += [label]\n    return [*found, -100]", "one label a word; the loss needs one a token"),
    (_ALIGN + "found += [-100] * len(word)\n    return [*found, -100]", "expected [-100, 1, 2"),
    (_ALIGN + "found += [label]\n    [*found, -100]", "returned None"),
]

_COUNTS = (
    "def matthews(truth_N, said_N):\n    t, s = truth_N.bool(), said_N.bool()\n"
    "    tp, tn, fp, fn = (int(x.sum()) for x in (t & s, ~t & ~s, ~t & s, t & ~s))\n"
    "    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)\n    "
)

PLANTED["check_matthews"] = [
    (_COUNTS + "return (tp + tn) / (tp + tn + fp + fn)", "that is the accuracy"),
    (_COUNTS + "return 2 * tp / (2 * tp + fp + fn)", "F1"),
    (_COUNTS + "return (tp * tn - fp * fn) / product if product else 0.0", "square root of the product is missing"),
    (_COUNTS + "return (fp * fn - tp * tn) / math.sqrt(product) if product else 0.0", "the sign is wrong"),
    (_COUNTS + "return (tp * tn + fp * fn) / math.sqrt(product) if product else 0.0", "are added"),
    (_COUNTS + "return 2 * (tp + tn) / (tp + tn + fp + fn) - 1", "2 * accuracy - 1"),
    (_COUNTS + "return float(tp * tn - fp * fn)", "that is the numerator"),
    (_COUNTS + "return (tp * tn - fp * fn) / math.sqrt(product)", "ZeroDivisionError"),
    (
        _COUNTS + "return torch.tensor(1.0 * (tp * tn - fp * fn)) / torch.tensor(float(product)).sqrt()",
        "where an answer is constant, return 0",
    ),
    (_COUNTS + "return (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn))", "not of two"),
    (_COUNTS + "(tp * tn - fp * fn) / math.sqrt(product)", "expected a number"),
]
