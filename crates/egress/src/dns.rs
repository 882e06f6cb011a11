//! The jail's resolver. It answers from policy, and asks nobody.
//!
//! An allowed name has stand-in addresses and nothing else (no HTTPS record, whose hints and keys
//! would lead around us); any other name does not exist. Nothing is forwarded, so nothing can be
//! carried out in the names that are asked for.

use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE};

use crate::host::HostName;
use crate::policy::Policy;
use crate::standin::StandIns;

/// How long a client may remember an answer, in seconds.
const TIME_TO_LIVE: u32 = 60;

/// The answer to a query; `None` for what is not one. A name that policy does not know is told to
/// `refused`.
pub(crate) fn answer(
    query: &[u8],
    policy: &Policy,
    stand_ins: &mut StandIns,
    refused: impl Fn(&str),
) -> Option<Vec<u8>> {
    let query = Packet::parse(query).ok()?;
    if query.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    let [question] = query.questions.as_slice() else {
        *reply.rcode_mut() = RCODE::FormatError;
        return reply.build_bytes_vec().ok();
    };
    reply.questions.push(question.clone());
    let name = HostName::parse(&question.qname.to_string()).ok();
    if let Some(unknown) = name.as_ref().filter(|name| !policy.knows(name)) {
        refused(unknown.as_str());
    }
    let name = name.filter(|name| policy.knows(name));
    match name.and_then(|name| stand_ins.addresses(&name)) {
        None => *reply.rcode_mut() = RCODE::NameError,
        Some((v4, v6)) if question.qclass == QCLASS::CLASS(CLASS::IN) => {
            let data = match question.qtype {
                QTYPE::TYPE(TYPE::A) => Some(RData::A(A { address: v4.to_bits() })),
                QTYPE::TYPE(TYPE::AAAA) => Some(RData::AAAA(AAAA { address: v6.to_bits() })),
                _ => None,
            };
            let record =
                |data| ResourceRecord::new(question.qname.clone(), CLASS::IN, TIME_TO_LIVE, data);
            reply.answers.extend(data.map(record));
        }
        Some(_) => {}
    }
    reply.build_bytes_vec_compressed().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use simple_dns::{Name, Question};

    fn ask(name: &str, kind: TYPE) -> Packet<'static> {
        let mut query = Packet::new_query(7);
        let name = Name::new_unchecked(name);
        query.questions.push(Question::new(name, kind.into(), CLASS::IN.into(), false));
        let policy = Policy::new(vec!["*.example.com".parse().unwrap()]);
        let bytes = query.build_bytes_vec().unwrap();
        let answer = answer(&bytes, &policy, &mut StandIns::default(), |_| {}).unwrap();
        let leaked: &'static [u8] = Box::leak(answer.into_boxed_slice());
        Packet::parse(leaked).unwrap()
    }

    #[test]
    fn an_allowed_name_has_stand_in_addresses_and_nothing_else() {
        let reply = ask("Api.Example.com", TYPE::A);
        assert_eq!(reply.id(), 7);
        assert!(matches!(&reply.answers[0].rdata, RData::A(a) if a.address == 0xc612_0100));
        assert!(matches!(&ask("api.example.com", TYPE::AAAA).answers[0].rdata, RData::AAAA(_)));
        for kind in [TYPE::HTTPS, TYPE::SVCB, TYPE::TXT, TYPE::MX, TYPE::NULL] {
            let reply = ask("api.example.com", kind);
            assert_eq!((reply.rcode(), reply.answers.len()), (RCODE::NoError, 0), "{kind:?}");
        }
    }

    #[test]
    fn any_other_name_does_not_exist() {
        for name in ["example.com", "api.example.org", "c2VjcmV0.evil.net", "127.0.0.1"] {
            assert_eq!(ask(name, TYPE::A).rcode(), RCODE::NameError, "{name}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let policy = Policy::new(vec!["*.example.com".parse().unwrap()]);
            drop(answer(&bytes, &policy, &mut StandIns::default(), |_| {}));
        }
    }
}
