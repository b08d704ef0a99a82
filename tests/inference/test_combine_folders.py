from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.images import read_image, write_image
from nnood.inference.combine_folders import ensemble, read_score_map
from nnood.inference.ensembling import RANK_LEVELS, ranks
from nnood.inference.export import write_prediction
from nnood.safety import read_json, write_json
from nnood.scores import sample_score

SHAPE = (5, 12, 11)
GEOMETRY = Geometry(SHAPE[::-1], (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
CASES = ("a", "b.1", "c")


def write_folder(folder: Path, seed: int, **note: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    maps = {case: rng.beta(0.5, 3 + seed, size=SHAPE).astype(np.float32) for case in CASES}
    for case, score_map in maps.items():
        write_prediction(score_map, sample_score(score_map), GEOMETRY, folder, case)
    common = {"dataset": "Dataset101_Tiny", "images": "/images", "cases": list(CASES)}
    write_json(folder / "prediction.json", {**common, "members": [f"/m{seed}"], "tasks": [f"task{seed}"], **note})
    return maps


@pytest.fixture
def folders(tmp_path: Path) -> tuple[list[Path], list[dict[str, np.ndarray]]]:
    paths = [tmp_path / f"scores_{seed}" for seed in range(3)]
    return paths, [write_folder(path, seed) for seed, path in enumerate(paths)]


def written(folder: Path, case: str) -> np.ndarray:
    values, geometry = read_image(folder / f"{case}.nii.gz")
    assert geometry.matches(GEOMETRY)
    return values[0]


@pytest.mark.parametrize(("kind", "reference"), [("mean", np.mean), ("median", np.median)])
def test_mean_and_median_of_folders(folders, tmp_path: Path, kind: str, reference) -> None:
    paths, maps = folders
    scores = ensemble(paths, tmp_path / "out", combination=kind)
    assert list(scores) == list(CASES)
    for case in CASES:
        expected = reference([one[case].astype(np.float64) for one in maps], axis=0)
        np.testing.assert_allclose(written(tmp_path / "out", case), expected, atol=1e-7)
        highest = np.sort(expected, axis=None)[-100:].mean()
        assert scores[case] == pytest.approx(highest, abs=1e-6)
        assert float((tmp_path / "out" / f"{case}.nii.gz.txt").read_text()) == pytest.approx(highest, abs=1e-6)


def test_ranks_are_those_among_all_scores_of_a_folder(folders, tmp_path: Path) -> None:
    paths, maps = folders
    ensemble(paths, tmp_path / "out", combination="rank_mean")
    pooled = [np.concatenate([one[case].ravel() for case in CASES]) for one in maps]
    quantiles = [tuple(np.quantile(one, RANK_LEVELS, method="inverted_cdf")) for one in pooled]
    for case in CASES:
        expected = np.mean([ranks(one[case], own) for one, own in zip(maps, quantiles, strict=True)], axis=0)
        np.testing.assert_allclose(written(tmp_path / "out", case), expected, atol=1e-3)


def test_what_is_noted_of_the_folders(folders, tmp_path: Path) -> None:
    paths, _ = folders
    ensemble(paths[:2], tmp_path / "out")
    note = read_json(tmp_path / "out" / "prediction.json")
    assert note["members"] == ["/m0", "/m1"]
    assert note["tasks"] == ["task0", "task1"]
    assert (note["dataset"], note["images"], note["cases"]) == ("Dataset101_Tiny", "/images", list(CASES))
    assert note["ensemble"] == {"combination": "mean", "folders": [str(path) for path in paths[:2]]}
    write_folder(tmp_path / "other", 7, dataset="Dataset102_Other", tasks=None, plan={"file": "/plan", "digest": "d"})
    ensemble([paths[0], tmp_path / "other"], tmp_path / "mixed")
    note = read_json(tmp_path / "mixed" / "prediction.json")
    assert (note["dataset"], note["tasks"], note["plan"]["digest"]) == (None, None, "d")
    for file in [file for path in paths[1:] for file in path.glob("a.*")]:
        file.unlink()
    with pytest.raises(UserError, match="predicted by other networks; choose another folder"):
        ensemble(paths[1:], tmp_path / "mixed")


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_only_what_changed_is_combined_again(folders, tmp_path: Path) -> None:
    paths, maps = folders
    output = tmp_path / "out"
    scores = ensemble(paths, output)
    before = times(output)
    assert ensemble(paths, output) == scores
    assert times(output) == before
    write_prediction(1 - maps[2]["c"], 0.5, GEOMETRY, paths[2], "c")
    ensemble(paths, output)
    changed = {name for name, time in times(output).items() if time != before[name]}
    assert changed == {"c.nii.gz", "c.nii.gz.txt", "c.json"}
    ensemble(paths, output, combination="median")
    assert {name for name, time in times(output).items() if time != before[name]} == before.keys()


def test_folders_that_cannot_be_combined(folders, tmp_path: Path) -> None:
    paths, _ = folders
    output = tmp_path / "out"
    with pytest.raises(UserError, match=r"nothing to combine with .*scores_0"):
        ensemble(paths[:1], output)
    with pytest.raises(UserError, match="scores_0 is named twice"):
        ensemble([*paths, tmp_path / "scores_1" / ".." / "scores_0"], output)
    with pytest.raises(UserError, match="would be overwritten"):
        ensemble(paths, paths[2])
    with pytest.raises(UserError, match="nowhere is not a folder"):
        ensemble([paths[0], tmp_path / "nowhere"], output)
    for ending in (".nii.gz", ".nii.gz.txt"):
        (paths[1] / f"b.1{ending}").unlink()
    for some in (paths[:2], paths[1::-1]):
        with pytest.raises(UserError, match=r"scores_1/b\.1\.nii\.gz is missing, but .*scores_0 has this case"):
            ensemble(some, output)
    assert not output.exists()


@pytest.mark.parametrize(("kind", "count"), [("mean", 1), ("median", 1), ("rank_mean", 0)])
def test_plain_and_calibrated_scores_have_different_scales(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, count: int
) -> None:
    paths = [tmp_path / "plain", tmp_path / "planned"]
    write_folder(paths[0], 0, plan=None)
    write_folder(paths[1], 1, plan={"digest": "d", "file": "/plan.json"})
    ensemble(paths, tmp_path / "out", combination=kind)
    assert caplog.text.count("planned went through an inference plan but") == count


def test_a_broken_or_other_score_map_is_named_and_the_others_are_finished(folders, tmp_path: Path) -> None:
    paths, maps = folders
    other = Geometry.from_spacing(SHAPE, (3.0, 2.0, 1.0))
    write_image(maps[1]["a"], other, paths[1] / "a.nii.gz")
    write_image(maps[2]["b.1"] * 3, GEOMETRY, paths[2] / "b.1.nii.gz")
    with pytest.raises(UserError) as caught:
        ensemble(paths, tmp_path / "out")
    assert "scores_1/a.nii.gz differs in geometry from" in str(caught.value)
    assert "scores_2/b.1.nii.gz is no score map" in str(caught.value)
    assert [path.name for path in (tmp_path / "out").glob("*.gz")] == ["c.nii.gz"]


def test_flat_score_maps_have_one_slice(tmp_path: Path) -> None:
    write_image(np.full((4, 5), 0.25, np.float32), Geometry.from_spacing((4, 5), (1, 1)), tmp_path / "flat.nii.gz")
    values, geometry = read_score_map(tmp_path / "flat.nii.gz")
    assert (values.shape, geometry.dimensions) == ((1, 4, 5), 2)
