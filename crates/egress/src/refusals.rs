//! What was refused, why, and which rule would allow it.

use std::sync::{Mutex, PoisonError};

use crate::policy::Protocol;

/// Different refusals remembered of one jail, of each protocol: look-ups must not crowd out
/// connections. What comes after is counted only.
const MOST: usize = 64;

/// Why something was refused: stable words, for programs to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No rule names the host.
    HostNotAllowed,
    /// A rule names the host, and none the port.
    PortNotAllowed,
    /// The address is none that a look-up gave, and no rule names it.
    AddressNotAllowed,
    /// Only TCP leads out, and DNS answers here: QUIC, NTP and the like do not pass.
    UdpNotAllowed,
    /// The name's addresses lead to this machine or its neighbours.
    PrivateAddress,
    /// The request or hello names another host than the one dialled.
    HostMismatch,
    /// The hello hides the name it wants.
    EncryptedName,
    /// The client did not say what it wants, or not in the protocol of the port.
    NoName,
    /// What was asked for is not a host or port.
    Malformed,
    /// The jail has used up its bytes.
    ByteLimit,
    /// The jail opens connections faster than it may.
    RateLimit,
}

impl Reason {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HostNotAllowed => "host-not-allowed",
            Self::PortNotAllowed => "port-not-allowed",
            Self::AddressNotAllowed => "address-not-allowed",
            Self::UdpNotAllowed => "udp-not-allowed",
            Self::PrivateAddress => "private-address",
            Self::HostMismatch => "host-mismatch",
            Self::EncryptedName => "encrypted-name",
            Self::NoName => "no-name",
            Self::Malformed => "malformed",
            Self::ByteLimit => "byte-limit",
            Self::RateLimit => "rate-limit",
        }
    }
}

/// Something a jail wanted and did not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub reason: Reason,
    pub protocol: Protocol,
    /// As the client named it: a name or an address.
    pub host: String,
    /// 0 for a look-up.
    pub port: u16,
    /// The rule that would allow it, if a rule could.
    pub rule: Option<String>,
    pub count: u64,
}

/// The refusals of one jail, in the order they first came.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    all: Vec<Refused>,
    more: u64,
}

impl Refusals {
    pub(crate) fn add(&self, reason: Reason, protocol: Protocol, host: &str, port: u16) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { all, more } = &mut *known;
        let same = |known: &&mut Refused| {
            known.reason == reason
                && known.protocol == protocol
                && known.host == host
                && known.port == port
        };
        if let Some(known) = all.iter_mut().find(same) {
            known.count += 1;
            return;
        }
        if all.iter().filter(|known| known.protocol == protocol).count() < MOST {
            let rule = rule(reason, host, port);
            tracing::debug!(reason = reason.as_str(), host, port, "egress refused");
            all.push(Refused { reason, protocol, host: host.to_owned(), port, rule, count: 1 });
        } else {
            *more += 1;
        }
    }

    /// Those remembered, and how many came that were not.
    pub(crate) fn all(&self) -> (Vec<Refused>, u64) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (known.all.clone(), known.more)
    }
}

fn rule(reason: Reason, host: &str, port: u16) -> Option<String> {
    match reason {
        Reason::HostNotAllowed | Reason::PortNotAllowed | Reason::AddressNotAllowed => {
            Some(match (port, host.contains(':')) {
                (0 | 80 | 443, _) => host.to_owned(),
                (port, true) => format!("[{host}]:{port}"),
                (port, false) => format!("{host}:{port}"),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_counted_and_the_rest_bounded() {
        let refusals = Refusals::default();
        for _ in 0..3 {
            refusals.add(Reason::HostNotAllowed, Protocol::Tcp, "a.example", 443);
        }
        refusals.add(Reason::PortNotAllowed, Protocol::Tcp, "2001:db8::1", 22);
        let (all, _) = refusals.all();
        assert_eq!((all[0].count, all[0].rule.as_deref()), (3, Some("a.example")));
        assert_eq!(all[1].rule.as_deref(), Some("[2001:db8::1]:22"));
        for n in 0..1000 {
            refusals.add(Reason::UdpNotAllowed, Protocol::Udp, &format!("h{n}"), 443);
        }
        let (all, more) = refusals.all();
        assert_eq!((all.len(), more), (2 + MOST, 1000 - MOST as u64));
    }
}
