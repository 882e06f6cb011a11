//! Who may speak with an agent: whoever has its token, or a key that sees its workspace.

use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::header::{AUTHORIZATION, HeaderMap};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use httpkit::{ApiError, Kind};
use ids::{TenantId, WorkspaceId};
use store::Whose;

use crate::caller::{Caller, bearer};

/// What an agent's token begins with.
pub(crate) const TOKEN_PREFIX: &str = "agt_";

/// Where a browser puts a token that opens a WebSocket, because it cannot set a header there.
const QUERY: &str = "access_token";

/// Whoever presented an agent's token. It is no [`Caller`]: no other route takes it.
#[derive(Debug, Clone)]
pub(crate) struct AgentKey {
    pub(crate) workspace: WorkspaceId,
    pub(crate) tenant: TenantId,
}

/// Who asks an agent for something.
#[derive(Debug, Clone)]
pub(crate) enum Access {
    Key(AgentKey),
    Caller(Caller),
}

impl Access {
    /// Whose rows are in sight.
    pub(super) fn sees(&self) -> Result<Whose<'_>, ApiError> {
        match self {
            Self::Key(key) => Ok(Whose::Of(&key.tenant)),
            Self::Caller(caller) => caller.sees(None),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Access {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        if let Some(key) = parts.extensions.get::<AgentKey>() {
            return Ok(Self::Key(key.clone()));
        }
        let caller = parts.extensions.get::<Caller>().cloned().map(Self::Caller);
        caller.ok_or_else(|| ApiError::said(Kind::Unauthorized, "missing api key"))
    }
}

/// An agent's token in a request, if there is one.
pub(crate) fn presented<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let header = header.map(bearer);
    let query = uri.query().unwrap_or_default().split('&');
    let query = query.into_iter().find(|pair| is_token(pair));
    let query = query.and_then(|pair| pair.split_once('=')).map(|(_, token)| token);
    header.or(query).filter(|token| token.starts_with(TOKEN_PREFIX))
}

/// Whether a pair of a query is where the token stands, however that is written.
fn is_token(pair: &str) -> bool {
    form_urlencoded::parse(pair.as_bytes()).any(|(name, _)| name.eq_ignore_ascii_case(QUERY))
}

/// What an agent is asked, without what is for us: what follows `…/agent`, and no token.
pub(super) fn below(asked: Option<&PathAndQuery>, id: &str) -> Option<String> {
    let asked = asked?;
    let rest = asked.path().split_once(&format!("/{id}/agent")).map(|(_, rest)| rest)?;
    let path = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    let pairs = asked.query().into_iter().flat_map(|query| query.split('&'));
    let query: Vec<&str> = pairs.filter(|pair| !is_token(pair)).collect();
    Some(if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_where_clients_put_it_and_goes_no_further() {
        let uri: Uri = "/v1/workspaces/w/agent/v1/x/ws?a=1&access_token=agt_1&b".parse().unwrap();
        assert_eq!(presented(&HeaderMap::new(), &uri), Some("agt_1"));
        assert_eq!(below(uri.path_and_query(), "w").unwrap(), "/v1/x/ws?a=1&b");
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "Bearer agt_2".parse().unwrap());
        assert_eq!(presented(&headers, &uri), Some("agt_2"));
        headers.insert(AUTHORIZATION, "bearer  agt_2".parse().unwrap());
        assert_eq!(presented(&headers, &uri), Some("agt_2"), "a scheme has no case");
        for other in ["access%5Ftoken=agt_1", "Access_Token=agt_1", "access_token"] {
            let uri: Uri = format!("/v1/workspaces/w/agent/x?{other}&b=1").parse().unwrap();
            assert_eq!(below(uri.path_and_query(), "w").unwrap(), "/x?b=1", "{other}");
        }
        headers.insert(AUTHORIZATION, "Bearer aj_key".parse().unwrap());
        assert_eq!(presented(&headers, &uri), None, "a key is not looked for elsewhere");
        let uri: Uri = "/v1/workspaces/w/agent?access_token=agt_1".parse().unwrap();
        assert_eq!(below(uri.path_and_query(), "w").unwrap(), "/");
    }
}
