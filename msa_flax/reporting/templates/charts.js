// Figures come without colours of text and grid, which follow the page's.
function drawCharts(figures) {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const calm = { displayModeBar: false, responsive: true };

  function themed(printing) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const ink = printing ? "#17202a" : colour("--ink");
    const rule = printing ? "#d3dae1" : colour("--rule");
    const ground = printing ? "#ffffff" : colour("--panel");
    const theme = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, family: getComputedStyle(document.body).fontFamily, size: 13 },
      "hoverlabel.bgcolor": ground,
      "hoverlabel.font.color": ink,
    };
    for (const axis of ["xaxis", "yaxis"]) {
      theme[`${axis}.gridcolor`] = rule;
      theme[`${axis}.zerolinecolor`] = rule;
      theme[`${axis}.linecolor`] = rule;
      theme[`${axis}.tickfont.color`] = ink;
      theme[`${axis}.title.font.color`] = ink;
    }
    // On paper two charts stand beside each other, whatever the width of the window.
    const size = printing ? { width: 335, height: 280 } : { width: null, height: null };
    return Object.assign(theme, size, { autosize: !printing });
  }

  const plots = [...document.querySelectorAll("[data-chart]")];

  function repaint(printing) {
    const theme = themed(printing);
    for (const plot of plots) if (plot.data) Plotly.relayout(plot, theme);
  }

  if (!plots.length) return;
  for (const plot of plots) {
    const figure = figures[plot.dataset.chart];
    Plotly.newPlot(plot, figure.data, figure.layout, calm);
  }
  repaint(false);
  dark.addEventListener("change", () => repaint(false));
  window.addEventListener("beforeprint", () => repaint(true));
  window.addEventListener("afterprint", () => repaint(false));
}
