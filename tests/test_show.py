import base64
import io

import pytest
import torch

from modernbert_edu import norms
from modernbert_edu.classroom import show
from modernbert_edu.errors import InputError
from modernbert_edu.model import Block


@pytest.fixture
def shown(monkeypatch):
    """What was displayed: a list of {MIME type: content}."""
    bundles = []
    monkeypatch.setattr(show, "_display", bundles.append)
    return bundles


def pixels(bundle):
    from matplotlib.image import imread

    return imread(io.BytesIO(base64.b64decode(bundle["image/png"])))


def test_attention_of_all_heads_is_drawn(shown):
    weights = torch.rand(2, 3, 3).softmax(-1)
    show.show_attention(weights.requires_grad_(), ["a", "b", "c"], "who looks")
    show.show_attention(torch.eye(3), ["a", "b", "c"], "one head")
    assert [bundle["text/plain"] for bundle in shown] == [
        "[figure: who looks, 2 x 3 x 3 weights]",
        "[figure: one head, 1 x 3 x 3 weights]",
    ]
    two, one = map(pixels, shown)
    assert two.shape[1] > 1.5 * one.shape[1]


def test_the_picture_depends_on_the_weights_and_is_the_same_when_drawn_again(shown):
    for weights in (torch.eye(3), torch.eye(3), torch.full((3, 3), 1 / 3)):
        show.show_attention(weights, ["a", "b", "c"], "t")
    first, again, other = (bundle["image/png"] for bundle in shown)
    assert first == again != other


def test_a_heavier_weight_is_darker_in_grey(shown):
    from matplotlib.figure import Figure

    axes = []
    subplots = Figure.subplots

    def remember(self, *args, **kwargs):
        axes.append(subplots(self, *args, **kwargs))
        return axes[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "subplots", remember)
        show.show_attention(torch.tensor([[0.1, 0.9], [0.5, 0.5]]), ["a", "b"], "t")
    image = axes[0][0][0].images[0]
    red, green, blue = (image.to_rgba(image.get_array())[..., i] for i in range(3))
    assert (red == green).all() and (green == blue).all()
    assert red[0, 1] < red[1, 0] < red[0, 0]
    assert image.norm.vmax == 0.9  # the whole range of greys is used


@pytest.mark.parametrize("weights", [torch.ones(3, 3), torch.ones(2, 2, 3), torch.ones(1, 1, 2, 2)])
def test_weights_that_do_not_fit_the_tokens_are_refused(weights, shown):
    with pytest.raises(InputError, match="do not fit 2 tokens"):
        show.show_attention(weights, ["a", "b"], "t")
    assert shown == []


def test_a_mask_says_how_many_pairs_it_allows(shown):
    show.show_mask(torch.eye(4, dtype=torch.bool), "only itself", tokens=list("abcd"))
    assert shown[0]["text/plain"] == "[figure: only itself, 4 of 16 pairs allowed]"
    assert pixels(shown[0]).std() > 0
    with pytest.raises(InputError, match="boolean with two axes, not torch.float32"):
        show.show_mask(torch.eye(4), "floats")


def test_source_is_shown_without_docstrings_and_still_compiles(shown):
    show.show_source(norms.layer_norm_reference)
    plain = shown[0]["text/plain"]
    assert plain.splitlines()[:2] == [
        "# modernbert_edu.norms.layer_norm_reference",
        "def layer_norm_reference(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:",
    ]
    assert '"""' not in plain and "# the biased one" in plain
    assert shown[0]["text/markdown"].startswith("`modernbert_edu.norms.layer_norm_reference`\n```python\ndef ")


def test_a_class_keeps_its_methods_and_comments():
    source = show.source_without_docstrings(Block)
    compile(source, "block", "exec")
    assert source.startswith("class Block(nn.Module):\n    def __init__")
    assert '"""' not in source and "def forward" in source and "# With pre-norm" in source
    assert "\n\n\n" not in source


def only_a_docstring():
    """Nothing else."""


def test_a_body_that_is_only_a_docstring_stays():
    assert '"""Nothing else."""' in show.source_without_docstrings(only_a_docstring)


def test_a_table_is_markdown_and_aligned_text(shown):
    show.show_table([("a|b", 1234567, 0.000123456, None), ("c", 1, 2.5, True)], ["name", "n", "x", "flag"])
    assert shown[0]["text/plain"].splitlines() == [
        "name          n          x  flag",
        "--------------------------------",
        "a|b   1,234,567  0.0001235  -",
        "c             1        2.5  True",
    ]
    assert shown[0]["text/markdown"].splitlines() == [
        "| name | n | x | flag |",
        "| --- | ---: | ---: | --- |",
        "| a\\|b | 1,234,567 | 0.0001235 | - |",
        "| c | 1 | 2.5 | True |",
    ]


def test_a_row_of_the_wrong_width_is_refused(shown):
    with pytest.raises(InputError, match="a row has 1 cells and the table 2 columns"):
        show.show_table([("a",)], ["name", "n"])


def test_figures_reach_the_notebook_without_pyplot():
    script = (
        "import sys\n"
        "from matplotlib.figure import Figure\n"
        "from modernbert_edu.classroom import show\n"
        "import IPython.display\n"
        "seen = []\n"
        "IPython.display.display = lambda bundle, raw: seen.append(bundle)\n"
        "figure = Figure(); figure.subplots().plot([1, 2])\n"
        "show.show_figure(figure, 'a line')\n"
        "assert seen[0]['text/plain'] == '[figure: a line]' and 'matplotlib.pyplot' not in sys.modules\n"
    )
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
