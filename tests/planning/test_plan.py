import json
from dataclasses import replace
from typing import Any

import pytest

from nnood.errors import UserError
from nnood.plan import ConfigurationPlan, NnoodPlan

PLAN = NnoodPlan(
    default_configuration="3d_fullres",
    foreground_method="otsu",
    foreground_reason="all cases lie in air",
    mirror_axes=(2,),
    rotation_degrees=15.0,
    anomaly_size=(0.1, 0.7),
    configurations={
        "2d": ConfigurationPlan((1, 20, 30), (0.4, 0.3), (0.6, 0.5)),
        "3d_fullres": ConfigurationPlan((9, 9, 9), (1.0,), (1.5,)),
    },
)


def stored() -> dict[str, Any]:
    return json.loads(json.dumps(PLAN.to_dict()))


def test_round_trip_through_json():
    assert NnoodPlan.from_dict(stored()) == PLAN


@pytest.mark.parametrize("block", [{**stored(), "schema_version": 0}, {"default_configuration": "2d"}, None, []])
def test_other_schema_is_refused(block):
    with pytest.raises(UserError, match="schema version"):
        NnoodPlan.from_dict(block)


@pytest.mark.parametrize("key", sorted(set(stored()) - {"schema_version"}))
def test_missing_key_is_named(key):
    block = stored()
    del block[key]
    with pytest.raises(UserError, match=key):
        NnoodPlan.from_dict(block)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("anomaly_size", [0.5, 0.2]),
        ("anomaly_size", [0.5]),
        ("anomaly_size", [0.0, 0.2]),
        ("anomaly_size", None),
        ("rotation_degrees", "much"),
        ("mirror_axes", 2),
        ("configurations", ["2d"]),
        ("configurations", {"2d": {"foreground_extent": [0, 3], "label_sigma": [1.0], "label_saturation": [1.0]}}),
        ("configurations", {"2d": {"foreground_extent": [3, 3], "label_sigma": [0.0], "label_saturation": [1.0]}}),
        ("configurations", {"2d": {"foreground_extent": [3, 3], "label_sigma": [None], "label_saturation": [1.0]}}),
        ("configurations", {"2d": {"foreground_extent": [3, 3], "label_sigma": [1.0], "label_saturation": [0.0]}}),
        ("configurations", {"2d": {"foreground_extent": [3, 3], "label_sigma": [1.0], "label_saturation": []}}),
        ("configurations", {"2d": {"foreground_extent": [3, 3]}}),
    ],
)
def test_invalid_values_are_refused(key, value):
    with pytest.raises(UserError, match=r"not valid .*; plan the data set again"):
        NnoodPlan.from_dict({**stored(), key: value})


def test_invalid_plans_cannot_be_made():
    with pytest.raises(ValueError, match="anomaly_size"):
        replace(PLAN, anomaly_size=(0.7, 1.2))
    with pytest.raises(ValueError, match="extents"):
        ConfigurationPlan((), (1.0,), (1.0,))
    with pytest.raises(ValueError, match="label scales"):
        ConfigurationPlan((3, 3), (), ())
