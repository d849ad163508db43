"""A client for vinegrape servers, over REST and gRPC.

from vinegrape_client import Client

with Client("http://127.0.0.1:8080") as client:
    print(client.predict("leaf.jpg").label)
"""

from vinegrape_client.async_client import AsyncClient
from vinegrape_client.client import Client
from vinegrape_client.errors import VinegrapeError
from vinegrape_client.images import Image
from vinegrape_client.results import Description, Explanation, Model, Prediction, Result
from vinegrape_client.retries import Retries

__all__ = [
    "Client",
    "AsyncClient",
    "Prediction",
    "Model",
    "Explanation",
    "Result",
    "Description",
    "Image",
    "Retries",
    "VinegrapeError",
]

__version__ = "0.1.0"
