"""The mean of checkpoints: a plain loop's, in every dtype, from files one tensor at a time; mismatches are refused."""

import pytest
import torch
from safetensors.torch import save_file

from modernbert_edu import EncoderConfig, InputError, MaskedLM
from modernbert_edu.training import averaging
from modernbert_edu.training.averaging import average_weights


def weights(seed, dtype=torch.float32, **changes):
    generator = torch.Generator().manual_seed(seed)
    state = {"a.weight": torch.randn(5, 3, generator=generator), "a.bias": torch.randn(3, generator=generator)}
    return {name: tensor.to(dtype) for name, tensor in {**state, **changes}.items()}


@pytest.fixture
def files(tmp_path):
    paths = []
    for seed in range(3):
        paths.append(tmp_path / f"{seed}.safetensors")
        save_file(weights(seed), paths[-1])
    return paths


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_mean_is_that_of_a_plain_loop(dtype):
    states = [weights(seed, dtype) for seed in range(5)]
    mean = average_weights(states)
    assert mean.keys() == states[0].keys()
    for name, tensor in mean.items():
        expected = torch.stack([state[name].double() for state in states]).sum(0) / 5
        assert tensor.dtype == dtype and torch.equal(tensor, expected.to(dtype))


def test_sums_are_kept_in_float64():
    """In float32 each of the seven small additions to 1 would be rounded away."""
    parts = [{"w": torch.tensor([1.0])}] + [{"w": torch.tensor([2.0**-25])}] * 7
    assert average_weights(parts)["w"].item() == torch.tensor((1 + 7 * 2.0**-25) / 8).item()


def test_files_and_state_dicts_give_the_same(files):
    states = [weights(seed) for seed in range(3)]
    mean, mixed = average_weights(files), average_weights([files[0], states[1], str(files[2])])
    for name, tensor in average_weights(states).items():
        assert torch.equal(mean[name], tensor) and torch.equal(mixed[name], tensor)


def test_one_checkpoint_is_its_own_mean_and_is_not_touched():
    state = weights(0)
    before = {name: tensor.clone() for name, tensor in state.items()}
    mean = average_weights([state])
    assert all(torch.equal(mean[name], before[name]) for name in before)
    mean["a.weight"].zero_()
    average_weights([state, weights(1)])
    assert all(torch.equal(state[name], before[name]) for name in before)


def test_a_model_takes_the_mean_of_its_checkpoints():
    config = EncoderConfig.preset("modernbert-tiny", vocab_size=64, hidden_size=16, intermediate_size=24)
    models = [MaskedLM(config) for _ in range(3)]
    mean = MaskedLM(config)
    mean.load_state_dict(average_weights([model.state_dict() for model in models]))
    first = [next(model.parameters()) for model in models]
    torch.testing.assert_close(next(mean.parameters()), sum(first) / 3)


def test_files_are_read_one_tensor_at_a_time(files, monkeypatch):
    """At no moment are more tensors of the files alive than the running sum needs."""
    alive, most = set(), 0
    opened = averaging._open

    def watch(source, number, stack):
        found = opened(source, number, stack)

        def read(name):
            nonlocal most
            tensor = found.read(name).clone()
            key = object()
            alive.add(key)
            most = max(most, len(alive))
            import weakref

            weakref.finalize(tensor, alive.discard, key)
            return tensor

        return averaging._Source(found.name, found.names, read)

    monkeypatch.setattr(averaging, "_open", watch)
    average_weights(files)
    # The first of a name, the one being added and, while it is replaced, the one before it.
    assert 0 < most <= 3 < 2 * len(files)


def test_whole_numbers_must_agree():
    steps = [{"steps": torch.tensor([3])}, {"steps": torch.tensor([3])}]
    assert torch.equal(average_weights(steps)["steps"], torch.tensor([3]))
    with pytest.raises(InputError, match="steps holds whole numbers that differ"):
        average_weights([*steps, {"steps": torch.tensor([4])}])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (weights(1, extra=torch.ones(2)), "1 names are not in both.*first: extra, only in state dict 2"),
        ({"a.weight": torch.ones(5, 3)}, "first: a.bias, only in state dict 1"),
        (weights(1, **{"a.bias": torch.ones(4)}), r"a.bias is \(3,\) float32 in state dict 1 and \(4,\) float32"),
        (weights(1, torch.float64), "float32 in state dict 1 and .* float64 in state dict 2"),
    ],
)
def test_what_does_not_fit_is_refused(other, words):
    with pytest.raises(InputError, match=words) as caught:
        average_weights([weights(0), other])
    assert "\n" not in str(caught.value)


def test_broken_and_missing_files_are_named(files, tmp_path):
    with pytest.raises(InputError, match="no checkpoints to average"):
        average_weights([])
    with pytest.raises(InputError, match="absent.safetensors is not a whole safetensors file"):
        average_weights([files[0], tmp_path / "absent.safetensors"])
    files[1].write_bytes(files[1].read_bytes()[:-7])
    with pytest.raises(InputError, match="1.safetensors is not a whole safetensors file") as caught:
        average_weights(files)
    assert "\n" not in str(caught.value)
