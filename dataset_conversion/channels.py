"""Whether the images of a data set agree in channels and dimensions, and what their channels are called."""

from collections import Counter
from collections.abc import Mapping

from dataset_conversion.cases import COLOURS, Found, Source
from nnood.image_readers import MEDICAL_ENDINGS
from nnood.images import image_ending


def usual_channels(found: Mapping[str, Found]) -> int:
    """The number of channels that most cases have."""
    return Counter(case["channels"] for case in found.values()).most_common(1)[0][0] if found else 0


def channel_names(channels: int, *, example: Source) -> list[str]:
    """Names for dataset.json, by which nnU-Net also chooses the normalisation.

    Args:
        channels: How many.
        example: One case: three channels of one picture are colours.
    """
    if channels == 1:
        return ["image"]
    is_picture = len(example.inputs) < 2 and not any(image_ending(file) in MEDICAL_ENDINGS for file in example.inputs)
    if channels == len(COLOURS) and is_picture:
        return list(COLOURS)
    return [f"channel_{channel}" for channel in range(channels)]


def disagreements(found: Mapping[str, Found], channels: int) -> list[str]:
    """What keeps images from being one data set: 2D beside 3D, or different numbers of channels.

    Args:
        found: By the image's name in messages.
        channels: How many each image should have; 0 if no training image was good.

    Returns:
        One sentence per fault.
    """
    faults = [
        f"{image} has {case['channels']} channel(s); expected {channels}, as most training images have."
        for image, case in found.items()
        if channels and case["channels"] != channels
    ]
    examples = {case["dimensions"]: image for image, case in found.items()}
    if len(examples) > 1:
        faults.append(f"{examples[2]} is 2D and {examples[3]} is 3D; a data set holds one kind only.")
    return faults
