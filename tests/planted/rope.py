"""Wrong answers to the exercises of 04_rope."""

PLANTED: dict[str, list[tuple[str, str]]] = {}

_TURN = """def turn(x_THK, position_ids, theta):
    T, H, K = x_THK.shape
    frequencies = theta ** (-torch.arange(0, K, 2) / K)
    angles = (position_ids[:, None] * frequencies)[:, None, :]
    cos, sin = angles.cos(), angles.sin()
    a, b = x_THK.chunk(2, dim=-1)
    """
_RIGHT = "return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)"

PLANTED["check_turn"] = [
    (_TURN.replace("x_THK.chunk(2, dim=-1)", "(x_THK[..., ::2], x_THK[..., 1::2])")
     + "return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)", "neighbours were paired"),
    (_TURN + "cos, sin = cos.repeat_interleave(2, -1), sin.repeat_interleave(2, -1)\n"
     "    return x_THK * cos + torch.cat([-b, a], -1) * sin", "the angles are laid out for neighbours"),
    (_TURN + "return torch.cat([a * cos + b * sin, b * cos - a * sin], dim=-1)", "it turns the other way"),
    (_TURN + "return torch.cat([a * cos - b * sin, b * cos - a * sin], dim=-1)", "its sign must be plus"),
    (_TURN + "return torch.cat([a * cos + b * sin, b * cos + a * sin], dim=-1)", "its sign must be minus"),
    (_TURN.replace("(0, K, 2)", "(K // 2)") + _RIGHT, "the exponent is -i / K"),
    (_TURN.replace("(-torch", "(torch") + _RIGHT, "the exponent is positive"),
    (_TURN.replace(" / K)", " / (K // 2))") + _RIGHT, "divide by K"),
    (_TURN.replace("(0, K, 2)", "(2, K + 1, 2)") + _RIGHT, "the pairs are counted from 1"),
    (_TURN.replace("position_ids[:, None]", "(position_ids[:, None] + 1)") + _RIGHT, "positions are counted from 1"),
    (_TURN.replace("position_ids[:, None]", "torch.arange(T)[:, None]") + _RIGHT, "position_ids were not used"),
    (_TURN.replace("theta ** (-torch.arange(0, K, 2) / K)", "torch.ones(K // 2)") + _RIGHT, "by the same angle"),
    (_TURN + "return torch.cat([b * cos + a * sin, a * cos - b * sin], dim=-1)", "the halves are swapped"),
    (_TURN + "return x_THK", "nothing was turned"),
    (_TURN.replace("[:, None, :]", "") + _RIGHT, "RuntimeError"),
    (_TURN + "torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)", "returned None"),
]  # fmt: skip

_ROWS = """def to_halves(weight_OD, H):
    O, D = weight_OD.shape
    heads = weight_OD.view(H, O // H, D)
    even, odd = heads[:, ::2], heads[:, 1::2]
    """

PLANTED["check_to_halves"] = [
    (_ROWS + "return weight_OD", "nothing was moved"),
    (_ROWS + "return torch.stack(heads.chunk(2, dim=1), dim=2).reshape(O, D)", "that is the way back"),
    (_ROWS + "return torch.cat([weight_OD[::2], weight_OD[1::2]])", "over all heads at once"),
    (_ROWS + "return torch.cat([odd, even], dim=1).reshape(O, D)", "the odd rows came first"),
    (_ROWS + "return torch.cat([even, odd], dim=0).reshape(O, D)", "over all heads at once"),
    (_ROWS + "return torch.cat([even, odd.flip(1)], dim=1).reshape(O, D)", "in reverse order"),
    (_ROWS + "return heads.flip(1).reshape(O, D)", "the rows were reversed"),
    (_ROWS + "return torch.cat([even, odd], dim=1)", "expected the shape"),
    (_ROWS + "torch.cat([even, odd], dim=1).reshape(O, D)", "returned None"),
]

_COUNT = """def never_turned(theta, K, length):
    turns = 2 * math.pi * theta ** (torch.arange(0, K, 2) / K)
    """

PLANTED["check_never_turned"] = [
    (_COUNT + "return int((turns <= length).sum())", "count the others"),
    (_COUNT.replace("2 * math.pi * ", "") + "return int((turns > length).sum())", "a full turn is 2 pi radians"),
    (_COUNT.replace("2 * math.pi", "360") + "return int((turns > length).sum())", "not 360"),
    (_COUNT.replace("2 * math.pi", "math.pi") + "return int((turns > length).sum())", "not pi"),
    (_COUNT.replace("(0, K, 2)", "(K // 2)") + "return int((turns > length).sum())", "not i / K"),
    (_COUNT.replace("(0, K, 2)", "(0, 2 * K, 2)") + "return int((turns > length).sum())", "K/2 pairs, not K"),
    (_COUNT.replace("(0, K, 2)", "(2, K + 1, 2)") + "return int((turns > length).sum())", "counted from 0"),
    (_COUNT.replace("(torch", "(-torch") + "return int((turns > length).sum())", "the frequencies grow"),
    (_COUNT + "return turns", "expected a number of pairs"),
    (_COUNT + "(turns > length).sum()", "returned None"),
]
