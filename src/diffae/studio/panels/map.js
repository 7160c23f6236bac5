// Runs once, when the map is there; `element`, `trigger` and `server` are Gradio's.
const root = element.querySelector('.map');
if (root && !root.ready) {
  root.ready = true;
  const data = JSON.parse(root.dataset.points), side = data.side, columns = data.columns;
  const sprite = new Image(); sprite.src = data.sprite;
  const canvas = root.querySelector('canvas'), tip = root.querySelector('.tip'), colour = root.querySelector('select');
  const pen = canvas.getContext('2d'), W = canvas.width, H = canvas.height, margin = 14;
  const at = data.at.map(p => [margin + p[0] * (W - 2 * margin), margin + (1 - p[1]) * (H - 2 * margin)]);
  let start = null, now = null, chosen = new Set(), values = null;
  // From blue to orange: 0 and 1, or from a little above the least to a little below the most.
  let low = 0, high = 1;
  const between = v => {
    const share = Math.min(1, Math.max(0, (v - low) / (high - low || 1)));
    return `rgb(${[[47, 224], [111, 123], [208, 31]].map(([a, b]) => Math.round(a + share * (b - a))).join(',')})`;
  };
  const paint = () => {
    pen.clearRect(0, 0, W, H);
    at.forEach((p, i) => {
      const v = values ? values[i] : null;
      pen.fillStyle = values ? (v === null ? '#9aa2ad55' : between(v)) : '#2f6fd0';
      pen.beginPath(); pen.arc(p[0], p[1], chosen.has(i) ? 5 : 3, 0, 7); pen.fill();
      if (chosen.has(i)) { pen.strokeStyle = '#e0245e'; pen.lineWidth = 2; pen.stroke(); }
    });
    if (start && now) { pen.strokeStyle = '#e0245e'; pen.strokeRect(start[0], start[1], now[0] - start[0], now[1] - start[1]); }
  };
  const place = e => { const r = canvas.getBoundingClientRect(); return [(e.clientX - r.left) * W / r.width, (e.clientY - r.top) * H / r.height]; };
  const nearest = q => {
    let best = -1, least = 400;
    at.forEach((p, i) => { const d = (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2; if (d < least) { least = d; best = i; } });
    return best;
  };
  colour.addEventListener('change', async () => {
    const name = colour.value, asked = name ? await server.colours(name) : null;
    // Another may have been chosen meanwhile.
    if (colour.value === name) {
      values = asked;
      const known = (values || []).filter(v => v !== null).sort((a, b) => a - b);
      const quantile = share => known[Math.round(share * (known.length - 1))];
      [low, high] = known.every(v => v === 0 || v === 1) ? [0, 1] : [quantile(0.02), quantile(0.98)];
      root.dataset.colour = name; paint();
    }
  });
  canvas.addEventListener('pointermove', e => {
    const q = place(e);
    if (start) { now = q; paint(); return; }
    const i = nearest(q);
    if (i < 0) { tip.style.display = 'none'; return; }
    const r = canvas.getBoundingClientRect(), k = r.width / W;
    tip.style.display = 'block';
    tip.style.left = Math.min(at[i][0] * k + 12, r.width - 100) + 'px';
    tip.style.top = canvas.offsetTop + Math.max(0, at[i][1] * k - 50) + 'px';
    const t = tip.getContext('2d');
    t.imageSmoothingEnabled = false;
    t.drawImage(sprite, (i % columns) * side, Math.floor(i / columns) * side, side, side, 0, 0, tip.width, tip.height);
  });
  canvas.addEventListener('pointerleave', () => { tip.style.display = 'none'; });
  canvas.addEventListener('pointerdown', e => { start = place(e); now = null; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener('pointerup', e => {
    const q = place(e), moved = Math.hypot(q[0] - start[0], q[1] - start[1]) > 6;
    if (moved) {
      const [x0, x1] = [start[0], q[0]].sort((a, b) => a - b), [y0, y1] = [start[1], q[1]].sort((a, b) => a - b);
      chosen = new Set(at.flatMap((p, i) => p[0] >= x0 && p[0] <= x1 && p[1] >= y0 && p[1] <= y1 ? [i] : []));
    } else { const i = nearest(q); chosen = new Set(i < 0 ? [] : [i]); }
    start = now = null; paint();
    if (chosen.size) trigger('select', {index: [...chosen].map(i => data.indices[i]), value: moved ? 'group' : 'one'});
  });
  paint();
}
