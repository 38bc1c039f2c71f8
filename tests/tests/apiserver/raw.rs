//! HTTP by hand: the tests check the bytes on the connection, not a client library's view of them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use lbr_tests::apiserver::Server;
use serde_json::Value;

/// Longer than anything here should take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body came to its end.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Names of a list's items, with their namespaces.
    pub(crate) fn names(&self) -> Vec<String> {
        let list = self.json();
        let items = list["items"].as_array().unwrap_or_else(|| panic!("no list: {list}"));
        items.iter().map(crate::fixtures::name).collect()
    }
}

/// A connection after the head of its response was read.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) code: u16,
    headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
    /// The rest of a chunk.
    pending: Vec<u8>,
}

pub(crate) fn get(server: &Server, path: &str) -> Answer {
    send(server, "GET", path, "", "").rest()
}

pub(crate) fn post(server: &Server, path: &str, body: &Value) -> Answer {
    send(server, "POST", path, "application/json", &body.to_string()).rest()
}

pub(crate) fn put(server: &Server, path: &str, body: &Value) -> Answer {
    send(server, "PUT", path, "application/json", &body.to_string()).rest()
}

pub(crate) fn patch(server: &Server, path: &str, content_type: &str, body: &Value) -> Answer {
    send(server, "PATCH", path, content_type, &body.to_string()).rest()
}

pub(crate) fn delete(server: &Server, path: &str, body: &str) -> Answer {
    send(server, "DELETE", path, "application/json", body).rest()
}

/// Opens a watch.
pub(crate) fn watch(server: &Server, path: &str) -> Open {
    send(server, "GET", path, "", "")
}

pub(crate) fn send(server: &Server, method: &str, path: &str, content_type: &str, body: &str) -> Open {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let status = line(&mut reader);
    let code = status.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {status:?}")).parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let text = line(&mut reader);
        let Some((name, value)) = text.split_once(": ") else { break };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    Open { code, headers, reader, pending: Vec::new() }
}

fn line(reader: &mut BufReader<TcpStream>) -> String {
    let mut text = String::new();
    reader.read_line(&mut text).unwrap();
    text.trim_end().to_owned()
}

impl Open {
    /// Everything up to the end.
    pub(crate) fn rest(mut self) -> Answer {
        let length = self.headers.iter().find(|(name, _)| name == "content-length");
        let length = length.map(|(_, value)| value.parse::<usize>().unwrap());
        let mut body = Vec::new();
        let whole = match length {
            Some(length) => {
                let read = self.reader.read_to_end(&mut body);
                read.is_ok() && body.len() == length
            }
            None => loop {
                match self.chunk() {
                    Chunk::Data(data) => body.extend(data),
                    Chunk::End => break true,
                    Chunk::Broken => break false,
                }
            },
        };
        Answer { code: self.code, headers: self.headers, body, whole }
    }

    fn chunk(&mut self) -> Chunk {
        let mut size = String::new();
        match self.reader.read_line(&mut size) {
            Ok(1..) => {}
            Ok(0) => return Chunk::Broken,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("nothing for {PATIENCE:?}")
            }
            Err(_) => return Chunk::Broken,
        }
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut data = vec![0; size + 2];
        match self.reader.read_exact(&mut data) {
            Ok(()) if size == 0 => Chunk::End,
            Ok(()) => {
                data.truncate(size);
                Chunk::Data(data)
            }
            Err(_) => Chunk::Broken,
        }
    }

    /// The next event, or the end of the watch.
    pub(crate) fn event(&mut self) -> Event {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return serde_json::from_slice(&line).map_or(Event::Malformed, Event::Is);
            }
            match self.chunk() {
                Chunk::Data(data) => self.pending.extend(data),
                Chunk::End => return Event::Ended,
                Chunk::Broken => return Event::Broken(String::from_utf8_lossy(&self.pending).into_owned()),
            }
        }
    }

    /// The next events, abbreviated: `ADDED ns/name`.
    pub(crate) fn short(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.event().short()).collect()
    }

    /// Waits this long for an event that should not come.
    pub(crate) fn silent(&mut self, time: Duration) -> bool {
        self.reader.get_ref().set_read_timeout(Some(time)).unwrap();
        let silent =
            matches!(self.reader.fill_buf(), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        self.reader.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        silent && self.pending.is_empty()
    }
}

enum Chunk {
    Data(Vec<u8>),
    End,
    Broken,
}

/// An item of a watch.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    Is(Value),
    Malformed,
    /// A regular end.
    Ended,
    /// The connection broke, after these bytes of an event.
    Broken(String),
}

impl Event {
    pub(crate) fn value(self) -> Value {
        match self {
            Self::Is(value) => value,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn short(self) -> String {
        match self {
            Self::Is(value) => match value["type"].as_str() {
                Some("BOOKMARK") => format!("BOOKMARK {}", value["object"]["metadata"]["resourceVersion"]),
                Some("ERROR") => format!("ERROR {}", value["object"]["code"]),
                other => format!("{} {}", other.unwrap_or("?"), crate::fixtures::name(&value["object"])),
            },
            other => format!("{other:?}"),
        }
    }
}
