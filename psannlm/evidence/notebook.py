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
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import nbformat
import yaml
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from psannlm import ROOT
from psannlm.bench import provenance
from psannlm.config.parse import read_parameters
from psannlm.config.schema import ConfigError
from psannlm.places import public

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
    meant = [c for s, c in cells.items() if s.startswith(INJECTED) or c.keys() & declared.keys()]
    names = [*declared, *(n for n in (meant or [{}])[-1] if n not in declared)]
    return {n: namespace[n] for n in names if n in namespace}


def assigned(source: str) -> dict[str, Any]:
    """Names that the lines of a parameters cell assign, with their literal values."""
    found: dict[str, Any] = {}
    with contextlib.suppress(SyntaxError):  # a cell of magics
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                found[ast.unparse(target)] = _literal(node.value)
    return found


def _literal(node: ast.expr) -> Any:
    with contextlib.suppress(ValueError):
        return ast.literal_eval(node)
    return ast.unparse(node)  # papermill writes float('nan'), which the configuration refuses


def command(name: str, given: Mapping[str, Any]) -> str:
    """A papermill command that gives a notebook these parameters; what was typed may be none."""
    file = f"params/{given['preset']}/{name}.yaml"
    words = ["papermill", f"{NOTEBOOKS.name}/{name}.ipynb", "out.ipynb", "-f", file]
    usual = read_parameters(ROOT / file)
    if changed := {n: value for n, value in given.items() if usual.get(n) != value}:
        values = yaml.safe_dump(changed, default_flow_style=True, sort_keys=False, width=math.inf)
        words += ["-y", values.strip()]
    return public(shlex.join(words))


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
        self.committed = committed(name)
        self._lock = threading.Lock()  # streams are sent by a thread of their own
        ran = [new_code_cell(source) for source in shell.history_manager.input_hist_raw[1:]]
        self._client = NotebookClient(new_notebook(cells=ran), record_timing=False)
        self._client.clear_before_next_output = False
        # Places of cells, by the request that ran them.
        self._places = {shell.display_pub.parent_header["msg_id"]: len(ran) - 1}
        session.send = self._heard(session)

    @property
    def cells(self) -> list[Any]:
        """Every cell that ran, as often as it ran, with what it sent; empty ones left out."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # what waits to be sent is sent
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
                with self._lock:
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


def matched(notebook: Any, ran: Sequence[Any]) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """The committed code cells up to the one that ran last, those that ran, parameters changed.

    Parameters may be given in the parameters cell itself or, as papermill does, in one behind it:
    what ran then is what is committed.
    """
    code, ran, given = _code(notebook), list(ran), {}
    own = _parameters_cell(notebook)
    usual, last = assigned(own.source), ran[-1].source.strip()
    if _gives_only(usual, ran[0].source) and usual.keys() <= assigned(ran[0].source).keys():
        given, ran[0] = assigned(ran[0].source), own
    if ran[1:] and ran[1].source.startswith(INJECTED) and _gives_only(usual, ran[1].source):
        given |= assigned(ran.pop(1).source)
    ends = [end for end, cell in enumerate(code, start=1) if cell.source.strip() == last]
    changed = {n: given[n] for n in usual if n in given and repr(given[n]) != repr(usual[n])}
    return code[: ends[0] if ends else len(ran) - 1], ran, changed


def _code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _gives_only(usual: Mapping[str, Any], source: str) -> bool:
    """Whether a cell does nothing but give literal values to parameters."""
    with contextlib.suppress(SyntaxError, ValueError, AttributeError):
        nodes: list[Any] = ast.parse(source).body
        values = [ast.literal_eval(node.value) for node in nodes]
        return len(values) == len(assigned(source)) and assigned(source).keys() <= usual.keys()
    return False


def edits(notebook: Any, ran: Sequence[Any]) -> Iterator[str]:
    """What ran otherwise than the committed cells up to the one that ran last, in words."""
    names = {cell.source.strip(): cell.id for cell in _code(notebook)}
    wanted, ran, _ = matched(notebook, ran)
    sources, found = ([cell.source.strip() for cell in some] for some in (wanted, ran))
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


def uncommitted(name: str) -> list[str]:
    """What the file of a notebook would run otherwise than the commit has it, in words."""
    return list(edits(committed(name), _code(_lying(name))))


def _short(text: str) -> str:
    return textwrap.shorten(text, LONGEST, placeholder=" ...")


def executed(notebook: Any, ran: Sequence[Any]) -> Any:
    """The committed notebook up to the cell that ran last, each cell with what it sent.

    Parameters that are not as committed stand in a cell behind those that are. Counts of
    executions begin at 1, wherever the notebook ran.
    """
    done = copy.deepcopy(notebook)
    wanted, ran, changed = matched(done, ran)
    for cell, seen in zip(wanted, ran, strict=True):
        cell.outputs = copy.deepcopy(seen.outputs)
    done.cells = done.cells[: done.cells.index(wanted[-1]) + 1]
    if changed:
        lines = [INJECTED, *(f"{name} = {value!r}" for name, value in changed.items())]
        cell = new_code_cell("\n".join(lines), id=INJECTED_TAG, metadata={"tags": [INJECTED_TAG]})
        done.cells.insert(done.cells.index(wanted[0]) + 1, cell)
    for count, cell in enumerate(_code(done), start=1):
        for part in (cell, *(o for o in cell.outputs if o.output_type == "execute_result")):
            part.execution_count = count
    return done


def is_complete(notebook: Any) -> bool:
    """Whether every code cell ran to its end without an error.

    papermill's own word is not enough: a kernel that was killed leaves cells marked completed.
    """
    cells = [cell for cell in _code(notebook) if cell.source.strip()]
    return all(
        cell.execution_count is not None
        and all(output.output_type != "error" for output in cell.outputs)
        for cell in cells
    )
