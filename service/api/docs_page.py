"""The page ``/docs``: Swagger UI out of a package, not from another host, so that it works on a closed network too."""

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.staticfiles import StaticFiles

_FILES = "docs/files"
"""Like every address in the page relative to it, which holds behind a proxy that serves under a prefix."""
_OWN_ALONE = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'"
)


def install(app: FastAPI) -> None:
    """Adds the page and its files. The browser is told to load nothing from another host, whatever Swagger UI asks for."""
    page = get_swagger_ui_html(
        title=app.title,
        openapi_url="openapi.json",
        swagger_js_url=f"{_FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{_FILES}/swagger-ui.css",
        swagger_favicon_url=f"{_FILES}/favicon.png",
        swagger_ui_parameters={"validatorUrl": None},  # else it sends the address of the document to swagger.io
    )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(page.body, media_type="text/html", headers={"Content-Security-Policy": _OWN_ALONE})

    app.mount(f"/{_FILES}", StaticFiles(packages=[("fastapi_offline", "static")]))
