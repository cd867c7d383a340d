"""Pictures, tables and source code in the lessons. Each function displays and returns nothing.

Every picture is drawn from the tensors it is given and can be read in greyscale. Next to each stands a plain text, for
readers without pictures and because the tests of the lessons compare texts, not pixels.
"""

from __future__ import annotations

import ast
import base64
import inspect
import math
import textwrap
from collections.abc import Sequence

import torch
from torch import Tensor

from modernbert_edu.errors import InputError
from modernbert_edu.measure import plots


def show_figure(figure, text: str) -> None:
    """Display a matplotlib `Figure`, with `text` saying what is in it.

    Rendered here and not by pyplot: a lesson neither needs a backend nor changes anyone's global settings.
    """
    _display(figure_bundle(figure, text))


def figure_bundle(figure, text: str) -> dict[str, str]:
    """What a notebook shows of a `Figure`: its picture, and the words for where there are no pictures."""
    png = base64.b64encode(plots.png_bytes(figure)).decode()
    return {"image/png": png, "text/plain": f"[figure: {text}]"}


@plots.style()
def show_attention(weights: Tensor, tokens: Sequence[str], title: str, darkest: float | None = None) -> None:
    """Heat maps of attention weights, (S, S) or one for each head (H, S, S); a row is a query and sums to 1.

    The grey scale ends at the tenth above the largest weight, for rows of many small weights would all be light
    otherwise, or at `darkest`, for pictures to be compared.
    """
    weights = weights.detach().float().cpu()
    weights = weights[None] if weights.dim() == 2 else weights
    H, S = weights.shape[0], len(tokens)
    if weights.shape != (H, S, S):
        raise InputError(f"weights {tuple(weights.shape)} do not fit {S} tokens: give (S, S) or (H, S, S)")
    darkest = darkest or min(1.0, math.ceil(10 * weights.max().item()) / 10)
    side = max(2.6, 0.55 * S + 0.9)
    figure, axes = plots.panels(side * H + 0.9, side + 0.5, H)
    for head, axis in enumerate(axes):
        image = axis.imshow(weights[head].numpy(), vmin=0, vmax=darkest)
        plots.frame_image(axis)
        _name_cells(axis, tokens, tokens)
        axis.set(xlabel="key: looked at", ylabel="query: who looks" if head == 0 else "")
        axis.set_title(f"head {head}" if H > 1 else "")
        _write_values(axis, weights[head], darkest)
    figure.suptitle(title)
    figure.colorbar(image, ax=axes, label="weight", shrink=0.8)
    show_figure(figure, f"{title}, {H} x {S} x {S} weights")


@plots.style()
def show_mask(mask: Tensor, title: str, tokens: Sequence[str] | None = None) -> None:
    """A boolean mask, (queries, keys): a dark cell means the row's token may look at the column's."""
    mask = mask.detach().cpu()
    if mask.dtype != torch.bool or mask.dim() != 2:
        raise InputError(f"a mask is boolean with two axes, not {mask.dtype} {tuple(mask.shape)}")
    queries, keys = mask.shape
    figure, (axis,) = plots.panels(4.4, 4.4 * min(1.5, max(0.4, queries / keys)) + 0.4, 1)
    axis.imshow(mask.numpy(), vmin=0, vmax=1.4)
    plots.frame_image(axis)
    if tokens is not None:
        _name_cells(axis, tokens, tokens)
    axis.set(xlabel="key", ylabel="query")
    axis.set_title(f"{title}\n{int(mask.sum()):,} of {mask.numel():,} pairs are allowed (dark)")
    show_figure(figure, f"{title}, {int(mask.sum()):,} of {mask.numel():,} pairs allowed")


def show_source(thing) -> None:
    """The source of a function or class of the package, without its docstrings."""
    code = source_without_docstrings(thing)
    place = f"{thing.__module__}.{thing.__qualname__}"
    _display({"text/markdown": f"`{place}`\n```python\n{code}\n```", "text/plain": f"# {place}\n{code}"})


def source_without_docstrings(thing) -> str:
    """The source of a function or class with its docstrings, and the docstrings of what it holds, left out."""
    source = textwrap.dedent(inspect.getsource(thing))
    lines = source.splitlines()
    drop = set()
    for node in ast.walk(ast.parse(source)):
        is_documented = isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None
        if is_documented and len(node.body) > 1:
            drop.update(range(node.body[0].lineno - 1, node.body[0].end_lineno))
    kept = [line for number, line in enumerate(lines) if number not in drop]
    # Where a docstring stood, an empty line may follow the head directly.
    tidy = [line for i, line in enumerate(kept) if line or (i > 0 and kept[i - 1] and not kept[i - 1].endswith(":"))]
    return "\n".join(tidy)


def show_table(rows: Sequence[Sequence], columns: Sequence[str]) -> None:
    """A table. Whole numbers get thousands separators, others four digits; write them as text for another form."""
    for row in rows:
        if len(row) != len(columns):
            raise InputError(f"a row has {len(row)} cells and the table {len(columns)} columns: {row}")
    cells = [[_cell(value) for value in row] for row in rows]
    right = [all(_is_number(row[i]) or row[i] is None for row in rows) for i in range(len(columns))]
    _display({"text/markdown": _markdown(cells, columns, right), "text/plain": _plain(cells, columns, right)})


def _cell(value) -> str:
    if value is None:
        return "-"
    if not _is_number(value):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _markdown(cells, columns, right) -> str:
    rule = ["---:" if is_right else "---" for is_right in right]
    escaped = [[text.replace("|", "\\|") for text in row] for row in [columns, *cells]]
    return "\n".join("| " + " | ".join(row) + " |" for row in [escaped[0], rule, *escaped[1:]])


def _plain(cells, columns, right) -> str:
    widths = [max(len(row[i]) for row in [columns, *cells]) for i in range(len(columns))]
    lines = [
        "  ".join(t.rjust(w) if r else t.ljust(w) for t, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in [columns, *cells]
    ]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]])


def _name_cells(axis, rows: Sequence[str], columns: Sequence[str]) -> None:
    axis.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(rows)), rows)


def _write_values(axis, values: Tensor, darkest: float) -> None:
    """Each weight as a number in its cell, so that nothing hangs on telling greys apart."""
    if values.numel() > 64:
        return
    for row, line in enumerate(values.tolist()):
        for column, value in enumerate(line):
            color = "white" if value > 0.5 * darkest else "black"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=color)


def _display(bundle: dict[str, str]) -> None:
    from IPython.display import display

    display(bundle, raw=True)
