// Builds the page once, then shows one decision after another.

const by = id => document.getElementById(id);
let at = 0, timer = null;

// --- frames -------------------------------------------------------------------------------------

const cells = [];  // of pictures: what to show in each

function buildFrames() {
  for (const part of images) {
    const table = make("table", { class: part.decoded ? "frames" : "frames alone" });
    table.style.setProperty("--shape", `${part.shape[1]} / ${part.shape[0]}`);
    table.append(make("caption", {}, images.length > 1 ? part.name : "Frames"));
    const columns = part.decoded ? heads : [];
    headed([["what came", null], ...columns], table);
    const body = make("tbody");
    [0, ...(part.decoded ? episode.ahead : [])].forEach((ahead, place) => {
      const name = ahead ? `t+${ahead}` : "now";
      const row = make("tr", {}, make("th", { scope: "row" }, name));
      for (const [arm] of [[null], ...columns.map(([, index]) => [arms[index]])]) {
        const img = make("img", { alt: "", width: part.shape[1], height: part.shape[0] });
        img.style.height = "auto";
        const none = make("span", { class: "none" }), caption = make("div", { class: "caption" });
        row.append(make("td", {}, img, none, caption));
        cells.push({ part, arm, ahead, place, img, none, caption });
      }
      body.append(row);
    });
    table.append(body);
    by("frames").append(table);
    swipeable(table);
  }
  if (images.some(part => part.decoded)) {
    by("frames-note").textContent = "Decoded from the belief of each arm. Rows t+1 and on: imagined from there, under the actions that were " +
      `taken, beside the frames that came. Numbers: PSNR of ${BASE} in dB, and the difference of every other arm.`;
  }
}

function showFrames() {
  for (const { part, arm, ahead, place, img, none, caption } of cells) {
    const frame = at + ahead, beyond = frame > last + 1;
    const when = ahead ? `${ahead} steps after decision ${at + 1}` : `decision ${at + 1}`;
    let source = null, what = `What came, ${when}`, said = "";
    if (arm === null) {
      source = beyond ? null : episode.came[part.name][frame];
      if (source && !episode.current[frame]) said = "missing or old";
      if (beyond) said = "after the end";
    } else {
      const decoded = ahead ? arm.imagined[part.name][at] : arm.decoded[part.name];
      source = decoded && (ahead ? decoded[place - 1] : decoded[at]);
      what = `${ahead ? "Imagined" : "Decoded"} by ${arm.name}, ${when}`;
      const own = errorOf(arm, part.name, at, place), plain = errorOf(arms[0], part.name, at, place);
      if (own !== null) said = arm === arms[0] ? `${decibels(own)} dB` : plain === null ? "" : arm.thinks[at] ? decibels(own - plain, true) : "as none";
    }
    img.hidden = !source;
    none.hidden = Boolean(source);
    if (source) { img.src = source; img.alt = what; } else { img.removeAttribute("src"); img.alt = ""; }
    caption.textContent = said;
  }
}

function swipeable(node) {
  let start = null;
  node.addEventListener("pointerdown", event => { start = [event.clientX, event.clientY]; });
  node.addEventListener("pointerup", event => {
    if (!start) return;
    const [x, y] = [event.clientX - start[0], event.clientY - start[1]];
    start = null;
    if (Math.abs(x) > 30 && Math.abs(x) > 2 * Math.abs(y)) { pause(); go(at + (x < 0 ? 1 : -1)); }
  });
  node.addEventListener("pointercancel", () => { start = null; });
  node.addEventListener("dragstart", event => event.preventDefault());
}

// --- tables -------------------------------------------------------------------------------------

const SHOWN = 8;  // rows of a vector that are not folded
const numberCells = [];  // cells of numbers, with what to write in each

function buildNumbers() {
  const flat = value => (Array.isArray(value) ? value : [value]);
  for (const part of numbers) {
    const columns = part.decoded ? heads : [];
    const count = flat(episode.came[part.name][0]).length;
    const rows = Array.from({ length: count }, (_, row) => {
      const line = make("tr", {}, make("th", { scope: "row" }, count > 1 ? `${part.name}[${row}]` : part.name));
      const cell = value => { const td = make("td"); numberCells.push([td, value]); line.append(td); };
      cell(() => written(flat(episode.came[part.name][at])[row]));
      for (const [, index] of columns) cell(() => written(flat(arms[index].decoded[part.name][at])[row]));
      return line;
    });
    const errors = make("tr", {}, make("th", { scope: "row" }, part.error), make("td"));
    for (const [, index] of columns) {
      const td = make("td");
      numberCells.push([td, () => written(errorOf(arms[index], part.name, at, 0))]);
      errors.append(td);
    }
    const table = (caption, some) => {
      const node = make("table", { class: "facts numbers" }, make("caption", {}, caption));
      headed([["what came", null], ...columns], node);
      node.append(make("tbody", {}, ...some));
      return node;
    };
    by("numbers").append(table(part.name, [...rows.slice(0, SHOWN), ...(part.decoded ? [errors] : [])]));
    const whole = part.shape.reduce((a, b) => a * b, 1);
    if (count > SHOWN) {
      const of = whole > count ? ` (the first of ${whole})` : "";
      by("numbers").append(make("details", {}, make("summary", {}, `${count - SHOWN} more numbers of ${part.name}${of}`),
        table(`${part.name}, from ${SHOWN}`, rows.slice(SHOWN))));
    }
  }
}

const showNumbers = () => numberCells.forEach(([td, value]) => { td.textContent = value(); });

function rowsOfDecision() {
  const rows = [];
  const row = (name, write, when = () => true) => { if (arms.some(when)) rows.push([name, arm => (when(arm) ? write(arm) : "–")]); };
  for (const action of episode.actions) {
    row(episode.actions.length > 1 ? `takes: ${action.name}` : "takes action", arm => listed(arm.action[action.name][at]));
  }
  row("belief moved, nats", arm => written(arm.moved[at]), arm => arm.moved.some(value => value > 0));
  row("objective, before → after", arm => {
    const one = arm.objective[at];
    return one ? `${written(one.loss[0])} → ${written(one.loss[one.chosen])}` : "did not think";
  }, arm => arm.objective);
  row("gate: score, threshold", arm => `${written(arm.doubt[at])}, ${written(settings[arm.name].threshold)}: ${arm.thinks[at] ? "open" : "closed"}`, arm => arm.doubt);
  row("entropy of the belief, nats", arm => written(arm.entropy_after[at]), arm => arm.entropy_after);
  row("value of the state", arm => written(arm.value[at][1]), arm => arm.value);
  return rows;
}

function showDecision() {
  const table = make("table", { class: "facts" });
  headed(heads, table);
  const body = make("tbody");
  for (const [name, write] of rowsOfDecision()) {
    body.append(make("tr", {}, make("th", { scope: "row" }, name), ...arms.map(arm => make("td", {}, write(arm)))));
  }
  table.append(body);
  const came = [`Reward ${written(episode.reward[at])}, score ${written(episode.score[at], 4)}.`];
  const surprise = arms[0].surprise;
  if (surprise) came.push(`Surprise ${written(surprise[at])} nats.`);
  if (!episode.current[at]) came.push("The frame is missing or old.");
  by("decision").replaceChildren(make("p", { class: "note" }, came.join(" ")), table);
}

const MOST_ROWS = 20;

function showPolicy() {
  const shown = episode.actions.filter(action => arms.some(arm => arm.policy[action.name]));
  by("policy-title").hidden = !shown.length;
  const tables = shown.map(action => {
    const told = arms.map((arm, index) => ({ arm, index, pair: arm.policy[action.name] && arm.policy[action.name][at] }));
    const table = make("table", { class: "facts policy" });
    const unit = action.classes === null ? "mean ± deviation" : "probability";
    table.append(make("caption", {}, episode.actions.length > 1 ? `${action.name}: ${unit}` : `${unit[0].toUpperCase()}${unit.slice(1)} of each action${action.classes === null ? ", from −1 to 1" : ""}`));
    headed(heads, table);
    const body = make("tbody");
    const rows = action.classes === null ? continuous(action, told) : discrete(action, told);
    rows.slice(0, MOST_ROWS).forEach(row => body.append(row));
    table.append(body);
    const rest = rows.length - MOST_ROWS;
    return rest > 0 ? make("div", {}, table, make("p", { class: "note" }, `${rest} more rows are in the data.`)) : table;
  });
  by("policy").replaceChildren(...tables);
}

function discrete(action, told) {
  const flatten = probs => (Array.isArray(probs[0]) ? probs.flatMap(flatten) : [probs]);
  const factors = flatten(told[0].pair[1]).length;
  const rows = [];
  for (let factor = 0; factor < factors; factor += 1) {
    for (let value = 0; value < action.classes; value += 1) {
      const name = factors > 1 ? `${action.name}[${factor}] = ${value}` : `${action.name} ${value}`;
      const row = make("tr", {}, make("th", { scope: "row" }, name));
      for (const { arm, index, pair } of told) {
        const chance = flatten(pair[1])[factor][value];
        const taken = [arm.action[action.name][at]].flat()[factor] === value;
        row.append(make("td", { style: { "--arm": colour(index) } }, make("div", { class: taken ? "cell taken" : "cell" },
          make("div", { class: "fill", style: { width: `${100 * chance}%` } }),
          make("span", { class: "says" }, `${taken ? "takes " : ""}${share(chance)}`))));
      }
      rows.push(row);
    }
  }
  return rows;
}

function continuous(action, told) {
  const flatten = value => (Array.isArray(value[0]) ? value.flatMap(flatten) : [value]);
  const percent = value => Math.max(0, Math.min(100, 50 * (value + 1)));
  const dimensions = flatten(told[0].pair[1]);
  return dimensions.map((_, row) => {
    const line = make("tr", {}, make("th", { scope: "row" }, dimensions.length > 1 ? `${action.name}[${row}]` : action.name));
    for (const { arm, index, pair } of told) {
      const [mean, deviation] = flatten(pair[1])[row];
      const spread = deviation === null ? 0 : deviation, low = percent(mean - spread);
      const taken = [arm.action[action.name][at]].flat()[row];
      line.append(make("td", { style: { "--arm": colour(index) } }, make("div", { class: "cell" },
        make("div", { class: "band", style: { left: `${low}%`, width: `${percent(mean + spread) - low}%` } }),
        make("div", { class: "tick", style: { left: `calc(${percent(taken)}% - 1px)` } }),
        make("span", { class: "says" }, `${written(mean, 2)} ± ${written(deviation, 2)}`)), `takes ${written(taken, 2)}`));
    }
    return line;
  });
}

function showDescent() {
  const found = arms.map((arm, index) => ({ arm, index, one: arm.objective && arm.objective[at] })).filter(each => each.one && each.one.loss.length > 2);
  if (!found.length) { by("descent").replaceChildren(); return; }
  const drawn = found.map(({ arm, index, one }) => {
    const chart = new Chart({ title: arm.name, unit: "objective; lower is better", from: 0, axis: "step", height: 88, series: [{ name: "returned", index, values: one.loss }] });
    chart.at = one.chosen;
    return { chart, status: one.status };
  });
  by("descent").replaceChildren(make("h3", {}, "Refinement, step by step"),
    make("div", { class: "descents" }, ...drawn.map(({ chart, status }) => make("div", {}, chart.node, make("div", { class: "note" }, `Stopped: ${status}.`)))));
  drawn.forEach(({ chart }) => chart.draw());
}

// --- moving -------------------------------------------------------------------------------------

const charts = figures(step => { pause(); go(step); });

function go(step, remember = true) {
  at = Math.max(0, Math.min(last, step));
  showFrames();
  showNumbers();
  showDecision();
  showPolicy();
  showDescent();
  charts.forEach(chart => chart.move(at));
  const said = `Decision ${at + 1} of ${last + 1}`;
  by("position").textContent = said;
  by("slider").value = at + 1;
  by("slider").setAttribute("aria-valuetext", said);
  for (const id of ["first", "back"]) by(id).setAttribute("aria-disabled", at === 0);
  for (const id of ["forward", "last"]) by(id).setAttribute("aria-disabled", at === last);
  if (remember) history.replaceState(null, "", `#decision=${at + 1}`);
}

function pause() {
  clearInterval(timer);
  timer = null;
  by("play").classList.remove("playing");
  by("play").setAttribute("aria-label", "Play");
  by("position").setAttribute("aria-live", "polite");
}

function play() {
  if (at === last) go(0);
  clearInterval(timer);
  timer = setInterval(() => { go(at + 1); if (at === last) pause(); }, 1000 / Number(by("speed").value));
  by("play").classList.add("playing");
  by("play").setAttribute("aria-label", "Pause");
  by("position").setAttribute("aria-live", "off");
}

const toggle = () => (timer ? pause() : play());

const surprises = (() => {
  const values = arms[0].surprise;
  if (!values) return [];
  const sorted = values.filter(value => value !== null).sort((a, b) => b - a);
  const least = sorted[Math.max(0, Math.ceil(sorted.length / 10) - 1)];
  return values.map((value, step) => (value !== null && value >= least ? step : -1)).filter(step => step >= 0);
})();

function nextSurprise() {
  if (!surprises.length) return;
  pause();
  go(surprises.find(step => step > at) ?? surprises[0]);
}

const moves = { first: () => 0, back: () => at - 1, forward: () => at + 1, last: () => last };
for (const [id, where] of Object.entries(moves)) by(id).addEventListener("click", () => { pause(); go(where()); });
by("play").addEventListener("click", toggle);
by("surprise").addEventListener("click", nextSurprise);
by("surprise").hidden = !surprises.length;
by("slider").addEventListener("input", event => { pause(); go(Number(event.target.value) - 1); });
by("speed").addEventListener("change", () => { if (timer) play(); });

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  const far = event.shiftKey ? 10 : 1;
  const keys = { ArrowLeft: () => go(at - far), ArrowRight: () => go(at + far), Home: () => go(0), End: () => go(last), s: nextSurprise, S: nextSurprise };
  if (event.key === " ") {
    if (event.target.closest("button, summary, a")) return;
    event.preventDefault();
    toggle();
  } else if (keys[event.key]) {
    event.preventDefault();
    pause();
    keys[event.key]();
  }
});

const asked = () => { const found = /^#decision=(\d+)$/.exec(location.hash); return found ? Number(found[1]) - 1 : 0; };
addEventListener("hashchange", () => { pause(); go(asked(), false); });

arms.forEach((arm, index) => {
  const line = make("svg", { "aria-hidden": "true", viewBox: "0 0 28 10" }, make("path", { class: "series", d: "M0 5H28", "stroke-dasharray": dash(index), style: { "--arm": colour(index) } }));
  by("legend").append(make("li", {}, line, arm.name));
});
buildFrames();
buildNumbers();
by("charts").append(...charts.map(chart => chart.node));
charts.forEach(chart => chart.draw());
new ResizeObserver(() => charts.forEach(chart => { if (chart.svg.clientWidth !== chart.width) chart.draw(); })).observe(by("charts"));
go(asked(), false);
