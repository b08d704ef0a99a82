// Put the parts of the page together.

const theme = byId("theme");
const root = document.documentElement;
const nameTheme = () => {
  theme.textContent = root.dataset.theme === "dark" ? "Light" : "Dark";
  theme.setAttribute("aria-label", `Change to ${theme.textContent.toLowerCase()} colours`);
};
theme.addEventListener("click", () => {
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
});
new MutationObserver(nameTheme).observe(root, { attributeFilter: ["data-theme"] });
nameTheme();

const viewer = byId("planes") ? new Viewer(JSON.parse(byId("data").textContent)) : null;

async function openCase(number, region = null, scroll = true) {
  if (!viewer) {
    return;
  }
  cases.mark(number);
  await viewer.open(number, region);
  if (scroll) {
    byId("viewer").scrollIntoView({ block: "nearest" });
  }
}

const cases = byId("cases-table") ? new CaseTable(byId("cases-table"), openCase) : null;

function step(by) {
  const numbers = cases.numbers();
  const place = numbers.indexOf(viewer.asked);
  const next = place < 0 ? 0 : place + by;
  if (next >= 0 && next < numbers.length) {
    openCase(numbers[next], null, false);
  }
}

if (viewer && cases) {
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  document.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const isTaken = event.target.closest("input, select, textarea, canvas") || event.target.matches(".table-box");
    if (by && !isTaken && !event.altKey && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      step(by);
    }
  });
  const [first] = cases.numbers();
  openCase(first, null, false);
}
