"""A FastAPI application of one route without middleware, under the service's settings of uvicorn: ``python -m … PORT``."""

import sys

import uvicorn
from fastapi import FastAPI

from service.api.server import configuration

app = FastAPI(openapi_url=None)


@app.get("/")
async def empty() -> dict[str, str]:
    return {"status": "ok"}


if __name__ == "__main__":
    uvicorn.Server(configuration(app, host="127.0.0.1", port=int(sys.argv[1]))).run()
