"""Wrong answers to the exercises of 08_mlm_pretraining."""

PLANTED: dict[str, list[tuple[str, str]]] = {}

_WSD = "def wsd(tokens, warmup, total, decay, final_share):\n    "
_RISE = "if tokens < warmup:\n        return tokens / warmup\n    "
_STAY = "if tokens <= total - decay:\n        return 1.0\n    "
_X = "x = (tokens - (total - decay)) / decay\n    "
_FALL = "return final_share + (1 - final_share) * (1 - math.sqrt(x))"

PLANTED["check_wsd"] = [
    (_WSD + _STAY + _X + _FALL, "there is no warm-up"),
    (_WSD + "if tokens < warmup:\n        return tokens / total\n    " + _STAY + _X + _FALL, "against the whole run"),
    (
        _WSD
        + "if tokens < warmup:\n        return final_share + (1 - final_share) * tokens / warmup\n    "
        + _STAY
        + _X
        + _FALL,
        "rises from the final share",
    ),
    (
        _WSD + _RISE + "x = (tokens - warmup) / (total - warmup)\n    " + _FALL,
        "it decays from the end of the warm-up on",
    ),
    (
        _WSD + _RISE + "return (total - tokens) / (total - warmup)",
        "which is BERT's plan",
    ),
    (_WSD + _RISE + _STAY + _X + "return final_share + (1 - final_share) * (1 - x)", "that is the linear decay"),
    (
        _WSD + _RISE + _STAY + _X + "return final_share + (1 - final_share) * (1 + math.cos(math.pi * x)) / 2",
        "that is the cosine decay",
    ),
    (_WSD + _RISE + _STAY + _X + "return final_share + (1 - final_share) * math.sqrt(1 - x)", "of x alone"),
    (_WSD + _RISE + _STAY + _X + "return 1 - math.sqrt(x)", "without the final share"),
    (_WSD + _RISE + _STAY + _X + "return final_share + 1 - math.sqrt(x)", "without scaling the rest by 1 - a"),
    (_WSD + _RISE + _STAY + _X + "return max(final_share, 1 - math.sqrt(x))", "a floor does not"),
    (_WSD + _RISE + _STAY + "x = tokens / total\n    " + _FALL, "not the share of the whole run"),
    (_WSD + _RISE + _STAY + "x = (total - tokens) / decay\n    " + _FALL, "the wrong way"),
    (_WSD + _RISE + "return 1.0", "the decay never begins"),
    (_WSD + _RISE + _X + "return final_share + (1 - final_share) * (1 - x**0.5)", "square root of a negative number"),
    (_WSD + _RISE + "if tokens <= total - decay:\n        return 1.0", "returned None"),
]

_UPDATE = "def clipped_update(g, m, v, lr, eps):\n    "
_R = "r = (g**2 / v.clamp(min=eps**2)).mean().sqrt()\n    "
_RETURN = "return lr / r.clamp(min=1) * m / (v.sqrt() + eps)"

PLANTED["check_clipped_update"] = [
    (_UPDATE + "return lr * m / (v.sqrt() + eps)", "that is AdamW's update"),
    (_UPDATE + _R + "return lr / r * m / (v.sqrt() + eps)", "r below 1 must not raise the rate"),
    (_UPDATE + _R + "return lr / min(1, r) * m / (v.sqrt() + eps)", "nor by min(1, r)"),
    (_UPDATE + _R + "return lr * max(1, r) * m / (v.sqrt() + eps)", "multiplied by max(1, r)"),
    (_UPDATE + "r = (g**2 / v.clamp(min=eps**2)).sqrt()\n    " + _RETURN, "r is one number for the tensor"),
    (_UPDATE + "r = (g**2 / v.clamp(min=eps**2)).mean()\n    " + _RETURN, "the square root is missing in r"),
    (_UPDATE + "r = (g.abs() / v.clamp(min=eps**2).sqrt()).mean()\n    " + _RETURN, "root of the mean square"),
    (_UPDATE + "r = (g.pow(2).mean() / v.mean()).sqrt()\n    " + _RETURN, "the ratio of two means"),
    (_UPDATE + "r = (g**2 / v.clamp(min=eps**2)).sum().sqrt()\n    " + _RETURN, "where the mean belongs"),
    (_UPDATE + "r = (m**2 / v.clamp(min=eps**2)).mean().sqrt()\n    " + _RETURN, "r was made from m"),
    (_UPDATE + "r = (g**2 / v).mean().sqrt()\n    " + _RETURN, "v may be 0"),
    (_UPDATE + "r = (g**2 / v.clamp(min=eps)).mean().sqrt()\n    " + _RETURN, "eps was not squared"),
    (_UPDATE + _R + "return lr / r.clamp(min=1) * m / (v + eps).sqrt()", "outside of the square root"),
    (_UPDATE + _R + "return lr / r.clamp(min=1) * m / (v + eps)", "m was divided by v"),
    (_UPDATE + _R + "return lr / r.clamp(min=1) * g / (v.sqrt() + eps)", "in the place of m"),
    (_UPDATE + _R + "return m / r.clamp(min=1) / (v.sqrt() + eps)", "the learning rate is missing"),
    (_UPDATE + _R + "return -lr / r.clamp(min=1) * m / (v.sqrt() + eps)", "return what is subtracted"),
    (_UPDATE + _R + "return lr / r.clamp(min=1) * m.div_(v.sqrt() + eps)", "m was changed in place"),
    (_UPDATE + _R + "lr / r.clamp(min=1) * m / (v.sqrt() + eps)", "returned None"),
]

_ACCUMULATE = (
    "def accumulate(mean_loss, microbatches):\n"
    "    counts = [int((labels != -100).sum()) for _, labels in microbatches]\n"
    "    total = 0.0\n    for (x, labels), n in zip(microbatches, counts):\n        "
)
_END = "\n        loss.backward()\n        total += loss.item()\n    return total"

PLANTED["check_accumulate"] = [
    (_ACCUMULATE + "loss = mean_loss(x, labels) / len(microbatches)" + _END, "that is the mean of the means"),
    (_ACCUMULATE + "loss = mean_loss(x, labels)" + _END, "summed and not divided"),
    (_ACCUMULATE + "loss = mean_loss(x, labels) * n" + _END, "divide by all masked tokens of the step"),
    (
        _ACCUMULATE + "loss = mean_loss(x, labels) * len(labels) / sum(len(y) for _, y in microbatches)" + _END,
        "count the masked tokens",
    ),
    (_ACCUMULATE + "loss = mean_loss(x, labels) / n / sum(counts)" + _END, "once more"),
    (
        _ACCUMULATE + "loss = mean_loss(x, labels) * n / sum(len(y) for _, y in microbatches)" + _END,
        "divided by all tokens, masked or not",
    ),
    (
        _ACCUMULATE
        + "loss = mean_loss(x, labels) * n / sum(counts)\n        total += loss.item()\n    loss.backward()\n"
        "    return total",
        "only the last microbatch is in the gradient",
    ),
    (
        _ACCUMULATE + "total = total + mean_loss(x, labels) * n / sum(counts)\n    total.backward()\n    return total",
        "graphs were kept at once",
    ),
    (
        "def accumulate(mean_loss, microbatches):\n    x = torch.cat([x for x, _ in microbatches])\n"
        "    loss = mean_loss(x, torch.cat([labels for _, labels in microbatches]))\n    return loss",
        "there is no gradient",
    ),
    (_ACCUMULATE + "loss = mean_loss(x, labels) * n / sum(counts)\n        loss.backward()", "return the loss too"),
    (
        _ACCUMULATE + "loss = mean_loss(x, labels)\n        (loss * n / sum(counts)).backward()\n"
        "        total += loss.item() / len(counts)\n    return total",
        "the loss: that is the mean of the means",
    ),
    (
        _ACCUMULATE + "(mean_loss(x, labels) * n / sum(counts)).backward()\n"
        "        total += mean_loss(x, labels).item() * n / sum(counts)\n    return total",
        "computed 4 times for 2",
    ),
    (
        _ACCUMULATE + "loss = mean_loss(x, labels) * n / sum(counts)\n        loss.backward()\n    return [total]",
        "return the loss as one number",
    ),
]
