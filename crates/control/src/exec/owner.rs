//! The owner of a running job: reads its output, watches the clock, closes its row.

use std::time::Duration;

use jail::{Jail, Outcome, Pipes, Running};
use jiff::Timestamp;
use store::{JailEnd, Store};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use super::ask::{Ask, Asked};
use super::capture::{Head, Lines};
use super::held::Held;
use super::live::{Live, LiveRows};
use super::meter::Meter;
use super::places::Place;
use super::result::{ExecResult, NetworkUse, ResourceStats, signal_name};
use crate::metrics::Metrics;
use crate::network::Served;

/// How often statistics are taken of what runs.
const SAMPLE: Duration = Duration::from_millis(500);

/// How long output may still come once everything in the jail is killed. It is all in the pipes by
/// then; this is for a kernel that is slow to tear a jail down.
const DRAIN: Duration = Duration::from_secs(5);

/// How long a stream's client may take no event before it counts as gone, and how long after the
/// command's end its row waits for it.
const STALL: Duration = Duration::from_secs(60);
const ROW_WAITS: Duration = Duration::from_secs(2);

/// A pipe's worth.
const CHUNK: usize = 64 * 1024;

/// What happens in a job, as it happens.
#[derive(Debug)]
pub(crate) enum Event {
    Started {
        pid: u32,
    },
    Stdout(String),
    Stderr(String),
    /// Bytes as they came, for who asked for them.
    RawStdout(Vec<u8>),
    RawStderr(Vec<u8>),
    Stats(ResourceStats),
    Completed(ExecResult),
    /// The run was ended from outside.
    Failed {
        message: &'static str,
    },
}

/// Who listens.
#[derive(Debug)]
pub(super) enum Sink {
    Result(oneshot::Sender<ExecResult>),
    Events(mpsc::Sender<Event>, Cut),
}

/// In which pieces output is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Lines,
    /// As it comes.
    Raw,
}

/// What a command reads.
#[derive(Debug)]
pub(crate) enum Input {
    Text(String),
    /// Whatever is sent, until the sender is dropped.
    Live(mpsc::Receiver<bytes::Bytes>),
}

/// A job that runs.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) running: Running,
    pub(super) served: Served,
    pub(super) asked: Asked,
    pub(super) stdin: Option<Input>,
    pub(super) timeout: Duration,
    pub(super) output_limit: usize,
    pub(super) metrics: Metrics,
    pub(super) place: Place,
    pub(super) books: Books,
}

/// What is written down of a job, and what it was lent.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) id: i64,
    pub(super) listed: bool,
    pub(super) held: Held,
    pub(super) meter: Option<Meter>,
    pub(super) store: Store,
    pub(super) live: LiveRows,
}

impl Books {
    /// Gives back what was lent when nothing of the jail is left, and closes the row.
    async fn close(self, jail: &mut Jail, row: impl FnOnce(&Live) -> JailEnd) {
        let Self { id, listed, held, meter, store, live } = self;
        if !held.is_empty() {
            jail.gone().await;
        }
        if let Some(meter) = meter {
            meter.note().await;
        }
        let row = row(&live.remove(id));
        // Before the caller hears: what was acknowledged is in the ledger.
        drop(held);
        if let (true, Err(error)) = (listed, store.end_jail(id, Timestamp::now(), &row).await) {
            tracing::error!(
                jail.id = id,
                error = &error as &dyn std::error::Error,
                "row not closed"
            );
        }
    }
}

/// Which of the two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Why a job ended other than by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    ByItself,
    ClientGone,
    ServerStops,
    Killed,
    /// The tenant has no room left; why, as told.
    Quota(String),
}

/// Sees a job through.
pub(super) async fn own(owned: Owned, mut sink: Sink, stop: &CancellationToken) {
    let Owned {
        running,
        mut served,
        mut asked,
        stdin,
        timeout: timeout_after,
        output_limit,
        metrics,
        place,
        books,
    } = owned;
    let (id, live) = (books.id, books.live.clone());
    let Running { mut jail, pipes, enforced, .. } = running;
    sink.send(Event::Started { pid: jail.pid() }).await;
    let (mut out, mut err) = (Head::new(output_limit), Head::new(output_limit));
    let (input, stdout, stderr) = apart(pipes);
    let feed = feed(input.zip(stdin));
    let left = read(stdout, Stream::Stdout, id, &live, sink.events(), &mut out);
    let right = read(stderr, Stream::Stderr, id, &live, sink.events(), &mut err);
    // What is fed ends with what is read: nobody waits for a caller who goes on typing.
    let mut output = Box::pin(async {
        let read = async { tokio::join!(left, right) };
        let (mut read, mut feed) = (std::pin::pin!(read), std::pin::pin!(feed));
        tokio::select! {
            _ = read.as_mut() => {}
            () = feed.as_mut() => drop(read.await),
        }
    });
    let mut output_ended = false;
    let (outcome, ended) = {
        let aside = (&mut served, &mut asked, books.meter.as_ref());
        let mut end =
            std::pin::pin!(end(&mut jail, timeout_after, &mut sink, id, &live, stop, aside));
        tokio::select! {
            () = output.as_mut() => {
                output_ended = true;
                end.await
            }
            ended = end.as_mut() => ended,
        }
    };
    // What could write is dead: its place is free, though a client may still be reading.
    let network = served.used();
    drop((served, place));
    if !output_ended {
        // All that is left is in the pipes.
        let limit = if sink.is_stream() { ROW_WAITS } else { DRAIN };
        output_ended = timeout(limit, output.as_mut()).await.is_ok();
    }
    books.close(&mut jail, |last| row(&outcome, &enforced, last, &ended, network.as_ref())).await;
    // Whoever asks from now on, or has asked and waits, hears that it has ended: all of it.
    drop(asked);
    metrics.jail_ended(outcome.timed_out, outcome.oom_killed, ended != Reason::ByItself);
    if !output_ended && sink.is_stream() {
        // At the client's own pace, as long as it keeps one.
        tokio::select! {
            () = output.as_mut() => {}
            () = stop.cancelled() => {}
        }
    }
    drop(output);
    match ended {
        Reason::ServerStops => sink.fail("the server stopped").await,
        Reason::ByItself | Reason::ClientGone | Reason::Killed => {
            sink.complete(result(&outcome, out, err, enforced, network)).await;
        }
        Reason::Quota(why) => {
            let result = result(&outcome, out, err, enforced, network);
            sink.complete(ExecResult { error: Some(why), ..result }).await;
        }
    }
}

pub(super) fn result(
    outcome: &Outcome,
    out: Head,
    err: Head,
    enforced: Vec<String>,
    network: Option<NetworkUse>,
) -> ExecResult {
    let (stdout, stdout_truncated) = out.into_text();
    let (stderr, stderr_truncated) = err.into_text();
    ExecResult {
        stdout,
        stderr,
        exit_code: outcome.exit_code(),
        duration_ms: duration_ms(outcome),
        timed_out: outcome.timed_out,
        oom_killed: outcome.oom_killed,
        stats: outcome.statistics.map(ResourceStats::from),
        stdout_truncated,
        stderr_truncated,
        error: None,
        signal: match outcome.exit {
            jail::Exit::Signal(signal) => Some(signal_name(signal)),
            jail::Exit::Code(_) => None,
        },
        enforced,
        network,
    }
}

pub(super) fn row(
    outcome: &Outcome,
    enforced: &[String],
    last: &Live,
    ended: &Reason,
    network: Option<&NetworkUse>,
) -> JailEnd {
    // A server that stops may have lost the group before it could be read: then the last sample.
    let stats = outcome.statistics.map(ResourceStats::from);
    let stats = stats.filter(|stats| *stats != ResourceStats::default()).or(last.stats);
    JailEnd {
        exit_code: Some(outcome.exit_code()),
        duration_ms: Some(duration_ms(outcome)),
        timed_out: Some(outcome.timed_out),
        oom_killed: Some(outcome.oom_killed),
        statistics: stats.map(Into::into),
        stdout: Some(last.stdout.text()),
        stderr: Some(last.stderr.text()),
        error: match ended {
            Reason::ByItself => None,
            Reason::ClientGone => Some("the client went away".to_owned()),
            Reason::ServerStops => Some("the server stopped".to_owned()),
            Reason::Killed => Some("killed on request".to_owned()),
            Reason::Quota(why) => Some(why.clone()),
        },
        enforced: enforced.to_vec(),
        network: network.map(|network| serde_json::json!(network)),
    }
}

fn duration_ms(outcome: &Outcome) -> u64 {
    u64::try_from(outcome.duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Waits for the command, its deadline, the client's going, or the server's; samples meanwhile.
async fn end(
    jail: &mut Jail,
    limit: Duration,
    sink: &mut Sink,
    id: i64,
    live: &LiveRows,
    stop: &CancellationToken,
    (served, asked, meter): (&mut Served, &mut Asked, Option<&Meter>),
) -> (Outcome, Reason) {
    let mut used_up = std::pin::pin!(Meter::used_up(meter));
    let killed = asked.kill.clone();
    let mut ticks = interval_at(Instant::now() + SAMPLE, SAMPLE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let ended = tokio::select! {
            outcome = jail.wait(limit) => return (outcome, Reason::ByItself),
            () = sink.gone() => Reason::ClientGone,
            () = stop.cancelled() => Reason::ServerStops,
            why = used_up.as_mut() => Reason::Quota(why),
            () = killed.cancelled() => Reason::Killed,
            Some(ask) = asked.asks.recv() => {
                // Who takes a snapshot has it; nothing else that the jail may draw out keeps it alive.
                let whole = matches!(ask, Ask::Freeze(_));
                let answered = asked.answer(ask, jail, served);
                if whole {
                    answered.await;
                    continue;
                }
                tokio::select! {
                    () = answered => continue,
                    () = stop.cancelled() => Reason::ServerStops,
                    why = used_up.as_mut() => Reason::Quota(why),
                    () = killed.cancelled() => Reason::Killed,
                }
            }
            _ = ticks.tick() => {
                let stats = ResourceStats::from(jail.statistics());
                live.update(id, |live| live.stats = Some(stats));
                if let Some(meter) = meter {
                    meter.note_nameless(jail.nameless_bytes());
                }
                sink.try_send(Event::Stats(stats));
                continue;
            }
        };
        jail.kill();
        // A process that stands still does not die everywhere; one that is killed goes no further.
        drop(jail.thaw());
        return (jail.wait(limit).await, ended);
    }
}

pub(super) fn apart(
    pipes: Option<Pipes>,
) -> (Option<pipe::Sender>, Option<pipe::Receiver>, Option<pipe::Receiver>) {
    pipes.map_or((None, None, None), |pipes| (pipes.stdin, Some(pipes.stdout), Some(pipes.stderr)))
}

/// Gives a command what it shall read, and then its end.
pub(super) async fn feed(input: Option<(pipe::Sender, Input)>) {
    use tokio::io::AsyncWriteExt as _;
    // A command may end, or close its input, before it has read everything.
    match input {
        None => {}
        Some((mut pipe, Input::Text(text))) => drop(pipe.write_all(text.as_bytes()).await),
        Some((mut pipe, Input::Live(mut pieces))) => {
            while let Some(piece) = pieces.recv().await {
                if pipe.write_all(&piece).await.is_err() {
                    break;
                }
            }
        }
    }
}

/// Reads a stream to its end into the result's head, the ledger's tail and the client's events.
pub(super) async fn read(
    pipe: Option<pipe::Receiver>,
    stream: Stream,
    id: i64,
    live: &LiveRows,
    events: Option<(mpsc::Sender<Event>, Cut)>,
    head: &mut Head,
) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = Vec::with_capacity(CHUNK);
    let mut lines = Lines::default();
    let event = |line| match stream {
        Stream::Stdout => Event::Stdout(line),
        Stream::Stderr => Event::Stderr(line),
    };
    loop {
        chunk.clear();
        match pipe.read_buf(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        live.update(id, |live| match stream {
            Stream::Stdout => live.stdout.push(&chunk),
            Stream::Stderr => live.stderr.push(&chunk),
        });
        match &events {
            None => head.push(&chunk),
            Some((events, Cut::Raw)) => {
                let piece = chunk.clone();
                let event = match stream {
                    Stream::Stdout => Event::RawStdout(piece),
                    Stream::Stderr => Event::RawStderr(piece),
                };
                deliver(events, event).await;
            }
            Some((events, Cut::Lines)) => {
                for line in lines.push(&chunk) {
                    // Waits for a slow client, and with us the command. One that is gone is noticed
                    // elsewhere; what is left is read and thrown away.
                    deliver(events, event(line)).await;
                }
            }
        }
    }
    if let (Some((events, _)), Some(line)) = (&events, lines.finish()) {
        deliver(events, event(line)).await;
    }
}

/// Hands an event over, unless the client takes none for too long.
async fn deliver(events: &mpsc::Sender<Event>, event: Event) {
    drop(events.send_timeout(event, STALL).await);
}

impl Sink {
    pub(super) fn events(&self) -> Option<(mpsc::Sender<Event>, Cut)> {
        match self {
            Self::Result(_) => None,
            Self::Events(events, cut) => Some((events.clone(), *cut)),
        }
    }

    pub(super) async fn send(&mut self, event: Event) {
        if let Self::Events(events, _) = self {
            // One that is gone is noticed by `gone`.
            drop(events.send(event).await);
        }
    }

    /// For what may be left out when the client is slow.
    fn try_send(&self, event: Event) {
        if let Self::Events(events, _) = self {
            drop(events.try_send(event));
        }
    }

    pub(super) async fn complete(self, result: ExecResult) {
        match self {
            Self::Result(sender) => drop(sender.send(result)),
            Self::Events(events, _) => deliver(&events, Event::Completed(result)).await,
        }
    }

    /// Completes when nobody listens any more.
    pub(super) async fn gone(&mut self) {
        match self {
            Self::Result(sender) => sender.closed().await,
            Self::Events(events, _) => events.closed().await,
        }
    }

    fn is_stream(&self) -> bool {
        matches!(self, Self::Events(..))
    }

    /// Says that there is no result. Of a dropped channel the waiting caller makes an error.
    pub(super) async fn fail(self, message: &'static str) {
        if let Self::Events(events, _) = self {
            deliver(&events, Event::Failed { message }).await;
        }
    }
}
