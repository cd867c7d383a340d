"""The checks themselves; that solutions pass and planted mistakes fail is tested per lesson in test_notebooks.py."""

import math

import pytest
import torch
import torch.nn.functional as F

from modernbert_edu.classroom import checks
from modernbert_edu.classroom.checks import NotYet, check, compare
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
    assert checks.check_attend(lambda q, k, v, m: F.scaled_dot_product_attention(q[None], k[None], v[None], m)[0])


def test_an_answer_that_changes_its_arguments_in_place_is_judged_by_what_it_returns():
    def in_place(x_SD, sublayer, weight_D, bias_D, eps):
        x_SD += sublayer(x_SD.clone())
        return F.layer_norm(x_SD, weight_D.shape, weight_D, bias_D, eps)

    assert checks.check_post_norm(in_place)


def test_decoding_every_token_gives_the_right_loss_too():
    def all_tokens(hidden_TD, embedding_VD, bias_V, labels_T):
        log_probabilities = (hidden_TD @ embedding_VD.T + bias_V).log_softmax(-1)
        picked = log_probabilities.gather(1, labels_T.clamp(min=0)[:, None]).squeeze(1)
        return -picked[labels_T >= 0].sum() / (labels_T >= 0).sum()

    assert checks.check_mlm_loss(all_tokens)
    assert not checks.check_mlm_loss(lambda *inputs: all_tokens(*inputs) * math.e)


def test_the_packages_own_count_of_pairs_passes():
    assert checks.check_score_pairs(lambda n, window: n * n if window is None else pairs_in_window(n, window))


def test_the_packages_own_layout_passes():
    def layout(lengths):
        made = Layout.from_lengths(lengths)
        return made.cu_seqlens, made.position_ids

    assert checks.check_flat_axis(layout)  # int32 and int64, as kernels want them


def test_numbers_may_come_as_tensors():
    assert checks.check_batch_report(lambda real, seconds: ((~real).float().mean(), real.sum() / seconds))
