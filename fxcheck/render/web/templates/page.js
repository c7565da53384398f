"use strict";
(() => {
  const NS = "http://www.w3.org/2000/svg";

  /** Pan and zoom of one drawing by its viewBox. */
  function viewport(svg) {
    const home = svg.dataset.home.split(" ").map(Number);
    let box = [...home];
    const scale = () => Math.min(svg.clientWidth / box[2], svg.clientHeight / box[3]);
    function show(next) {
      box = next;
      svg.setAttribute("viewBox", box.join(" "));
      svg.classList.toggle("small-scale", svg.clientWidth > 0 && scale() < 0.5);
    }
    function zoom(factor, at = [box[0] + box[2] / 2, box[1] + box[3] / 2]) {
      const width = Math.min(Math.max(box[2] * factor, 240), home[2] * 2.5);
      const real = width / box[2];
      show([at[0] - (at[0] - box[0]) * real, at[1] - (at[1] - box[1]) * real, width, box[3] * real]);
    }
    function point(event) {
      return new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    }
    svg.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const p = point(event);
      zoom(Math.exp(event.deltaY * 0.0025), [p.x, p.y]);
    }, { passive: false });
    let held = null;
    svg.addEventListener("pointerdown", (event) => { held = { x: event.clientX, y: event.clientY, box: [...box], moved: false }; });
    svg.addEventListener("pointermove", (event) => {
      if (!held || !event.buttons) return;
      const dx = event.clientX - held.x, dy = event.clientY - held.y;
      if (!held.moved && Math.hypot(dx, dy) < 4) return;
      if (!held.moved) svg.setPointerCapture(event.pointerId);
      held.moved = true;
      svg.classList.add("dragging");
      const s = scale();
      show([held.box[0] - dx / s, held.box[1] - dy / s, held.box[2], held.box[3]]);
    });
    svg.addEventListener("pointerup", () => { svg.classList.remove("dragging"); });
    svg.addEventListener("click", (event) => { if (held && held.moved) event.stopPropagation(); held = null; }, true);
    const bring = (node) => {
      const b = node.getBBox(), x = b.x + b.width / 2, y = b.y + b.height / 2;
      const inside = b.x > box[0] && b.y > box[1] && b.x + b.width < box[0] + box[2] && b.y + b.height < box[1] + box[3];
      if (inside && scale() >= 0.5) return;
      const factor = scale() < 0.5 ? scale() / 0.9 : 1;
      const w = box[2] * factor, h = box[3] * factor;
      show([x - w / 2, y - h / 2, w, h]);
    };
    show(box);
    return { zoom, bring, fit: () => show([...home]) };
  }

  function model(root) {
    const all = (selector) => [...root.querySelectorAll(selector)];
    const drawings = all("[data-drawing]").map((div) => ({ div, svg: div.querySelector("svg"), key: div.dataset.drawing }));
    if (!drawings.length) return;
    for (const d of drawings) d.view = viewport(d.svg);
    const shown = () => drawings.find((d) => !d.div.hidden);
    const rows = new Map(all("tr[data-layer]").map((row) => [row.dataset.layer, row]));
    const cards = new Map(all("template[data-card]").map((card) => [card.dataset.card, card]));
    const inspector = root.querySelector("[data-inspector]");
    const layersOf = (node) => node.dataset.layers.split(" ");
    const nodesOf = (svg, layer) => [...svg.querySelectorAll(".node")].filter((n) => layersOf(n).includes(layer));

    function show(key) {
      for (const d of drawings) d.div.hidden = d.key !== key;
      for (const b of all("[data-show]")) b.setAttribute("aria-pressed", String(b.dataset.show === key));
      shown().view.fit();
    }

    function light(svg, node) {
      const id = node && node.id.slice(node.id.lastIndexOf("-") + 1);
      for (const edge of svg.querySelectorAll(".edge"))
        edge.classList.toggle("lit", node !== null && (edge.dataset.from === id || edge.dataset.to === id));
    }

    function inspect(layers) {
      const [first] = layers;
      inspector.replaceChildren(cards.get(first).content.cloneNode(true));
      if (layers.length > 1) {
        const list = document.createElement("p");
        list.className = "chips";
        for (const layer of layers) {
          const chip = document.createElement("button");
          chip.type = "button";
          chip.className = `chip ${rows.get(layer).dataset.verdict}`;
          chip.dataset.select = layer;
          chip.textContent = rows.get(layer).querySelector("[data-select]").textContent;
          list.append(chip);
        }
        inspector.prepend(Object.assign(document.createElement("p"), { className: "small", textContent: `${layers.length} layers, the first one in full:` }));
        inspector.append(list);
      }
      inspector.scrollTop = 0;
    }

    function select(layers, { bring = true } = {}) {
      for (const [layer, row] of rows) row.classList.toggle("selected", layers.includes(layer));
      for (const d of drawings)
        for (const node of d.svg.querySelectorAll(".node")) {
          const on = layersOf(node).some((layer) => layers.includes(layer));
          node.classList.toggle("selected", on);
        }
      inspect(layers);
      const row = rows.get(layers[0]), scroll = row.closest(".scroll");
      scroll.scrollTop = row.offsetTop - scroll.clientHeight / 2;
      const { svg, view } = shown();
      const [node] = nodesOf(svg, layers[0]);
      if (bring && node) view.bring(node);
      light(svg, node || null);
    }

    for (const { svg } of drawings) {
      const nodes = [...svg.querySelectorAll(".node")];
      const focus = (node) => {
        for (const n of nodes) n.setAttribute("tabindex", n === node ? "0" : "-1");
        node.focus({ preventScroll: true });
      };
      svg.addEventListener("click", (event) => {
        const node = event.target.closest(".node");
        if (node) { focus(node); select(layersOf(node)); }
      });
      svg.addEventListener("pointerover", (event) => light(svg, event.target.closest(".node") || svg.querySelector(".node.selected")));
      svg.addEventListener("keydown", (event) => {
        const at = nodes.indexOf(event.target.closest(".node"));
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        const factor = { "+": 0.8, "=": 0.8, "-": 1.25 }[event.key];
        if (step && nodes[at + step]) { focus(nodes[at + step]); select(layersOf(nodes[at + step])); }
        else if ((event.key === "Enter" || event.key === " ") && at >= 0) select(layersOf(nodes[at]));
        else if (factor) shown().view.zoom(factor);
        else if (event.key === "0") shown().view.fit();
        else return;
        event.preventDefault();
      });
    }

    const form = root.querySelector("[data-filters]");
    function filter() {
      const data = new FormData(form), verdicts = data.getAll("verdict");
      const text = data.get("text").trim().toLowerCase(), code = data.get("code") || "", operation = data.get("operation");
      const kept = new Set();
      for (const [layer, row] of rows) {
        const d = row.dataset;
        const fits = verdicts.includes(d.verdict) && (!operation || d.operation === operation)
          && (!code || d.codes.split(" ").includes(code)) && (!text || row.textContent.toLowerCase().includes(text));
        row.hidden = !fits;
        if (fits) kept.add(layer);
      }
      for (const { svg } of drawings)
        for (const node of svg.querySelectorAll(".node")) node.classList.toggle("dim", !layersOf(node).some((layer) => kept.has(layer)));
      root.querySelector("[data-count]").textContent = `${kept.size} of ${rows.size}`;
      root.querySelector("[data-nothing]").hidden = kept.size > 0;
    }
    form.addEventListener("input", filter);
    form.addEventListener("reset", () => setTimeout(filter));
    form.addEventListener("submit", (event) => event.preventDefault());

    root.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      const row = event.target.closest("tr[data-layer]");
      if (!button) { if (row) select([row.dataset.layer]); return; }
      const { show: key, zoom, only, code } = button.dataset;
      if (key) show(key);
      else if (zoom === "fit") shown().view.fit();
      else if (zoom) shown().view.zoom(zoom === "in" ? 0.75 : 1.33);
      else if (button.dataset.select) select([button.dataset.select]);
      else if (code) { form.elements.code.value = code; filter(); form.scrollIntoView({ block: "start" }); }
      else if (only) {
        const boxes = form.querySelectorAll("[name=verdict]");
        const alone = [...boxes].every((box) => box.checked === (box.value === only));
        for (const box of boxes) box.checked = alone || box.value === only;
        filter();
      }
    });
    const worst = all("tr[data-layer]").find((row) => row.dataset.verdict === "uncovered")
      || all("tr[data-layer]").find((row) => row.dataset.verdict === "runtime");
    if (worst) select([worst.dataset.layer], { bring: false });
  }

  document.querySelectorAll("[data-model]").forEach(model);
})();
