//! Attempts that reach no listener.
//!
//! A port that no rule names has no listener, so the kernel refuses it at once, and nobody would know.
//! The jail hands out a socket that sees the first packet of each attempt; it is read to write the
//! attempt down, and never answered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::policy::Protocol;

/// What one packet wanted: its destination, and whether that is TCP or UDP. IPv6 extension headers
/// are not followed: no client of a jail sends them in a first packet.
pub(crate) fn destination(packet: &[u8]) -> Option<(Protocol, SocketAddr)> {
    let (address, protocol, header): (IpAddr, u8, usize) = match packet.first()? >> 4 {
        4 => {
            let octets: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            (Ipv4Addr::from(octets).into(), *packet.get(9)?, usize::from(packet[0] & 0xf) * 4)
        }
        6 => {
            let octets: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            (Ipv6Addr::from(octets).into(), *packet.get(6)?, 40)
        }
        _ => return None,
    };
    let protocol = match protocol {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        _ => return None,
    };
    let port = packet.get(header + 2..header + 4)?;
    let port = u16::from_be_bytes(port.try_into().ok()?);
    Some((protocol, SocketAddr::new(address, port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_first_packet_tells_where_to() {
        let mut v4 = vec![0x46, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 198, 18, 1, 0];
        v4.extend([0; 4]); // options
        v4.extend([0xc0, 0, 0, 22, 0, 0]);
        assert_eq!(destination(&v4), Some((Protocol::Tcp, "198.18.1.0:22".parse().unwrap())));
        let mut v6 = vec![0x60, 0, 0, 0, 0, 0, 17, 64];
        v6.extend([0; 31]);
        v6.extend([1, 0, 9, 1, 187]);
        assert_eq!(destination(&v6), Some((Protocol::Udp, "[::1]:443".parse().unwrap())));
    }

    proptest! {
        #[test]
        fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
            let _ = destination(&bytes);
        }
    }
}
