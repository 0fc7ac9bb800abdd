"""The measurement behind the memory page: from a page to its tables."""

from psannlm.bench.memory_experiment import memory, memory_plan
from psannlm.bench.memory_records import peers_json
from psannlm.bench.peer import measure_peer
from psannlm.config import MemoryConfig
from psannlm.report import cells
from psannlm.report.memory_cells import MEMORY, PEERS
from psannlm.report.memory_tables import Memory, memory_tables
from psannlm.report.notebook import Page


def measure(page: Page, config: MemoryConfig) -> Memory:
    """Measure every row of the run, and the published package if one is named.

    Args:
        page: Whose run keeps the records.
        config: Of the run.
    """
    found = ([record] for record in memory(config, done=cells.done(page.run, MEMORY)))
    records = cells.collect(page, found, MEMORY, total=len(memory_plan(config)))
    peers = list(measure_peer(config))
    page.run.write(PEERS, peers_json(peers))
    return memory_tables(
        records, peers, config, timestamp=page.run.folder.name, device=page.device_name
    )
