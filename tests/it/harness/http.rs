//! Just enough HTTP/1.1: a client that sees every header, and a server that can vanish.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A message that came in: a response's or a request's.
#[derive(Debug)]
pub struct Message {
    /// Status of a response; 0 in a request.
    pub status: u16,
    /// `POST /path?query` of a request; empty in a response.
    pub target: String,
    /// Headers as they came, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Message {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

/// Reads one message; `None` at the end of the stream.
///
/// # Errors
/// Whatever the stream says, and what is not HTTP.
pub fn read_message(from: &mut impl BufRead) -> io::Result<Option<Message>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let first = words.next().unwrap_or_default().to_string();
    let second = words.next().unwrap_or_default().to_string();
    let response = first.starts_with("HTTP/");
    let status = if response { second.parse().map_err(|_| bad("status line"))? } else { 0 };
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(bad("headers cut short"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad("header"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
    }
    let target = if response { String::new() } else { format!("{first} {second}") };
    let mut message = Message { status, target, headers, body: Vec::new() };
    if message.header("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
        loop {
            let mut size = String::new();
            from.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(|_| bad("chunk size"))?;
            let mut chunk = vec![0; size + 2];
            from.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            message.body.extend_from_slice(&chunk[..size]);
        }
    } else if let Some(length) = message.header("content-length") {
        let length = length.parse().map_err(|_| bad("content-length"))?;
        message.body.resize(length, 0);
        from.read_exact(&mut message.body)?;
    } else if response && ![204, 304].contains(&status) {
        from.read_to_end(&mut message.body)?;
    }
    Ok(Some(message))
}

/// One request on a connection of its own.
///
/// # Errors
/// Whatever the socket says, and answers that are not HTTP.
pub fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Message> {
    let rest = url.strip_prefix("http://").ok_or_else(|| bad("not http://"))?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_nodelay(true)?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    // A server may answer and close before it has read a body it refuses: the answer still counts.
    let sent = stream.write_all(body);
    match read_message(&mut BufReader::new(stream)) {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(sent.err().unwrap_or_else(|| bad("closed without an answer"))),
        Err(error) => Err(sent.err().unwrap_or(error)),
    }
}

/// Sends a `POST` that announces `length` bytes, brings `sent` of them and then nothing more.
///
/// # Errors
/// Whatever the socket says.
pub fn stall(url: &str, headers: &[(&str, &str)], length: usize, sent: usize) -> io::Result<TcpStream> {
    let rest = url.strip_prefix("http://").ok_or_else(|| bad("not http://"))?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&vec![0; sent])?;
    Ok(stream)
}

/// `GET` without more headers.
///
/// # Errors
/// As [`request`].
pub fn get(url: &str) -> io::Result<Message> {
    request("GET", url, &[], b"")
}

/// Percent-encodes a query parameter.
pub fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

/// What a server answers.
pub struct Reply {
    /// Status.
    pub status: u16,
    /// More headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

type Open = Arc<Mutex<Vec<TcpStream>>>;

/// A server on a loopback port; its connections break when it is dropped.
pub struct Server {
    /// Where it listens.
    pub port: u16,
    ended: Arc<AtomicBool>,
    open: Open,
}

impl Server {
    /// Serves until dropped; each connection has a thread of its own.
    pub fn start(answer: impl Fn(Message) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let port = listener.local_addr().expect("bound").port();
        let ended = Arc::new(AtomicBool::new(false));
        let (open, answer) = (Open::default(), Arc::new(answer));
        let (flag, streams) = (ended.clone(), open.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if flag.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                if let Ok(copy) = stream.try_clone() {
                    streams.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
                }
                let answer = answer.clone();
                // A connection ends with whatever error its peer causes; that is not the test's matter.
                std::thread::spawn(move || drop(converse(stream, answer.as_ref())));
            }
        });
        Server { port, ended, open }
    }

    /// Its address.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

fn converse(stream: TcpStream, answer: &(dyn Fn(Message) -> Reply + Send + Sync)) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut from = BufReader::with_capacity(1 << 16, stream);
    while let Some(request) = read_message(&mut from)? {
        let reply = answer(request);
        let mut head = format!("HTTP/1.1 {} Answer\r\n", reply.status);
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if reply.status != 204 {
            head += &format!("Content-Length: {}\r\n", reply.body.len());
        }
        head += "\r\n";
        out.write_all(head.as_bytes())?;
        out.write_all(&reply.body)?;
    }
    Ok(())
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Fails only when the peer has closed it already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the listener so that it sees the flag and frees the port.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}
