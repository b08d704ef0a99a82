"""Published methods as recipes, with parameters as published wherever nnU-Net's self-configuration leaves room."""

from dataclasses import replace

from nnood.scores import DEFAULT_SAMPLE_SCORE
from nnood.training.recipe import Recipe

_NNOOD22 = (
    'Baugh, Tan, Vlontzos, Müller, Kainz, "nnOOD: a framework for benchmarking self-supervised anomaly localisation '
    'methods", UNSURE 2022'
)
_PLANNED = (
    "Spacing, normalisation, patch and batch size, deep supervision and the network are nnU-Net's plan, and so is its "
    "augmentation. "
)
_SIZES = "Anomalies are as large as nnood plans. "


_STOPPED = (
    "As in nnOOD, training ends when the voxel average precision on held-out patches with the own task, as large as "
    "planned, reaches 0.875 (there a moving average). The learning rate stays constant (there it falls when the "
    "training loss rests), and there are no coordinates among the input channels. "
)


def _nnood22(
    task: str, label: str, citation: str, *, sizes: tuple[float, float] | None, sample_score: str, notes: str
) -> Recipe:
    """One task, five folds, until the task is learned: the protocol of nnOOD 2022."""
    return Recipe(
        name=task,
        summary=f"The task {task} alone, until it is learned.",
        tasks={task: 1.0},
        citation=f"{citation}; protocol of {_NNOOD22}",
        notes=_PLANNED + _STOPPED + notes,
        scheme="per_task",
        sizes=sizes,
        label=label,
        foreground_share=0.3,
        optimiser="adam",
        schedule="constant",
        learning_rate=3e-4,
        weight_decay=3e-5,
        epochs=2500,
        iterations=100,
        stop_at=0.875,
        sample_score=sample_score,
    )


_NSA = (
    'Schlüter, Tan, Hou, Kainz, "Natural synthetic anomalies for self-supervised anomaly detection and localization", '
    "ECCV 2022"
)

_MANY_TASKS = Recipe(
    name="many_tasks",
    summary="Five tasks, told by a flipped Gaussian.",
    tasks=dict.fromkeys(("poisson_inter", "poisson_intra", "sink", "source", "smooth_intensity"), 1.0),
    citation='Baugh, Tan, Müller, Dombrowski, Batten, Kainz, "Many tasks make light work", MICCAI 2023',
    notes=_PLANNED
    + _SIZES
    + "Cross-entropy in the place of the mean squared error of the authors' code, and one cycle of the learning rate "
    "in the place of a warm-up and an exponential decay. Foreign tissue is of the same data set unless --donors names "
    "another.",
    learning_rate=1e-3,
    weight_decay=0.0,
)


def _many_tasks(trained: int) -> Recipe:
    """Folds paired with tasks: each network trains on some of five tasks and is validated on the others."""
    return replace(
        _MANY_TASKS,
        name=f"many_tasks_{trained}of5",
        summary=f"{trained} of 5 pairs of fold and task for training, the others for validation.",
        scheme=f"paired({trained})",
    )


PUBLISHED = (
    _nnood22(
        "fpi",
        "weight",
        'Tan, Hou, Batten, Qiu, Kainz, "Detecting outliers with foreign patch interpolation", 2020',
        sizes=(0.1, 0.4),
        sample_score="mean",
        notes="The sample score is the mean of the map; published is that of the highest quarter of the slices.",
    ),
    _nnood22(
        "cutpaste",
        "binary",
        'Li, Sohn, Yoon, Pfister, "CutPaste", CVPR 2021',
        sizes=(0.14, 0.39),
        sample_score=DEFAULT_SAMPLE_SCORE,
        notes="Published is a classifier of images; as in nnOOD, the network finds the patch, 2 to 15 % of a slice.",
    ),
    _nnood22(
        "pii",
        "weight",
        'Tan, Hou, Day, Simpson, Rueckert, Kainz, "Detecting outliers with Poisson image interpolation", 2021',
        sizes=(0.1, 0.4),
        sample_score="mean",
        notes="",
    ),
    _nnood22("nsa", "logistic", _NSA, sizes=None, sample_score=DEFAULT_SAMPLE_SCORE, notes=_SIZES),
    _nnood22("nsa_mixed", "logistic", _NSA, sizes=None, sample_score=DEFAULT_SAMPLE_SCORE, notes=_SIZES),
    _many_tasks(1),
    _many_tasks(2),
    _many_tasks(3),
    _many_tasks(4),
    Recipe(
        name="mood22",
        summary="Ten networks: five folds, each with hard and with smooth edges; winner of the MOOD challenge 2022.",
        tasks={"mood22_hard": 1.0, "mood22_smooth": 1.0},
        citation=(
            'Naval Marimont, Siomos, Tarroni, "Achieving state-of-the-art performance in the Medical '
            'Out-of-Distribution (MOOD) challenge using plausible synthetic anomalies", 2023'
        ),
        notes=_PLANNED
        + _SIZES
        + "One of ten training images is normal and there are 35,000 steps, as in the authors' code. The sliding "
        "window overlaps by half, with Gaussian weights, as for all recipes.",
        scheme="single_task",
        normal=0.1,
        label="weight",
        learning_rate=1e-3,
        weight_decay=1e-5,
        epochs=140,
        sample_score="top_100_voxels",
    ),
    Recipe(
        name="random_shape",
        summary="Random shapes of changed intensity, told by Dice and cross-entropy.",
        tasks={"random_shape": 1.0},
        citation=(
            'Cho, Kang, Park, "Self-supervised 3D out-of-distribution detection via pseudoanomaly generation", '
            "MOOD challenge 2021"
        ),
        notes=_PLANNED + _SIZES + "No image is left normal; the publication's share, length and batch were not found.",
        label="binary",
        loss="combo",
        optimiser="adam",
        schedule="constant",
        learning_rate=1e-4,
        weight_decay=0.0,
        sample_score="mean",
    ),
    Recipe(
        name="autoseg",
        summary="Slices with their neighbours, seen from three sides (2.5d), polygons of foreign tissue.",
        tasks={"autoseg": 1.0},
        citation=(
            'Meissen, Kaissis, Rueckert, "AutoSeg: steering the inductive biases for automatic pathology '
            'segmentation", MOOD challenge 2021'
        ),
        notes=_PLANNED + "Trained as long as all others: the authors' code has 2 epochs over all slices of the data.",
        configuration="2.5d",
        sizes=(0.1, 0.5),
        label="weight",
        optimiser="adamw",
        schedule="constant",
        learning_rate=1e-4,
        weight_decay=2.5e-4,
    ),
    Recipe(
        name="nnunet_fpi",
        summary="What a user would do without nnood: anomalies planted once beforehand, stock nnU-Net on their masks.",
        tasks={"fpi": 1.0},
        citation='Isensee et al., "nnU-Net", Nature Methods 2021, with the anomalies of Tan et al. 2020',
        notes=_PLANNED
        + "For anomaly and background, nnU-Net's two outputs differ by the one logit here, so that its Dice and cross-"
        "entropy are those of stock nnU-Net. As for all recipes, rotation is by 15 degrees at most and mirroring off "
        "unless the data set declares otherwise.",
        sizes=(0.1, 0.4),
        planting="offline",
        label="binary",
        loss="dice_ce",
        optimiser="sgd",
        schedule="polynomial",
        learning_rate=1e-2,
        weight_decay=3e-5,
    ),
)
