"""Only our own rows, measured once, are held against the published package."""

from psannlm.publish.headlines import headlines

from tests.published import made_up_run


def test_our_rows_with_a_ratio_to_the_published_package_make_headlines(monkeypatch):
    run = made_up_run("peer", peer="package==1.0")
    text = (
        "side,base,setting,work,precision,ratio,ratio_low,ratio_high,verdict,status\n"
        "ours,respsann,best,saved,fp32,0.5,,,fewer,ok\n"
        "ours (again),respsann,best,saved,fp32,1.0,,,noise floor,ok\n"
        "published,respsann,best,saved,fp32,1.0,,,baseline,ok\n"
        "ours,respsann,best,forward,fp32,1.5,1.4,1.6,faster,ok\n"
        "ours,respsann,best,generate,fp32,,,,not compared,ok\n"
    )
    monkeypatch.setattr(type(run), "text", lambda self, name: text)

    saved, forward = headlines({"peer": run})

    assert (saved.name, saved.value, saved.low, saved.verdict) == (
        "peer.respsann.best.saved.fp32.ratio", 0.5, None, "fewer",
    )  # fmt: skip
    assert (forward.row.number, forward.low, forward.verdict) == (4, 1.4, "faster")
    assert forward.unit == "× package==1.0"
