(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const find = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];

  // The operating point.

  const slider = find("#threshold");
  const reset = find("#reset");
  let announcing = 0;

  function show(threshold) {
    const c = confusion(data.labels, data.probabilities, threshold);
    const n = rates(c);
    const text = threshold === data.threshold ? data.threshold_text : String(threshold);
    find("#threshold-value").textContent = text;
    slider.setAttribute("aria-valuetext", `threshold ${text}`);
    for (const cell of all("[data-count]")) cell.textContent = c[cell.dataset.count];
    for (const cell of all("[data-number]")) cell.textContent = shown(n[cell.dataset.number]);
    reset.disabled = threshold === data.threshold;
    move(n);
    clearTimeout(announcing); // said once the slider rests
    announcing = setTimeout(() => {
      find("#live").textContent =
        `At threshold ${text}: accuracy ${shown(n.accuracy)}, sensitivity ` +
        `${shown(n.recall)}, specificity ${shown(n.specificity)}, PPV ${shown(n.precision)}, ` +
        `NPV ${shown(n.npv)}, F1 ${shown(n.f1)}, MCC ${shown(n.mcc)}; true positives ${c.tp}, ` +
        `false negatives ${c.fn}, false positives ${c.fp}, true negatives ${c.tn}.`;
    }, 400);
  }

  function move(n) {
    const plot = find('[data-chart="curves-roc"]');
    const index = plot?.data?.findIndex((trace) => trace.meta === "operating point") ?? -1;
    if (index < 0 || n.recall === null || n.specificity === null) return;
    Plotly.restyle(plot, { x: [[1 - n.specificity]], y: [[n.recall]] }, [index]);
  }

  slider.addEventListener("input", () => show(Number(slider.value)));
  reset.addEventListener("click", () => {
    slider.value = data.threshold;
    show(data.threshold);
    slider.focus();
  });
  for (const form of all("form")) form.addEventListener("submit", (event) => event.preventDefault());

  // The gallery's filters.

  const outcome = find("#outcome");
  const group = find("#group");

  function filter() {
    let number = 0;
    for (const item of all(".case")) {
      const fits =
        (!outcome.value || item.dataset.outcome === outcome.value) &&
        (!group.value || item.dataset.group === group.value);
      item.hidden = !fits;
      number += fits ? 1 : 0;
    }
    find("#shown").textContent = number === 1 ? "1 case" : `${number} cases`;
  }

  for (const select of [outcome, group]) {
    if (!select) continue;
    select.value = "";
    select.addEventListener("change", filter);
  }
  slider.value = data.threshold; // a browser keeps what was set before a reload
  drawCharts(data.charts);
})();
