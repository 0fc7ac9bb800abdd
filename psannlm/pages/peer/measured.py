"""The measurement behind the page of the published package: from a page to its tables."""

from psannlm.evidence import cells
from psannlm.evidence.session import Page
from psannlm.pages.peer.cells import ProtocolCell
from psannlm.pages.peer.config import PeerConfig
from psannlm.pages.peer.keeping import PEERS, PROTOCOL_RECORDS
from psannlm.pages.peer.plan import compare, plan, protocol
from psannlm.pages.peer.records import protocol_csv
from psannlm.pages.peer.tables import Comparison, comparison


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
        page.report_progress(total, total, f"{cell.check}, {cell.side}, {cell.base}", unit="cell")
    return comparison(
        records, measured, config, timestamp=page.run.folder.name, device=page.device_name
    )
