"""Growing a model: tiling against loops, the published maps and examples, and where each weight came from."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parity import batch

from modernbert_edu import Encoder, EncoderConfig, InputError, MaskedLM, load, save, to_transformers
from modernbert_edu.data.tokenizer import train_bpe
from modernbert_edu.training import scale_up
from modernbert_edu.training.scale_up import depth_map, grow, grow_folder, inherited_types, matched_depth_map, tile

SMALL = EncoderConfig.preset(
    "modernbert-tiny", vocab_size=211, hidden_size=32, num_attention_heads=4, num_hidden_layers=4, intermediate_size=20
)
LARGE = SMALL.replace(hidden_size=48, num_attention_heads=6, num_hidden_layers=7, intermediate_size=34)
BERT = EncoderConfig.preset("bert-tiny", vocab_size=97, hidden_size=24, num_attention_heads=3, num_hidden_layers=2,
                            intermediate_size=30, max_position_embeddings=40)  # fmt: skip
LARGE_BERT = BERT.replace(hidden_size=40, num_attention_heads=5, num_hidden_layers=3, intermediate_size=44)
PUBLISHED = [EncoderConfig.preset(f"modernbert-{size}") for size in ("base", "large")]


def numbered(config, kind=MaskedLM):
    """A model in float64 every number of which is there only once, so that a copy tells where it came from."""
    model, start = kind(config).double(), 1.0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(start + torch.arange(parameter.numel(), dtype=torch.float64).view_as(parameter))
            start += parameter.numel()
    return model


# ---- tiling ----------------------------------------------------------------------------------------------------------


def test_the_papers_example():
    x = torch.tensor([[1, 2], [3, 4]])
    assert tile(x, (4, 4)).tolist() == [[4, 3, 4, 3], [2, 1, 2, 1], [4, 3, 4, 3], [2, 1, 2, 1]]
    assert tile(x, (4, 4), "edge").tolist() == [[1, 2, 1, 2], [3, 4, 3, 4], [1, 2, 1, 2], [3, 4, 3, 4]]
    assert tile(torch.tensor([1, 2, 3]), (6,)).tolist() == [3, 1, 2, 3, 1, 2]


def tile_by_loops(x, shape, method):
    """The definition: a copy at the offset, then each other place looks one period towards the copy."""
    rows, columns = x.shape
    top, left = ((shape[0] - rows) // 2, (shape[1] - columns) // 2) if method == "center" else (0, 0)
    out = torch.zeros(shape, dtype=x.dtype)
    for i in range(shape[0]):
        for j in range(shape[1]):
            source_i, source_j = i - top, j - left
            while source_i < 0:
                source_i += rows
            while source_i >= rows:
                source_i -= rows
            while source_j < 0:
                source_j += columns
            while source_j >= columns:
                source_j -= columns
            out[i, j] = x[source_i, source_j]
    return out


METHOD = st.sampled_from(["center", "edge"])


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 20), st.integers(0, 20), METHOD)
def test_tiling_agrees_with_loops(rows, columns, more_rows, more_columns, method):
    x = torch.randn(rows, columns, dtype=torch.float64)
    shape = (rows + more_rows, columns + more_columns)
    assert torch.equal(tile(x, shape, method), tile_by_loops(x, shape, method))
    assert torch.equal(tile(x[0], shape[1:], method), tile_by_loops(x[:1], (1, shape[1]), method)[0])


@given(st.integers(1, 12), st.integers(0, 30))
def test_the_middle_is_the_old_tensor_and_every_value_is_used(old, more):
    x, new = torch.arange(old), old + more
    grown, offset = tile(x, (new,)), more // 2
    assert grown[offset : offset + old].tolist() == x.tolist()
    counts = torch.bincount(grown, minlength=old)
    assert counts.min() >= new // old and counts.max() <= -(-new // old)


@pytest.mark.parametrize(
    ("x", "shape", "method", "words"),
    [
        (torch.ones(4), (3,), "center", "4 places cannot become 3"),
        (torch.ones(2, 2), (4,), "center", "a vector or a matrix"),
        (torch.ones(2, 2, 2), (4, 4, 4), "center", "a vector or a matrix"),
        (torch.ones(0), (4,), "center", "a vector or a matrix"),
        (torch.ones(2), (4,), "middle", "'middle' does not exist"),
    ],
)
def test_what_cannot_be_tiled_is_refused(x, shape, method, words):
    with pytest.raises(InputError, match=words):
        tile(x, shape, method)


# ---- depth -----------------------------------------------------------------------------------------------------------


def test_the_published_depth_map():
    expected = [0, 1, 2, 2, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11, 12, 13, 13, 14, 15, 16, 16, 17, 18, 19, 20, 20, 21]
    assert depth_map(22, 28) == expected
    assert inherited_types(*PUBLISHED, expected) == 12
    repeated = sorted({i for i in expected if expected.count(i) > 1})
    assert repeated == [2, 6, 9, 13, 16, 20]


@given(st.integers(1, 30), st.integers(0, 40))
def test_a_depth_map_keeps_the_order_and_uses_every_layer(old, more):
    found = depth_map(old, old + more)
    assert found == sorted(found) and set(found) == set(range(old)) and len(found) == old + more
    assert depth_map(old, old) == list(range(old))


def test_halves_go_to_the_even_layer():
    assert depth_map(2, 4) == [0, 0, 1, 1]  # 0, 0.5, 1, 1.5: the last would be 2, of two layers
    assert depth_map(3, 6) == [0, 0, 1, 2, 2, 2]  # 0.5 and 2.5 down, 1.5 up


@given(st.integers(1, 10), st.integers(0, 10))
def test_matched_layers_copy_their_own_type_in_order(blocks, more):
    old, new = (SMALL.replace(num_hidden_layers=1 + 3 * n) for n in (blocks, blocks + more))
    found = matched_depth_map(old, new)
    assert inherited_types(old, new, found) == 0 and set(found) == set(range(old.num_hidden_layers))
    for kind in "GL":
        mine = [source for i, source in enumerate(found) if new.layer_type(i) == kind]
        assert mine == sorted(mine)
    assert (found[0], found[-1]) == (0, old.num_hidden_layers - 1)


def test_matched_for_the_published_sizes():
    found = matched_depth_map(*PUBLISHED)
    assert [found[i] for i in range(0, 28, 3)] == [0, 3, 6, 6, 9, 12, 15, 18, 18, 21]
    assert inherited_types(*PUBLISHED, found) == 0


def test_no_layer_of_a_type_no_match():
    with pytest.raises(InputError, match="no local layer"):
        matched_depth_map(SMALL.replace(num_hidden_layers=1), LARGE)
    with pytest.raises(InputError, match="4 layers cannot grow to 3"):
        depth_map(4, 3)


# ---- heads -----------------------------------------------------------------------------------------------------------


def heads_of(index, config, K_old):
    """The rows that each new head copies, as (old head, row inside it)."""
    return [[divmod(int(i), K_old) for i in head] for head in index.view(config.num_attention_heads, -1)]


@given(st.integers(1, 8), st.integers(0, 12), st.integers(1, 6), METHOD)
def test_every_grown_head_is_a_whole_old_head(heads, more, half, method):
    K = 2 * half
    old = SMALL.replace(hidden_size=heads * K, num_attention_heads=heads)
    new = SMALL.replace(hidden_size=(heads + more) * K, num_attention_heads=heads + more)
    found = heads_of(scale_up.head_sources(old, new, method), new, K)
    for head in found:
        assert {number for number, _ in head} == {head[0][0]} and [row for _, row in head] == list(range(K))
    offset = more // 2 if method == "center" else 0
    assert [head[0][0] for head in found] == [(h - offset) % heads for h in range(heads + more)]


def test_from_base_to_large_the_offset_is_two_heads():
    base, large = PUBLISHED
    index = scale_up.head_sources(base, large)
    assert index.tolist() == scale_up.sources(768, 1024).tolist() and index[128] == 0
    assert int(index[0]) == 10 * 64  # the first new head is the old head 10


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 6))
def test_wider_heads_keep_their_halves_and_the_order_of_speeds(heads, half, more):
    K_old, K_new = 2 * half, 2 * (half + more)
    old, new = (SMALL.replace(hidden_size=heads * K, num_attention_heads=heads) for K in (K_old, K_new))
    for number, head in enumerate(heads_of(scale_up.head_sources(old, new), new, K_old)):
        rows = [row for _, row in head]
        assert {h for h, _ in head} == {number} and rows == sorted(rows) and set(rows) == set(range(K_old))
        assert [row + half for row in rows[: K_new // 2]] == rows[K_new // 2 :]  # a pair is copied from a pair


# ---- the model -------------------------------------------------------------------------------------------------------


def expected_weight(name, shape, old, new, state, method):
    """What `grow` should give, from `tile` and slices: another way to the same numbers."""
    module = name.removesuffix(".weight").removesuffix(".bias")
    parts = 3 if module.endswith("Wqkv") else 2 if module.endswith("mlp.Wi") and old.mlp == "geglu" else 1
    x = state[name]
    tall = (shape[0] // parts,)
    return torch.cat([tile(third, tall + tuple(shape[1:]), method) for third in x.chunk(parts)])


@pytest.mark.parametrize("method", ["center", "edge"])
@pytest.mark.parametrize(("old", "new"), [(SMALL, LARGE), (BERT, LARGE_BERT)], ids=["modernbert", "bert"])
def test_every_weight_comes_from_its_source(old, new, method):
    model = numbered(old)
    state, copied = model.state_dict(), depth_map(old.num_hidden_layers, new.num_hidden_layers)
    grown = grow(model, new, method=method)
    assert grown.config == new and next(grown.parameters()).dtype == torch.float64
    for name, weight in grown.named_parameters():
        source = name
        for i, layer in enumerate(copied):
            if f"layers.{i}." in name:
                source = name.replace(f"layers.{i}.", f"layers.{layer}.")
        if "final_norm" in name or source not in state:
            assert torch.equal(weight, torch.ones_like(weight)), name
        else:
            # The head offset of these sizes is that of the hidden axis, as from base to large.
            assert torch.equal(weight, expected_weight(source, weight.shape, old, new, state, method)), name


def test_the_final_norm_is_tiled_when_asked():
    model = numbered(SMALL)
    assert torch.equal(grow(model, LARGE).encoder.final_norm.weight, torch.ones(48, dtype=torch.float64))
    grown = grow(model, LARGE, tile_final_norm=True)
    assert torch.equal(grown.encoder.final_norm.weight, tile(model.encoder.final_norm.weight, (48,)))


def test_the_missing_norm_of_layer_0_becomes_ones():
    model = numbered(SMALL)
    layers = grow(model, SMALL.replace(num_hidden_layers=13)).encoder.layers  # 0 0 1 1 1 2 ...: two layers copy 0
    assert depth_map(4, 13)[:3] == [0, 0, 1] and isinstance(layers[0].attn_norm, torch.nn.Identity)
    assert torch.equal(layers[1].attn_norm.weight, torch.ones(32, dtype=torch.float64))
    assert torch.equal(layers[2].attn_norm.weight, model.encoder.layers[1].attn_norm.weight)


def test_matched_layers_are_what_is_copied():
    model = numbered(SMALL)
    grown, copied = grow(model, LARGE, match_attention=True), matched_depth_map(SMALL, LARGE)
    assert copied == [0, 1, 1, 3, 2, 2, 3]
    for layer, source in zip(grown.encoder.layers, copied, strict=True):
        assert torch.equal(layer.mlp.Wo.weight, tile(model.encoder.layers[source].mlp.Wo.weight, (48, 34)))


def test_depth_alone_copies_layers_bit_for_bit():
    model = numbered(SMALL, Encoder)
    grown = grow(model, SMALL.replace(num_hidden_layers=7))
    assert isinstance(grown, Encoder)
    for layer, source in zip(grown.layers, depth_map(4, 7), strict=True):
        assert torch.equal(layer.attn.Wqkv.weight, model.layers[source].attn.Wqkv.weight)


def test_a_twice_as_wide_linear_layer_gives_twice_the_output():
    x_TD, weight_DD = torch.randn(4, 6, dtype=torch.float64), torch.randn(6, 6, dtype=torch.float64)
    wide = tile(x_TD, (4, 12)) @ tile(weight_DD, (12, 12)).T
    torch.testing.assert_close(wide, 2 * tile(x_TD @ weight_DD.T, (4, 12)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_grown_model_computes_trains_and_leaves_its_source_alone(dtype):
    model = MaskedLM(SMALL).to(dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    grown = grow(model, LARGE)
    ids, mask, labels = batch((20, 11), 211)
    loss = grown(ids, mask, labels=labels).loss
    loss.backward()
    assert torch.isfinite(loss) and all(p.grad is not None and p.dtype == dtype for p in grown.parameters())
    torch.optim.SGD(grown.parameters(), lr=1.0).step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("old", "changes", "words"),
    [
        (SMALL, {}, "same sizes"),
        (SMALL, dict(vocab_size=300), "vocabulary has 211 ids"),
        (LARGE, dict(hidden_size=32, num_attention_heads=4), "hidden_size would shrink from 48 to 32"),
        (SMALL, dict(num_hidden_layers=1), "num_hidden_layers would shrink"),
        (SMALL, dict(hidden_size=64, intermediate_size=16), "intermediate_size would shrink"),
        (SMALL, dict(hidden_size=64, num_attention_heads=2), "num_attention_heads would shrink"),
        (SMALL, dict(hidden_size=64, num_attention_heads=16), "head_size would shrink from 8 to 4"),
        (SMALL, dict(hidden_size=64, bias=True), "bias is False and would become True"),
        (SMALL, dict(hidden_size=64, mlp="gelu"), "mlp is 'geglu'"),
        (SMALL, dict(hidden_size=64, positions="learned"), "positions is 'rope'"),
        (SMALL, dict(hidden_size=64, norm_placement="post"), "norm_placement is 'pre'"),
        (SMALL, dict(hidden_size=64, attention_pattern="G"), "attention_pattern is 'GLL'"),
        (SMALL, dict(hidden_size=64, global_rope_theta=1e4), "global_rope_theta is 160000"),
        (BERT, dict(hidden_size=48, max_position_embeddings=80), "max_position_embeddings is 40"),
    ],
)
def test_what_is_no_growth_is_refused_in_one_line(old, changes, words):
    with pytest.raises(InputError, match=words) as caught:
        grow(Encoder(old), old.replace(**changes))
    assert "\n" not in str(caught.value)


def test_what_does_not_touch_the_weights_may_differ():
    grow(Encoder(SMALL), LARGE.replace(max_position_embeddings=16_384, attention_output_dropout=0.1, init="normal"))


# ---- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), [(SMALL, LARGE), (BERT, LARGE_BERT)], ids=["modernbert", "bert"])
def test_a_grown_model_is_the_same_in_transformers(old, new, tmp_path):
    import transformers

    grown = grow(MaskedLM(old).eval(), new, match_attention=True, tile_final_norm=True).eval()
    ids, mask, _ = batch((20, 11), old.vocab_size)
    hf = to_transformers(grown)
    save(grown, None, tmp_path)
    opened = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        ours = grown(ids, mask).logits
        for theirs in (hf, opened):
            logits = theirs(input_ids=ids, attention_mask=mask).logits
            torch.testing.assert_close(logits[mask.bool()], ours[mask.bool()], atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory):
    tokenizer = train_bpe(["the quick brown fox jumps over the lazy dog " * 5], vocab_size=384)
    config = EncoderConfig.preset("modernbert-tiny", vocab_size=tokenizer.vocab_size, global_rope_theta=10_000.0)
    return save(MaskedLM(config), tokenizer, tmp_path_factory.mktemp("models") / "tiny")


def test_a_folder_grows_to_a_preset_and_keeps_vocabulary_and_theta(small_folder, tmp_path, capsys):
    grow_folder(small_folder, "modernbert-mini", tmp_path / "mini", match_attention=True)
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and "layers 4 -> 7, copied from [0, 1, 1, 3, 2, 2, 3], 0 of another" in out
    (small, tokenizer), (grown, its) = load(small_folder), load(tmp_path / "mini")
    assert grown.config == small.config.replace(hidden_size=256, num_hidden_layers=7, intermediate_size=384)
    assert its.encode("the quick fox") == tokenizer.encode("the quick fox")
    assert grown.config.head_size == 64 and small.config.head_size == 32
    embedding = small.encoder.embeddings.tok_embeddings.weight
    assert torch.equal(grown.encoder.embeddings.tok_embeddings.weight, tile(embedding, (len(embedding), 256)))


def test_the_line_counts_layers_of_the_other_type(small_folder, tmp_path, capsys):
    grow_folder(small_folder, "modernbert-mini", tmp_path / "mini", method="edge", tile_final_norm=True)
    out = capsys.readouterr().out
    assert "tiled from the edge" in out and "2 of another attention type; final norm tiled" in out


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("bert-small", "has positions='rope' and bert-small 'learned'"),
        ("modernbert-tiny", "same sizes"),
        ("modernbert-huge", "no preset is called"),
    ],
)
def test_a_folder_grows_to_nothing_else(small_folder, tmp_path, target, words):
    with pytest.raises(InputError, match=words):
        grow_folder(small_folder, target, tmp_path / "grown")
    assert not (tmp_path / "grown").exists()


def test_the_source_is_not_overwritten(small_folder):
    with pytest.raises(InputError, match="choose another folder"):
        grow_folder(small_folder, "modernbert-mini", small_folder)
