// The table of cases: sorted by its headings, ordered by buttons, filtered by a text.

class CaseTable {
  constructor(table, open) {
    this.table = table;
    this.body = table.tBodies[0];
    this.rows = [...this.body.rows]; // by interest
    this.headers = [...table.tHead.rows[0].cells];
    this.headers.forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = header.textContent;
      header.replaceChildren(button);
      button.addEventListener("click", () => {
        const first = header.dataset.type === "number" ? "descending" : "ascending";
        const other = first === "descending" ? "ascending" : "descending";
        this.sort(column, header.getAttribute("aria-sort") === first ? other : first);
      });
    });
    this.orders = [...document.querySelectorAll("[data-order]")];
    for (const button of this.orders) {
      button.addEventListener("click", () => this.order(button));
    }
    byId("filter").addEventListener("input", () => this.filter(byId("filter").value));
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("tr[data-case]");
      const region = event.target.closest("[data-region]");
      if (row && !String(getSelection())) {
        open(Number(row.dataset.case), region ? Number(region.dataset.region) : null);
      }
    });
    this.filter("");
    if (this.orders.length) {
      this.order(this.orders[0]);
    }
  }

  order(button) {
    const [key, direction] = button.dataset.order.split("-");
    const column = this.headers.findIndex((header) => header.dataset.key === key);
    if (column >= 0) {
      this.body.append(...this.rows); // so that equal ones are in the order of interest
      this.sort(column, direction);
    }
  }

  // Rows without a value come last in either direction.
  sort(column, direction) {
    const header = this.headers[column];
    const isNumber = header.dataset.type === "number";
    const value = (row) => {
      const text = row.cells[column].dataset.sort ?? "";
      return isNumber && text !== "" ? Number(text) : text;
    };
    const sign = direction === "ascending" ? 1 : -1;
    const compare = (one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a === "" || b === "") {
        return (a === "") - (b === "");
      }
      return sign * (isNumber ? a - b : a.localeCompare(b, undefined, { numeric: true }));
    };
    this.body.append(...[...this.body.rows].sort(compare));
    this.headers.forEach((other) => other.setAttribute("aria-sort", other === header ? direction : "none"));
    const order = `${header.dataset.key}-${direction}`;
    this.orders.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.order === order)));
    this.table.parentElement.scrollTop = 0;
  }

  filter(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...this.body.rows];
    for (const row of rows) {
      const content = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => content.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    byId("found").textContent = words.length ? `${shown} of ${rows.length} cases` : `${rows.length} cases`;
  }

  // Numbers of the cases that can be opened, in the order of the visible rows.
  numbers() {
    return [...this.body.rows].filter((row) => !row.hidden && row.dataset.case).map((row) => Number(row.dataset.case));
  }

  // Mark the row of a case and bring it into the box, without moving the page.
  mark(number) {
    for (const row of this.body.rows) {
      const isOpen = row.dataset.case === String(number);
      row.toggleAttribute("aria-current", isOpen);
      if (isOpen) {
        row.setAttribute("aria-current", "true");
        const box = this.table.parentElement;
        const head = this.table.tHead.offsetHeight;
        const top = row.offsetTop;
        box.scrollTop = Math.min(Math.max(box.scrollTop, top + row.offsetHeight - box.clientHeight), top - head);
      }
    }
  }
}
