// Paper is white: pages print in light colours, whatever theme is on the screen.
const root = document.documentElement;
let onScreen = "";
addEventListener("beforeprint", () => {
  onScreen = root.dataset.theme;
  root.dataset.theme = "light";
});
addEventListener("afterprint", () => {
  root.dataset.theme = onScreen;
});
