//! Stand-in addresses: what a jail is told a name's address is.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::host::HostName;

/// Stand-in for a phantom proxy that is named by a host name; every jail's `/etc/hosts` has it.
pub const STAND_IN_PROXY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// The first address given to a name: 198.18.1.0. The range for benchmarks, 198.18.0.0/15, is in use
/// nowhere else.
const FIRST_V4: u32 = 0xc612_0100;

/// `fd61:6a61:696c::/96`, with the number of the name at the end.
const FIRST_V6: u128 = 0xfd61_6a61_696c_0000_0000_0000_0000_0000;

/// Names one jail may look up. A program that asks for more is walking a name space.
const MOST: u32 = 4096;

/// The names a jail has asked for, by number.
#[derive(Debug, Default)]
pub(crate) struct StandIns {
    names: Vec<HostName>,
    numbers: HashMap<HostName, u32>,
}

impl StandIns {
    /// The addresses that stand for a name; `None` once there are too many.
    pub(crate) fn addresses(&mut self, name: &HostName) -> Option<(Ipv4Addr, Ipv6Addr)> {
        let number = match self.numbers.get(name) {
            Some(&number) => number,
            None => self.add(name)?,
        };
        Some((
            Ipv4Addr::from_bits(FIRST_V4 + number),
            Ipv6Addr::from_bits(FIRST_V6 + u128::from(number)),
        ))
    }

    /// The name an address stands for.
    pub(crate) fn name(&self, address: IpAddr) -> Option<&HostName> {
        let number = match address.to_canonical() {
            IpAddr::V4(address) => address.to_bits().checked_sub(FIRST_V4)?,
            IpAddr::V6(address) => u32::try_from(address.to_bits().checked_sub(FIRST_V6)?).ok()?,
        };
        self.names.get(usize::try_from(number).ok()?)
    }

    fn add(&mut self, name: &HostName) -> Option<u32> {
        let number = u32::try_from(self.names.len()).ok().filter(|&number| number < MOST)?;
        self.names.push(name.clone());
        self.numbers.insert(name.clone(), number);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_for_the_name_it_was_given_for() {
        let mut stand_ins = StandIns::default();
        let names = ["a.example", "b.example"].map(|name| HostName::parse(name).unwrap());
        for name in &names {
            let (v4, v6) = stand_ins.addresses(name).unwrap();
            assert_eq!(stand_ins.addresses(name), Some((v4, v6)));
            assert_eq!(stand_ins.name(v4.into()), Some(name));
            assert_eq!(stand_ins.name(v6.into()), Some(name));
            assert_eq!(stand_ins.name(v4.to_ipv6_mapped().into()), Some(name));
        }
        for other in ["198.18.1.2", "8.8.8.8", "::1", "198.18.0.2", "255.255.255.255"] {
            assert_eq!(stand_ins.name(other.parse().unwrap()), None, "{other}");
        }
    }

    #[test]
    fn a_walk_of_the_name_space_ends() {
        let mut stand_ins = StandIns::default();
        for n in 0..MOST {
            assert!(
                stand_ins.addresses(&HostName::parse(&format!("n{n}.example")).unwrap()).is_some()
            );
        }
        assert_eq!(stand_ins.addresses(&HostName::parse("one-more.example").unwrap()), None);
    }
}
