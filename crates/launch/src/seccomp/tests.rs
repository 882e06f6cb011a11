use proptest::prelude::*;

use super::evaluate::{Call, evaluate};
use super::*;

const NATIVE: u32 = 0xc000_003e;
const IA32: u32 = 0x4000_0003;
const ALLOWED: u32 = 0x7fff_0000;
const KILLED: u32 = 0x8000_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const EAFNOSUPPORT: u32 = 0x0005_0061;

fn run(profile: Profile, name: &str, arguments: [u64; 6]) -> u32 {
    let &(number, ..) = table::TABLE.iter().find(|(_, known, _)| *known == name).unwrap();
    evaluate(
        &filter(profile, UnixSockets::Allowed),
        &Call { number, architecture: NATIVE, arguments },
    )
    .0
}

/// The verdict read straight off the table, without a tree: what the compiler must agree with.
fn naive(profile: Profile, call: &Call) -> u32 {
    if call.architecture != NATIVE {
        return KILLED;
    }
    let Some(&(_, _, verdict)) = table::TABLE.iter().find(|(number, ..)| *number == call.number)
    else {
        return ENOSYS;
    };
    let passes = |check: Check| {
        let of = |Argument(n): Argument| (call.arguments[usize::from(n)] & 0xffff_ffff) as u32;
        match check {
            Check::NoneOf { argument, bits } => of(argument) & bits == 0,
            Check::NoneOfIf { argument, bits, flags, any } => {
                of(flags) & any == 0 || of(argument) & bits == 0
            }
            Check::Not { argument, values } => !values.contains(&of(argument)),
            Check::NotWith { argument, values, with, equal } => {
                of(with) != equal || !values.contains(&of(argument))
            }
            Check::OneOf { argument, values } => values.contains(&of(argument)),
            Check::Masked { argument, mask, values } => values.contains(&(of(argument) & mask)),
        }
    };
    let strict = profile == Profile::Strict;
    match verdict {
        Verdict::Allow => ALLOWED,
        Verdict::Deny => EPERM,
        Verdict::Absent => ENOSYS,
        Verdict::If(check) => {
            if passes(check) {
                ALLOWED
            } else {
                EPERM
            }
        }
        Verdict::Network | Verdict::Network1(_) | Verdict::Network2(..) if strict => EPERM,
        Verdict::Network => ALLOWED,
        Verdict::Network1(check) => {
            if passes(check) {
                ALLOWED
            } else {
                EAFNOSUPPORT
            }
        }
        Verdict::Network2(one, two) => {
            if passes(one) && passes(two) {
                ALLOWED
            } else {
                EAFNOSUPPORT
            }
        }
    }
}

#[test]
fn the_table_is_in_order_and_names_each_call_once() {
    for pair in table::TABLE.windows(2) {
        assert!(pair[0].0 < pair[1].0, "{} before {}", pair[0].1, pair[1].1);
    }
}

#[test]
fn the_tree_agrees_with_the_table_for_every_number_and_abi() {
    for profile in [Profile::Standard, Profile::Strict] {
        let program = filter(profile, UnixSockets::Allowed);
        for base in [0, 0x4000_0000, 0x8000_0000] {
            for number in (0..700).map(|n| base + n) {
                for architecture in [NATIVE, IA32, 0] {
                    let call = Call { number, architecture, arguments: [0; 6] };
                    assert_eq!(evaluate(&program, &call).0, naive(profile, &call), "{call:x?}");
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn the_tree_agrees_with_the_table_for_any_arguments(
        number in prop_oneof![0_u32..480, any::<u32>()],
        arguments in any::<[u64; 6]>(),
        small in any::<[u8; 3]>(),
        use_small in any::<bool>(),
    ) {
        let mut arguments = arguments;
        if use_small {
            for (argument, value) in arguments.iter_mut().zip(small) {
                *argument = u64::from(value);
            }
        }
        let call = Call { number, architecture: NATIVE, arguments };
        for profile in [Profile::Standard, Profile::Strict] {
            prop_assert_eq!(evaluate(&filter(profile, UnixSockets::Allowed), &call).0, naive(profile, &call));
        }
    }
}

/// Keys of TCP's signatures are kernel memory that no limit counts.
#[test]
fn tcp_signatures_are_refused_and_other_options_are_not() {
    for option in [14, 32, 38] {
        assert_eq!(run(Profile::Standard, "setsockopt", [0, 6, option, 0, 0, 0]), EPERM);
        assert_eq!(run(Profile::Standard, "setsockopt", [0, 1, option, 0, 0, 0]), ALLOWED);
    }
    assert_eq!(run(Profile::Standard, "setsockopt", [0, 6, 1, 0, 0, 0]), ALLOWED);
}

#[test]
fn threads_work_and_namespaces_do_not() {
    // What glibc asks for a thread, and each namespace flag by itself.
    assert_eq!(run(Profile::Standard, "clone", [0x003d_0f00, 0, 0, 0, 0, 0]), ALLOWED);
    assert_eq!(run(Profile::Standard, "clone3", [0; 6]), ENOSYS);
    for flag in
        [0x80, 0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000]
    {
        assert_eq!(run(Profile::Standard, "clone", [flag, 0, 0, 0, 0, 0]), EPERM, "{flag:#x}");
    }
}

#[test]
fn high_bits_do_not_hide_an_argument() {
    for command in [0x5412_u64, 0x541c] {
        for high in [0, 1 << 32, u64::from(u32::MAX) << 32] {
            assert_eq!(run(Profile::Standard, "ioctl", [0, high | command, 0, 0, 0, 0]), EPERM);
        }
    }
    assert_eq!(run(Profile::Standard, "ioctl", [0, 0x5401, 0, 0, 0, 0]), ALLOWED);
}

#[test]
fn only_plain_socket_families_exist() {
    for family in 0..64 {
        let expected = if [1, 2, 10].contains(&family) { ALLOWED } else { EAFNOSUPPORT };
        assert_eq!(run(Profile::Standard, "socket", [family, 1, 0, 0, 0, 0]), expected, "{family}");
        assert_eq!(run(Profile::Strict, "socket", [family, 1, 0, 0, 0, 0]), EPERM);
    }
    let sctp = 132;
    assert_eq!(run(Profile::Standard, "socket", [2, 1, sctp, 0, 0, 0]), EAFNOSUPPORT);
    assert_eq!(run(Profile::Standard, "socketpair", [1, 1, 0, 0, 0, 0]), ALLOWED);
    assert_eq!(run(Profile::Standard, "socketpair", [30, 1, 0, 0, 0, 0]), EAFNOSUPPORT);
}

#[test]
fn the_longest_path_is_short_and_so_is_the_program() {
    let program = filter(Profile::Standard, UnixSockets::Allowed);
    assert!(program.len() <= 200, "{} instructions", program.len());
    let longest = (0..500)
        .map(|number| {
            evaluate(&program, &Call { number, architecture: NATIVE, arguments: [0; 6] }).1
        })
        .max()
        .unwrap();
    assert!(longest <= 24, "{longest} instructions on the longest path");
}

#[test]
fn no_file_is_made_to_run_as_its_owner() {
    for bits in [0o4755, 0o2755, 0o6000] {
        assert_eq!(run(Profile::Standard, "chmod", [0, bits, 0, 0, 0, 0]), EPERM);
        assert_eq!(run(Profile::Standard, "fchmodat2", [0, 0, bits, 0, 0, 0]), EPERM);
        assert_eq!(run(Profile::Standard, "creat", [0, bits, 0, 0, 0, 0]), EPERM);
        assert_eq!(run(Profile::Standard, "mknod", [0, 0o100_000 | bits, 0, 0, 0, 0]), EPERM);
        for creating in [0o100, 0o20_200_000] {
            assert_eq!(run(Profile::Standard, "openat", [0, 0, creating, bits, 0, 0]), EPERM);
        }
        // Without a file to create, the mode is whatever was in the register.
        assert_eq!(run(Profile::Standard, "openat", [0, 0, 0o200_000, bits, 0, 0]), ALLOWED);
    }
    assert_eq!(run(Profile::Standard, "chmod", [0, 0o1777, 0, 0, 0, 0]), ALLOWED);
    assert_eq!(run(Profile::Standard, "openat", [0, 0, 0o102, 0o644, 0, 0]), ALLOWED);
}

#[test]
fn unix_sockets_can_be_left_out() {
    let program = filter(Profile::Standard, UnixSockets::Refused);
    let socket = |family| {
        let call = Call { number: 41, architecture: NATIVE, arguments: [family, 1, 0, 0, 0, 0] };
        evaluate(&program, &call).0
    };
    assert_eq!((socket(1), socket(2), socket(10)), (EAFNOSUPPORT, ALLOWED, ALLOWED));
}
