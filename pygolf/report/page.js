// Shows below a chart what is under the pointer: the nearest point of its lines, or the mark that is touched.
for (const figure of document.querySelectorAll("figure.card")) {
  const chart = figure.querySelector("svg.chart");
  const readout = figure.querySelector(".readout");
  const cursor = chart.querySelector(".cursor");
  const points = JSON.parse(chart.dataset.points || "[]");
  chart.addEventListener("pointermove", (event) => {
    const tip = event.target.closest("[data-tip]");
    if (tip) {
      readout.textContent = tip.dataset.tip;
    } else if (points.length) {
      const box = chart.getBoundingClientRect();
      const px = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
      const near = points.reduce((a, b) => (Math.abs(b[0] - px) < Math.abs(a[0] - px) ? b : a));
      cursor.setAttribute("x1", near[0]);
      cursor.setAttribute("x2", near[0]);
      cursor.style.visibility = "visible";
      readout.textContent = near[1];
    }
  });
  chart.addEventListener("pointerleave", () => {
    readout.textContent = "";
    if (cursor) cursor.style.visibility = "hidden";
  });
}
