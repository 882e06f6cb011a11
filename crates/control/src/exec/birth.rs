//! From a job to what the engine starts, and what the ledger says of it.

use std::path::PathBuf;

use jail::{Access, Command, Enforcement, Start, Stdin, Tree, WORKSPACE};
use jiff::Timestamp;
use serde_json::json;
use store::NewJail;

use super::images::Image;
use super::job::{Ground, Job, Program};
use super::options::TREE_BYTES;
use crate::network::Plan;

pub(super) fn new_row(job: &Job) -> NewJail {
    let mut config = job.settings.shown();
    if let Some((repo, reference)) = &job.git {
        config["git_repo"] = json!(repo);
        if let Some(reference) = reference {
            config["git_ref"] = json!(reference);
        }
    }
    NewJail {
        tenant: job.tenant.clone(),
        kind: job.kind,
        started_at: Timestamp::now(),
        session: job.session.as_ref().map(|session| session.id.clone()),
        label: job.label.clone(),
        parent: job.parent,
        config,
    }
}

/// Trees that jails share.
#[derive(Debug, Default)]
pub(super) struct Brought {
    pub(super) flavors: Vec<(String, PathBuf)>,
    pub(super) image: Option<Image>,
}

pub(super) fn start_of(
    job: &Job,
    path: &str,
    Brought { mut flavors, image }: Brought,
    plan: &Plan,
    host_id: u32,
    enforcement: Enforcement,
) -> Start {
    let mut environment = vec![
        ("PATH".to_owned(), path.to_owned()),
        ("HOME".to_owned(), "/home/agent".to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
    ];
    let session = job.session.iter().flat_map(|session| &session.environment);
    for (name, value) in session.chain(&job.environment) {
        environment.retain(|(known, _)| known != name);
        environment.push((name.clone(), value.clone()));
    }
    let limits = job.settings.limits.of_jail();
    let profile = job.settings.profile();
    let (program, arguments, code) = match &job.program {
        Program::Command { program, arguments } => (program.clone(), arguments.clone(), None),
        Program::Code(code) => {
            let file = format!("/workspace/{}", code.file);
            let text = code.text.clone().map(|text| (code.file.to_owned(), text));
            (code.runtime.to_owned(), vec![file], text)
        }
    };
    flavors.extend(job.directories.iter().cloned());
    let fresh = |access| Tree::Fresh { bytes: TREE_BYTES, access };
    let written = Tree::Layered { access: Access::ReadWrite };
    let (workspace, output, layers) = match &job.ground {
        Ground::Fresh => (fresh(Access::ReadOnly), fresh(Access::ReadWrite), None),
        Ground::LayeredOutput { layers } => {
            (fresh(Access::ReadOnly), written, Some(layers.clone()))
        }
        Ground::Layered { layers, workspace } => {
            (Tree::Layered { access: *workspace }, written, Some(layers.clone()))
        }
    };
    Start {
        command: Some(Command { program, arguments, environment, directory: WORKSPACE.to_owned() }),
        host_id,
        stdin: if job.stdin.is_some() { Stdin::Piped } else { Stdin::Empty },
        workspace,
        output,
        layers,
        image: image.map(Image::into_root),
        code,
        flavors,
        network: plan.network().clone(),
        profile,
        limits,
        cpu_time: None,
        enforcement,
    }
}
