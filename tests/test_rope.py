"""RoPE: a rotation, of the right angle, that leaves only the distance in the score."""

import cmath
import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert_edu.rope import apply_rope, rotary_angles, rotary_tables


def test_equals_complex_multiplication():
    """Pair (x[i], x[i + K/2]) is the complex number that is multiplied by exp(i * position * theta ** (-2i/K))."""
    K, theta, positions = 8, 10_000.0, torch.tensor([0, 1, 7, 1000])
    x = torch.randn(4, 2, K, dtype=torch.float64)
    turned = apply_rope(x, *rotary_tables(positions, theta, K))
    for t, position in enumerate(positions.tolist()):
        for h in range(2):
            for i in range(K // 2):
                z = complex(x[t, h, i], x[t, h, i + K // 2]) * cmath.exp(1j * position * theta ** (-2 * i / K))
                assert math.isclose(turned[t, h, i], z.real, abs_tol=1e-4)
                assert math.isclose(turned[t, h, i + K // 2], z.imag, abs_tol=1e-4)


@settings(max_examples=50, deadline=None)
@given(
    a=st.integers(0, 2000), distance=st.integers(-500, 500), shift=st.integers(0, 2000),
    theta=st.sampled_from([10_000.0, 160_000.0]),
)  # fmt: skip
def test_score_depends_on_the_distance_only(a, distance, shift, theta):
    a = a + 500
    q, k = torch.randn(2, 1, 1, 16, generator=torch.Generator().manual_seed(a), dtype=torch.float64)

    def score(at, to):
        # In float64 from the start, so that the identity is tested and not the rounding of large angles.
        exponents = torch.arange(0, 16, 2, dtype=torch.float64) / 16
        angles = torch.tensor([[at], [to]], dtype=torch.float64) * theta**-exponents
        turned = [apply_rope(x, angles[i : i + 1].cos(), angles[i : i + 1].sin()) for i, x in enumerate((q, k))]
        return (turned[0] * turned[1]).sum()

    assert torch.isclose(score(a, a + distance), score(a + shift, a + shift + distance), atol=1e-9)


def test_norms_are_kept_and_position_0_is_not_turned():
    x = torch.randn(5, 3, 32)
    turned = apply_rope(x, *rotary_tables(torch.arange(5), 10_000.0, 32))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[0], x[0])


def test_angles():
    angles = rotary_angles(torch.tensor([0, 1, 2]), 10_000.0, 4)
    torch.testing.assert_close(angles, torch.tensor([[0, 0], [1, 0.01], [2, 0.02]]))


def test_half_precision_is_rounded_once():
    x = torch.randn(64, 2, 16)
    tables = rotary_tables(torch.arange(64) + 8000, 160_000.0, 16)
    half = apply_rope(x.bfloat16(), *tables)
    exact = apply_rope(x.bfloat16().float(), *tables)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, exact.bfloat16())
