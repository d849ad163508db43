import numpy as np
import pytest

from vinegrape_training.errors import ParityError
from vinegrape_training.export.parity import Parity, ParityLimits, as_metrics, check, measure, table

IMAGES = np.arange(16, dtype=np.uint8).reshape(16, 1, 1, 1)
GOOD = Parity(agreement=1.0, difference=0.0, batch_difference=0.0)


def even_or_odd(batch):
    """Certain of class 0 for an even pixel, of class 1 for an odd one."""
    odd = (batch[:, 0, 0, 0] % 2).astype(np.float32)
    return np.stack([1 - odd, odd], axis=1)


def test_a_network_agrees_with_itself():
    assert measure(even_or_odd, IMAGES, even_or_odd(IMAGES)) == GOOD


def test_one_wrong_image_of_sixteen_is_seen():
    reference = even_or_odd(IMAGES)
    reference[3] = [0.75, 0.25]
    parity = measure(even_or_odd, IMAGES, reference)
    assert parity.agreement == 15 / 16
    assert parity.difference == 0.75


def test_a_network_that_depends_on_its_batch_is_seen():
    def leaky(batch):
        return even_or_odd(batch) * 0.5 + 0.5 / len(batch)

    assert measure(leaky, IMAGES, leaky(IMAGES)).batch_difference == pytest.approx(0.5 - 0.5 / 8)


def test_a_good_export_passes():
    check({"onnx_int8": Parity(0.99, 0.2, 0.0), "onnx_fp32": GOOD, "torchscript": GOOD}, ParityLimits())


@pytest.mark.parametrize(
    ("backend", "parity", "said"),
    [
        ("onnx_fp32", Parity(0.9975, 0.0, 0.0), "onnx_fp32: top-1 agrees on 99.75%"),
        ("torchscript", Parity(1.0, 2e-4, 0.0), "torchscript: probabilities differ by 2.00e-04"),
        ("onnx_fp32", Parity(1.0, 0.0, 2e-5), "onnx_fp32: batches of 1 and 8 differ by 2.00e-05"),
        ("onnx_int8", Parity(0.97, 0.0, 0.0), "onnx_int8: top-1 agrees on 97.00% of the images, not 98.00%"),
        ("onnx_int8", Parity(1.0, 0.0, 2e-3), "onnx_int8: batches of 1 and 8 differ by 2.00e-03"),
    ],
)
def test_a_failure_says_which_file_and_by_how_much(backend, parity, said):
    with pytest.raises(ParityError, match="no model was written") as error:
        check({backend: parity}, ParityLimits())
    assert said in str(error.value)


def test_int8_may_differ_in_its_probabilities():
    check({"onnx_int8": Parity(1.0, 0.3, 0.0)}, ParityLimits())


def test_every_failure_is_said_at_once():
    with pytest.raises(ParityError) as error:
        check({"onnx_fp32": Parity(0.5, 1.0, 1.0)}, ParityLimits())
    assert str(error.value).count("onnx_fp32:") == 3


def test_the_figures_have_names_for_the_metadata_and_a_table_for_people():
    assert as_metrics({"onnx_int8": Parity(0.99, 0.2, 0.0)})["parity_onnx_int8_agreement"] == 0.99
    assert "99.00%" in table({"onnx_int8": Parity(0.99, 0.2, 0.0)})
