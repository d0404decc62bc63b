"use strict";
// Times in the data are milliseconds since the run began. Only what lies in the window is drawn.
const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const lanes = find("lanes"), overview = find("overview"), tip = find("tip"), where = find("where");
const LEFT = 74, TOP = 22, LANE = 34, BAR = 18, FOOT = 24;
const rows = ["faults", ...data.nodes.map((node) => "node " + node), "Redis"];
const laneOf = new Map(data.nodes.map((node, at) => [node, at + 1]));
const REDIS = rows.length - 1;
const whole = [0, Math.max(1, data.span)];
let view = whole.slice(), current = null, colours = {};

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["paper", "ink", "dim", "line", "panel", "leadership", "follower", "down", "frozen", "cut", "redis", "mark", "wrong", "band", "bandline", "focus"])
    colours[name] = style.getPropertyValue("--" + name).trim();
}

function sized(canvas, height) {
  const scale = window.devicePixelRatio || 1, width = canvas.clientWidth;
  canvas.style.height = height + "px";
  canvas.width = Math.round(width * scale); canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "12px system-ui, 'DejaVu Sans', sans-serif";
  return [pen, width];
}

// Index of the first item of a list, sorted by begin, that may reach into the window. Items are short against
// a run, and `longest` says how short.
function visible(list, from, to) {
  if (list.longest === undefined) list.longest = list.reduce((most, one) => Math.max(most, one.to - one.from), 0);
  let low = 0, high = list.length;
  while (low < high) { const mid = (low + high) >> 1; if (list[mid].from < from - list.longest) low = mid + 1; else high = mid; }
  const found = [];
  for (let at = low; at < list.length && list[at].from <= to; at++) if (list[at].to >= from) found.push(list[at]);
  return found;
}

const middle = (lane) => TOP + lane * LANE + LANE / 2;

function draw() {
  const height = TOP + rows.length * LANE + FOOT, [pen, width] = sized(lanes, height);
  const [from, to] = view, x = (ms) => LEFT + (ms - from) / (to - from) * (width - LEFT - 8);
  pen.save(); pen.beginPath(); pen.rect(LEFT, 0, width - LEFT, height); pen.clip();
  drawRounds(pen, x, from, to, height);
  const block = (one, lane, colour, tall, lift = 0) => {
    const a = Math.max(LEFT - 2, x(one.from)), b = Math.min(width + 2, x(one.to));
    pen.fillStyle = colour; pen.fillRect(a, middle(lane) - tall / 2 + lift, Math.max(1.2, b - a), tall);
  };
  data.nodes.forEach((node) => {
    pen.strokeStyle = colours.down; pen.lineWidth = 2; pen.setLineDash([2, 4]); pen.beginPath();
    pen.moveTo(LEFT, middle(laneOf.get(node))); pen.lineTo(width, middle(laneOf.get(node))); pen.stroke(); pen.setLineDash([]);
  });
  for (const one of visible(data.lives, from, to)) {
    block(one, laneOf.get(one.node), colours.panel, BAR + 2); block(one, laneOf.get(one.node), colours.follower, BAR);
  }
  for (const one of visible(data.leaderships, from, to)) block(one, laneOf.get(one.node), colours.leadership, BAR);
  for (const one of visible(data.struck, from, to)) {
    block(one, 0, colours[one.look] || colours.dim, 10);
    if (one.look === "redis") block(one, REDIS, colours.redis, BAR);
    else if (one.look === "frozen" || one.look === "cut")
      for (const node of one.nodes) if (laneOf.has(node)) block(one, laneOf.get(node), colours[one.look], 5, BAR / 2 - 1);
  }
  drawNames(pen, x, from, to, width);
  const elections = visible(data.elections, from, to), crowded = elections.length > width / 20;
  for (const one of elections) {
    const at = x(one.from), y = middle(laneOf.get(one.node)) - BAR / 2;
    pen.fillStyle = colours.mark;
    if (crowded) { pen.fillRect(at - 0.5, y - 5, 1, 5); continue; }
    pen.beginPath(); pen.moveTo(at, y + 1); pen.lineTo(at - 4.5, y - 7); pen.lineTo(at + 4.5, y - 7); pen.fill();
  }
  for (const one of visible(data.wrong, from, to)) {
    pen.strokeStyle = colours.wrong; pen.lineWidth = 2; pen.beginPath(); pen.moveTo(x(one.from), TOP - 6); pen.lineTo(x(one.from), height - FOOT); pen.stroke();
  }
  drawAxis(pen, x, from, to, width, height);
  pen.restore();
  pen.fillStyle = colours.ink; pen.textBaseline = "middle";
  rows.forEach((name, lane) => pen.fillText(name, 10, middle(lane)));
  drawOverview(); tell();
}

function drawRounds(pen, x, from, to, height) {
  let last = -1e9;
  visible(data.rounds, from, to).forEach((one) => {
    const a = x(one.from), b = x(one.to);
    if (one.number % 2 === 0 && b - a > 3) { pen.fillStyle = colours.band; pen.fillRect(a, TOP - 4, b - a, height - TOP - FOOT + 4); }
    if (one === current) { pen.strokeStyle = colours.focus; pen.lineWidth = 1.5; pen.strokeRect(a, TOP - 4, b - a, height - TOP - FOOT + 4); }
    const name = String(one.number), space = pen.measureText(name).width + 8, at = Math.max(a, LEFT) + 3;
    if (at > last + space && (b - a > space || at > last + 60)) { pen.fillStyle = colours.dim; pen.textBaseline = "middle"; pen.fillText(name, at, 10); last = at; }
    if (b - a > 120) for (const [ms, word] of [[one.healed, "healed"], [one.settled, "settled"]])
      if (ms !== null) {
        pen.strokeStyle = colours.bandline; pen.lineWidth = 1; pen.setLineDash([3, 3]); pen.beginPath();
        pen.moveTo(x(ms), TOP - 4); pen.lineTo(x(ms), height - FOOT); pen.stroke(); pen.setLineDash([]);
        if (b - x(ms) > 50) { pen.fillStyle = colours.dim; pen.fillText(word, x(ms) + 3, height - FOOT - 8); }
      }
  });
}

function drawNames(pen, x, from, to, width) {
  pen.textBaseline = "middle";
  let last = -1e9;
  for (const one of visible(data.struck, from, to)) {
    const at = Math.max(LEFT + 2, x(one.from)), size = pen.measureText(one.fault).width;
    if (at < last || at + 20 > width || (x(one.to) - x(one.from) < 6 && to - from > 60000)) continue;
    pen.fillStyle = colours.ink; pen.fillText(one.fault, at, middle(0) - 11); last = at + size + 8;
  }
  for (const one of visible(data.leaderships, from, to)) {
    const a = Math.max(LEFT, x(one.from)), b = Math.min(width, x(one.to)), name = "term " + one.term;
    if (b - a > pen.measureText(name).width + 10) { pen.fillStyle = colours.paper; pen.fillText(name, a + 5, middle(laneOf.get(one.node))); }
  }
}

function drawAxis(pen, x, from, to, width, height) {
  const rough = (to - from) / Math.max(2, (width - LEFT) / 130), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  pen.fillStyle = colours.dim; pen.strokeStyle = colours.line; pen.lineWidth = 1; pen.textBaseline = "middle";
  for (let ms = Math.ceil(from / step) * step; ms <= to; ms += step) {
    pen.beginPath(); pen.moveTo(x(ms), height - FOOT); pen.lineTo(x(ms), height - FOOT + 5); pen.stroke();
    pen.fillText(spoken(ms, step), x(ms) + 3, height - FOOT / 2 + 1);
  }
}

function spoken(ms, step = 0) {
  if (step >= 1000 || (!step && ms >= 10000)) return (ms / 1000).toFixed(step && step < 10000 ? (step % 1000 ? 1 : 0) : 1) + " s";
  const digits = step ? Math.max(0, -Math.floor(Math.log10(step))) : 1;
  return ms.toFixed(Math.min(3, digits)) + " ms";
}

function drawOverview() {
  const height = 26, [pen, width] = sized(overview, height), x = (ms) => ms / whole[1] * width;
  const columns = new Float64Array(Math.ceil(width) + 1);
  for (const one of data.leaderships)
    for (let at = Math.max(0, Math.floor(x(one.from))); at <= Math.min(width, x(one.to)); at++) columns[at] = 1;
  pen.fillStyle = colours.leadership;
  columns.forEach((held, at) => { if (held) pen.fillRect(at, 9, 1, 8); });
  pen.fillStyle = colours.cut;
  for (const one of data.struck) pen.fillRect(x(one.from), 3, Math.max(1, x(one.to) - x(one.from)), 4);
  pen.fillStyle = colours.wrong;
  for (const one of data.wrong) pen.fillRect(x(one.from) - 1, 0, 2, height);
  const a = x(view[0]), b = x(view[1]);
  pen.strokeStyle = colours.focus; pen.lineWidth = 2; pen.strokeRect(Math.max(1, a), 1, Math.max(4, Math.min(width - 1, b) - Math.max(1, a)), height - 2);
}

function tell() {
  const span = view[1] - view[0];
  const shown = current && view[0] <= current.to && view[1] >= current.from ? current : null;
  where.textContent = shown ? shown.words : span >= whole[1] ? data.rounds.length + " rounds in " + spoken(whole[1])
    : spoken(view[0]) + " to " + spoken(view[1]);
  const body = find("log").tBodies[0], lines = visible(data.log, view[0], view[1]);
  body.textContent = "";
  if (lines.length > 400) { row(body, "", "", lines.length + " events: zoom in, or choose a round"); return; }
  const base = shown ? shown.from : view[0];
  for (const one of lines) row(body, (one.from - base).toFixed(3), one.who, one.what, one.wrong);
}

function row(body, ...cells) {
  const made = body.insertRow();
  cells.slice(0, 3).forEach((text, at) => { const cell = made.insertCell(); cell.textContent = text; if (at === 0) cell.className = "n"; });
  if (cells[3]) made.className = "wrong";
}

let waiting = false;
function look(from, to) {
  const span = Math.min(whole[1] * 1.02, Math.max(0.05, to - from));
  from = Math.max(-whole[1] * 0.01, Math.min(from, whole[1] * 1.01 - span));
  view = [from, from + span];
  if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; draw(); }); }
}
function zoom(factor, at = (view[0] + view[1]) / 2) { look(at - (at - view[0]) * factor, at + (view[1] - at) * factor); }
function pan(share) { const by = (view[1] - view[0]) * share; look(view[0] + by, view[1] + by); }
function showAll() { choose(null); look(...whole); }

function choose(round) {
  current = round;
  document.querySelectorAll("#rounds tr.current").forEach((one) => one.classList.remove("current"));
  if (!round) return;
  const line = find("row-" + round.number);
  if (line) { line.classList.add("current"); const box = line.closest(".scroll"); box.scrollTop = line.offsetTop - box.clientHeight / 2; }
  const margin = Math.max(20, (round.to - round.from) * 0.06);
  look(round.from - margin, round.to + margin);
}
function neighbour(by) {
  if (!data.rounds.length) return;
  const centre = (view[0] + view[1]) / 2;
  let at = current ? data.rounds.indexOf(current) + by : data.rounds.findIndex((one) => one.to > (view[1] - view[0] >= whole[1] ? 0 : centre));
  choose(data.rounds[Math.max(0, Math.min(data.rounds.length - 1, at))]);
}

function under(event) {
  const box = lanes.getBoundingClientRect(), width = lanes.clientWidth;
  const ms = view[0] + (event.clientX - box.left - LEFT) / (width - LEFT - 8) * (view[1] - view[0]);
  return [ms, Math.floor((event.clientY - box.top - TOP) / LANE), (view[1] - view[0]) / (width - LEFT) * 4];
}
function words(ms, lane, near) {
  const node = data.nodes[lane - 1], found = [];
  const round = visible(data.rounds, ms, ms)[0];
  if (round) found.push(round.words);
  for (const one of visible(data.struck, ms - near, ms + near))
    if (lane === 0 || one.nodes.includes(node) || (lane === REDIS && one.look === "redis")) found.push(one.fault + " of " + (one.nodes.join(", ") || "no node") + ", " + spoken(one.to - one.from) + (one.detail ? ": " + one.detail : ""));
  if (node !== undefined) {
    const leadership = visible(data.leaderships, ms, ms).find((one) => one.node === node);
    const alive = visible(data.lives, ms, ms).some((one) => one.node === node);
    found.push("node " + node + ": " + (leadership ? "active, term " + leadership.term + ", " + spoken(leadership.to - leadership.from) + ", then " + leadership.why : alive ? "follower" : "down"));
    for (const one of visible(data.elections, ms - near, ms + near)) if (one.node === node) found.push("elected in term " + one.term + " (" + one.reason + ")");
  }
  for (const one of visible(data.wrong, ms - near, ms + near)) found.push(one.text);
  return found.join("\n");
}

let dragged = null;
lanes.addEventListener("pointerdown", (event) => { dragged = [event.clientX, view.slice()]; lanes.setPointerCapture(event.pointerId); });
lanes.addEventListener("pointerup", () => { dragged = null; });
lanes.addEventListener("pointermove", (event) => {
  if (dragged) {
    const by = (dragged[0] - event.clientX) / (lanes.clientWidth - LEFT) * (dragged[1][1] - dragged[1][0]);
    look(dragged[1][0] + by, dragged[1][1] + by); tip.hidden = true; return;
  }
  tip.textContent = words(...under(event));
  tip.hidden = !tip.textContent;
  tip.style.left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = Math.min(event.clientY + 16, window.innerHeight - tip.offsetHeight - 8) + "px";
});
lanes.addEventListener("pointerleave", () => { tip.hidden = true; });
lanes.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan(event.deltaX / 1000); else zoom(1.0015 ** event.deltaY, under(event)[0]);
}, { passive: false });
lanes.addEventListener("dblclick", (event) => { const round = visible(data.rounds, under(event)[0], under(event)[0])[0]; if (round) choose(round); });
const moves = {
  ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2), "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1.6),
  0: showAll, Home: showAll, n: () => neighbour(1), p: () => neighbour(-1),
};
lanes.addEventListener("keydown", (event) => {
  const move = moves[event.key];
  if (move && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); move(); }
});
overview.addEventListener("pointerdown", (event) => {
  const ms = (event.clientX - overview.getBoundingClientRect().left) / overview.clientWidth * whole[1], half = (view[1] - view[0]) / 2;
  choose(null); if (half * 2 >= whole[1]) look(ms - whole[1] / 20, ms + whole[1] / 20); else look(ms - half, ms + half);
});
find("previous").addEventListener("click", () => neighbour(-1));
find("next").addEventListener("click", () => neighbour(1));
find("in").addEventListener("click", () => zoom(0.6));
find("out").addEventListener("click", () => zoom(1.6));
find("all").addEventListener("click", showAll);

function chooseNumber(number) { const round = data.rounds.find((one) => one.number === number); if (round) choose(round); }
find("rounds").addEventListener("click", (event) => {
  const line = event.target.closest("tr[data-round]");
  if (line) { chooseNumber(Number(line.dataset.round)); find("timeline-title").scrollIntoView(); }
});
function filter() {
  const wanted = find("filter").value.trim().toLowerCase(), lines = [...find("rounds").tBodies[0].rows];
  let count = 0;
  for (const line of lines) { line.hidden = Boolean(wanted) && !line.dataset.words.includes(wanted); count += !line.hidden; }
  find("shown").textContent = wanted ? count + " of " + lines.length : "";
}
find("filter").addEventListener("input", filter);

function byAddress() { const found = /^#round-(\d+)$/.exec(location.hash); if (found) chooseNumber(Number(found[1])); }
window.addEventListener("hashchange", byAddress);
window.addEventListener("resize", () => look(...view));
const dark = matchMedia("(prefers-color-scheme: dark)");
function recolour() { readColours(); draw(); document.documentElement.dataset.drawn = dark.matches ? "dark" : "light"; }
dark.addEventListener("change", recolour);
byAddress(); recolour();  // in this order the first picture shows the round that was asked for
