"use strict";
// The figures: each takes its element and the page's view, and returns Plotly's data and layout.
const baqFigures = (() => {
  const { UNITS, number, counter, bounds, own, plain, look, shownOf } = baqTraces;
  const { line, band, translucent, common, across, upward, label } = baqTraces;
  const OFFLINE_SHARE = 0.4; // as in the other figures
  const PAD = 0.03; // of an axis, beyond its first and last point
  const LABEL_PAD = 0.07; // the offline phase's last label keeps clear of the hand-over
  const PHONE_PAD = 0.38; // where that label is as wide as a third of the phase
  const GAP = 0.02; // half of the space between two panels

  // -- learning curves: two phases beside each other, each in its own unit

  function phaseAxes(view, task) {
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
      if (of.unit === null) of.end = 100; // units differ: shares of each curve's own end
      const last = !both || k === 1 ? PAD : view.narrow ? PHONE_PAD : LABEL_PAD;
      of.range = [-PAD * of.end, (1 + last) * of.end];
    });
    return axes;
  }

  function curveTraces(view, task, i, of, curve, whole) {
    const name = plain(view.styles[i].name);
    const results = task.methods[view.styles[i].name];
    const last = Math.max(1, curve.counters.at(-1));
    const x = of.unit === null ? curve.counters.map((at) => (100 * at) / last) : curve.counters;
    const place = { xaxis: of.id, yaxis: "y", cliponaxis: !whole };
    const said = (who, t, score) =>
      `<b>${name}</b> · ${who}<br>${counter(curve.counters[t])} ${UNITS[curve.unit]} ${of.phase}` +
      `<br>${score} ${task.unit}`;
    const seeds = curve.scores.length;
    const all = seeds === 1 ? "1 seed" : `mean ± std over ${seeds} seeds`;
    const means = curve.mean.map((mean, t) => {
      const spread = curve.std[t] === null ? "" : ` ± ${number(curve.std[t])}`;
      return said(all, t, number(mean) + spread);
    });
    const traces = [line(view, i, x, curve.mean, means, place)];
    if (view.mode === "interval") {
      const edge = (sign) =>
        curve.mean.map((m, t) => (curve.std[t] === null ? null : m + sign * curve.std[t]));
      return [band(view, i, x, edge(-1), edge(1), place), ...traces];
    }
    const named = results.seeds.length === seeds; // a phase may lack some of them
    const each = curve.scores.map((scores, k) => {
      const who = named ? `seed ${results.seeds[k]}` : `seed ${k + 1} of ${seeds}`;
      const texts = scores.map((score, t) => said(who, t, number(score)));
      const thin = { mode: "lines", opacity: 0.65, meta: { method: i, part: "seed" } };
      const drawn = line(view, i, x, scores, texts, { ...place, ...thin });
      return { ...drawn, line: { ...drawn.line, width: 1 } };
    });
    return [...each, ...traces];
  }

  function datasetTrace(view, of, mean) {
    return {
      type: "scatter",
      mode: "lines",
      x: of.range,
      y: [mean, mean],
      line: { color: view.theme.faint, width: 1.3, dash: "6px,4px" },
      hoverinfo: "skip",
      xaxis: of.id,
      yaxis: "y",
      meta: { part: "dataset" },
    };
  }

  function markDataset(view, layout, mean) {
    const right = { xref: "paper", x: 1, xanchor: "left", xshift: 6, y: mean, align: "left" };
    const font = { size: 12, color: view.theme.faint };
    layout.margin.r = view.narrow ? 48 : 76;
    layout.annotations.push(label(view.narrow ? "data" : "dataset<br>mean", { ...right, font }));
  }

  function markHandover(view, layout) {
    const { ink, shade } = view.theme;
    const paper = { xref: "paper", yref: "paper" };
    const here = { ...paper, x0: OFFLINE_SHARE, x1: OFFLINE_SHARE, y0: 0, y1: 1 };
    const before = { ...here, x0: 0, layer: "below", fillcolor: shade, line: { width: 0 } };
    const top = { ...paper, x: OFFLINE_SHARE, y: 1, yanchor: "bottom" };
    layout.shapes.push({ type: "rect", ...before });
    layout.shapes.push({ type: "line", ...here, line: { color: ink, width: 1.2 } });
    layout.annotations.push(label("hand-over", { ...top, xanchor: "center" }));
  }

  const narrow = (counted) => counted.replace("environment", "env").replace("% of each method's", "%");

  function curves(element, view) {
    const task = view.doc.tasks[Number(element.dataset.task)];
    const axes = phaseAxes(view, task);
    const mean = element.dataset.mean === "" ? null : Number(element.dataset.mean);
    const data = [];
    const sight = element.dataset.sight && JSON.parse(element.dataset.sight);
    const yaxis = upward(view, task.unit, sight ? { range: sight } : {});
    const layout = common(view, { yaxis, shapes: [], annotations: [] });
    for (const of of Object.values(axes)) {
      const counted = of.unit === null ? "% of each method's budget" : UNITS[of.unit];
      const nticks = view.narrow ? 3 : 6;
      const place = { domain: of.domain, range: of.range, anchor: "y", nticks, tickangle: 0 };
      if (view.narrow && of.phase === "offline") place.tickvals = [0, of.end];
      const name = of.id === "x" ? "xaxis" : "xaxis2";
      const title = view.narrow ? `${of.phase}<br>${narrow(counted)}` : `${of.phase} · ${counted}`;
      layout[name] = across(view, title, place);
      if (mean !== null) data.push(datasetTrace(view, of, mean));
      for (const i of shownOf(view, task.methods)) {
        const curve = own(task.methods, view.styles[i].name).curves[of.phase];
        if (curve && curve.counters.length) data.push(...curveTraces(view, task, i, of, curve, !sight));
      }
    }
    if (axes.offline && axes.online) markHandover(view, layout);
    if (mean !== null) markDataset(view, layout, mean);
    return { data, layout };
  }

  // -- aggregates

  /** One panel a number, one row a method: its value, and its interval as a bar. */
  function scores(element, view) {
    const panels = JSON.parse(element.dataset.panels);
    const rows = shownOf(view, view.doc.aggregates.methods);
    const margin = { l: 40, r: 24, t: 34, b: 34 };
    const yaxis = upward(view, "", {
      tickvals: [...rows.keys()],
      ticktext: rows.map((i) => plain(view.styles[i].name, 24)),
      range: [Math.max(rows.length, 1) - 0.5, -0.5],
      ticklabelstandoff: 8,
    });
    const layout = common(view, { yaxis, margin, annotations: [] });
    const data = [];
    panels.forEach(([kind, heading], k) => {
      const id = k === 0 ? "" : k + 1;
      const begin = k === 0 ? 0 : k / panels.length + GAP;
      const end = k + 1 === panels.length ? 1 : (k + 1) / panels.length - GAP;
      const found = rows.map((i) => view.doc.aggregates.methods[view.styles[i].name][kind]);
      const more = { domain: [begin, end], range: rangeOf(found), showgrid: true };
      Object.assign(more, { nticks: view.narrow ? 2 : 5, tickangle: 0 });
      layout[`xaxis${id}`] = across(view, "", { ...more, anchor: "y" });
      const top = { xref: "paper", yref: "paper", x: (begin + end) / 2, y: 1, yshift: 4 };
      const anchors = { xanchor: "center", yanchor: "bottom" };
      layout.annotations.push(label(`<b>${heading}</b>`, { ...top, ...anchors }));
      found.forEach((of, row) => {
        if (of && of.value !== null) data.push(...interval(view, rows[row], row, of, heading, id));
      });
    });
    return { data, layout };
  }

  function rangeOf(found) {
    const all = found.flatMap((of) => (of ? [of.low, of.value, of.high] : []));
    const places = all.filter((place) => place !== null);
    if (!places.length) return undefined;
    const [least, most] = [Math.min(...places), Math.max(...places)];
    const pad = 0.08 * (most - least) || 1;
    return [least - pad, most + pad];
  }

  function interval(view, i, row, of, heading, id) {
    const { color, symbol, size } = look(view, i);
    const place = { type: "scatter", xaxis: `x${id}`, yaxis: "y", cliponaxis: false };
    const bar = {
      mode: "lines",
      x: [of.low, of.high],
      y: [row, row],
      line: { color: translucent(color, 0.4), width: 9 },
      hoverinfo: "skip",
      meta: { method: i, part: "interval" },
    };
    const dot = {
      mode: "markers",
      x: [of.value],
      y: [row],
      marker: { color, symbol, size: 10 * size, line: { color: view.theme.paper, width: 1 } },
      hoverinfo: "text",
      text: [`<b>${plain(view.styles[i].name)}</b><br>${heading} ${number(of.value)}${bounds(of)}`],
      meta: { method: i, part: "value" },
    };
    return [bar, dot].map((trace) => ({ ...place, ...trace }));
  }

  /** A line with its interval for each method, over one x axis. */
  function lines(view, x, methods, said, layout) {
    const data = [];
    for (const i of shownOf(view, methods)) {
      const of = own(methods, view.styles[i].name);
      const texts = of.value.map((value, t) => {
        const ends = bounds({ low: of.low[t], high: of.high[t] });
        return `<b>${plain(view.styles[i].name)}</b><br>${said(x[t])}: ${number(value)}${ends}`;
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
    return lines(view, of.x, of.methods, (at) => `IQM at ${counter(at)} (${plain(label)})`, {
      xaxis: across(view, plain(label)),
      yaxis: upward(view, `IQM, ${unit}`),
    });
  }

  return { curves, scores, profile, efficiency };
})();
