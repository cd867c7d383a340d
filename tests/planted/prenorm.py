"""Wrong answers to the exercises of 03_prenorm_and_biases."""

PLANTED: dict[str, list[tuple[str, str]]] = {}

_BLOCK = "def pre_norm_block(x_TD, attn_norm, attn, mlp_norm, mlp):\n    "
_ATTENDED = "x_TD = x_TD + attn(attn_norm(x_TD))\n    "

PLANTED["check_pre_norm_block"] = [
    (
        _BLOCK + "x_TD = attn_norm(x_TD + attn(x_TD))\n    return mlp_norm(x_TD + mlp(x_TD))",
        "that is post-norm",
    ),
    (
        _BLOCK + "x_TD = attn_norm(x_TD)\n    x_TD = x_TD + attn(x_TD)\n"
        "    x_TD = mlp_norm(x_TD)\n    return x_TD + mlp(x_TD)",
        "x itself was replaced by norm(x)",
    ),
    (
        _BLOCK + "x_TD = x_TD + attn_norm(attn(x_TD))\n    return x_TD + mlp_norm(mlp(x_TD))",
        "the norms stand behind the sublayers",
    ),
    (_BLOCK + "x_TD = x_TD + attn(x_TD)\n    return x_TD + mlp(x_TD)", "there are no norms in it"),
    (_BLOCK + "x_TD = x_TD + attn(x_TD)\n    return x_TD + mlp(mlp_norm(x_TD))", "attention's input is not normalised"),
    (_BLOCK + _ATTENDED + "return x_TD + mlp(x_TD)", "the MLP's input is not normalised"),
    (_BLOCK + "return x_TD + attn(attn_norm(x_TD)) + mlp(mlp_norm(x_TD))", "beside the attention"),
    (
        _BLOCK + "middle = x_TD + attn(attn_norm(x_TD))\n    return x_TD + mlp(mlp_norm(middle))",
        "so the attention's is lost",
    ),
    (_BLOCK + "x_TD = attn(attn_norm(x_TD))\n    return x_TD + mlp(mlp_norm(x_TD))", "the attention's residual"),
    (_BLOCK + _ATTENDED + "return mlp(mlp_norm(x_TD))", "the MLP's residual is missing"),
    (_BLOCK + "return mlp(mlp_norm(attn(attn_norm(x_TD))))", "nothing is added"),
    (_BLOCK + _ATTENDED + "return x_TD + mlp(attn_norm(x_TD))", "the MLP got the attention's norm"),
    (_BLOCK + "x_TD = x_TD + mlp(mlp_norm(x_TD))\n    return x_TD + attn(attn_norm(x_TD))", "attention is first"),
    (_BLOCK + "return x_TD + attn(attn_norm(x_TD))", "the MLP is missing"),
    (_BLOCK + _ATTENDED + "return mlp_norm(x_TD + mlp(mlp_norm(x_TD)))", "normalised once more"),
    (_BLOCK + _ATTENDED + "x_TD + mlp(mlp_norm(x_TD))", "returned None"),
    (_BLOCK + "return x_TD.mean(0)", "expected the shape"),
    ("def pre_norm_block(x_TD, norm, attn, mlp):\n    return x_TD", "your function raised TypeError"),
]

_COUNT = "def bias_count(D, I, L, gated):\n    wi = 2 * I if gated else I\n    "

PLANTED["check_bias_count"] = [
    (_COUNT + "return L * (3 * D + D + wi + D) + D", "the norms have biases too"),
    (_COUNT + "return L * (3 * D + D + wi + D) + 3 * D", "the two norms of each layer are missing"),
    (_COUNT + "return L * (3 * D + D + wi + D + D) + 3 * D", "one D in each layer is missing"),
    (_COUNT + "return L * (3 * D + D + wi + D + 2 * D)", "those are the layers alone"),
    (_COUNT + "return L * (3 * D + D + wi + D + 2 * D) + 2 * D", "one D outside the layers is missing"),
    (_COUNT + "return L * (3 * D + D + wi + D + 2 * D) + D", "outside the layers there are 3 D"),
    (_COUNT + "return L * (3 * D + D + wi + D + 2 * D) + 4 * D", "one D too many outside"),
    (_COUNT + "return L * (7 * D + I) + 3 * D", "a gated MLP's Wi has 2 I outputs"),
    (_COUNT + "return L * (3 * D + D + wi + I + 2 * D) + 3 * D", "the MLP's Wo has D outputs"),
    (_COUNT + "return L * (3 * D + D + 2 * D) + 3 * D", "the MLP's biases are missing"),
    (_COUNT + "return L * (5 * D + wi + 4 * D) + 5 * D", "only the bias goes"),
    (_COUNT + "return L * (4 * D * D + D * wi + I * D) + D * D", "those are the weights of the matrices"),
    (_COUNT + "return 7 * D + wi + 3 * D", "that is one layer"),
    (_COUNT + "L * (7 * D + wi) + 3 * D", "returned None"),
    (_COUNT + "return L * (8 * D + wi) + 3 * D", "expected"),
]

_RMS = "def stream_rms(L, v, scaled):\n    "

PLANTED["check_stream_rms"] = [
    (_RMS + "return math.sqrt(1 + (v if scaled else L * v))", "2 L outputs are added, not L"),
    (_RMS + "return 1 + (v if scaled else 2 * L * v)", "that is the variance"),
    (_RMS + "return math.sqrt(v if scaled else 2 * L * v)", "the embedding is in the sum too"),
    (_RMS + "return 1 + math.sqrt(v if scaled else 2 * L * v)", "the roots were added"),
    (
        _RMS + "return 1 + 2 * L * math.sqrt(v / (2 * L) if scaled else v)",
        "of independent numbers the variances add up",
    ),
    (_RMS + "return math.sqrt(1 + v)", "one sublayer's output alone was added"),
    (_RMS + "return math.sqrt(1 + 2 * L * v)", "the outputs were not scaled"),
    (
        _RMS + "v = v / math.sqrt(2 * L) if scaled else v\n    return math.sqrt(1 + 2 * L * v)",
        "a factor on a number is squared in its variance",
    ),
    (
        _RMS + "v = v / L if scaled else v\n    return math.sqrt(1 + 2 * L * v)",
        "each layer has two sublayers, so it is sqrt(2 L)",
    ),
    (_RMS + "return math.sqrt(1 + (v / (2 * L) if scaled else 2 * L * v))", "one sublayer's share alone"),
    (_RMS + "return math.sqrt(1 + (2 * L - 1) * v)", "one of the 2 L + 1 terms is missing"),
    (_RMS + "return math.sqrt(1 + (2 * L * v if scaled else v / (2 * L)))", "although scaled is False"),
    (_RMS + "return [math.sqrt(1 + 2 * L * v)]", "expected a number"),
    (_RMS + "return 3 * v", "expected"),
]
