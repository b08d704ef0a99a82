"""The kinds of anomaly of a benchmark, by name, and the presets. They share no code with the training tasks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nnood.errors import UserError, one_error
from nnood.evaluation.benchmark import artefacts, deformations, intensities
from nnood.evaluation.benchmark.intensities import Local
from nnood.evaluation.benchmark.shapes import ball, blob, cube, lesion, soft_ball
from nnood.evaluation.benchmark.subjects import Draw, Planted, Subject

MASKS, FOREIGN = "masks", "foreign"
OPTIONS = {MASKS: "a folder of lesion masks (--masks)", FOREIGN: "another data set (--foreign)"}

FPI = 'Tan, Hou, Batten, Qiu, Kainz 2020, "Detecting outliers with foreign patch interpolation"'
AUTOSEG = (
    'Meissen, Kaissis, Rueckert 2022, "AutoSeg: steering the inductive biases for automatic pathology segmentation"'
)
MOOD22 = (
    'Naval Marimont, Siomos, Tarroni 2023, "Achieving state-of-the-art performance in the Medical Out-of-Distribution '
    '(MOOD) challenge using plausible synthetic anomalies"'
)
TOY = "nnood's own version of the toy anomalies by which variational autoencoders are studied"
OWN = "nnood's own"

MOOD22_TASKS = ("mood22_hard", "mood22_smooth")
BRIGHTNESS_TASKS = ("smooth_intensity", *MOOD22_TASKS, "random_shape", "lesion_shapes", "dag")


@dataclass(frozen=True)
class Kind:
    """A kind of anomaly.

    Attributes:
        summary: What it is, and what its strength means.
        close_to: Training tasks that make the same change to an image, in whatever shape, so that tables can mark it.
        source: Where it comes from.
        build: Makes one, from a normal case and a draw.
        whole_image: Whether it befalls the whole image; then the mask is all of it.
        needs: What the user must give for it: empty, `masks` or `foreign`.
    """

    summary: str
    close_to: tuple[str, ...]
    source: str
    build: Callable[[Subject, Draw], Planted]
    whole_image: bool = False
    needs: str = ""


KINDS: dict[str, Kind] = {
    "noise": Kind(
        "a ball with Gaussian noise on top; strength: its standard deviation, as share of the intensity range",
        (*MOOD22_TASKS, "random_shape"),
        FPI,
        Local(ball, intensities.add_noise),
    ),
    "addition": Kind(
        "a brighter or darker ball; strength: the offset, as share of the intensity range, below 0 where darker",
        BRIGHTNESS_TASKS,
        FPI,
        Local(ball, intensities.add_constant),
    ),
    "shift": Kind(
        "a ball of tissue from elsewhere in the image; strength: the distance, in diameters",
        ("cutpaste", "poisson_intra", "lesion_shapes"),
        FPI,
        Local(ball, deformations.shift),
    ),
    "reflection": Kind(
        "a ball mirrored at its central plane; strength: always 1",
        (),
        FPI,
        Local(ball, deformations.reflection),
    ),
    "sink": Kind(
        "a ball drawn towards its centre; strength k: the centre shrinks by the factor 1 / (1 - k)",
        ("sink",),
        FPI,
        Local(ball, deformations.sink),
    ),
    "source": Kind(
        "a ball pushed away from its centre; strength k: the centre grows by the factor 1 / (1 - k)",
        ("source",),
        FPI,
        Local(ball, deformations.source),
    ),
    "blur": Kind(
        "a blurred ball; strength: the Gaussian's standard deviation in mm",
        (),
        AUTOSEG,
        Local(ball, intensities.blur),
    ),
    "slice_shuffle": Kind(
        "a cube whose slices along one axis lie in another order; strength: the number of slices",
        (),
        AUTOSEG,
        Local(cube, deformations.slice_shuffle),
    ),
    "smooth_noise": Kind(
        "as noise, fading out towards the surface; strength: as noise",
        (*MOOD22_TASKS, "random_shape"),
        MOOD22,
        Local(soft_ball, intensities.add_noise),
    ),
    "smooth_addition": Kind(
        "as addition, fading out towards the surface; strength: as addition",
        BRIGHTNESS_TASKS,
        MOOD22,
        Local(soft_ball, intensities.add_constant),
    ),
    "spheres": Kind(
        "balls of constant intensity, 4 radii by 5 intensities; strength: as of random_shapes",
        ("cutout",),
        TOY,
        Local(intensities.listed_ball, intensities.listed_level),
    ),
    "random_shapes": Kind(
        "smooth random shapes of constant intensity; strength: 0 (dark) to 1 (bright) of the intensity range",
        ("cutout",),
        TOY,
        Local(blob, intensities.any_level),
    ),
    "several_shapes": Kind(
        "two to five balls, cubes and random shapes of constant intensities; strength: their number",
        ("cutout",),
        TOY,
        intensities.several_shapes,
    ),
    "tumour": Kind(
        "a dark core in a bright, blurred ring; strength: half their difference, as share of the intensity range",
        (),
        TOY,
        Local(soft_ball, intensities.tumour),
    ),
    "lesions": Kind(
        "shapes of real lesions filled with darker or brighter, textured tissue; strength: one of 5 contrasts, "
        "as share of the intensity range, below 0 where darker",
        ("lesion_shapes",),
        OWN,
        Local(lesion, intensities.lesion_tissue),
        needs=MASKS,
    ),
    "missing_slices": Kind(
        "a block of slices set to the lowest value; strength: the number of slices",
        ("cutout",),
        OWN,
        artefacts.missing_slices,
    ),
    "orientation": Kind(
        "the image turned or mirrored; strength: the angle in degrees, 0 where mirrored",
        (),
        OWN,
        artefacts.orientation,
        whole_image=True,
    ),
    "ghosting": Kind(
        "two weak copies shifted along an axis; strength: the share of the image that goes into them",
        (),
        OWN,
        artefacts.ghosting,
        whole_image=True,
    ),
    "bias_field": Kind(
        "uneven brightness; strength: logarithm of the largest factor",
        ("dag",),
        OWN,
        artefacts.bias_field,
        whole_image=True,
    ),
    "spike_noise": Kind(
        "plane waves from spikes in k-space; strength: their amplitude, as share of the intensity range",
        (),
        OWN,
        artefacts.spike_noise,
        whole_image=True,
    ),
    "foreign": Kind(
        "an image of another data set; strength: always 1",
        (),
        OWN,
        artefacts.as_it_is,
        whole_image=True,
        needs=FOREIGN,
    ),
}

_FPI = ("noise", "addition", "shift", "reflection", "sink", "source")
_AUTOSEG = ("blur", "slice_shuffle")
_MOOD22 = ("smooth_noise", "smooth_addition")
_WHOLE = tuple(name for name, kind in KINDS.items() if kind.whole_image)
PRESETS: dict[str, tuple[str, ...]] = {
    "fpi": _FPI,
    "autoseg": _AUTOSEG,
    "mood22": _MOOD22,
    "toy": ("spheres", "random_shapes", "several_shapes", "tumour"),
    "mood": (*_FPI, *_AUTOSEG, *_MOOD22, "tumour", "missing_slices", *_WHOLE),
    "all": tuple(KINDS),
}


def describe_kinds() -> str:
    """All kinds and presets, for the user to read: one line each, and one more for the tasks that a kind resembles."""
    lines = []
    for name, kind in KINDS.items():
        needs = f"; needs {OPTIONS[kind.needs]}" if kind.needs else ""
        lines.append(f"{name:16}{kind.summary}{needs}")
        if kind.close_to:
            lines.append(f"{'':16}close to the training tasks {', '.join(kind.close_to)}")
    return "\n".join([*lines, "", "Presets", *(f"{name:16}{', '.join(kinds)}" for name, kinds in PRESETS.items())])


def choose_kinds(names: Sequence[str], given: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Resolve kinds and presets.

    Args:
        names: Names of kinds and presets, mixed.
        given: What there is to make them of: `masks`, `foreign`.

    Returns:
        The kinds in the order of `KINDS`, and those that presets name but whose needs are not given.

    Raises:
        UserError: If a name is unknown, a kind named itself lacks what it needs, or nothing remains.
    """
    unknown = [name for name in names if name not in KINDS and name not in PRESETS]
    if unknown:
        raise UserError(
            f"There is no kind of anomaly {unknown[0]!r}; known are {', '.join(KINDS)}, "
            f"and the presets {', '.join(PRESETS)}."
        )
    one_error(
        [
            f"The kind {name} needs {OPTIONS[KINDS[name].needs]}; give it or leave the kind out."
            for name in KINDS
            if name in names and KINDS[name].needs not in ("", *given)
        ]
    )
    wanted = {name for choice in names for name in PRESETS.get(choice, (choice,))}
    chosen = tuple(name for name in KINDS if name in wanted and KINDS[name].needs in ("", *given))
    if not chosen:
        raise UserError(f"No kind of anomaly was named; known are {', '.join(KINDS)}, and {', '.join(PRESETS)}.")
    return chosen, tuple(name for name in KINDS if name in wanted and name not in chosen)
