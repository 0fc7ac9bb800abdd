"""The executed notebook, rebuilt inside the kernel from what it ran and sent, whoever asked it to.

A front end may keep its file anywhere, late, or nowhere. The kernel knows the source of every cell
that it ran, and all that it sent to be shown; the committed notebook has the rest.
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
# Messages that change what a notebook shows.
SHOWN = {"stream", "error", "clear_output", "execute_result", "display_data", "update_display_data"}
shorten = functools.partial(textwrap.shorten, width=200, placeholder=" ...")  # a difference
OVERWRITTEN = re.compile(r"[^\n]*\r(?=[^\r\n])")  # a terminal writes over it, as progress bars do


def committed(name: str) -> Any:
    """The notebook of a page as committed; as it lies in notebooks/ where no commit has it."""
    content = provenance.committed(f"{NOTEBOOKS.name}/{name}.ipynb")
    return nbformat.reads(content.decode(), as_version=4) if content else _file(name)


def default_parameters(name: str) -> dict[str, Any]:
    """Names and values of the parameters cell of a notebook, as it lies in notebooks/."""
    return assigned(_parameters_cell(_file(name)).source)


def _file(name: str) -> Any:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def _parameters_cell(notebook: Any) -> Any:
    [cell] = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    return cell


def given_parameters(name: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all names that the notebook declares, and of those given that it does not.

    Every name that a cell assigns beside a parameter is meant as one, whoever wrote the cell.
    """
    names = default_parameters(name)
    cells = {source: assigned(source) for source in namespace.get("In", [])}
    given = [c for s, c in cells.items() if s.startswith(INJECTED) or c.keys() & names.keys()]
    names |= given[-1] if given else {}
    return {n: namespace[n] for n in names if n in namespace}


def assigned(source: str) -> dict[str, Any]:
    """Names that the lines of a parameters cell assign, with their literal values."""
    values: dict[str, Any] = {}
    with contextlib.suppress(SyntaxError):  # a cell of magics
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                values[ast.unparse(target)] = _literal(node.value)
    return values


def _literal(node: ast.expr) -> Any:
    with contextlib.suppress(ValueError):
        return ast.literal_eval(node)
    return ast.unparse(node)  # papermill writes float('nan'), which the configuration refuses


def command(name: str, given: Mapping[str, Any]) -> str:
    """A papermill command that gives a notebook these parameters, however they were given."""
    file = f"params/{given['preset']}/{name}.yaml"
    words = ["papermill", f"{NOTEBOOKS.name}/{name}.ipynb", "out.ipynb", "-f", file]
    preset = read_parameters(ROOT / file)
    if changed := {n: value for n, value in given.items() if preset.get(n) != value}:
        style: dict[str, Any] = {"default_flow_style": True, "width": math.inf}  # on one line
        words += [
            "-y",
            yaml.safe_dump(changed, sort_keys=False, allow_unicode=True, **style).strip(),
        ]
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
        ran = [new_code_cell(source) for source in shell.history_manager.input_hist_raw[1:]]
        self._client = NotebookClient(new_notebook(cells=ran), record_timing=False)
        self._client.clear_before_next_output = False
        # Indices of cells, by the request that ran them.
        self._cells = {shell.display_pub.parent_header["msg_id"]: len(ran) - 1}
        session.send = self._recorded(session)

    @property
    def cells(self) -> list[Any]:
        """Every cell that ran, as often as it ran, with what it sent; empty ones left out."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # what waits to be sent is sent
        return [cell for cell in self._client.nb.cells if cell.source.strip()]

    def _recorded(self, session: Any) -> Callable[..., Any]:
        """What sends the messages of the kernel, and records them."""
        send, alone = session.send, threading.Lock()  # a thread of their own sends streams

        @functools.wraps(send)
        def send_and_record(*args: Any, **kwargs: Any) -> Any:
            message = send(*args, **kwargs)
            if message is not None:  # a forked process sends nothing
                # As a front end reads it: bytes, such as those of a picture, are text there.
                content = session.unpack(session.pack(message["content"]))
                with alone:
                    self._record(message | {"content": content})
            return message

        return send_and_record

    def _record(self, message: Any) -> None:
        kind, request = message["msg_type"], message["parent_header"].get("msg_id")
        cells = self._client.nb.cells
        if kind == "execute_input":
            self._cells[request] = len(cells)
            self._client.clear_before_next_output = False
            cells.append(new_code_cell(message["content"]["code"]))
        elif kind in SHOWN and request in self._cells:
            index = self._cells[request]
            self._client.process_message(message, cells[index], index)
            _join_streams(cells[index].outputs)


def _join_streams(outputs: list[Any]) -> None:
    """Join the last output to the one before if both are of one stream, as it came in pieces."""
    if not outputs or outputs[-1].output_type != "stream":
        return
    if len(outputs) > 1 and outputs[-2].get("name") == outputs[-1].name:  # only streams have names
        last = outputs.pop()
        outputs[-1].text += last.text
    outputs[-1].text = OVERWRITTEN.sub("", outputs[-1].text)


def matched(notebook: Any, ran: Sequence[Any]) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """The committed code cells up to the one that ran last, those that ran, parameters changed.

    A cell that ran and gives parameters, be it edited or papermill's, is none that was changed.
    """
    code, ran, own, last = _code(notebook), list(ran), _parameters_cell(notebook), ran[-1].source
    default = given = assigned(own.source)
    if _gives_only(default, ran[0].source) and default.keys() <= assigned(ran[0].source).keys():
        given, ran[0] = assigned(ran[0].source), own
    if ran[1:] and ran[1].source.startswith(INJECTED) and _gives_only(default, ran[1].source):
        given = given | assigned(ran.pop(1).source)
    ends = [end for end, cell in enumerate(code, start=1) if cell.source.strip() == last.strip()]
    changed = {n: given[n] for n in default if repr(given[n]) != repr(default[n])}
    return code[: ends[0] if ends else len(ran) - 1], ran, changed


def _code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _gives_only(parameters: Mapping[str, Any], source: str) -> bool:
    """Whether a cell does nothing but give literal values to parameters."""
    with contextlib.suppress(SyntaxError, ValueError, AttributeError):
        nodes: list[Any] = ast.parse(source).body
        values = [ast.literal_eval(node.value) for node in nodes]
        return len(values) == len(assigned(source)) and assigned(source).keys() <= parameters.keys()
    return False


def edits(notebook: Any, ran: Sequence[Any]) -> Iterator[str]:
    """What ran otherwise than the committed cells up to the one that ran last, in words."""
    names = {cell.source.strip(): cell.id for cell in _code(notebook)}
    wanted, ran, _ = matched(notebook, ran)
    before, after = ([cell.source.strip() for cell in cells] for cells in (wanted, ran))
    same = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for kind, i, j, k, end in same.get_opcodes():
        for old, new in zip_longest(before[i:j], after[k:end]) if kind != "equal" else ():
            if new is None:
                yield f"cell {names[old]} did not run in its place"
            elif new in names:
                yield f"cell {names[new]} ran again or out of its place"
            elif old is None:
                yield f"another cell ran: {shorten(new)}"
            else:
                lines = difflib.ndiff(old.splitlines(), new.splitlines())
                changed = (line for line in lines if line[0] in "+-")
                yield f"cell {names[old]} was edited: {shorten(' '.join(changed))}"


def uncommitted(name: str) -> list[str]:
    """What the file of a notebook would run otherwise than the commit has it, in words."""
    return list(edits(committed(name), _code(_file(name))))


def executed(notebook: Any, ran: Sequence[Any]) -> Any:
    """The committed notebook up to the cell that ran last, each cell with what it sent.

    Parameters that are not as committed stand in a cell behind those that are. Counts begin at 1.
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
    """Whether every code cell ran to its end without an error."""
    cells = [cell for cell in _code(notebook) if cell.source.strip()]
    failed = any(output.output_type == "error" for cell in cells for output in cell.outputs)
    return not failed and all(cell.execution_count is not None for cell in cells)
