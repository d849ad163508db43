"""FastAPI around the handler's own functions: what TorchServe itself costs, or saves."""

import os
from pathlib import Path

from fastapi import FastAPI, Request, Response

from vinegrape_loadtests.bench.ceiling import work

app = FastAPI()
ask = work(Path(os.environ["BENCH_FOLDER"]))


@app.post("/predict")
async def predict(request: Request) -> Response:
    """Answer one image, in the event loop: with as many processes as cores, a thread for it would only cost."""
    return Response(ask(await request.body()), media_type="application/json")
