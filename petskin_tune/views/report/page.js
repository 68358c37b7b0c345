// Draws the figures one after another, in the colours of the page, and lets the table of trials be sorted and filtered.
(() => {
  "use strict";
  const root = document.documentElement;
  const texts = JSON.parse(document.getElementById("texts").textContent);
  const touch = matchMedia("(pointer: coarse)").matches;

  // ---- figures -----------------------------------------------------------------------------------------------------

  // "colour:best" becomes the CSS variable --best, and "colour:best/0.5" lets half of what lies beneath shine through. Lists of numbers have no colours: they stay as they are. A step of a colour scale is a number and a colour.
  const variable = (reference, colours) => {
    const [name, share] = reference.slice("colour:".length).split("/");
    const colour = colours.getPropertyValue("--" + name).trim();
    if (!share) return colour;
    const [red, green, blue] = [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));
    return `rgba(${red}, ${green}, ${blue}, ${share})`;
  };

  const coloured = (value, colours) => {
    if (typeof value === "string") return value.startsWith("colour:") ? variable(value, colours) : value;
    if (Array.isArray(value)) {
      const numbers = typeof value[0] === "number" && typeof value[value.length - 1] !== "string";
      return numbers ? value : value.map((item) => coloured(item, colours));
    }
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, coloured(item, colours)]));
  };

  // The text of each point's trial: one a point, or one a run of points with a gap after it.
  const named = (trace) => {
    if (!trace.meta || !trace.meta.trials) return trace;
    const { trials, lengths } = trace.meta;
    const text = [];
    trials.forEach((number, place) => {
      for (let point = 0; point < (lengths ? lengths[place] + 1 : 1); point++) text.push(texts[number]);
    });
    trace[trace.type === "bar" ? "hovertext" : "text"] = text;
    if (trace.type === "bar") trace.hovertemplate = trace.hovertemplate.replace("%{text}", "%{hovertext}");
    return trace;
  };

  const draw = (place) => {
    place.figure ??= JSON.parse(place.querySelector("script").textContent);
    const figure = coloured(place.figure, getComputedStyle(root));
    const layout = figure.layout;
    if (touch) {
      layout.dragmode = false; // a finger on a plot scrolls the page
      layout.xaxis.fixedrange = layout.yaxis.fixedrange = true;
    }
    return Plotly.react(place, figure.data.map(named), layout, { displayModeBar: false, responsive: true, doubleClick: "reset" });
  };

  for (const key of document.querySelectorAll(".keys button")) {
    key.addEventListener("click", () => {
      const shown = key.getAttribute("aria-pressed") !== "true";
      key.setAttribute("aria-pressed", shown);
      const place = key.closest("figure").querySelector(".plot");
      place.figure.data[key.dataset.trace].visible = shown;
      Plotly.restyle(place, { visible: shown }, [Number(key.dataset.trace)]);
    });
  }

  const drawAll = async () => {
    for (const place of document.querySelectorAll(".plot")) {
      await draw(place);
      await new Promise((next) => setTimeout(next));
    }
    root.dataset.drawn = "yes";
  };

  // ---- the table of trials -------------------------------------------------------------------------------------------

  const key = (cell) => {
    const text = cell.dataset.v ?? cell.textContent;
    return text === "" ? null : Number.isNaN(Number(text)) ? text.toLowerCase() : Number(text);
  };

  // Numbers before words, and what is empty always last.
  const compare = (left, right, sign) => {
    if (left === null || right === null) return (left === null) - (right === null);
    if (typeof left !== typeof right) return typeof left === "number" ? -1 : 1;
    return sign * (left < right ? -1 : left > right ? 1 : 0);
  };

  const sort = (table, head) => {
    const column = head.cellIndex;
    const rising = head.getAttribute("aria-sort") === "descending" ? true : head.getAttribute("aria-sort") === "none" && column !== 2;
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows].map((row) => [key(row.cells[column]), row]);
    rows.sort(([left], [right]) => compare(left, right, rising ? 1 : -1));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };

  // "adamw" is looked for in a row; "lr0<0.001" asks for the column of that name.
  const test = (word, heads) => {
    const [, name, sign, limit] = /^(.+?)(<=|>=|<|>|=)(.+)$/.exec(word) ?? [];
    const column = heads.findIndex((head) => head === name || head.split(" ").pop() === name);
    if (column < 0) return (row) => row.textContent.toLowerCase().includes(word);
    return (row) => {
      const found = key(row.cells[column]);
      const wanted = Number.isNaN(Number(limit)) ? limit : Number(limit);
      if (found === null || typeof found !== typeof wanted) return false;
      return { "<": found < wanted, ">": found > wanted, "<=": found <= wanted, ">=": found >= wanted, "=": found === wanted }[sign];
    };
  };

  const filter = (section, table) => {
    const heads = [...table.tHead.rows[0].cells].map((head) => head.textContent.toLowerCase());
    const words = section.querySelector("[type=search]").value.toLowerCase().split(/ +/).filter(Boolean);
    const tests = words.map((word) => test(word, heads));
    const state = section.querySelector("select").value;
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const fits = (!state || row.cells[1].textContent.split(",")[0] === state) && tests.every((fit) => fit(row));
      row.hidden = !fits;
      shown += fits;
    }
    section.querySelector(".count").textContent = `${shown.toLocaleString("en")} of ${table.tBodies[0].rows.length.toLocaleString("en")}`;
  };

  const table = document.querySelector("table.trials");
  if (table) {
    const section = table.closest("section");
    for (const head of table.tHead.rows[0].cells) {
      head.addEventListener("click", () => sort(table, head));
      head.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(table, head); } });
    }
    section.querySelector("[type=search]").addEventListener("input", () => filter(section, table));
    section.querySelector("select").addEventListener("change", () => filter(section, table));
    section.querySelector("[type=checkbox]").addEventListener("change", (event) => table.classList.toggle("all", event.target.checked));
    filter(section, table);
  }

  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
