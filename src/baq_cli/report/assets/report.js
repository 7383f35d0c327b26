"use strict";
// The page at work: one choice of methods and of curves for all figures, drawn when they come near.
(() => {
  const root = document.documentElement;
  const doc = JSON.parse(document.getElementById("baq-document").textContent);
  const buttons = [...document.querySelectorAll("button.method")];
  const modes = [...document.querySelectorAll("button.mode")];
  const figures = [...document.querySelectorAll(".figure")];
  const view = {
    doc,
    styles: buttons.map((button, i) => ({
      name: doc.methods[i],
      color: Number(button.dataset.color),
      dash: button.dataset.dash,
      symbol: button.dataset.symbol,
      size: Number(button.dataset.size),
    })),
    shown: buttons.map(() => true),
    mode: "interval",
    theme: readTheme(),
    narrow: false, // as a phone is: fewer ticks, shorter words
  };
  const PAPER = 680; // CSS pixels between the margins of a sheet, and some to spare
  const phone = matchMedia("(max-width: 40rem)");
  let printing = false;
  const measure = () => (view.narrow = phone.matches && !printing);
  measure();
  const config = {
    displaylogo: false,
    responsive: true,
    typesetMath: false,
    showSendToCloud: false, // a closed list of buttons: none that sends the data anywhere
    modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
    toImageButtonOptions: { format: "svg" },
  };
  const near = new Set(); // figures in sight or almost
  const stale = new Set(); // figures that don't show the view as it is
  let timer = null;

  /** What happened: the figures' ids that were drawn or failed, and how many wait. */
  window.baqReport = {
    drawn: [],
    failed: [],
    get waiting() {
      return stale.size;
    },
  };

  function readTheme() {
    const styles = getComputedStyle(root);
    const read = (name) => styles.getPropertyValue(`--${name}`).trim();
    const colors = [];
    for (let i = 0; read(`method-${i}`); i++) colors.push(read(`method-${i}`));
    const names = ["ink", "faint", "grid", "paper", "shade"];
    const tones = Object.fromEntries(names.map((name) => [name, read(name)]));
    return { ...tones, band: Number(read("band")), font: read("sans"), colors };
  }

  // -- drawing

  async function draw(figure) {
    stale.delete(figure);
    const first = figure.dataset.drawn !== "true";
    try {
      const { data, layout } = baqFigures[figure.dataset.kind](figure, view);
      const bare = figure.dataset.kind === "scores" || view.narrow; // else on its headings
      const tools = bare || printing ? false : "hover";
      if (printing) layout.width = PAPER;
      const choices = { ...config, displayModeBar: tools };
      await Plotly.react(figure.querySelector(".plot"), data, layout, choices);
      figure.dataset.drawn = "true";
      if (first) window.baqReport.drawn.push(figure.id);
    } catch (error) {
      figure.dataset.failed = String(error);
      figure.querySelector(".plot").textContent = `This figure can't be drawn: ${error}`;
      window.baqReport.failed.push(figure.id);
    }
  }

  /** Draw one figure after the other, those in sight first, and let the page breathe between. */
  function work() {
    timer = null;
    const next = [...near].find((figure) => stale.has(figure)) ?? [...stale][0];
    if (next) draw(next).then(schedule);
  }

  function schedule() {
    if (stale.size && timer === null) timer = setTimeout(work, 0);
  }

  function refresh() {
    for (const figure of figures) if (figure.dataset.drawn === "true") stale.add(figure);
    schedule();
  }

  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) near.delete(target);
        else near.add(target);
        if (isIntersecting && !target.dataset.drawn && !target.dataset.failed) stale.add(target);
      }
      schedule();
    },
    { rootMargin: "400px 0px" },
  );
  for (const figure of figures) observer.observe(figure);

  // -- choices

  function show(i, shown) {
    view.shown[i] = shown;
    buttons[i].setAttribute("aria-pressed", String(shown));
    const parts = document.querySelectorAll(`.matrix [data-method="${i}"]`);
    for (const part of parts) part.hidden = !shown;
  }

  buttons.forEach((button, i) => {
    button.addEventListener("click", () => {
      show(i, !view.shown[i]);
      refresh();
    });
  });
  for (const all of document.querySelectorAll("button.all")) {
    all.addEventListener("click", () => {
      buttons.forEach((_, i) => show(i, all.dataset.shown === "true"));
      refresh();
    });
  }
  for (const mode of modes) {
    mode.addEventListener("click", () => {
      view.mode = mode.dataset.mode;
      document.body.dataset.mode = view.mode;
      for (const other of modes) other.setAttribute("aria-pressed", String(other === mode));
      refresh();
    });
  }
  document.querySelector("button.theme").addEventListener("click", () => baqTheme.toggle());
  root.addEventListener("baq-theme", () => {
    view.theme = readTheme();
    refresh();
  });
  phone.addEventListener("change", () => {
    measure();
    refresh();
  });
  addEventListener("beforeprint", () => {
    printing = true;
    measure();
    figures.forEach(draw);
  });
  addEventListener("afterprint", () => {
    printing = false;
    measure();
    refresh();
  });

  // -- copying: a page from disk may have no clipboard, so select and copy as by hand

  function copySelected(pre) {
    getSelection().selectAllChildren(pre);
    return document.execCommand("copy");
  }

  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      const pre = document.getElementById(button.dataset.of);
      let copied = true;
      try {
        await navigator.clipboard.writeText(pre.textContent);
      } catch {
        copied = copySelected(pre);
      }
      button.textContent = copied ? "Copied" : "Select and copy by hand";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
  }
})();
