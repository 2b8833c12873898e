// SPDX-License-Identifier: Apache-2.0
// Under the pointer, a chart tells its values; without scripts it is a picture all the same.
'use strict';
for (const figure of document.querySelectorAll('figure')) {
  const data = JSON.parse(figure.querySelector('script').textContent);
  const svg = figure.querySelector('svg'), cursor = figure.querySelector('.cursor');
  const output = figure.querySelector('output'), unit = figure.dataset.unit;
  const labels = [...figure.querySelectorAll('.legend li')];
  const [left, , right] = data.box;

  // Points are in order: the one nearest to x.
  const nearest = (points, x) => {
    let low = 0, high = points.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (points[middle][0] < x) low = middle + 1; else high = middle;
    }
    return low > 0 && x - points[low - 1][0] < points[low][0] - x ? points[low - 1] : points[low];
  };
  const text = (value) => value.toLocaleString('en-US', {maximumSignificantDigits: 4}) + unit;
  const show = (event) => {
    const frame = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / frame.width;
    const at = (event.clientX - frame.left) * scale;
    if (at < left || at > right) return hide();
    const x = (at - left) / (right - left) * data.end;
    output.textContent = 'epoch ' + x.toFixed(2);
    data.lines.forEach((points, i) => {
      const last = points[points.length - 1][0], slack = data.end / 40;
      if (x > last + slack || x < points[0][0] - slack) return;
      const row = document.createElement('div'), key = document.createElement('i');
      row.className = labels[i].className;
      key.className = labels[i].querySelector('i').className;
      row.append(key, labels[i].textContent + '  ' + text(nearest(points, x)[1]));
      output.append(row);
    });
    cursor.setAttribute('x1', at);
    cursor.setAttribute('x2', at);
    cursor.style.visibility = 'visible';
    output.hidden = false;
    const box = figure.getBoundingClientRect(), room = box.width - output.offsetWidth - 8;
    const beside = event.clientX - box.left + 16;
    output.style.left = Math.max(8, beside < room ? beside : event.clientX - box.left - output.offsetWidth - 16) + 'px';
    output.style.top = (frame.top - box.top + 14) + 'px';
  };
  const hide = () => {
    cursor.style.visibility = 'hidden';
    output.hidden = true;
  };
  svg.addEventListener('pointermove', show);
  svg.addEventListener('pointerdown', show);
  svg.addEventListener('pointerleave', hide);
}
