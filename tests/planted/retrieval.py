"""Wrong answers to the exercises of 12_retrieval."""

PLANTED: dict[str, list[tuple[str, str]]] = {}

_RAW = "def info_nce(queries_ND, documents_ND, temperature):\n    own = torch.arange(len(queries_ND))\n    "
_NCE = _RAW + "q, d = F.normalize(queries_ND, dim=-1), F.normalize(documents_ND, dim=-1)\n    "

PLANTED["check_info_nce"] = [
    (_RAW + "return F.cross_entropy(queries_ND @ documents_ND.T / temperature, own)", "not brought to length 1"),
    (_NCE + "return F.cross_entropy(q @ d.T, own)", "not divided by the temperature"),
    (_NCE + "return F.cross_entropy(q @ d.T * temperature, own)", "multiplied by the temperature"),
    (_NCE + "return F.cross_entropy(d @ q.T / temperature, own)", "over the questions of each text"),
    (_NCE + "s = q @ d.T / temperature\n    return (F.cross_entropy(s, own) + F.cross_entropy(s.T, own)) / 2", "both"),
    (_NCE + "return F.cross_entropy(q @ d.T / temperature, own, reduction='sum')", "take their mean"),
    (_NCE + "return F.cross_entropy(q @ d.T / temperature, own, reduction='none')", "one loss for each question"),
    (_NCE + "return (q @ d.T / temperature).log_softmax(dim=1).diagonal().mean()", "the sign is wrong"),
    (_NCE + "return F.cross_entropy((q @ d.T / temperature).softmax(dim=1), own)", "softmax was taken twice"),
    (_NCE + "return (q @ d.T / temperature).softmax(dim=1).diagonal().mean()", "without the log"),
    (
        _NCE + "s = q @ d.T / temperature\n    hole = torch.eye(len(q), dtype=torch.bool)\n"
        "    return (s.masked_fill(hole, float('-inf')).logsumexp(dim=1) - s.diagonal()).mean()",
        "missing from the sum",
    ),
    (_NCE + "F.cross_entropy(q @ d.T / temperature, own)", "returned None"),
]

_SIM = (
    "def max_sim(query_SK, documents_NTK, mask_NT):\n    m_NST = query_SK @ documents_NTK.transpose(1, 2)\n"
    "    pads = ~mask_NT[:, None]\n    "
)

PLANTED["check_max_sim"] = [
    (_SIM + "return m_NST.amax(dim=2).sum(dim=1)", "pads count as matches of 0"),
    (_SIM + "return m_NST.masked_fill(pads, 0.0).amax(dim=2).sum(dim=1)", "pads count as matches of 0"),
    (_SIM + "return m_NST.masked_fill(pads, float('-inf')).amax(dim=2).mean(dim=1)", "averaged over the question's"),
    (_SIM + "return m_NST.masked_fill(pads, float('-inf')).amax(dim=2).amax(dim=1)", "add up one for each token"),
    (_SIM + "return m_NST.masked_fill(pads, 0.0).sum(dim=(1, 2))", "all matches were added up"),
    (
        _SIM + "return (m_NST.masked_fill(pads, 0.0).sum(dim=2) / mask_NT.sum(dim=1, keepdim=True)).sum(dim=1)",
        "averaged over the text's",
    ),
    (
        _SIM + "best = m_NST.masked_fill(pads, float('-inf')).amax(dim=1)\n"
        "    return best.masked_fill(~mask_NT, 0.0).sum(dim=1)",
        "the two sides are exchanged",
    ),
    (_SIM + "return m_NST.masked_fill(pads, float('inf')).amin(dim=2).sum(dim=1)", "the worst match"),
    (_SIM + "return m_NST.masked_fill(pads, float('-inf')).amax(dim=2)", "were not added up"),
    (_SIM + "m_NST.masked_fill(pads, float('-inf')).amax(dim=2).sum(dim=1)", "returned None"),
]

_GAIN = (
    "def ndcg_at_k(ranking, relevant, k):\n"
    "    def gain(ranks):\n        return sum(1 / math.log2(1 + r) for r in ranks)\n"
    "    ranks = [r for r, text in enumerate(ranking[:k], start=1) if text in relevant]\n"
    "    most = min(k, len(relevant))\n    "
)

PLANTED["check_ndcg_at_k"] = [
    (_GAIN + "return gain(ranks)", "not divided by the largest one"),
    (
        _GAIN.replace("ranking[:k]", "ranking") + "return gain(ranks) / gain(range(1, most + 1))",
        "not cut off after k",
    ),
    (_GAIN + "return gain(ranks) / gain(range(1, k + 1))", "even where fewer texts are relevant"),
    (_GAIN + "return gain(ranks) / gain(range(1, len(relevant) + 1))", "more than k can hold"),
    (_GAIN + "return gain(ranks) / gain(range(1, len(ranks) + 1)) if ranks else 0.0", "missed costs nothing"),
    (_GAIN + "return gain(ranks) / len(relevant)", "divide by the largest sum"),
    (_GAIN.replace("math.log2(1 + r)", "r") + "return gain(ranks) / gain(range(1, most + 1))", "the discount is"),
    (_GAIN.replace("start=1", "start=0") + "return gain(ranks) / gain(range(1, most + 1))", "has rank 1, not 0"),
    (_GAIN.replace("1 + r)", "2 + r)") + "return gain(ranks) / gain(range(0, most))", "ranks begin at 1"),
    (_GAIN + "return 1 / ranks[0] if ranks else 0.0", "reciprocal rank"),
    (_GAIN + "return len(ranks) / len(relevant)", "that is recall"),
    (_GAIN + "return len(ranks) / k", "that is precision"),
    (_GAIN + "gain(ranks) / gain(range(1, most + 1))", "returned None"),
]
