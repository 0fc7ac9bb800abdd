// What the theme leaves out for keyboards and screen readers.
document.addEventListener("DOMContentLoaded", () => {
  // A name that differs from the words on the button cannot be spoken to call it.
  for (const button of document.querySelectorAll("button[aria-label]")) {
    const words = button.innerText.replace(/\s+/g, " ").trim();
    if (words) button.setAttribute("aria-label", words);
  }
  for (const summary of document.querySelectorAll("summary[aria-label]")) summary.removeAttribute("aria-label");
  for (const icon of document.querySelectorAll("button[aria-label] i[title]")) icon.setAttribute("aria-hidden", "true");
  for (const brand of document.querySelectorAll(".sidebar-primary-item > .navbar-brand")) {
    brand.parentElement.setAttribute("role", "navigation");
    brand.parentElement.setAttribute("aria-label", "Home");
  }
  makeReachable();
});
window.addEventListener("resize", makeReachable);

// What scrolls sideways must be reachable by keyboard; what does not would only be in the way.
function makeReachable() {
  for (const box of document.querySelectorAll(".bd-article table.table, .bd-article pre, mjx-container, .pst-scrollable-table-container")) {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
