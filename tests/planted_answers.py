"""Wrong answers to the exercises, by the name of their check: (source, words that the check's line must hold).

Each is a mistake that learners make. A check that lets one pass, or that cannot say what is wrong with it, is no check.
The functions bear the names that the lessons give them; `torch`, `math` and `F` are at hand as in the lessons.
"""

PLANTED: dict[str, list[tuple[str, str]]] = {}

# ------------------------------------------------------------------------------------------- 01_vanilla_bert

_ATTEND = "def attend(q_SK, k_SK, v_SK, key_mask_S):\n    "
_SCORES = "scores = q_SK @ k_SK.T / math.sqrt(q_SK.shape[1])\n    "

PLANTED["check_attend"] = [
    (
        _ATTEND
        + "scores = (q_SK @ k_SK.T).masked_fill(~key_mask_S, float('-inf'))\n    return scores.softmax(-1) @ v_SK",
        "not divided by sqrt(K)",
    ),
    (
        _ATTEND
        + "scores = (q_SK @ k_SK.T / q_SK.shape[1]).masked_fill(~key_mask_S, float('-inf'))\n"
        + "    return scores.softmax(-1) @ v_SK",
        "divided by K, not by sqrt(K)",
    ),
    (_ATTEND + _SCORES + "return scores.softmax(-1) @ v_SK", "the mask was not used"),
    (_ATTEND + _SCORES + "return (scores * key_mask_S).softmax(-1) @ v_SK", "exp(0) is 1"),
    (_ATTEND + _SCORES + "return (scores.softmax(-1) * key_mask_S) @ v_SK", "no longer sum to 1"),
    (
        _ATTEND + _SCORES + "return scores.masked_fill(~key_mask_S, float('-inf')).softmax(0) @ v_SK",
        "the softmax runs over the queries",
    ),
    (
        _ATTEND + _SCORES + "return scores.masked_fill(~key_mask_S[:, None], float('-inf')).softmax(-1) @ v_SK",
        "hides queries (rows) instead of keys",
    ),
    (
        _ATTEND + _SCORES + "return scores.masked_fill(key_mask_S, float('-inf')).softmax(-1) @ v_SK",
        "is a whole row masked",
    ),
    (_ATTEND + _SCORES + "return scores.softmax(-1)", "expected the shape"),
    (_ATTEND + "return v_SK * float('nan')", "nan or infinite"),
    (_ATTEND + "return v_SK", "expected"),
    (_ATTEND + _SCORES + "scores.softmax(-1) @ v_SK", "returned None"),
    (_ATTEND + "return q_SK @ k_SK / 2", "your function raised RuntimeError"),
    ("def attend(q_SK, k_SK, v_SK):\n    return q_SK", "your function raised TypeError"),
]

_NORM = "def post_norm_sublayer(x_SD, sublayer, weight_D, bias_D, eps):\n    "
_SUM = "s = x_SD + sublayer(x_SD)\n    c = s - s.mean(-1, keepdim=True)\n    "

PLANTED["check_post_norm"] = [
    (
        _NORM + "return x_SD + sublayer(F.layer_norm(x_SD, x_SD.shape[-1:], weight_D, bias_D, eps))",
        "that is pre-norm",
    ),
    (_NORM + "return F.layer_norm(sublayer(x_SD), x_SD.shape[-1:], weight_D, bias_D, eps)", "x is not added"),
    (_NORM + "return F.layer_norm(x_SD, x_SD.shape[-1:], weight_D, bias_D, eps)", "the sublayer is not added"),
    (_NORM + "return x_SD + sublayer(x_SD)", "the sum is not normalised"),
    (_NORM + _SUM + "return c / torch.sqrt(s.var(-1, keepdim=True) + eps) * weight_D + bias_D", "divided by D - 1"),
    (
        _NORM + _SUM + "return c / (c.pow(2).mean(-1, keepdim=True).sqrt() + eps) * weight_D + bias_D",
        "eps belongs under the square root",
    ),
    (_NORM + _SUM + "return c / c.pow(2).mean(-1, keepdim=True).sqrt() * weight_D + bias_D", "eps is not used"),
    (_NORM + _SUM + "return c / torch.sqrt(c.pow(2).mean(-1, keepdim=True) + eps)", "weight and bias are not used"),
    (
        _NORM + _SUM + "return c / torch.sqrt(c.pow(2).mean(-1, keepdim=True) + eps) * weight_D",
        "the bias is not added",
    ),
    (
        _NORM
        + "s = x_SD + sublayer(x_SD)\n    c = s - s.mean(0)\n"
        + "    return c / torch.sqrt(c.pow(2).mean(0) + eps) * weight_D + bias_D",
        "run over the tokens",
    ),
    (
        _NORM
        + "s = x_SD + sublayer(x_SD)\n    c = s - s.mean()\n"
        + "    return c / torch.sqrt(c.pow(2).mean() + eps) * weight_D + bias_D",
        "taken over all tokens",
    ),
]

_LOSS = "def masked_lm_loss(hidden_TD, embedding_VD, bias_V, labels_T):\n    chosen = labels_T != -100\n    "
_LOGITS = "logits = hidden_TD[chosen] @ embedding_VD.T + bias_V\n    "

PLANTED["check_mlm_loss"] = [
    (_LOSS + _LOGITS + "return F.cross_entropy(logits, labels_T[chosen], reduction='sum')", "that is the sum"),
    (
        _LOSS + _LOGITS + "return F.cross_entropy(logits, labels_T[chosen], reduction='sum') / len(labels_T)",
        "divided by all T tokens",
    ),
    (
        _LOSS + "return F.cross_entropy(hidden_TD @ embedding_VD.T + bias_V, labels_T.clamp(min=0))",
        "unmasked tokens count too",
    ),
    (_LOSS + "return F.cross_entropy(hidden_TD[chosen] @ embedding_VD.T, labels_T[chosen])", "bias_V is not added"),
    (_LOSS + _LOGITS + "return F.cross_entropy(logits, labels_T[chosen]) / math.log(2)", "not base 2"),
    (
        _LOSS + "logits = hidden_TD[chosen] @ embedding_VD.detach().T + bias_V\n"
        "    return F.cross_entropy(logits, labels_T[chosen])",
        "no gradient reaches embedding",
    ),
    (
        _LOSS + _LOGITS + "return F.cross_entropy(logits.detach(), labels_T[chosen])",
        "the loss has no gradient",
    ),
    (_LOSS + _LOGITS + "return F.cross_entropy(logits, labels_T[chosen]).item()", "expected a tensor, got float"),
    (_LOSS + _LOGITS + "return F.cross_entropy(logits, labels_T[chosen], reduction='none')", "expected the shape ()"),
    (
        _LOSS + "return F.cross_entropy(hidden_TD @ embedding_VD + bias_V, labels_T)",
        "your function raised RuntimeError",
    ),
]

# --------------------------------------------------------------------------------------------------- 00_tour

_REPORT = "def batch_report(real_BS, seconds):\n    real = real_BS.sum().item()\n    "

PLANTED["check_batch_report"] = [
    (_REPORT + "return real / real_BS.numel(), real / seconds", "the share of real tokens, not of pads"),
    (_REPORT + "return 1 - real / real_BS.numel(), real_BS.numel() / seconds", "pads were counted as tokens"),
    (_REPORT + "return real / seconds, 1 - real / real_BS.numel()", "the two are swapped"),
    (_REPORT + "return real_BS.numel() / real - 1, real / seconds", "divide by all places"),
    (_REPORT + "return 100 * (1 - real / real_BS.numel()), real / seconds", "in percent"),
    (_REPORT + "return (~real_BS).sum(), real / seconds", "how many pads there are"),
    (_REPORT + "return 1 - real / real_BS.numel(), seconds / real", "seconds per token"),
    (_REPORT + "return 1 - real / real_BS.numel(), len(real_BS) / seconds", "texts per second"),
    (_REPORT + "return 1 - real / real_BS.numel(), real * seconds", "multiplied by the seconds"),
    (_REPORT + "return 1 - real / real_BS.numel(), 2 * real / seconds", "expected 14, got 28"),
    (_REPORT + "return 1 - real / real_BS.numel()", "return two things"),
    (_REPORT + "return 1 - real_BS.float().mean(1), real / seconds", "expected a number, got Tensor"),
    (_REPORT + "1 - real / real_BS.numel(), real / seconds", "returned None"),
]

_AXIS = "def flat_axis(lengths):\n    sizes = torch.tensor(lengths)\n    cu = F.pad(sizes.cumsum(0), (1, 0))\n    "
_PLACES = "places = torch.cat([torch.arange(n) for n in lengths])\n    "

PLANTED["check_flat_axis"] = [
    (_AXIS + _PLACES + "return cu[1:], places", "lacks the 0 in front"),
    (_AXIS + _PLACES + "return cu[:-1], places", "lacks its last entry, T"),
    (_AXIS + _PLACES + "return F.pad(sizes, (1, 0)), places", "were not added up"),
    (_AXIS + _PLACES + "return sizes, places", "those are the lengths"),
    (_AXIS + _PLACES + "return places, cu", "the two are swapped"),
    (_AXIS + "return cu, torch.arange(int(cu[-1]))", "start again at 0"),
    (_AXIS + _PLACES + "return cu, places + 1", "count from 1"),
    (
        _AXIS + "return cu, torch.arange(len(lengths)).repeat_interleave(sizes)",
        "the number of each token's text",
    ),
    (_AXIS + "return cu, cu[:-1].repeat_interleave(sizes)", "subtract it from the place on the flat axis"),
    (_AXIS + "return cu, torch.arange(max(lengths)).repeat(len(lengths))", "pads got positions too"),
    (_AXIS + _PLACES + "return cu.tolist(), places", "expected a tensor, got list"),
    (_AXIS + "return cu", "return two things"),
    (
        "def flat_axis(lengths):\n    lengths = [n for n in lengths if n]\n    sizes = torch.tensor(lengths)\n"
        "    return F.pad(sizes.cumsum(0), (1, 0)), torch.cat([torch.arange(n) for n in lengths])",
        "with lengths [4, 0, 2], cu_seqlens: expected the shape (4,), got (3,)",
    ),
]

_PAIRS = "def score_pairs(n, window):\n    if window is None:\n        return n * n\n    "
_SHORT = "if window >= n:\n        return n * n\n    "

PLANTED["check_score_pairs"] = [
    (_PAIRS + _SHORT + "return n * (2 * window + 1)", "near the two ends have fewer keys"),
    (_PAIRS + _SHORT + "return n * 2 * window - window * (window + 1)", "the token itself is a key too"),
    (_PAIRS + _SHORT + "return n * 2 * window", "neither the token itself nor the two ends"),
    (
        _PAIRS + "window //= 2\n    return n * (2 * window + 1) - window * (window + 1)",
        "on each side, not on both together",
    ),
    (_PAIRS + "return sum(min(i, window) + 1 for i in range(n))", "keys to the right count"),
    (_PAIRS + _SHORT + "return n * (2 * window + 1) - window * (window + 1) // 2", "there are two ends"),
    (_PAIRS + _SHORT + "return n * (2 * window + 1) - window * window", "which is w (w + 1) / 2"),
    (_PAIRS + "return n * (2 * window + 1) - window * (window + 1)", "in a text that is shorter than it"),
    (_PAIRS + "return n * n", "that is a global layer"),
    (
        "def score_pairs(n, window):\n    return n * (2 * window + 1) - window * (window + 1) if window < n else n * n",
        "your function raised TypeError",
    ),
]
