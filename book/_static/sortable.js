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
  const rows = [...body.rows].map((row) => ({ row, key: keyOf(row.cells[head.cellIndex]) }));
  rows.sort((a, b) => compareKeys(a.key, b.key, turn));
  body.append(...rows.map((entry) => entry.row));
  table.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", turn > 0 ? "ascending" : "descending");
}

// Numbers stand before words, and what is unknown stands last whichever way the order turns.
function compareKeys(a, b, turn) {
  if (a === null || b === null) return (a === null) - (b === null);
  const isNumber = [typeof a === "number", typeof b === "number"];
  if (isNumber[0] && isNumber[1]) return turn * (a - b);
  if (isNumber[0] !== isNumber[1]) return turn * (isNumber[0] ? -1 : 1);
  return turn * a.localeCompare(b, "en", { numeric: true });
}

// A number, a text, or null where nothing is known.
function keyOf(cell) {
  if (!cell) return null;
  const text = cell.textContent.replace(/\s+/g, " ").trim();
  if (["", "—", "–", "-", "nan", "NaN"].includes(text)) return null;
  return secondsOf(text) ?? numberOf(text) ?? text;
}

const SECONDS = { d: 86400, h: 3600, min: 60, s: 1, ms: 1e-3, "µs": 1e-6, "μs": 1e-6 };

// 4.2 s, 4 min 10 s, 3 h 20 min
function secondsOf(text) {
  const found = text.match(/^((?:[\d.,]+ ?(?:d|h|min|s|ms|µs|μs)(?![\w/µμ]) ?)+)/);
  if (!found) return null;
  const parts = [...found[1].matchAll(/([\d.,]+) ?([a-zµμ]+)/g)];
  return parts.reduce((sum, part) => sum + parseFloat(part[1].replace(/,/g, "")) * SECONDS[part[2]], 0);
}

const PREFIXES = "kMGTPE";

// A sign, thousands separators, percent, k or Mi before a unit; an interval or words may follow.
// What goes on as a date or a name does (2026-11-22, 3_a) is none.
function numberOf(text) {
  const bare = text.replace(/^[<>≤≥≈~±] ?/, "").replace(/^[−–]/, "-");
  const found = bare.match(/^([+-]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[+-]?\d+)?)(?![\w.:-]*[\d_:])( ?%| ?[A-Za-z][\w/]*)?/i);
  if (!found) return null;
  const value = parseFloat(found[1].replace(/,/g, ""));
  const unit = (found[2] ?? "").trim();
  if (unit === "%") return value / 100;
  const scaled = unit.match(/^([kKMGTPE])(i?)(?:|B|b|FLOPs?|tokens)(?:\/s|\/token)?$/);
  if (!scaled) return value;
  return value * (scaled[2] ? 1024 : 1000) ** (PREFIXES.indexOf(scaled[1].replace("K", "k")) + 1);
}
