"""The measurement behind the page of the published package: from a page to its tables."""

from psannlm.bench.peer_cells import ProtocolCell
from psannlm.bench.peer_experiment import compare, plan, protocol
from psannlm.bench.peer_records import protocol_csv
from psannlm.peer_config import PeerConfig
from psannlm.report import cells
from psannlm.report.notebook import Page
from psannlm.report.peer_keeping import PEERS, PROTOCOL_RECORDS
from psannlm.report.peer_tables import Comparison, comparison


def measure(page: Page, config: PeerConfig) -> Comparison:
    """Measure both packages in turn, then repeat the original's own protocol on both.

    Args:
        page: Whose run keeps the records.
        config: Of the run.
    """
    total = len(plan(config))
    found = compare(config, done=cells.done(page.run, PEERS))
    records = cells.collect(page, found, PEERS, total=total)
    measured: list[ProtocolCell] = []
    page.run.write(PROTOCOL_RECORDS, protocol_csv(measured))
    for cell in protocol(config):
        measured.append(cell)
        page.run.write(PROTOCOL_RECORDS, protocol_csv(measured))
        page.tell(total, total, f"{cell.check}, {cell.side}, {cell.base}", unit="cell")
    return comparison(
        records, measured, config, timestamp=page.run.folder.name, device=page.device_name
    )
