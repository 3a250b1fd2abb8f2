"""Matching and losses against Hugging Face's port of DETR's criterion, on any backend of Keras."""

import numpy as np
import pytest
from keras import ops
from make_detection_loss import CASES, NO_OBJECT_WEIGHT, inputs, reference
from tolerances import assert_close

from pit_keras.training.detection_loss import detection_losses, loss_totals
from pit_keras.training.matching import least_cost, matching_costs


@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("case", CASES)
def test_the_reference_has_the_same_pairs_and_losses(case, seed):
    arrays = inputs(np.random.default_rng(seed), *CASES[case])
    expected = reference(**arrays)
    logits, boxes, labels, target_boxes = (ops.convert_to_tensor(x) for x in arrays.values())

    costs = ops.convert_to_numpy(matching_costs(logits, boxes, target_boxes, labels))
    matches = least_cost(costs, arrays["labels"])
    losses = detection_losses(
        {"logits": logits, "boxes": boxes},
        {"labels": labels, "boxes": target_boxes},
        ops.convert_to_tensor(matches),
        **loss_totals(labels, logits.shape[2], NO_OBJECT_WEIGHT),
        no_object_weight=NO_OBJECT_WEIGHT,
        l1_weight=5.0,
        giou_weight=2.0,
    )

    np.testing.assert_array_equal(matches, expected["matches"])
    loss = (expected["losses"] @ [1, 5, 2]).sum()
    last = [*expected["losses"][-1], expected["class_errors"][-1]]
    for ours, theirs in zip(losses.values(), [loss, *last], strict=True):
        # Both in float32; see `test_detection_loss.py`.
        assert_close(float(ours), theirs, roundings=2 * 64)
