"use strict";
// Runs in the head, so that a dark page is never white at first. A choice lasts while it is open.
const baqTheme = (() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  let printing = false; // paper is white
  const apply = () => {
    root.dataset.theme = printing ? "light" : (chosen ?? (dark.matches ? "dark" : "light"));
    root.dispatchEvent(new Event("baq-theme"));
  };
  dark.addEventListener("change", apply);
  for (const [name, starts] of [["beforeprint", true], ["afterprint", false]]) {
    addEventListener(name, () => {
      printing = starts;
      apply();
    });
  }
  apply();
  return {
    toggle() {
      chosen = root.dataset.theme === "dark" ? "light" : "dark";
      apply();
    },
  };
})();
