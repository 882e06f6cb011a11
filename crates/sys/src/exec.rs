//! `execve(2)` and `_exit(2)`

use std::ffi::{CStr, c_char};
use std::{io, ptr};

/// Becomes another program. Returns only if that failed.
pub fn exec(program: &CStr, arguments: &[&CStr], environment: &[&CStr]) -> io::Error {
    let arguments = pointers(arguments);
    let environment = pointers(environment);
    // SAFETY: `program` is a C string; both arrays hold pointers to C strings that outlive the
    // call and end with a null pointer.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends this process at once: no destructor, no exit handler, no flush. What a child that shares
/// its parent's buffers must use.
pub fn exit(code: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(code) }
}

fn pointers(strings: &[&CStr]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}
