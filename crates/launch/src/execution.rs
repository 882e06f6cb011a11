//! A command in the form `execve` takes it: made by who asks, so that nothing is left to build for who becomes it.

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::message::{At as _, Command, Fault};

/// Where it starts, its arguments, of which the first is the program, and its environment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Execution {
    pub(crate) directory: String,
    arguments: Strings,
    environment: Strings,
}

/// One after the other, each ended by a NUL.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Strings(String);

impl Execution {
    /// `EINVAL` if there is a NUL in a string.
    pub fn new(command: &Command) -> Result<Self, Fault> {
        let Command { program, arguments, environment, directory } = command;
        let (mut all, mut variables) = (String::new(), String::new());
        for argument in std::iter::once(program).chain(arguments) {
            all.push_str(argument);
            all.push('\0');
        }
        for (name, value) in environment {
            // Writing to a string does not fail.
            let _ = write!(variables, "{name}={value}\0");
        }
        let whole = [(&all, 1 + arguments.len()), (&variables, environment.len())];
        let nuls = |text: &str| text.bytes().filter(|byte| *byte == 0).count();
        if whole.iter().any(|(text, count)| nuls(text) != *count) || directory.contains('\0') {
            return Err(Errno::INVAL).at("read the command: it holds a NUL");
        }
        Ok(Self {
            directory: directory.clone(),
            arguments: Strings(all),
            environment: Strings(variables),
        })
    }

    /// The first is the program.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &CStr> {
        self.arguments.iter()
    }

    pub(crate) fn environment(&self) -> impl Iterator<Item = &CStr> {
        self.environment.iter()
    }

    /// Where the program may be, in order: itself, or below each directory of the last `PATH`.
    pub(crate) fn candidates(&self) -> io::Result<Vec<Cow<'_, CStr>>> {
        let program = self.arguments().next().unwrap_or_default();
        let name = program.to_str().map_err(|_| Errno::INVAL)?;
        if name.contains('/') || name.is_empty() {
            return Ok(vec![Cow::Borrowed(program)]);
        }
        let path =
            self.environment().filter_map(|variable| variable.to_bytes().strip_prefix(b"PATH="));
        let path = path.last().and_then(|path| std::str::from_utf8(path).ok()).unwrap_or_default();
        path.split(':')
            .map(|directory| {
                Path::new(if directory.is_empty() { "." } else { directory }).join(name)
            })
            .map(|path| Ok(Cow::Owned(CString::new(path.into_os_string().into_encoded_bytes())?)))
            .collect()
    }
}

impl Strings {
    fn iter(&self) -> impl Iterator<Item = &CStr> {
        let each = self.0.as_bytes().split_inclusive(|byte| *byte == 0);
        each.filter_map(|string| CStr::from_bytes_with_nul(string).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(program: &str, environment: &[(&str, &str)]) -> Command {
        Command {
            program: program.to_owned(),
            arguments: vec![String::new(), "two words".to_owned()],
            environment: environment
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
            directory: "/".to_owned(),
        }
    }

    #[test]
    fn strings_arrive_as_they_are_empty_ones_too() {
        let made = Execution::new(&command("sh", &[("A", "="), ("", "")])).unwrap();
        assert_eq!(made.arguments().collect::<Vec<_>>(), [c"sh", c"", c"two words"]);
        assert_eq!(made.environment().collect::<Vec<_>>(), [c"A==", c"="]);
    }

    #[test]
    fn a_program_is_looked_for_in_the_last_path() {
        let path = [("PATH", "/never"), ("PATH", "/bin::/usr/bin")];
        let found = |program| Execution::new(&command(program, &path)).unwrap();
        let candidates = |made: &Execution| {
            let all = made.candidates().unwrap();
            all.iter().map(|c| c.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(candidates(&found("sh")), ["/bin/sh", "./sh", "/usr/bin/sh"]);
        assert_eq!(candidates(&found("./sh")), ["./sh"]);
        assert_eq!(candidates(&found("")), [""]);
    }

    #[test]
    fn a_nul_is_refused_wherever_it_is() {
        assert!(Execution::new(&command("s\0h", &[])).is_err());
        assert!(Execution::new(&command("sh", &[("A\0", "")])).is_err());
        let directory = Command { directory: "/\0".to_owned(), ..command("sh", &[]) };
        assert!(Execution::new(&directory).is_err());
    }
}
