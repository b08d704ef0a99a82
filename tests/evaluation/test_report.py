"""The Python side of a report; what a browser makes of it is in test_report_page.py."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnood.errors import UserError
from nnood.evaluation.evaluate import evaluate
from nnood.evaluation.report.cases import ShownCase, order_cases
from nnood.evaluation.report.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, draw_curves
from nnood.evaluation.report.figures import describe_groups
from nnood.evaluation.report.from_folders import report
from nnood.evaluation.report.html import embedded_json
from nnood.evaluation.report.image_folder import find_image_folder
from nnood.evaluation.report.pictures import coarser, mean_by, pack, reduce_by
from nnood.evaluation.report.regions import find_regions
from nnood.evaluation.report.volumes import Upright, Volumes, places
from nnood.evaluation.report.write import write_report
from nnood.evaluation.results import FIGURES, NORMAL, CaseResult, Evaluation, Figure, Group
from nnood.evaluation.tables import UNDEFINED
from nnood.geometry import Geometry
from nnood.images import write_image
from nnood.inference.calibration import IDENTITY, Threshold
from nnood.inference.inference_plan import InferencePlan, PlannedMember
from nnood.inference.postprocessing import Step
from nnood.paths import Roots
from nnood.safety import write_json

SHAPE = (6, 9, 7)
NASTY = "a<b>&'\"</script>"
VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """Checks that elements are closed in order, and gathers what a test asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


class Folders:
    """A folder of predictions, with images and masks."""

    def __init__(self, root: Path, shape: tuple[int, ...] = SHAPE) -> None:
        self.predictions, self.images, self.labels = root / "scores", root / "imagesTs", root / "labelsTs"
        for folder in (self.predictions, self.images, self.labels):
            folder.mkdir()
        self.shape = shape
        self.geometry = Geometry.from_spacing(shape, (2.0,) * len(shape))
        self.rng = np.random.default_rng(3)

    def add(self, name: str, score: float, *, anomalous: bool = False, channels: int = 1) -> np.ndarray:
        scores = self.rng.uniform(0, 0.2, size=self.shape).astype(np.float32)
        spot = (slice(2, 5),) * len(self.shape)
        scores[spot] = score
        write_image(scores, self.geometry, self.predictions / f"{name}.nii.gz")
        (self.predictions / f"{name}.nii.gz.txt").write_text(f"{score}\n")
        for channel in range(channels):
            image = self.rng.normal(100, 20, size=self.shape).astype(np.float32)
            write_image(image, self.geometry, self.images / f"{name}_{channel:04d}.nii.gz")
        if anomalous:
            mask = np.zeros(self.shape, dtype=np.uint8)
            mask[spot] = 1
            write_image(mask, self.geometry, self.labels / f"{name}.nii.gz")
        return scores


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def _evaluation(labels: dict[str, bool], scores: dict[str, float], **others) -> Evaluation:
    cases = [
        CaseResult(
            name, "blob" if anomalous else NORMAL, anomalous, scores[name], 216.0 if anomalous else 0.0,
            {"voxel_ap": 0.5 + scores[name] / 3 if anomalous else None},
        )
        for name, anomalous in sorted(labels.items())
    ]  # fmt: skip
    figures = {key: Figure(None) for key in FIGURES} | {"voxel_ap": Figure(0.625, 0.1, 0.5, 0.75)}
    return Evaluation(
        normal_cases=sum(not case.anomalous for case in cases),
        anomalous_cases=sum(case.anomalous for case in cases),
        figures=figures,
        cases=tuple(cases),
        **others,
    )


def _write(output: Path, **arguments) -> str:
    return write_report(output, progress=False, **arguments).read_text(encoding="utf-8")


def _data(text: str) -> dict:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert match
    return json.loads(match[1])


def _pixels(uri: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_page_is_well_formed_and_needs_nothing_else(tmp_path: Path, folders: Folders) -> None:
    folders.add("a", 0.9, anomalous=True)
    folders.add("b", 0.4)
    scores = {"a": 0.9, "b": 0.4}
    curves = {"roc": ((0.0, 0.0), (1.0, 1.0)), "froc": ((0.1, 0.5), (4.0, 1.0))}
    groups = (Group("kind", "blob", 1, ("dag",), {"voxel_ap": Figure(0.5)}),)
    evaluation = _evaluation({"a": True, "b": False}, scores, curves=curves, groups=groups, notes=("Because.",))
    text = _write(
        tmp_path / "r.html",
        predictions=folders.predictions,
        labels=folders.labels,
        evaluation=evaluation,
        baselines={"floor": evaluation},
    )
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert {"figures", "curves", "groups", "cases", "viewer"} <= set(page.ids)
    assert "training" not in page.ids
    loaders = [value for _, name, value in page.attributes if name in ("src", "href", "action", "data", "srcset")]
    assert all(value.startswith(("#", "data:")) for value in loaders)
    without_pictures = re.sub(r"data:image/png;base64,\S+", "", text)
    assert not re.search(
        r"https?:|url\(|@import|\bimport\b|fetch\(|XMLHttpRequest|WebSocket|localStorage", without_pictures
    )
    assert "close to the task dag" in text
    assert "Because." in page.text
    assert not re.search(r"\bNaN\b|\bNone\b|\bnan\b", page.text)
    assert "Undefined here: voxel AUROC" in page.text
    assert page.text.count("floor") >= 2  # in the table of figures and in a legend


def test_sections_are_left_out_where_there_is_nothing_to_say(tmp_path: Path, folders: Folders) -> None:
    folders.add("b", 0.4)
    ids = Page(_write(tmp_path / "r.html", predictions=folders.predictions)).ids
    assert not {"figures", "curves", "groups", "training"} & set(ids)
    assert {"cases", "viewer"} <= set(ids)


def test_everything_from_outside_is_escaped(tmp_path: Path) -> None:
    case = CaseResult(NASTY, NASTY, True, 0.5, None, {})
    group = Group("kind", NASTY, 1, (NASTY,), {"voxel_ap": Figure(0.5)})
    curves: dict[str, tuple[tuple[float, float], ...]] = {"roc": ((0.0, 0.0), (1.0, 1.0))}
    evaluation = Evaluation(0, 1, {}, (group,), (case,), curves, notes=(NASTY,))
    text = _write(tmp_path / "r.html", evaluation=evaluation, baselines={NASTY: evaluation}, title=NASTY)
    page = Page(text)
    assert "<b>" not in text.replace("<b style", "")
    assert text.count("</script>") == 3
    assert page.text.count(NASTY) >= 6


def test_json_cannot_end_its_element() -> None:
    text = embedded_json({"name": NASTY, "undefined": float("nan")})
    assert "<" not in text
    assert json.loads(text) == {"name": NASTY, "undefined": None}


def test_names_of_files_are_escaped_in_the_data(tmp_path: Path, folders: Folders) -> None:
    name = "a<b>&'\""
    folders.add(name, 0.5)
    text = _write(tmp_path / "r.html", predictions=folders.predictions, images=folders.images)
    Page(text)
    assert _data(text)["cases"][0]["name"] == name
    assert name not in text


def test_picture_holds_image_score_and_truth_exactly(folders: Folders) -> None:
    scores = folders.add("a", 0.9, anomalous=True)
    image = folders.rng.normal(size=SHAPE)
    truth = scores > 0.5
    packed = pack(Volumes([image], scores, truth, folders.geometry), 10**6)
    assert packed is not None
    assert packed.factors == (1, 1, 1)
    pixels = _pixels(packed.uris[0])
    columns, (width, height, depth) = packed.layout["columns"], packed.layout["size"]
    tiles = [
        pixels[z // columns * height : (z // columns + 1) * height, z % columns * width : (z % columns + 1) * width]
        for z in range(depth)
    ]
    red, green, blue = np.moveaxis(np.stack(tiles), -1, 0)
    assert np.abs(green * (packed.layout["top"] / 255) - scores).max() <= 0.5 * packed.layout["top"] / 255 + 1e-6
    assert np.array_equal(blue > 0, truth)
    low, high = np.percentile(image, [0.5, 99.5])
    assert np.abs(red / 255 * (high - low) + low - np.clip(image, low, high)).max() <= 0.51 * (high - low) / 255
    assert packed.layout["check"] == green.sum(dtype=int)


def test_png_has_no_colour_chunks(folders: Folders) -> None:
    scores = folders.add("a", 0.9)
    packed = pack(Volumes([scores], scores, None, folders.geometry), 10**6)
    assert packed is not None
    content = base64.b64decode(packed.uris[0].split(",")[1])
    assert not any(chunk in content for chunk in (b"gAMA", b"iCCP", b"sRGB", b"cHRM", b"tRNS"))
    assert Image.open(io.BytesIO(content)).mode == "RGB"


def test_reducing_keeps_small_hot_spots_and_means() -> None:
    array = np.arange(5 * 6, dtype=np.float64).reshape(5, 6)
    assert reduce_by(array, (2, 4), np.maximum).tolist() == [[9, 11], [21, 23], [27, 29]]
    blocks = [[array[i : i + 2, j : j + 4].mean() for j in (0, 4)] for i in (0, 2, 4)]
    assert np.allclose(mean_by(array, (2, 4)), blocks)


def test_finest_axes_are_reduced_first() -> None:
    spacing = (3.0, 1.0, 1.0)
    steps: list[tuple[int, ...]] = [(1, 1, 1)]
    for _ in range(3):
        steps.append(coarser(steps[-1], (20, 100, 100), spacing))
    assert steps == [(1, 1, 1), (1, 2, 2), (1, 3, 3), (2, 4, 4)]
    assert coarser((1, 100), (50, 100), (1.0, 0.001)) == (2, 101)  # an axis of one block is not asked again
    assert coarser((1, 1, 1), (1, 64, 64), (1.0, 1.0, 1.0)) == (1, 2, 2)


def test_big_cases_become_coarser_until_they_fit(folders: Folders) -> None:
    shape = (30, 60, 60)
    geometry = Geometry.from_spacing(shape, (2.0, 1.0, 1.0))
    scores = np.zeros(shape, dtype=np.float32)
    scores[7, 31, 11] = 0.75
    noise = folders.rng.normal(size=shape)
    whole = pack(Volumes([noise], scores, scores > 0, geometry), 10**7)
    assert whole is not None
    assert whole.factors == (1, 1, 1)
    allowance = whole.size // 5
    packed = pack(Volumes([noise], scores, scores > 0, geometry), allowance)
    assert packed is not None
    assert packed.size <= allowance
    assert packed.factors[0] == packed.factors[1] > packed.factors[2]
    pixels = _pixels(packed.uris[0])
    assert (pixels[..., 1] == 255).sum() == (pixels[..., 2] == 255).sum() == 1
    assert packed.layout["top"] == 0.75
    assert pack(Volumes([noise], scores, None, geometry), 100) is None


def test_budget_bounds_all_pictures_and_the_page_says_so(tmp_path: Path) -> None:
    folders = Folders(tmp_path, (16, 20, 18))
    for number in range(6):
        folders.add(f"c{number}", 0.3 + number / 10)
    texts = {
        budget: _write(tmp_path / "r.html", predictions=folders.predictions, images=folders.images, budget=budget)
        for budget in (10**6, 40_000, 25_000)
    }
    sizes = {budget: sum(map(len, re.findall(r"data:image\S+", text))) for budget, text in texts.items()}
    assert all(size <= budget for budget, size in sizes.items())
    factors = [case["factors"] for case in _data(texts[10**6])["cases"]]
    assert factors == [[1, 1, 1]] * 6
    assert "coarser grid" not in texts[10**6]
    assert "cases are shown on a coarser grid" in texts[40_000]
    shown = [case is not None for case in _data(texts[25_000])["cases"]]
    assert 0 < sum(shown) < 6
    assert shown == sorted(shown, reverse=True)
    assert f"only {sum(shown)} of 6 cases, the most suspicious ones, have pictures" in texts[25_000]
    assert all(f"c{number}" in texts[25_000] for number in range(6))


def test_volumes_are_turned_upright() -> None:
    # x of the file runs to the head, y to the patient's right, z to the back.
    direction = np.array([[0, -1, 0], [0, 0, 1], [1, 0, 0]], dtype=float)
    geometry = Geometry((4, 3, 2), (1.0, 2.0, 3.0), (10.0, 20.0, 30.0), tuple(direction.ravel()))
    array = np.arange(24).reshape(2, 3, 4)
    upright = Upright.of(geometry)
    assert (upright.axes, upright.flipped) == ((1, 2, 0), (True, False, False))
    turned = upright.apply(array)
    assert turned.shape == (4, 2, 3)
    for voxel in np.ndindex(4, 3, 2):
        left, back, head = upright.index(voxel, geometry.size)
        assert turned[head, back, left] == array[voxel[::-1]]


@pytest.mark.parametrize("factor", [1, 2])
def test_places_of_voxels(factor: int) -> None:
    direction = np.array([[-1, 0, 0], [0, -1, 0], [0, 0, 1]], dtype=float)
    size, spacing, origin = (8, 6, 4), (1.0, 1.0, 1.0), (5.0, -3.0, 2.0)
    geometry = Geometry(size, spacing, origin, tuple(direction.ravel()))
    layout = places(geometry, Upright.of(geometry), (factor,) * 3)
    for at in ((0, 0, 0), (1, 2, 1), (3, 1, 0)):
        voxel = np.zeros(3)
        for index, (axis, first, step, _) in zip(at, layout["voxel"], strict=True):
            voxel[axis] = first + index * step
        expected = np.array(origin) + direction @ voxel
        found = np.array(layout["origin"]) + sum(
            index * np.array(step) for index, step in zip(at, layout["steps"], strict=True)
        )
        assert np.allclose(found, expected)
    # The first shown voxel is the last of the file along the two axes that run the other way.
    middle = (factor - 1) / 2
    assert [entry[1] for entry in layout["voxel"]] == [7 - middle, 5 - middle, middle]


def test_regions_in_millimetres() -> None:
    # A rotation by 90 degrees about z, so that x of the file is -y of the patient.
    direction = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], dtype=float)
    geometry = Geometry((10, 12, 8), (2.0, 3.0, 4.0), (100.0, -50.0, 7.0), tuple(direction.ravel()))
    scores = np.full((8, 12, 10), 0.1, dtype=np.float32)
    scores[2:4, 5:6, 1:4] = 0.8  # z 2 to 3, y 5, x 1 to 3
    scores[7, 0, 9] = 0.9
    scores[6, 11, 0] = 0.44  # below half of the peak
    first, second = find_regions(scores, geometry)
    assert first.peak == pytest.approx(0.9)
    assert first.voxel == (9, 0, 7)
    assert first.volume == pytest.approx(24.0)
    assert second.peak == pytest.approx(0.8)
    # Index (2, 5, 2.5), that is (4, 15, 10) mm along the axes of the file.
    assert second.centre == pytest.approx((100 + 15, -50 - 4, 7 + 10))
    assert second.extent == pytest.approx((6.0, 3.0, 8.0))
    assert second.volume == pytest.approx(6 * 24)
    assert second.voxel in ((2, 5, 2), (2, 5, 3))


def test_regions_are_three_at_most_and_touch_in_corners() -> None:
    scores = np.zeros((20, 20), dtype=np.float32)
    scores[[0, 1, 5, 9, 13], [0, 1, 5, 9, 13]] = [0.6, 0.7, 0.9, 0.8, 0.5]
    regions = find_regions(scores, Geometry.from_spacing((20, 20), (1.0, 1.0)))
    assert [region.peak for region in regions] == pytest.approx([0.9, 0.8, 0.7])
    assert regions[2].volume == 2
    assert find_regions(np.zeros((3, 3)), Geometry.from_spacing((3, 3), (1.0, 1.0))) == []


def _ordered(scores: dict[str, float], labels: dict[str, bool]) -> list[ShownCase]:
    return order_cases(scores, {case.name: case for case in _evaluation(labels, scores).cases})


def test_most_surprising_cases_come_first() -> None:
    scores = {"a": 0.9, "b": 0.1, "c": 0.5, "d": 0.6, "e": 0.2}
    labels = {"a": False, "b": True, "c": False, "d": True, "e": False}
    cases = _ordered(scores, labels)
    assert [case.name for case in cases] == ["a", "b", "c", "e", "d"]
    assert [case.surprise for case in cases] == pytest.approx([1, 1, 1 / 2, 1 / 2, 1 / 3])
    assert [case.name for case in order_cases(scores, {})] == ["a", "d", "c", "e", "b"]


def test_surprise_is_the_share_of_pairs_in_the_wrong_order() -> None:
    rng = np.random.default_rng(0)
    labels = {f"c{number}": number % 3 == 0 for number in range(40)}
    scores = {name: float(rng.integers(0, 8)) / 8 for name in labels}
    for case in _ordered(scores, labels):
        sign = 1 if labels[case.name] else -1
        others = [sign * scores[name] for name in labels if labels[name] != labels[case.name]]
        own = sign * case.sample_score
        assert case.surprise == pytest.approx(np.mean([(other > own) + 0.5 * (other == own) for other in others]))


def test_separated_cases_are_no_surprise_however_many_there_are() -> None:
    normal = {f"n{number:03d}": 0.1 + 0.3 * number / 19 for number in range(20)}
    anomalous = {f"a{number:03d}": 0.55 + 0.4 * number / 399 for number in range(400)}
    scores = normal | anomalous
    cases = _ordered(scores, {name: name in anomalous for name in scores})
    assert {case.surprise for case in cases} == {0.0}
    # Those nearest to the other class come first, of either label.
    assert [case.name for case in cases if case.name in normal] == sorted(normal, reverse=True)
    assert [case.name for case in cases if case.name in anomalous] == sorted(anomalous)
    assert cases[0].name == "a000"
    assert cases[-1].name in ("a399", "n000")


def test_nothing_surprises_without_the_other_class() -> None:
    cases = _ordered({"a": 0.2, "b": 0.9}, {"a": True, "b": True})
    assert [(case.name, case.surprise) for case in cases] == [("a", 0), ("b", 0)]


def test_froc_is_drawn_as_the_stairs_that_its_figures_are_read_from() -> None:
    points = ((0.05, 0.25), (0.01, 0.0), (1.0, 0.5), (2.0, 0.5), (20.0, 1.0))
    evaluation = Evaluation(1, 1, {}, curves={"froc": points, "roc": ()})
    (figure,) = draw_curves(evaluation, {})
    path = re.search(r'class="line line-0" d="M([^"]+)"', figure)
    assert path
    places = [tuple(map(float, place.split())) for place in path[1].split("L")]
    left, middle, right = LEFT, (LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT
    height = HEIGHT - TOP - BOTTOM
    quarter, half = (TOP + height * (1 - share) for share in (0.25, 0.5))
    assert np.allclose(places, [(left, quarter), (middle, quarter), (middle, half), (right, half)], atol=0.06)


def test_undefined_figures_of_cases_are_said(tmp_path: Path, folders: Folders) -> None:
    folders.add("a", 0.9, anomalous=True)
    folders.add("b", 0.4)
    evaluation = _evaluation({"a": True, "b": False}, {"a": 0.9, "b": 0.4})
    text = _write(tmp_path / "r.html", predictions=folders.predictions, evaluation=evaluation)
    assert '<span title="undefined"' in text


@pytest.mark.parametrize("which", ["image", "mask"])
def test_other_geometry_is_refused_with_both_names(tmp_path: Path, folders: Folders, which: str) -> None:
    folders.add("a", 0.9, anomalous=True)
    other = Geometry.from_spacing(SHAPE, (3.0, 3.0, 3.0))
    file = folders.images / "a_0000.nii.gz" if which == "image" else folders.labels / "a.nii.gz"
    write_image(np.ones(SHAPE, dtype=np.uint8), other, file)
    with pytest.raises(UserError) as raised:
        _write(tmp_path / "r.html", predictions=folders.predictions, labels=folders.labels)
    assert str(folders.predictions / "a.nii.gz") in str(raised.value)
    assert str(file) in str(raised.value)
    assert not (tmp_path / "r.html").exists()


def test_nothing_to_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to report"):
        _write(tmp_path / "r.html")
    with pytest.raises(UserError, match="-p"):
        report(tmp_path / "r.html", Roots.under(tmp_path), images=tmp_path)


@pytest.mark.parametrize("images", ["none", "labelsTs"])
def test_folder_of_the_user_without_any_image_is_refused(tmp_path: Path, folders: Folders, images: str) -> None:
    folders.add("a", 0.9)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / images))):
        report(tmp_path / "r.html", Roots.under(tmp_path), predictions=folders.predictions, images=tmp_path / images)


def test_first_likely_folder_with_an_image_is_taken(tmp_path: Path, folders: Folders) -> None:
    folders.add("a", 0.9)
    roots = Roots.under(tmp_path / "data")
    names, labels, noted = ["a"], folders.labels, tmp_path / "noted"
    of_dataset = roots.raw / "Dataset101_Heads" / "imagesTs"
    of_dataset.mkdir(parents=True)
    noted.mkdir()

    def found(**others) -> Path | None:
        return find_image_folder(folders.predictions, names, roots=roots, dataset="Dataset101_Heads", **others)

    note = {"dataset": "Dataset101_Heads", "images": str(noted), "members": [], "tasks": [], "cases": []}
    write_json(folders.predictions / "prediction.json", note)
    assert found() is None
    (of_dataset / "a_0000.nii.gz").touch()
    assert found() == of_dataset
    assert found(labels=labels) == folders.images
    (noted / "b_0000.nii.gz").touch()  # of another case
    assert found(labels=labels) == folders.images
    (noted / "a_0000.nii.gz").touch()
    assert found(labels=labels) == noted
    assert found(labels=labels, images=of_dataset) == of_dataset


@pytest.mark.parametrize("labels", [".", "deeper/..", "../labelsTs", "../labelsTs/"])
def test_images_beside_labels_however_these_are_written(
    folders: Folders, labels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders.add("a", 0.9)
    (folders.labels / "deeper").mkdir()
    monkeypatch.chdir(folders.labels)
    assert find_image_folder(folders.predictions, ["a"], labels=Path(labels)) == folders.images


def test_cases_without_images_are_shown_on_black(tmp_path: Path, folders: Folders) -> None:
    folders.add("a", 0.9)
    folders.add("b", 0.4)
    (folders.images / "b_0000.nii.gz").unlink()
    text = _write(tmp_path / "r.html", predictions=folders.predictions, images=folders.images)
    assert "1 of 2 cases have no image" in text
    assert "No images were found" in _write(tmp_path / "r.html", predictions=folders.predictions)


def test_path_of_the_predictions_stays_private(tmp_path: Path, folders: Folders) -> None:
    folders.add("a", 0.9)
    text = _write(tmp_path / "r.html", predictions=folders.predictions, images=folders.images, title="Heads")
    assert "predictions in scores" in Page(text).text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(("ending", "is_known"), [(".nii.gz", True), (".npy", False)])
@pytest.mark.parametrize("with_image", [True, False])
def test_patient_is_named_only_where_the_image_says_how_it_lies(
    tmp_path: Path, folders: Folders, ending: str, is_known: bool, with_image: bool
) -> None:
    if not is_known:  # what such images are read and predicted with
        folders.geometry = Geometry.from_spacing(SHAPE, (1.0, 1.0, 1.0))
    scores = folders.add("a", 0.9)
    (folders.images / "a_0000.nii.gz").unlink()
    if with_image and is_known:
        write_image(scores, folders.geometry, folders.images / "a_0000.nii.gz")
    elif with_image:
        np.save(folders.images / f"a_0000{ending}", scores)
    images = folders.images if with_image else None
    text = _write(tmp_path / "r.html", predictions=folders.predictions, images=images)
    assert _data(text)["cases"][0]["space"] == ("patient" if is_known else "image")
    assert ("LPS" in text) == is_known
    assert ("image coordinates in mm" in text) == (not is_known)


@pytest.mark.parametrize(("shape", "unit"), [((8, 8), "mm²"), ((1, 8, 8), "ml")])
def test_unit_of_sizes_is_that_of_the_score_maps(tmp_path: Path, shape: tuple[int, ...], unit: str) -> None:
    folders = Folders(tmp_path, shape)
    folders.add("a", 0.0, anomalous=True)
    write_image(np.zeros(shape, dtype=np.float32), folders.geometry, folders.predictions / "a.nii.gz")
    mask = np.zeros(shape, dtype=np.uint8)
    mask[..., 2:4] = 1
    write_image(mask, folders.geometry, folders.labels / "a.nii.gz")
    evaluation = evaluate(folders.predictions, folders.labels, rounds=0, progress=False)
    text = _write(tmp_path / "r.html", predictions=folders.predictions, labels=folders.labels, evaluation=evaluation)
    assert f"Size ({unit})" in text
    assert ("x along its rows" in text) == (len(shape) == 2)


def test_masks_are_checked_as_in_an_evaluation(tmp_path: Path, folders: Folders) -> None:
    folders.add("a", 0.9)
    write_image(np.full(SHAPE, 7, dtype=np.uint8), folders.geometry, folders.labels / "a.nii.gz")
    with pytest.raises(UserError, match="0 and 1"):
        _write(tmp_path / "r.html", predictions=folders.predictions, labels=folders.labels)


def test_kinds_of_the_whole_image_have_nothing_to_localise() -> None:
    cases = (
        CaseResult("a", "blob", True, 0.5, 8.0, {}),
        CaseResult("b", "foreign", True, 0.5, None, {}),
        CaseResult("c", NORMAL, False, 0.5, 0.0, {}),
    )
    local = {"voxel_ap": Figure(0.5), "aupro": Figure(0.25), "object_recall": Figure(None), "sample_ap": Figure(0.75)}
    whole = {"sample_ap": Figure(None)}
    groups = (Group("kind", "blob", 1, (), local), Group("kind", "foreign", 1, (), whole))
    text = describe_groups(Evaluation(1, 2, {}, groups, cases, dimensions=3))
    assert "AUPRO" in text
    blob, foreign = text.split("<tr>")[2:]
    dash = 'title="anomalous as a whole: nothing to localise"'
    assert (blob.count(dash), blob.count(UNDEFINED)) == (0, 0)
    assert foreign.count(dash) == 2  # voxel AP and AUPRO
    assert foreign.count(f">{UNDEFINED}<") == 1  # sample AP
    assert dash not in describe_groups(Evaluation(1, 2, {}, groups, cases))  # with sample labels only


def test_all_channels_are_packed(tmp_path: Path, folders: Folders) -> None:
    folders.add("a", 0.9, channels=5)
    text = _write(tmp_path / "r.html", predictions=folders.predictions, images=folders.images)
    case = _data(text)["cases"][0]
    assert len(case["windows"]) == 4
    assert case["channels"][1] == "a_0001.nii.gz"
    assert "the first 4 channels are shown" in text


def _train(results: Path, recipe: str, fold: int, *, finished: bool = True) -> None:
    members = results / f"NnoodTrainer__{recipe}__3d_fullres"
    folder = members / f"fold_{fold}"
    names = [f"case{i}" for i in range(8)]
    write_json(
        folder / "settings.json",
        {
            "recipe": {"name": recipe, "summary": "Two tasks.", "tasks": {"dag": 1.0, "source": 0.5}, "epochs": 30},
            "fold": {"train_cases": names[2:], "val_cases": names[:2]},
        },
    )
    configuration = {"patch_size": [32, 40, 32], "batch_size": 4, "spacing": [1.0, 1.25, 1.0]}
    nnood = {"foreground_method": "otsu", "foreground_reason": "dark air", "anomaly_size": [0.1, 0.7]}
    write_json(members / "plans.json", {"configurations": {"3d_fullres": configuration}, "nnood": nnood})
    if finished:
        (folder / "checkpoint_final.pth").touch()
        summary = {"voxel_ap": {"dag": 0.5, "source": 0.3 + fold / 10}, "sample_ap": {"dag": 0.9, "source": 0.8}}
        write_json(folder / "validation" / "summary.json", summary)


def test_training_alone_is_a_report(tmp_path: Path) -> None:
    roots = Roots.under(tmp_path)
    results = roots.results / "Dataset101_Heads"
    for fold in (0, 2):
        _train(results, "first", fold)
    _train(results, "second", 0, finished=False)
    folder = "NnoodTrainer__first__3d_fullres"
    tried = {"stage": "combination", "name": "median", "voxel_ap": 0.61, "gain": 0.0123, "error": 0.02, "chosen": False}
    plan = InferencePlan(
        dataset="Dataset101_Heads",
        members=tuple(PlannedMember(folder, fold, "checkpoint_best.pth", "0" * 64) for fold in ("0", "2")),
        combination="mean",
        steps=(Step("smooth", {"sigma_mm": 1.5}),),
        sample_score="top_500_voxels",
        within_foreground=True,
        calibration=IDENTITY,
        thresholds=(Threshold("sample", 0.05, 0.41, 0.35, 0.52, False),),
        plans={folder: "1" * 64},
        candidates=[tried],
        notes=[NASTY],
    )
    write_json(results / "inference_plan.json", plan.to_dict())
    text = _write(tmp_path / "r.html", roots=roots, dataset="101")
    page = Page(text)
    words = " ".join(page.text.split())
    assert "viewer" not in page.ids
    for expected in (
        "Recipe first, configuration 3d_fullres",
        "Recipe second, configuration 3d_fullres",
        "dag (1), source (0.5)",
        "32 × 40 × 32 voxels",  # noqa: RUF001
        "1 × 1.25 × 1 mm",  # noqa: RUF001
        "otsu, dark air",
        "10 to 70 % of the foreground's box",
        "not finished",
        f"{folder}/fold_0, {folder}/fold_2",
        "smooth (sigma_mm 1.5)",
        "top_500_voxels within the foreground",
        "sample 5% 0.410 0.350 to 0.520 too few clean cases",
        "combination median 0.610 +0.0123 0.020",
        NASTY,
    ):
        assert expected in words
    assert re.search(r"mean .*0\.450 0\.850 .*0\.500 0\.900 .*0\.400 0\.800", words)
    assert words.count("mean ") == 2  # the plan's combination and two folds, not a single one


def _contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_suffices_in_both_themes(tmp_path: Path, folders: Folders) -> None:
    folders.add("a", 0.5)
    text = _write(tmp_path / "r.html", predictions=folders.predictions)
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6});", block)) for block in re.findall(r":root[^{]*{([^}]*)}", text)
    )
    assert light.keys() == dark.keys()
    for colours in (light, dark):
        for behind in ("page", "surface", "raised", "accent-soft"):
            for front in ("text", "muted", "accent"):
                assert _contrast(colours[front], colours[behind]) >= 4.5, (front, behind)
        for line in range(5):
            assert _contrast(colours[f"line-{line}"], colours["surface"]) >= 3
