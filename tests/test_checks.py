"""The checks themselves; that solutions pass and planted mistakes fail is tested per lesson in test_notebooks.py."""

import html
import math
import re

import pytest
import torch
import torch.nn.functional as F

from modernbert_edu.classroom import checks
from modernbert_edu.classroom.checks import machinery
from modernbert_edu.classroom.checks.machinery import LOOKS, NotYet, check, compare
from modernbert_edu.measure.flops import pairs_in_window
from modernbert_edu.unpadding import Layout


@check
def check_double(fn):
    x = torch.randn(3)
    compare(fn(x.clone()), 2 * x, "with 3 numbers", {"that is the square": x * x})
    return "doubles on 1 input"


def test_a_right_answer_passes_and_says_how(capsys):
    def double(x):
        return x + x

    assert check_double(double) is True
    assert capsys.readouterr().out == "passed: double doubles on 1 input\n"


def raising(error):
    def double(x):
        raise error

    return double


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (lambda x: x * x, "not yet: with 3 numbers: that is the square"),
        (lambda x: None, "not yet: your function returned None; does it end with a return?"),
        (lambda x: 2 * x[:2], "not yet: with 3 numbers: expected the shape (3,), got (2,)"),
        (lambda x: [1, 2], "not yet: with 3 numbers: expected a tensor, got list [1, 2]"),
        (lambda x: 2 * x / 0, "not yet: with 3 numbers: 3 of 3 numbers are nan or infinite"),
        (raising(TypeError("no\nway")), "not yet: your function raised TypeError: no"),
        (raising(IndexError()), "not yet: your function raised IndexError: no message"),
        (raising(NotImplementedError()), "to do: fill in double, then run this cell again"),
        (7, "not yet: give the function itself, not int 7"),
    ],
)
def test_whatever_a_learner_wrote_gives_one_line_and_false(answer, line, capsys):
    assert check_double(answer) is False
    out, err = capsys.readouterr()
    assert out.startswith(line) and out.count("\n") == 1 and err == ""


@pytest.mark.parametrize(
    ("answer", "verdict", "right"),
    [
        (lambda x: 2 * x, "passed", True),
        (lambda x: x * x, "not yet", False),
        (raising(ValueError("<b>a < b & c</b>")), "not yet", False),
        (raising(NotImplementedError()), "to do", False),
    ],
)
def test_a_notebook_shows_the_same_words_in_colour(answer, verdict, right, monkeypatch, capsys):
    import IPython.display

    check_double(answer)
    printed, bundles = capsys.readouterr().out.rstrip("\n"), []
    monkeypatch.setattr(machinery, "in_notebook", lambda: True)
    monkeypatch.setattr(IPython.display, "display", lambda bundle, raw: bundles.append(bundle))
    assert check_double(answer) is right and capsys.readouterr().out == ""
    (bundle,) = bundles
    assert bundle["text/plain"] == printed
    sign, ground, _ = LOOKS[verdict]
    assert html.unescape(re.sub("<[^>]*>", "", bundle["text/html"])) == f"{html.unescape(sign)} {printed}"
    assert re.search(f'<b style="background-color: {ground}[^>]*>{sign} {verdict}</b>', bundle["text/html"])


def luminance(colour):
    """Relative luminance by WCAG 2: 0 black, 1 white."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("verdict", LOOKS)
def test_a_verdict_can_be_read_and_does_not_hang_on_its_colour(verdict):
    sign, ground, ink = LOOKS[verdict]
    low, high = sorted([luminance(ground), luminance(ink)])
    assert (high + 0.05) / (low + 0.05) >= 4.5
    assert [other[0] for other in LOOKS.values()].count(sign) == 1


def test_an_unknown_mistake_is_located(capsys):
    def off_by_three_at_the_end(x):
        return 2 * x + torch.tensor([0.0, 0.0, 3.0])

    torch.manual_seed(0)
    last = 2 * torch.randn(3)[2].item()
    check_double(off_by_three_at_the_end)
    assert f"at [2] expected {last:.4f}, got {last + 3:.4f}" in capsys.readouterr().out


def test_an_interrupt_still_stops_the_cell():
    with pytest.raises(KeyboardInterrupt):
        check_double(raising(KeyboardInterrupt()))


def test_a_check_is_repeatable_and_leaves_the_lessons_random_numbers_alone(capsys):
    seen = []

    def double(x):
        seen.append(x)
        return 2 * x

    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    check_double(double), check_double(double)
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(seen[0], seen[1])


def test_numbers_are_compared_exactly():
    compare(12, 12, "count")
    compare(torch.tensor(12), 12, "count")
    with pytest.raises(NotYet, match="count: expected 1,200, got int 1199"):
        compare(1199, 1200, "count")
    with pytest.raises(NotYet, match="count: the bias is missing"):
        compare(1100, 1200, "count", {"the bias is missing": 1100})


def test_the_tolerance_is_for_rounding_only():
    compare(torch.tensor([1.000001]), torch.tensor([1.0]), "x")
    compare(torch.tensor([1.0], dtype=torch.float64), torch.tensor([1.0]), "x")
    with pytest.raises(NotYet):
        compare(torch.tensor([1.0001]), torch.tensor([1.0]), "x")


def test_the_loops_define_the_attention_that_torch_computes():
    q, k, v = torch.randn(3, 5, 8).unbind()
    mask = torch.tensor([True, True, False, True, False])
    expected = F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask)[0]
    torch.testing.assert_close(checks.attend_by_loops(q, k, v, mask), expected)


def test_attention_may_be_answered_with_torchs_kernel():
    def fused(q_BSD, k_BSD, v_BSD, key_mask_BS, H):
        q, k, v = (x.unflatten(-1, (H, -1)).transpose(1, 2) for x in (q_BSD, k_BSD, v_BSD))
        return F.scaled_dot_product_attention(q, k, v, key_mask_BS[:, None, None]).transpose(1, 2).flatten(2)

    assert checks.check_attend(fused)


def test_an_answer_that_changes_its_arguments_in_place_is_judged_by_what_it_returns():
    def in_place(x_SD, sublayer, weight_D, bias_D, eps):
        x_SD += sublayer(x_SD.clone())
        x_SD -= x_SD.mean(-1, keepdim=True)
        x_SD /= (x_SD.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        return x_SD * weight_D + bias_D

    assert checks.check_post_norm(in_place)


def by_hand(hidden_TD, embedding_VD, bias_V, labels_T):
    chosen_T = labels_T >= 0
    logits_MV = torch.einsum("md,vd->mv", hidden_TD[chosen_T], embedding_VD) + bias_V
    return logits_MV.logsumexp(-1).sub(logits_MV.gather(1, labels_T[chosen_T][:, None]).squeeze(1)).mean()


def test_the_loss_may_be_spelled_out():
    assert checks.check_mlm_loss(by_hand)
    assert not checks.check_mlm_loss(lambda *inputs: by_hand(*inputs) * math.e)


def test_decoding_every_token_is_noticed_however_the_rest_is_written(capsys):
    def all_tokens(hidden_TD, embedding_VD, bias_V, labels_T):
        log_probabilities = (hidden_TD @ embedding_VD.T + bias_V).log_softmax(-1)
        picked = log_probabilities.gather(1, labels_T.clamp(min=0)[:, None]).squeeze(1)
        return -picked[labels_T >= 0].sum() / (labels_T >= 0).sum()

    assert not checks.check_mlm_loss(all_tokens)
    assert "unmasked tokens were decoded too" in capsys.readouterr().out


def test_the_packages_own_count_of_pairs_passes():
    assert checks.check_score_pairs(lambda n, window: n * n if window is None else pairs_in_window(n, window))


def test_the_packages_own_layout_passes():
    def layout(lengths):
        made = Layout.from_lengths(lengths)
        return made.cu_seqlens, made.position_ids

    assert checks.check_flat_axis(layout)  # int32 and int64, as kernels want them


def test_numbers_may_come_as_tensors():
    assert checks.check_batch_report(lambda real, seconds: ((~real).float().mean(), real.sum() / seconds))


def test_counting_the_pairs_in_a_loop_passes():
    def by_loop(n, window):
        reach = n if window is None else window
        return sum(min(n, query + reach + 1) - max(0, query - reach) for query in range(n))

    assert checks.check_score_pairs(by_loop)
    assert not checks.check_score_pairs(lambda n, window: float(by_loop(n, window)))


def test_places_on_the_flat_axis_are_whole_numbers(capsys):
    def floats(lengths):
        made = Layout.from_lengths(lengths)
        return made.cu_seqlens, made.position_ids.float()

    assert not checks.check_flat_axis(floats)
    assert "position_ids: the numbers are right, but torch.float32" in capsys.readouterr().out
