import inspect
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnood.errors import UserError
from nnood.evaluation.benchmark.kinds import KINDS, PRESETS
from nnood.evaluation.benchmark.planting import case_seed, plant
from nnood.evaluation.benchmark.sets import make_benchmark
from nnood.evaluation.benchmark.subjects import Subject
from nnood.evaluation.benchmark.table import HEADER, Row, read_benchmark, write_benchmark
from nnood.geometry import Geometry
from nnood.images import read_case, read_image, write_image
from nnood.paths import Roots
from nnood.phantoms import make_phantom, write_demo_dataset
from nnood.planning.foreground import foreground_mask
from nnood.safety import read_json, sha256, write_json
from nnood.training.recipes import DEFAULT_RECIPE

HEADS, COLOURS, FLAT = "Dataset901_Heads", "Dataset902_Colours", "Dataset903_Pictures"
SHAPE = (18, 22, 20)
FEW = ("noise", "orientation", "missing_slices")


def _write(folder: Path, name: str, channels: list[np.ndarray], spacing: tuple[float, ...]) -> None:
    for number, values in enumerate(channels):
        geometry = Geometry.from_spacing(values.shape, spacing)
        write_image(values.astype(np.float32), geometry, folder / f"{name}_{number:04d}.nii.gz")


def _describe(folder: Path, channels: int, training: int) -> None:
    names = {str(i): f"c{i}" for i in range(channels)}
    write_json(folder / "dataset.json", {"channel_names": names, "numTraining": training, "file_ending": ".nii.gz"})


def _masks(folder: Path) -> Path:
    for number in range(2):
        mask = np.zeros((12, 12, 12), dtype=np.uint8)
        mask[2 : 8 + number, 3:8, 4:9] = 1
        write_image(mask, Geometry.from_spacing(mask.shape, (2.0, 1.0, 1.0)), folder / f"lesion_{number}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def roots_once(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    """Heads in 3D (three normal test cases, three anomalous ones), two-channel volumes, and pictures."""
    roots = Roots.under(tmp_path_factory.mktemp("data"))
    write_demo_dataset(roots.raw / HEADS, num_train=4, num_test=6, shape=SHAPE)
    rng = np.random.default_rng(0)
    for part, count in (("imagesTr", 1), ("imagesTs", 2)):
        for number in range(count):
            volume = make_phantom(rng, (10, 20, 16))
            colours = [volume, np.sqrt(volume)]
            _write(roots.raw / COLOURS / part, f"{part}_{number}", colours, (4.0, 2.0, 2.5))
            _write(roots.raw / FLAT / part, f"{part}_{number}", [volume[5], volume[4]], (2.0, 2.5))
    _describe(roots.raw / COLOURS, 2, 1)
    _describe(roots.raw / FLAT, 2, 1)
    _masks(roots.raw.parent / "masks")
    return roots


@pytest.fixture
def roots(roots_once: Roots, tmp_path: Path) -> Roots:
    shutil.copytree(roots_once.raw.parent, tmp_path / "data")
    return Roots.under(tmp_path / "data")


@pytest.fixture
def masks(roots: Roots) -> Path:
    return roots.raw.parent / "masks"


def _digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _results(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in _digests(folder).items() if not name.startswith(".receipts")}


def test_layout_and_table(roots: Roots, tmp_path: Path) -> None:
    output = tmp_path / "set"
    rows = make_benchmark("901", roots, output, kinds=("fpi", "missing_slices", "bias_field"), per_kind=4)
    assert [row.kind for row in rows] == ["normal"] * 3 + [
        kind for kind in KINDS for _ in range(4) if kind in (*PRESETS["fpi"], "missing_slices", "bias_field")
    ]
    assert list(read_benchmark(output / "benchmark.csv")) == [row.case for row in rows]
    images = {path.name for path in (output / "imagesTs").iterdir()}
    assert images == {f"{row.case}_0000.nii.gz" for row in rows}
    anomalous = [row for row in rows if row.kind != "normal"]
    assert {path.name for path in (output / "labelsTs").iterdir()} == {f"{row.case}.nii.gz" for row in anomalous}
    assert {path.name for path in output.iterdir()} == {
        *("imagesTs", "labelsTs", "benchmark.csv", "benchmark.json", "dataset.json", ".receipts")
    }
    for row in anomalous:
        number = int(row.case.removeprefix(f"{row.kind}_").split("_")[0])
        assert row.case == f"{row.kind}_{number:02d}_{row.source}"
        values, geometry = read_image(output / "labelsTs" / f"{row.case}.nii.gz")
        assert values.dtype == np.uint8
        assert set(np.unique(values)) <= {0, 1}
        assert values.sum() * 5.0**3 == pytest.approx(row.volume_mm3)
        image, own = read_image(output / "imagesTs" / f"{row.case}_0000.nii.gz")
        assert image.dtype == np.float32
        assert own.matches(geometry)
        before, source_geometry = read_image(
            roots.raw / HEADS / "imagesTs" / f"{row.source.removeprefix('foreign/')}_0000.nii.gz"
        )
        assert own == source_geometry
        assert np.array_equal(image[values == 0], before[values == 0])
        assert not np.array_equal(image, before)
        assert row.close_to == KINDS[row.kind].close_to
        assert (row.size_mm is None) == row.whole_image == (row.kind == "bias_field")
        assert row.seed == case_seed(0, row.kind, number, row.source)
    for row in rows[:3]:
        image, _ = read_image(output / "imagesTs" / f"{row.case}_0000.nii.gz")
        assert np.array_equal(
            image, read_image(roots.raw / HEADS / "imagesTs" / f"{row.source.removeprefix('foreign/')}_0000.nii.gz")[0]
        )
        assert row == Row(f"normal_{row.source}", row.source, "normal")
    assert read_json(output / "dataset.json") == {
        **{"channel_names": {"0": "T1-like"}, "numTraining": 0, "file_ending": ".nii.gz"}
    }
    described = read_json(output / "benchmark.json")
    assert {key: described[key] for key in ("format", "dataset", "seed", "fold", "foreign", "masks", "per_kind")} == {
        **{"format": 1, "dataset": HEADS, "seed": 0, "fold": None, "foreign": None, "masks": None, "per_kind": 4}
    }
    assert described["sources"] == [f"phantom_{number:03d}" for number in (4, 5, 6)]
    assert described["kinds"]["bias_field"]["whole_image"] is True
    # Four cases per kind of three sources: each is taken once before any is taken again.
    for kind in PRESETS["fpi"]:
        assert len({row.source for row in anomalous if row.kind == kind}) == 3


def test_all_kinds_bit_identical_in_processes_and_after_deletions(roots: Roots, masks: Path, tmp_path: Path) -> None:
    write_demo_dataset(roots.raw / "Dataset904_Others", num_train=2, num_test=0, shape=(12, 20, 16), seed=5)
    options = {"per_kind": 2, "masks": masks, "foreign": "904", "seed": 3}
    first = make_benchmark("901", roots, tmp_path / "a", **options)
    assert {row.kind for row in first} == {"normal", *KINDS}
    second = make_benchmark("901", roots, tmp_path / "b", **options, processes=2)
    assert second == first
    assert _digests(tmp_path / "a") == _digests(tmp_path / "b")

    before = _results(tmp_path / "b")
    kept = tmp_path / "b" / "imagesTs" / f"{first[-1].case}_0000.nii.gz"
    time = kept.stat().st_mtime_ns
    for victim in ("imagesTs/noise_00_*", "labelsTs/blur_01_*", ".receipts/sink_00_*", "benchmark.csv"):
        (found,) = (tmp_path / "b").glob(victim)
        found.unlink()
    damaged = next((tmp_path / "b" / "imagesTs").glob("source_00_*"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    (tmp_path / "b" / "imagesTs" / ".tmp-99999999-x.nii.gz").touch()
    assert make_benchmark("901", roots, tmp_path / "b", **options) == first
    assert _results(tmp_path / "b") == before
    assert kept.stat().st_mtime_ns == time

    for row in first:
        if row.kind == "foreign":
            source = roots.raw / "Dataset904_Others" / "imagesTr" / f"{row.source.removeprefix('foreign/')}_0000.nii.gz"
            image, geometry = read_image(tmp_path / "a" / "imagesTs" / f"{row.case}_0000.nii.gz")
            values, expected = read_image(source)
            assert np.array_equal(image, values)
            assert geometry == expected


def test_a_kind_does_not_depend_on_the_others_and_another_seed_differs(roots: Roots, tmp_path: Path) -> None:
    make_benchmark("901", roots, tmp_path / "a", kinds=["noise", "sink", "spheres"], per_kind=2)
    make_benchmark("901", roots, tmp_path / "b", kinds=["sink"], per_kind=3)
    make_benchmark("901", roots, tmp_path / "c", kinds=["sink"], per_kind=3, seed=1)
    first, alone, other = (
        {name: digest for name, digest in _results(tmp_path / folder).items() if "Ts/sink_0" in name}
        for folder in "abc"
    )
    assert len(first) == 4
    assert first.items() <= alone.items()
    assert not set(first.values()) & set(other.values())


def test_a_row_says_how_to_make_its_case_again(roots: Roots, tmp_path: Path) -> None:
    rows = make_benchmark("901", roots, tmp_path / "a", kinds=["spheres"], per_kind=3)
    for row in rows[3:]:
        image, geometry = read_case(
            [roots.raw / HEADS / "imagesTs" / f"{row.source.removeprefix('foreign/')}_0000.nii.gz"], 1
        )
        subject = Subject.of(image, foreground_mask(image, "otsu"), geometry.spacing[::-1])
        again = plant(row.kind, subject, row.seed)
        assert np.array_equal(again.image, read_image(tmp_path / "a" / "imagesTs" / f"{row.case}_0000.nii.gz")[0])


def test_several_channels_and_turned_geometry(roots: Roots, tmp_path: Path) -> None:
    rows = make_benchmark("902", roots, tmp_path / "a", kinds=["orientation", "noise"], per_kind=12)
    turned = 0
    for row in rows:
        files = [tmp_path / "a" / "imagesTs" / f"{row.case}_{channel:04d}.nii.gz" for channel in range(2)]
        image, geometry = read_case(files, 2)
        if row.kind == "orientation":
            assert sorted(zip(geometry.size, geometry.spacing, strict=True)) == [(10, 4.0), (16, 2.5), (20, 2.0)]
            turned += geometry.size != (16, 20, 10)
            assert read_image(tmp_path / "a" / "labelsTs" / f"{row.case}.nii.gz")[0].all()
        elif row.kind == "noise":
            normal = [tmp_path / "a" / "imagesTs" / f"normal_{row.source}_{channel:04d}.nii.gz" for channel in range(2)]
            assert (image != read_case(normal, 2)[0]).any(axis=(1, 2, 3)).all()
    assert 0 < turned < 12


def test_pictures(roots: Roots, masks: Path, tmp_path: Path) -> None:
    rows = make_benchmark("903", roots, tmp_path / "a", per_kind=1, masks=masks)
    assert {row.kind for row in rows} == {"normal", *KINDS} - {"foreign"}
    for row in rows:
        image, geometry = read_image(tmp_path / "a" / "imagesTs" / f"{row.case}_0001.nii.gz")
        assert geometry.dimensions == 2
        assert image.ndim == 3
        if row.kind != "normal":
            mask, _ = read_image(tmp_path / "a" / "labelsTs" / f"{row.case}.nii.gz")
            assert mask.sum() * np.prod(geometry.spacing) == pytest.approx(row.volume_mm3, rel=1e-5)


def test_one_file_of_several_channels_becomes_one_file_each(roots: Roots, tmp_path: Path) -> None:
    from PIL import Image

    folder = roots.raw / "Dataset905_Photos"
    rng = np.random.default_rng(0)
    for part in ("imagesTr", "imagesTs"):
        (folder / part).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / part / "photo.png")
    names = {"0": "R", "1": "G", "2": "B"}
    write_json(folder / "dataset.json", {"channel_names": names, "numTraining": 1, "file_ending": ".png"})
    make_benchmark("905", roots, tmp_path / "a", kinds=["noise"], per_kind=1)
    assert sorted(path.name for path in (tmp_path / "a" / "imagesTs").iterdir()) == [
        f"{case}_{channel:04d}.nii.gz" for case in ("noise_00_photo", "normal_photo") for channel in range(3)
    ]


# ---- which cases -------------------------------------------------------------------------------------------------


def test_empty_masks_and_tables_count(roots: Roots, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = roots.raw / HEADS
    mask = next(iter(sorted((raw / "labelsTs").iterdir())))
    values, geometry = read_image(mask)
    write_image(np.zeros_like(values[0]), geometry, mask)
    rows = make_benchmark("901", roots, tmp_path / "a", kinds=["noise"], per_kind=1)
    assert [row.source for row in rows if row.kind == "normal"] == [f"phantom_{n:03d}" for n in (4, 5, 6, 7)]

    (raw / "labelsTs.csv").write_text("case,label\nphantom_004,1\nphantom_005,0\n")
    rows = make_benchmark("901", roots, tmp_path / "b", kinds=["noise"], per_kind=1)
    assert [row.source for row in rows if row.kind == "normal"] == [f"phantom_{n:03d}" for n in (5, 6, 7)]

    shutil.rmtree(raw / "labelsTs")
    (raw / "labelsTs.csv").unlink()
    with caplog.at_level(logging.INFO):
        rows = make_benchmark("901", roots, tmp_path / "c", kinds=["noise"], per_kind=1)
    assert sum(row.kind == "normal" for row in rows) == 6
    assert "all of its test images are taken as normal" in caplog.text


def test_a_fold(roots: Roots, tmp_path: Path) -> None:
    folds = [
        {"train_cases": ["phantom_000", "phantom_001"], "val_cases": ["phantom_003", "phantom_002"]},
        {"train_cases": ["phantom_001"], "val_cases": []},
    ]
    file = roots.preprocessed / HEADS / "cross_validation" / "nnood.json"
    with pytest.raises(UserError, match=r"nnood\.json does not exist, so there are no folds yet; .*-d Dataset901"):
        make_benchmark("901", roots, tmp_path / "a", fold=0)
    write_json(file, folds)
    rows = make_benchmark("901", roots, tmp_path / "a", kinds=["noise"], per_kind=1, fold=0)
    assert [row.case for row in rows[:2]] == ["normal_phantom_002", "normal_phantom_003"]
    with pytest.raises(UserError, match=r"nnood\.json has no fold 2; expected one from 0 to 1"):
        make_benchmark("901", roots, tmp_path / "b", fold=2)
    with pytest.raises(UserError, match="fold 1 leaves no case out"):
        make_benchmark("901", roots, tmp_path / "b", fold=1)
    folds[1]["val_cases"] = ["phantom_9"]
    write_json(file, folds)
    with pytest.raises(UserError, match="fold 1 names the case phantom_9, which imagesTr lacks"):
        make_benchmark("901", roots, tmp_path / "b", fold=1)
    folds[1]["val_cases"] = ["phantom_000", "phantom_001"]
    write_json(file, folds)
    with pytest.raises(UserError, match=r"fold 1: case phantom_001 is in both training and validation"):
        make_benchmark("901", roots, tmp_path / "b", fold=1)
    for content in ({"val_cases": []}, [], [3], [{"train_cases": [], "val_cases": "phantom_000"}], [{"val_cases": []}]):
        write_json(file, content)
        with pytest.raises(UserError, match="must be a list of folds with train_cases and val_cases"):
            make_benchmark("901", roots, tmp_path / "b", fold=0)
    assert not (tmp_path / "b").exists()


def test_a_fold_of_another_recipe(roots: Roots, tmp_path: Path) -> None:
    folder = roots.preprocessed / HEADS / "cross_validation"
    for name, case in (("nnood", "phantom_000"), ("other", "phantom_001")):
        write_json(folder / f"{name}.json", [{"train_cases": ["phantom_002"], "val_cases": [case]}])
    rows = make_benchmark("901", roots, tmp_path / "a", kinds=["noise"], per_kind=1, fold=0, recipe="other")
    assert {row.source for row in rows} == {"phantom_001"}
    assert read_json(tmp_path / "a" / "benchmark.json")["recipe"] == "other"
    with pytest.raises(UserError, match=r"with another recipe \(-r\)"):
        make_benchmark("901", roots, tmp_path / "a", kinds=["noise"], per_kind=1, fold=0)
    with pytest.raises(UserError, match=r"third\.json does not exist"):
        make_benchmark("901", roots, tmp_path / "b", fold=0, recipe="third")


def test_the_default_recipe_is_that_of_training() -> None:
    assert inspect.signature(make_benchmark).parameters["recipe"].default == DEFAULT_RECIPE


def test_no_test_images(roots: Roots, tmp_path: Path) -> None:
    raw = roots.raw / HEADS
    normal = [f"phantom_{n:03d}" for n in (4, 5, 6)]
    (raw / "labelsTs.csv").write_text("case,label\n" + "".join(f"{case},1\n" for case in normal))
    with pytest.raises(UserError, match="holds no normal case, going by the labels beside it; give --fold N"):
        make_benchmark("901", roots, tmp_path / "a")
    shutil.rmtree(raw / "imagesTs")
    with pytest.raises(UserError, match=r"no test images .* give --fold N .* and train that fold only"):
        make_benchmark("901", roots, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("planned", "expected"), [("whole", "whole"), ("nonzero", "nonzero"), ("masks", "otsu")])
def test_the_planned_foreground_is_used(roots: Roots, tmp_path: Path, planned: str, expected: str) -> None:
    write_json(roots.preprocessed / HEADS / "nnoodPlans.json", {"nnood": {"foreground_method": planned}})
    make_benchmark("901", roots, tmp_path / "a", kinds=["noise"], per_kind=1)
    assert read_json(tmp_path / "a" / "benchmark.json")["foreground"] == expected


def test_the_users_own_foreground_is_used(roots: Roots, tmp_path: Path) -> None:
    description = roots.raw / HEADS / "dataset.json"
    write_json(description, read_json(description) | {"nnood": {"foreground": "whole"}})
    make_benchmark("901", roots, tmp_path / "a", kinds=["noise"], per_kind=1)
    assert read_json(tmp_path / "a" / "benchmark.json")["foreground"] == "whole"


# ---- refusals ----------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_something_else(roots: Roots, masks: Path, tmp_path: Path) -> None:
    output = tmp_path / "a"
    options = {"kinds": ["noise", "lesions"], "per_kind": 1, "masks": masks}
    make_benchmark("901", roots, output, **options)
    before = _digests(output)
    for change, words in (
        ({"seed": 1}, "another seed"),
        ({"kinds": ["noise"]}, "another choice of kinds"),
        ({"per_kind": 2}, "another number of cases per kind"),
    ):
        with pytest.raises(UserError, match=f"holds another benchmark, with {words}.*choose another folder"):
            make_benchmark("901", roots, output, **options | change)
    with pytest.raises(UserError, match="with another data set"):
        make_benchmark("902", roots, output, **options)
    (masks / "lesion_0.nii.gz").unlink()
    with pytest.raises(UserError, match="with another content of the folder of masks"):
        make_benchmark("901", roots, output, **options)
    _masks(masks)
    shutil.copy(
        roots.raw / HEADS / "imagesTs" / "phantom_004_0000.nii.gz",
        roots.raw / HEADS / "imagesTs" / "phantom_010_0000.nii.gz",
    )
    with pytest.raises(UserError, match="with another list of held-out cases"):
        make_benchmark("901", roots, output, **options)
    assert _digests(output) == before
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").touch()
    with pytest.raises(UserError, match="holds files that belong to no benchmark; choose an empty or new folder"):
        make_benchmark("901", roots, tmp_path / "b")
    (tmp_path / "c").mkdir()
    make_benchmark("901", roots, tmp_path / "c", kinds=["noise"], per_kind=1)


def test_wrong_choices(roots: Roots, masks: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    output = tmp_path / "a"
    with pytest.raises(UserError, match="There is no kind of anomaly 'nose'; known are noise, addition"):
        make_benchmark("901", roots, output, kinds=["nose"])
    with pytest.raises(UserError, match="lesions needs a folder of lesion masks"):
        make_benchmark("901", roots, output, kinds=["lesions"])
    with pytest.raises(UserError, match="foreign needs another data set"):
        make_benchmark("901", roots, output, kinds=["foreign"])
    with pytest.raises(UserError, match=f"The foreign data set is {HEADS} itself"):
        make_benchmark("901", roots, output, foreign="901")
    with pytest.raises(UserError, match=f"{COLOURS} has 2 channel.s. but {HEADS} has 1"):
        make_benchmark("901", roots, output, foreign="902")
    with pytest.raises(UserError, match=f"{FLAT} holds 2D images but {COLOURS} 3D ones"):
        make_benchmark("902", roots, output, foreign="903")
    with pytest.raises(UserError, match="There is no data set '77'"):
        make_benchmark("77", roots, output)
    with pytest.raises(UserError, match="The number of cases per kind is 0; expected 1 or more"):
        make_benchmark("901", roots, output, per_kind=0)
    with pytest.raises(UserError, match="is not a folder"):
        make_benchmark("901", roots, output, masks=tmp_path / "nowhere")
    assert not output.exists()
    with caplog.at_level(logging.INFO):
        make_benchmark("901", roots, output, per_kind=1)
    assert "Left out lesions, which needs a folder of lesion masks (--masks)." in caplog.text
    assert "Left out foreign, which needs another data set (--foreign)." in caplog.text


def test_broken_cases_are_listed_once_and_the_others_finished(roots: Roots, masks: Path, tmp_path: Path) -> None:
    images = sorted((roots.raw / HEADS / "imagesTs").iterdir())
    good = images[0].read_bytes(), images[1].read_bytes()
    images[0].write_bytes(good[0][:-20])
    images[1].write_bytes(good[1][:-20])
    with pytest.raises(UserError) as error:
        make_benchmark("901", roots, tmp_path / "a", kinds=FEW, per_kind=3)
    lines = str(error.value).splitlines()
    assert lines[0].startswith("2 faults")
    assert [images[0].name in lines[1], images[1].name in lines[2]] == [True, True]
    assert len(list((tmp_path / "a" / "imagesTs").glob("*phantom_006*"))) == 4
    assert not (tmp_path / "a" / "benchmark.csv").exists()
    images[0].write_bytes(good[0])
    images[1].write_bytes(good[1])
    rows = make_benchmark("901", roots, tmp_path / "a", kinds=FEW, per_kind=3)
    assert len(rows) == 3 + 9

    for mask in masks.iterdir():
        mask.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"lesion_\d.nii.gz is damaged or cut off"):
        make_benchmark("901", roots, tmp_path / "b", kinds=["lesions", "noise"], per_kind=2, masks=masks)
    assert len(list((tmp_path / "b" / "labelsTs").glob("noise*"))) == 2


def test_a_changed_source_is_made_again(roots: Roots, tmp_path: Path) -> None:
    make_benchmark("901", roots, tmp_path / "a", kinds=["noise"], per_kind=3)
    source = roots.raw / HEADS / "imagesTs" / "phantom_005_0000.nii.gz"
    values, geometry = read_image(source)
    write_image(values[0] * 2, geometry, source)
    before = _results(tmp_path / "a")
    make_benchmark("901", roots, tmp_path / "a", kinds=["noise"], per_kind=3)
    changed = {name for name, digest in _results(tmp_path / "a").items() if before[name] != digest}
    assert {name for name in changed if "imagesTs" in name} == {
        name for name in before if "imagesTs" in name and "phantom_005" in name
    }


# ---- the table ---------------------------------------------------------------------------------------------------


def test_the_table_is_read_back(tmp_path: Path) -> None:
    rows = [
        Row("normal_a", "a", "normal"),
        Row("sink_00_a", "a", "sink", ("sink", "fpi"), 12.5, 1020.0, 0.75, 0.5, 123456789012345),
        Row("foreign_00_b", "b", "foreign", (), None, 5e6, 1.0, 1.0, 7),
    ]
    write_benchmark(tmp_path / "t.csv", rows)
    assert (tmp_path / "t.csv").read_text().splitlines()[:3] == [
        ",".join(HEADER),
        "normal_a,a,normal,,,0,,0,0",
        "sink_00_a,a,sink,sink+fpi,12.5,1020,0.75,0.5,123456789012345",
    ]
    assert list(read_benchmark(tmp_path / "t.csv").values()) == rows
    assert [row.whole_image for row in rows] == [False, False, True]
    assert replace(rows[0], kind="missing_slices").whole_image is False


def test_faults_of_a_table_are_listed_together(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    with pytest.raises(UserError, match=r"t.csv does not exist; make a benchmark with nnood_make_benchmark"):
        read_benchmark(table)
    table.write_text("case,kind\n")
    with pytest.raises(UserError, match=r"Expected the header case,source,.*, but got 'case,kind'"):
        read_benchmark(table)
    table.write_text("")
    with pytest.raises(UserError, match="but got 'nothing'"):
        read_benchmark(table)
    lines = [
        "a,s,noise,,5,10,0.5,0.9,1",
        "a,s,noise,,5,10,0.5,0.9,1",
        "b,s,nose,,5,10,0.5,0.9,1",
        "c,s,noise,,-5,10,0.5,0.9,1",
        "d,s,noise,,5,x,0.5,0.9,1",
        "e,s,noise,,5,10,nan,0.9,1",
        "f,s,noise,,5,10,0.5,1.9,1",
        "g,s,noise,,5,10,0.5,0.9,1.5",
        "h,s,noise",
    ]
    table.write_text("\n".join([",".join(HEADER), *lines]) + "\n")
    with pytest.raises(UserError) as error:
        read_benchmark(table)
    faults = str(error.value).splitlines()
    assert faults[0].startswith("8 faults")
    for fault, words in zip(
        faults[1:],
        [
            "row 3: The case a was listed before",
            "row 4: Expected a kind of normal, noise",
            "row 5: Expected a number from 0 to inf as size_mm, but got '-5'",
            "row 6: Expected a number from 0 to inf as volume_mm3, but got 'x'",
            "row 7: Expected a number as strength, but got 'nan'",
            "row 8: Expected a number from 0 to 1 as changed, but got '1.9'",
            "row 9: Expected a whole number as seed, but got '1.5'",
            "row 10: Expected 9 values",
        ],
        strict=True,
    ):
        assert words in fault
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is no CSV file"):
        read_benchmark(table)


def test_the_description_is_plain_json(roots: Roots, tmp_path: Path) -> None:
    make_benchmark("901", roots, tmp_path / "a", kinds=["blur"], per_kind=1)
    text = (tmp_path / "a" / "benchmark.json").read_text()
    assert str(tmp_path) not in text
    assert set(json.loads(text)["kinds"]["blur"]) == {"summary", "close_to", "whole_image", "source"}


def test_labels_that_name_no_case_are_refused(roots: Roots, tmp_path: Path) -> None:
    """A mask that is overlooked would make its anomalous case a normal one."""
    raw = roots.raw / HEADS
    mask = next(iter(sorted((raw / "labelsTs").iterdir())))
    mask.rename(mask.with_name(mask.name.replace(".nii.gz", "_0000.nii.gz")))
    with pytest.raises(UserError, match=r"_0000\.nii\.gz is the mask of no case in imagesTs"):
        make_benchmark("901", roots, tmp_path / "never", kinds=["noise"])
    shutil.rmtree(raw / "labelsTs")
    (raw / "labelsTs.csv").write_text("case,label\nphantom_004,1\nphantom_999,0\n")
    with pytest.raises(UserError, match="does not list the case phantom_005") as caught:
        make_benchmark("901", roots, tmp_path / "never", kinds=["noise"])
    assert "lists phantom_999, which imagesTs lacks" in str(caught.value)
