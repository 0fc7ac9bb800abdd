"""A run's configuration hands each network its shape."""

from psannlm.config.network import ModelConfig
from tests.synthetic import throughput_config


def test_a_run_hands_its_shape_and_options_to_each_network() -> None:
    config = throughput_config(d_mlp=24, positions="alibi", learnable=("decay",), sine_decay=0.5)

    network = config.network_of("sgrpsann")

    assert isinstance(network, ModelConfig)
    assert network.base == "sgrpsann"
    shared = set(ModelConfig.model_fields) - {"base"}
    assert network.model_dump(include=shared) == config.model_dump(include=shared)
