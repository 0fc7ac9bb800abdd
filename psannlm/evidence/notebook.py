"""The executed notebook, rebuilt inside the kernel from what it ran and sent, whoever asked it to.

A front end may keep its file anywhere, late, or nowhere. The kernel knows the source of every cell
that it ran, and all that it sent to be shown; the committed notebook has the rest. So a run keeps
the same notebook from papermill, nbconvert and JupyterLab, and one whose cells were changed, left
out or run twice is told from one that ran what is committed.
"""

import ast
import contextlib
import copy
import difflib
import functools
import math
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import yaml
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from psannlm import ROOT
from psannlm.bench import provenance
from psannlm.config.parse import read_parameters
from psannlm.config.schema import ConfigError

NOTEBOOKS = ROOT / "notebooks"
INJECTED, INJECTED_TAG = "# Parameters", "injected-parameters"  # of the cell that papermill adds
LONGEST = 200  # letters of a difference in a manifest
SHOWN = {  # messages of a kernel that change what a notebook shows
    "stream", "display_data", "execute_result", "error", "update_display_data", "clear_output",
}  # fmt: skip
OVERWRITTEN = re.compile(r"[^\n]*\r(?=[^\r\n])")  # a terminal writes over it, as progress bars do


def committed(name: str) -> Any:
    """The notebook of a page as committed; as it lies in notebooks/ where no commit has it."""
    found = provenance.committed(f"{NOTEBOOKS.name}/{name}.ipynb")
    return nbformat.reads(found.decode(), as_version=4) if found else _lying(name)


def default_parameters(name: str) -> dict[str, Any]:
    """Names and values of the parameters cell of a notebook, as it lies in notebooks/."""
    return assigned(_parameters_cell(_lying(name)).source)


def _lying(name: str) -> Any:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def _parameters_cell(notebook: Any) -> Any:
    [cell] = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    return cell


def given_parameters(name: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all names that the notebook declares, and of those given that it does not.

    A cell that assigns a parameter gives parameters alone: every name in it is meant as one,
    whether papermill has put it there or somebody has edited the notebook's own.
    """
    declared = default_parameters(name)
    cells = {source: assigned(source) for source in namespace.get("In", [])}
    meant = (c for s, c in cells.items() if s.startswith(INJECTED) or c.keys() & declared.keys())
    given = {name for cell in meant for name in cell}
    return {n: namespace[n] for n in [*declared, *sorted(given - {*declared})] if n in namespace}


def assigned(source: str) -> dict[str, Any]:
    """Names that the lines of a parameters cell assign, with their literal values."""
    return {name: value for name, value in _assignments(source) if name}


def _assignments(source: str) -> Iterator[tuple[str, Any]]:
    """What each statement assigns to which name; to no name if it is none that gives a value."""
    with contextlib.suppress(SyntaxError):  # a cell of magics
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                yield ast.unparse(target), _literal(node.value)
            else:
                yield "", None


def _literal(node: ast.expr) -> Any:
    with contextlib.suppress(ValueError):
        return ast.literal_eval(node)
    return ast.unparse(node)  # papermill writes float('nan'), which the configuration refuses


def command(name: str, given: Mapping[str, Any]) -> str:
    """A papermill command that gives a notebook these parameters.

    What was typed may have been no command, or name folders of this machine.
    """
    usual, file = default_parameters(name), f"params/{given['preset']}/{name}.yaml"
    words = ["papermill", f"{NOTEBOOKS.name}/{name}.ipynb", "out.ipynb"]
    changed = _changed(given, usual)
    if changed and (ROOT / file).is_file():
        words, changed = [*words, "-f", file], _changed(given, read_parameters(ROOT / file))
    if changed:
        values = yaml.safe_dump(changed, default_flow_style=True, sort_keys=False, width=math.inf)
        words += ["-y", values.strip()]
    return shlex.join(words)


def _changed(given: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that are not as usual; of a path outside the project the name alone."""
    changed = {name: value for name, value in given.items() if usual.get(name) != value}
    return {n: Path(v).name if _is_outside(v) else v for n, v in changed.items()}


def _is_outside(value: Any) -> bool:
    path = ROOT / value if isinstance(value, str) and "/" in value else ROOT
    return not path.resolve().is_relative_to(ROOT)


class Recording:
    """What a kernel has run, and what it sends to be shown from now on."""

    def __init__(self, shell: Any, name: str) -> None:
        """Begin in the cell that the `shell` runs; ConfigError if it is not that of a kernel."""
        session = getattr(shell.display_pub, "session", None)
        if session is None:
            raise ConfigError(
                f"notebooks/{name}.ipynb must be run by a Jupyter kernel, with papermill or in "
                f"JupyterLab, and not in {type(shell).__name__}"
            )
        self._committed = committed(name)
        ran = [new_code_cell(source) for source in shell.history_manager.input_hist_raw[1:]]
        self._client = NotebookClient(new_notebook(cells=ran), record_timing=False)
        self._client.clear_before_next_output = False
        # Places of cells, by the request that ran them.
        self._places = {shell.display_pub.parent_header["msg_id"]: len(ran) - 1}
        session.send = self._heard(session)

    def edits(self) -> list[str]:
        """What has run otherwise than the committed notebook has it, in words."""
        return list(edits(self._committed, self._cells))

    def executed(self) -> Any:
        """The committed notebook up to the cell that is running, each cell with what it sent."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # what waits to be sent is sent
        return executed(self._committed, self._cells)

    @property
    def _cells(self) -> list[Any]:
        return [cell for cell in self._client.nb.cells if cell.source.strip()]

    def _heard(self, session: Any) -> Callable[..., Any]:
        """What sends all messages of the kernel, and hands them on to us too."""
        send = session.send

        @functools.wraps(send)
        def heard(*args: Any, **kwargs: Any) -> Any:
            message = send(*args, **kwargs)
            if message is not None:  # a forked process sends nothing
                # As a front end reads it: bytes, such as those of a picture, are text there.
                content = session.unpack(session.pack(message["content"]))
                self._take(message | {"content": content})
            return message

        return heard

    def _take(self, message: Any) -> None:
        kind, request = message["msg_type"], message["parent_header"].get("msg_id")
        cells = self._client.nb.cells
        if kind == "execute_input":
            self._places[request] = len(cells)
            self._client.clear_before_next_output = False
            cells.append(new_code_cell(message["content"]["code"]))
        elif kind in SHOWN and request in self._places:
            place = self._places[request]
            self._client.process_message(message, cells[place], place)
            _join_streams(cells[place].outputs)


def _join_streams(outputs: list[Any]) -> None:
    """Join the last output to the one before if both are of one stream, as it came in pieces."""
    if len(outputs) > 1 and all(o.output_type == "stream" for o in outputs[-2:]):
        before, last = outputs[-2:]
        if before.name == last.name:
            before.text += outputs.pop().text
    if outputs and outputs[-1].output_type == "stream":
        outputs[-1].text = OVERWRITTEN.sub("", outputs[-1].text)


class Matched(NamedTuple):
    """Cells that ran beside those that are committed."""

    wanted: list[Any]  # committed code cells up to the one that ran last
    ran: list[Any]  # cells that ran, the parameters cell as committed if it gave only parameters
    given: dict[str, Any]  # parameters, by name, that are not as committed


def matched(notebook: Any, cells: Sequence[Any]) -> Matched:
    """Cells that ran held against a committed notebook.

    Parameters may be given in the parameters cell itself or, as papermill does, in one behind it.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    own, ran, given = _parameters_cell(notebook), list(cells), {}
    usual = assigned(own.source)
    if _gives_only(usual, ran[0].source) and usual.keys() <= assigned(ran[0].source).keys():
        given = assigned(ran[0].source)
        ran[0] = own
    if ran[1:] and ran[1].source.startswith(INJECTED) and _gives_only(usual, ran[1].source):
        given |= assigned(ran.pop(1).source)
    sources, last = [cell.source.strip() for cell in code], cells[-1].source.strip()
    reached = sources.index(last) + 1 if last in sources else len(ran) - 1
    changed = {n: given[n] for n in usual if n in given and repr(given[n]) != repr(usual[n])}
    return Matched(code[:reached], ran, changed)


def _gives_only(usual: Mapping[str, Any], source: str) -> bool:
    """Whether a cell does nothing but give literal values to parameters."""
    with contextlib.suppress(SyntaxError, ValueError, AttributeError):
        nodes: list[Any] = ast.parse(source).body
        for node in nodes:
            ast.literal_eval(node.value)
        return all(name in usual for name, _ in _assignments(source))
    return False


def edits(notebook: Any, cells: Sequence[Any]) -> Iterator[str]:
    """What ran otherwise than the committed cells up to the one that ran last, in words."""
    wanted, ran, _ = matched(notebook, cells)
    sources, found = ([cell.source.strip() for cell in some] for some in (wanted, ran))
    names = {source: cell.id for source, cell in zip(sources, wanted, strict=True)}
    same = difflib.SequenceMatcher(None, sources, found, autojunk=False)
    for kind, i, j, k, end in same.get_opcodes():
        for old, new in zip_longest(sources[i:j], found[k:end]) if kind != "equal" else ():
            if new is None:
                yield f"cell {names[old]} did not run in its place"
            elif new in names:
                yield f"cell {names[new]} ran again or out of its place"
            elif old is None:
                yield f"another cell ran: {_short(new)}"
            else:
                lines = difflib.ndiff(old.splitlines(), new.splitlines())
                changed = (line for line in lines if line[0] in "+-")
                yield f"cell {names[old]} was edited: {_short(' '.join(changed))}"


def _short(text: str) -> str:
    return textwrap.shorten(text, LONGEST, placeholder=" ...")


def executed(notebook: Any, cells: Sequence[Any]) -> Any:
    """The committed notebook up to the cell that ran last, each cell with what it sent.

    Parameters that are not as committed stand in a cell behind those that are. Counts of
    executions begin at 1, wherever the notebook ran.
    """
    done = copy.deepcopy(notebook)
    wanted, ran, given = matched(done, cells)
    for cell, seen in zip(wanted, ran, strict=True):
        cell.outputs = copy.deepcopy(seen.outputs)
    done.cells = done.cells[: done.cells.index(wanted[-1]) + 1]
    if given:
        lines = [INJECTED, *(f"{name} = {value!r}" for name, value in given.items())]
        cell = new_code_cell("\n".join(lines), id=INJECTED_TAG, metadata={"tags": [INJECTED_TAG]})
        done.cells.insert(done.cells.index(wanted[0]) + 1, cell)
    code = (cell for cell in done.cells if cell.cell_type == "code")
    for count, cell in enumerate(code, start=1):
        for part in (cell, *(o for o in cell.outputs if o.output_type == "execute_result")):
            part.execution_count = count
    return done


def is_complete(notebook: Any) -> bool:
    """Whether every code cell ran to its end without an error.

    papermill's own word is not enough: a kernel that was killed leaves cells marked completed.
    """
    cells = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    return all(
        cell.execution_count is not None
        and all(output.output_type != "error" for output in cell.outputs)
        for cell in cells
    )
