//! From leaves to classic BPF.

use sys::bpf::{AND, IF_ANY_BIT, IF_AT_LEAST, IF_EQUAL, JUMP, LOAD, RETURN, branch, plain};
use sys::{Instruction, MAX_INSTRUCTIONS};

use super::{Action, Argument, Check, Leaf};

/// `AUDIT_ARCH_X86_64`
const ARCHITECTURE: u32 = 0xc000_003e;

/// Calls of the x32 ABI carry this bit.
const X32_BIT: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

/// The whole filter.
///
/// # Panics
///
/// If the table grew beyond what the kernel takes.
pub(super) fn program(leaves: &[(u32, Leaf)]) -> Vec<Instruction> {
    let mut program = vec![
        plain(LOAD, ARCHITECTURE_AT),
        branch(IF_EQUAL, ARCHITECTURE, 1, 0),
        ret(Action::Kill),
        plain(LOAD, NUMBER_AT),
        branch(IF_AT_LEAST, X32_BIT, 0, 1),
        ret(Action::Absent),
    ];
    program.extend(tree(leaves));
    assert!(program.len() <= MAX_INSTRUCTIONS, "the filter is too long for the kernel");
    program
}

/// A balanced tree: at most one comparison for each halving of the ranges.
fn tree(leaves: &[(u32, Leaf)]) -> Vec<Instruction> {
    let &[(_, only)] = leaves else {
        let (lower, upper) = leaves.split_at(leaves.len() / 2);
        let below = tree(lower);
        let mut code = match u8::try_from(below.len()) {
            Ok(skip) => vec![branch(IF_AT_LEAST, upper[0].0, skip, 0)],
            // A conditional jump reaches 255 instructions; beyond, one that is not conditional.
            Err(_) => vec![
                branch(IF_AT_LEAST, upper[0].0, 0, 1),
                plain(JUMP, u32::try_from(below.len()).expect("a filter has few instructions")),
            ],
        };
        code.extend(below);
        code.extend(tree(upper));
        return code;
    };
    match only {
        Leaf::Always(action) => vec![ret(action)],
        Leaf::Checked { checks, otherwise } => {
            let mut code: Vec<Instruction> =
                checks.iter().flatten().flat_map(|check| checked(*check, otherwise)).collect();
            code.push(ret(Action::Allow));
            code
        }
    }
}

/// Falls through if the check passes, returns `otherwise` if not.
fn checked(check: Check, otherwise: Action) -> Vec<Instruction> {
    match check {
        Check::NoneOf { argument, bits } => {
            vec![load(argument), branch(IF_ANY_BIT, bits, 0, 1), ret(otherwise)]
        }
        Check::NoneOfIf { argument, bits, flags, any } => vec![
            load(flags),
            branch(IF_ANY_BIT, any, 0, 3),
            load(argument),
            branch(IF_ANY_BIT, bits, 0, 1),
            ret(otherwise),
        ],
        Check::Not { argument, values } => {
            let mut code = vec![load(argument)];
            for &value in values {
                code.extend([branch(IF_EQUAL, value, 0, 1), ret(otherwise)]);
            }
            code
        }
        Check::NotWith { argument, values, with, equal } => {
            let not = checked(Check::Not { argument, values }, otherwise);
            let skip = u8::try_from(not.len()).expect("a check has few values");
            let mut code = vec![load(with), branch(IF_EQUAL, equal, 0, skip)];
            code.extend(not);
            code
        }
        Check::OneOf { argument, values } => {
            let mut code = vec![load(argument)];
            code.extend(one_of(values, otherwise));
            code
        }
        Check::Masked { argument, mask, values } => {
            let mut code = vec![load(argument), plain(AND, mask)];
            code.extend(one_of(values, otherwise));
            code
        }
    }
}

fn one_of(values: &[u32], otherwise: Action) -> Vec<Instruction> {
    let count = u8::try_from(values.len()).expect("a check has few values");
    let mut code: Vec<Instruction> = (1..=count)
        .zip(values)
        .map(|(n, &value)| branch(IF_EQUAL, value, count - n + 1, 0))
        .collect();
    code.push(ret(otherwise));
    code
}

fn load(argument: Argument) -> Instruction {
    // The lower half: x86-64 is little-endian.
    plain(LOAD, ARGUMENTS_AT + 8 * u32::from(argument.0))
}

fn ret(action: Action) -> Instruction {
    const ERROR: u32 = 0x0005_0000; // SECCOMP_RET_ERRNO; the errno is added
    const EPERM: u32 = 1;
    const ENOSYS: u32 = 38;
    const EAFNOSUPPORT: u32 = 97;
    let operand = match action {
        Action::Allow => 0x7fff_0000, // SECCOMP_RET_ALLOW
        Action::Kill => 0x8000_0000,  // SECCOMP_RET_KILL_PROCESS
        Action::Deny => ERROR + EPERM,
        Action::Absent => ERROR + ENOSYS,
        Action::NoFamily => ERROR + EAFNOSUPPORT,
    };
    plain(RETURN, operand)
}
