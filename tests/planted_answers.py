"""Wrong answers to the exercises, by the name of their check: (source, words that the check's line must hold).

Each is a mistake that learners make. A check that lets one pass, or that cannot say what is wrong with it, is no check.
The functions bear the names that the lessons give them; `torch`, `math` and `F` are at hand as in the lessons.
"""

PLANTED: dict[str, list[tuple[str, str]]] = {}

# ------------------------------------------------------------------------------------------- 01_vanilla_bert

_ATTEND = """def attend(q_BSD, k_BSD, v_BSD, key_mask_BS, H):
    B, S, D = q_BSD.shape
    K, mask = D // H, key_mask_BS[:, None, None, :]
    q, k, v = (x.view(B, S, H, K).transpose(1, 2) for x in (q_BSD, k_BSD, v_BSD))
    raw = q @ k.transpose(-1, -2)
    scores = raw / math.sqrt(K)
    """
_NEVER = "masked_fill(~mask, float('-inf'))"
_BACK = ".transpose(1, 2).reshape(B, S, D)"

PLANTED["check_attend"] = [
    (_ATTEND + f"return (raw.{_NEVER}.softmax(-1) @ v){_BACK}", "not divided by sqrt(K)"),
    (_ATTEND + f"return ((raw / K).{_NEVER}.softmax(-1) @ v){_BACK}", "divided by K, not by sqrt(K)"),
    (_ATTEND + f"return ((raw / math.sqrt(D)).{_NEVER}.softmax(-1) @ v){_BACK}", "divided by sqrt(D)"),
    (_ATTEND + f"return ((raw / math.sqrt(S)).{_NEVER}.softmax(-1) @ v){_BACK}", "divided by sqrt(S)"),
    (_ATTEND + f"return (scores.softmax(-1) @ v){_BACK}", "the mask was not used"),
    (_ATTEND + f"return ((scores * mask).softmax(-1) @ v){_BACK}", "exp(0) is 1"),
    (_ATTEND + f"return ((scores.softmax(-1) * mask) @ v){_BACK}", "no longer sum to 1"),
    (_ATTEND + f"return (scores.{_NEVER}.softmax(2) @ v){_BACK}", "the softmax runs over the queries"),
    (
        _ATTEND + f"mask = mask.transpose(-1, -2)\n    return (scores.{_NEVER}.softmax(-1) @ v){_BACK}",
        "hides queries (rows) instead of keys",
    ),
    (
        _ATTEND + f"return (scores.masked_fill(mask, float('-inf')).softmax(-1) @ v){_BACK}",
        "did you invert the mask? True means may be looked at",
    ),
    (_ATTEND + f"return (scores.{_NEVER}.softmax(-1) @ v).reshape(B, S, D)", "not laid side by side again"),
    (
        _ATTEND.replace("view(B, S, H, K).transpose(1, 2)", "view(B, H, S, K)")
        + f"return (scores.{_NEVER}.softmax(-1) @ v){_BACK}",
        "cuts the tokens up",
    ),
    (
        _ATTEND.replace("view(B, S, H, K).transpose(1, 2)", "view(B, H, S, K)")
        + f"return (scores.{_NEVER}.softmax(-1) @ v).view(B, S, D)",
        "cuts the tokens up",
    ),
    (
        _ATTEND + "scores = q_BSD @ k_BSD.transpose(1, 2) / math.sqrt(D)\n"
        "    return scores.masked_fill(~key_mask_BS[:, None], float('-inf')).softmax(-1) @ v_BSD",
        "that is one head",
    ),
    (_ATTEND + f"return scores.{_NEVER}.softmax(-1) @ v", "expected the shape"),
    (_ATTEND + "return v_BSD * float('nan')", "nan or infinite"),
    (_ATTEND + "return v_BSD", "expected"),
    (_ATTEND + f"(scores.{_NEVER}.softmax(-1) @ v){_BACK}", "returned None"),
    (_ATTEND + "return q @ k", "your function raised RuntimeError"),
    ("def attend(q_BSD, k_BSD, v_BSD):\n    return q_BSD", "your function raised TypeError"),
]

_NORM = "def post_norm_sublayer(x_SD, sublayer, weight_D, bias_D, eps):\n    "
_SUM = "s = x_SD + sublayer(x_SD)\n    c = s - s.mean(-1, keepdim=True)\n    "

PLANTED["check_post_norm"] = [
    (
        _NORM + "return x_SD + sublayer(F.layer_norm(x_SD, x_SD.shape[-1:], weight_D, bias_D, eps))",
        "that is pre-norm",
    ),
    (
        _NORM + "return x_SD + F.layer_norm(sublayer(x_SD), x_SD.shape[-1:], weight_D, bias_D, eps)",
        "the norm stands inside the sum",
    ),
    (
        _NORM + "return F.layer_norm(x_SD + sublayer(x_SD), x_SD.shape[-1:], weight_D, bias_D, eps)",
        "torch's layer norm made them",
    ),
    (
        _NORM + "norm = torch.nn.LayerNorm(len(weight_D), eps)\n"
        "    return norm(x_SD + sublayer(x_SD)).detach() * weight_D + bias_D",
        "torch's layer norm made them",
    ),
    (
        _NORM + _SUM + "return c / (c.pow(2).mean(-1, keepdim=True) + eps) * weight_D + bias_D",
        "the square root is missing",
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
    (_LOSS + _LOGITS + "return F.cross_entropy(logits.softmax(-1), labels_T[chosen])", "does the softmax itself"),
    (
        _LOSS.replace("!= -100", "> 0") + _LOGITS + "return F.cross_entropy(logits, labels_T[chosen])",
        "the token with id 0 was left out",
    ),
    (
        _LOSS + "return F.cross_entropy(hidden_TD @ embedding_VD.T + bias_V, labels_T)",
        "unmasked tokens were decoded too",
    ),
    (
        _LOSS + "logits = hidden_TD @ embedding_VD.T + bias_V\n"
        "    return F.cross_entropy(logits[chosen], labels_T[chosen])",
        "unmasked tokens were decoded too",
    ),
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
    (_AXIS + _PLACES + "return cu, places.float()", "position_ids: the numbers are right, but torch.float32"),
    (_AXIS + _PLACES + "return cu / 1, places", "cu_seqlens: the numbers are right, but torch.float32"),
    (_AXIS + "return cu", "return two things"),
    (
        "def flat_axis(lengths):\n    lengths = [n for n in lengths if n]\n    sizes = torch.tensor(lengths)\n"
        "    return F.pad(sizes.cumsum(0), (1, 0)), torch.cat([torch.arange(n) for n in lengths])",
        "with lengths [4, 0, 2], cu_seqlens: an empty text keeps its entry",
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
    (
        _PAIRS + "return n * (2 * window + 1) - window * (window + 1)",
        "with n 1, window 3: a text that is shorter than the window sees all of itself: expected 1, got -5",
    ),
    (_PAIRS + "return n * n", "that is a global layer"),
    (
        _PAIRS + "if 2 * window + 1 >= n:\n        return n * n\n"
        "    return n * (2 * window + 1) - window * (window + 1)",
        "with n 5, window 3: a text longer than window + 1 already loses pairs at its ends",
    ),
    (
        "def score_pairs(n, window):\n    if not window or window >= n:\n        return n * n\n"
        "    return n * (2 * window + 1) - window * (window + 1)",
        "window 0 is not None",
    ),
    (_PAIRS + _SHORT + "return n * (2 * window + 1) - 2 * (window * (window + 1) / 2)", "44.0 is a float"),
    (
        "def score_pairs(n, window):\n    return n * (2 * window + 1) - window * (window + 1) if window < n else n * n",
        "your function raised TypeError",
    ),
]
