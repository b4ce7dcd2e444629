"""Robustness as a function of torch tensors."""

import numpy as np
import pytest
import torch

from cadenza import stl

FORMULAS = [
    "G[0,3] (x > $d) and F[1,4] (norm(x, y) < 2)",
    "(x > $d) U[1,4] (y > x)",
    "O[0,3] (x > y) -> H[0,2] (abs(y) < $d)",
    "(sin(x) > $d) S[0,5] (exp(y) > 1)",
    "(x * y > $d) R[0,3] (x / (3 + y) < 1)",
]
SEMANTICS = [{}, {"semantics": "lse", "beta": 3.0}, {"semantics": "softmax", "beta": 3.0}]


def samples(n=3, t=7, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, t, 2, generator=generator, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("options", SEMANTICS, ids=lambda o: o.get("semantics", "true"))
@pytest.mark.parametrize("text", FORMULAS)
def test_gradcheck(text, options):
    f = stl.parse(text, ["x", "y"])
    x = samples()
    for d in (torch.tensor(0.3, dtype=torch.float64), torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)):
        d.requires_grad_()
        for evaluate, more in ((stl.robustness, {"at": 1}), (stl.robustness_trace, {})):

            def value(x, d, evaluate=evaluate, more=more):
                rho = evaluate(f, x, params={"d": d}, **more, **options)
                # Empty windows are infinite: constants, which finite differences cannot judge.
                return torch.where(torch.isfinite(rho), rho, torch.zeros_like(rho))

            assert torch.autograd.gradcheck(value, (x, d), fast_mode=False)


def test_values_are_those_of_arrays_and_shapes_follow():
    f = stl.parse(FORMULAS[0], ["x", "y"])
    x = samples(dtype=torch.float32)
    rho = stl.robustness_trace(f, x, params={"d": 0.5}, lengths=torch.tensor([7, 3, 5]))
    expected = stl.robustness_trace(f, x.detach().numpy(), params={"d": 0.5}, lengths=[7, 3, 5])
    assert rho.dtype == torch.float32 and rho.requires_grad
    np.testing.assert_array_equal(rho.detach(), expected)
    assert stl.robustness(f, x[0], params={"d": 0.5}).shape == ()
    one = stl.robustness(stl.parse("x > 0"), torch.tensor([1.0, 2.0]))
    assert isinstance(one, torch.Tensor) and not one.requires_grad and one == 1.0
    columns = {"x": x[..., 0], "y": x[..., 1]}
    assert torch.equal(stl.robustness(f, columns, params={"d": 0.5}), stl.robustness(f, x, params={"d": 0.5}))
    for evaluate in (stl.breakdown, stl.node_values, stl.explain):
        evaluate(f, x, params={"d": 0.5})
    assert isinstance(stl.breakdown(f, x, params={"d": 0.5}), torch.Tensor)


def test_gradients_only_where_they_are_needed():
    f = stl.parse("G[0,2] (x > $d)")
    x, d = torch.tensor([[3.0], [1.0], [2.0]]), torch.tensor(0.5, requires_grad=True)
    stl.robustness(f, x, params={"d": d}).backward()
    assert d.grad == -1.0 and x.grad is None
    x.requires_grad_()
    stl.robustness(f, x, params={"d": 0.5}).backward()
    assert x.grad.tolist() == [[0.0], [1.0], [0.0]]
    mixed = stl.robustness(f, x.detach().numpy(), params={"d": torch.tensor(0.5, requires_grad=True)})
    assert mixed.requires_grad


def test_ties_go_to_the_earliest_instant():
    x = torch.tensor([[2.0], [1.0], [1.0]], dtype=torch.float64, requires_grad=True)
    stl.robustness(stl.parse("G[0,2] x > 0"), x).backward()
    assert x.grad[:, 0].tolist() == [0.0, 1.0, 0.0]


def test_nan_is_loud():
    x = torch.tensor([[1.0], [float("nan")], [2.0]], requires_grad=True)
    stl.robustness(stl.parse("G[0,2] x > 0"), x).backward()
    assert x.grad.isnan().all()


def test_views_and_slices_are_copied_once_and_not_changed():
    f = stl.parse("G[0,5] (x > y)", ["x", "y"])
    base = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    before = base.detach().clone()
    stl.robustness_trace(f, base.transpose(1, 2)[:, :2].transpose(1, 2)).sum().backward()
    assert base.grad[..., :2].abs().sum() > 0 and base.grad[..., 2].abs().sum() == 0
    assert torch.equal(base.detach(), before)


def test_refusals():
    f = stl.parse("x > $d")
    with pytest.raises(stl.DeviceError, match=r"\.cpu\(\)"):
        stl.robustness(f, torch.zeros(3, device="meta"), params={"d": 0.0})
    with pytest.raises(stl.DeviceError, match=r"\$d"):
        stl.robustness(f, torch.zeros(3), params={"d": torch.zeros((), device="meta")})
    for dtype in (torch.int64, torch.float16, torch.complex64, torch.bool):
        with pytest.raises(TypeError, match=str(dtype)):
            stl.robustness(f, torch.zeros(3, dtype=dtype), params={"d": 0.0})
    with pytest.raises(TypeError, match="different types"):
        stl.robustness(stl.parse("x > y"), {"x": torch.zeros(2), "y": torch.zeros(2).double()})
    with pytest.raises(RuntimeError, match="the batch axis is native"):
        torch.vmap(lambda x: stl.robustness(f, x, params={"d": 0.0}))(torch.zeros(4, 3, 1))
    x = torch.zeros(3, 1, dtype=torch.float64, requires_grad=True)
    upstream = torch.ones((), dtype=torch.float64, requires_grad=True)
    rho = stl.robustness(f, x, params={"d": 0.0})
    (grad,) = torch.autograd.grad(rho, x, upstream, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
    with pytest.raises(stl.HorizonError):
        stl.robustness(stl.parse("G[0,9] x > 0"), x, end="strict")


def test_an_optimiser_makes_a_trajectory_satisfy_a_formula():
    f = stl.parse("F[0,20] (norm(x - 2, y - 1) < 0.2) and G[0,20] (norm(x - 1, y - 0.5) > 0.4)", ["x", "y"])
    torch.manual_seed(0)
    steps = torch.zeros(20, 2, dtype=torch.float64).normal_(std=0.02).requires_grad_()
    optimiser = torch.optim.Adam([steps], lr=0.02)
    assert stl.robustness(f, torch.cumsum(steps, 0)) < -1
    for _ in range(300):
        path = torch.cumsum(steps, 0)
        loss = torch.relu(0.05 - stl.robustness(f, path, semantics="lse", beta=20.0))
        optimiser.zero_grad()
        (loss + 0.01 * steps.square().sum()).backward()
        optimiser.step()
    assert stl.robustness(f, torch.cumsum(steps, 0)) > 0
