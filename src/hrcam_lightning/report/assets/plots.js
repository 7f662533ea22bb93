// Draws the figures of the page with Plotly, which stands before this script, in the colours of the page.
(() => {
  const figures = [...document.querySelectorAll("script[data-figure]")].map((source) => ({
    place: document.getElementById(source.dataset.figure),
    figure: JSON.parse(source.textContent),
  }));
  const settings = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "resetScale2d"]] };
  const draw = () => {
    const ink = getComputedStyle(document.body).color;
    for (const { place, figure } of figures) {
      // #010203 stands for the colour of the text: it is another in the dark.
      const data = JSON.parse(JSON.stringify(figure.data).replaceAll('"#010203"', JSON.stringify(ink)));
      const layout = { ...figure.layout, font: { ...figure.layout.font, color: ink } };
      Plotly.react(place, data, layout, settings);
    }
  };
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
