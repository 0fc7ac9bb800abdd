"""The projection that computes its input again: plain numbers and gradients, fewer bytes saved."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from networks import batch_of, moved, tiny
from saved_bytes import saved_by
from torch import Tensor, nn
from torch.nn.functional import gelu
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from psannlm.device import DTYPES, autocast
from psannlm.model.loss import linear_cross_entropy
from psannlm.model.projection import plain_sine, project, unchanged
from psannlm.model.sine import DampedSine

CPU = torch.device("cpu")
FUNCTIONS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "norm": lambda: nn.RMSNorm(6),
    "sine": lambda: DampedSine(6, tiny()),
    "gelu": lambda: gelu,
    "unchanged": lambda: unchanged,
}


@dataclass
class Projection:
    """A function, the projection that follows it, and all that they learn."""

    function: Callable[[Tensor], Tensor]
    linear: nn.Linear

    @property
    def parts(self) -> nn.ModuleList:
        own = [self.function] if isinstance(self.function, nn.Module) else []
        return nn.ModuleList([self.linear, *own])

    def __call__(self, x: Tensor, *_: Tensor) -> Tensor:
        return project(x, self.function, self.linear)

    def gradients(self, x: Tensor, weights: Tensor) -> list[Tensor]:
        """Of x and of all parameters, and the projection itself."""
        y = self(x)
        learned = [x, *self.parts.parameters()]
        return [y.detach(), *torch.autograd.grad((y.float() * weights).sum(), learned)]


@pytest.fixture(params=FUNCTIONS)
def projection(request: pytest.FixtureRequest) -> Projection:
    return Projection(FUNCTIONS[request.param](), nn.Linear(6, 4))


def test_gradients_are_those_of_finite_differences(float64: None, projection: Projection) -> None:
    x = torch.randn(2, 3, 6, requires_grad=True)

    assert torch.autograd.gradcheck(projection, (x, *projection.parts.parameters()))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_half_precision_errs_no_more_than_twice_as_much_as_the_plain_path(
    projection: Projection, precision: str
) -> None:
    x, weights = torch.randn(32, 8, 6, requires_grad=True), torch.randn(32, 8, 4)

    def found(training: bool) -> list[Tensor]:
        projection.parts.train(training)
        with autocast(CPU, precision):
            return projection.gradients(x, weights)

    ours, plain = found(True), found(False)
    projection.parts.double()
    exact = projection.gradients(x.detach().double().requires_grad_(), weights.double())

    assert ours[0].dtype == DTYPES[precision]
    for a, b, c in zip(ours, plain, exact, strict=True):
        assert (a - c).norm() <= 2 * (b - c).norm() + 1e-6 * c.norm()


def test_its_input_is_all_that_is_saved(projection: Projection) -> None:
    x = torch.randn(3, 5, 6, requires_grad=True)

    for precision in ("fp32", "bf16"):
        with autocast(CPU, precision):
            assert saved_by(lambda: projection(x), projection.parts) == 4 * x.numel()


def test_frozen_parameters_receive_no_gradient() -> None:
    sine, linear = DampedSine(6, tiny(learnable="frequency")), nn.Linear(6, 4)
    linear.weight.requires_grad_(False)

    project(torch.randn(3, 6), sine, linear).sum().backward()

    named = dict([*sine.named_parameters(), *linear.named_parameters()])
    assert {name for name, p in named.items() if p.grad is not None} == {"raw_frequency", "bias"}


def test_a_parameter_that_changes_before_backward_is_an_error() -> None:
    sine, linear = DampedSine(6, tiny()), nn.Linear(6, 4)

    for parameter in (sine.raw_frequency, linear.weight):
        y = project(torch.randn(3, 6), sine, linear).sum()
        with torch.no_grad():
            parameter += 1

        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()


def test_inside_a_checkpoint_the_gradients_stay() -> None:
    projection = Projection(DampedSine(6, tiny()), nn.Linear(6, 4))
    x = torch.randn(3, 5, 6, requires_grad=True)
    learned = [x, *projection.parts.parameters()]

    with autocast(CPU, "bf16"):
        plain = projection(x)
        twice: Any = checkpoint(projection, x, use_reentrant=False)

    found = torch.autograd.grad(twice.sum(), learned)
    expected = torch.autograd.grad(plain.sum(), learned)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.slow
def test_no_copy_of_a_weight_outlives_its_product() -> None:
    linear, x = nn.Linear(64, 4), torch.randn(3, 64)

    with (
        autocast(CPU, "bf16"),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record,
    ):
        y = project(x, unchanged, linear)

    events = record.profiler.kineto_results.events()
    assert sum(event.nbytes() for event in events if event.name() == "[memory]") == y.nbytes


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("options", ["respsann", "sgrpsann", "waveresnet", "swiglu"])
def test_gradients_of_a_network_err_no_more_than_twice_as_much_as_plain_ones(
    options: str, precision: str
) -> None:
    base = {"base": "transformer", "mlp": "swiglu"} if options == "swiglu" else {"base": options}
    model = moved(tiny(**base, gate_mix="full"))
    tokens, targets = batch_of(model.config, 4, 24)

    def found(training: bool, precision: str = precision) -> Tensor:
        model.train(training)
        with autocast(CPU, precision):
            hidden = model.hidden(tokens).flatten(0, 1)
            loss = linear_cross_entropy(hidden, model.lm_head.weight, targets.flatten())
        all_of = torch.autograd.grad(loss, list(model.parameters()))
        return torch.cat([gradient.flatten() for gradient in all_of])

    ours, plain = found(True), found(False)
    plain_sine(model)
    with_a_plain_sine = found(True)
    model.double()
    exact = found(False, "fp32")  # no autocast

    for one in (ours, with_a_plain_sine):
        assert (one - exact).norm() <= 2 * (plain - exact).norm() + 1e-6 * exact.norm()
