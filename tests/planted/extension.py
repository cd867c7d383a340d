"""Wrong answers to the exercises of 09_context_extension."""

PLANTED: dict[str, list[tuple[str, str]]] = {}

_PHASE = "def batch_and_steps(tokens, tokens_per_step, length):\n    "

PLANTED["check_batch_and_steps"] = [
    (_PHASE + "return tokens // tokens_per_step, tokens_per_step // length", "the two are swapped"),
    (_PHASE + "return tokens_per_step // length // 8, tokens // tokens_per_step", "one of 8 GPUs' share"),
    (_PHASE + "return tokens_per_step // 1024, tokens // tokens_per_step", "longer sequences are fewer to a step"),
    (_PHASE + "return tokens_per_step // length, -(-tokens // tokens_per_step)", "round down"),
    (_PHASE + "return tokens_per_step // length, tokens // length", "that of all sequences"),
    (_PHASE + "return tokens_per_step // length, tokens // (tokens_per_step // length)", "divide by its tokens"),
    (_PHASE + "return tokens_per_step / length, tokens / tokens_per_step", "those are fractions"),
    (_PHASE + "return float(tokens_per_step // length), tokens // tokens_per_step", "sequences and steps are whole"),
    (_PHASE + "return tokens_per_step, tokens // tokens_per_step", "divide by the length"),
    (_PHASE + "return tokens // tokens_per_step", "return two things"),
    (_PHASE + "tokens_per_step // length, tokens // tokens_per_step", "returned None"),
]

_TABLES = "def tables_for(cache, theta, length, K):\n    "
_MAKE = (
    "frequencies = theta ** (-torch.arange(0, K, 2) / K)\n        "
    "angles = torch.arange(length)[:, None] * frequencies\n        "
)
_FULL = _TABLES + "key = (theta, length, K)\n    if key not in cache:\n        " + _MAKE
_KEEP = "cache[key] = angles.cos(), angles.sin()\n    return cache[key]"

PLANTED["check_tables_for"] = [
    (_TABLES + "key = (length, K)\n    if key not in cache:\n        " + _MAKE + _KEEP, "from an earlier call"),
    (_TABLES + "key = 'tables'\n    if key not in cache:\n        " + _MAKE + _KEEP, "from an earlier call"),
    (
        _TABLES + "key = K\n    if key not in cache or len(cache[key][0]) < length:\n        "
        + _MAKE
        + "cache[key] = angles.cos(), angles.sin()\n    return tuple(table[:length] for table in cache[key])",
        "from an earlier call",
    ),
    (
        _TABLES + "frequencies = theta ** (-torch.arange(0, K, 2) / K)\n    key = (length, K)\n"
        "    cache['frequencies'] = frequencies\n    if key not in cache:\n"
        "        angles = torch.arange(length)[:, None] * frequencies\n        " + _KEEP,
        "from an earlier call",
    ),
    (_TABLES + "key = theta\n    if key not in cache:\n        " + _MAKE + _KEEP, "from an earlier call"),
    (_FULL.replace("cache:", "tables_for.__dict__:") + "tables_for.__dict__[key] = angles.cos(), angles.sin()\n"
     "    return tables_for.__dict__[key]", "cache is empty"),
    (_TABLES + "key = (theta, length)\n    if key not in cache:\n        " + _MAKE + _KEEP, "from an earlier call"),
    (_FULL.replace("if key not in cache:", "if True:") + _KEEP, "computed anew"),
    (_FULL.replace("torch.arange(0, K, 2)", "torch.arange(K // 2)") + _KEEP, "the exponent is -i / K"),
    (_FULL.replace("(-torch", "(torch") + _KEEP, "the exponent is positive"),
    (_FULL.replace("torch.arange(length)", "(torch.arange(length) + 1)") + _KEEP, "positions begin at 1"),
    (
        _FULL.replace("* frequencies", "* frequencies.bfloat16()").replace("(length)[", "(length).bfloat16()[")
        + "cache[key] = angles.cos().float(), angles.sin().float()\n    return cache[key]",
        "computed in bfloat16",
    ),
    (_FULL + "cache[key] = angles.sin(), angles.cos()\n    return cache[key]", "cos and sin are swapped"),
    (
        _FULL + "angles = torch.cat([angles, angles], -1)\n        " + _KEEP,
        "each angle stands there twice",
    ),
    (_FULL + "cache[key] = angles, angles\n    return cache[key]", "those are the angles"),
    (_FULL + "cache[key] = angles.cos(), angles.sin()", "returned None"),
]  # fmt: skip

_BINS = (
    "def loss_by_position(logits_TV, labels_T, width):\n    "
    "loss_T = F.cross_entropy(logits_TV, labels_T, reduction='none')\n    "
    "masked_T = labels_T != -100\n    bin_T = torch.arange(len(labels_T)) // width\n    "
    "bins = int(bin_T.max()) + 1\n    sums = torch.zeros(bins).index_add_(0, bin_T, loss_T)\n    "
    "counts = torch.zeros(bins).index_add_(0, bin_T, masked_T.float())\n    "
)

PLANTED["check_loss_by_position"] = [
    (
        _BINS + "return sums / torch.zeros(bins).index_add_(0, bin_T, torch.ones(len(bin_T)))",
        "only those with a label are asked",
    ),
    (_BINS + "return sums / width", "only those with a label are asked"),
    (_BINS + "return sums", "those are sums"),
    (
        _BINS.replace("logits_TV, labels_T, red", "logits_TV, labels_T.clamp(min=0), red")
        + "return sums / torch.zeros(bins).index_add_(0, bin_T, torch.ones(len(bin_T)))",
        "as if their label were 0",
    ),
    (_BINS + "return sums / counts.clamp(min=1)", "nan, not 0"),
    (_BINS + "return (sums / counts).nan_to_num(0)", "nan, not 0"),
    (
        _BINS + "chosen = loss_T[masked_T]\n    out = torch.full((bins,), float('nan'))\n"
        "    for b, part in enumerate(chosen.split(width)):\n        out[b] = part.mean()\n    return out",
        "their positions in the text decide",
    ),
    (_BINS + "return (sums / counts)[:len(labels_T) // width]", "the last stretch is missing"),
    (_BINS + "return sums / counts / math.log(2)", "that is base 2"),
    (_BINS + "return loss_T[masked_T].mean()", "one number for the whole text"),
    (_BINS + "sums / counts", "returned None"),
]
