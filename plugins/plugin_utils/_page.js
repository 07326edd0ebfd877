/* Copyright (c) 2026 wcow.snapshotter maintainers
   GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
   SPDX-License-Identifier: GPL-3.0-or-later
*/
"use strict";
(() => {
  const fleet = document.getElementById("fleet");
  const search = document.getElementById("search");
  const status = document.querySelector("[role=status]");
  const collator = new Intl.Collator("en", { numeric: true });

  // -- one view at a time: the fleet, or the node that the address names ------

  const sectionOf = (address) => {
    const section = document.getElementById(address.slice(1));
    return section && section.matches("main > section") ? section : fleet;
  };

  /** The elements of a node, made from the text that the parser has left in noscript. It was escaped for exactly that. */
  const unfold = (section) => {
    const folded = section.querySelector(":scope > noscript");
    if (folded) {
      section.innerHTML = folded.textContent;
      makeSortable(section);
      addNameButtons(section);
    }
  };

  const show = (focus) => {
    const section = sectionOf(location.hash);
    unfold(section);
    for (const open of document.querySelectorAll("section.open")) open.classList.remove("open");
    section.classList.add("open");
    filter();
    if (!focus) return;
    scrollTo(0, 0);
    (section.querySelector("h2[tabindex]") || search).focus({ preventScroll: true });
  };

  // -- sorting: one way, the other way, as it was -----------------------------

  const UNITS = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40, PiB: 2 ** 50 };

  const valueOf = (cell, numeric) => {
    if (cell.dataset.value) return Number(cell.dataset.value);
    const text = cell.textContent.trim();
    if (!numeric) return text;
    const [, digits, unit] = /^([\d.,]+)\s*([KMGTP]?i?B)?/.exec(text) || [];
    return digits === undefined ? -1 : Number(digits.replaceAll(",", "")) * (UNITS[unit] || 1);
  };

  const sort = (head) => {
    const table = head.closest("table");
    const body = table.tBodies[0];
    table.original ||= [...body.rows];
    const numeric = head.classList.contains("n");
    const ways = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
    const way = ways[ways.indexOf(head.ariaSort) + 1];
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    table.classList.toggle("sorted", way !== undefined);
    let rows = table.original;
    if (way) {
      head.ariaSort = way;
      const sign = way === "ascending" ? 1 : -1;
      const values = new Map(rows.map((row) => [row, valueOf(row.cells[head.cellIndex], numeric)]));
      const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b));
      rows = [...rows].sort((a, b) => sign * compare(values.get(a), values.get(b)));
    }
    body.append(...rows);
  };

  const buttonIn = (element, action) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...element.childNodes);
    button.addEventListener("click", action);
    element.append(button);
    return button;
  };

  const makeSortable = (section) => {
    for (const head of section.querySelectorAll("thead th")) buttonIn(head, () => sort(head));
  };

  /** Digests are short. A button of their table shows them whole. */
  const addNameButtons = (section) => {
    for (const table of section.querySelectorAll("table:has(tbody th > span)")) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "more";
      button.textContent = "Full digests";
      button.ariaPressed = "false";
      button.addEventListener("click", () => {
        button.ariaPressed = String(table.classList.toggle("full"));
      });
      table.caption.append(button);
    }
  };

  // -- searching: all words, in the row and in what the node has below it -----

  const texts = new Map();
  const MARKS = { "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'", "&amp;": "&" };

  /** The text of a section. What is not unfolded is read as text; its tags and entities are our own, and few. */
  const textBelow = (section) =>
    section.querySelector(":scope > noscript")
      ? section.textContent
          .replace(/<\/?(?:wbr|span|bdi|i)>/g, "")
          .replace(/<[^>]*>/g, " ")
          .replace(/&[^;]*;/g, (mark) => MARKS[mark] || mark)
      : section.textContent;

  const textOf = (row) => {
    let text = texts.get(row);
    if (text === undefined) {
      text = row.textContent;
      const { state, free } = row.dataset;
      if (state) text += ` is:${state} free:${free}% ${textBelow(sectionOf(row.querySelector("a").hash))}`;
      text = text.toLowerCase();
      texts.set(row, text);
    }
    return text;
  };

  /** Read all texts while the user does nothing else, so that the first search is as fast as the others. */
  const readAhead = () => {
    const rows = [...fleet.querySelectorAll(".fleet tbody tr")].reverse();
    const read = (deadline) => {
      while (rows.length && deadline.timeRemaining() > 2) textOf(rows.pop());
      if (rows.length) requestIdleCallback(read);
      else document.documentElement.classList.add("read");
    };
    if (window.requestIdleCallback) requestIdleCallback(read);
  };

  const words = () => search.value.toLowerCase().split(/\s+/).filter(Boolean);

  const filterFleet = () => {
    const wanted = words();
    const rows = [...fleet.querySelectorAll(".fleet tbody tr")];
    let found = 0;
    for (const row of rows) {
      row.hidden = !wanted.every((word) => textOf(row).includes(word));
      found += !row.hidden;
    }
    status.textContent = wanted.length ? `${found} of ${rows.length} nodes` : "";
  };

  /** The rows of a node that have the words; all rows if none has, since then the words were about the node. */
  const filterNode = (section) => {
    const wanted = words();
    const rows = [...section.querySelectorAll("tbody tr")];
    const hits = new Set(rows.filter((row) => wanted.every((word) => textOf(row).includes(word))));
    for (const row of rows) {
      row.hidden = hits.size > 0 && !hits.has(row);
      row.classList.remove("around");
    }
    for (const table of section.querySelectorAll(".tree:not(.sorted)")) showAncestors(table, hits);
    const found = hits.size ? `${hits.size} of ${rows.length} rows` : "No row has that; all are shown";
    status.textContent = wanted.length ? found : "";
  };

  const depthOf = (row) => Number(row.cells[0].className.slice(1));

  const showAncestors = (table, hits) => {
    let above = 0;
    for (const row of [...table.tBodies[0].rows].reverse()) {
      const depth = depthOf(row);
      if (hits.has(row)) {
        above = depth;
      } else if (depth < above) {
        row.hidden = false;
        row.classList.add("around");
        above = depth;
      }
    }
  };

  const filter = () => {
    const section = document.querySelector("section.open");
    if (section === fleet) filterFleet();
    else filterNode(section);
    for (const button of document.querySelectorAll("[data-query] button")) {
      button.ariaPressed = String(search.value === button.parentElement.dataset.query);
    }
  };

  search.addEventListener("input", filter);
  search.form.addEventListener("submit", (event) => {
    event.preventDefault();
    filter();
  });
  for (const element of document.querySelectorAll("[data-query]")) {
    buttonIn(element, () => {
      search.value = search.value === element.dataset.query ? "" : element.dataset.query;
      filter();
    });
  }

  document.documentElement.classList.add("scripted");
  search.form.hidden = false;
  makeSortable(fleet);
  addEventListener("hashchange", () => show(true));
  show(false);
  readAhead();
})();
