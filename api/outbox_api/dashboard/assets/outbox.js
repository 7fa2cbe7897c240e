// What htmx does not do by itself: sentences from pressed buttons, plots, keys, the preview's frame.
"use strict";

const told = (text, isBad) => {
  const line = document.createElement("p");
  line.textContent = text;
  if (isBad) line.className = "bad";
  document.getElementById("told").append(line);
  setTimeout(() => line.remove(), isBad ? 12000 : 6000);
};
document.body.addEventListener("told", (event) => told(event.detail.value, false));
document.body.addEventListener("htmx:responseError", (event) => told(event.detail.xhr.responseText || "It was refused.", true));
document.body.addEventListener("htmx:sendError", () => told("The server cannot be reached.", true));

// A sentence of why the editor cannot be previewed belongs beside it.
document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target && event.detail.target.id === "preview" && event.detail.xhr.status === 422) {
    event.detail.isError = false;
    event.detail.shouldSwap = false;
    const line = document.createElement("p");
    line.className = "notice bad";
    line.textContent = event.detail.xhr.responseText;
    event.detail.target.replaceChildren(line);
  }
});

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
    const find = document.getElementById("find");
    if (find) { event.preventDefault(); find.focus(); }
  }
  if (event.key === "Escape" && isTyping) event.target.blur();
});

// Sample data outlives a save: it is kept in this tab.
const sample = document.getElementById("editor")?.elements.data;
if (sample) {
  const place = `sample ${location.pathname}`;
  sample.value = sessionStorage.getItem(place) ?? sample.value;
  sample.addEventListener("input", () => sessionStorage.setItem(place, sample.value));
}

// The preview's HTML goes into a sandboxed frame by a form: its own policy holds there.
const editor = document.getElementById("editor");
if (editor && document.querySelector("iframe[name=preview-frame]")) {
  const show = () => {
    const form = document.createElement("form");
    form.method = "post";
    form.action = editor.dataset.frame;
    form.target = "preview-frame";
    form.hidden = true;
    for (const [name, value] of new FormData(editor)) {
      const field = document.createElement("textarea");
      field.name = name;
      field.value = value;
      form.append(field);
    }
    document.body.append(form);
    form.submit();
    form.remove();
  };
  document.body.addEventListener("htmx:afterSwap", (event) => { if (event.target.id === "preview") show(); });
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
for (const box of document.querySelectorAll("[data-plots]")) {
  let range = "15m", plots = [], timer = 0;
  const paces = { "15m": 5000, "24h": 60000, "30d": 300000 };
  const axis = () => ({ stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" });
  const when = (at) => {
    const iso = new Date(at * 1000).toISOString();
    return range === "30d" ? iso.slice(5, 10) : iso.slice(11, 16);
  };
  const draw = (data) => {
    const shapes = {
      throughput: [["sent", "--accent"], ["failed", "--bad"]],
      latency: [["p50", "--accent"], ["p95", "--warm"], ["pickup", "--good"]],
    };
    const before = plots;
    plots = [];
    for (const [name, lines] of Object.entries(shapes)) {
      const place = box.querySelector(`[data-plot=${name}]`);
      const values = [data.at, ...lines.map(([key]) => data[key])];
      const series = lines.map(([label, ink]) => ({
        label, stroke: colour(ink), width: 1.5, spanGaps: false, points: { size: 4, show: label !== "sent" && label !== "failed" },
        fill: label === "sent" ? colour("--calm-bg") : undefined,
      }));
      plots.push(new uPlot({
        width: place.clientWidth, height: 170, legend: { show: false }, cursor: { y: false },
        scales: { x: { time: true }, y: { range: (u, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
        axes: [{ ...axis(), size: 30, values: (u, ticks) => ticks.map(when) }, { ...axis(), size: 46 }], series: [{}, ...series],
      }, values, place));
    }
    for (const plot of before) plot.destroy();
  };
  const load = async () => {
    clearTimeout(timer);
    const where = new URLSearchParams({ range });
    if (box.dataset.queue) where.set("queue", box.dataset.queue);
    try {
      const answer = await fetch(`/plots?${where}`, { headers: { "hx-request": "true" } });
      if (answer.ok) draw(await answer.json());
    } catch { /* the next round may do better */ }
    timer = setTimeout(load, paces[range]);
  };
  for (const button of box.querySelectorAll("[data-range]")) {
    button.addEventListener("click", () => {
      range = button.dataset.range;
      for (const each of box.querySelectorAll("[data-range]")) each.setAttribute("aria-pressed", String(each === button));
      load();
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", load);
  addEventListener("resize", () => { for (const plot of plots) plot.setSize({ width: plot.root.parentElement.clientWidth, height: 170 }); });
  load();
}
