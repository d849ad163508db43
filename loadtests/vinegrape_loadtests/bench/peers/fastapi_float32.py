"""FastAPI and ONNX Runtime as in a good tutorial: Pillow, NumPy, float32, one thread per process.

It serves the same network with the same weights and input size, so its labels can be compared with ours. It shares no
code with the handler: the difference is what is measured.
"""

import io
import os
from pathlib import Path

import numpy as np
import onnxruntime
from fastapi import FastAPI, Request
from PIL import Image

from vinegrape_handler.metadata import Metadata

FOLDER = Path(os.environ["BENCH_FOLDER"])
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)  # ImageNet's
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)

metadata = Metadata.read(FOLDER)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(FOLDER / "fastapi_float32.onnx", options, providers=["CPUExecutionProvider"])
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> dict[str, object]:
    """Classify one image in the event loop, as fastapi_same_code does."""
    image: Image.Image = Image.open(io.BytesIO(await request.body()))
    if image.mode == "RGBA":
        canvas = Image.new("RGB", image.size, (255, 255, 255))
        canvas.paste(image, mask=image.getchannel("A"))
        image = canvas
    image = image.convert("RGB").resize((metadata.input_size, metadata.input_size), Image.Resampling.BICUBIC)
    pixels = (np.asarray(image, dtype=np.float32) / 255 - MEAN) / STD  # [S,S,3]
    (logits,) = session.run(None, {"images": pixels.transpose(2, 0, 1)[None]})
    exponentials = np.exp((logits[0] - logits[0].max()) / metadata.temperature)
    probabilities = dict(zip(metadata.classes, (exponentials / exponentials.sum()).tolist(), strict=True))
    label = max(probabilities, key=lambda name: probabilities[name])
    return {"label": label, "probability": probabilities[label], "probabilities": probabilities}
