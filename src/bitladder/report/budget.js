// Solves the table of the page for the budget of its slider: the same relaxation as assign/solve.py, in the page.
const table = JSON.parse(document.getElementById("sensitivity").textContent);
const rows = table.layers, weights = rows.reduce((sum, row) => sum + row.elements, 0), EPS = 1e-9;
const costOf = {
  bytes: (row, way) => way.bytes,
  avg_bits: (row, way) => way.bits * row.elements / weights,
  milliseconds: (row, way) => way.milliseconds,
};
const rest = {bytes: table.bytes, avg_bits: 0, milliseconds: table.milliseconds ?? 0};
const pairs = table.pairs.map(([a, b, share]) => [rows.findIndex(r => r.name === a), rows.findIndex(r => r.name === b), share]);
const root = (i, picks) => Math.sqrt(Math.max(rows[i].ways[picks[i]].loss, 0));
const lossOf = picks => rows.reduce((sum, row, i) => sum + row.ways[picks[i]].loss, 0)
  + pairs.reduce((sum, [a, b, share]) => sum + 2 * share * root(a, picks) * root(b, picks), 0);
const spent = (what, picks) => rows.reduce((sum, row, i) => sum + costOf[what](row, row.ways[picks[i]]), rest[what]);

function hull(row, what) {
  const cost = row.ways.map(way => costOf[what](row, way)), loss = row.ways.map(way => way.loss);
  const first = (a, b) => loss[a] - loss[b] || cost[a] - cost[b];
  const found = [[...loss.keys()].sort(first)[0]];
  for (;;) {
    const at = found[found.length - 1], slope = k => (loss[k] - loss[at]) / (cost[at] - cost[k]);
    const cheaper = [...cost.keys()].filter(k => cost[k] < cost[at] - EPS);
    if (!cheaper.length) return found;
    found.push(cheaper.sort((a, b) => slope(a) - slope(b) || cost[a] - cost[b])[0]);
  }
}

function plans(what) {  // every plan on the hull, each nested in the one before it
  const ways = rows.map(row => hull(row, what)), steps = [];
  ways.forEach((way, i) => way.slice(1).forEach((to, depth) => {
    const [a, b] = [rows[i].ways[way[depth]], rows[i].ways[to]];
    steps.push({slope: (b.loss - a.loss) / (costOf[what](rows[i], a) - costOf[what](rows[i], b)), i, depth, to});
  }));
  steps.sort((a, b) => a.slope - b.slope || a.i - b.i || a.depth - b.depth);
  const found = [ways.map(way => way[0])];
  for (const step of steps) found.push(found[found.length - 1].with(step.i, step.to));
  return found;
}

function polished(what, limit, picks) {  // single layers changed, the best change first, within the limit
  for (;;) {
    let least = lossOf(picks), best = null;
    rows.forEach((row, i) => row.ways.forEach((_, k) => {
      const other = picks.with(i, k), loss = lossOf(other);
      if (loss < least - EPS && spent(what, other) <= limit + EPS) [least, best] = [loss, other];
    }));
    if (!best) return picks;
    picks = best;
  }
}

function solve(what, limit, on) {
  const kept = on.filter(picks => spent(what, picks) <= limit + EPS).slice(0, 4);
  if (!kept.length) return rows.map(row => row.ways.reduce((m, w, k) => costOf[what](row, w) < costOf[what](row, row.ways[m]) ? k : m, 0));
  return kept.map(picks => polished(what, limit, picks)).reduce((a, b) => lossOf(b) < lossOf(a) ? b : a);
}

function expected(loss) {  // the score at a loss: straight between the points, which fall
  const points = table.curve, last = points.length - 1;
  if (loss <= points[0][0]) return points[0][1];
  const k = points.findIndex(([x]) => x >= loss);
  if (k < 0) return points[last][1];
  const [[x0, y0], [x1, y1]] = [points[k - 1], points[k]];
  return x1 > x0 ? y0 + (y1 - y0) * (loss - x0) / (x1 - x0) : y1;
}

const UNITS = {
  bytes: v => v >= 1e6 ? `${(v / 1e6).toFixed(3)} MB` : `${(v / 1e3).toFixed(1)} kB`,
  avg_bits: v => `${v.toFixed(2)} bits`, milliseconds: v => `${v.toPrecision(3)} ms`,
};
const score = v => table.fraction ? `${(100 * v).toFixed(2)} %` : v.toPrecision(4);
const shade = bits => ["s1", "s2", "s3", "s4", "s5"][[3, 4, 6, 8, 16].findIndex(most => bits <= most)] ?? "s6";
const byId = id => document.getElementById(id), slider = byId("b-slider"), unit = byId("b-unit");
const known = {};

function show() {
  const what = unit.value, on = known[what] ??= plans(what);
  const most = spent(what, on[0]), least = spent(what, on[on.length - 1]), share = slider.value / slider.max;
  const limit = least * (most / least) ** share, picks = solve(what, limit, on), loss = table.base + lossOf(picks);
  const ends = ["low", "high"].map(end => rows.reduce((sum, row, i) => sum + row.ways[picks[i]][end] - row.ways[picks[i]].loss, loss));
  const kinds = Object.keys(UNITS).filter(k => k !== "milliseconds" || table.milliseconds !== null);
  byId("b-limit").textContent = UNITS[what](limit);
  for (const kind of kinds) byId(`b-${kind}`).textContent = UNITS[kind](spent(kind, picks));
  byId("b-loss").textContent = loss.toPrecision(3);
  byId("b-loss-ends").textContent = `${Math.max(ends[0], 0).toPrecision(3)} to ${ends[1].toPrecision(3)}`;
  if (table.curve.length) {
    byId("b-score").textContent = score(expected(loss));
    byId("b-score-ends").textContent = `${score(expected(ends[1]))} to ${score(expected(Math.max(ends[0], 0)))}`;
  }
  rows.forEach((row, i) => {
    const way = row.ways[picks[i]], line = lines[i];
    line.bar.style.width = `${100 * way.bits / widest}%`;
    line.bar.className = `fill ${shade(way.bits)}`;
    line.words.textContent = `${way.format}, ${UNITS.bytes(way.bytes)}`;
  });
  curve(what, on, limit, loss);
}

function curve(what, on, limit, loss) {  // loss against cost along the hull, and where the plan stands
  const [w, h] = [960, 150], at = on.map(p => [spent(what, p), table.base + lossOf(p)]);
  const xs = at.map(p => Math.log(p[0])), ys = at.map(p => Math.log(Math.max(p[1], 1e-9)));
  const place = (v, all, from, to) => from + (to - from) * (v - Math.min(...all)) / (Math.max(...all) - Math.min(...all) || 1);
  const x = v => place(Math.log(v), xs, 10, w - 10), y = v => place(Math.log(Math.max(v, 1e-9)), ys, h - 20, 14);
  byId("b-line").setAttribute("d", at.map((p, k) => `${k ? "L" : "M"}${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join(""));
  byId("b-dot").setAttribute("cx", x(limit));
  byId("b-dot").setAttribute("cy", y(loss));
}

const widest = Math.max(...rows.flatMap(row => row.ways.map(way => way.bits)));
const lines = rows.map(row => {
  const line = byId("b-rows").appendChild(document.createElement("li"));
  const [name, rail, words] = ["span", "span", "span"].map(tag => line.appendChild(document.createElement(tag)));
  [name.className, rail.className, words.className] = ["name", "rail", "words"];
  name.textContent = row.name.replace(/\.weight$/, "");
  return {bar: rail.appendChild(document.createElement("span")), words};
});
for (const input of [slider, unit]) input.addEventListener("input", show);
show();
