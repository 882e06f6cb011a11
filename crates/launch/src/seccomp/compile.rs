//! From leaves to classic BPF.

use sys::bpf::{AND, IF_ANY_BIT, IF_AT_LEAST, IF_EQUAL, JUMP, LOAD, RETURN, branch, plain};
use sys::{Instruction, MAX_INSTRUCTIONS};

use super::{Action, Argument, Check, Leaf};

/// `AUDIT_ARCH_X86_64`
const ARCHITECTURE: u32 = 0xc000_003e;

/// Offsets in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

/// How far a conditional jump reaches, in instructions skipped.
const REACH: usize = u8::MAX as usize;

/// The whole filter.
///
/// # Panics
///
/// If the table grew beyond what the kernel takes.
pub(super) fn program(leaves: &[(u32, Leaf)]) -> Vec<Instruction> {
    let mut program = Program::default();
    // The x32 ABI is absent without a check of its own: its numbers are beyond the last of the table.
    let end = leaves.last().map_or(0, |(last, _)| last + 1);
    let native = program.tree(leaves, end);
    let native = program.load(NUMBER_AT, native);
    let foreign = program.leaf(Leaf::Always(Action::Kill));
    let known = program.branch(IF_EQUAL, ARCHITECTURE, native, foreign);
    program.load(ARCHITECTURE_AT, known);
    program.finish()
}

/// Where an instruction is: how many follow it.
#[derive(Debug, Clone, Copy)]
struct Place(usize);

/// A program that is written from its last instruction to its first: jumps only lead forward, so
/// where they lead is known, and what is alike is written once.
#[derive(Debug, Default)]
struct Program {
    reversed: Vec<Instruction>,
    leaves: Vec<(Leaf, Place)>,
}

impl Program {
    fn finish(mut self) -> Vec<Instruction> {
        assert!(self.reversed.len() <= MAX_INSTRUCTIONS, "the filter is too long for the kernel");
        self.reversed.reverse();
        self.reversed
    }

    fn put(&mut self, instruction: Instruction) -> Place {
        self.reversed.push(instruction);
        Place(self.reversed.len() - 1)
    }

    /// How many instructions the next one has to skip to get there.
    fn distance(&self, to: Place) -> usize {
        self.reversed.len() - 1 - to.0
    }

    /// A place that leads there and that a conditional jump reaches, whatever jump to somewhere near is
    /// written before.
    fn near(&mut self, to: Place) -> Place {
        if self.distance(to) < REACH {
            return to;
        }
        let skip = u32::try_from(self.distance(to)).expect("a filter has few instructions");
        self.put(plain(JUMP, skip))
    }

    fn branch(&mut self, test: u16, operand: u32, then: Place, otherwise: Place) -> Place {
        let (then, otherwise) = (self.near(then), self.near(otherwise));
        let skip = |to| u8::try_from(self.distance(to)).expect("it is near");
        let instruction = branch(test, operand, skip(then), skip(otherwise));
        self.put(instruction)
    }

    fn load(&mut self, offset: u32, next: Place) -> Place {
        self.go_on(plain(LOAD, offset), next)
    }

    fn load_argument(&mut self, argument: Argument, next: Place) -> Place {
        // The lower half: x86-64 is little-endian.
        self.load(ARGUMENTS_AT + 8 * u32::from(argument.0), next)
    }

    /// An instruction with but one that can follow.
    fn go_on(&mut self, instruction: Instruction, next: Place) -> Place {
        if self.distance(next) > 0 {
            let skip = u32::try_from(self.distance(next)).expect("a filter has few instructions");
            self.put(plain(JUMP, skip));
        }
        self.put(instruction)
    }

    /// A tree balanced by weight: the kernel asks a new filter about every number, so a wide range is
    /// to be near the root. `end` is where the last range is taken to end.
    fn tree(&mut self, leaves: &[(u32, Leaf)], end: u32) -> Place {
        let &[(_, only)] = leaves else {
            let (lower, upper) = leaves.split_at(middle(leaves, end));
            let (border, _) = upper[0];
            let above = self.tree(upper, end);
            let below = self.tree(lower, border);
            return self.branch(IF_AT_LEAST, border, above, below);
        };
        self.leaf(only)
    }

    fn leaf(&mut self, leaf: Leaf) -> Place {
        let written = self.leaves.iter().rev().find(|(known, _)| *known == leaf);
        if let Some(&(_, place)) = written
            && self.distance(place) < REACH
        {
            return place;
        }
        let place = match leaf {
            Leaf::Always(action) => self.put(ret(action)),
            Leaf::Checked { checks, otherwise } => {
                let refuse = self.leaf(Leaf::Always(otherwise));
                let pass = self.leaf(Leaf::Always(Action::Allow));
                let checks = checks.iter().flatten().rev();
                checks.fold(pass, |pass, check| self.check(*check, pass, refuse))
            }
        };
        self.leaves.push((leaf, place));
        place
    }

    fn check(&mut self, check: Check, pass: Place, refuse: Place) -> Place {
        match check {
            Check::NoneOf { argument, bits } => {
                let test = self.branch(IF_ANY_BIT, bits, refuse, pass);
                self.load_argument(argument, test)
            }
            Check::NoneOfIf { argument, bits, flags, any } => {
                let none = self.check(Check::NoneOf { argument, bits }, pass, refuse);
                let test = self.branch(IF_ANY_BIT, any, none, pass);
                self.load_argument(flags, test)
            }
            Check::Not { argument, values } => {
                let test = self.one_of(values, refuse, pass);
                self.load_argument(argument, test)
            }
            Check::NotWith { argument, values, with, equal } => {
                let not = self.check(Check::Not { argument, values }, pass, refuse);
                let test = self.branch(IF_EQUAL, equal, not, pass);
                self.load_argument(with, test)
            }
            Check::OneOf { argument, values } => {
                let test = self.one_of(values, pass, refuse);
                self.load_argument(argument, test)
            }
            Check::Masked { argument, mask, values } => {
                let test = self.one_of(values, pass, refuse);
                let masked = self.go_on(plain(AND, mask), test);
                self.load_argument(argument, masked)
            }
        }
    }

    fn one_of(&mut self, values: &[u32], yes: Place, no: Place) -> Place {
        values.iter().rev().fold(no, |no, value| self.branch(IF_EQUAL, *value, yes, no))
    }
}

/// The border of ranges that is nearest to the middle of all their numbers.
fn middle(leaves: &[(u32, Leaf)], end: u32) -> usize {
    let middle = u32::midpoint(leaves[0].0, end);
    let nearest = (1..leaves.len()).min_by_key(|&at| leaves[at].0.abs_diff(middle));
    nearest.expect("there are two ranges or more")
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
