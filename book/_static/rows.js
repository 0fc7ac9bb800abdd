// A link to a raw row opens its table.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (const details of document.querySelectorAll("article details")) {
    if (target.compareDocumentPosition(details) & Node.DOCUMENT_POSITION_FOLLOWING) {
      if (details.previousElementSibling === target || target.nextElementSibling === details
          || target.parentElement.nextElementSibling === details) details.open = true;
      break;
    }
  }
}
addEventListener("hashchange", openTarget);
addEventListener("DOMContentLoaded", openTarget);
