"""A kernel's shell as a recording hears it: cells run, and messages that pass its session."""

from types import SimpleNamespace
from typing import Any

from jupyter_client.session import Session
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

GIVEN = "preset: str = 'smoke'  # what the evidence is worth\nbase: list = []\nseed: int = 0"
CELLS = {
    "parameters": GIVEN,
    "start": "page = session.start(PAGE)\npage.machine()",
    "measure": "page.measure()",
    "answer": "page.answer()",
    "finish": "page.finish()",
    "verdict": "page.judge()",
}
"""Code cells of a notebook of a page, by their ids."""


def a_notebook() -> Any:
    """A committed notebook of those cells, a line of Markdown before each."""
    cells = []
    for name, source in CELLS.items():
        tags = {"tags": ["parameters"]} if name == "parameters" else {"tags": ["hide-input"]}
        cells.append(new_markdown_cell(f"Before {name}.", id=f"before-{name}"))
        cells.append(new_code_cell(source, id=name, metadata=tags))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


class Kernel:
    """A shell that has run some cells, and the session that all its messages pass."""

    def __init__(self, *ran: str) -> None:
        self.display_pub = SimpleNamespace(session=Session(key=b"secret"), parent_header={})
        self.history_manager = SimpleNamespace(input_hist_raw=[""])
        for source in ran:
            self.run(source)

    def run(self, source: str, *messages: tuple[str, dict[str, Any]]) -> None:
        """A cell that sends these messages, each by its kind and content."""
        ran = self.history_manager.input_hist_raw
        ran.append(source)
        self.display_pub.parent_header = {"msg_id": f"request-{len(ran)}"}
        self.send("execute_input", {"code": source, "execution_count": len(ran) - 1})
        for kind, content in messages:
            self.send(kind, content)

    def send(self, kind: str, content: dict[str, Any], parent: str = "") -> None:
        """A message of the cell that runs, or of that of another request."""
        header = {"msg_id": parent} if parent else self.display_pub.parent_header
        socket = SimpleNamespace(send_multipart=lambda *args, **kwargs: None)
        self.display_pub.session.send(socket, kind, content, parent={"header": header})


def said(text: str, name: str = "stdout") -> tuple[str, dict[str, Any]]:
    """A piece of a stream."""
    return "stream", {"name": name, "text": text}


def shown(kind: str = "display_data", place: str = "", **data: Any) -> tuple[str, dict[str, Any]]:
    """Something shown, by its kinds of content; at a place that can be updated, if one is named."""
    content = {"data": {n.replace("_", "/"): v for n, v in data.items()}, "metadata": {}}
    return kind, content | {"transient": {"display_id": place} if place else {}}
