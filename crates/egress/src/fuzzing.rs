//! Ways in for the fuzzer, each with what must hold whatever the bytes are.

use std::sync::Arc;
use std::time::Duration;

use simple_dns::Packet;
use simple_dns::rdata::RData;
use tokio::io::AsyncWriteExt as _;

use crate::gate::{Gate, GateConfig, Target};
use crate::host::HostName;
use crate::policy::{Policy, Rule};
use crate::standin::StandIns;
use crate::tls::{self, Reading};
use crate::{attempts, dns, plain_http};

fn allowed() -> Policy {
    let rules = ["*.example.com", "a.test:8080"];
    Policy::new(rules.iter().filter_map(|rule| rule.parse().ok()).collect())
}

/// A DNS message: only names of the policy have addresses, and only stand-ins.
///
/// # Panics
///
/// If that does not hold.
pub fn dns(bytes: &[u8]) {
    let mut stand_ins = StandIns::default();
    let Some(answer) = dns::answer(bytes, &allowed(), &mut stand_ins, |_| {}) else { return };
    let answer = Packet::parse(&answer).expect("an answer of ours can be read");
    for record in &answer.answers {
        let name = HostName::parse(&record.name.to_string()).expect("a name that was allowed");
        assert!(allowed().knows(&name), "{name}");
        match &record.rdata {
            RData::A(a) => {
                assert_eq!(stand_ins.name(std::net::Ipv4Addr::from(a.address).into()), Some(&name))
            }
            RData::AAAA(a) => {
                assert_eq!(stand_ins.name(std::net::Ipv6Addr::from(a.address).into()), Some(&name))
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The beginning of a TLS connection: what is known of a prefix stays so when more comes.
///
/// # Panics
///
/// If that does not hold.
pub fn client_hello(bytes: &[u8]) {
    let whole = tls::read(bytes);
    for end in [bytes.len() / 4, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        match tls::read(&bytes[..end]) {
            Reading::More => {}
            early => assert_eq!(early, whole, "at {end}"),
        }
    }
}

/// A packet's first bytes.
pub fn packet(bytes: &[u8]) {
    let _ = attempts::destination(bytes);
}

/// A rule and a name: a name is allowed only if it is the rule's, or ends with its suffix at a label.
///
/// # Panics
///
/// If that does not hold.
pub fn policy(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (rule, name) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(parsed) = rule.parse::<Rule>() else { return };
    let Ok(name) = HostName::parse(name) else { return };
    let policy = Policy::new(vec![parsed]);
    for port in policy.ports() {
        if !policy.allows(&name, port) {
            continue;
        }
        let host = rule.rsplit_once(':').map_or(rule, |(host, _)| host).to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host).to_owned();
        let suffix = host.strip_prefix('*');
        let fits = suffix.map_or(name.as_str() == host, |suffix| {
            name.as_str().len() > suffix.len() && name.as_str().ends_with(suffix)
        });
        assert!(fits || !host.is_ascii(), "{rule:?} let {name} through");
    }
}

/// An HTTP connection's bytes: whatever they are, the server of plain HTTP ends, and dials nobody (the
/// name has no address).
///
/// # Panics
///
/// If there is no runtime.
pub fn http_head(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let limits = crate::TrafficLimits { bytes: Some(1), ..crate::TrafficLimits::default() };
        let gate = Gate::new(GateConfig { policy: allowed(), limits, ..GateConfig::default() });
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let name = HostName::parse("api.example.com").expect("a name");
        let rules = Arc::clone(gate.rules());
        // No bytes are allowed: whatever is asked for, nothing is dialled.
        rules.forbid_dialling();
        let served = plain_http::serve(&rules, near, Target::Name(name));
        let client = async {
            drop(far.write_all(bytes).await);
            drop(far.shutdown().await);
            let mut sink = tokio::io::sink();
            drop(tokio::io::copy(&mut far, &mut sink).await);
        };
        let both = async { tokio::join!(served, client) };
        drop(tokio::time::timeout(Duration::from_secs(5), both).await);
    });
}
