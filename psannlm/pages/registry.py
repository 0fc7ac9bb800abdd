"""The pages of the report, in the order in which a run makes them."""

from collections.abc import Mapping

from psannlm.checks.config import ValidationConfig
from psannlm.config.schema import Strict
from psannlm.config.training import TrainingConfig
from psannlm.pages.memory.config import MemoryConfig
from psannlm.pages.peer.config import PeerConfig
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.throughput.config import ThroughputConfig

CONFIGS: Mapping[str, type[Strict]] = {
    "validation": ValidationConfig,
    "throughput": ThroughputConfig,
    "memory": MemoryConfig,
    "tiny_corpus": TrainingConfig,
    "shootout": ShootoutConfig,
    "peer": PeerConfig,
}
"""The configuration of each notebook, in the order in which a report runs them."""
