import json

import torch

from nnood.paths import Roots
from nnood.training.train import train


def test_other_tasks_have_a_folder_and_folds_of_their_own(planned: Roots) -> None:
    (folder,) = train(
        "999", ["1"], planned, tasks=["cutpaste", "poisson_inter"], epochs=1, iterations=1, device=torch.device("cpu")
    )
    assert folder.parent.name == "NnoodTrainer__nnood-cutpaste+poisson_inter__3d_fullres"
    summary = json.loads((folder / "validation" / "summary.json").read_text())
    assert set(summary["voxel_ap"]) == {"cutpaste", "poisson_inter"}
    folds = planned.preprocessed / "Dataset999_Phantoms" / "cross_validation" / "nnood-cutpaste+poisson_inter.json"
    assert json.loads(folds.read_text())[0]["train_tasks"] == ["cutpaste", "poisson_inter"]
