import gzip
import logging
import math
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from PIL import Image

from nnood import images, safety
from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.images import nnunet_properties, read_case, read_image, write_image

RNG = np.random.default_rng(3)
VOLUME = RNG.integers(1, 255, (5, 6, 7)).astype(np.uint8)
SLICE = RNG.integers(1, 255, (16, 17)).astype(np.uint8)
COLOUR = RNG.integers(1, 255, (16, 17, 4)).astype(np.uint8)
WHOLE_MEDICAL = (".nii.gz", ".nii", ".nrrd", ".mha")


def _write_medical(path: Path, array: np.ndarray, compressed: bool = True) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path), useCompression=compressed)
    return path


def _refuses(path: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_image(path)
    assert str(path) in str(error.value)


def _cut(path: Path, end: int = 9) -> Path:
    path.write_bytes(path.read_bytes()[:-end])
    return path


def _flip(path: Path, where: float = 0.6) -> Path:
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 0x10
    path.write_bytes(content)
    return path


# What is good comes back as it was.


@pytest.mark.parametrize("ending", WHOLE_MEDICAL)
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float32", "float64"])
def test_medical_volumes(tmp_path: Path, ending: str, compressed: bool, kind: str) -> None:
    array, geometry = read_image(_write_medical(tmp_path / f"a{ending}", VOLUME.astype(kind), compressed))
    np.testing.assert_array_equal(array, VOLUME[None].astype(kind))
    assert array.dtype == kind
    assert geometry.size == (7, 6, 5)


@pytest.mark.parametrize("ending", [*WHOLE_MEDICAL, ".NII.GZ", ".png", ".PNG", ".bmp", ".tif", ".npy", ".npz"])
def test_grey_slices(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    kind = ending.lower()
    if kind in WHOLE_MEDICAL:
        _write_medical(tmp_path / f"b{kind}", SLICE).rename(path)
    elif kind == ".tif":
        tifffile.imwrite(path, SLICE)
    elif kind in (".npy", ".npz"):
        {".npy": np.save, ".npz": np.savez}[kind](path, SLICE)
    else:
        Image.fromarray(SLICE).save(path)
    array, geometry = read_image(path)
    np.testing.assert_array_equal(array, SLICE[None])
    assert array.dtype == np.uint8
    assert (geometry.size, geometry.spacing) == ((17, 16), (1, 1))


def _save_colour(path: Path, array: np.ndarray) -> None:
    if path.suffix == ".tif":
        extra = ["unassalpha"] if array.shape[-1] == 4 else None
        tifffile.imwrite(path, array, photometric="rgb", extrasamples=extra)
    elif path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)


@pytest.mark.parametrize("ending", [".png", ".tif", ".npy"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colour_without_alpha(tmp_path: Path, ending: str, channels: int, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / f"a{ending}"
    _save_colour(path, COLOUR[..., :channels])
    array, _ = read_image(path)
    np.testing.assert_array_equal(array, np.moveaxis(COLOUR[..., :3], -1, 0))
    warned = [record.levelno for record in caplog.records if "alpha" in record.message and str(path) in record.message]
    assert warned == ([logging.WARNING] if channels == 4 else [])


def test_grey_with_alpha(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(COLOUR[..., :2], mode="LA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], COLOUR[None, ..., 0])
    assert "alpha" in caplog.text


def test_jpeg_is_near(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(32), np.arange(40)).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg")[0][0], smooth, atol=3)


def test_palette_and_one_bit_pictures(tmp_path: Path) -> None:
    Image.fromarray(SLICE).convert("P").save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png")[0].shape == (3, 16, 17)
    Image.fromarray(SLICE > 100).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png")[0][0] > 0, SLICE > 100)


@pytest.mark.parametrize("colour", [False, True])
def test_16_bit_png_keeps_all_bits(tmp_path: Path, colour: bool) -> None:
    array = RNG.integers(0, 65535, (9, 8, 3) if colour else (9, 8)).astype(np.uint16)
    image = sitk.GetImageFromArray(array, isVector=colour)
    sitk.WriteImage(image, str(tmp_path / "a.png"))
    expected = np.moveaxis(array, -1, 0) if colour else array[None]
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], expected)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_stack_is_a_volume(tmp_path: Path, compression: str | None) -> None:
    tifffile.imwrite(tmp_path / "a.tiff", VOLUME, compression=compression, photometric="minisblack")
    array, geometry = read_image(tmp_path / "a.tiff")
    np.testing.assert_array_equal(array, VOLUME[None])
    assert geometry.size == (7, 6, 5)


def test_tiff_pages_written_one_by_one_are_all_read(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in VOLUME:
            writer.write(page, contiguous=False)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0], VOLUME[None])
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        for page in (VOLUME[0], SLICE):
            writer.write(page)
    _refuses(tmp_path / "b.tif", "images of different sizes")


def test_tiff_says_what_is_colour(tmp_path: Path) -> None:
    planar = np.moveaxis(COLOUR[..., :3], -1, 0)
    tifffile.imwrite(tmp_path / "planar.tif", planar, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_image(tmp_path / "planar.tif")[0], planar)
    narrow = VOLUME[..., :3]
    tifffile.imwrite(tmp_path / "narrow.tif", narrow, photometric="minisblack")
    np.testing.assert_array_equal(read_image(tmp_path / "narrow.tif")[0], narrow[None])


def test_big_tiff(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", VOLUME, bigtiff=True, byteorder=">", photometric="minisblack")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0], VOLUME[None])


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_big_endian_nifti(tmp_path: Path, ending: str) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    path = tmp_path / f"a{ending}"
    nib.Nifti1Image(VOLUME.T.astype(">i2"), np.eye(4), header).to_filename(path)
    assert struct.unpack(">i", (gzip.open if ending == ".nii.gz" else open)(path, "rb").read(4))[0] == 348
    np.testing.assert_array_equal(read_image(path)[0], VOLUME[None])
    _cut(path, 40)
    _refuses(path, "damaged or cut off")


def test_scaled_nifti_gives_scaled_values(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOLUME.T, np.eye(4))
    image.header.set_slope_inter(0.5, 2)
    image.to_filename(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(read_image(tmp_path / "a.nii.gz")[0][0], VOLUME * 0.5 + 2)


def test_singleton_and_vector_axes(tmp_path: Path) -> None:
    nib.Nifti1Image(VOLUME.T[..., None], np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz")[0], VOLUME[None])
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(VOLUME)] * 2), str(tmp_path / "b.mha"))
    _refuses(tmp_path / "b.mha", "4 dimensions")
    vector = sitk.GetImageFromArray(np.moveaxis(np.stack([VOLUME, VOLUME // 2]), 0, -1), isVector=True)
    sitk.WriteImage(vector, str(tmp_path / "c.nrrd"))
    np.testing.assert_array_equal(read_image(tmp_path / "c.nrrd")[0], np.stack([VOLUME, VOLUME // 2]))


def test_bool_arrays_are_images(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", SLICE > 100)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy")[0][0], SLICE > 100)


# What is broken is refused by name.


@pytest.mark.parametrize("end", [1, 9, 100])
@pytest.mark.parametrize("ending", WHOLE_MEDICAL)
@pytest.mark.parametrize("compressed", [True, False])
def test_truncated_medical_files(tmp_path: Path, ending: str, compressed: bool, end: int) -> None:
    _refuses(_cut(_write_medical(tmp_path / f"a{ending}", VOLUME, compressed), end), "damaged or cut off")


@pytest.mark.parametrize("kind", ["uint16", "int32", "float64"])
def test_truncated_nrrd_of_every_type(tmp_path: Path, kind: str) -> None:
    path = _write_medical(tmp_path / "a.nrrd", VOLUME.astype(kind), compressed=False)
    _refuses(_cut(path, 1), f"promises {VOLUME.size * np.dtype(kind).itemsize}")


@pytest.mark.parametrize("name", ["ushort", "unsigned short int", "uint16_t", "unsigned short"])
def test_nrrd_types_have_many_names(tmp_path: Path, name: str) -> None:
    path = _write_medical(tmp_path / "a.nrrd", VOLUME.astype(np.uint16), compressed=False)
    path.write_bytes(path.read_bytes().replace(b"type: unsigned short", f"type: {name}".encode()))
    np.testing.assert_array_equal(read_image(path)[0], VOLUME[None])
    _refuses(_cut(path), "damaged or cut off")


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".png", ".npz"])
def test_flipped_bit(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    if ending == ".png":
        Image.fromarray(SLICE).save(path)
    elif ending == ".npz":
        np.savez_compressed(path, VOLUME)
    else:
        _write_medical(path, VOLUME)
    _refuses(_flip(path, 0.8 if ending != ".npz" else 0.5), "damaged or cut off|cannot be read")


def test_truncated_gzip_that_was_packed_anew(tmp_path: Path) -> None:
    path = _write_medical(tmp_path / "a.nii.gz", VOLUME)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-5]))
    _refuses(path, "header promises")


@pytest.mark.parametrize("end", [2, 12, 60])
@pytest.mark.parametrize("ending", [".png", ".npy", ".npz", ".jpg"])
def test_truncated_pictures_and_arrays(tmp_path: Path, ending: str, end: int) -> None:
    path = tmp_path / f"a{ending}"
    if ending in (".npy", ".npz"):
        {".npy": np.save, ".npz": np.savez}[ending](path, SLICE)
    else:
        Image.fromarray(SLICE).save(path)
    _refuses(_cut(path, end), "damaged or cut off|cannot be read")


@pytest.mark.parametrize("part", np.linspace(0.05, 0.95, 13))
def test_cut_tiff_never_loses_pages(tmp_path: Path, part: float) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VOLUME, compression="zlib", photometric="minisblack")
    _refuses(_cut(path, round(path.stat().st_size * part)), "damaged or cut off|cannot be read")


def test_tiff_with_pages_in_a_circle(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, SLICE)
    content = bytearray(path.read_bytes())
    first = struct.unpack("<I", content[4:8])[0]
    end = first + 2 + 12 * struct.unpack("<H", content[first : first + 2])[0]
    content[end : end + 4] = content[4:8]
    path.write_bytes(content)
    _refuses(path, "circle")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("ending", [".nii.gz", ".npy", ".tif"])
def test_values_that_are_not_finite(tmp_path: Path, value: float, ending: str) -> None:
    array = VOLUME.astype(np.float32)
    array[2, 3, 4] = value
    path = tmp_path / f"a{ending}"
    write: dict[str, Callable] = {".nii.gz": _write_medical, ".npy": np.save, ".tif": tifffile.imwrite}
    write[ending](path, array)
    _refuses(path, "NaN or infinite")


def test_four_dimensions(tmp_path: Path) -> None:
    nib.Nifti1Image(np.zeros((4, 5, 6, 2), np.float32), np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    _refuses(tmp_path / "a.nii.gz", r"4 dimensions .*_0000")
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 5, 6)))
    _refuses(tmp_path / "a.npy", r"shape \(2, 4, 5, 6\)")


@pytest.mark.parametrize("spacing", [0.0, math.nan, math.inf])
def test_zero_spacing_in_a_nifti_header(tmp_path: Path, spacing: float) -> None:
    path = _write_medical(tmp_path / "a.nii", VOLUME)
    content = bytearray(path.read_bytes())
    content[84:88] = struct.pack("<f", spacing)  # pixdim[2]
    path.write_bytes(content)
    _refuses(path, "spacing")


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_zero_spacing_elsewhere(tmp_path: Path, ending: str) -> None:
    path = _write_medical(tmp_path / f"a{ending}", VOLUME)
    content = path.read_bytes().replace(b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 0 1")
    path.write_bytes(content.replace(b"(1,0,0) (0,1,0) (0,0,1)", b"(1,0,0) (0,0,0) (0,0,1)"))
    _refuses(path, "spacing|cannot be read")


def test_nifti_2_is_named(tmp_path: Path) -> None:
    nib.Nifti2Image(VOLUME.T, np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    _refuses(tmp_path / "a.nii.gz", "NIfTI-2")


@pytest.mark.parametrize("ending", images.ENDINGS)
@pytest.mark.parametrize(("content", "message"), [(b"", "is empty"), (b"hello\n" * 100, "damaged or|cannot be|plain")])
def test_files_without_an_image(tmp_path: Path, ending: str, content: bytes, message: str) -> None:
    (tmp_path / f"a{ending}").write_bytes(content)
    _refuses(tmp_path / f"a{ending}", message)


def test_unknown_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    _refuses(tmp_path / "a.txt", r"no image that nnood reads; expected one of \.nii\.gz")
    _refuses(tmp_path / "b.nii.gz", "does not exist")


@pytest.mark.parametrize("number", [0, 2])
def test_archives_hold_one_array(tmp_path: Path, number: int) -> None:
    np.savez(tmp_path / "a.npz", *[SLICE] * number)
    _refuses(tmp_path / "a.npz", f"holds {number} arrays")


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_pickles_are_never_loaded(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    {".npy": np.save, ".npz": np.savez}[ending](path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    _refuses(path, "pickles are never loaded")


@pytest.mark.parametrize("array", [np.zeros((0, 3)), np.array(3.0), np.zeros(4), SLICE.astype(complex), np.array("x")])
def test_arrays_that_are_no_images(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    _refuses(tmp_path / "a.npy", "no voxels|shape|real numbers")


# Cases.


def test_case_of_two_channels(tmp_path: Path) -> None:
    files = [_write_medical(tmp_path / "a_0000.nii.gz", VOLUME)]
    files.append(_write_medical(tmp_path / "a_0001.nii.gz", VOLUME.astype(np.float64) / 2))
    array, geometry = read_case(files, 2)
    assert (array.shape, array.dtype, geometry.size) == ((2, 5, 6, 7), np.float32, (7, 6, 5))
    np.testing.assert_array_equal(array, np.stack([VOLUME, VOLUME / 2]))


def test_slice_becomes_a_volume_of_one(tmp_path: Path) -> None:
    Image.fromarray(COLOUR[..., :3]).save(tmp_path / "a.png")
    array, geometry = read_case([tmp_path / "a.png"], 3)
    assert array.shape == (3, 1, 16, 17)
    assert nnunet_properties(geometry) == {"spacing": [999, 1, 1]}
    assert nnunet_properties(Geometry.from_spacing((3, 4, 5), (3, 2, 1))) == {"spacing": [3, 2, 1]}


def test_channels_of_different_shape_or_position(tmp_path: Path) -> None:
    first = _write_medical(tmp_path / "a_0000.nii.gz", VOLUME)
    with pytest.raises(UserError, match=r"a_0001\.nii\.gz and a_0000\.nii\.gz .* differ in geometry"):
        read_case([first, _write_medical(tmp_path / "a_0001.nii.gz", VOLUME[1:])], 2)
    moved = Geometry((7, 6, 5), (1, 1, 1), (0, 0, 0.5), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    write_image(VOLUME, moved, tmp_path / "a_0001.nii.gz")
    with pytest.raises(UserError, match="differ in geometry"):
        read_case([first, tmp_path / "a_0001.nii.gz"], 2)


def test_wrong_number_of_channels(tmp_path: Path) -> None:
    path = _write_medical(tmp_path / "a_0000.nii.gz", VOLUME)
    with pytest.raises(UserError, match=r"hold 1 channel\(s\) but 2 are expected"):
        read_case([path], 2)


def test_constant_image_and_values_beyond_float32(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is constant"):
        read_case([_write_medical(tmp_path / "a.nii.gz", np.full_like(VOLUME, 7))], 1)
    with pytest.raises(UserError, match="beyond the range of float32"):
        read_case([_write_medical(tmp_path / "b.nii.gz", VOLUME * 1e300)], 1)


# Writing.

OBLIQUE = (*(0.36, 0.48, -0.8), *(-0.8, 0.6, 0.0), *(0.48, 0.64, 0.6))


@pytest.mark.parametrize("ending", WHOLE_MEDICAL)
@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, 0, 1, 0, 1, 0), OBLIQUE])
def test_geometry_is_kept(tmp_path: Path, ending: str, direction: tuple[float, ...]) -> None:
    geometry = Geometry((7, 6, 5), (0.7, 1.3, 4.5), (-91.25, 126.5, 1043.75), direction)
    write_image(VOLUME, geometry, tmp_path / f"a{ending}")
    array, found = read_image(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(array[0], VOLUME)
    np.testing.assert_allclose(found.spacing, geometry.spacing, rtol=1e-6)
    np.testing.assert_allclose(found.origin, geometry.origin, rtol=1e-6)
    np.testing.assert_allclose(found.direction, geometry.direction, atol=1e-6)
    assert found.matches(geometry)


@pytest.mark.parametrize("ending", WHOLE_MEDICAL)
def test_geometry_of_a_slice_is_kept(tmp_path: Path, ending: str) -> None:
    geometry = Geometry((17, 16), (0.5, 2.0), (3.0, -4.0), (0.6, -0.8, 0.8, 0.6))
    write_image(SLICE[None], geometry, tmp_path / f"a{ending}")
    array, found = read_image(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(array[0], SLICE)
    assert found.matches(geometry)


@pytest.mark.parametrize(
    "other",
    [
        Geometry((7, 6, 4), (1, 1, 1), (0, 0, 0), OBLIQUE),
        Geometry((7, 6, 5), (1, 1, 1.01), (0, 0, 0), OBLIQUE),
        Geometry((7, 6, 5), (1, 1, 1), (0, 0, 0.01), OBLIQUE),
        Geometry((7, 6, 5), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1)),
        Geometry((7, 6), (1, 1), (0, 0), (1, 0, 0, 1)),
    ],
)
def test_different_grids_do_not_match(other: Geometry) -> None:
    geometry = Geometry((7, 6, 5), (1, 1, 1), (0, 0, 0), OBLIQUE)
    assert geometry.matches(geometry)
    assert not geometry.matches(other)
    assert geometry.describe() != other.describe()


def test_wrong_size_is_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected an array of size"):
        write_image(VOLUME, Geometry.from_spacing((5, 6, 8), (1, 1, 1)), tmp_path / "a.nii.gz")


def _fail_to_write(image: sitk.Image, name: str, **_: object) -> None:
    Path(name).write_bytes(b"half")
    raise RuntimeError("sitk::ERROR: write failed")


def _write_half(image: sitk.Image, name: str, **_: object) -> None:
    Path(name).write_bytes(gzip.compress(bytes(400))[:-8])


def _fail_to_flush(_: Path) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("failure", [_fail_to_write, _write_half, _fail_to_flush])
def test_full_disk_keeps_the_previous_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Callable[..., None]
) -> None:
    path = tmp_path / "a.nii.gz"
    geometry = Geometry.from_spacing(VOLUME.shape, (1, 1, 1))
    write_image(VOLUME, geometry, path)
    if failure is _fail_to_flush:
        monkeypatch.setattr(safety, "flush", failure)
    else:
        monkeypatch.setattr(images.sitk, "WriteImage", failure)
    with pytest.raises(OSError, match=r"disk full|No space"):
        write_image(VOLUME // 2, geometry, path)
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_array_equal(read_image(path)[0][0], VOLUME)
