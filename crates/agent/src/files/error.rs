//! Why something could not be done with a file, and what the caller is told.

use rustix::io::Errno;

use crate::problem::{Code, Problem};

/// Paths are as the caller wrote them, made absolute.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("invalid path: {0}")]
    Path(String),
    #[error("path leaves the root: {0}")]
    Outside(String),
    #[error("path not found: {0}")]
    NotFound(String),
    #[error("path is not a file: {0}")]
    NotAFile(String),
    #[error("path is not a directory: {0}")]
    NotADirectory(String),
    #[error("destination already exists: {0}")]
    Exists(String),
    #[error("directory is not empty: {0} (say recursive=true to delete what is in it)")]
    NotEmpty(String),
    #[error("not allowed: {0}")]
    Denied(String),
    #[error("files of the kernel are not served: {0} (run `cat` to read one)")]
    Kernel(String),
    #[error("a path cannot be moved into itself: {0}")]
    IntoItself(String),
    #[error("the file has changed: its ETag is {0}")]
    Changed(String),
    #[error("an archive entry {0}")]
    Entry(String),
    #[error("{text}: {path}")]
    Os { path: String, text: String, errno: i32 },
    #[error("the upload broke off")]
    Upload,
}

impl FileError {
    /// What an errno means for a path.
    pub(super) fn of(path: &str, errno: Errno) -> Self {
        let path = path.to_owned();
        match errno {
            Errno::NOENT => Self::NotFound(path),
            Errno::NOTDIR => Self::NotADirectory(path),
            Errno::ISDIR => Self::NotAFile(path),
            Errno::EXIST => Self::Exists(path),
            Errno::NOTEMPTY => Self::NotEmpty(path),
            Errno::ACCESS | Errno::PERM | Errno::ROFS => Self::Denied(path),
            Errno::XDEV => Self::Outside(path),
            Errno::LOOP => {
                Self::Path(format!("too many links, or one of the kernel's own: {path}"))
            }
            Errno::NAMETOOLONG => Self::Path(format!("too long: {path}")),
            Errno::INVAL => Self::Path(path),
            _ => Self::Os { path, text: describe(errno), errno: errno.raw_os_error() },
        }
    }

    /// The name of the errno behind this, for clients that branch on it.
    fn errno(&self) -> Option<&'static str> {
        match self {
            Self::NotFound(_) => Some("ENOENT"),
            Self::NotAFile(_) => Some("EISDIR"),
            Self::NotADirectory(_) => Some("ENOTDIR"),
            Self::Exists(_) => Some("EEXIST"),
            Self::NotEmpty(_) => Some("ENOTEMPTY"),
            Self::Denied(_) | Self::Kernel(_) => Some("EACCES"),
            Self::Outside(_) => Some("EXDEV"),
            Self::Path(_) | Self::IntoItself(_) => Some("EINVAL"),
            Self::Os { errno, .. } => match Errno::from_raw_os_error(*errno) {
                Errno::NOSPC => Some("ENOSPC"),
                Errno::DQUOT => Some("EDQUOT"),
                Errno::FBIG => Some("EFBIG"),
                Errno::BUSY => Some("EBUSY"),
                Errno::MFILE | Errno::NFILE => Some("EMFILE"),
                Errno::IO => Some("EIO"),
                _ => None,
            },
            Self::Changed(_) | Self::Entry(_) | Self::Upload => None,
        }
    }
}

/// The kernel's words for an errno, without the number.
fn describe(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

impl From<FileError> for Problem {
    fn from(error: FileError) -> Self {
        let code = match &error {
            FileError::Path(_)
            | FileError::NotFound(_)
            | FileError::NotAFile(_)
            | FileError::NotADirectory(_)
            | FileError::Exists(_)
            | FileError::IntoItself(_)
            | FileError::Entry(_)
            | FileError::Upload => Code::InvalidRequest,
            FileError::NotEmpty(_) => Code::Conflict,
            FileError::Changed(_) => Code::PreconditionFailed,
            FileError::Outside(_) | FileError::Denied(_) | FileError::Kernel(_) => {
                Code::PermissionDenied
            }
            FileError::Os { .. } => Code::StreamError,
        };
        let problem = Self::new(code, error.to_string());
        match error.errno() {
            Some(name) => problem.with("errno", name),
            None => problem,
        }
    }
}
