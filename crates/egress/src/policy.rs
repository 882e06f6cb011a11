//! The allowlist.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::host::{HostName, HostNameError};

/// Ports of a rule that names none.
const WEB_PORTS: [u16; 2] = [80, 443];

/// One entry: a host and its ports.
///
/// `example.com`, `*.example.com` (any name below, not the name itself), `203.0.113.7`,
/// `203.0.113.0/24` (addresses dialled by themselves, without a name), and each with `:port`. Without
/// a port: 80 and 443.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    host: HostPattern,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    Name(HostName),
    Below(HostName),
    Network(IpNet),
}

/// What a connection speaks below the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    /// A look-up, over either.
    Dns,
}

impl Protocol {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Dns => "dns",
        }
    }
}

/// Why a string is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("domain must not include a scheme: write `example.com`, not `https://example.com`")]
    Scheme,
    #[error(transparent)]
    Host(#[from] HostNameError),
    #[error("a port is a number from 1 to 65535")]
    Port,
    #[error("a network is an address and the length of its prefix: `203.0.113.0/24`")]
    Network,
    #[error("`*` stands for whole names only, at the beginning: `*.example.com`")]
    Star,
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text.contains("://") {
            return Err(RuleError::Scheme);
        }
        let (host, port) = split_port(text)?;
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Self { host: HostPattern::Network(address.to_canonical().into()), port });
        }
        if host.contains('/') {
            let network: IpNet = host.parse().map_err(|_| RuleError::Network)?;
            return Ok(Self { host: HostPattern::Network(network.trunc()), port });
        }
        let host = match host.strip_prefix("*.") {
            Some(suffix) if !suffix.contains('*') => HostPattern::Below(HostName::parse(suffix)?),
            None if !host.contains('*') => HostPattern::Name(HostName::parse(host)?),
            _ => return Err(RuleError::Star),
        };
        Ok(Self { host, port })
    }
}

impl Rule {
    fn allows_port(&self, port: u16) -> bool {
        self.port.map_or_else(|| WEB_PORTS.contains(&port), |only| only == port)
    }

    fn matches_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        matches!(&self.host, HostPattern::Network(network) if network.contains(&address))
    }

    fn matches_name(&self, name: &HostName) -> bool {
        match &self.host {
            HostPattern::Name(only) => only == name,
            HostPattern::Below(suffix) => name.is_below(suffix),
            HostPattern::Network(_) => false,
        }
    }
}

/// What a jail may reach. Empty allows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
}

impl Policy {
    /// A policy of these rules.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// Whether any port of a name is allowed: whether the name may be looked up.
    pub fn knows(&self, name: &HostName) -> bool {
        self.rules.iter().any(|rule| rule.matches_name(name))
    }

    /// Whether a name may be dialled at a port.
    pub fn allows(&self, name: &HostName, port: u16) -> bool {
        self.rules.iter().any(|rule| rule.allows_port(port) && rule.matches_name(name))
    }

    /// Whether an address may be dialled by itself, without a name.
    pub fn allows_address(&self, address: IpAddr, port: u16) -> bool {
        self.rules.iter().any(|rule| rule.allows_port(port) && rule.matches_address(address))
    }

    /// Whether any port of an address is allowed.
    pub fn knows_address(&self, address: IpAddr) -> bool {
        self.rules.iter().any(|rule| rule.matches_address(address))
    }

    /// Every port that some rule allows: where the jail needs a listener.
    pub fn ports(&self) -> BTreeSet<u16> {
        let of = |rule: &Rule| rule.port.map_or_else(|| WEB_PORTS.to_vec(), |port| vec![port]);
        self.rules.iter().flat_map(of).collect()
    }
}

/// Splits `host:port`, where the host may be `[::1]`, or an IPv6 address without brackets and port.
fn split_port(text: &str) -> Result<(&str, Option<u16>), RuleError> {
    let number = |text: &str| match text.parse() {
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(Some(port)),
        Ok(_) | Err(_) => Err(RuleError::Port),
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(HostNameError::Character)?;
        // Brackets are for what has colons of its own.
        if !host.contains(':') {
            return Err(HostNameError::Character.into());
        }
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, number(port)?)),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(RuleError::Port),
        };
    }
    match text.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => Ok((text, None)),
        Some((host, port)) => Ok((host, number(port)?)),
        None => Ok((text, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &[&str]) -> Policy {
        Policy::new(rules.iter().map(|rule| rule.parse().unwrap()).collect())
    }

    fn name(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    #[test]
    fn an_empty_policy_allows_nothing() {
        assert!(!policy(&[]).knows(&name("example.com")));
        assert!(!policy(&[]).allows_address("1.1.1.1".parse().unwrap(), 443));
    }

    #[test]
    fn a_rule_without_a_port_is_for_the_web() {
        let policy = policy(&["Example.com."]);
        assert!(
            policy.allows(&name("example.com"), 443) && policy.allows(&name("example.com"), 80)
        );
        assert!(!policy.allows(&name("example.com"), 22));
        assert!(!policy.allows(&name("a.example.com"), 443));
    }

    #[test]
    fn a_rule_with_a_port_is_for_that_port() {
        let policy = policy(&["db.example.com:5432", "*.svc.example.com:8080"]);
        assert!(policy.allows(&name("db.example.com"), 5432));
        assert!(!policy.allows(&name("db.example.com"), 443));
        assert!(policy.allows(&name("a.svc.example.com"), 8080));
        assert!(!policy.allows(&name("svc.example.com"), 8080));
        assert_eq!(policy.ports().into_iter().collect::<Vec<_>>(), [5432, 8080]);
    }

    #[test]
    fn addresses_are_allowed_by_address_only() {
        let policy = policy(&["203.0.113.7:443", "[2001:db8::1]:443", "2001:db8::2"]);
        assert!(policy.allows_address("203.0.113.7".parse().unwrap(), 443));
        assert!(policy.allows_address("::ffff:203.0.113.7".parse().unwrap(), 443));
        assert!(policy.allows_address("2001:db8::1".parse().unwrap(), 443));
        assert!(policy.allows_address("2001:db8::2".parse().unwrap(), 80));
        assert!(!policy.allows_address("203.0.113.8".parse().unwrap(), 443));
    }

    #[test]
    fn a_network_allows_its_addresses_and_no_name() {
        let policy = policy(&["203.0.113.0/24:5432", "[2001:db8::/32]:22", "10.1.2.3/8"]);
        assert!(policy.allows_address("203.0.113.200".parse().unwrap(), 5432));
        assert!(!policy.allows_address("203.0.114.1".parse().unwrap(), 5432));
        assert!(policy.allows_address("2001:db8:9::1".parse().unwrap(), 22));
        assert!(policy.allows_address("10.9.9.9".parse().unwrap(), 443));
        assert!(!policy.knows(&name("example.com")));
        for network in ["203.0.113.0/33", "a.example/8", "/8", "1.2.3.4/"] {
            assert_eq!(network.parse::<Rule>(), Err(RuleError::Network), "{network}");
        }
    }

    #[test]
    fn what_is_not_a_rule_is_refused_with_the_remedy() {
        assert_eq!("https://x.com".parse::<Rule>(), Err(RuleError::Scheme));
        assert_eq!("*".parse::<Rule>(), Err(RuleError::Star));
        assert_eq!("a.*.com".parse::<Rule>(), Err(RuleError::Star));
        assert_eq!("*.*.com".parse::<Rule>(), Err(RuleError::Star));
        for port in ["x.com:0", "x.com:65536", "x.com:", "x.com:http", "x.com:+80"] {
            assert_eq!(port.parse::<Rule>(), Err(RuleError::Port), "{port}");
        }
        for host in ["", "a b", "x\0.com", "*.", "[::1", "[a.com]", "[1.2.3.4]:80"] {
            assert!(matches!(host.parse::<Rule>(), Err(RuleError::Host(_))), "{host:?}");
        }
    }
}
