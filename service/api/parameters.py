"""The parameters that several routes share, with their descriptions in the OpenAPI document."""

from typing import Annotated

from fastapi import Header, Path, Query

JobId = Annotated[str, Path(description="The job's id, `job_…`.")]
DatasetId = Annotated[str, Path(description="The dataset's id, `ds_…`.")]
ModelId = Annotated[str, Path(description="The model's id, `model_…`.")]
WorkerId = Annotated[str, Path(description="The worker's id, `worker_…`.")]
UserId = Annotated[str, Path(description="The user's id, `user_…`, or name.")]
KeyId = Annotated[str, Path(description="The key's id, `key_…`; not the key itself.")]
FileName = Annotated[str, Path(description="The file's name, with its folders: `student/config.json`.")]

PageSize = Annotated[int, Query(ge=1, le=1000, description="The most items that one page holds.")]

Accept = Annotated[str | None, Header(alias="Accept", description="Which of the answer's media types is wanted.")]
IfMatch = Annotated[
    str | None, Header(alias="If-Match", description="The `ETag` that was read: 412 if the resource has changed since.")
]
IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", description="The `ETag` that the client has: 304 if it is still current.")
]
IfRange = Annotated[
    str | None,
    Header(alias="If-Range", description="The `ETag` of the part that the client has: the whole if it has changed."),
]
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", description="Resumes a stream after this id.")]
Range = Annotated[
    str | None, Header(alias="Range", description="`bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-COUNT`: that part alone, 206.")
]
