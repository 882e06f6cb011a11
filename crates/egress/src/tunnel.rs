//! Bytes to and from a host that was dialled.

use mutation::{Protection, keeps};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::gate::{Out, PATIENCE, Refusal, Rules, Target};
use crate::host::HostName;
use crate::relay;
use crate::tls::{self, Reading};

/// Relays until both have ended, or policy does not allow it any more: also when nothing moves.
pub(crate) async fn relay_out(
    client: impl AsyncRead + AsyncWrite + Unpin,
    upstream: Out,
) -> Result<(), Refusal> {
    let cut = upstream.is_cut();
    tokio::select! {
        relayed = relay::relay(client, upstream) => Ok(relayed?),
        () = cut => Ok(()),
    }
}

/// Relays TLS to a host, if that is the host the client's hello names.
pub(crate) async fn tunnel_tls(
    rules: &Rules,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    target: &Target,
    port: u16,
) -> Result<(), Refusal> {
    let opening = timeout(PATIENCE, read_hello(stream, target)).await;
    let opening = opening.unwrap_or(Err(Refusal::Silent))?;
    let mut upstream = rules.dial(target, port).await?;
    upstream.write_all(&opening).await?;
    relay_out(stream, upstream).await
}

/// Reads until the ClientHello is whole and says what it must; gives what was read.
async fn read_hello(
    stream: &mut (impl AsyncRead + Unpin),
    target: &Target,
) -> Result<Vec<u8>, Refusal> {
    let mut opening = Vec::with_capacity(2048);
    loop {
        if opening.len() > 2 * tls::LONGEST_HELLO || stream.read_buf(&mut opening).await? == 0 {
            return Err(Refusal::Silent);
        }
        let hello = match tls::read(&opening) {
            Reading::More => continue,
            Reading::Not => return Err(Refusal::Silent),
            Reading::Done(hello) => hello,
        };
        // A name that only the server can read could be any name that server has.
        if hello.encrypted {
            return Err(Refusal::EncryptedName);
        }
        let Target::Name(name) = target else { return Ok(opening) };
        let asked = hello.server_name.as_deref().and_then(|asked| HostName::parse(asked).ok());
        if asked.as_ref() == Some(name) || !keeps(Protection::HelloName) {
            return Ok(opening);
        }
        return Err(Refusal::OtherName { asked: hello.server_name, name: name.clone() });
    }
}
