"""The comparison's tables as people read them: both sides in one row, units in the headings."""

import pytest
from psannlm.pages.peer.cells import OURS, PUBLISHED

from psannlm.pages.peer import views as peer_views
from psannlm.pages.peer.tables import Comparison, comparison
from tests.synthetic import start_manifest
from tests.synthetic_peer import peer_config, peer_records, protocol_cell, protocol_cells

CONFIG = peer_config()


def found(failing=(), protocol=()) -> Comparison:
    return comparison(
        peer_records(CONFIG, failing=failing),
        protocol,
        CONFIG,
        timestamp="20260101_000000",
        device="a CPU",
    )


def test_both_sides_stand_in_one_row_in_the_order_that_was_asked_for():
    shown = peer_views.beside(found().rows, "train_step")

    assert list(zip(shown["base"], shown["setting"], strict=True)) == [
        ("respsann", "defaults"),
        ("respsann", "best"),
        ("sgrpsann", "defaults"),
        ("sgrpsann", "best"),
    ]
    assert set(shown["verdict"]) == {"faster"}
    [ours, published, ratio] = (
        [float(value.split(" ")[0].replace(",", "")) for value in shown[name]]
        for name in (
            "ours, tokens/s (95% interval)",
            "published, tokens/s (95% interval)",
            "ours / published (95% interval)",
        )
    )
    assert ours == pytest.approx([1500] * 4, rel=0.01)
    assert published == pytest.approx([1000] * 4, rel=0.01)
    assert ratio == pytest.approx([1.5] * 4, rel=0.01)
    assert all(value.endswith("%") for value in shown["noise floor"])


def test_bytes_have_their_unit_and_neither_interval_nor_noise():
    shown = peer_views.beside(found().rows, "saved")

    assert list(shown["ours, MiB"]) == ["4.0"] * 4
    assert list(shown["published, MiB"]) == ["10.0"] * 4
    assert list(shown["ours / published"]) == ["0.400"] * 4
    assert set(shown["verdict"]) == {"fewer"}
    assert "noise floor" not in shown


def test_a_side_that_failed_is_named_with_its_reason_in_place_of_a_verdict():
    shown = peer_views.beside(found(failing=[PUBLISHED]).rows, "train_step")

    assert set(shown["verdict"]) == {"published failed: cannot be installed"}
    assert set(shown["ours / published (95% interval)"]) == {"—"}
    both = peer_views.beside(found(failing=[OURS, PUBLISHED]).rows, "saved")
    assert set(both["verdict"]) == {
        "ours failed: cannot be installed; published failed: cannot be installed"
    }


def test_each_kind_of_work_has_a_table_of_its_own():
    html = peer_views.by_work(found())

    assert html.count("<table") == 2
    assert "Ours beside the published package: training step" in html
    assert "Ours beside the published package: kept for backward" in html


def test_every_row_is_shown_those_measured_again_too():
    shown = peer_views.every_row(found(failing=[PUBLISHED]))

    assert len(shown) == 3 * 2 * 2 * 2
    assert set(shown["side"]) == {"ours", "ours (again)", "published"}
    failed = shown[shown["side"] == "published"]
    assert set(failed["result"]) == {"failed: cannot be installed"}
    assert set(failed["processes"]) == {"0 (6 failed)"}


def test_a_measure_of_the_protocol_has_both_sides_beside_each_other():
    cells = [*protocol_cells(), protocol_cell(measure="rel_diff", value=0.00123456)]
    cells.append(
        protocol_cell(measure="elapsed_s", value=None, status="failed", reason="too large")
    )

    shown = peer_views.protocol(found(protocol=cells))

    assert list(shown["measure"]) == [
        "speed, tokens/s",
        "peak allocated, MiB",
        "relative difference of losses",
        "time of a step, s",
    ]
    assert list(shown["ours"]) == ["1,500", "of a GPU alone", "0.001235", "failed: too large"]
    assert list(shown["published"]) == ["1,000", "of a GPU alone", "—", "—"]
    assert peer_views.protocol(found()).empty


def test_the_files_name_the_package_the_ratios_and_the_command():
    manifest = start_manifest("peer", CONFIG) | {"run": "20260101_000000"}

    written = peer_views.files(found(failing=[PUBLISHED]), manifest)

    assert set(written) == {"peer.csv", "protocol.csv", "README.md"}
    readme = written["README.md"]
    assert readme.startswith("# Against the published package, 20260101_000000\n")
    assert "beside psannlm 2.0.1" in readme
    assert readme.count("published failed: cannot be installed |") == 8
    assert manifest["command"] in readme
