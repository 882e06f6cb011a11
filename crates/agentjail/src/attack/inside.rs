//! The attempts, as they are made in a jail.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixStream};
use std::process::ExitCode;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, socketpair};
use sys::attempt::{self as calls, Attempt};

use super::{Verdict, files, processes};

/// How long a connection may take to be made.
const PATIENCE: Duration = Duration::from_secs(2);

/// Makes one attempt and says, as JSON, what came of it.
pub(crate) fn attempt(line: &str, arguments: &[String]) -> ExitCode {
    let verdict = make(line, arguments);
    let text = serde_json::to_string(&verdict).unwrap_or_default();
    drop(writeln!(std::io::stdout(), "{text}"));
    ExitCode::SUCCESS
}

fn make(line: &str, arguments: &[String]) -> Verdict {
    match line {
        "A01" => processes::inherited_descriptors(),
        "A02" => files::none_opens(&["/proc/1/exe", "/proc/1/map_files"], files::Way::Write),
        "A03" => files::machines_knobs(),
        "A04" => files::replaced_devices(),
        "A05" => files::redirected_mounts(),
        "A06" => files::maps_and_attributes(),
        "A07" => filtered(&calls::OF_PROCESSES),
        "A08" => processes::signals_to_everyone(),
        "A09" => files::none_opens(
            &["/proc/1/environ", "/proc/1/mem", "/proc/1/maps", "/proc/1/fd", "/proc/1/root"],
            files::Way::Read,
        ),
        "A10" => processes::core_dumps(),
        "A11" => processes::capabilities(),
        "A12" => refused(&calls::OF_NAMESPACES),
        "A13" => filtered(&calls::OF_ROOTS[..3]),
        "A15" => processes::hide(),
        "B01" => processes::foreign_interface(),
        "B01-child" => {
            let _ = sys::attempt::process_id_by_ia32();
            Verdict::Broken("answered".to_owned())
        }
        "B02" => processes::threads(),
        "B03" => filtered(&calls::OF_IO_URING),
        "B04" => socket_families(),
        "B05" => filtered(&calls::OF_TERMINALS),
        "B06" => filtered(&calls::OF_USERFAULT),
        "B07" => filtered(&calls::OF_KERNEL_SERVICES),
        "B08" => files::devices(),
        "B09" => files::executed_in_tmp(),
        "B10" => filtered(&calls::OF_PERSONALITY),
        "B11" => filtered(&calls::OF_MOUNTS),
        "B12" => filtered(&calls::OF_ROOTS[3..]),
        "C01" => files::machines_files(),
        "C02" | "C03" => host_socket(arguments),
        "C08" => files::filled_trees(),
        "D01" => direct(arguments),
        "D02" => metadata(arguments),
        "D03" => led_back(arguments),
        "D05" => spelled(arguments),
        "D08" => not_allowed(),
        "D12" => neighbour(arguments),
        "F11" => processes::fork_bomb(),
        "F11m" => processes::memory_bomb(),
        "F11f" => processes::descriptors_without_end(),
        other => Verdict::NotShown(format!("no attempt is known for {other}")),
    }
}

/// All must be refused by the filter: not by what the kernel says of bad arguments.
fn filtered(attempts: &[Attempt]) -> Verdict {
    all(attempts, |error| matches!(Errno::from_io_error(error), Some(Errno::PERM | Errno::NOSYS)))
}

/// All must be refused, by whatever wall comes first.
fn refused(attempts: &[Attempt]) -> Verdict {
    all(attempts, |error| {
        matches!(Errno::from_io_error(error), Some(Errno::PERM | Errno::NOSYS | Errno::NOSPC))
    })
}

fn all(attempts: &[Attempt], is_refusal: impl Fn(&std::io::Error) -> bool) -> Verdict {
    for attempt in attempts {
        match attempt.make() {
            Ok(()) => return Verdict::Broken(format!("{} succeeded", attempt.name)),
            Err(error) if is_refusal(&error) => {}
            Err(error) => {
                return Verdict::Broken(format!("{} reached the kernel: {error}", attempt.name));
            }
        }
    }
    let names: Vec<&str> = attempts.iter().map(|attempt| attempt.name).collect();
    Verdict::Holds(format!("refused: {}", names.join(", ")))
}

fn socket_families() -> Verdict {
    // ALG, NETLINK, PACKET, VSOCK, KEY, XDP, TIPC, RDS, BLUETOOTH, QIPCRTR, CAN
    for family in [38, 16, 17, 40, 15, 44, 30, 21, 31, 42, 29] {
        let family = AddressFamily::from_raw(family);
        for kind in [SocketType::RAW, SocketType::DGRAM, SocketType::SEQPACKET, SocketType::STREAM]
        {
            if socket_with(family, kind, SocketFlags::empty(), None).is_ok() {
                return Verdict::Broken(format!("a socket of family {}", family.as_raw()));
            }
            if socketpair(family, kind, SocketFlags::empty(), None).is_ok() {
                return Verdict::Broken(format!("a pair of family {}", family.as_raw()));
            }
        }
    }
    let raw = socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::empty(), None);
    if raw.is_ok() {
        return Verdict::Broken("a raw IPv4 socket".to_owned());
    }
    // By the 32-bit multiplexer, which hides the family, nothing is reached: B01.
    Verdict::Holds("eleven families, and raw sockets".to_owned())
}

fn host_socket(arguments: &[String]) -> Verdict {
    let Some(name) = arguments.first() else { return not_told() };
    let Ok(address) = UnixAddress::from_abstract_name(name.as_bytes()) else { return not_told() };
    if UnixStream::connect_addr(&address).is_ok() {
        return Verdict::Broken("connected to an abstract socket of the machine".to_owned());
    }
    for path in [
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/run/dbus/system_bus_socket",
        "/run/systemd/private",
    ] {
        if UnixStream::connect(path).is_ok() {
            return Verdict::Broken(format!("connected to {path}"));
        }
    }
    Verdict::Holds("neither by abstract name nor by path, so no descriptor either".to_owned())
}

fn not_told() -> Verdict {
    Verdict::NotShown("the attempt was not told where".to_owned())
}

/// Whether anything answers there.
fn answers(host: &str, port: u16) -> bool {
    let Ok(mut addresses) = (host, port).to_socket_addrs() else { return false };
    addresses.any(|address| {
        let stream = TcpStream::connect_timeout(&address, PATIENCE);
        stream.is_ok_and(|mut stream| {
            drop(stream.set_read_timeout(Some(PATIENCE)));
            drop(stream.write_all(b"GET / HTTP/1.0\r\n\r\n"));
            stream.read(&mut [0; 64]).is_ok_and(|length| length > 0)
        })
    })
}

fn answers_udp(host: &str, port: u16) -> bool {
    let any = if host.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    UdpSocket::bind(any).is_ok_and(|socket| {
        drop(socket.set_read_timeout(Some(Duration::from_millis(300))));
        socket.connect((host, port)).is_ok()
            && socket.send(b"x").is_ok()
            && socket.recv(&mut [0; 64]).is_ok()
    })
}

const SPELLINGS: [&str; 6] =
    ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "64:ff9b::7f00:1", "2002:7f00:1::1"];

fn direct(ports: &[String]) -> Verdict {
    let ports: Vec<u16> = ports.iter().filter_map(|port| port.parse().ok()).collect();
    let [tcp, udp] = ports[..] else { return not_told() };
    for host in SPELLINGS.into_iter().chain(["8.8.8.8", "1.1.1.1"]) {
        for port in [tcp, 53, 443, 853] {
            if answers(host, port) {
                return Verdict::Broken(format!("{host} answered on TCP port {port}"));
            }
        }
        for port in [udp, 53, 443] {
            if answers_udp(host, port) {
                return Verdict::Broken(format!("{host} answered on UDP port {port}"));
            }
        }
    }
    let ping = Some(rustix::net::ipproto::ICMP);
    for kind in [SocketType::RAW, SocketType::DGRAM] {
        if socket_with(AddressFamily::INET, kind, SocketFlags::empty(), ping).is_ok() {
            return Verdict::Broken("a socket for ICMP".to_owned());
        }
    }
    Verdict::Holds("no spelling of an address, on any port, by TCP, UDP or ICMP".to_owned())
}

fn metadata(ports: &[String]) -> Verdict {
    let Some(port) = ports.first().and_then(|port| port.parse().ok()) else { return not_told() };
    for host in [
        "169.254.169.254",
        "fd00:ec2::254",
        "100.100.100.200",
        "localhost",
        "10.0.0.1",
        "172.17.0.1",
    ] {
        for port in [80, port, 7000, 8443] {
            if answers(host, port) {
                return Verdict::Broken(format!("{host}:{port} answered"));
            }
        }
    }
    Verdict::Holds("nothing answers".to_owned())
}

fn led_back(arguments: &[String]) -> Verdict {
    let Some(port) = arguments.first().and_then(|port| port.parse().ok()) else {
        return not_told();
    };
    if answers("allowed.test", port) {
        return Verdict::Broken("an allowed name led to 127.0.0.1 of the machine".to_owned());
    }
    Verdict::Holds("its address was looked at before it was dialled".to_owned())
}

/// Speaks to the HTTP proxy, which takes names as text.
fn spelled(arguments: &[String]) -> Verdict {
    let Some(port) = arguments.first() else { return not_told() };
    let names = [
        "evil.test",
        "allowed.test.evil.test",
        "evil.test\0.allowed.test",
        "evil.test%00.allowed.test",
        "allowed.test@evil.test",
        "evil.test#.allowed.test",
        "evil.test?.allowed.test",
        "xallowed.test",
        "ALLOWED.TEST.evil.test.",
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "[::ffff:127.0.0.1]",
    ];
    for name in names {
        let Ok(mut stream) = TcpStream::connect("127.0.0.1:3128") else {
            return Verdict::NotShown("there is no HTTP proxy in this jail".to_owned());
        };
        drop(stream.set_read_timeout(Some(PATIENCE)));
        let request = format!("CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n");
        drop(stream.write_all(request.as_bytes()));
        let mut answer = [0; 12];
        if stream.read_exact(&mut answer).is_ok() && &answer[9..12] == b"200" {
            return Verdict::Broken(format!("the proxy agreed to {name:?}"));
        }
    }
    Verdict::Holds(format!("{} spellings", names.len()))
}

fn not_allowed() -> Verdict {
    for name in ["evil.test", "example.com", "c2VjcmV0.allowed.test.evil.test"] {
        if (name, 443).to_socket_addrs().is_ok_and(|mut addresses| addresses.next().is_some()) {
            return Verdict::Broken(format!("{name} has an address"));
        }
    }
    if ("allowed.test", 443).to_socket_addrs().is_err() {
        return Verdict::NotShown("the allowed name has no address either".to_owned());
    }
    Verdict::Holds(
        "names that are not allowed do not exist, and nobody is asked about them".to_owned(),
    )
}

fn neighbour(arguments: &[String]) -> Verdict {
    let Some(port) = arguments.first().and_then(|port| port.parse().ok()) else {
        return not_told();
    };
    match SPELLINGS.into_iter().find(|host| answers(host, port)) {
        Some(host) => Verdict::Broken(format!("another jail's port {port} answered at {host}")),
        None => Verdict::Holds("a network of its own".to_owned()),
    }
}
