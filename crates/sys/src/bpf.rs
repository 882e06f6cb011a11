//! Classic BPF: the instructions of filters for system calls and for packets.

/// One instruction (`struct sock_filter`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    /// Instructions to skip if the comparison holds.
    pub jump_true: u8,
    /// Instructions to skip if it does not.
    pub jump_false: u8,
    pub operand: u32,
}

const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());

/// `A = word at k`
pub const LOAD: u16 = 0x20;
/// `A = byte at k`
pub const LOAD_BYTE: u16 = 0x30;
/// `A = half word at X + k`
pub const LOAD_HALF_AT_X: u16 = 0x48;
/// `A = byte at X + k`
pub const LOAD_BYTE_AT_X: u16 = 0x50;
/// `X = k`
pub const LOAD_X: u16 = 0x01;
/// `X = 4 * (low half of the byte at k)`: the length of an IPv4 header.
pub const LOAD_X_HEADER: u16 = 0xb1;
/// `A &= k`
pub const AND: u16 = 0x54;
/// `A >>= k`
pub const SHIFT_RIGHT: u16 = 0x74;
/// Skip k instructions.
pub const JUMP: u16 = 0x05;
/// `A == k`
pub const IF_EQUAL: u16 = 0x15;
/// `A >= k`
pub const IF_AT_LEAST: u16 = 0x35;
/// `A & k != 0`
pub const IF_ANY_BIT: u16 = 0x45;
/// Answer k.
pub const RETURN: u16 = 0x06;

/// An instruction that compares nothing.
pub const fn plain(code: u16, operand: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, operand }
}

/// A comparison, and how many instructions each outcome skips.
pub const fn branch(code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, operand }
}
