// Text against what lies behind it (WCAG 2.1, 1.4.3), also where axe leaves it open because something lies over it.
() => {
  const faults = [], shown = (one) => one.checkVisibility() && one.getClientRects().length;
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return [r, g, b, a]; };
  const level = ([r, g, b]) => { const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92
    : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
  const behind = (one) => { for (; one; one = one.parentElement) {
    const colour = parse(getComputedStyle(one).backgroundColor); if (colour[3] > 0.9) return colour; } return [255, 255, 255]; };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode());) {
    const one = node.parentElement;
    if (!node.data.trim() || !shown(one) || one.closest(".skip, .away, :disabled, datalist, option, noscript")) continue;
    const style = getComputedStyle(one), size = parseFloat(style.fontSize);
    const [a, b] = [level(parse(style.color)), level(behind(one))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05), least = size >= 24 || (size >= 18.6 && style.fontWeight >= 700) ? 3 : 4.5;
    if (ratio < least) faults.push(`${node.data.trim()}: contrast ${ratio.toFixed(2)}`);
  }
  return faults;
}
