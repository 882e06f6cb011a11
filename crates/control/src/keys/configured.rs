//! API keys: who a token is.

use ids::TenantId;
use secret::{Secret, Vault};

use crate::caller::{Caller, Role};

/// The keys of a server, in the order they were given.
#[derive(Debug)]
pub struct ApiKeys(Vec<ApiKey>);

#[derive(Debug)]
struct ApiKey {
    token: Secret,
    caller: Caller,
}

/// Why a list of keys is not one. Says which entry, never what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("entry {entry} is not `token@tenant:role` (a bare token is written `token@dev:admin`)")]
    Form { entry: usize },
    #[error("entry {entry}: a token has no white space and is not empty")]
    Token { entry: usize },
    #[error("entry {entry}: {error}")]
    Tenant { entry: usize, error: ids::NameError },
    #[error("entry {entry}: a role is `admin` or `operator`")]
    Role { entry: usize },
    #[error("there is no entry")]
    None,
}

impl ApiKeys {
    /// Reads `token@tenant:role`, separated by commas. One malformed entry refuses the whole list:
    /// a key that is left out silently is a door left open or shut by accident.
    pub fn parse(list: &str) -> Result<Self, KeyError> {
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let keys: Vec<_> =
            entries.enumerate().map(|(n, entry)| parse(n + 1, entry)).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(KeyError::None) } else { Ok(Self(keys)) }
    }

    /// Who presented a token. Every key is compared, so the time tells nothing.
    pub(crate) fn authenticate(&self, vault: &Vault, token: &str) -> Option<Caller> {
        let mut found = None;
        for key in &self.0 {
            if vault.same_api_key(token, &key.token) && found.is_none() {
                found = Some(key.caller.clone());
            }
        }
        found
    }
}

fn parse(entry: usize, text: &str) -> Result<ApiKey, KeyError> {
    let (token, rest) = text.split_once('@').ok_or(KeyError::Form { entry })?;
    let (tenant, role) = rest.split_once(':').ok_or(KeyError::Form { entry })?;
    if token.is_empty() || token.contains(char::is_whitespace) {
        return Err(KeyError::Token { entry });
    }
    let tenant: TenantId = tenant.parse().map_err(|error| KeyError::Tenant { entry, error })?;
    let role = match role {
        "admin" => Role::Admin,
        "operator" => Role::Operator,
        _ => return Err(KeyError::Role { entry }),
    };
    Ok(ApiKey { token: Secret::new(token.to_owned()), caller: Caller { tenant, role } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_who_its_holder_is() {
        let vault = Vault::new(&Vault::random_master_key());
        let keys = ApiKeys::parse(" a@acme:operator , b@globex:admin ,").unwrap();
        let acme = keys.authenticate(&vault, "a").unwrap();
        assert_eq!((acme.tenant.as_str(), acme.role), ("acme", Role::Operator));
        assert_eq!(keys.authenticate(&vault, "b").unwrap().role, Role::Admin);
        for wrong in ["", "c", "A", "a ", "a@acme:operator"] {
            assert!(keys.authenticate(&vault, wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn one_malformed_entry_refuses_the_list_without_showing_it() {
        for list in [
            "",
            " , ",
            "s3cret",
            "s3cret@acme",
            "s3cret@acme:root",
            "s3cret@Acme:admin",
            "@acme:admin",
            "s3 cret@acme:admin",
            "good@acme:admin,s3cret",
            "s3cret@:admin",
        ] {
            let error = ApiKeys::parse(list).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
