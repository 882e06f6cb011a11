//! The owner of one process: the only task that reads its output, writes its input, and reaps it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags, openat};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::error::ProcessError;
use super::log::{Log, Stream};
use super::spawn::{Ended, Order, Spawned, Spawner, Stdios, nothing};
use crate::blocking::{blocking, watched};
use crate::wire::now_ms;

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;

/// Requests to a process that may wait.
const REQUESTS: usize = 64;

/// How long an exit waits for output that is still in a pipe which somebody else holds open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long an input waits for a process that does not read.
const INPUT_PATIENCE: Duration = Duration::from_secs(10);

/// What may be asked of a process.
#[derive(Debug)]
pub(super) enum Ask {
    Input { data: Bytes, eof: bool, done: oneshot::Sender<Result<u64, ProcessError>> },
}

/// What a process is at the moment.
#[derive(Debug, Clone, Copy)]
pub(super) enum State {
    Running,
    Exited { ended: Ended, at_ms: u64 },
}

/// What others have of a process.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) pid: u32,
    pub(super) log: Arc<Log>,
    pub(super) state: watch::Receiver<State>,
    pub(super) asks: mpsc::Sender<Ask>,
    /// Apart from the rest: a process that does not read its input is killed all the same.
    pub(super) signals: mpsc::Sender<Signal>,
    /// If it has one.
    pub(super) terminal: Option<Arc<AsyncFd<OwnedFd>>>,
    /// Nobody will ask for it any more, whoever may still be reading its log.
    pub(super) forgotten: CancellationToken,
}

/// What is needed to start one.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) command: String,
    pub(super) args: Vec<String>,
    pub(super) cwd: PathBuf,
    pub(super) env: BTreeMap<String, String>,
    pub(super) terminal: Option<Winsize>,
}

/// The owner's ends of a process's streams.
enum Ends {
    Pipes { stdin: pipe::Sender, stdout: pipe::Receiver, stderr: pipe::Receiver },
    Terminal(Arc<AsyncFd<OwnedFd>>),
}

/// Starts a process; gives the handle, and the task to be run as its owner.
pub(super) async fn start(
    spawner: &Spawner,
    plan: Plan,
    log: Arc<Log>,
) -> Result<(Handle, impl Future<Output = ()> + Send + use<>), ProcessError> {
    let os = |what| move |source| ProcessError::Os { what, source };
    let (ends, stdio) = match plan.terminal {
        None => pipes().map_err(os("make pipes"))?,
        Some(size) => terminal(size).map_err(os("open a terminal"))?,
    };
    let order =
        Order { command: plan.command, args: plan.args, cwd: Some(plan.cwd), env: plan.env, stdio };
    let process = spawner.spawn(order).await?;
    let (asks, asked) = mpsc::channel(REQUESTS);
    let (signals, signalled) = mpsc::channel(REQUESTS);
    let (tell, state) = watch::channel(State::Running);
    let forgotten = CancellationToken::new();
    let heard = Heard { asks: asked, signals: signalled, forgotten: forgotten.clone() };
    let terminal = match &ends {
        Ends::Terminal(terminal) => Some(Arc::clone(terminal)),
        Ends::Pipes { .. } => None,
    };
    let pid = process.pid();
    let handle = Handle { pid, log: Arc::clone(&log), state, asks, signals, terminal, forgotten };
    Ok((handle, own(process, ends, log, heard, tell)))
}

fn pipes() -> io::Result<(Ends, Stdios)> {
    let (stdin, to) = pipe_with(PipeFlags::CLOEXEC)?;
    let (from_out, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (from_err, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    for ours in [&to, &from_out, &from_err] {
        rustix::io::ioctl_fionbio(ours, true)?;
    }
    let ends = Ends::Pipes {
        stdin: pipe::Sender::from_owned_fd(to)?,
        stdout: pipe::Receiver::from_owned_fd(from_out)?,
        stderr: pipe::Receiver::from_owned_fd(from_err)?,
    };
    Ok((ends, Stdios::Apart { stdin, stdout, stderr }))
}

fn terminal(size: Winsize) -> io::Result<(Ends, Stdios)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let ours = openat(rustix::fs::CWD, "/dev/ptmx", flags, Mode::empty())?;
    unlockpt(&ours)?;
    let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = ioctl_tiocgptpeer(&ours, peer)?;
    tcsetwinsize(&ours, size)?;
    let ours = Arc::new(watched(ours)?);
    Ok((Ends::Terminal(ours), Stdios::Terminal(theirs)))
}

/// What an owner hears from others.
struct Heard {
    asks: mpsc::Receiver<Ask>,
    signals: mpsc::Receiver<Signal>,
    forgotten: CancellationToken,
}

/// Runs until the process has ended and nobody holds its output open any more.
async fn own(
    mut process: Spawned,
    ends: Ends,
    log: Arc<Log>,
    heard: Heard,
    tell: watch::Sender<State>,
) {
    match ends {
        Ends::Pipes { stdin, stdout, stderr } => {
            let output = async {
                tokio::join!(
                    pump(stdout, Stream::Stdout, &log),
                    pump(stderr, Stream::Stderr, &log)
                );
            };
            live(&mut process, Input::Pipe(Some(stdin)), output, heard, &tell).await;
        }
        Ends::Terminal(terminal) => {
            let output = pump_terminal(Arc::clone(&terminal), &log);
            live(&mut process, Input::Terminal(terminal), output, heard, &tell).await;
        }
    }
}

async fn live(
    process: &mut Spawned,
    mut input: Input,
    output: impl Future<Output = ()>,
    heard: Heard,
    tell: &watch::Sender<State>,
) {
    let Heard { asks: mut asked, mut signals, forgotten } = heard;
    let mut output = pin!(output);
    let mut silent = false;
    let ended = 'alive: loop {
        tokio::select! {
            ended = process.wait() => break ended,
            () = forgotten.cancelled() => {
                process.signal(Signal::KILL);
                break process.wait().await;
            }
            () = &mut output, if !silent => silent = true,
            Some(signal) = signals.recv() => process.signal(signal),
            ask = asked.recv() => match ask {
                Some(ask) => {
                    // Output goes on meanwhile: a process that answers what it reads would else wait
                    // for us while we wait for it.
                    let act = input.act(ask);
                    let mut act = pin!(act);
                    loop {
                        tokio::select! {
                            () = &mut act => break,
                            ended = process.wait() => break 'alive ended,
                            () = &mut output, if !silent => silent = true,
                            Some(signal) = signals.recv() => process.signal(signal),
                            () = forgotten.cancelled() => break,
                        }
                    }
                }
                None => forgotten.cancel(),
            },
        }
    };
    if !silent {
        silent = timeout(LAST_WORDS, &mut output).await.is_ok();
    }
    let ended = ended.unwrap_or_else(|error| {
        tracing::error!(%error, "could not wait for a process");
        Ended { code: None, signal: None }
    });
    drop(input);
    tell.send_replace(State::Exited { ended, at_ms: now_ms() });
    // What it left behind may still write; that is logged as long as anybody may look.
    loop {
        tokio::select! {
            () = &mut output, if !silent => silent = true,
            () = forgotten.cancelled() => return,
            ask = asked.recv() => match ask {
                Some(ask) => refuse(ask),
                None => return,
            },
        }
    }
}

fn refuse(ask: Ask) {
    let Ask::Input { done, .. } = ask;
    drop(done.send(Err(ProcessError::NotRunning)));
}

/// The way to a process's standard input.
enum Input {
    Pipe(Option<pipe::Sender>),
    Terminal(Arc<AsyncFd<OwnedFd>>),
}

impl Input {
    async fn act(&mut self, ask: Ask) {
        match ask {
            Ask::Input { data, eof, done } => {
                let written = timeout(INPUT_PATIENCE, self.write(&data));
                let written = written.await.unwrap_or_else(|_| {
                    Err(io::Error::new(io::ErrorKind::TimedOut, "it does not read its input"))
                });
                if eof && let Self::Pipe(sender) = self {
                    *sender = None;
                }
                let written = match written {
                    Ok(()) => Ok(data.len() as u64),
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        Err(ProcessError::Invalid("the process has closed its input".to_owned()))
                    }
                    Err(source) => Err(ProcessError::Os { what: "write to the process", source }),
                };
                drop(done.send(written));
            }
        }
    }

    async fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Pipe(Some(sender)) => sender.write_all(data).await,
            Self::Pipe(None) => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
            Self::Terminal(terminal) => {
                let mut rest = data;
                while !rest.is_empty() {
                    let mut ready = terminal.writable().await?;
                    let written = ready.try_io(|terminal| {
                        rustix::io::write(terminal.get_ref(), rest).map_err(io::Error::from)
                    });
                    match written {
                        Ok(written) => rest = &rest[written?..],
                        Err(_would_block) => {}
                    }
                }
                Ok(())
            }
        }
    }
}

/// Reads a stream into the log until its end. While the disk is slow nothing is read, and the process waits.
async fn pump(mut from: pipe::Receiver, stream: Stream, log: &Arc<Log>) {
    let mut buffer = Vec::with_capacity(CHUNK);
    loop {
        buffer.clear();
        buffer.reserve(CHUNK);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => buffer = keep(log, stream, buffer).await,
        }
    }
}

/// The same of a terminal. The kernel says EIO when nobody holds the other end any more.
async fn pump_terminal(from: Arc<AsyncFd<OwnedFd>>, log: &Arc<Log>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let Ok(mut ready) = from.readable().await else { return };
        let read = ready.try_io(|from| {
            rustix::io::read(from.get_ref(), &mut buffer[..]).map_err(io::Error::from)
        });
        match read {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(count)) => {
                buffer.truncate(count);
                buffer = keep(log, Stream::Pty, buffer).await;
                buffer.resize(CHUNK, 0);
            }
            Err(_would_block) => {}
        }
    }
}

/// Appends, off the async workers; gives the buffer back.
async fn keep(log: &Arc<Log>, stream: Stream, buffer: Vec<u8>) -> Vec<u8> {
    let log = Arc::clone(log);
    blocking(move || {
        if let Err(error) = log.append(stream, &buffer) {
            // The process must not stop for our disk. Who follows hears nothing of it.
            tracing::error!(%error, "output of a process is lost: its log could not be written");
        }
        buffer
    })
    .await
}

/// Waits until a process has ended, at most so long.
pub(super) async fn until_exited(state: &mut watch::Receiver<State>, patience: Duration) {
    let exited = state.wait_for(|state| matches!(state, State::Exited { .. }));
    tokio::select! {
        _ = exited => {}
        () = sleep(patience) => {}
    }
}

/// For a run: no input, and both outputs in pipes.
pub(super) fn output_pipes() -> io::Result<(pipe::Receiver, pipe::Receiver, Stdios)> {
    let (from_out, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (from_err, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    for ours in [&from_out, &from_err] {
        rustix::io::ioctl_fionbio(ours, true)?;
    }
    let out = pipe::Receiver::from_owned_fd(from_out)?;
    let err = pipe::Receiver::from_owned_fd(from_err)?;
    Ok((out, err, Stdios::Apart { stdin: nothing()?, stdout, stderr }))
}
