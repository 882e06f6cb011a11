//! `/v1/fs/…`

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use httpkit::{Json, Query};

use super::root::{Place, Root};
use super::wire::{
    BatchRequest, DeleteQuery, EntriesQuery, FsEntry, FsMoved, FsPath, FsStat, FsUploaded,
    FsWritten, MkdirRequest, MoveRequest, PathQuery, PlaceQuery, SearchQuery, SearchResult,
    WatchQuery,
};
use super::{archive, batch, list, read, search, tree, unpack, watch, write};
use crate::app::App;
use crate::blocking::blocking;
use crate::events;
use crate::openapi::ProblemBody;
use crate::problem::Problem;
use httpkit::produced;

/// Entries on a page.
const MOST_ENTRIES: u32 = 10_000;

/// `GET /v1/fs/entries`
#[utoipa::path(get, path = "/v1/fs/entries", tag = "files", params(EntriesQuery), responses(
    (status = 200, description = "What is in the directory", body = Vec<FsEntry>),
    (status = 403, description = "Not allowed, or outside the root", body = ProblemBody),
))]
pub(crate) async fn entries(
    State(app): State<App>,
    Query(query): Query<EntriesQuery>,
) -> Result<Response, Problem> {
    let (root, place) = (app.files.clone(), app.files.place(&query.path)?);
    if query.limit.is_none() && query.after.is_none() {
        let opened = place.clone();
        let directory = blocking(move || root.directory(&opened)).await?;
        let body = produced::body(move |out| list::all(&directory, &place, out));
        let json = HeaderValue::from_static("application/json");
        return Ok(([(CONTENT_TYPE, json)], body).into_response());
    }
    let limit = query.limit.unwrap_or(MOST_ENTRIES).min(MOST_ENTRIES) as usize;
    let page = blocking(move || {
        let directory = root.directory(&place)?;
        list::page(&directory, &place, query.after.as_deref(), limit)
            .map_err(|error| tree::os(&place, &error))
    });
    Ok(axum::Json(page.await?).into_response())
}

/// `GET /v1/fs/stat`
#[utoipa::path(get, path = "/v1/fs/stat", tag = "files", params(PathQuery), responses(
    (status = 200, description = "What lies there", body = FsStat),
    (status = 403, description = "Not allowed, or outside the root", body = ProblemBody),
))]
pub(crate) async fn stat(
    State(app): State<App>,
    Query(query): Query<PathQuery>,
) -> Result<axum::Json<FsStat>, Problem> {
    let (root, place) = (app.files.clone(), app.files.place(&query.path)?);
    Ok(axum::Json(blocking(move || tree::stat(&root, &place)).await?))
}

/// `GET /v1/fs/file`
#[utoipa::path(get, path = "/v1/fs/file", tag = "files",
    params(PathQuery, ("range" = Option<String>, Header, description = "`bytes=A-B`, one part")), responses(
    (status = 200, description = "The content", content_type = "application/octet-stream", body = Vec<u8>),
    (status = 206, description = "A part of it", content_type = "application/octet-stream", body = Vec<u8>),
    (status = 304, description = "It is what `if-none-match` names"),
    (status = 403, description = "Not allowed, or outside the root", body = ProblemBody),
    (status = 416, description = "The range lies past the end", body = ProblemBody),
))]
pub(crate) async fn read_file(
    State(app): State<App>,
    Query(query): Query<PathQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = app.files.place(&query.path)?;
    read::answer(app.files.clone(), place, headers).await
}

/// `PUT /v1/fs/file`
#[utoipa::path(put, path = "/v1/fs/file", tag = "files", params(PathQuery,
        ("if-match" = Option<String>, Header, description = "Write only if this is its ETag")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses(
    (status = 200, description = "Written, whole", body = FsWritten),
    (status = 403, description = "Not allowed, or outside the root", body = ProblemBody),
    (status = 412, description = "It is not what `if-match` names", body = ProblemBody),
    (status = 502, description = "The disk is full, or failed", body = ProblemBody),
))]
pub(crate) async fn write_file(
    State(app): State<App>,
    Query(query): Query<PathQuery>,
    headers: HeaderMap,
    request: Request,
) -> Result<axum::Json<FsWritten>, Problem> {
    let place = app.files.place(&query.path)?;
    let path = place.path.clone();
    let body = request.into_body();
    let bytes_written = write::upload(app.files.clone(), place, &headers, body).await?;
    Ok(axum::Json(FsWritten { path, bytes_written }))
}

/// `DELETE /v1/fs/entry`
#[utoipa::path(delete, path = "/v1/fs/entry", tag = "files", params(DeleteQuery), responses(
    (status = 200, description = "Gone", body = FsPath),
    (status = 403, description = "Not allowed, or outside the root", body = ProblemBody),
    (status = 409, description = "A directory with something in it", body = ProblemBody),
))]
pub(crate) async fn delete(
    State(app): State<App>,
    Query(query): Query<DeleteQuery>,
) -> Result<axum::Json<FsPath>, Problem> {
    let (root, place) = (app.files.clone(), app.files.place(&query.path)?);
    let path = place.path.clone();
    blocking(move || tree::delete(&root, &place, query.recursive)).await?;
    Ok(axum::Json(FsPath { path }))
}

/// `POST /v1/fs/mkdir`
#[utoipa::path(post, path = "/v1/fs/mkdir", tag = "files",
    params(("path" = Option<String>, Query, description = "Or in the body")),
    request_body(content = Option<MkdirRequest>), responses(
    (status = 200, description = "It is there, and those above it", body = FsPath),
    (status = 403, description = "Not allowed, or outside the root", body = ProblemBody),
))]
pub(crate) async fn mkdir(
    State(app): State<App>,
    Query(query): Query<PlaceQuery>,
    request: Request,
) -> Result<axum::Json<FsPath>, Problem> {
    let mut path = query.path;
    if path.is_empty() && request.headers().contains_key(CONTENT_TYPE) {
        let Json(body) = axum::RequestExt::extract::<Json<MkdirRequest>, _>(request).await?;
        path = body.path.unwrap_or_default();
    }
    if path.is_empty() {
        return Err(Problem::invalid("missing `path`, in the query or in the body"));
    }
    let (root, place) = (app.files.clone(), app.files.place(&path)?);
    let path = place.path.clone();
    blocking(move || root.make_directory(&place)).await?;
    Ok(axum::Json(FsPath { path }))
}

/// `POST /v1/fs/move`
#[utoipa::path(post, path = "/v1/fs/move", tag = "files", request_body = MoveRequest, responses(
    (status = 200, description = "Moved", body = FsMoved),
    (status = 403, description = "Not allowed, or outside the root", body = ProblemBody),
    (status = 502, description = "The disk is full, or failed", body = ProblemBody),
))]
pub(crate) async fn rename(
    State(app): State<App>,
    Json(body): Json<MoveRequest>,
) -> Result<axum::Json<FsMoved>, Problem> {
    if body.from.is_empty() || body.to.is_empty() {
        return Err(Problem::invalid("`from` and `to` must not be empty"));
    }
    let root = app.files.clone();
    let (from, to) = (root.place(&body.from)?, root.place(&body.to)?);
    let moved = FsMoved { from: from.path.clone(), to: to.path.clone() };
    blocking(move || tree::rename(&root, &from, &to, body.overwrite)).await?;
    Ok(axum::Json(moved))
}

/// `POST /v1/fs/upload-batch`
#[utoipa::path(post, path = "/v1/fs/upload-batch", tag = "files", params(PlaceQuery),
    request_body(content = Vec<u8>, content_type = "application/x-tar"), responses(
    (status = 200, description = "Unpacked", body = FsUploaded),
    (status = 403, description = "Not allowed, or outside the root", body = ProblemBody),
    (status = 502, description = "The disk is full, or failed", body = ProblemBody),
))]
pub(crate) async fn upload_tar(
    State(app): State<App>,
    Query(query): Query<PlaceQuery>,
    request: Request,
) -> Result<axum::Json<FsUploaded>, Problem> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !kind.unwrap_or_default().to_ascii_lowercase().starts_with("application/x-tar") {
        return Err(Problem::invalid("content-type must be application/x-tar"));
    }
    let place = app.files.place(&query.path)?;
    Ok(axum::Json(unpack::upload(app.files.clone(), place, request.into_body()).await?))
}

/// `POST /v1/fs/batch`
#[utoipa::path(post, path = "/v1/fs/batch", tag = "files", request_body = BatchRequest, responses(
    (status = 200, description = "Written", body = FsUploaded),
    (status = 403, description = "Not allowed, or outside the root", body = ProblemBody),
    (status = 502, description = "The disk is full, or failed", body = ProblemBody),
))]
pub(crate) async fn write_batch(
    State(app): State<App>,
    Json(body): Json<BatchRequest>,
) -> Result<axum::Json<FsUploaded>, Problem> {
    let root = app.files.clone();
    Ok(axum::Json(blocking(move || batch::write(&root, body)).await?))
}

/// `GET /v1/fs/archive`
#[utoipa::path(get, path = "/v1/fs/archive", tag = "files", params(PlaceQuery), responses(
    (status = 200, description = "The directory as a tar", content_type = "application/x-tar", body = Vec<u8>),
    (status = 403, description = "Not allowed, or outside the root", body = ProblemBody),
))]
pub(crate) async fn download_tar(
    State(app): State<App>,
    Query(query): Query<PlaceQuery>,
) -> Result<Response, Problem> {
    let (root, place) = (app.files.clone(), app.files.place(&query.path)?);
    let directory = opened(root, place).await?;
    let body: Body = produced::body(move |out| archive::write(&directory, out));
    Ok((StatusCode::OK, [(CONTENT_TYPE, "application/x-tar")], body).into_response())
}

/// `GET /v1/fs/watch`
#[utoipa::path(get, path = "/v1/fs/watch", tag = "files", params(WatchQuery), responses(
    (status = 200, description = "`ready`, then `change` `{kind, path, entryType}`; `gap` when some were lost",
        content_type = "text/event-stream", body = String),
    (status = 403, description = "Not allowed, or outside the root", body = ProblemBody),
))]
pub(crate) async fn watch(
    State(app): State<App>,
    Query(query): Query<WatchQuery>,
) -> Result<Response, Problem> {
    let (root, place) = (app.files.clone(), app.files.place(&query.path)?);
    let directory = opened(root.clone(), place.clone()).await?;
    let watch = blocking(move || {
        watch::Watch::begin(root, directory, &place.path, query.recursive)
            .map_err(|error| tree::os(&place, &error))
    });
    Ok(events::response(app.until_stopped(watch.await?.frames())))
}

/// `GET /v1/fs/search`
#[utoipa::path(get, path = "/v1/fs/search", tag = "files", params(SearchQuery), responses(
    (status = 200, description = "What was found", body = SearchResult),
    (status = 403, description = "Not allowed, or outside the root", body = ProblemBody),
))]
pub(crate) async fn search(
    State(app): State<App>,
    Query(query): Query<SearchQuery>,
) -> Result<axum::Json<SearchResult>, Problem> {
    let (root, place) = (app.files.clone(), app.files.place(&query.path)?);
    let found = blocking(move || {
        let directory = root.directory(&place)?;
        search::search(&directory, &place, &query)
    });
    Ok(axum::Json(found.await?))
}

async fn opened(root: Root, place: Place) -> Result<std::os::fd::OwnedFd, Problem> {
    Ok(blocking(move || root.directory(&place)).await?)
}
