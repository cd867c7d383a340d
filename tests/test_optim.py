"""StableAdamW: against the published implementation, against a loop over numbers, and what it is for."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from modernbert_edu import EncoderConfig, InputError, MaskedLM
from modernbert_edu.training.optim import StableAdamW, build_optimizer, debiased, parameter_groups, update_rms

SHAPES = [(3,), (5, 4), (2, 3, 4), (1, 1), ()]
RECIPE = SimpleNamespace(
    optimizer="stable_adamw", learning_rate=1e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=1e-5, decoupled=True
)


def parameters(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES]


def gradients(steps, dtype=torch.float64, seed=1):
    """Gradients as they come: of very unlike sizes between tensors, drifting, with a spike here and there."""
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        spike = 100.0 if step % 17 == 16 else 1.0
        yield [
            spike * 10.0 ** (i - 3) * (1 + math.sin(step / 9)) * torch.randn(s, generator=generator, dtype=dtype)
            for i, s in enumerate(SHAPES)
        ]


def rates(steps, peak):
    """Up and down again, as a schedule sets them, below the peak and at it."""
    return [peak * min(1.0, (step + 1) / 20, (steps - step) / 50) for step in range(steps)]


def run(optimizer, params, grads, lrs):
    """Each step's values after it."""
    seen = []
    for grad, lr in zip(grads, lrs, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = lr
        for p, g in zip(params, grad, strict=True):
            p.grad = g.clone()
        optimizer.step()
        seen.append([p.detach().clone() for p in params])
    return seen


# ---- the formula -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:You are using weight_decay")  # as high as this, so that an error in it would show
@pytest.mark.parametrize("decoupled", [True, False])
@pytest.mark.parametrize("betas", [(0.9, 0.98), (0.9, 0.999)])
def test_it_is_the_published_optimizer_step_by_step(decoupled, betas):
    optimi = pytest.importorskip("optimi")
    settings = dict(lr=3e-2, betas=betas, eps=1e-6, weight_decay=0.05 if decoupled else 0.5)
    ours, theirs = parameters(), parameters()
    mine = StableAdamW(ours, **settings, decoupled=decoupled)
    peer = optimi.StableAdamW(
        theirs, **settings, decouple_lr=decoupled, max_lr=3e-2 if decoupled else None, kahan_sum=False, foreach=False,
        triton=False,
    )  # fmt: skip
    start = parameters()
    ran = [run(o, p, gradients(200), rates(200, 3e-2)) for o, p in ((mine, ours), (peer, theirs))]
    for step, (a, b) in enumerate(zip(*ran, strict=True)):
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-14, msg=f"step {step + 1}, shape {tuple(x.shape)}")
    assert all((x - y).abs().max() > 0.1 for x, y in zip(ran[0][-1], start, strict=True))
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.state[p]["exp_avg"], peer.state[q]["exp_avg"], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(mine.state[p]["exp_avg_sq"], peer.state[q]["exp_avg_sq"], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("decoupled", [True, False])
def test_it_is_the_formula_number_by_number(decoupled):
    """Adam's usual form, with the bias corrected apart, in plain Python."""
    peak, b1, b2, eps, decay = 0.05, 0.9, 0.98, 1e-6, 0.1
    params = parameters()
    ours = run(
        StableAdamW(params, lr=peak, betas=(b1, b2), eps=eps, weight_decay=decay, decoupled=decoupled),
        params, gradients(60), rates(60, peak),
    )  # fmt: skip
    for i, p in enumerate(parameters()):
        x = p.detach().flatten().tolist()
        m, v = [0.0] * len(x), [0.0] * len(x)
        for t, (grad, lr) in enumerate(zip(gradients(60), rates(60, peak), strict=True), start=1):
            g = grad[i].flatten().tolist()
            m = [b1 * a + (1 - b1) * b for a, b in zip(m, g, strict=True)]
            v = [b2 * a + (1 - b2) * b * b for a, b in zip(v, g, strict=True)]
            m_hat, v_hat = [a / (1 - b1**t) for a in m], [a / (1 - b2**t) for a in v]
            r = math.sqrt(sum(b * b / max(a, eps**2) for a, b in zip(v_hat, g, strict=True)) / len(g))
            step = lr / max(1.0, r)
            shrink = 1 - (step / peak if decoupled else step) * decay
            x = [shrink * a - step * b / (math.sqrt(c) + eps) for a, b, c in zip(x, m_hat, v_hat, strict=True)]
            assert ours[t - 1][i].flatten().tolist() == pytest.approx(x, rel=1e-10, abs=1e-13), f"tensor {i}, step {t}"


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999])
def test_the_debiased_beta_averages_as_the_corrected_moment_does(beta):
    values = torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    plain = corrected = 0.0
    for step, value in enumerate(values, start=1):
        plain = beta * plain + (1 - beta) * value
        b = debiased(beta, step)
        corrected = b * corrected + (1 - b) * value
        assert corrected == pytest.approx(plain / (1 - beta**step))
    assert debiased(beta, 1) == 0


def test_without_clipping_and_decay_it_is_adam():
    """Gradients that shrink are never clipped."""
    ours, theirs = parameters(), parameters()
    grads = [[0.95**step * g for g in grad] for step, grad in enumerate([next(gradients(1))] * 50)]
    a = run(StableAdamW(ours, lr=1e-2, weight_decay=0.0), ours, grads, [1e-2] * 50)
    adam = torch.optim.Adam(theirs, lr=1e-2, betas=(0.9, 0.98), eps=1e-6)
    b = run(adam, theirs, grads, [1e-2] * 50)
    for x, y in zip(a[-1], b[-1], strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-12)


# ---- what it is for --------------------------------------------------------------------------------------------------


def after_spike(make):
    """How far one number moves when, after 100 quiet steps, a gradient is a thousand times as large; and r then."""
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = make([p])
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        p.grad = 1e-3 * torch.randn(1, generator=generator, dtype=torch.float64)
        optimizer.step()
    before = p.item()
    p.grad = torch.ones(1, dtype=torch.float64)
    optimizer.step()
    return abs(p.item() - before), update_rms(p.grad, optimizer.state[p]["exp_avg_sq"]).item()


def test_a_spike_is_clipped_and_by_adamw_it_is_not():
    settings = dict(lr=1e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0)
    clipped, r = after_spike(lambda p: StableAdamW(p, **settings))
    adam, _ = after_spike(lambda p: torch.optim.AdamW(p, **settings))
    assert r == pytest.approx(1 / math.sqrt(1 - 0.98), rel=0.1)  # v is then almost the spike's own share
    assert clipped == pytest.approx(adam / r, rel=0.1) and clipped < 1.1e-4 < 5e-4 < adam


def test_each_tensor_is_clipped_by_its_own_r():
    def moved(spike):
        params = [nn.Parameter(torch.zeros(4, dtype=torch.float64)) for _ in range(2)]
        optimizer = StableAdamW(params, lr=1e-3, weight_decay=0.0)
        for step in range(51):
            for i, p in enumerate(params):
                p.grad = torch.full((4,), spike if step == 50 and i == 0 else 1e-3, dtype=torch.float64)
            optimizer.step()
        return params

    quiet, loud = moved(1e-3), moved(1.0)
    assert torch.equal(quiet[1], loud[1]) and not torch.equal(quiet[0], loud[0])


@pytest.mark.parametrize("decoupled", [True, False])
def test_the_decay_alone_is_the_share_it_says(decoupled):
    """A gradient of zero moves nothing, so what is left is the decay, at a learning rate below its peak."""
    p = nn.Parameter(torch.full((2, 2), 3.0, dtype=torch.float64))
    optimizer = StableAdamW([p], lr=0.1, weight_decay=0.02, decoupled=decoupled)
    for group in optimizer.param_groups:
        group["lr"] = 0.025
    p.grad = torch.zeros_like(p)
    optimizer.step()
    share = 0.25 * 0.02 if decoupled else 0.025 * 0.02
    torch.testing.assert_close(p.detach(), torch.full_like(p, 3.0 * (1 - share)))


def test_fully_decoupled_decay_at_the_peak_is_the_share_whatever_the_peak():
    for peak in (1e-4, 1e-2):
        p = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
        optimizer = StableAdamW([p], lr=peak, weight_decay=1e-3)
        p.grad = torch.zeros_like(p)
        optimizer.step()
        assert p[0, 0].item() == pytest.approx(1 - 1e-3)


def test_norms_and_biases_do_not_decay():
    for preset in ("bert-tiny", "modernbert-tiny"):
        model = MaskedLM(EncoderConfig.preset(preset, vocab_size=64))
        names = {p: name for name, p in model.named_parameters()}
        for optimizer in (build_optimizer(model, RECIPE), build_optimizer(model, adamw())):
            for group in optimizer.param_groups:
                for p in group["params"]:
                    vector = "norm" in names[p].lower() or "bias" in names[p]
                    assert (group["weight_decay"] == 0) == vector, names[p]
            assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
        before = {name: p.detach().clone() for p, name in names.items()}
        strong = build_optimizer(model, SimpleNamespace(**{**vars(RECIPE), "weight_decay": 0.1}))
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        strong.step()
        for p, name in names.items():
            share = 1.0 if "norm" in name.lower() or "bias" in name else 0.9
            torch.testing.assert_close(p.detach(), share * before[name], msg=name)


def adamw(**changes):
    return SimpleNamespace(**{**vars(RECIPE), "optimizer": "adamw", **changes})


def test_adamw_of_a_recipe_decays_as_the_recipe_says():
    for decoupled, share in ((True, 0.25 * 0.02), (False, 0.25 * 1e-3 * 0.02)):
        model = nn.Linear(3, 3, bias=False).double()
        before = model.weight.detach().clone()
        optimizer = build_optimizer(model, adamw(decoupled=decoupled, weight_decay=0.02))
        assert type(optimizer) is torch.optim.AdamW
        optimizer.param_groups[0]["lr"] *= 0.25
        model.weight.grad = torch.zeros_like(model.weight)
        optimizer.step()
        torch.testing.assert_close(model.weight.detach(), (1 - share) * before)


# ---- state -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_saved_state_goes_on_bit_for_bit(dtype, tmp_path):
    grads, lrs = list(gradients(30, dtype)), rates(30, 1e-2)
    settings = dict(lr=1e-2, weight_decay=0.03)
    whole = parameters(dtype)
    expected = run(StableAdamW(whole, **settings), whole, grads, lrs)[-1]

    params = parameters(dtype)
    first = StableAdamW(params, **settings)
    run(first, params, grads[:13], lrs[:13])
    torch.save(first.state_dict(), tmp_path / "state.pt")
    params = [nn.Parameter(p.detach().clone()) for p in params]
    # Made with other numbers, and below the peak: the saved ones count.
    second = StableAdamW(params, lr=5e-3, betas=(0.5, 0.5), eps=1e-3, weight_decay=0.5, decoupled=False)
    second.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert {k: v for k, v in second.param_groups[0].items() if k != "params"} == {
        "lr": lrs[12], "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.03, "decoupled": True, "max_lr": 1e-2,
    }  # fmt: skip
    assert all(torch.equal(x, y) for x, y in zip(run(second, params, grads[13:], lrs[13:])[-1], expected, strict=True))
    for state in second.state.values():
        assert state.keys() == {"step", "exp_avg", "exp_avg_sq"} and state["step"].dtype == torch.float32


def test_a_schedule_leaves_the_peak_alone():
    optimizer = StableAdamW(parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 10)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["max_lr"] == 1e-2
    groups = [dict(params=parameters()), dict(params=parameters(), lr=0.5), dict(params=parameters(), max_lr=2.0)]
    assert [g["max_lr"] for g in StableAdamW(groups, lr=0.1).param_groups] == [0.1, 0.5, 2.0]


def test_a_parameter_without_gradient_stays_and_keeps_no_state():
    params = parameters()
    before = copy.deepcopy(params)
    optimizer = StableAdamW(params, lr=0.1, weight_decay=0.1)
    params[0].grad = torch.ones_like(params[0])
    loss = optimizer.step(lambda: 3.5)
    assert loss == 3.5 and list(optimizer.state) == [params[0]]
    assert [torch.equal(x, y) for x, y in zip(params, before, strict=True)] == [False, True, True, True, True]


# ---- sharded over processes ------------------------------------------------------------------------------------------


def _shard_and_train(rank, store, results):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    params = [p.detach() for p in parameters() if p.dim()]
    params = [nn.Parameter(distribute_tensor(p, mesh, [Shard(0)])) for p in params]  # 3 and 1 rows do not halve
    optimizer = StableAdamW(params, lr=3e-2, weight_decay=0.05)
    for grad in gradients(20):
        for p, g in zip(params, grad[:-1], strict=True):
            p.grad = distribute_tensor(g, mesh, [Shard(0)])
        optimizer.step()
    full = [p.full_tensor().detach() for p in params]
    if rank == 0:
        torch.save(full, results)
    dist.barrier()  # or one may be gone while the other still talks to it
    dist.destroy_process_group()


def test_two_processes_with_half_of_each_tensor_compute_the_same(tmp_path):
    mp.spawn(_shard_and_train, (str(tmp_path / "store"), str(tmp_path / "full.pt")), nprocs=2)
    params = parameters()
    expected = run(StableAdamW(params, lr=3e-2, weight_decay=0.05), params, gradients(20), [3e-2] * 20)[-1]
    for x, y in zip(torch.load(tmp_path / "full.pt"), expected[:-1], strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-14)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(lr=-1e-3), "learning rate must be a number above 0"),
        (dict(lr=0.0), "learning rate must be a number above 0"),
        (dict(lr=float("nan")), "learning rate must be a number above 0"),
        (dict(lr=float("inf")), "learning rate must be a number above 0"),
        (dict(max_lr=0.0), "its peak: 0.0"),
        (dict(betas=(0.9, 1.0)), "betas must be two numbers"),
        (dict(betas=(-0.1, 0.9)), "betas must be two numbers"),
        (dict(betas=(0.9,)), "betas must be two numbers"),
        (dict(eps=0.0), "eps must be"),
        (dict(weight_decay=-1e-5), "not a share of the weight"),
        (dict(weight_decay=1.0), "not a share of the weight"),
        (dict(weight_decay=1000.0, decoupled=False), "times the learning rate of 0.001 is not a share"),
    ],
)
def test_impossible_numbers_are_refused(changes, words):
    with pytest.raises(InputError, match=words) as caught:
        StableAdamW(parameters(), **{"lr": 1e-3, **changes})
    assert "\n" not in str(caught.value)


def test_an_optimizer_that_is_none_and_impossible_recipes_are_refused():
    model = nn.Linear(2, 2)
    with pytest.raises(InputError, match="no optimizer 'sgd'; there are: 'stable_adamw', 'adamw'"):
        build_optimizer(model, SimpleNamespace(**{**vars(RECIPE), "optimizer": "sgd"}))
    for recipe in (RECIPE, adamw()):
        with pytest.raises(InputError, match="betas"):
            build_optimizer(model, SimpleNamespace(**{**vars(recipe), "betas": (0.9, 2.0)}))


def test_a_model_without_vectors_has_one_group():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False).requires_grad_(False))
    (group,) = parameter_groups(model, 0.1)
    assert group["params"] == [model[0].weight] and group["weight_decay"] == 0.1
