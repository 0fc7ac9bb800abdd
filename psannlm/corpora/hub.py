"""Rows of a dataset of the Hugging Face hub, one after the other, without storing it whole."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from psannlm.config.schema import ConfigError
from psannlm.corpora.recipe import HubSource


def rows(source: HubSource) -> Iterator[str]:
    """The text of each row of a dataset's split, at the revision that the recipe pins.

    Raises:
        ConfigError: The client is missing, the dataset cannot be had, or its rows have no such
            column of text.
    """
    try:
        # The submodule, because the project's own folder datasets/ would pass for the package.
        client: Any = importlib.import_module("datasets.load")
    except ModuleNotFoundError:
        raise ConfigError(
            f"{source.dataset} needs the client of the hub, which is missing; "
            "run: pip install 'psannlm-report[hub]'"
        ) from None
    try:
        found = client.load_dataset(
            source.dataset,
            source.config or None,
            split=source.rows,
            revision=None if Path(source.dataset).is_dir() else source.revision,
            streaming=True,
        )
        for row in found:
            text = row.get(source.column)
            if not isinstance(text, str):
                known = ", ".join(row)
                raise ConfigError(
                    f"{source.dataset}: column must be one of text among {known}, "
                    f"got {source.column!r}"
                )
            yield text
    except ConfigError:
        raise
    except Exception as error:  # the client raises errors of many libraries
        first = (str(error).splitlines() or [""])[0]
        raise ConfigError(
            f"{source.dataset} ({source.rows}) cannot be read: {type(error).__name__}: {first}; "
            "check the name, configuration, split and network connection"
        ) from None
