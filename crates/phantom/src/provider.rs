//! The upstreams: where they are, and how each wants its key.

use hyper::header::HeaderName;
use hyper::http::uri::{PathAndQuery, Scheme};
use hyper::{Uri, http};
use ids::ServiceId;

/// How a key is put into a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Injection {
    /// `Authorization: Bearer <key>`
    Bearer,
    /// `<header>: <key>`
    Header(HeaderName),
    /// `Authorization: Basic <user>:<key>`
    Basic { user: String },
}

/// An upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    pub service: ServiceId,
    /// The service whose key is used.
    pub keyed_by: ServiceId,
    /// Scheme, host, port and perhaps a path that everything is below; no query, no credentials.
    base: Uri,
    pub injection: Injection,
    /// The variable that tells a client its key.
    pub key_variable: String,
    /// The variable that tells a client where the API is, and what follows the proxy's prefix there.
    pub url_variable: String,
    pub url_suffix: String,
}

/// Why an upstream is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    #[error("{0:?} is not an http:// or https:// URL")]
    Url(String),
    #[error("an upstream's URL holds no user, query or fragment")]
    Extra,
    #[error("{0:?} is not a service name: {1}")]
    Name(String, ids::NameError),
    #[error("{0:?} is not a way to inject a key: write `bearer`, `header:NAME` or `basic:USER`")]
    Injection(String),
    #[error(
        "write a custom provider as NAME=URL,INJECTION, for instance `search=https://api.example.com,header:x-api-key`"
    )]
    Form,
    #[error("there is already a provider named {0}")]
    Twice(ServiceId),
    #[error("there is no provider named {0}")]
    Unknown(String),
}

impl Provider {
    /// The upstream's URL, as configured.
    pub fn base(&self) -> &Uri {
        &self.base
    }

    /// The URL of a path of this upstream.
    pub(crate) fn url(&self, path: &str, query: Option<&str>) -> Result<Uri, http::Error> {
        let below = self.base.path().trim_end_matches('/');
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let path_and_query: PathAndQuery = format!("{below}{path}{query}").parse()?;
        let mut parts = self.base.clone().into_parts();
        parts.path_and_query = Some(path_and_query);
        Ok(Uri::from_parts(parts)?)
    }

    fn built_in(
        service: &str,
        base: &'static str,
        injection: Injection,
        url: (&str, &str),
        key: &str,
    ) -> Self {
        let service: ServiceId = service.parse().expect("a built-in name is a name");
        Self {
            keyed_by: service.clone(),
            service,
            base: Uri::from_static(base),
            injection,
            key_variable: key.to_owned(),
            url_variable: url.0.to_owned(),
            url_suffix: url.1.to_owned(),
        }
    }

    /// Reads `NAME=URL,INJECTION`.
    pub fn custom(text: &str) -> Result<Self, ProviderError> {
        let (name, rest) = text.split_once('=').ok_or(ProviderError::Form)?;
        let (url, injection) = rest.rsplit_once(',').ok_or(ProviderError::Form)?;
        let service: ServiceId =
            name.parse().map_err(|error| ProviderError::Name(name.to_owned(), error))?;
        let variable = name.to_uppercase().replace('-', "_");
        Ok(Self {
            keyed_by: service.clone(),
            service,
            base: base(url)?,
            injection: parse_injection(injection)?,
            key_variable: format!("{variable}_API_KEY"),
            url_variable: format!("{variable}_BASE_URL"),
            url_suffix: String::new(),
        })
    }
}

/// All upstreams, in the order they are shown.
#[derive(Debug, Clone)]
pub struct Providers {
    /// Shown, and to be had by name.
    named: Vec<Provider>,
    /// Where repositories are of a service whose API is elsewhere; only the clone-jail uses them.
    git: Vec<Provider>,
}

impl Default for Providers {
    fn default() -> Self {
        let anthropic = Injection::Header(HeaderName::from_static("x-api-key"));
        let named = vec![
            Provider::built_in(
                "openai",
                "https://api.openai.com",
                Injection::Bearer,
                ("OPENAI_BASE_URL", "/v1"),
                "OPENAI_API_KEY",
            ),
            Provider::built_in(
                "anthropic",
                "https://api.anthropic.com",
                anthropic,
                ("ANTHROPIC_BASE_URL", ""),
                "ANTHROPIC_API_KEY",
            ),
            Provider::built_in(
                "github",
                "https://api.github.com",
                Injection::Bearer,
                ("GITHUB_API_URL", ""),
                "GITHUB_TOKEN",
            ),
            Provider::built_in(
                "stripe",
                "https://api.stripe.com",
                Injection::Bearer,
                ("STRIPE_API_BASE", ""),
                "STRIPE_API_KEY",
            ),
        ];
        let user = "x-access-token".to_owned();
        let github = Provider {
            keyed_by: "github".parse().expect("a built-in name is a name"),
            ..Provider::built_in(
                "github-git",
                "https://github.com",
                Injection::Basic { user },
                ("", ""),
                "",
            )
        };
        Self { named, git: vec![github] }
    }
}

impl Providers {
    /// Adds an upstream.
    pub fn add(&mut self, provider: Provider) -> Result<(), ProviderError> {
        if self.routed(provider.service.as_str()).is_some() {
            return Err(ProviderError::Twice(provider.service));
        }
        self.named.push(provider);
        Ok(())
    }

    /// Sends a service's requests elsewhere: a gateway, an enterprise host, a stand-in.
    pub fn set_upstream(&mut self, service: &str, url: &str) -> Result<(), ProviderError> {
        let provider = self.named.iter_mut().find(|provider| provider.service.as_str() == service);
        let provider = provider.ok_or_else(|| ProviderError::Unknown(service.to_owned()))?;
        provider.base = base(url)?;
        Ok(())
    }

    /// One upstream by name.
    pub fn get(&self, service: &str) -> Option<&Provider> {
        self.named.iter().find(|provider| provider.service.as_str() == service)
    }

    /// The upstream for a service's repositories on a host.
    pub fn for_git(&self, service: &str, host: &str) -> Option<&Provider> {
        let all = self.git.iter().chain(&self.named);
        let is_at = |provider: &&Provider| {
            provider.keyed_by.as_str() == service && provider.base.host() == Some(host)
        };
        all.into_iter().find(is_at)
    }

    /// One upstream by the name it has in a path.
    pub(crate) fn routed(&self, service: &str) -> Option<&Provider> {
        self.named.iter().chain(&self.git).find(|provider| provider.service.as_str() == service)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Provider> {
        self.named.iter()
    }
}

fn base(url: &str) -> Result<Uri, ProviderError> {
    let not_url = || ProviderError::Url(url.to_owned());
    if url.contains(['?', '#', '@']) {
        return Err(ProviderError::Extra);
    }
    let uri: Uri = url.parse().map_err(|_| not_url())?;
    let web = uri.scheme().is_some_and(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme));
    if web && uri.host().is_some_and(|host| !host.is_empty()) { Ok(uri) } else { Err(not_url()) }
}

fn parse_injection(text: &str) -> Result<Injection, ProviderError> {
    let wrong = || ProviderError::Injection(text.to_owned());
    match text.split_once(':') {
        None if text == "bearer" => Ok(Injection::Bearer),
        Some(("header", name)) => name.parse().map(Injection::Header).map_err(|_| wrong()),
        Some(("basic", user)) => Ok(Injection::Basic { user: user.to_owned() }),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_put_below_the_base() {
        let mut providers = Providers::default();
        providers.set_upstream("github", "https://git.example.com/api/v3/").unwrap();
        let url =
            |path, query| providers.get("github").unwrap().url(path, query).unwrap().to_string();
        assert_eq!(url("/repos/o/r", None), "https://git.example.com/api/v3/repos/o/r");
        assert_eq!(
            url("/search", Some("q=a%20b&p=")),
            "https://git.example.com/api/v3/search?q=a%20b&p="
        );
    }

    #[test]
    fn a_custom_provider_is_read_from_one_line() {
        let provider = Provider::custom("my-search=http://10.0.0.7:8080/v2,header:X-Key").unwrap();
        assert_eq!(provider.service.as_str(), "my-search");
        assert_eq!(provider.injection, Injection::Header("x-key".parse().unwrap()));
        assert_eq!(provider.key_variable, "MY_SEARCH_API_KEY");
        for text in [
            "x",
            "x=y",
            "x=ftp://a,bearer",
            "x=http://a,cookie",
            "X=http://a,bearer",
            "x=http://u:p@a,bearer",
            "x=http://a?b,bearer",
        ] {
            assert!(Provider::custom(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_is_taken_once() {
        let mut providers = Providers::default();
        let openai = Provider::custom("openai=http://a,bearer").unwrap();
        assert!(matches!(providers.add(openai), Err(ProviderError::Twice(_))));
        assert!(providers.set_upstream("nosuch", "http://a").is_err());
    }
}
