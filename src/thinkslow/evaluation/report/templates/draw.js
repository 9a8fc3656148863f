// Draws every figure in the colours of the page, and again when light turns to dark.
const figures = JSON.parse(document.getElementById("figures").textContent);

function inColours(layout) {
  const style = getComputedStyle(document.documentElement);
  const [text, line, zero] = ["--text", "--line", "--zero"].map((name) => style.getPropertyValue(name).trim());
  const themed = structuredClone(layout);
  themed.paper_bgcolor = themed.plot_bgcolor = "rgba(0,0,0,0)";
  themed.font = { color: text, size: 13, family: "system-ui, sans-serif" };
  themed.hoverlabel = { font: { family: "system-ui, sans-serif" } };
  for (const key of Object.keys(themed).filter((key) => /^[xy]axis/.test(key))) {
    Object.assign(themed[key], { gridcolor: line, zerolinecolor: zero, linecolor: line, tickcolor: line });
  }
  return themed;
}

function draw() {
  for (const [name, figure] of Object.entries(figures)) {
    Plotly.react(name, figure.data, inColours(figure.layout), { responsive: true, displayModeBar: false });
  }
}

draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
