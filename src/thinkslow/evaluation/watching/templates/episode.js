"use strict";
// What the page reads, and how it writes numbers and elements.

const episode = JSON.parse(document.getElementById("episode").textContent);
const arms = episode.arms;
const last = episode.decisions - 1;
const images = episode.parts.filter(part => part.kind === "image");
const numbers = episode.parts.filter(part => part.kind === "numbers");
const settings = Object.fromEntries(episode.settings.map(one => [one.arm, one]));
const BASE = "none";
const DASHES = ["", "", "6 3", "2 3", "8 3 2 3", "1 2", "10 4"];

const colour = index => `var(--arm-${index % 7})`;
const dash = index => DASHES[index % DASHES.length];

function written(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const far = size !== 0 && (size >= 1e6 || size < 1e-4);
  const text = far ? value.toExponential(1) : String(Number(value.toPrecision(digits)));
  return text.replace("-", "−");
}

// Decibels, with the two digits after the point that mean anything.
function decibels(value, sign = false) {
  if (value === null || value === undefined) return "–";
  return `${sign && value > 0 ? "+" : ""}${value.toFixed(2)}`.replace("-", "−");
}

function share(value) {
  return value > 0 && value < 0.001 ? "<0.1%" : `${(100 * value).toFixed(value > 0.995 || value < 0.0995 ? 1 : 0)}%`;
}

function listed(values, write = written) {
  return Array.isArray(values) ? values.map(one => listed(one, write)).join(", ") : write(values);
}

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "text", "circle", "g"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// A name with places at which a narrow column may break it.
function named(name) {
  return name.split(/(?=\+)|(?<=[-=:_/,])/).flatMap((part, i) => (i ? [make("wbr"), part] : [part]));
}

function headed(names, table) {
  const row = make("tr", {}, make("td"));
  for (const [name, index] of names) {
    const arm = index === null ? {} : { class: "arm", style: { "--arm": colour(index) } };
    row.append(make("th", { scope: "col", ...arm }, ...named(name)));
  }
  table.append(make("thead", {}, row));
}

const heads = arms.map((arm, index) => [arm.name, index]);

// The error of a part now (0) or so many steps ahead (1, 2, …, places of `ahead`), by arm.
const errorOf = (arm, part, at, place) => (arm.error[part] && arm.error[part][at] ? arm.error[part][at][place] : null);

// How far a policy was changed: total variation, or the largest change of a mean.
function change(pair, classes) {
  const flat = value => (Array.isArray(value[0]) ? value : [value]);
  const [before, after] = pair.map(flat);
  const each = before.map((row, i) => (Array.isArray(row[0]) ? change([row, after[i]], classes)
    : classes === null ? Math.abs(after[i][0] - row[0])
      : row.reduce((sum, p, j) => sum + Math.abs(after[i][j] - p), 0) / 2));
  return Math.max(...each);
}
