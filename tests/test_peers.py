"""The peers: their published shapes, weights shared and equal, and torch's kernels behind transformers' interface."""

import sys

import pytest
import torch

from modernbert_edu import EncoderConfig, InputError, Layout
from modernbert_edu.attention import eager
from modernbert_edu.measure import peers


@pytest.fixture(scope="module")
def theirs():
    return peers.build_peer("modernbert", "tiny")


def batch(lengths):
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    generator = torch.Generator().manual_seed(0)
    return torch.randint(5, 4096, mask.shape, generator=generator) * mask, mask


# Parameters of the published checkpoints with their masked-LM heads, in millions.
@pytest.mark.parametrize(
    ("name", "base", "large"),
    [("bert", 109.5, 335.2), ("roberta", 124.7, 355.4), ("deberta", 184.6, 435.2), ("modernbert", 149.7, 395.9)],
)
def test_the_sizes_are_the_published_ones(name, base, large):
    with torch.device("meta"):
        for size, millions in (("base", base), ("large", large)):
            model = peers.build_peer(name, size)
            assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("name", list(peers.PEERS))
def test_every_peer_runs_and_its_weights_come_from_the_seed(name):
    model, same, other = (peers.build_peer(name, "tiny", seed) for seed in (3, 3, 4))
    input_ids, mask = batch([40, 17])
    with torch.inference_mode():
        out = model(input_ids, mask, labels=input_ids)
        assert torch.isfinite(out.loss) and out.logits.shape == (2, 40, 4096)
        assert torch.equal(out.logits, same(input_ids, mask).logits)
        assert not torch.equal(out.logits, other(input_ids, mask).logits)
    dropouts = [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    assert not model.training and not any(dropouts)


def test_deberta_has_version_3s_relative_positions_and_no_others():
    model = peers.build_peer("deberta", "tiny")
    encoder = model.deberta.encoder
    assert encoder.rel_embeddings.weight.shape == (512, 128)  # 256 buckets on each side
    assert model.deberta.embeddings.position_embeddings is None
    attention = encoder.layer[0].attention.self
    assert attention.share_att_key and set(attention.pos_att_type) == {"c2p", "p2c"}


def test_ours_has_the_same_weights(theirs):
    ours = peers.ours_like(theirs)
    input_ids, mask = batch([200, 17, 130])
    real = mask.bool()
    with torch.inference_mode():
        expected = theirs.base_model(input_ids, mask).last_hidden_state[real]
        for model in (ours, peers.ours_as(ours, "eager"), peers.ours_as(ours, "sdpa")):
            got = model.encoder(input_ids, mask).last_hidden_state[real]
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


def test_copies_share_every_parameter_and_nothing_else(theirs):
    ours = peers.ours_like(theirs)
    for original, other in ((ours, peers.ours_as(ours, "eager", 128)), (theirs, peers.at_its_best(theirs, False))):
        pairs = zip(original.parameters(), other.parameters(), strict=True)
        assert original is not other and all(a is b for a, b in pairs)
    assert ours.encoder.backend == "auto" and ours.encoder.compiled is None
    assert peers.ours_as(ours, "eager").encoder.backend == "eager"
    assert not theirs.config.sparse_prediction and not theirs.sparse_prediction


def test_at_its_best_computes_the_same_loss_from_fewer_logits(theirs):
    input_ids, mask = batch([60, 30])
    labels = torch.where((torch.arange(60) % 3 == 0) & mask.bool(), input_ids, -100)
    with torch.inference_mode():
        plain, best = theirs(input_ids, mask, labels=labels), peers.at_its_best(theirs, False)(
            input_ids, mask, labels=labels
        )  # fmt: skip
    torch.testing.assert_close(best.loss, plain.loss)
    assert plain.logits.shape[:2] == (2, 60) and best.logits.shape == (int((labels != -100).sum()), 4096)


# ---- in our training loop --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(peers.PEERS))
def test_in_our_loop_a_peer_has_its_own_loss_from_masked_tokens_only(name):
    model = peers.build_peer(name, "tiny")
    wrapped = peers.PeerLM(model)
    input_ids, mask = batch([40, 17])
    labels = torch.where((torch.arange(40) % 3 == 0) & mask.bool(), input_ids, -100)
    with torch.inference_mode():
        plain, out = model(input_ids, mask, labels=labels), wrapped(input_ids, mask, labels=labels)
        torch.testing.assert_close(out.loss, plain.loss)
        torch.testing.assert_close(out.masked_logits, plain.logits[labels != -100], atol=1e-4, rtol=1e-4)
        assert wrapped(input_ids, mask).loss is None
    assert sum(p.numel() for p in wrapped.parameters()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("preset", ["bert-tiny", "bert-small", "bert-base"])
def test_a_deberta_like_a_bert_is_equally_large(preset):
    bert = EncoderConfig.preset(preset, vocab_size=1024)
    with torch.device("meta"):
        model = peers.deberta_like(bert)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(bert.num_parameters(), rel=0.02)


def test_a_deberta_trains_in_our_loop_and_its_weights_come_from_the_seed():
    bert = EncoderConfig.preset("bert-tiny", vocab_size=128)
    model, same, other = (peers.deberta_like(bert, seed) for seed in (1, 1, 2))
    first, second, third = (m.peer.deberta.embeddings.word_embeddings.weight for m in (model, same, other))
    assert torch.equal(first, second) and not torch.equal(first, third)
    input_ids = torch.randint(5, 128, (2, 30))
    loss = model(input_ids, torch.ones_like(input_ids), input_ids).loss
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


# ---- torch_varlen ----------------------------------------------------------------------------------------------------


@pytest.fixture
def seen(monkeypatch):
    """Stands in for the CUDA kernel: checks each argument, computes the definition."""
    from torch.nn.attention import varlen as module

    calls = []

    # The signature common to torch 2.11 and 2.13.
    def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None,
                    window_size=(-1, -1)):  # fmt: skip
        assert query.shape == key.shape == value.shape and query.dim() == 3
        assert query.dtype == key.dtype == value.dtype
        assert query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32 and torch.equal(cu_seq_q, cu_seq_k)
        assert cu_seq_q[0] == 0 and cu_seq_q[-1] == query.shape[0]
        assert isinstance(max_q, int) and max_q == max_k == int(cu_seq_q.diff().max())
        assert isinstance(window_size, tuple) and window_size[0] == window_size[1]
        calls.append((query.shape[0], query.dtype, window_size[0]))
        layout = Layout.from_lengths(cu_seq_q.diff().tolist())
        window = None if window_size[0] == -1 else window_size[0]
        return eager(query, key, value, layout, window, scale, 0.0)

    monkeypatch.setattr(module, "varlen_attn", varlen_attn)
    return calls


@pytest.mark.parametrize("lengths", [(200, 70, 131), (150, 150), (40, 64, 65), (66, 3)])
def test_torch_varlen_equals_sdpa_on_real_tokens(lengths, theirs, seen):
    best = peers.at_its_best(theirs, varlen=True)
    input_ids, mask = batch(lengths)
    with torch.inference_mode():
        expected = theirs.base_model(input_ids, mask).last_hidden_state[mask.bool()]
        got = best.base_model(input_ids, mask).last_hidden_state[mask.bool()]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    local = 64 if max(lengths) > 65 else -1  # up to 65 tokens, the window reaches over everything
    assert [window for *_, window in seen] == [-1, local, local, -1]
    assert {tokens for tokens, *_ in seen} == {sum(lengths)}, "pads reached the kernel"


def test_torch_varlen_has_sdpas_gradients(theirs, seen):
    input_ids, mask = batch((100, 70))
    labels = torch.where(mask.bool(), input_ids, -100)
    gradients = []
    for model in (theirs, peers.at_its_best(theirs, varlen=True)):
        model.zero_grad()
        model(input_ids, mask, labels=labels).loss.backward()
        gradients.append([p.grad.clone() for p in theirs.parameters()])
    theirs.zero_grad()
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_under_autocast_the_rotated_queries_are_cast_back(theirs, seen):
    input_ids, mask = batch((100, 70))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        peers.at_its_best(theirs, varlen=True).base_model(input_ids, mask)
    assert {dtype for _, dtype, _ in seen} == {torch.bfloat16}


def test_registering_twice_changes_nothing(theirs):
    import transformers

    for _ in range(2):
        peers.register_varlen()
        assert transformers.AttentionInterface()["torch_varlen"] is peers.padded_varlen
    assert peers.at_its_best(theirs, False).config._attn_implementation == "sdpa"


def test_varlen_refuses_dropout():
    q = torch.zeros(1, 2, 4, 8)
    with pytest.raises(InputError, match="dropout"):
        peers.padded_varlen(None, q, q, q, None, dropout=0.1)


def test_bad_input(monkeypatch):
    with pytest.raises(InputError, match="huge.*base, large, tiny"):
        peers.build_peer("bert", "huge")
    with pytest.raises(InputError, match="gpt2.*deberta"):
        peers.build_peer("gpt2")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match="pip install transformers"):
        peers.build_peer("bert", "tiny")
