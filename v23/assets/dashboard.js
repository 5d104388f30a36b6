"use strict";
// Charts, the theme, the kill dialog and the age of what is shown. Nothing here decides anything.
(() => {
  const root = document.documentElement;
  const kept = localStorage.getItem("v23-theme");
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  const colour = name => getComputedStyle(root).getPropertyValue(name).trim();
  const short = v => v == null ? "" : Math.abs(v) >= 1000 ? v.toLocaleString("en-US", {maximumFractionDigits: 0}) : v.toLocaleString("en-US", {maximumFractionDigits: 2});

  function draw(box) {
    const told = JSON.parse(box.dataset.chart);
    const data = [told.x, ...told.series.map(s => s.y)];
    const line = colour("--line"), dim = colour("--dim");
    const axis = {stroke: dim, grid: {stroke: line, width: 1}, ticks: {stroke: line, width: 1}, font: "12px system-ui"};
    box.replaceChildren();
    new uPlot({
      padding: [10, 44, 0, 0], width: box.clientWidth, height: told.height || 240, cursor: {drag: {x: false, y: false}},
      scales: {x: {time: true}},
      axes: [{...axis, space: 80, incrs: [1, 2, 3, 5, 7, 14, 30, 91, 182, 365].map(d => d * 86400), values: (u, vs) => vs.map(v => new Date(v * 1000).toISOString().slice(0, 10))}, {...axis, size: 74, values: (u, vs) => vs.map(short)}],
      series: [{label: "Session", value: (u, v) => v == null ? "" : new Date(v * 1000).toISOString().slice(0, 10)},
        ...told.series.map(s => ({label: s.label, stroke: colour(s.colour), width: 2, dash: s.dash || [], points: {show: told.x.length < 40, size: 5}, value: (u, v) => short(v)}))],
    }, data, box);
  }
  const drawAll = () => document.querySelectorAll("[data-chart]").forEach(draw);

  function ages() {
    document.querySelectorAll("[data-since]").forEach(e => {
      const s = Math.max(0, Date.now() / 1000 - Number(e.dataset.since));
      e.textContent = s < 90 ? `${Math.round(s)} s ago` : s < 5400 ? `${Math.round(s / 60)} min ago` : s < 172800 ? `${Math.round(s / 3600)} h ago` : `${Math.round(s / 86400)} days ago`;
    });
  }
  document.addEventListener("click", event => {
    const opener = event.target.closest("[data-opens]");
    if (opener) {
      const dialog = document.getElementById(opener.dataset.opens);
      if (dialog) { event.preventDefault(); dialog.showModal(); dialog.querySelector("input:not([type=hidden])")?.focus(); }
    }
    if (event.target.closest("[data-closes]")) { event.preventDefault(); event.target.closest("dialog")?.close(); }
    if (event.target.closest("#theme")) {
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      localStorage.setItem("v23-theme", root.dataset.theme);
      drawAll();
    }
  });
  document.addEventListener("submit", event => { event.target.querySelectorAll("button[type=submit]").forEach(b => setTimeout(() => { b.disabled = true; }, 0)); });
  document.addEventListener("DOMContentLoaded", () => { drawAll(); ages(); setInterval(ages, 1000); });
  document.addEventListener("htmx:afterSwap", () => { drawAll(); ages(); });
  document.addEventListener("htmx:responseError", e => { if (e.detail.xhr.status === 401) location.assign("/login"); });
  document.addEventListener("htmx:sseError", () => { const c = document.getElementById("connection"); if (c) { c.hidden = false; } });
  document.addEventListener("htmx:sseOpen", () => { const c = document.getElementById("connection"); if (c) { c.hidden = true; } });
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; drawAll(); } });
})();
