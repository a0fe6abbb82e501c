// Text against what lies behind it (WCAG 2.1, 1.4.3), names of what can be used (4.1.2), headings, landmarks.
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
  for (const one of document.querySelectorAll("button, input, select, summary, [role=img], meter, progress, dialog")) {
    if (!shown(one) || one.ariaHidden === "true") continue;
    const label = one.ariaLabel || one.labels?.[0]?.textContent || one.textContent || one.querySelector("img")?.alt;
    if (!label?.trim()) faults.push(`no name: ${one.outerHTML.slice(0, 80)}`);
  }
  for (const one of document.querySelectorAll("img")) if (!one.hasAttribute("alt")) faults.push("image without alt");
  const levels = [...document.querySelectorAll("h1, h2, h3")].filter(shown).map((one) => one.tagName);
  if (levels.filter((one) => one === "H1").length !== 1 || levels[0] !== "H1") faults.push(`headings ${levels}`);
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  if (new Set(ids).size !== ids.length) faults.push("an id twice");
  if (document.querySelectorAll("main").length !== 1 || !document.documentElement.lang) faults.push("landmarks");
  for (const one of document.querySelectorAll("[tabindex]")) if (one.tabIndex > 0) faults.push("a tabindex of its own");
  for (const one of document.querySelectorAll("li")) if (!one.closest("ul, ol")) faults.push("li outside of a list");
  return faults;
}
