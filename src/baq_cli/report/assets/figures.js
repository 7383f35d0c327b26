"use strict";
// The figures: each takes its element and the page's view, and returns Plotly's data and layout.
// view: {doc, styles, shown, mode, theme}; a trace's meta.method is the method's index.
const baqFigures = (() => {
  const UNITS = {
    gradient_steps: "gradient steps",
    env_steps: "environment steps",
    evaluations: "evaluations",
  };
  const OFFLINE_SHARE = 0.4; // as in the other figures
  const PAD = 0.03; // of an axis, beyond its first and last point
  const LABEL_PAD = 0.07; // the offline phase's last label keeps clear of the hand-over
  const FEW = 5; // more bands than these, one on the other, must be fainter
  const scoreFormat = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
  const counterFormat = new Intl.NumberFormat("en");
  const number = (value) => (value === null ? "–" : scoreFormat.format(value).replace("-", "−"));
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
      fillcolor: translucent(look(view, i).color, many ? 0.08 : 0.15),
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

  const across = (view, title, more) => axis(view, title, { showgrid: false, showline: true, ...more });
  const upward = (view, title, more) => axis(view, title, { ticks: "", automargin: true, ...more });
  const label = (text, more) => ({ text, showarrow: false, font: { size: 13 }, ...more });

  // -- learning curves: two phases beside each other, each in its own unit

  function phaseAxes(task) {
    const axes = {};
    for (const phase of ["offline", "online"]) {
      const curves = Object.values(task.methods)
        .map((of) => of.curves[phase])
        .filter((curve) => curve && curve.counters.length);
      if (!curves.length) continue;
      const units = new Set(curves.map((curve) => curve.unit));
      const end = Math.max(1, ...curves.map((curve) => curve.counters.at(-1)));
      axes[phase] = { unit: units.size === 1 ? curves[0].unit : null, end, phase };
    }
    const both = Object.keys(axes).length === 2;
    Object.values(axes).forEach((of, k) => {
      of.id = k === 0 ? "x" : "x2";
      of.domain = !both ? [0, 1] : k === 0 ? [0, OFFLINE_SHARE] : [OFFLINE_SHARE, 1];
      if (of.unit === null) of.end = 100; // units differ: places are shares of each curve's own end
      const last = both && k === 0 ? LABEL_PAD : PAD;
      of.range = [-PAD * of.end, (1 + last) * of.end];
    });
    return axes;
  }

  function curveTraces(view, task, i, of, curve) {
    const name = plain(view.styles[i].name);
    const results = task.methods[view.styles[i].name];
    const last = Math.max(1, curve.counters.at(-1));
    const x = of.unit === null ? curve.counters.map((at) => (100 * at) / last) : curve.counters;
    const place = { xaxis: of.id, yaxis: "y", cliponaxis: false };
    const said = (who, t, score) =>
      `<b>${name}</b> · ${who}<br>${counterFormat.format(curve.counters[t])} ${UNITS[curve.unit]} ${of.phase}` +
      `<br>${score} ${task.unit}`;
    const seeds = curve.scores.length;
    const whole = seeds === 1 ? "1 seed" : `mean ± std over ${seeds} seeds`;
    const means = curve.mean.map((mean, t) => {
      const spread = curve.std[t] === null ? "" : ` ± ${number(curve.std[t])}`;
      return said(whole, t, number(mean) + spread);
    });
    const traces = [line(view, i, x, curve.mean, means, place)];
    if (view.mode === "interval") {
      const edge = (sign) =>
        curve.mean.map((m, t) => (curve.std[t] === null ? null : m + sign * curve.std[t]));
      return [band(view, i, x, edge(-1), edge(1), place), ...traces];
    }
    const each = curve.scores.map((scores, k) => {
      const who = `seed ${results.seeds[k] ?? k}`;
      const texts = scores.map((score, t) => said(who, t, number(score)));
      const thin = { mode: "lines", opacity: 0.65, meta: { method: i, part: "seed" } };
      const drawn = line(view, i, x, scores, texts, { ...place, ...thin });
      return { ...drawn, line: { ...drawn.line, width: 1 } };
    });
    return [...each, ...traces];
  }

  function curves(element, view) {
    const task = view.doc.tasks[Number(element.dataset.task)];
    const axes = phaseAxes(task);
    const dataset = element.dataset.mean === "" ? null : Number(element.dataset.mean);
    const { ink, faint, shade } = view.theme;
    const data = [];
    const layout = common(view, { yaxis: upward(view, task.unit), shapes: [], annotations: [] });
    for (const of of Object.values(axes)) {
      const counted = of.unit === null ? "% of each method's budget" : UNITS[of.unit];
      const named = `${of.phase} · ${counted}`;
      layout[of.id === "x" ? "xaxis" : "xaxis2"] = across(view, named, {
        domain: of.domain,
        range: of.range,
        anchor: "y",
        nticks: 6,
      });
      if (dataset !== null) {
        data.push({
          type: "scatter",
          mode: "lines",
          x: of.range,
          y: [dataset, dataset],
          line: { color: faint, width: 1.3, dash: "6px,4px" },
          hoverinfo: "skip",
          xaxis: of.id,
          yaxis: "y",
          meta: { part: "dataset" },
        });
      }
      view.styles.forEach(({ name }, i) => {
        const curve = own(task.methods, name)?.curves[of.phase];
        if (!curve || !curve.counters.length || !view.shown[i]) return;
        data.push(...curveTraces(view, task, i, of, curve));
      });
    }
    if (axes.offline && axes.online) {
      const here = { xref: "paper", yref: "paper", x0: OFFLINE_SHARE, x1: OFFLINE_SHARE };
      layout.shapes.push(
        { type: "rect", layer: "below", ...here, x0: 0, y0: 0, y1: 1, fillcolor: shade, line: { width: 0 } },
        { type: "line", ...here, y0: 0, y1: 1, line: { color: ink, width: 1.2 } },
      );
      const top = { xref: "paper", yref: "paper", x: OFFLINE_SHARE, y: 1, yanchor: "bottom" };
      layout.annotations.push(label("hand-over", top));
    }
    if (dataset !== null) {
      layout.margin.r = 76;
      const right = { xref: "paper", x: 1, xanchor: "left", y: dataset, align: "left", xshift: 6 };
      layout.annotations.push(label("dataset<br>mean", { ...right, font: { size: 12, color: faint } }));
    }
    return { data, layout };
  }

  // -- aggregates

  const shownOf = (view, methods) =>
    view.styles.map((_, i) => i).filter((i) => view.shown[i] && Object.hasOwn(methods, view.styles[i].name));
  const bounds = (of) => (of.low === null ? "" : ` [${number(of.low)}, ${number(of.high)}]`);

  /** One panel a number, one row a method: its value, and its interval as a bar. */
  function scores(element, view) {
    const { methods } = view.doc.aggregates;
    const panels = JSON.parse(element.dataset.panels);
    const rows = shownOf(view, methods);
    const names = rows.map((i) => plain(view.styles[i].name, 24));
    const layout = common(view, { annotations: [], margin: { l: 40, r: 24, t: 34, b: 34 } });
    layout.yaxis = upward(view, "", {
      tickvals: rows.map((_, k) => k),
      ticktext: names,
      range: [Math.max(rows.length, 1) - 0.5, -0.5],
      ticklabelstandoff: 8,
    });
    const data = [];
    panels.forEach(([kind, heading], k) => {
      const id = k === 0 ? "" : k + 1;
      const width = 1 / panels.length;
      const domain = [k * width + (k ? 0.02 : 0), (k + 1) * width - (k + 1 < panels.length ? 0.02 : 0)];
      const places = rows.flatMap((i) => {
        const of = own(methods, view.styles[i].name)[kind];
        return of ? [of.low, of.value, of.high].filter((place) => place !== null) : [];
      });
      const [least, most] = [Math.min(...places), Math.max(...places)];
      const pad = 0.08 * (most - least) || 1;
      const range = places.length ? [least - pad, most + pad] : undefined;
      const more = { domain, range, anchor: "y", nticks: 5, showgrid: true };
      layout[`xaxis${id}`] = across(view, "", more);
      const middle = (domain[0] + domain[1]) / 2;
      const top = { xref: "paper", yref: "paper", x: middle, xanchor: "center", y: 1, yanchor: "bottom", yshift: 4 };
      layout.annotations.push(label(`<b>${heading}</b>`, top));
      rows.forEach((i, row) => {
        const of = own(methods, view.styles[i].name)[kind];
        if (!of || of.value === null) return;
        const { color, symbol, size } = look(view, i);
        const common = { type: "scatter", xaxis: `x${id}`, yaxis: "y", cliponaxis: false };
        const bar = { color: translucent(color, 0.4), width: 9 };
        const dot = { color, symbol, size: 10 * size, line: { color: view.theme.paper, width: 1 } };
        const text = `<b>${plain(view.styles[i].name)}</b><br>${heading} ${number(of.value)}${bounds(of)}`;
        data.push(
          { ...common, mode: "lines", x: [of.low, of.high], y: [row, row], line: bar, hoverinfo: "skip", meta: { method: i, part: "interval" } },
          { ...common, mode: "markers", x: [of.value], y: [row], marker: dot, hoverinfo: "text", text: [text], meta: { method: i, part: "value" } },
        );
      });
    });
    return { data, layout };
  }

  /** A line with its interval for each method, over one x axis. */
  function lines(view, x, methods, said, layout) {
    const data = [];
    for (const i of shownOf(view, methods)) {
      const of = own(methods, view.styles[i].name);
      const texts = of.value.map((value, t) => {
        const interval = bounds({ low: of.low[t], high: of.high[t] });
        return `<b>${plain(view.styles[i].name)}</b><br>${said(x[t])}: ${number(value)}${interval}`;
      });
      data.push(band(view, i, x, of.low, of.high), line(view, i, x, of.value, texts));
    }
    return { data, layout: common(view, layout) };
  }

  function profile(element, view) {
    const { profile: of, unit } = view.doc.aggregates;
    return lines(view, of.thresholds, of.methods, (at) => `share of runs above ${number(at)}`, {
      xaxis: across(view, `${unit} τ`),
      yaxis: upward(view, "share of runs above τ", { range: [-0.02, 1.04] }),
    });
  }

  function efficiency(element, view) {
    const { efficiency: of, unit } = view.doc.aggregates;
    const label = UNITS[of.x_label] ?? of.x_label;
    return lines(view, of.x, of.methods, (at) => `IQM at ${number(at)} (${plain(label)})`, {
      xaxis: across(view, plain(label)),
      yaxis: upward(view, `IQM, ${unit}`),
    });
  }

  return { curves, scores, profile, efficiency };
})();
