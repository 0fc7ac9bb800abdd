"""The measurement behind the memory page: from a page to its tables."""

from psannlm.evidence import cells
from psannlm.evidence.session import Page
from psannlm.pages.memory.cells import MEMORY, PEERS
from psannlm.pages.memory.config import MemoryConfig
from psannlm.pages.memory.plan import memory, memory_plan
from psannlm.pages.memory.records import peers_json
from psannlm.pages.memory.tables import Memory, memory_tables
from psannlm.pages.peer.package import measure_peer


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
