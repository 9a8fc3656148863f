// Figures over the episode: lines, a cursor at the present decision, and what they say there.

const HEIGHT = 128, LEFT = 46, RIGHT = 8, TOP = 6, BOTTOM = 20;

function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(one => one * power).find(one => one >= raw);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return found;
}

// As many digits as tell one tick from the next.
function labels(values) {
  const gap = values.length > 1 ? values[1] - values[0] : 1;
  const digits = Math.max(0, -Math.floor(Math.log10(gap) + 1e-9));
  return values.map(value => (digits > 5 || Math.abs(value) >= 1e6 ? written(value) : value.toFixed(digits).replace("-", "−")));
}

function extent(series, more) {
  let low = Infinity, high = -Infinity;
  for (const one of series) for (const value of one.values) if (value !== null) { low = Math.min(low, value); high = Math.max(high, value); }
  for (const value of more) { low = Math.min(low, value); high = Math.max(high, value); }
  if (low > high) return [0, 1];
  const room = Math.max((high - low) * 0.05, Math.max(Math.abs(high), Math.abs(low)) * 0.01) || 1;
  return [low - room, high + room];
}

class Chart {
  // `series`: {name, index, values, before}; `threshold`, `marks`: of a gate; `count`: of the axis.
  constructor({ title, unit, series, threshold = null, marks = null, from = 1, axis = "decision", step = null, height = HEIGHT }) {
    Object.assign(this, { title, unit, series, threshold, marks, from, axis, height });
    this.count = Math.max(...series.map(one => one.values.length));
    this.bounds = extent(series, threshold === null ? [] : [threshold]);
    this.readout = make("div", { class: "readout" });
    this.svg = make("svg", { role: "img", "aria-label": this.described() });
    this.node = make("figure", {},
      make("figcaption", {}, title, " ", make("span", { class: "unit" }, unit ? `(${unit})` : "")), this.readout, this.svg);
    this.at = 0;
    if (step) this.seekable(step);
  }

  described() {
    const parts = this.series.map(one => {
      const known = one.values.filter(value => value !== null);
      return known.length ? `${one.name} from ${written(Math.min(...known))} to ${written(Math.max(...known))}` : `${one.name} unknown`;
    });
    return `${this.title}${this.unit ? `, ${this.unit}` : ""}: ${parts.join("; ")}`;
  }

  seekable(step) {
    const seek = event => {
      const box = this.svg.getBoundingClientRect();
      const share = (event.clientX - box.left - LEFT) / Math.max(1, box.width - LEFT - RIGHT);
      step(Math.round(share * (this.count - 1)));
    };
    this.svg.addEventListener("pointerdown", event => { this.svg.setPointerCapture(event.pointerId); seek(event); });
    this.svg.addEventListener("pointermove", event => { if (event.buttons) seek(event); });
  }

  x(at) { return LEFT + (this.width - LEFT - RIGHT) * (this.count > 1 ? at / (this.count - 1) : 0.5); }

  y(value) {
    const [low, high] = this.bounds;
    return this.height - BOTTOM - (this.height - BOTTOM - TOP) * (value - low) / (high - low);
  }

  draw() {
    this.width = this.svg.clientWidth || 320;
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    const parts = [];
    const levels = ticks(...this.bounds, 3), said = labels(levels);
    for (const [place, value] of levels.entries()) {
      const y = this.y(value);
      parts.push(make("line", { class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y }));
      parts.push(make("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, said[place]));
    }
    const across = Math.max(2, Math.floor(this.width / 110));
    parts.push(make("text", { x: this.width - RIGHT, y: this.height - 5, "text-anchor": "end" }, this.axis));
    for (const value of this.count > 1 ? ticks(this.from, this.count - 1 + this.from, across) : [this.from]) {
      if (!Number.isInteger(value) || this.x(value - this.from) > this.width - RIGHT - 8 * this.axis.length) continue;
      parts.push(make("text", { x: this.x(value - this.from), y: this.height - 5, "text-anchor": "middle" }, String(value)));
    }
    if (this.threshold !== null) {
      const y = this.y(this.threshold);
      parts.push(make("line", { class: "threshold", x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y }));
    }
    for (const one of this.series) {
      const line = make("path", { class: one.before ? "series before" : "series", d: this.path(one.values), style: { "--arm": colour(one.index) } });
      if (!one.before && dash(one.index)) line.setAttribute("stroke-dasharray", dash(one.index));
      parts.push(line);
    }
    if (this.marks) {
      const bottom = this.height - BOTTOM;
      this.marks.values.forEach((on, at) => {
        if (on) parts.push(make("line", { class: "mark", x1: this.x(at), x2: this.x(at), y1: bottom - 6, y2: bottom, style: { "--arm": colour(this.marks.index) } }));
      });
    }
    this.cursor = make("g");
    this.svg.replaceChildren(...parts, this.cursor);
    this.move(this.at);
  }

  path(values) {
    let text = "", pen = "M";
    values.forEach((value, at) => {
      if (value === null) { pen = "M"; return; }
      text += `${pen}${this.x(at).toFixed(1)} ${this.y(value).toFixed(1)}`;
      if (pen === "M") text += "h0.01";  // seen even where nothing is known beside it
      pen = "L";
    });
    return text || "M0 0";
  }

  move(at) {
    this.at = at;
    if (!this.cursor) return;
    const x = this.x(at);
    const parts = [make("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM })];
    for (const one of this.series) {
      const value = one.values[at];
      if (value === null || value === undefined) continue;
      parts.push(make("circle", { class: "dot", cx: x, cy: this.y(value), r: 3.5, style: { "--arm": one.before ? colour(0) : colour(one.index) } }));
    }
    this.cursor.replaceChildren(...parts);
    const said = this.series.map(one => make("span", { style: { "--arm": one.before ? colour(0) : colour(one.index) } },
      `${one.name} `, make("b", {}, written(one.values[at]))));
    if (this.marks) said.push(make("span", {}, this.marks.values[at] ? "gate open" : "gate closed"));
    this.readout.replaceChildren(...said);
  }
}

const known = values => values.some(value => value !== null && value !== undefined);

// All figures that this episode has something for.
function figures(step) {
  const found = [{ title: "Score so far", unit: "sum of rewards", series: [{ name: episode.acting, index: 0, values: episode.score }] }];
  const base = arms.find(arm => arm.name === BASE) || arms[0];
  if (base.surprise) {
    found.push({ title: "Surprise: what the frame added to the prior", unit: "KL, nats", series: [{ name: "surprise", index: 0, values: base.surprise }] });
  }
  arms.forEach((arm, index) => {
    const how = settings[arm.name];
    if (arm.doubt) {
      found.push({ title: `Gate of ${arm.name}`, unit: `${how.gate}; dashed: threshold`, threshold: Number.isFinite(how.threshold) ? how.threshold : null,
        marks: { index, values: arm.thinks }, series: [{ name: how.gate, index, values: arm.doubt }] });
    }
  });
  arms.forEach((arm, index) => {
    if (!arm.objective) return;
    const terms = settings[arm.name].thinking ? Object.keys(settings[arm.name].thinking.terms).map(term => term.split("(")[0]).join(" + ") : "";
    const at = pick => arm.objective.map(one => (one ? pick(one) : null));
    found.push({ title: `Objective of ${arm.name}`, unit: `${terms}; lower is better`, series: [
      { name: "before", index, values: at(one => one.loss[0]), before: true },
      { name: "after", index, values: at(one => one.loss[one.chosen]) }] });
  });
  const moving = arms.map((arm, index) => ({ name: arm.name, index, values: arm.moved })).filter(one => one.values.some(value => value > 0));
  if (moving.length) found.push({ title: "How far thinking moved the belief", unit: "KL, nats", series: moving });
  for (const part of episode.parts.filter(one => one.decoded)) {
    for (const place of [0, episode.ahead.length]) {
      const when = place ? `${episode.ahead[place - 1]} steps ahead` : "now";
      const of = episode.parts.length > 1 ? `${part.name}, ` : "";
      const others = arms.map((arm, index) => ({ name: arm.name, index,
        values: arm.moved.map((_, at) => {
          const [own, plain] = [errorOf(arm, part.name, at, place), errorOf(base, part.name, at, place)];
          return arm === base ? own : own === null || plain === null ? null : own - plain;
        }) }));
      const alone = others.length === 1, shown = alone ? others : others.filter(one => one.name !== base.name);
      if (!shown.some(one => known(one.values))) continue;
      const title = alone ? `${of}error ${when}` : `${of}${when}: difference from ${base.name}`;
      found.push({ title: title[0].toUpperCase() + title.slice(1), unit: `${part.error}; ${part.kind === "image" ? "higher" : "lower"} is better`, series: shown });
    }
  }
  for (const action of episode.actions) {
    const changed = arms.map((arm, index) => ({ name: arm.name, index,
      values: arm.policy[action.name] ? arm.policy[action.name].map(pair => change(pair, action.classes)) : [] }))
      .filter(one => one.values.length && one.name !== BASE);
    const of = episode.actions.length > 1 ? ` of ${action.name}` : "";
    if (changed.length) found.push({ title: `How far thinking changed the policy${of}`,
      unit: action.classes === null ? "largest change of a mean" : "share of probability moved", series: changed });
  }
  const valued = arms.map((arm, index) => ({ name: arm.name, index, values: (arm.value || []).map(pair => pair[1]) })).filter(one => one.values.length);
  if (valued.length) found.push({ title: "Value of the state", unit: "critic, return", series: valued });
  return found.map(one => new Chart({ ...one, step }));
}
