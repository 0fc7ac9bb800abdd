"""What must hold between the files of a comparison with the published package and its records."""

import math
from collections.abc import Iterator, Sequence
from itertools import product

from psannlm.config.parse import parse
from psannlm.evidence.runs import Evidence
from psannlm.evidence.verify import differences
from psannlm.pages.peer.cells import SIDES, PeerCell, ProtocolCell
from psannlm.pages.peer.config import PeerConfig
from psannlm.pages.peer.keeping import PEERS, PROTOCOL_RECORDS
from psannlm.pages.peer.records import protocol_csv, read_protocol
from psannlm.pages.peer.tables import SAVED, comparison
from psannlm.pages.peer.views import SHOWN, files


def problems(run: Evidence) -> Iterator[str]:
    """What a run states that its records do not bear out, or that no machine could measure.

    Every file that follows from the records is made once more and compared, intervals too.
    """
    try:
        config = parse(PeerConfig, run.manifest["parameters"], source="parameters")
        records = PEERS.records(*map(run.text, PEERS.files))
        protocol = read_protocol(run.text(PROTOCOL_RECORDS))
        for found in (
            _asked_problems(records, config),
            _protocol_problems(protocol, config),
            _raw_problems(run, records, protocol, config),
            _file_problems(run, records, protocol, config),
        ):
            yield from found
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        yield f"cannot be checked: {type(error).__name__}: {error}"


def _raw_problems(
    run: Evidence,
    records: Sequence[PeerCell],
    protocol: Sequence[ProtocolCell],
    config: PeerConfig,
) -> Iterator[str]:
    """Records that do not read back as they stand, or that are impossible."""
    texts = dict(zip(PEERS.files, PEERS.texts(records), strict=True))
    for name, text in (texts | {PROTOCOL_RECORDS: protocol_csv(protocol)}).items():
        yield from differences(name, run.text(name), text)
    for record in records:
        for problem in impossible(record, config):
            yield f"cells.csv: {_name(record)}: {problem}"
    for cell in protocol:
        where = f"{PROTOCOL_RECORDS}: {cell.check}, {cell.side}, {cell.base}, {cell.measure}"
        if cell.value is not None and not (math.isfinite(cell.value) and cell.value >= 0):
            yield f"{where}: value must be finite and at least 0, got {cell.value!r}"
        is_unknown = cell.value is None
        if is_unknown != bool(cell.reason) or (cell.status == "failed" and not is_unknown):
            yield f"{where}: {cell.value!r}, status {cell.status}, has reason {cell.reason!r}"


def impossible(record: PeerCell, config: PeerConfig) -> Iterator[str]:
    """What no process could have left."""
    if (record.status == "failed") != bool(record.reason):
        yield f"status {record.status} with reason {record.reason!r}"
    if not all(math.isfinite(second) and second > 0 for second in record.seconds):
        yield "seconds must be finite and positive"
    if record.status == "failed":
        return
    n_tokens = config.new_tokens if record.work == "generate" else config.batch_tokens
    if record.tokens != n_tokens:
        yield f"tokens is {record.tokens}, a step has {n_tokens}"
    if record.work == SAVED and not (record.saved_bytes and record.saved_bytes > 0):
        yield f"saved_bytes must be positive, got {record.saved_bytes!r}"
    if record.work != SAVED and not record.seconds:
        yield "no step was timed, and yet it did not fail"


def _asked_problems(records: Sequence[PeerCell], config: PeerConfig) -> Iterator[str]:
    """Each side does each work with each base, setting and precision once a block."""
    blocks = range(config.n_repeats)
    wanted = list(
        product(blocks, SIDES, config.base, config.setting, config.work, config.precision)
    )
    keys = [record.key for record in records]
    for key in wanted:
        if keys.count(key) != 1:
            yield f"cells.csv: {keys.count(key)} rows for {_named(key)}, which was asked for once"
    for key in set(keys) - set(wanted):
        yield f"cells.csv: {_named(key)} was not asked for"
    shape = (config.batch_tokens, config.context_length)
    for record in records:
        if (record.batch_tokens, record.context_length) != shape:
            yield f"cells.csv: {_name(record)}: its shape is not that of the run"


def _protocol_problems(protocol: Sequence[ProtocolCell], config: PeerConfig) -> Iterator[str]:
    """Both sides stand there with the same measures, each once, if there is a protocol at all."""
    if bool(protocol) != bool(config.protocol_batch_tokens):
        yield f"{PROTOCOL_RECORDS}: {len(protocol)} records, which is not what was asked for"
    stated = [(c.side, c.check, c.base, c.batch_tokens, c.measure) for c in protocol]
    for key in dict.fromkeys(key[1:] for key in stated):
        for side in SHOWN:
            if stated.count((side, *key)) != 1:
                n = stated.count((side, *key))
                yield f"{PROTOCOL_RECORDS}: {n} rows of {side} for {_named(key)}"


def _file_problems(
    run: Evidence,
    records: Sequence[PeerCell],
    protocol: Sequence[ProtocolCell],
    config: PeerConfig,
) -> Iterator[str]:
    """Files that are not what the records give."""
    device = run.manifest["environment"]["device"]
    found = comparison(records, protocol, config, timestamp=run.folder.name, device=device)
    for name, text in files(found, run.manifest).items():
        yield from differences(name, run.text(name), text)


def _name(record: PeerCell) -> str:
    return _named(record.key)


def _named(key: Sequence[object]) -> str:
    return ", ".join(map(str, key))
