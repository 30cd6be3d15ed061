"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const tip = document.getElementById("tip");
  const dark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  try {
    const kept = localStorage.getItem("kerasgen-theme");
    if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  } catch { /* a page without storage forgets the choice */ }
  document.querySelector("button.theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try {
      localStorage.setItem("kerasgen-theme", root.dataset.theme);
    } catch { /* as above */ }
  });

  const element = (name, text, kind) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const show = (parts, box) => {
    tip.replaceChildren(...parts);
    tip.hidden = false;
    const room = document.documentElement.clientWidth;
    const left = Math.max(8, Math.min(box.left + box.width / 2 - tip.offsetWidth / 2, room - tip.offsetWidth - 8));
    const below = box.bottom + 8;
    const above = box.top - tip.offsetHeight - 8;
    const top = below + tip.offsetHeight > innerHeight && above > 0 ? above : below;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${top + scrollY}px`;
  };
  const hide = () => {
    tip.hidden = true;
    document.querySelectorAll(".now").forEach((span) => span.classList.remove("now"));
    document.querySelectorAll(".cursor").forEach((line) => (line.style.visibility = "hidden"));
  };

  const percent = (share) => {
    const exact = share * 100;
    if (exact > 0 && exact < 0.01) return "< 0.01 %";
    return `${exact >= 10 ? exact.toFixed(0) : exact >= 1 ? exact.toFixed(1) : exact.toFixed(2)} %`;
  };
  const tell = (span) => {
    hide();
    const [bits, tokens, choices] = data.pieces[span.parentElement.dataset.text][span.dataset.piece];
    const endless = typeof bits === "string"; // "∞", which JSON has no number for
    const figure = endless || bits === null ? bits : bits.toFixed(2);
    const said = bits === null ? data.words.unpredicted : `${figure} ${data.words.bits}`;
    const share = bits === null ? "" : ` · ${percent(endless ? 0 : 2 ** -bits)}`;
    const more = tokens > 1 ? ` · ${tokens} ${data.words.tokens}` : share;
    const parts = [element("b", span.textContent.replace(/\n/g, "").replace(/ /g, "␣").replace(/\t/g, "⇥") || "⏎"), element("span", said + more)];
    if (choices.length) {
      parts.push(element("span", data.words.likeliest, "of"));
      const table = element("table");
      for (const [text, share] of choices) {
        const row = element("tr");
        row.append(element("td", text), element("td", share === null ? "–" : percent(share)));
        table.append(row);
      }
      parts.push(table);
    }
    span.classList.add("now");
    show(parts, span.getBoundingClientRect());
  };
  for (const text of document.querySelectorAll(".surprise .text")) {
    const spans = [...text.querySelectorAll("span")];
    text.addEventListener("pointerover", (event) => event.target.dataset.piece && tell(event.target));
    text.addEventListener("click", (event) => event.target.dataset.piece && tell(event.target));
    text.addEventListener("pointerleave", hide);
    text.addEventListener("blur", hide);
    text.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      const now = spans.findIndex((span) => span.classList.contains("now"));
      tell(spans[Math.max(0, Math.min(spans.length - 1, now + step))]);
    });
  }

  document.querySelectorAll(".chart").forEach((chart, number) => {
    const svg = chart.querySelector("svg");
    const cursor = chart.querySelector(".cursor");
    const places = data.charts[number];
    const at = (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      let nearest = places[0];
      for (const place of places) if (Math.abs(place[0] - x) < Math.abs(nearest[0] - x)) nearest = place;
      hide();
      cursor.setAttribute("x1", nearest[0]);
      cursor.setAttribute("x2", nearest[0]);
      cursor.style.visibility = "visible";
      const [first, ...rest] = nearest[1];
      const left = box.left + (nearest[0] / svg.viewBox.baseVal.width) * box.width;
      const parts = [element("b", first), ...rest.flatMap((line) => [element("span", line), element("br")]).slice(0, -1)];
      show(parts, { left, width: 0, top: box.top + box.height / 3, bottom: box.top + box.height / 3 });
    };
    svg.addEventListener("pointermove", at);
    svg.addEventListener("pointerdown", at);
    svg.addEventListener("pointerleave", hide);
  });
  addEventListener("scroll", hide, { passive: true });
})();
