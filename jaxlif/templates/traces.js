{
  const all = JSON.parse(document.getElementById("traces").textContent);
  const choice = document.getElementById("sweep"), place = document.getElementById("plot");
  const colours = ["#000000", "#D55E00"];
  const decoded = text => {
    const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0)), view = new DataView(bytes.buffer);
    return Float32Array.from({ length: bytes.length / 2 }, (_, n) => view.getInt16(2 * n, true) / all.scale);
  };
  let plot = null;

  // Spikes are ticks above the voltages: the cell's in the first row, the model's own in the second.
  const ticks = u => {
    const sweep = all.sweeps[choice.selectedIndex], { ctx, bbox } = u, height = 9 * devicePixelRatio;
    sweep.spikes.forEach((times, row) => {
      ctx.strokeStyle = colours[row];
      ctx.lineWidth = devicePixelRatio;
      ctx.beginPath();
      for (const t of times) {
        const x = u.valToPos(t, "x", true), y = bbox.top - (2.4 - 1.2 * row) * height;
        if (x < bbox.left || x > bbox.left + bbox.width) continue;
        ctx.moveTo(x, y);
        ctx.lineTo(x, y + height);
      }
      ctx.stroke();
    });
  };

  const show = () => {
    const sweep = all.sweeps[choice.selectedIndex], recorded = decoded(sweep.recorded), model = decoded(sweep.model);
    const times = Float64Array.from(recorded, (_, n) => all.start + n * all.step);
    const line = (label, n) => ({
      label, stroke: colours[n], width: 1, points: { show: false }, value: (_, v) => v == null ? "" : v.toFixed(2) + " mV",
    });
    plot?.destroy();
    plot = new uPlot({
      width: place.clientWidth, height: 360, padding: [26, 30, 0, 0], pxAlign: 0,
      scales: { x: { time: false } },
      series: [
        { label: "time", value: (_, t) => t == null ? "" : t.toFixed(2) + " ms" },
        line("recorded", 0), line("model, recorded spikes forced", 1),
      ],
      axes: [{ label: "time (ms)" }, { label: "voltage (mV)" }],
      cursor: { drag: { x: true, y: true, uni: 30 } },
      hooks: { draw: [ticks] },
    }, [times, recorded, model], place);
  };

  for (const { label } of all.sweeps) choice.add(new Option(label));
  choice.addEventListener("change", show);
  addEventListener("resize", () => plot.setSize({ width: place.clientWidth, height: 360 }));
  show();
}
