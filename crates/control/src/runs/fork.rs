//! `/v1/runs/fork`: a parent, and children that begin with what it had written by then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use httpkit::{ApiError, JsonPair, Kind, Query};
use ids::TenantId;
use serde::{Deserialize, Serialize};
use store::JailKind;
use utoipa::ToSchema;

use super::ground::{self, Below, Cloned};
use super::wire::code;
use crate::app::App;
use crate::caller::{Caller, ForTenant};
use crate::edge::internal;
use crate::exec::{
    AskError, Asker, Begun, Code, ExecOptions, ExecResult, Job, Place, Program, SessionAccess,
    Settings,
};
use crate::git::{GitSpec, provenance};
use crate::layers::Scratch;
use crate::openapi::ErrorBody;
use crate::workspaces::{CaptureError, captured};

const MOST_CHILDREN: usize = 16;
const FORK_AFTER_MS: u64 = 1500;
const LONGEST_FORK_AFTER_MS: u64 = 30_000;

/// A family of runs. Exactly one of `child_code` and `children`.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ForkRun {
    /// At most 1 MiB.
    parent_code: String,
    child_code: Option<String>,
    /// From 1 to 16.
    children: Option<Vec<ForkChild>>,
    /// Of all: `javascript` or `js` (the default), `python` or `py`, `bash` or `sh`.
    language: Option<String>,
    /// How long the parent runs before it is forked. Default 1500, at most 30000.
    fork_after_ms: Option<u64>,
    /// A session whose environment, and phantom proxy, all get.
    session_id: Option<String>,
    /// Repositories that all find in `/workspace`.
    git: Option<GitSpec>,
}

/// A child.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ForkChild {
    code: String,
    /// Default: the parent's.
    memory_mb: Option<u64>,
}

/// The body of a fork, for the OpenAPI document.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "described, not read: the two parts are read by themselves")]
pub(crate) struct ForkRunBody {
    #[serde(flatten)]
    run: ForkRun,
    #[serde(flatten)]
    options: ExecOptions,
}

/// How all of them ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ForkedRun {
    parent: ExecResult,
    /// The first of `children`.
    child: ExecResult,
    /// In the order asked.
    children: Vec<ExecResult>,
    /// The first of `forks`.
    fork: ForkMeta,
    forks: Vec<ForkMeta>,
}

/// How what the parent had written came to a child.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ForkMeta {
    clone_ms: u64,
    files_cloned: u64,
    /// Of these, by sharing blocks.
    files_cow: u64,
    bytes_cloned: u64,
    /// `reflink`, `copy` or `mixed`; of what had to be copied at all.
    method: &'static str,
    /// Whether the parent stood still meanwhile. It does not if it has ended.
    was_frozen: bool,
    freeze_ms: f64,
}

/// What every member of a family has.
struct Family<'a> {
    app: &'a App,
    tenant: TenantId,
    session: Option<SessionAccess>,
    language: String,
    cloned: Option<Cloned>,
    git: Option<(String, Option<String>)>,
}

/// `POST /v1/runs/fork`
#[utoipa::path(post, path = "/v1/runs/fork", tag = "runs", params(ForTenant),
    request_body = ForkRunBody, responses(
    (status = 201, description = "How all of them ended", body = ForkedRun),
    (status = 400, description = "What is wrong, by field", body = ErrorBody),
    (status = 404, description = "No such session", body = ErrorBody),
    (status = 409, description = "The parent cannot be frozen", body = ErrorBody),
    (status = 429, description = "Too many commands at once, or a quota", body = ErrorBody),
))]
pub(crate) async fn fork(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ForTenant>,
    JsonPair(body, options): JsonPair<ForkRun, ExecOptions>,
) -> Result<(StatusCode, axum::Json<ForkedRun>), ApiError> {
    let language = body.language.unwrap_or_else(|| "javascript".to_owned());
    let parent_code = code(&language, body.parent_code)?;
    let children = children(&language, body.child_code, body.children, &options, &app)?;
    let after = body.fork_after_ms.unwrap_or(FORK_AFTER_MS).min(LONGEST_FORK_AFTER_MS);
    let settings = options.settings(app.executor.config())?;
    let repositories = body.git.map(GitSpec::repositories).transpose()?.unwrap_or_default();
    let (session, tenant) = match &body.session_id {
        Some(id) => {
            let (session, tenant) =
                app.sessions.access(caller.sees(query.tenant.as_ref())?, id).await?;
            (Some(session), tenant)
        }
        None => (None, caller.acts_for(query.tenant.as_ref())?),
    };
    let most = app.executor.config().max_concurrent;
    if children.len() > most {
        let text = format!("children: this server runs at most {most} commands at once");
        return Err(ApiError::said(Kind::Invalid, text));
    }
    // All of them, or none: half a family helps nobody. The parent shares its first child's place.
    let number = u32::try_from(children.len()).unwrap_or(u32::MAX);
    let mut places = app.executor.reserve(&tenant, number)?;
    let cloned =
        ground::cloned(&app.workspaces, &tenant, &repositories, places.first().map(Place::share))
            .await?;
    let git = provenance(&repositories);
    let family = Family { app: &app, tenant, session, language, cloned, git };
    let (parent, upper, asker) =
        family.parent(parent_code, settings, places.first().map(Place::share)).await?;
    let (below, meta) = family.wait_and_take(upper, &asker, after).await?;
    let mut begun = Vec::new();
    let single = children.len() == 1;
    for (n, (child_code, settings)) in children.into_iter().enumerate() {
        let word = if single { "child".to_owned() } else { format!("child {n}") };
        let below = vec![Arc::clone(&below)];
        let child = family.child(&word, child_code, settings, parent.id, below, places.pop());
        begun.push(child.await?);
    }
    let (parent, children) = tokio::join!(
        parent.wait(),
        futures_util::future::join_all(begun.into_iter().map(Begun::wait))
    );
    let children = children.into_iter().collect::<Result<Vec<_>, _>>()?;
    let child = children.first().cloned();
    let child = child.ok_or_else(|| ApiError::said(Kind::Invalid, "children is required"))?;
    let forks = vec![meta.clone(); children.len()];
    let forked = ForkedRun { parent: parent?, child, children, fork: meta, forks };
    Ok((StatusCode::CREATED, axum::Json(forked)))
}

fn children(
    language: &str,
    one: Option<String>,
    several: Option<Vec<ForkChild>>,
    options: &ExecOptions,
    app: &App,
) -> Result<Vec<(Code, Settings)>, ApiError> {
    let several = several.filter(|children| !children.is_empty());
    let children = match (one, several) {
        (Some(_), Some(_)) => {
            let text = "set either child_code or children, not both";
            return Err(ApiError::said(Kind::Invalid, text));
        }
        (None, None) => {
            return Err(ApiError::said(Kind::Invalid, "children or child_code is required"));
        }
        (Some(code), None) => vec![ForkChild { code, memory_mb: None }],
        (None, Some(children)) => children,
    };
    if children.len() > MOST_CHILDREN {
        let text = format!("at most {MOST_CHILDREN} children per fork");
        return Err(ApiError::said(Kind::Invalid, text));
    }
    let child = |child: ForkChild| {
        let memory_mb = child.memory_mb.or(options.memory_mb);
        let options = ExecOptions { memory_mb, ..options.clone() };
        Ok((code(language, child.code)?, options.settings(app.executor.config())?))
    };
    children.into_iter().map(child).collect()
}

impl Family<'_> {
    fn job(&self, word: &str, settings: Settings, place: Option<Place>) -> Job {
        let label = format!("{} \u{b7} {word}", self.language);
        let program = Program::Command { program: String::new(), arguments: Vec::new() };
        let job = Job::new(self.tenant.clone(), JailKind::Fork, label, program, settings);
        Job { session: self.session.clone(), git: self.git.clone(), place, ..job }
    }

    async fn parent(
        &self,
        code: Code,
        settings: Settings,
        place: Option<Place>,
    ) -> Result<(Begun, Arc<Scratch>, Asker), ApiError> {
        let (asker, asked) = Asker::new();
        let mut job = Job { asked: Some(asked), ..self.job("parent", settings, place) };
        let workspaces = &self.app.workspaces;
        let cloned = self.cloned.as_ref();
        let upper = ground::put_on(workspaces, &mut job, code, cloned, Below::new()).await?;
        Ok((self.app.executor.begin_run(job).await?, upper, asker))
    }

    async fn child(
        &self,
        word: &str,
        code: Code,
        settings: Settings,
        parent: i64,
        below: Below,
        place: Option<Place>,
    ) -> Result<Begun, ApiError> {
        let mut job = Job { parent: Some(parent), ..self.job(word, settings, place) };
        let workspaces = &self.app.workspaces;
        ground::put_on(workspaces, &mut job, code, self.cloned.as_ref(), below).await?;
        Ok(self.app.executor.begin_run(job).await?)
    }

    /// Lets the parent run for a while, then takes what it has written.
    async fn wait_and_take(
        &self,
        upper: Arc<Scratch>,
        asker: &Asker,
        after_ms: u64,
    ) -> Result<(Arc<Scratch>, ForkMeta), ApiError> {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(after_ms)) => {}
            () = asker.ended() => {}
        }
        let began = Instant::now();
        let owner = self.app.workspaces.owner_of(&self.tenant).await?;
        let (layers, asker) = (self.app.workspaces.layers().clone(), asker.clone());
        let tree = Arc::clone(&upper);
        // A copy that was begun is made to its end, also if the caller hangs up.
        let copying = async move {
            captured(&layers, owner, &tree.id, &asker, &[("/output", "output")], None).await
        };
        let captured = self.app.executor.tasks().spawn(copying).await.map_err(internal)?;
        let clone_ms = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match captured {
            Ok(captured) => {
                let copied = captured.copied;
                let method = match copied.reflinked {
                    0 => "copy",
                    n if n == copied.files => "reflink",
                    _ => "mixed",
                };
                let meta = ForkMeta {
                    clone_ms: clone_ms(),
                    files_cloned: copied.files,
                    files_cow: copied.reflinked,
                    bytes_cloned: copied.bytes,
                    method,
                    was_frozen: true,
                    freeze_ms: captured.freeze.as_secs_f64() * 1000.0,
                };
                Ok((Arc::new(captured.scratch), meta))
            }
            // It has ended: nobody writes to its tree any more, so that the children can stand on it.
            Err(CaptureError::Ask(AskError::Ended)) => {
                let meta = ForkMeta {
                    clone_ms: clone_ms(),
                    files_cloned: 0,
                    files_cow: 0,
                    bytes_cloned: 0,
                    method: "copy",
                    was_frozen: false,
                    freeze_ms: 0.0,
                };
                Ok((upper, meta))
            }
            Err(CaptureError::Ask(error)) => Err(crate::exec::ExecError::from(error).into()),
            Err(error @ CaptureError::InUse) => Err(internal(error)),
            Err(CaptureError::Layer(error)) => Err(error.into()),
        }
    }
}
