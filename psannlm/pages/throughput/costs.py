"""What each base costs in the shape of the GPU sweep: a table of the page on the networks."""

from psannlm import ROOT
from psannlm.config.parse import parse, read_parameters
from psannlm.model.bases import BASES, cost_of
from psannlm.model.cost import Shape
from psannlm.pages.throughput.config import ThroughputConfig


def costs() -> str:
    """What each base costs in the shape of the GPU sweep, computed from its parameter file."""
    path = ROOT / "params" / "gpu" / "throughput.yaml"
    config = parse(ThroughputConfig, read_parameters(path), source=str(path))
    shape = Shape(1, config.context_length)
    lines = [
        "| base | parameters | without embedding and head | forward, MFLOP a token "
        "| training step, MFLOP a token |",
        "|---|---:|---:|---:|---:|",
    ]
    for base in BASES:
        cost = cost_of(config.network_of(base), shape)
        ends = cost.parameters["embedding"] + cost.parameters["head"]
        forward = cost.model_flops / shape.total / 1e6
        lines.append(
            f"| {base} | {cost.n_parameters:,} | {cost.n_parameters - ends:,} "
            f"| {forward:.2f} | {3 * forward:.2f} |"
        )
    lines += [
        "",
        f"In the shape of `params/gpu/throughput.yaml`: d_model {config.d_model}, "
        f"{config.n_layers} layers, {config.n_heads} heads, d_mlp {config.d_mlp:,}, "
        f"vocabulary {config.vocab_size:,}, context {config.context_length:,}.",
        "",
    ]
    return "\n".join(lines)
