"""FastAPI around the handler's own functions: shows what TorchServe costs or saves."""

import os
from pathlib import Path

from fastapi import FastAPI, Request, Response

from vinegrape_loadtests.bench.ceiling import make_predictor

app = FastAPI()
classify = make_predictor(Path(os.environ["BENCH_FOLDER"]))


@app.post("/predict")
async def predict(request: Request) -> Response:
    """Classify one image in the event loop: with one process per core, a thread would only add work."""
    return Response(classify(await request.body()), media_type="application/json")
