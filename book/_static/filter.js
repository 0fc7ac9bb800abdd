// Above each table.filterable: a choice for every heading with data-filter. Only rows that have all
// chosen values stay; data-filter="each" says that a cell lists several values, parted by commas.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("table.filterable").forEach(addFilters);
});

function addFilters(table) {
  const rows = [...table.tBodies[0].rows];
  const values = (row, head) => {
    const text = row.cells[head.cellIndex].textContent.trim();
    return head.dataset.filter === "each" ? text.split(", ") : [text];
  };
  const form = document.createElement("form");
  form.className = "filters";
  form.setAttribute("aria-label", `Filter: ${table.caption.textContent}`);
  const choices = [...table.querySelectorAll("th[data-filter]")].map((head) => {
    const found = new Set(rows.flatMap((row) => values(row, head)));
    const select = document.createElement("select");
    select.append(new Option("all", ""), ...[...found].sort().map((v) => new Option(v, v)));
    const label = document.createElement("label");
    label.append(`${head.textContent.trim()} `, select);
    form.append(label);
    return { head, select };
  });
  const reset = document.createElement("button");
  reset.type = "reset";
  reset.textContent = "show all";
  const count = document.createElement("p");
  count.setAttribute("role", "status");
  count.setAttribute("aria-live", "polite");
  form.append(reset, count);

  const update = () => {
    for (const row of rows) {
      row.hidden = !choices.every(
        ({ head, select }) => !select.value || values(row, head).includes(select.value),
      );
    }
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = `${shown} of ${rows.length} rows`;
  };
  form.addEventListener("change", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(update));  // once the choices are back
  (table.closest(".table-scroll") ?? table).before(form);
  update();
}
