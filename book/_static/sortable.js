// Headings of table.sortable become buttons that sort the rows; pressed again, they turn the order.
document.addEventListener("DOMContentLoaded", () => {
  for (const head of document.querySelectorAll("table.sortable thead th")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sortBy(head));
  }
});

function sortBy(head) {
  const table = head.closest("table");
  const body = table.tBodies[0];
  const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const text = (row) => row.cells[head.cellIndex].textContent.trim();
  // A number may carry thousands separators, a unit, or an interval behind it.
  const number = (row) => parseFloat(text(row).replace(/,/g, ""));
  const compare = (a, b) => {
    const x = number(a), y = number(b);
    if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return text(a).localeCompare(text(b));
  };
  [...body.rows].sort((a, b) => turn * compare(a, b)).forEach((row) => body.append(row));
  table.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", turn > 0 ? "ascending" : "descending");
}
