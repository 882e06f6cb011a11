//! Leaving a protection out, to see a test fail.
//!
//! A test of a protection proves something only if it fails without the protection. A build with the
//! feature `mutations` can leave single ones out; any other build has nothing here to switch.

#[cfg(feature = "mutations")]
use std::sync::OnceLock;

/// What can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Closing inherited descriptors before the command is executed.
    CloseDescriptors,
    /// Making init undumpable.
    Undumpable,
    /// Covering the machine's files in `/proc`, and closing `/proc/sys`.
    ProcMasks,
    /// Core dumps forbidden.
    CoreLimit,
    /// Capabilities given up.
    Capabilities,
    NoNewPrivileges,
    Seccomp,
    Landlock,
    /// `max_user_namespaces` 0.
    NamespaceLimit,
    /// A network namespace of its own.
    NetworkNamespace,
    /// An IPC namespace of its own.
    IpcNamespace,
    /// The small `/dev`: with this left out, there is `/dev/kmsg`.
    Devices,
    /// `noexec` on `/tmp` and `/dev/shm`.
    NoExec,
    /// A root of its own: with this left out, the machine's is at `/host`.
    Root,
    /// Limits of memory and number of processes.
    MemoryLimit,
    PidLimit,
    /// Size limits of what is mounted fresh.
    TreeLimit,
    /// The launcher's death ends init.
    DeathSignal,
    /// Limits of open files and of inotify instances.
    FileLimits,
    /// The name in a client's TLS hello is the name that was allowed.
    HelloName,
    /// What speaks of one connection is taken out of a request before the key is put in.
    HopByHop,
    /// A jail's door lets in the tokens of its own session only.
    Door,
    /// A session's scopes.
    Scopes,
    /// No method that has the upstream say what it was sent.
    Trace,
    /// Places at each listener of the proxy.
    Places,
}

impl Protection {
    pub const ALL: [(&'static str, Self); 25] = [
        ("close-descriptors", Self::CloseDescriptors),
        ("undumpable", Self::Undumpable),
        ("proc-masks", Self::ProcMasks),
        ("core-limit", Self::CoreLimit),
        ("capabilities", Self::Capabilities),
        ("no-new-privileges", Self::NoNewPrivileges),
        ("seccomp", Self::Seccomp),
        ("landlock", Self::Landlock),
        ("namespace-limit", Self::NamespaceLimit),
        ("network-namespace", Self::NetworkNamespace),
        ("ipc-namespace", Self::IpcNamespace),
        ("devices", Self::Devices),
        ("no-exec", Self::NoExec),
        ("root", Self::Root),
        ("memory-limit", Self::MemoryLimit),
        ("pid-limit", Self::PidLimit),
        ("tree-limit", Self::TreeLimit),
        ("death-signal", Self::DeathSignal),
        ("file-limits", Self::FileLimits),
        ("hello-name", Self::HelloName),
        ("hop-by-hop", Self::HopByHop),
        ("door", Self::Door),
        ("scopes", Self::Scopes),
        ("trace", Self::Trace),
        ("places", Self::Places),
    ];
}

#[cfg(feature = "mutations")]
static LEFT_OUT: OnceLock<Vec<String>> = OnceLock::new();

/// Says what this process leaves out, by name. Heard once.
#[cfg(feature = "mutations")]
pub fn leave_out(names: &[String]) {
    drop(LEFT_OUT.set(names.to_owned()));
}

/// Says what this process leaves out: nothing.
#[cfg(not(feature = "mutations"))]
pub fn leave_out(_: &[String]) {}

/// Whether a protection is to be put in force: always, but in a build for tests.
#[cfg(feature = "mutations")]
pub fn keeps(protection: Protection) -> bool {
    let name =
        Protection::ALL.iter().find(|(_, known)| *known == protection).map(|(name, _)| *name);
    !LEFT_OUT.get().is_some_and(|left_out| left_out.iter().any(|left| Some(left.as_str()) == name))
}

/// Whether a step is to fail.
#[cfg(feature = "mutations")]
pub fn fails(step: &str) -> bool {
    let named = |left: &String| left.strip_prefix("fail:") == Some(step);
    LEFT_OUT.get().is_some_and(|left_out| left_out.iter().any(named))
}

#[cfg(not(feature = "mutations"))]
pub const fn keeps(_: Protection) -> bool {
    true
}
