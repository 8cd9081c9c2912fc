//! One HTTP/1.1 request to the gateway that a sub-command has started on this machine.
//!
//! Not for endpoints: those are called through [`crate::client`], behind the address guard. One
//! connection per call, the answer capped, nothing kept.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer larger than this is an error.
const MAX_ANSWER: u64 = 16 << 20;
/// For the whole exchange.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Calls one server with one key.
#[derive(Clone)]
pub struct Api {
    address: SocketAddr,
    key: String,
}

impl Api {
    /// For the server at `address`; `key` becomes the bearer token.
    pub const fn new(address: SocketAddr, key: String) -> Self {
        Self { address, key }
    }

    /// Sends `body` as JSON and reads the answer: its status, and its body (null if it is no JSON).
    ///
    /// # Errors
    /// The server cannot be reached, or what it says is not HTTP.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(u16, Value)> {
        let body = body.map(ToString::to_string).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            self.address,
            self.key,
            body.len()
        );
        let exchange = self.exchange(head + &body);
        let answer = tokio::time::timeout(TIMEOUT, exchange)
            .await
            .with_context(|| format!("no answer from {} in {TIMEOUT:?}", self.address))??;
        let (status, body) = parse(&answer).context("the answer is not HTTP")?;
        let value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Ok((status, value))
    }

    /// As [`Api::call`], but any other status than `wanted` is an error.
    ///
    /// # Errors
    /// As [`Api::call`]; or the status differs.
    pub async fn must(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        wanted: u16,
    ) -> anyhow::Result<Value> {
        let (status, answer) = self.call(method, path, body).await?;
        if status != wanted {
            bail!("{method} {path}: {status} instead of {wanted}: {answer}");
        }
        Ok(answer)
    }

    async fn exchange(&self, request: String) -> anyhow::Result<Vec<u8>> {
        #[expect(
            clippy::disallowed_methods,
            reason = "to our own gateway on this machine, not to an endpoint"
        )]
        let mut stream = TcpStream::connect(self.address)
            .await
            .with_context(|| format!("cannot connect to {}", self.address))?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        Ok(answer)
    }
}

/// Status and body of a complete answer.
fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let split = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, rest) = answer.split_at_checked(split)?;
    let body = rest.get(4..)?;
    let head = std::str::from_utf8(head).ok()?.to_ascii_lowercase();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let is_chunked = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name == "transfer-encoding" && value.trim() == "chunked");
    if is_chunked {
        return Some((status, unchunk(body)?));
    }
    Some((status, body.to_vec()))
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(rest.get(..line)?).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        let from = line.checked_add(2)?;
        let to = from.checked_add(size)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(from..to)?);
        rest = rest.get(to.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_plain_and_chunked_answers() {
        let plain = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse(plain), Some((202, b"{}".to_vec())));
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n5;x=y\r\n\":1}\n\r\n0\r\n\r\n";
        assert_eq!(parse(chunked), Some((200, b"{\"a\":1}\n".to_vec())));
    }

    #[test]
    fn what_is_cut_off_or_foreign_is_refused() {
        for text in [
            "",
            "HTTP/1.1 200",
            "hello\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nshort",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
