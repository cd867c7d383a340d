"""Memory counted through autograd's hooks: known tensors, shared storages, reused addresses."""

import pytest
import torch

from modernbert_edu.config import EncoderConfig
from modernbert_edu.errors import InputError
from modernbert_edu.measure.memory import PeakMemory, bytes_saved_for_backward, peak_memory, training_memory
from modernbert_edu.model import MaskedLM

FLOAT = 4


def leaf(*shape):
    return torch.randn(*shape, requires_grad=True)


def model_and_batch(name="modernbert-tiny", length=32, batch=2, **changes):
    sizes = dict(vocab_size=64, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=24)
    model = MaskedLM(EncoderConfig.preset(name, **{**sizes, "pad_token_id": 0, **changes}))
    ids = torch.randint(1, 64, (batch, length))
    return model, ids, torch.ones_like(ids), ids


def test_a_product_saves_both_factors():
    x, y = leaf(10), leaf(10)
    assert bytes_saved_for_backward(lambda: x * y) == 2 * 10 * FLOAT


def test_a_sum_saves_nothing():
    x, y = leaf(10), leaf(10)
    assert bytes_saved_for_backward(lambda: x + y) == 0


def test_a_tensor_saved_twice_counts_once():
    x = leaf(10)
    assert bytes_saved_for_backward(lambda: x * x) == 10 * FLOAT
    assert bytes_saved_for_backward(lambda: (x * x) * x) == 2 * 10 * FLOAT  # x, and x * x


def test_views_of_one_storage_count_it_once_and_whole():
    x = leaf(10)
    assert bytes_saved_for_backward(lambda: x[:2] * x[2:4]) == 10 * FLOAT


def test_excluded_storages_do_not_count():
    x, weight = leaf(5, 10), leaf(10, 3)
    assert bytes_saved_for_backward(lambda: x @ weight) == (50 + 30) * FLOAT
    assert bytes_saved_for_backward(lambda: x @ weight, exclude=[weight]) == 50 * FLOAT
    assert bytes_saved_for_backward(lambda: x @ weight, exclude=[weight.t()]) == 50 * FLOAT


def test_a_reused_address_is_not_taken_for_a_duplicate():
    x = leaf(1 << 16)
    addresses = []

    def discarded_branches():
        for _ in range(8):
            y = x.exp()  # saves its result, which is dropped at once and whose memory the next one could get
            addresses.append(y.data_ptr())
            del y

    assert bytes_saved_for_backward(discarded_branches) == 8 * (1 << 16) * FLOAT
    assert len(set(addresses)) == 8


def test_the_hook_does_not_keep_the_graph_alive():
    import gc
    import weakref

    x = leaf(10)
    alive = []

    def forward():
        y = x.exp()  # saves its own result: a hook that returned it would make a cycle
        alive.append(weakref.ref(y))
        return y

    gc.collect()
    gc.disable()
    try:
        bytes_saved_for_backward(forward)
        assert alive[0]() is None
    finally:
        gc.enable()


def test_gradients_are_right_after_counting():
    x = leaf(10)
    outputs = []
    bytes_saved_for_backward(lambda: outputs.append((x.exp() * x).sum()))
    outputs[0].backward()
    assert torch.allclose(x.grad, x.exp() * (1 + x))


def test_training_memory_says_how_and_is_deterministic():
    model, ids, mask, labels = model_and_batch()
    model.eval()
    first, second = (training_memory(model, ids, mask, labels) for _ in range(2))
    assert first == second and first.bytes > 0
    assert "kept for the backward pass" in first.how
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_parameters_and_batch_do_not_count_in_training_memory():
    short = training_memory(*model_and_batch(length=8)).bytes
    model, ids, mask, labels = model_and_batch(length=8)
    parameters = sum(p.numel() * FLOAT for p in model.parameters())
    counted_too = bytes_saved_for_backward(lambda: model(ids, mask, labels=labels))
    assert counted_too > short
    assert counted_too - short <= parameters + 3 * ids.nbytes


def test_kept_memory_grows_with_the_batch():
    one = training_memory(*model_and_batch(batch=1)).bytes
    four = training_memory(*model_and_batch(batch=4)).bytes
    assert four == pytest.approx(4 * one, rel=0.1)


def test_eager_attention_keeps_the_square_and_sdpa_does_not():
    def growth(backend):
        sizes = []
        for length in (128, 256):
            model, *rest = model_and_batch("bert-tiny", length=length, batch=1)
            model.encoder.backend = backend
            sizes.append(training_memory(model, *rest).bytes)
        return sizes[1] / sizes[0]

    assert growth("sdpa") < 2.1
    assert growth("eager") > 3


def test_dropout_masks_are_part_of_training_memory():
    without = training_memory(*model_and_batch()).bytes
    model, *rest = model_and_batch(mlp_dropout=0.1)
    assert training_memory(model.eval(), *rest).bytes > without


def test_peak_memory_is_for_cuda_only():
    with pytest.raises(InputError, match="on CUDA only, not on cpu"):
        peak_memory(lambda: None, "cpu")
    assert PeakMemory(before=10, peak=25).added == 15


@pytest.mark.cuda
def test_peak_memory_of_a_known_allocation():
    def call():
        a = torch.empty(1 << 20, dtype=torch.uint8, device="cuda")
        b = torch.empty(1 << 20, dtype=torch.uint8, device="cuda")
        del a, b
        torch.empty(1 << 20, dtype=torch.uint8, device="cuda")

    held = torch.empty(1 << 22, dtype=torch.uint8, device="cuda")
    measured = peak_memory(call, "cuda")
    assert measured.added == 2 << 20
    assert measured.before >= held.nbytes


@pytest.mark.cuda
def test_training_memory_on_cuda_uses_the_allocator():
    model, *rest = model_and_batch()
    measured = training_memory(model.cuda(), *(x.cuda() for x in rest))
    assert "peak allocated" in measured.how
    assert measured.bytes > 0
