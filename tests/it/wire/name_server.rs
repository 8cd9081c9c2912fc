//! A name server that says what its script wants, over UDP and TCP, and remembers what it was asked.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use posthaste::base::task;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// One question.
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// Lower case, without the last dot.
    pub(super) name: String,
    pub(super) over_tcp: bool,
    pub(super) wants_v6: bool,
    /// How often this name and family was asked before.
    pub(super) nth: usize,
    id: [u8; 2],
    /// As it stands in the query.
    bytes: Vec<u8>,
}

/// What stands in an answer.
pub(super) enum Record {
    Address(&'static str),
    Alias(String),
}

/// What is said to a question.
pub(super) enum Reply {
    /// These records, time to live 0, those of the wrong family left out.
    Records(Vec<Record>),
    /// The same, but over UDP only the remark that it did not fit.
    TooLong(Vec<Record>),
    /// A response code.
    Code(u8),
    /// These bytes.
    Raw(Vec<u8>),
    /// A good answer with the wrong number.
    WrongId,
    /// Nothing, ever.
    Silence,
    /// These records, after so long.
    Late(Duration, Vec<Record>),
}

type Script = dyn Fn(&Question) -> Reply + Send + Sync;

/// The server; it runs as long as the runtime does.
pub(super) struct NameServer {
    pub(super) addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    pub(super) async fn start(script: impl Fn(&Question) -> Reply + Send + Sync + 'static) -> Self {
        // The same port for both; somebody else may have taken it for one of them.
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (Arc::new(udp), tcp);
            }
        };
        let addr = tcp.local_addr().unwrap();
        let script: Arc<Script> = Arc::new(script);
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        task::detach(over_udp(udp, Arc::clone(&script), Arc::clone(&asked)));
        task::detach(over_tcp(tcp, script));
        Self { addr, asked }
    }

    /// Names asked for so far, over UDP.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

async fn over_udp(socket: Arc<UdpSocket>, script: Arc<Script>, asked: Arc<Mutex<Vec<String>>>) {
    let mut buffer = [0; 4096];
    while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
        let mut question = Question::read(&buffer[..n], false);
        {
            let mut asked = asked.lock();
            let key = format!("{} {}", question.name, question.wants_v6);
            question.nth = asked.iter().filter(|name| **name == key).count();
            asked.push(key);
        }
        let reply = script(&question);
        let socket = Arc::clone(&socket);
        task::detach(async move {
            if let Some(bytes) = question.answer(reply).await {
                drop(socket.send_to(&bytes, from).await);
            }
        });
    }
}

async fn over_tcp(listener: TcpListener, script: Arc<Script>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let script = Arc::clone(&script);
        task::detach(async move {
            while let Ok(length) = stream.read_u16().await {
                let mut query = vec![0; usize::from(length)];
                if stream.read_exact(&mut query).await.is_err() {
                    return;
                }
                let question = Question::read(&query, true);
                let reply = script(&question);
                let Some(bytes) = question.answer(reply).await else {
                    return;
                };
                let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
                drop(
                    stream
                        .write_all(&[&length, bytes.as_slice()].concat())
                        .await,
                );
            }
        });
    }
}

impl Question {
    fn read(query: &[u8], over_tcp: bool) -> Self {
        let mut labels = Vec::new();
        let mut at = 12;
        while query[at] != 0 {
            let length = usize::from(query[at]);
            let label = &query[at + 1..=at + length];
            labels.push(String::from_utf8(label.to_ascii_lowercase()).unwrap());
            at += 1 + length;
        }
        let end = at + 5;
        Self {
            name: labels.join("."),
            over_tcp,
            wants_v6: query[at + 2] == 28,
            nth: 0,
            id: [query[0], query[1]],
            bytes: query[12..end].to_vec(),
        }
    }

    async fn answer(&self, reply: Reply) -> Option<Vec<u8>> {
        match reply {
            Reply::Records(records) => Some(self.records(&records)),
            Reply::TooLong(records) if self.over_tcp => Some(self.records(&records)),
            Reply::TooLong(_) => Some(self.message(self.id, [0x83, 0x80], 0, &[])),
            Reply::Code(code) => Some(self.message(self.id, [0x81, 0x80 | code], 0, &[])),
            Reply::Raw(bytes) => Some(bytes),
            Reply::WrongId => {
                let id = [self.id[0] ^ 0x55, self.id[1]];
                Some(self.message(id, [0x81, 0x80], 0, &[]))
            }
            Reply::Silence => None,
            Reply::Late(by, records) => {
                let mut clock = tokio::time::interval(by);
                clock.tick().await;
                clock.tick().await;
                Some(self.records(&records))
            }
        }
    }

    fn records(&self, records: &[Record]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut count = 0;
        // Each record belongs to the name asked for, or to the alias before it.
        let mut owner = vec![0xc0, 12];
        for record in records {
            let (kind, data) = match record {
                Record::Address(text) => match text.parse().unwrap() {
                    IpAddr::V4(ip) if !self.wants_v6 => (1_u16, ip.octets().to_vec()),
                    IpAddr::V6(ip) if self.wants_v6 => (28, ip.octets().to_vec()),
                    IpAddr::V4(_) | IpAddr::V6(_) => continue,
                },
                Record::Alias(name) => (5, wire_name(name)),
            };
            count += 1;
            bytes.extend(&owner);
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 0]); // class IN, time to live 0
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(&data);
            if kind == 5 {
                owner = data;
            }
        }
        self.message(self.id, [0x81, 0x80], count, &bytes)
    }

    fn message(&self, id: [u8; 2], flags: [u8; 2], count: u16, records: &[u8]) -> Vec<u8> {
        let mut bytes = [id, flags, [0, 1], count.to_be_bytes(), [0, 0], [0, 0]].concat();
        bytes.extend(&self.bytes);
        bytes.extend(records);
        bytes
    }
}

fn wire_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
