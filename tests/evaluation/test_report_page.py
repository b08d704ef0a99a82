"""What a browser makes of a report. Skipped where there is none, or no playwright to drive it."""

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from nnood.evaluation.report.write import write_report
from nnood.evaluation.results import NORMAL, CaseResult, Evaluation, Figure, Group
from nnood.geometry import Geometry
from nnood.images import write_image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Request

sync_api = pytest.importorskip("playwright.sync_api")

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SHAPE = (10, 14, 12)
# Names, sample scores and voxel AP such that lexicographic and numeric orders differ.
CASES = {"case_2": (0.09, 0.4), "case_10": (0.5, 0.9), "case_1": (0.125, None), "case_9": (0.8, None)}


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


class Opened:
    """A report in a page of its own; anything that the browser complains about, or loads, fails the test."""

    def __init__(self, browser: "Browser", file: Path, **options) -> None:
        self.complaints: list[str] = []
        self.page = browser.new_page(**options)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._note_request)
        self.file = file
        self.page.goto(file.as_uri())
        self.wait()

    def _note_request(self, request: "Request") -> None:
        if request.url != self.file.as_uri() and not request.url.startswith("data:"):
            self.complaints.append(request.url)

    def wait(self, name: str = "") -> None:
        """Wait until a case is shown. The page forbids `eval`, which functions to wait for would need."""
        heading = sync_api.expect(self.page.locator("#case-name"))
        if name:
            heading.to_have_text(name)
        else:
            heading.not_to_be_empty()

    def open(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()
        self.wait(name)

    def pixels(self, plane: int = 0) -> str:
        return self.page.locator("canvas").nth(plane).evaluate("canvas => canvas.toDataURL()")

    def slide(self, selector: str, value: float) -> None:
        self.page.locator(selector).evaluate(
            "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', { bubbles: true })); }",
            value,
        )

    def readout(self, what: str) -> str:
        return self.page.locator(f"#readout-{what}").text_content() or ""

    def column(self, key: str) -> list[str]:
        """Cells of a column in the order of the visible rows."""
        return self.page.evaluate(
            """key => {
                const table = document.getElementById("cases-table");
                const column = [...table.tHead.rows[0].cells].findIndex((header) => header.dataset.key === key);
                return [...table.tBodies[0].rows].filter((row) => !row.hidden)
                    .map((row) => row.cells[column].textContent.trim());
            }""",
            key,
        )

    def sorting(self, key: str) -> str | None:
        return self.page.locator(f"th[data-key={key}]").get_attribute("aria-sort")

    def close(self) -> None:
        self.page.close()
        assert self.complaints == []


def _write_case(root: Path, name: str, score: float, shape: tuple[int, ...], *, anomalous: bool) -> np.ndarray:
    rng = np.random.default_rng(len(name) + round(1000 * score))
    geometry = Geometry(
        shape[::-1], (1.5, 2.0, 3.0)[: len(shape)], (10.0, -20.0, 30.0)[: len(shape)],
        tuple(np.diag([-1.0, 1.0, 1.0][: len(shape)]).ravel()),
    )  # fmt: skip
    scores = rng.uniform(0, 0.3, size=shape).astype(np.float32)
    spot = (slice(4, 8), slice(2, 5), slice(6, 9))[: len(shape)]
    scores[spot] = 0.6 + 0.3 * score
    write_image(scores, geometry, root / "scores" / f"{name}.nii.gz")
    (root / "scores" / f"{name}.nii.gz.txt").write_text(f"{score}\n")
    image = rng.normal(100, 20, size=shape).astype(np.float32)
    image[spot] += 60
    write_image(image, geometry, root / "imagesTs" / f"{name}_0000.nii.gz")
    if anomalous:
        mask = np.zeros(shape, dtype=np.uint8)
        mask[spot] = 1
        write_image(mask, geometry, root / "labelsTs" / f"{name}.nii.gz")
    return scores


def _result(name: str) -> CaseResult:
    score, ap = CASES[name]
    if ap is None:
        return CaseResult(name, NORMAL, False, score, 0.0, {"voxel_ap": None})
    return CaseResult(name, "blob", True, score, 1620.0, {"voxel_ap": ap})


def _report(root: Path, shape: tuple[int, ...], *, labelled: bool) -> tuple[Path, dict[str, np.ndarray]]:
    for folder in ("scores", "imagesTs", "labelsTs"):
        (root / folder).mkdir()
    maps = {
        name: _write_case(root, name, score, shape, anomalous=ap is not None) for name, (score, ap) in CASES.items()
    }
    evaluation = None
    if labelled:
        cases = tuple(_result(name) for name in sorted(CASES))
        evaluation = Evaluation(
            normal_cases=2,
            anomalous_cases=2,
            figures={"voxel_ap": Figure(0.6, 0.05, 0.5, 0.7), "sample_ap": Figure(0.7, 0.5, 0.4, 0.9)},
            groups=(Group("kind", "blob", 2, ("dag",), {"voxel_ap": Figure(0.6, 0.05, 0.5, 0.7)}),),
            cases=cases,
            curves={"roc": ((0.0, 0.0), (0.2, 0.9), (1.0, 1.0)), "froc": ((0.1, 0.3), (2.0, 1.0))},
            best_threshold=0.5,
        )
    file = write_report(
        root / "report.html",
        predictions=root / "scores",
        images=root / "imagesTs",
        labels=root / "labelsTs" if labelled else None,
        evaluation=evaluation,
        progress=False,
    )
    return file, maps


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    return _report(tmp_path_factory.mktemp("volumes"), SHAPE, labelled=True)


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    return _report(tmp_path_factory.mktemp("unlabelled"), SHAPE, labelled=False)


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    return _report(tmp_path_factory.mktemp("flat"), SHAPE[1:], labelled=True)


@pytest.fixture
def opened(browser: "Browser", volumes: tuple[Path, dict[str, np.ndarray]]) -> Iterator[Opened]:
    opened = Opened(browser, volumes[0])
    yield opened
    opened.close()


def test_controls_change_the_picture(opened: Opened) -> None:
    opened.open("case_10")
    assert opened.page.locator("canvas:visible").count() == 3
    for plane in range(3):
        before = opened.pixels(plane)
        slider = opened.page.locator(".plane input").nth(plane)
        value = int(slider.input_value())
        opened.slide(f".plane:nth-child({plane + 1}) input", value - 2)
        assert opened.pixels(plane) != before
        opened.slide(f".plane:nth-child({plane + 1}) input", value)
        assert opened.pixels(plane) == before
    for control, setting in (("opacity", 10.0), ("threshold", 0.9), ("black", 100), ("white", 120)):
        before = opened.pixels()
        opened.slide(f"#{control}", setting)
        assert opened.pixels() != before, control
    for box in ("truth", "crosshair", "smooth"):
        before = opened.pixels()
        opened.page.locator(f"#{box}").uncheck()
        assert opened.pixels() != before, box


def test_threshold_hides_what_is_below(opened: Opened) -> None:
    opened.open("case_9")  # its highest score is 0.84, the highest of all
    opened.slide("#opacity", 100)
    for box in ("truth", "crosshair", "smooth"):
        opened.page.locator(f"#{box}").uncheck()

    def coloured() -> float:
        picture = Image.open(io.BytesIO(base64.b64decode(opened.pixels().split(",")[1])))
        red, green, blue = np.moveaxis(np.array(picture.convert("RGB"), dtype=int), -1, 0)
        return float((np.maximum(red, green) - blue > 30).mean())

    shares = []
    for threshold in (0, 0.5, 0.85):
        opened.slide("#threshold", threshold)
        shares.append(coloured())
    assert shares[0] > 5 * shares[1] > 0
    opened.open("case_1")  # its highest score is 0.64
    assert coloured() == 0


def test_readout_is_the_score_of_the_voxel(opened: Opened, volumes: tuple[Path, dict[str, np.ndarray]]) -> None:
    opened.open("case_10")
    scores = volumes[1]["case_10"]
    assert opened.readout("voxel") in ("7, 3, 5", "7, 3, 6")  # the middle of the truth
    assert opened.readout("truth") == "anomalous"
    canvas = opened.page.locator("canvas").first
    size = canvas.bounding_box()
    assert size
    seen = set()
    for share in (0.3, 0.45, 0.6, 0.7):
        canvas.click(position={"x": size["width"] * share, "y": size["height"] * (1 - share)})
        x, y, z = map(int, opened.readout("voxel").split(", "))
        seen.add((x, y, z))
        assert float(opened.readout("score")) == pytest.approx(
            float(scores[z, y, x]), abs=float(scores.max()) / 510 + 5e-4
        )
        millimetres = [float(value.replace("\N{MINUS SIGN}", "-")) for value in opened.readout("mm").split(", ")]
        assert millimetres == pytest.approx([10 - 1.5 * x, -20 + 2 * y, 30 + 3 * z], abs=0.06)
    assert len(seen) == 4


def test_right_of_the_patient_is_on_the_left(opened: Opened) -> None:
    opened.open("case_10")
    canvas = opened.page.locator("canvas").first
    size = canvas.bounding_box()
    assert size
    canvas.click(position={"x": 1, "y": 1})
    # x of the file runs to the right, so that its last voxel is the one on the left; y runs to the back.
    assert opened.readout("voxel").startswith("11, 0, ")
    canvas.click(position={"x": size["width"] - 2, "y": size["height"] - 2})
    assert opened.readout("voxel").startswith("0, 13, ")
    opened.page.locator("canvas").nth(1).click(position={"x": 20, "y": 2})
    assert opened.readout("voxel").endswith(", 9")  # the head is up


def test_headings_sort_both_ways(opened: Opened) -> None:
    heading = opened.page.locator("th[data-key=score] button")
    heading.click()
    assert opened.column("score") == ["0.8000", "0.5000", "0.1250", "0.0900"]
    assert opened.sorting("score") == "descending"
    heading.press("Enter")
    assert opened.column("score") == ["0.0900", "0.1250", "0.5000", "0.8000"]
    assert opened.sorting("score") == "ascending"
    opened.page.locator("th[data-key=name] button").click()
    assert opened.column("name") == ["case_1", "case_2", "case_9", "case_10"]
    assert opened.sorting("score") == "none"
    for _ in range(2):  # undefined ones stay last
        opened.page.locator("th[data-key=voxel_ap] button").click()
        assert opened.column("voxel_ap")[2:] == ["–", "–"]  # noqa: RUF001


def test_orders_and_filter(opened: Opened) -> None:
    surprise = [float(text) for text in opened.column("surprise")]
    assert surprise == sorted(surprise, reverse=True)
    assert opened.column("name")[0] == opened.page.locator("#case-name").text_content()
    for order, expected in (("Best", "case_10"), ("Worst", "case_2")):
        button = opened.page.get_by_role("button", name=order, exact=True)
        button.click()
        assert opened.column("name")[0] == expected
        assert button.get_attribute("aria-pressed") == "true"
    opened.page.locator("th[data-key=score] button").click()
    opened.page.get_by_role("button", name="Most surprising", exact=True).click()
    # Two are in front of all of the other class, two of half of it; of these, the more wrong score is first.
    assert opened.column("name") == ["case_2", "case_9", "case_10", "case_1"]
    opened.page.locator("#filter").fill("BLOB case_1")
    assert opened.column("name") == ["case_10"]
    assert opened.page.locator("#found").text_content() == "1 of 4 cases"
    opened.page.locator("#filter").fill("")
    assert len(opened.column("name")) == 4


def test_keyboard(opened: Opened) -> None:
    opened.page.get_by_role("button", name="Best", exact=True).click()
    first, second, *_ = opened.column("name")
    button = opened.page.get_by_role("button", name=first, exact=True)
    button.focus()
    button.press("Enter")
    opened.wait(first)
    opened.page.keyboard.press("ArrowRight")
    opened.wait(second)
    opened.page.locator("#previous").click()
    opened.wait(first)
    canvas = opened.page.locator("canvas").first
    canvas.focus()
    before = [int(value) for value in opened.readout("voxel").split(", ")]
    for key in ("ArrowLeft", "ArrowDown", "ArrowDown", "PageUp"):
        canvas.press(key)
    after = [int(value) for value in opened.readout("voxel").split(", ")]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 2, 1]
    assert opened.page.locator("#case-name").text_content() == first
    slider = opened.page.locator(".plane input").first
    slider.press("ArrowRight")
    assert opened.readout("voxel").endswith(f", {after[2] + 1}")
    assert opened.page.locator("#case-name").text_content() == first


def test_picture_that_cannot_be_decoded_is_told(
    browser: "Browser", volumes: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    text = volumes[0].read_text(encoding="utf-8")
    first = text.index("data:image/png", text.index('id="picture-0"'))
    file = tmp_path / "damaged.html"
    file.write_text(f"{text[: first + 60]}{text[text.index('</script>', first) :]}", encoding="utf-8")
    opened = Opened(browser, file)
    damaged, intact = opened.column("name")[:2]
    trouble, stage = opened.page.locator("#trouble"), opened.page.locator("#stage")

    def expect_trouble() -> None:
        sync_api.expect(trouble).to_contain_text("cannot be shown")
        assert opened.page.locator("#case-name").text_content() == damaged
        assert not stage.is_visible()

    expect_trouble()
    for control in ("#threshold", "#opacity", "#black", ".plane input >> nth=0"):  # nothing is there to draw
        opened.slide(control, 1)
    opened.slide("#black", 0)
    opened.open(intact)
    assert not trouble.is_visible()
    assert stage.is_visible()
    assert opened.readout("score")
    opened.open(damaged)
    expect_trouble()
    opened.open(intact)
    assert stage.is_visible()
    opened.close()


def test_controls_may_move_before_the_first_picture(
    browser: "Browser", volumes: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    text = volumes[0].read_text(encoding="utf-8")
    # Right after the module's own code, before any picture can have been decoded.
    early = """
      for (const id of ["opacity", "threshold"]) {
        byId(id).value = id === "opacity" ? 12 : 0.25;
        byId(id).dispatchEvent(new Event("input"));
      }
      viewer.set(0, 1);
      byId("planes").querySelector("canvas").dispatchEvent(new PointerEvent("pointermove", { buttons: 1 }));
    """
    file = tmp_path / "early.html"
    end = text.rindex("</script>")
    file.write_text(f"{text[:end]}{early}{text[end:]}", encoding="utf-8")
    opened = Opened(browser, file)
    assert opened.page.locator("#opacity-value").text_content() == "12 %"
    assert opened.page.locator("#threshold-value").text_content() == "0.250"
    opened.close()


@pytest.mark.parametrize(("scheme", "other"), [("light", "dark"), ("dark", "light")])
def test_colours_follow_the_system_and_the_button(
    browser: "Browser", volumes: tuple[Path, dict[str, np.ndarray]], scheme: str, other: str
) -> None:
    opened = Opened(browser, volumes[0], color_scheme=scheme)
    brightness = (
        "() => Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]) > 127 ? 'light' : 'dark'"
    )
    assert opened.page.evaluate(brightness) == scheme
    opened.page.locator("#theme").click()
    assert opened.page.evaluate(brightness) == other
    opened.page.reload()
    opened.wait()
    assert opened.page.evaluate(brightness) == scheme
    opened.page.emulate_media(color_scheme="dark" if other == "dark" else "light")
    sync_api.expect(opened.page.locator("html")).to_have_attribute("data-theme", other)
    assert opened.page.evaluate(brightness) == other
    opened.close()


@pytest.mark.parametrize("which", ["volumes", "unlabelled", "flat"])
def test_narrow_screen_does_not_scroll_sideways(browser: "Browser", which: str, request: pytest.FixtureRequest) -> None:
    opened = Opened(browser, request.getfixturevalue(which)[0], viewport={"width": 390, "height": 800})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
    opened.close()


def test_without_labels_it_is_a_reading_list(
    browser: "Browser", unlabelled: tuple[Path, dict[str, np.ndarray]]
) -> None:
    opened = Opened(browser, unlabelled[0])
    assert opened.column("name") == ["case_9", "case_10", "case_1", "case_2"]
    assert opened.page.locator("#case-name").text_content() == "case_9"
    assert opened.readout("score") == "0.840"  # it begins at the top region
    assert opened.page.locator("#truth").is_hidden()
    region = opened.page.locator("#cases-table tr", has_text="case_10").locator("[data-region]").first
    # Indices 6 to 8, 2 to 4 and 4 to 7; x of the file runs to the right.
    assert "(−0.5, −14.0, 46.5) mm, 4.5 × 6 × 12 mm, 0.324 ml, peak 0.750" in (region.text_content() or "")  # noqa: RUF001
    region.click()
    opened.wait("case_10")
    assert opened.readout("voxel") in ("7, 3, 5", "7, 3, 6")
    canvas = opened.page.locator("canvas").first
    canvas.click(position={"x": 5, "y": 5})
    opened.page.locator("#regions button").first.click()
    assert opened.readout("voxel") in ("7, 3, 5", "7, 3, 6")
    opened.close()


def test_planes_of_an_image_without_orientation_bear_no_anatomy(browser: "Browser", tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(size=SHAPE).astype(np.float32)
    (tmp_path / "scores").mkdir()
    write_image(scores, Geometry.from_spacing(SHAPE, (1.0, 1.0, 1.0)), tmp_path / "scores" / "a.nii.gz")
    (tmp_path / "scores" / "a.nii.gz.txt").write_text("0.5")
    (tmp_path / "imagesTs").mkdir()
    np.save(tmp_path / "imagesTs" / "a_0000.npy", scores)
    file = write_report(
        tmp_path / "r.html", predictions=tmp_path / "scores", images=tmp_path / "imagesTs", progress=False
    )
    # No letter is drawn: a script of the test's own counts them.
    text = file.read_text(encoding="utf-8")
    count = "CanvasRenderingContext2D.prototype.fillText = () => { document.title = 'letters'; };"
    file.write_text(text.replace('<script type="module">', f'<script type="module">{count}'), encoding="utf-8")
    opened = Opened(browser, file)
    labels = opened.page.locator(".plane label span").all_text_contents()
    assert [label.split()[:2] for label in labels] == [["Across", axis] for axis in "zyx"]
    assert opened.page.title() != "letters"
    opened.close()


def test_flat_images_have_one_plane(browser: "Browser", flat: tuple[Path, dict[str, np.ndarray]]) -> None:
    file, maps = flat
    opened = Opened(browser, file)
    opened.open("case_2")
    assert opened.page.locator("canvas:visible").count() == 1
    assert opened.page.locator(".plane input:visible").count() == 0
    before = opened.pixels()
    opened.slide("#opacity", 5)
    assert opened.pixels() != before
    x, y = map(int, opened.readout("voxel").split(", "))
    top = float(maps["case_2"].max())
    assert float(opened.readout("score")) == pytest.approx(float(maps["case_2"][y, x]), abs=top / 510 + 5e-4)
    opened.close()
