//! Why a job did not begin.

use jail::SpawnError;
use store::StoreError;

use super::ask::AskError;
use super::flavors::FlavorError;
use super::images::ImageError;
use crate::network::PlanError;

/// Why a job did not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    #[error("jail {0} has ended")]
    Ended(i64),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("too many concurrent executions")]
    TooMany,
    #[error("as many agents live on this server as it takes (--max-agents): end one")]
    TooManyAgents,
    #[error("quota of agents: {0} of the tenant's live at once, paused ones included: end one")]
    AgentQuota(u64),
    #[error("quota of concurrent jails: the tenant may have {0} at once")]
    Quota(u64),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Flavor(#[from] FlavorError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("the trees of a run could not be made")]
    Layers(#[source] Box<crate::layers::LayerError>),
    #[error("there is no `{0}` on the jail's PATH ({1}): choose a flavor that has it")]
    NoRuntime(&'static str, String),
    #[error("more tenants than host users to tell them apart: restart the server")]
    NoHostId,
    #[error("memory_mb: too little for a jail to start in")]
    TooLittleMemory,
    #[error("could not start the jail")]
    Spawn(#[source] SpawnError),
    #[error("could not serve the jail's network")]
    Network(#[source] std::io::Error),
    #[error("could not write to the ledger")]
    Ledger(#[from] StoreError),
    /// The owner ended without a result: the server is stopping.
    #[error("the run was ended with the server")]
    Stopped,
}
