"use strict";
(() => {
  const { figures, dark } = JSON.parse(document.getElementById("data").textContent);
  const isDark = matchMedia("(prefers-color-scheme: dark)");
  const isNarrow = matchMedia("(max-width: 720px)");
  const isTouch = matchMedia("(pointer: coarse)");
  const $ = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Figures are drawn in the colours of a light page; a dark one has its own for each.
  const themed = (value) => {
    if (typeof value === "string") return (isDark.matches && dark[value]) || value;
    if (Array.isArray(value)) return value.map(themed);
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, themed(v)]));
    return value;
  };

  const draw = (name, data, layout) => {
    const target = document.getElementById(name);
    if (!target) return null;
    const font = { ...layout.font, family: getComputedStyle(document.body).fontFamily };
    const hoverlabel = { ...layout.hoverlabel, font: { ...layout.hoverlabel.font, family: font.family } };
    const whole = { ...layout, font, hoverlabel, autosize: true, dragmode: isTouch.matches ? false : "zoom" };
    const config = { responsive: true, displaylogo: false, displayModeBar: isNarrow.matches ? false : "hover",
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]], doubleClick: "reset" };
    return Plotly.react(target, themed(data), themed(whole), config);
  };

  const form = document.getElementById("controls");
  const chosen = (name) => $(`input[name=${name}]:checked`, form).map((input) => input.value);

  // Returns a trace with only those of its points that use every chosen part.
  const filtered = (trace, parts) => {
    const of = trace.meta.parts;
    if (!of || !parts.length) return trace;
    const keep = of.map((used) => parts.every((part) => used.includes(part)));
    const pick = (list) => (Array.isArray(list) ? list.filter((_, i) => keep[i]) : list);
    const result = { ...trace };
    for (const key of ["x", "y", "customdata", "text", "textposition", "ids"]) result[key] = pick(trace[key]);
    if (trace.error_y) result.error_y = { ...trace.error_y, array: pick(trace.error_y.array) };
    return result;
  };

  const drawFront = () => {
    if (!form) return null;
    const view = chosen("view")[0] || "dev", shown = chosen("group"), parts = chosen("part");
    for (const label of $("label[data-views]", form)) label.hidden = !label.dataset.views.includes(view);
    let points = 0, total = 0;
    const data = figures.front.data.map((trace) => {
      const visible = trace.meta.view === view && shown.includes(trace.meta.group);
      const result = { ...filtered(trace, parts), visible };
      // a member of the front that was trained again is one configuration all the same
      if (trace.meta.parts && trace.meta.view === view && (view === "test" || trace.meta.group !== "repeats")) {
        total += trace.x.length;
        if (visible) points += result.x.length;
      }
      if (isNarrow.matches && result.mode === "markers+text") result.mode = "markers";
      return result;
    });
    const layout = structuredClone(figures.front.layout);
    const zoom = layout.meta.zoom[view];
    if ($("input[name=zoom]", form)[0].checked && zoom) layout.yaxis = { ...layout.yaxis, range: zoom };
    layout.yaxis.title.text += view === "test" ? ", report-test" : ", search-dev";
    document.getElementById("shown").textContent = points < total ? `${points} of ${total} configurations shown.` : "";
    return draw("front", data, layout);
  };

  const drawAll = () => {
    drawFront();
    for (const [name, { data, layout }] of Object.entries(figures)) if (name !== "front") draw(name, data, layout);
  };

  if (typeof Plotly !== "undefined") {
    drawAll();
    if (form) {
      form.addEventListener("change", drawFront);
      form.addEventListener("submit", (event) => event.preventDefault());
      document.getElementById("front").on("plotly_click", ({ points }) => {
        const winner = points[0].id && document.getElementById(`trial-${points[0].id}`);
        if (!winner) return;
        winner.open = true;
        winner.scrollIntoView({ block: "center" });
      });
    }
    isDark.addEventListener("change", drawAll);
    isNarrow.addEventListener("change", drawAll);
  }

  const copied = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // a page from a file may not have the clipboard
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
  for (const button of $(".copy"))
    button.addEventListener("click", async () => {
      await copied(button.parentElement.querySelector("code").textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent;
    return cell.classList.contains("n") ? (text.trim() === "" ? -Infinity : Number(text.replaceAll(",", ""))) : text;
  };
  for (const header of $(".sortable thead th"))
    header.addEventListener("click", () => {
      const body = header.closest("table").tBodies[0], column = header.cellIndex;
      const up = header.getAttribute("aria-sort") !== "ascending";
      for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", up ? "ascending" : "descending");
      const order = (a, b) => (valueOf(a, column) < valueOf(b, column) ? -1 : valueOf(a, column) > valueOf(b, column) ? 1 : 0);
      body.append(...[...body.rows].sort((a, b) => (up ? order(a, b) : order(b, a))));
    });

  if (location.hash.startsWith("#trial-")) {
    const winner = document.getElementById(location.hash.slice(1));
    if (winner) winner.open = true;
  }
})();
