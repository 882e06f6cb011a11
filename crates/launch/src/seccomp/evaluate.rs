//! Runs a filter as the kernel does, for tests.

use sys::Instruction;
use sys::bpf::{AND, IF_ANY_BIT, IF_AT_LEAST, IF_EQUAL, JUMP, LOAD, RETURN};

/// What a filter is shown of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) architecture: u32,
    pub(super) arguments: [u64; 6],
}

/// The value the filter returns, and how many instructions it took.
pub(super) fn evaluate(program: &[Instruction], call: &Call) -> (u32, usize) {
    let (mut at, mut steps, mut accumulator) = (0_usize, 0, 0_u32);
    loop {
        let instruction = program[at];
        steps += 1;
        at += 1;
        let operand = instruction.operand;
        let taken = match instruction.code {
            LOAD => {
                accumulator = word(call, operand);
                continue;
            }
            AND => {
                accumulator &= operand;
                continue;
            }
            JUMP => {
                at += operand as usize;
                continue;
            }
            RETURN => return (operand, steps),
            IF_EQUAL => accumulator == operand,
            IF_AT_LEAST => accumulator >= operand,
            IF_ANY_BIT => accumulator & operand != 0,
            other => panic!("instruction {other:#x} is not one the compiler makes"),
        };
        at += usize::from(if taken { instruction.jump_true } else { instruction.jump_false });
    }
}

/// A 32-bit word of `struct seccomp_data`.
fn word(call: &Call, offset: u32) -> u32 {
    match offset {
        0 => call.number,
        4 => call.architecture,
        16..64 => {
            let argument = call.arguments[(offset as usize - 16) / 8];
            let half = if offset.is_multiple_of(8) { argument } else { argument >> 32 };
            (half & 0xffff_ffff) as u32
        }
        other => panic!("no word at {other}"),
    }
}
