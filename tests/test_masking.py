"""The statistics of masking, exactly."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert_edu.data.masking import IGNORED, MaskingSpec, mask_tokens
from modernbert_edu.errors import InputError

# ids 0..4 special (4 is the mask), 5..99 ordinary, 100..109 unused. Tokens of a text are 5..89, so that a random
# replacement in 90..99 shows itself.
SPEC = MaskingSpec(mask_id=4, special_ids=frozenset(range(5)), ordinary_ids=torch.arange(5, 100))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def text(*shape, seed=0):
    return torch.randint(5, 90, shape, generator=seeded(seed))


def shares(ids, spec=SPEC, **options):
    """How many tokens were chosen, masked, replaced by another, or left as they were."""
    masked, labels = mask_tokens(ids, spec, **options)
    chosen = labels != IGNORED
    is_mask = chosen & (masked == spec.mask_id)
    other = chosen & ~is_mask & (masked != labels)
    same = chosen & ~is_mask & (masked == labels)
    return [int(kind.sum()) for kind in (chosen, is_mask, other, same)]


def test_the_counts_are_exact():
    # Replacements from 90..99 alone: never equal to the token they replace, so they can be counted.
    spec = MaskingSpec(4, SPEC.special_ids, torch.arange(90, 100))
    for seed in range(5):
        assert shares(text(10_000), spec, generator=seeded(seed)) == [3000, 2400, 300, 300]
        assert shares(text(1_000), spec, rate=0.15, generator=seeded(seed)) == [150, 120, 15, 15]
        assert shares(text(8, 125), spec, generator=seeded(seed)) == [300, 240, 30, 30]


def test_a_cascade_of_draws_would_be_noticed():
    """10 % of the chosen and then 10 % of the rest, as a well-known lesson has it, gives 81/10/9: not our shares."""
    spec = MaskingSpec(4, SPEC.special_ids, torch.arange(90, 100))
    chosen, is_mask, other, same = shares(text(100_000), spec, rate=1.0, generator=seeded())
    assert (is_mask / chosen, other / chosen, same / chosen) == (0.8, 0.1, 0.1)


@settings(max_examples=200, deadline=None)
@given(
    shape=st.lists(st.integers(0, 12), min_size=1, max_size=3),
    rate=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**31),
)
def test_identities_for_any_shape_and_rate(shape, rate, seed):
    ids = torch.randint(0, 110, shape, generator=seeded(seed))  # with special and unused ids among them
    before = ids.clone()
    masked, labels = mask_tokens(ids, SPEC, rate=rate, generator=seeded(seed))
    assert torch.equal(ids, before)
    assert masked.shape == labels.shape == ids.shape and masked.dtype == labels.dtype == torch.int64
    chosen = labels != IGNORED
    n = int((ids >= 5).sum())
    assert int(chosen.sum()) == (max(1, round(rate * n)) if n else 0)
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(masked[~chosen], ids[~chosen])
    assert not (chosen & (ids < 5)).any()
    assert int((chosen & (masked == 4)).sum()) == round(0.8 * int(chosen.sum()))
    changed = chosen & (masked != 4) & (masked != ids)
    assert ((masked[changed] >= 5) & (masked[changed] < 100)).all()


def test_special_tokens_are_never_chosen_even_at_rate_one():
    ids = torch.tensor([[1, 50, 51, 52, 2, 3, 3], [1, 60, 2, 3, 3, 3, 3]])
    masked, labels = mask_tokens(ids, SPEC, rate=1.0, generator=seeded(), split=(1.0, 0.0, 0.0))
    assert masked.tolist() == [[1, 4, 4, 4, 2, 3, 3], [1, 4, 2, 3, 3, 3, 3]]
    assert labels.tolist() == [[-100, 50, 51, 52, -100, -100, -100], [-100, 60, -100, -100, -100, -100, -100]]


def test_nothing_to_mask_gives_no_labels():
    ids = torch.tensor([1, 2, 3, 3])
    masked, labels = mask_tokens(ids, SPEC)
    assert torch.equal(masked, ids) and (labels == IGNORED).all()


def test_every_position_is_chosen_equally_often():
    draws, generator = 4_000, seeded(1)
    ids = torch.tensor([1, *range(10, 30), 2])
    chosen = torch.zeros(22)
    for _ in range(draws):
        chosen += mask_tokens(ids, SPEC, generator=generator)[1] != IGNORED
    assert chosen[0] == chosen[-1] == 0
    deviation = (draws * 0.3 * 0.7) ** 0.5  # of a binomial count
    assert (chosen[1:-1] - draws * 0.3).abs().max() < 4.5 * deviation
    assert chosen.sum() == draws * 6


def test_random_tokens_are_uniform_over_the_ordinary_ids():
    masked, _ = mask_tokens(text(190_000), SPEC, rate=1.0, generator=seeded(2), split=(0.0, 1.0, 0.0))
    counts = torch.bincount(masked, minlength=110)
    assert counts[:5].sum() == 0 and counts[100:].sum() == 0
    assert (counts[5:100] - 2000).abs().max() < 4.5 * 2000**0.5


def test_a_seed_decides_everything():
    first, again, other = (mask_tokens(text(500), SPEC, generator=seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


def test_halves_never_make_one_too_many():
    assert shares(text(3), rate=1.0, split=(0.5, 0.5, 0.0), generator=seeded())[0] == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_masks_from_a_cpu_generator():
    on_cpu = mask_tokens(text(4, 100), SPEC, generator=seeded(5))
    on_gpu = mask_tokens(text(4, 100).cuda(), SPEC, generator=seeded(5))
    assert all(gpu.is_cuda and torch.equal(cpu, gpu.cpu()) for cpu, gpu in zip(on_cpu, on_gpu, strict=True))
    own = torch.Generator("cuda").manual_seed(5)
    assert shares(text(1_000).cuda(), generator=own)[0] == 300


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rate": 0.0}, "masking rate"),
        ({"rate": 1.5}, "masking rate"),
        ({"split": (0.8, 0.1, 0.2)}, "add up to 1"),
        ({"split": (1.2, -0.2, 0.0)}, "add up to 1"),
        ({"split": (0.9, 0.1)}, "three shares"),
    ],
)
def test_impossible_shares_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        mask_tokens(text(10), SPEC, **options)
    with pytest.raises(InputError, match="int64"):
        mask_tokens(text(10).float(), SPEC)
