"""Wrong answers to the exercises of 01_vanilla_bert."""

PLANTED: dict[str, list[tuple[str, str]]] = {}

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
