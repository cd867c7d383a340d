"""Wrong answers to the exercises of 05_geglu."""

PLANTED: dict[str, list[tuple[str, str]]] = {}

_GATED = "def gated(h_TI):\n    value, gate = h_TI.chunk(2, dim=-1)\n    return "

PLANTED["check_gated"] = [
    (_GATED + "value * F.gelu(gate)", "the second half was activated"),
    (_GATED + "F.gelu(value, approximate='tanh') * gate", "the tanh approximation"),
    (_GATED + "F.silu(value) * gate", "that is SwiGLU"),
    (_GATED + "F.relu(value) * gate", "that is ReGLU"),
    (_GATED + "torch.sigmoid(value) * gate", "that is GLU"),
    (_GATED + "F.gelu(value) * torch.sigmoid(gate)", "the gate went through a sigmoid"),
    (_GATED + "F.gelu(value) * F.gelu(gate)", "both halves were activated"),
    (_GATED + "F.gelu(value * gate)", "the gelu came after the product"),
    (_GATED + "F.gelu(value) + gate", "the gate is added"),
    (_GATED + "F.gelu(value)", "the second half is not used"),
    (_GATED + "value * gate", "nothing was activated"),
    ("def gated(h_TI):\n    return F.gelu(h_TI[:, ::2]) * h_TI[:, 1::2]", "even and odd columns"),
    ("def gated(h_TI):\n    first, second = h_TI.chunk(2)\n    return F.gelu(first) * second", "the tokens were split"),
    ("def gated(h_TI):\n    return F.gelu(h_TI)", "split them first"),
    ("def gated(h_TI):\n    value, gate = h_TI.chunk(2, dim=-1)\n    F.gelu(value) * gate", "returned None"),
]

_WIDTH = "def matched_width(D, W, bias, multiple):\n    "
_EXACT = _WIDTH + "exact = (2 * D * W + bias * W) / (3 * D + 2 * bias)\n    "

PLANTED["check_matched_width"] = [
    (_WIDTH + "return W", "half as many parameters again"),
    (_WIDTH + "return round(W / 2 / multiple) * multiple", "Wi alone was made equal"),
    (_WIDTH + "return max(multiple, round(2 * W / 3 / multiple) * multiple)", "biases count too"),
    (_WIDTH + "return max(multiple, round(3 * W / 2 / multiple) * multiple)", "that is the way back"),
    (
        _WIDTH + "exact = (2 * D * W + bias * W) / (3 * D + bias)\n"
        "    return max(multiple, round(exact / multiple) * multiple)",
        "a bias for both halves",
    ),
    (_EXACT + "return max(multiple, int(exact // multiple) * multiple)", "rounded down"),
    (_EXACT + "return math.ceil(exact / multiple) * multiple", "rounded up"),
    (_EXACT + "return round(exact)", "not rounded to a multiple"),
    (_EXACT + "return round(exact / multiple) * multiple", "0 is no width"),
    (_EXACT + "return float(max(multiple, round(exact / multiple) * multiple))", "a width is an int"),
    (_EXACT + "return exact", "not rounded to a whole number"),
    (_WIDTH + "pass", "returned None"),
]

_BACK = """def gated_backward(h_TI, grad_TI):
    value, gate = h_TI.chunk(2, dim=-1)
    Phi = 0.5 * (1 + torch.erf(value / math.sqrt(2)))
    density = torch.exp(-value * value / 2) / math.sqrt(2 * math.pi)
    to_value, to_gate = grad_TI * gate * (Phi + value * density), grad_TI * value * Phi
    """

PLANTED["check_gated_backward"] = [
    (_BACK + "return torch.cat([to_gate, to_value], dim=-1)", "are exchanged"),
    (_BACK + "return torch.cat([grad_TI * gate * Phi, to_gate], dim=-1)", "x times the density is missing"),
    (_BACK + "return torch.cat([grad_TI * gate * value * density, to_gate], dim=-1)", "Phi(x) is missing"),
    (_BACK + "return torch.cat([grad_TI * gate * (Phi + density), to_gate], dim=-1)", "is not multiplied by x"),
    (
        _BACK + "density = torch.exp(-value * value / 2)\n"
        "    return torch.cat([grad_TI * gate * (Phi + value * density), to_gate], dim=-1)",
        "lacks 1 / sqrt(2 pi)",
    ),
    (_BACK + "return torch.cat([to_value / grad_TI, to_gate / grad_TI], dim=-1)", "arrives from above"),
    (_BACK + "return torch.cat([to_value, value * Phi], dim=-1)", "missing in the gate's half"),
    (_BACK + "return torch.cat([gate * (Phi + value * density), to_gate], dim=-1)", "missing in the value's half"),
    (_BACK + "return torch.cat([grad_TI * (Phi + value * density), to_gate], dim=-1)", "not multiplied by the gate"),
    (_BACK + "return torch.cat([grad_TI * gate * F.gelu(value), to_gate], dim=-1)", "the slope of the gelu, not"),
    (_BACK + "return torch.cat([to_value, grad_TI * value], dim=-1)", "the gelu of the value, not the value"),
    (_BACK + "return torch.cat([to_value, to_gate * gate], dim=-1)", "the derivative of a b by b is a"),
    (_BACK + "return to_value", "only the value's half"),
    (_BACK + "return to_gate", "only the gate's half"),
    (_BACK + "return to_value + to_gate", "the two halves were added"),
    (_BACK + "return torch.cat([to_value, to_gate])", "side by side"),
    (
        "def gated_backward(h_TI, grad_TI):\n    with torch.enable_grad():\n        h_TI.requires_grad_()\n"
        "        value, gate = h_TI.chunk(2, dim=-1)\n"
        "        return torch.autograd.grad(F.gelu(value) * gate, h_TI, grad_TI)[0]",
        "autograd is switched off",
    ),
    (
        "def gated_backward(h_TI, grad_TI):\n    h_TI.requires_grad_()\n    value, gate = h_TI.chunk(2, dim=-1)\n"
        "    (F.gelu(value) * gate).backward(grad_TI)\n    return h_TI.grad",
        "autograd is switched off",
    ),
]
