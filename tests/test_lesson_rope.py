"""What lesson 04 measures: its formulas against brute force, its gaps against their text, its figures from records."""

import math

import pytest
import torch

from modernbert_edu.attention import attention
from modernbert_edu.classroom.scale import get_scale
from modernbert_edu.config import EncoderConfig
from modernbert_edu.data.prepared import prepare
from modernbert_edu.lessons import rope as lesson
from modernbert_edu.model import MaskedLM
from modernbert_edu.rope import apply_rope, rotary_tables

SIZES = get_scale("quick").rope


@pytest.fixture(scope="module")
def data():
    return prepare(SIZES)


@pytest.mark.parametrize("theta", [100.0, 10_000.0])
def test_the_expected_score_is_the_mean_over_random_equal_vectors(theta):
    K, distances = 16, torch.tensor([0, 1, 7, 50])
    x = torch.randn(20_000, K, generator=torch.Generator().manual_seed(0))
    found = []
    for d in distances.tolist():
        here = apply_rope(x[:, None], *rotary_tables(torch.full((len(x),), 3), theta, K))
        there = apply_rope(x[:, None], *rotary_tables(torch.full((len(x),), 3 + d), theta, K))
        found.append((here * there).sum().item() / x.pow(2).sum().item())
    want = lesson.expected_score(distances, theta, K)
    torch.testing.assert_close(torch.tensor(found), want, atol=0.01, rtol=0)
    assert want[0] == 1


def test_no_score_exceeds_the_bound():
    """RoFormer's bound is the largest change between neighbouring pairs' products times the mean |S_j|, times K/2."""
    K, theta = 16, 10_000.0
    generator = torch.Generator().manual_seed(0)
    for d in (0, 1, 5, 60, 900):
        bound = lesson.score_bound(torch.tensor([d]), theta, K).item() * (K // 2 + 1) / 2 * (K // 2)
        q, k = torch.randn(2, 200, 1, K, generator=generator).unbind()
        turned = apply_rope(k, *rotary_tables(torch.full((200,), d), theta, K))
        score = (q * turned).sum(-1).abs().flatten()
        h = torch.complex(*q[:, 0].chunk(2, -1)) * torch.complex(*k[:, 0].chunk(2, -1)).conj()
        steps = torch.cat([h, torch.zeros(200, 1)], dim=1).diff(dim=1).abs().amax(dim=1)
        assert (score <= steps * bound * 1.001).all()


def test_float32_angles_hold_at_8192_and_bfloat16_angles_do_not():
    fine, coarse = (
        lesson.rounding_errors(dtype, [3, 8000], 160_000.0, 64, reach=64) for dtype in (torch.float32, torch.bfloat16)
    )
    assert max(fine) < 1e-3
    assert coarse[1] > 0.1 > fine[1]


def test_the_same_tokens_are_hidden_at_every_length(data):
    gaps = lesson.gaps_at_lengths(data, SIZES)
    room = SIZES.sequence_length - 2
    assert list(gaps) == [factor * room + 2 for factor in SIZES.length_factors]
    answers = [torch.cat([labels[labels != -100] for _, labels in batches]) for batches in gaps.values()]
    bodies = [torch.cat([ids[:, 1:-1].flatten() for ids, _ in batches]) for batches in gaps.values()]
    for answer, body in zip(answers, bodies, strict=True):
        assert torch.equal(answer, answers[0]) and torch.equal(body, bodies[0])
    for n, batches in gaps.items():
        for ids, _ in batches:
            assert ids.shape[1] == n
            assert (ids[:, 0] == data.tokenizer.cls_id).all() and (ids[:, -1] == data.tokenizer.sep_id).all()


def test_losses_at_lengths_average_to_the_models_own_loss(data):
    variant = lesson.variants(SIZES, data.tokenizer)["bert"][1]
    torch.manual_seed(0)
    model = MaskedLM(variant.config).eval()
    gaps = lesson.gaps_at_lengths(data, SIZES)
    records = lesson.losses_at_lengths({variant.name: model}, gaps, SIZES)
    shortest = min(gaps)
    sums = [
        (model(ids, labels=labels).loss.item() * (labels != -100).sum().item(), (labels != -100).sum().item())
        for ids, labels in gaps[shortest]
    ]
    want = sum(a for a, _ in sums) / sum(n for _, n in sums)
    found = next(r for r in records if r["what"] == "loss_at_length" and r["length"] == shortest)
    assert math.isclose(found["value"], want, rel_tol=1e-4)
    added = [r for r in records if r["what"] == "added_loss"]
    assert len(added) == max(SIZES.length_factors)
    assert [r["position"] for r in added] == sorted(r["position"] for r in added)


def test_the_variants_differ_in_positions_and_have_equally_many_parameters(data):
    for end, (base, other) in lesson.variants(SIZES, data.tokenizer).items():
        assert {base.config.positions, other.config.positions} == {"learned", "rope"}
        here, there = base.config.num_parameters(), other.config.num_parameters()
        assert abs(here - there) <= 0.005 * here, end
        assert set(base.config.differences(other.config)) <= {
            "positions", "max_position_embeddings", "intermediate_size"}  # fmt: skip
        assert {base.name, other.name} <= set(SIZES.rate_of)


def test_the_share_of_the_rotation_is_a_count_of_products_and_sums():
    config = EncoderConfig.preset("bert-base")
    assert lesson.rotation_share_of_flops(config) == 1 / (4 * 768)  # 6 D / 24 D^2


def test_scores_by_distance_are_those_of_attention():
    """With one head, q and k unscaled: softmax of the scores is what attention computes from the turned vectors."""
    torch.manual_seed(0)
    q, k = torch.randn(2, 8).double().unbind()
    scores = lesson.scores_by_distance(q, k, 100.0, 3)
    from modernbert_edu.unpadding import Layout

    layout = Layout.from_lengths([7])
    tables = rotary_tables(layout.position_ids, 100.0, 8)
    queries, keys = (apply_rope(x.expand(7, 1, 8), *tables) for x in (q, k))
    values = torch.eye(7).double()[:, None]
    values = torch.cat([values, torch.zeros(7, 1, 1).double()], dim=-1)
    weights = attention(queries, keys, values, layout, backend="eager", scale=1.0)[3, 0, :7]
    torch.testing.assert_close(weights, torch.tensor(scores).double().softmax(0), atol=1e-5, rtol=1e-5)


def test_figures_are_drawn_from_records():
    facts = dict(device="cpu (a test)", torch="2", dtype="float32", backend="sdpa")
    records = lesson.decay_records([10_000.0, 160_000.0], 64, 4096)
    for model in (lesson.LEARNED, lesson.ROTARY):
        for length, loss in ((64, 4.0), (126, 4.2), (250, 4.5)):
            shared = dict(model=model, length=length, unit="nats", trained_length=64)
            records.append(dict(what="loss_at_length", value=loss) | shared)
            records.append(dict(what="added_loss", value=loss - 4, position=length, spread=0.1) | shared)
            cost = dict(model=model, length=length)
            records.append(dict(what="forward_tokens_per_second", value=1e4, spread=10, unit="tokens/s") | cost)
            records.append(dict(what="train_memory_bytes", value=2**24, unit="bytes") | cost)
    records.append(dict(what="unigram_entropy", value=5.0, unit="nats", model="unigram"))
    for draw in lesson.FIGURES.values():
        figure = draw([facts | record for record in records])
        assert len(figure.axes) == 2
        for ax in figure.axes:
            assert ax.get_xlabel() and ax.get_ylabel() and ax.lines
    q, k = torch.randn(2, 8).unbind()
    figure = lesson.plot_turning(q, k, 100.0, 20, position=3, distance=5)
    assert len(figure.axes) == 5
