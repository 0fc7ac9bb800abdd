"""A file from a web address, going on where an earlier transfer broke off."""

import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from psannlm.config.schema import ConfigError

BLOCK = 2**18
ATTEMPTS = 3
TIMEOUT_SECONDS = 60.0
BROKEN = (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError)


def download(url: str, part: Path) -> None:
    """Fetch `url` into `part`, of which what is already there is not fetched again.

    A server that cannot send the rest of a file sends it from the beginning. Whether the content
    is the right one is for the caller to check.

    Raises:
        ConfigError: The server refuses, cannot be reached, or broke off several times; what came
            so far stays in `part`.
    """
    reason = ""
    for _ in range(ATTEMPTS):
        try:
            if _is_complete_after(url, part):
                return
            reason = "the server sent less than it announced"
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not part.exists():
                raise ConfigError(
                    f"{url} cannot be fetched: the server answered {error.code} {error.reason}; "
                    "correct the address in the recipe"
                ) from None
            part.unlink()  # there is more of it than the server has: begin anew
            reason = str(error)
        except BROKEN as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
    got = part.stat().st_size if part.exists() else 0
    raise ConfigError(
        f"{url} broke off after {got:,} bytes: {reason}; check the network connection and run "
        "this again to go on from there"
    )


def _is_complete_after(url: str, part: Path) -> bool:
    """One transfer of what is missing; whether all came that the server announced."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        goes_on = answer.status == HTTPStatus.PARTIAL_CONTENT and answer.headers.get(
            "Content-Range", ""
        ).startswith(f"bytes {have}-")
        have = have if goes_on else 0
        announced = answer.headers.get("Content-Length")
        whole = have + int(announced) if announced else None
        with (
            part.open("ab" if goes_on else "wb") as out,
            tqdm(total=whole, initial=have, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            while block := answer.read(BLOCK):
                out.write(block)
                bar.update(len(block))
    return whole is None or part.stat().st_size == whole
