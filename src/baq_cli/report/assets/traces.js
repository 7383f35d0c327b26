"use strict";
// What the figures are made of: names and numbers as text, lines and bands, axes.
// view: {doc, styles, shown, mode, theme}; a trace's meta.method is the method's index.
const baqTraces = (() => {
  const UNITS = {
    gradient_steps: "gradient steps",
    env_steps: "environment steps",
    evaluations: "evaluations",
  };
  const FEW = 5; // more bands than these, one on the other, must be fainter
  const scoreFormat = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
  const counterFormat = new Intl.NumberFormat("en");
  const number = (value) =>
    value === null ? "–" : scoreFormat.format(value).replace("-", "−");
  const bounds = (of) => (of.low === null ? "" : ` [${number(of.low)}, ${number(of.high)}]`);
  const own = (object, name) => (Object.hasOwn(object, name) ? object[name] : undefined);

  /** A name as Plotly shows it literally: it reads some HTML, and no line of a label wraps. */
  function plain(name, most = 60) {
    const short = [...name].length > most ? [...name].slice(0, most - 1).join("") + "…" : name;
    return short.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }

  function translucent(hex, alpha) {
    const parts = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
    return `rgba(${parts.join(", ")}, ${alpha})`;
  }

  function look(view, i) {
    const { color, dash, symbol, size } = view.styles[i];
    return { color: view.theme.colors[color], dash, symbol, size };
  }

  // -- traces

  function line(view, i, x, y, text, more = {}) {
    const { color, dash, symbol, size } = look(view, i);
    return {
      type: "scatter",
      mode: "lines+markers",
      x,
      y,
      text,
      hoverinfo: "text",
      line: { color, dash, width: 2 },
      marker: {
        color,
        symbol,
        size: 7 * size,
        maxdisplayed: 13,
        line: { color: view.theme.paper, width: 1 },
      },
      meta: { method: i, part: "mean" },
      ...more,
    };
  }

  /** What lies between two lines, where both are known. */
  function band(view, i, x, low, high, more = {}) {
    const many = view.shown.filter(Boolean).length > FEW;
    const known = x.map((_, t) => t).filter((t) => low[t] !== null && high[t] !== null);
    const back = [...known].reverse();
    return {
      type: "scatter",
      mode: "lines",
      x: [...known, ...back].map((t) => x[t]),
      y: [...known.map((t) => high[t]), ...back.map((t) => low[t])],
      fill: "toself",
      fillcolor: translucent(look(view, i).color, view.theme.band * (many ? 0.5 : 1)),
      line: { width: 0 },
      hoverinfo: "skip",
      meta: { method: i, part: "band" },
      ...more,
    };
  }

  // -- layout

  function common(view, more) {
    const { ink, faint, paper, font } = view.theme;
    return {
      paper_bgcolor: paper,
      plot_bgcolor: "rgba(0, 0, 0, 0)",
      font: { family: font, size: 13, color: ink },
      hoverlabel: {
        align: "left",
        bgcolor: paper,
        bordercolor: faint,
        font: { family: font, size: 13, color: ink },
      },
      modebar: { bgcolor: "rgba(0, 0, 0, 0)", color: faint, activecolor: ink },
      hovermode: "closest",
      showlegend: false,
      uirevision: "kept", // a zoom outlives a redrawing
      margin: { l: 64, r: 24, t: 34, b: 58 },
      ...more,
    };
  }

  function axis(view, title, more = {}) {
    const { faint, grid } = view.theme;
    return {
      title: { text: title, standoff: 10, font: { size: 13 } },
      gridcolor: grid,
      zeroline: false,
      linecolor: faint,
      tickcolor: faint,
      ticks: "outside",
      ticklen: 4,
      exponentformat: "SI",
      ...more,
    };
  }

  const across = (view, title, more) =>
    axis(view, title, { showgrid: false, showline: true, ...more });
  const upward = (view, title, more) => axis(view, title, { ticks: "", automargin: true, ...more });
  const label = (text, more) => ({ text, showarrow: false, font: { size: 13 }, ...more });

  /** The indices of the shown methods that have something in `methods`. */
  const shownOf = (view, methods) =>
    [...view.styles.keys()].filter((i) => view.shown[i] && own(methods, view.styles[i].name));

  const numbers = { UNITS, number, counter: (value) => counterFormat.format(value), bounds };
  const layout = { common, axis, across, upward, label };
  return { own, plain, look, line, band, translucent, shownOf, ...numbers, ...layout };
})();
