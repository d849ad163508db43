import numpy as np
import pytest

from vinegrape_handler.networks import Outputs
from vinegrape_training.errors import ParityError
from vinegrape_training.export.parity import Parity, ParityLimits, as_metrics, check, from_metrics, measure, table

IMAGES = np.arange(16, dtype=np.uint8).reshape(16, 1, 1, 1)
GOOD = Parity(agreement=1.0, difference=0.0, batch_difference=0.0)


def even_or_odd(batch):
    """Probability 1 for class 0 if the pixel is even, for class 1 if it is odd."""
    odd = (batch[:, 0, 0, 0] % 2).astype(np.float32)
    return Outputs(np.stack([1 - odd, odd], axis=1))


def test_a_network_agrees_with_itself():
    assert measure(even_or_odd, IMAGES, even_or_odd(IMAGES).probabilities) == GOOD


def test_one_wrong_image_of_sixteen_is_counted():
    reference = even_or_odd(IMAGES).probabilities
    reference[3] = [0.75, 0.25]
    parity = measure(even_or_odd, IMAGES, reference)
    assert parity.agreement == 15 / 16
    assert parity.difference == 0.75


def test_a_network_that_depends_on_the_batch_size_is_measured():
    def depends_on_batch(batch):
        return Outputs(even_or_odd(batch).probabilities * 0.5 + 0.5 / len(batch))

    reference = depends_on_batch(IMAGES).probabilities
    assert measure(depends_on_batch, IMAGES, reference).batch_difference == pytest.approx(0.5 - 0.5 / 8)


def test_a_good_export_passes():
    check({"onnx_int8": Parity(0.99, 0.2, 0.0), "onnx_fp32": GOOD, "torchscript": GOOD}, ParityLimits())


@pytest.mark.parametrize(
    ("backend", "parity", "message"),
    [
        ("onnx_fp32", Parity(0.9975, 0.0, 0.0), "onnx_fp32: the top-1 class is the same for 99.75%"),
        ("torchscript", Parity(1.0, 2e-4, 0.0), "torchscript: probabilities differ by 2.00e-04"),
        ("onnx_fp32", Parity(1.0, 0.0, 2e-5), "onnx_fp32: batches of 1 and 8 differ by 2.00e-05"),
        (
            "onnx_int8",
            Parity(0.97, 0.0, 0.0),
            "onnx_int8: the top-1 class is the same for 97.00% of the images; it must be at least 98.00%",
        ),
        ("onnx_int8", Parity(1.0, 0.0, 2e-3), "onnx_int8: batches of 1 and 8 differ by 2.00e-03"),
    ],
)
def test_a_failure_names_the_file_and_the_figure(backend, parity, message):
    with pytest.raises(ParityError, match="no model was written") as error:
        check({backend: parity}, ParityLimits())
    assert message in str(error.value)


def test_int8_may_differ_in_its_probabilities():
    check({"onnx_int8": Parity(1.0, 0.3, 0.0)}, ParityLimits())


def test_all_failures_are_reported_together():
    with pytest.raises(ParityError) as error:
        check({"onnx_fp32": Parity(0.5, 1.0, 1.0)}, ParityLimits())
    assert str(error.value).count("onnx_fp32:") == 3


def test_the_figures_convert_to_metrics_and_back():
    metrics = as_metrics({"onnx_int8": Parity(0.99, 0.2, 0.1), "onnx_fp32": GOOD})
    assert metrics["parity_onnx_int8_agreement"] == 0.99
    assert from_metrics(metrics, "onnx_int8") == Parity(0.99, 0.2, 0.1)


def test_the_table_shows_all_figures():
    title, row = table({"onnx_int8": Parity(0.99, 0.2, 0.1)}).splitlines()
    assert title.split() == ["same", "top-1", "difference", "batch", "1", "or", "8"]
    assert row.split() == ["onnx_int8", "99.00%", "2.0e-01", "1.0e-01"]
