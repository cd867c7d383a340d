"""Wrong answers to the exercises of 10_large_from_base."""

PLANTED: dict[str, list[tuple[str, str]]] = {}

_TILE = "def center_tile_1d(x_N, new):\n    old = len(x_N)\n    offset = (new - old) // 2\n    "

PLANTED["check_center_tile_1d"] = [
    (_TILE + "return x_N[torch.arange(new) % old]", "which is edge tiling"),
    (_TILE + "return x_N[(torch.arange(new) + offset) % old]", "moved to the left"),
    (_TILE + "return x_N[(torch.arange(new) - (new - old)) % old]", "half of what is added"),
    (_TILE + "return x_N[(torch.arange(new) - round((new - old) / 2 + 0.01)) % old]", "rounded up"),
    (_TILE + "y = torch.zeros(new)\n    y[offset:offset + old] = x_N\n    return y", "the rest is zero"),
    (_TILE + "return x_N[(torch.arange(new) - offset).clamp(0, old - 1)]", "repeated to the ends"),
    (_TILE + "return torch.cat([x_N.flip(0), x_N, x_N.flip(0)])[old - offset:][:new]", "mirrored"),
    (_TILE + "return x_N[torch.arange(new) * old // new]", "repeated in place"),
    (_TILE + "return x_N.repeat(-(-new // old) + 1)", "cut it to"),
    (_TILE + "return torch.cat([x_N[-offset:], x_N, x_N[:new - old - offset]])", "from 4 to 5 numbers: expected"),
    (_TILE + "x_N[(torch.arange(new) - offset) % old]", "returned None"),
]

_DEPTH = "def depth_map(old, new):\n    "

PLANTED["check_depth_map"] = [
    (_DEPTH + "return [round(i * old / new) for i in range(new)]", "there is no layer 2"),
    (_DEPTH + "return [i * old // new for i in range(new)]", "cut off to a whole number"),
    (_DEPTH + "return [min(int(i * old / new + 0.5), old - 1) for i in range(new)]", "halves went up"),
    (_DEPTH + "return [min(math.ceil(i * old / new), old - 1) for i in range(new)]", "was rounded up"),
    (_DEPTH + "return [i % old for i in range(new)]", "repeated from layer 0"),
    (_DEPTH + "return [min(i, old - 1) for i in range(new)]", "repeated at the end"),
    (_DEPTH + "return [round(i * (old - 1) / (new - 1)) for i in range(new)]", "first went to first"),
    (_DEPTH + "return [round(i * new / old) for i in range(old)]", "to which new layer each old one goes"),
    (_DEPTH + "return [min(round(i * old / new), old - 1) for i in range(1, new + 1)]", "new layer 0 copies layer 0"),
    (_DEPTH + "return [min(round(i * old / new), old - 1) for i in range(new - 1)]", "one for each new layer"),
    (_DEPTH + "return [i * old / new for i in range(new)]", "expected a list of layer numbers"),
    (_DEPTH + "[min(round(i * old / new), old - 1) for i in range(new)]", "returned None"),
]

_QKV = (
    "def grow_qkv(weight, heads, new_heads):\n    D = weight.shape[1]\n    K = D // heads\n    wide = new_heads * K\n"
    "    inside, cut = torch.arange(wide), (wide - D) // 2\n    columns = (inside - cut) % D\n"
    "    rows = (inside - (new_heads - heads) // 2 * K) % D\n    "
)
_JOIN = "return torch.cat([part[{}][:, {}] for part in weight.chunk(3)])"

PLANTED["check_grow_qkv"] = [
    (
        _QKV + "whole = (torch.arange(3 * wide) - 3 * (wide - D) // 2) % (3 * D)\n    return weight[whole][:, columns]",
        "tiled as one matrix",
    ),
    (_QKV + _JOIN.format("columns", "columns"), "a head was cut"),
    (_QKV + _JOIN.format("rows", "rows"), "heads do not matter there"),
    (_QKV + _JOIN.format("inside % D", "columns"), "the rows begin at head 0"),
    (_QKV + _JOIN.format("rows", "inside % D"), "the columns begin at 0"),
    (_QKV + _JOIN.format("inside % D", "inside % D"), "in rows and columns"),
    (_QKV + "return torch.cat([weight[:D][rows][:, columns]] * 3)", "all three parts are Q"),
    (_QKV + "return torch.cat([part[rows][:, columns] for part in weight.chunk(3)[::-1]])", "in another order"),
    (
        _QKV + "head = (torch.arange(new_heads) - (new_heads - heads) // 2) % heads\n"
        "    return weight.view(heads, 3 * K, D)[head].flatten(0, 1)[:, columns]",
        "all of Q comes first",
    ),
    (_QKV + "return torch.cat([part[rows] for part in weight.chunk(3)])", "the columns were not grown"),
    (_QKV + "return weight[:, columns]", "the rows were not grown"),
    (_QKV + "return weight.chunk(3)[0][rows][:, columns]", "expected the shape"),
    (_QKV + "torch.cat([part[rows][:, columns] for part in weight.chunk(3)])", "returned None"),
]
